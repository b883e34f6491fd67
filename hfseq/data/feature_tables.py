"""Texts that begin with a vector: colours and their names, images and their captions.

A *table* has a text and a vector of numbers in every row: the packaged `colours`, or .csv, .tsv and .jsonl files (also
.gz) whose `feature_columns` hold the numbers; in .jsonl a column may hold a list. The vector can be anything that was
measured or computed before: an encoder's output, attributes, other statistics. Numbers go to the model as they are, so
bring them to about -1 ... 1 before.

The side of a row (train, validation, test) is a hash of its text up to case and white space: what has the same name is
on the same side, whatever its vector. Names are tokenised like any other documents (`FeatureTable.corpus` into
`build_token_arrays`), and row i of a side is document i of its token array.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..hints import nearest_hint
from .colours import RGB, colour_rows
from .corpora import Corpus
from .files import find_files
from .splits import SPLITS, Split
from .tables import finite_number, read_table

FEATURE_FORMATS = (".csv", ".tsv", ".jsonl")
TextAndVector = tuple[str, str, list[float]]
"""Place, text, vector."""


@dataclass
class FeatureTable:
    """Texts with a vector each, on three sides."""

    name: str
    columns: tuple[str, ...]
    """What the numbers were called."""
    texts: dict[str, list[str]]
    """{side: texts}; a side without rows is left out."""
    features: dict[str, np.ndarray]
    """{side: float32 [texts, width]}."""

    @property
    def width(self) -> int:
        """Numbers in a vector: the model's feature_size."""
        return next(iter(self.features.values())).shape[1]

    def corpus(self) -> Corpus:
        """The texts alone, in the order of the features."""
        return Corpus.from_documents(**self.texts, name=self.name)


def load_features(
    corpus: str | None = None,
    *,
    feature_columns: str | Sequence[str] | None = None,
    train_file: str | list[str] | None = None,
    validation_file: str | list[str] | None = None,
    test_file: str | list[str] | None = None,
    text_column: str = "text",
    validation_share: float = 0.05,
    test_share: float = 0.05,
    split_seed: int = 0,
) -> FeatureTable:
    """A table from its name or from files.

    Args:
        corpus: "colours": 30,222 names of colours. Its columns are red, green and blue from 0 to 1 (the default) and
            CIELAB's lightness, green_red and blue_yellow, about -1 to 1.
        feature_columns: which numbers make the vector, in this order.
        train_file: instead of `corpus`: .csv or .jsonl files, folders or globs.
        validation_file, test_file: sides of their own; then nothing is split off for them. With neither corpus nor
            train_file there is nothing to train on, only these.
        text_column: the column of the text.
        validation_share, test_share, split_seed: as in `hfseq.data.load_corpus`.

    Raises:
        ValueError: no or an unknown source or column, an empty text, a value that is no finite number, vectors of
            different widths, an empty side; each says where.
        FileNotFoundError, ModuleNotFoundError: no such file; the package of `colours` is not installed.
    """
    held_out_alone = corpus is None and not (validation_file is None and test_file is None)
    if (corpus is None) == (train_file is None) and not held_out_alone:
        raise ValueError(
            f"Give either a corpus ('colours') or train_file, not {'both' if corpus else 'neither'}."
        )
    columns = (feature_columns,) if isinstance(feature_columns, str) else tuple(feature_columns or ())
    if corpus is not None:
        if corpus != "colours":
            raise ValueError(
                f"Unknown table {corpus!r}.{nearest_hint(corpus, ['colours'])} Known: colours; your own .csv or .jsonl "
                "goes to train_file."
            )
        columns = columns or RGB
    if not columns:
        raise ValueError("feature_columns is empty: name the columns that hold the numbers of each text.")
    if len(set(columns)) < len(columns):
        raise ValueError(f"feature_columns names a column twice: {', '.join(columns)}.")

    given = {
        side: _file_rows(files, text_column, columns)
        for side, files in (("validation", validation_file), ("test", test_file))
        if files is not None
    }
    split = Split(validation_share, test_share, split_seed).without(given)
    rows: dict[str, list[TextAndVector]] = {side: [] for side in SPLITS}
    has_training = corpus is not None or train_file is not None
    if has_training:
        for row in colour_rows(columns) if corpus else _file_rows(train_file, text_column, columns):
            rows[split.side_of(row[1].lower())].append(row)
    for side, own in given.items():
        rows[side] = list(own)
    name = corpus or str(train_file or validation_file or test_file)
    for side in SPLITS:
        if not rows[side] and (side in given or (has_training and (side == "train" or getattr(split, side)))):
            raise ValueError(
                f"{name}: no row fell on the {side} side (shares: validation {split.validation}, test "
                f"{split.test}). Give more rows, {side}_file, or another share."
            )
    width = next(len(of_side[0][2]) for of_side in rows.values() if of_side)
    for place, _, vector in (row for side in SPLITS for row in rows[side]):
        if len(vector) != width:
            raise ValueError(
                f"{place}: {len(vector)} numbers, but the first row of {name} has {width}: every text needs a vector "
                "of the same width."
            )
    return FeatureTable(
        name=name,
        columns=columns,
        texts={side: [text for _, text, _ in of_side] for side, of_side in rows.items() if of_side},
        features={
            side: np.array([vector for _, _, vector in of_side], dtype=np.float32)
            for side, of_side in rows.items()
            if of_side
        },
    )


def _file_rows(files: Any, text_column: str, columns: Sequence[str]) -> Iterator[TextAndVector]:
    patterns = [files] if isinstance(files, (str, os.PathLike)) else files
    for path in (p for pattern in patterns for p in find_files(pattern, FEATURE_FORMATS)):
        for place, row in read_table(
            path, [text_column, *columns], remedy="See text_column and feature_columns."
        ):
            text = row[text_column]
            if not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"{place}: column {text_column!r} holds {text!r}, which is no text. Remove the row."
                )
            numbers: list[float] = []
            for column in columns:
                value = row[column]
                for number in value if isinstance(value, list) else [value]:
                    numbers.append(finite_number(number, f"{place}, column {column!r}"))
            yield place, text, numbers
