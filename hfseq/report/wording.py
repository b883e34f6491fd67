"""Sentences that say what was measured and no more: they are chosen by the numbers, never written before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .statistics import Interval


def number(value: float, digits: int = 3) -> str:
    """A value to so many significant digits: 1234.5 is 1,230, 0.00456 stays; tiny and huge ones by their power."""
    if value == 0:
        return "0"
    if abs(value) >= 1e7 or abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e+")
    if abs(value) >= 10**digits:
        return f"{float(f'{value:.{digits}g}'):,.0f}"
    text = f"{value:#.{digits}g}".rstrip(".")
    return text


def counted(count: int, what: str) -> str:
    """ "1 core", "2 cores"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def told(value: Interval, digits: int = 3) -> str:
    """The mean and what it may be off by: "0.931 ± 0.020"; one value without."""
    mean = number(value.mean, digits)
    if value.margin is None:
        return mean
    places = len(mean.partition(".")[2]) if "e" not in mean else None
    margin = number(value.margin, 2) if places is None else f"{value.margin:,.{places}f}"
    return f"{mean} ± {margin}"


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def ranked(
    values: Mapping[str, Interval],
    *,
    higher_is_better: bool,
    what: str,
    unit: str = "",
    best: str = "best",
    digits: int = 3,
) -> list[str]:
    """Who came first, and between whom the run shows a difference.

    Args:
        values: of each contestant.
        what: is measured: "accuracy at distance 128".
        unit: follows a number, with its space: " %".
        best: what the first one is: "best", "fastest".
    """
    if not values:
        return []
    order = sorted(values, key=lambda name: values[name].mean, reverse=higher_is_better)
    first = values[order[0]]
    told_all = listed([f"{name} {told(values[name], digits)}{unit}" for name in order])
    sentences = [f"{what[0].upper()}{what[1:]}: {told_all}."]
    if len(order) == 1:
        return sentences
    if any(value.margin is None for value in values.values()):
        return [*sentences, "With one run of some, there is no telling what is chance."]
    level = [name for name in order[1:] if values[name].overlaps(first)]
    behind = [name for name in order[1:] if name not in level]
    if level:
        sentences.append(
            f"The intervals of {listed([order[0], *level])} overlap: between them this run shows no difference"
            + (f", but it shows one from {listed(behind)}." if behind else ".")
        )
    else:
        sentences.append(f"{order[0]} is {best}: its interval overlaps no other's.")
    return sentences


def change(name: str, before: Interval, after: Interval, what: str, cause: str, unit: str = "") -> str:
    """Whether `cause` moved a number: with intervals, or that the run does not show it."""
    numbers = f"{told(before)}{unit} to {told(after)}{unit}"
    if before.overlaps(after):
        return f"{name}: {what} goes from {numbers} {cause}; the intervals overlap, so this run shows no difference."
    direction = "rises" if after.mean > before.mean else "falls"
    return f"{name}: {what} {direction} from {numbers} {cause}."


__all__ = ["change", "counted", "listed", "number", "ranked", "told"]
