"""Data sets of the Hub, opened by `datasets`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..hints import nearest_hint
from .fingerprints import fingerprint_of


@dataclass(frozen=True)
class HubDataset:
    """A data set of the Hub, opened but not yet read."""

    sides: Any
    """Rows by the name of their side; there is "train"."""
    key: tuple[str, str, str]
    """Id, configuration and revision (commit): what stands for the content in fingerprints, which would need a whole
    pass over it."""

    def fingerprint(self, *reading: Any) -> str:
        """Of this data set, read in this way."""
        return fingerprint_of([*self.key, *reading])

    def size(self, side: str) -> int | None:
        """Bytes of a side, as the Hub says; None where it does not."""
        splits = getattr(getattr(self.sides[side], "info", None), "splits", None) or {}
        return getattr(splits.get(side), "num_bytes", None) or None


def open_hub_dataset(
    identifier: str, streaming: bool, *, known: Iterable[str], kind: str = "corpus"
) -> HubDataset:
    """Opens "org/name" or "org/name:configuration".

    Args:
        known: the corpora that hfseq knows by name, for messages; `kind`: what is read, likewise.

    Raises:
        ValueError: no such id, or a data set without a train side.
        ModuleNotFoundError: datasets is not installed.
    """
    known = list(known)
    name, _, configuration = identifier.partition(":")
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or os.path.exists(identifier):
        hint = " Local files go to train_file." if os.path.exists(identifier) else ""
        raise ValueError(
            f"Unknown {kind} {identifier!r}.{nearest_hint(identifier, known)}{hint} Known: {', '.join(known)}, "
            "or a Hub data set id of the form org/name or org/name:configuration."
        )
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Reading the Hub data set {identifier} needs datasets: pip install datasets"
        ) from error
    revision = datasets.load_dataset_builder(name, configuration or None).hash
    sides = datasets.load_dataset(name, configuration or None, streaming=streaming)
    if "train" not in sides:
        raise ValueError(
            f"{identifier} has no train side; there are {', '.join(sides)}. Save the one you mean as .jsonl and give "
            "it as train_file."
        )
    return HubDataset(sides, (name, configuration, revision))
