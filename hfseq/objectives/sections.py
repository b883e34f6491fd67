"""The fields that sections of pretraining recipes have, whatever the objective: `data`, `tokenizer`, `training`.

Each objective has its own fields in its own file. The data section of translation and of texts from vectors is another
one than that of plain text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoTokenizer

from .. import data
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
    cache_dir: str | None = None
    """Where token arrays are kept; default: $HFSEQ_CACHE, else ~/.cache/hfseq."""


@dataclass
class Tokenizer:
    """How text becomes ids."""

    type: str = "bpe"
    """An algorithm to train: bpe, wordpiece, unigram, word, character."""
    vocab_size: int = 4096
    """Vocabulary of a trained tokenizer; the model's is this rounded up to a multiple of 64."""
    lowercase: bool = False
    """Lower-case the text before tokenising (byte-level tokenizers then no longer give the text back exactly)."""
    path: str | None = None
    """A trained tokenizer's directory or Hub id, in place of the other fields."""

    def __post_init__(self) -> None:
        if self.path is None and self.type not in data.ALGORITHMS:
            raise ValueError(
                f"type {self.type!r} is none of the algorithms {', '.join(data.ALGORITHMS)}. A trained tokenizer's "
                "directory or Hub id goes to tokenizer.path."
            )


@dataclass
class PairTokenizer(Tokenizer):
    """How sources and targets become ids."""

    vocabulary: str = "joint"
    """One trained tokenizer for both languages (joint), or one for each (separate)."""


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


def saved_tokenizer(path: str, load: Callable | None = None) -> Any:
    """The tokenizer (or what `load`, such as `load_pair_tokenizers`, makes) of a directory or Hub id.

    Raises:
        ValueError: none can be loaded from there.
    """
    try:
        return (load or AutoTokenizer.from_pretrained)(str(user_path(path)))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer.path {path!r}: no tokenizer could be loaded from there: {error}"
        ) from error


__all__ = ["PairTokenizer", "TextData", "Tokenizer", "Training", "saved_tokenizer"]
