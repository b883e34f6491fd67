"""What an error message can add to help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_hint(word: str, known: Iterable[str]) -> str:
    """The end of a message that names the nearest known word; empty where none is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
