"""The first shards of a corpus: token arrays to train on while the rest of the text is still being tokenised.

A *shard* is a stretch of the corpus, 64 million characters over all sides. A build closes the batches of all sides
where one ends, brings them to the disk and notes where every array stood. Where shards end follows from the text alone,
so the first N are the same tokens whenever they are taken, by whomever, and however far the build has come since.

They are taken by copying: what training maps are files of its own (2 or 4 bytes a token), an ordinary set of token
arrays with its own fingerprint, to which the build that goes on does nothing. A run on N shards is thus resumed on the
very same ones, or refused.

Documents are on the side that they are on in the whole corpus; what is held out are the held-out documents of these
shards, few where the shards are few. `validation_file` and `test_file` come before all other text, and are whole in the
first shards.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .token_arrays import FORMAT_VERSION, ArrayWriter

# Characters of a shard: some twenty seconds of a core's tokenising.
SHARD_CHARACTERS = 1 << 26
TABLE = "shards.json"
JOURNAL = "journal.json"


@dataclass(frozen=True)
class Shards:
    """What of a corpus is finished."""

    folder: Path
    """Where the arrays are."""
    ends: list[dict[str, dict[str, int]]]
    """Of each shard, {side: the state of its `ArrayWriter` where the shard ends}; no side before its first document."""
    complete: bool
    """Whether this is the whole corpus."""
    about: int | None
    """How many shards the corpus has, judged by the bytes read so far; None: nobody knows."""

    def first(self, number: int) -> str:
        """What the first `number` of them are a part of, for people."""
        if self.complete:
            return f"the first {number} of {len(self.ends)} shards"
        known = f"about {max(self.about, len(self.ends))}" if self.about else "an unknown number of"
        return f"the first {number} of {known} shards ({len(self.ends)} are finished)"


def partial_folder(target: Path) -> Path:
    """Where the arrays are that will be renamed to `target`."""
    return target.parent / f"{target.name}.partial"


def check_shards(number: Any) -> None:
    """ValueError for what is no number of shards."""
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise ValueError(
            f"shards must be a whole number from 1 on, or null for the whole text, not {number!r}."
        )


def finished_shards(target: Path) -> Shards | None:
    """Of the token arrays that are `target`, or will be when they are finished; None: no build has begun.

    Raises:
        ValueError: arrays that an earlier version of hfseq built, which noted no shards.
    """
    if target.is_dir():
        try:
            ends = json.loads((target / TABLE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ValueError(
                f"{target} has no {TABLE}: it was built before shards were noted. Leave out shards, or delete "
                f"{target}; it will be built again."
            ) from None
        return Shards(target, ends, True, len(ends))
    folder = partial_folder(target)
    try:
        journal = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if journal.get("format") != FORMAT_VERSION or journal.get("shard_characters") != SHARD_CHARACTERS:
        return None  # of another version; the next build begins anew
    return Shards(folder, journal["shards"], False, journal["about_shards"])


def copy_first(target: Path, number: int, folder: Path, fingerprint: str, name: str) -> None:
    """Makes `folder`, the token arrays of the first shards of `target`, finished or in the making.

    Args:
        name: of the corpus, for messages.

    Raises:
        ValueError: there are fewer shards, no training text in them, or damaged tokens.
        FileNotFoundError: the build was finished, or began anew, at this very moment: try again.
    """
    found = finished_shards(target)
    if found is None or (len(found.ends) < number and not found.complete):
        raise FileNotFoundError(f"{partial_folder(target)} no longer has {number} shards.")
    if len(found.ends) < number:
        raise ValueError(
            f"shards is {number}, but {name} has only {len(found.ends)}: leave it out, or ask for fewer."
        )
    sides = found.ends[number - 1]
    if "train" not in sides:
        raise ValueError(
            f"{name}: the first {number} shards hold no training text, for held-out files come first. Raise shards."
        )
    part = partial_folder(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for side, state in sides.items():
        source = found.folder / side
        with open(source / "tokens.bin", "rb") as tokens:
            writer = ArrayWriter(part / side, state["vocab_size"], state["end_id"])
            writer.copy(tokens, _lengths(source, state["n_documents"]), state)
            writer.close(fingerprint)
    os.replace(part, folder)


def _lengths(folder: Path, count: int) -> np.ndarray:
    """int64 [count]: tokens of the first documents of a side, their end tokens included."""
    try:
        return np.fromfile(folder / "lengths.bin", np.int64, count)
    except FileNotFoundError:  # the side is finished
        return np.diff(np.load(folder / "offsets.npy", mmap_mode="r")[: count + 1])


__all__ = ["Shards", "check_shards", "copy_first", "finished_shards", "partial_folder"]
