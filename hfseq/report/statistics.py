"""A mean over seeds, its 95% interval, and what may be said of two of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t, 97.5%, for 1, 2, 3, ... degrees of freedom; beyond, the normal distribution's value.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)
NORMAL = 1.960


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its 95% interval."""

    mean: float
    margin: float | None
    """None: one value has no interval."""
    count: int
    """Values that it is the mean of."""

    @property
    def low(self) -> float:
        """The interval's lower end; of one value the value."""
        return self.mean - (self.margin or 0.0)

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.mean + (self.margin or 0.0)

    def overlaps(self, other: Interval) -> bool:
        """Whether the two intervals have a value in common, or one of the two is not known."""
        if self.margin is None or other.margin is None:
            return True
        return self.low <= other.high and other.low <= self.high


def interval(values: Sequence[float]) -> Interval:
    """Of values that seeds gave, taken as draws from one normal distribution.

    Raises:
        ValueError: there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("There is no mean of no values.")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    t = STUDENT[n - 2] if n - 2 < len(STUDENT) else NORMAL
    return Interval(mean, t * deviation / math.sqrt(n), n)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent of y = a x^slope that fits best in logarithms: 1 is proportional, 2 grows with the square.

    Raises:
        ValueError: fewer than two points.
    """
    if len(x) < 2:
        raise ValueError("A slope needs two points.")
    a, b = [math.log(v) for v in x], [math.log(v) for v in y]
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    spread = sum((v - mean_a) ** 2 for v in a)
    return sum((v - mean_a) * (w - mean_b) for v, w in zip(a, b, strict=True)) / spread


__all__ = ["Interval", "interval", "slope"]
