"""What an error message can add to help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_hint(word: object, known: Iterable[object]) -> str:
    """The end of a message that names the nearest known word, such as " Did you mean 'corpus'?"; empty where none is
    near.

    Args:
        word: what was given, of whatever type; known: what there is.
    """
    matches = difflib.get_close_matches(str(word), list(map(str, known)), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
