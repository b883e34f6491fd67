"""Texts of different lengths that lie one after the other in flat arrays, handled all at once."""

from __future__ import annotations

import numpy as np


def within(counts: np.ndarray) -> np.ndarray:
    """0 .. counts[0] - 1, 0 .. counts[1] - 1, ...: int64 [sum of counts]."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)


def copy_texts(
    target: np.ndarray, places: np.ndarray, tokens: np.ndarray, begins: np.ndarray, lengths: np.ndarray
) -> None:
    """target[places[i] : places[i] + lengths[i]] = tokens[begins[i] : begins[i] + lengths[i]] for all i."""
    inside = within(lengths)
    target[np.repeat(places, lengths) + inside] = tokens[np.repeat(begins, lengths) + inside]
