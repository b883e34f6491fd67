"""The fields that sections of pretraining recipes have, whatever the objective: `data`, `tokenizer`, `training`.

Each objective has its own fields in its own file. The data section of translation and of texts from vectors is another
one than that of plain text.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import data
from ..data.files import missing_file
from ..data.shards import check_shards
from ..data.splits import Split, deduplication, missing_side
from ..paths import user_path


@dataclass
class TextData:
    """What is read, and how it is split."""

    corpus: str | list[str] | None = None
    """A packaged demo ("kjv", "wiki", "imdb"), a Hub data set id ("org/name", "org/name:configuration"), or several."""
    train_file: str | list[str] | None = None
    """Local text instead: files, folders or globs of .txt, .jsonl, .csv, .parquet, each also .gz."""
    validation_file: str | list[str] | None = None
    """Validation text; without it `validation_share` of the documents is set aside."""
    test_file: str | list[str] | None = None
    """Test text; without it `test_share` of the documents is set aside."""
    text_column: str = "text"
    """The column (or JSON key) that holds the text."""
    txt_document: str = "paragraph"
    """What is a document in a .txt file: "paragraph", "line" or "file"."""
    validation_share: float = 0.05
    """Share of documents set aside for validation, chosen by a hash of each document."""
    test_share: float = 0.05
    """Share of documents set aside for testing, chosen likewise."""
    split_seed: int = 0
    """Another number is another split."""
    deduplicate: bool | str = False
    """Drop documents that repeat an earlier one: "whitespace" (or true) up to white space, "exact" letter by letter."""
    streaming: bool = False
    """Read a Hub data set without downloading it first."""
    held_out_limit: int | None = 20_000_000
    """At most so many bytes on each side that is set aside of a huge corpus; null: no limit."""
    shards: int | None = None
    """Only the first so many shards, 64 million characters each: training begins when they are finished, also while
    another process builds the token arrays of the rest. null: the whole text."""
    cache_dir: str | None = None
    """Where token arrays are kept; default: $HFSEQ_CACHE, else ~/.cache/hfseq."""


@dataclass
class Tokenizer:
    """How text becomes ids: a tokenizer that is trained, or one that is there."""

    type: str | None = None
    """An algorithm to train: bpe (the default), wordpiece, unigram, word, character."""
    vocab_size: int | None = None
    """Vocabulary of a trained tokenizer, 4096 by default; the model's is this rounded up to a multiple of 64."""
    lowercase: bool | None = None
    """Lower-case the text before tokenising (byte-level tokenizers then no longer give the text back exactly)."""
    path: str | None = None
    """A trained tokenizer's directory or Hub id, in place of the other fields."""

    def __post_init__(self) -> None:
        if self.path is None:
            for name, value in self.defaults().items():
                if getattr(self, name) is None:
                    setattr(self, name, value)
            if self.type not in data.ALGORITHMS:
                raise ValueError(
                    f"type {self.type!r} is none of the algorithms {', '.join(data.ALGORITHMS)}. A trained "
                    "tokenizer's directory or Hub id goes to tokenizer.path."
                )
            return
        given = [name for name in self.defaults() if getattr(self, name) is not None]
        if given:
            raise ValueError(
                f"path {self.path!r} names a tokenizer as it is: {', '.join(given)} would change nothing. Leave out "
                "the one or the other."
            )

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Of what trains a tokenizer."""
        return {"type": "bpe", "vocab_size": 4096, "lowercase": False}


@dataclass
class PairTokenizer(Tokenizer):
    """How sources and targets become ids."""

    vocabulary: str | None = None
    """One trained tokenizer for both languages (joint, the default), or one for each (separate)."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        return {**super().defaults(), "vocabulary": "joint"}


@dataclass
class Training:
    """What `TrainingArguments` lacks."""

    optimizer: str = "adamw"
    """adamw, muon (matrices by Muon, the rest by AdamW) or ntasgd (SGD, averaged once validation stalls)."""
    optimizer_arguments: dict[str, Any] = field(default_factory=dict)
    """More arguments of that optimizer, e.g. {nonmono: 5}."""
    initialize_from: str | None = None
    """A checkpoint directory (or Hub id) whose weights the run starts from; tokenizer.path must name it too."""
    average_checkpoints: int = 0
    """After training, average the weights of the last N checkpoints; kept if validation is better for it. 0: no."""
    prompt: str | None = None
    """After training, continue (or translate, or fill in) this text and print the result."""
    note: str | None = None
    """What readers of the card should know of this recipe."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    """What was tried before these values were chosen, e.g. {learning_rate: 0.001, validation: 2.3}; for the card."""


def check_sources(section: Any) -> None:
    """Refuses a data section that cannot be right, before anything of it is read.

    Args:
        section: with `corpus`, `train_file` and the other fields that say how text is split.

    Raises:
        ValueError: neither or both of corpus and train_file, shares or a seed that are none, nothing to validate with.
        FileNotFoundError: a file that is not there.
    """
    if (section.corpus is None) == (section.train_file is None):
        both = "neither" if section.corpus is None else "both"
        raise ValueError(f"Give either a corpus (data.corpus) or files (data.train_file), not {both}.")
    for name in ("train_file", "validation_file", "test_file"):
        given = getattr(section, name)
        for text in [given] if isinstance(given, str) else given or []:
            path = user_path(text)
            if not path.exists() and not glob.glob(str(path), recursive=True):
                raise FileNotFoundError(f"data.{name}: {missing_file(path, 'file or folder')}")
    Split(section.validation_share, section.test_share, section.split_seed)
    deduplication(getattr(section, "deduplicate", False))
    check_shards(getattr(section, "shards", None))
    if section.train_file is not None and section.validation_file is None and section.validation_share == 0:
        raise ValueError(missing_side("validation", ()))


def saved_tokenizer(path: str, load: Callable | None = None) -> Any:
    """The tokenizer (or what `load`, such as `load_pair_tokenizers`, makes) of a directory or Hub id.

    Raises:
        ValueError: none can be loaded from there.
    """
    try:
        return (load or data.read_tokenizer)(str(user_path(path)))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer.path {path!r}: no tokenizer could be loaded from there: {error}"
        ) from error


__all__ = ["PairTokenizer", "TextData", "Tokenizer", "Training", "saved_tokenizer"]
