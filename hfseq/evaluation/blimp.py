"""BLiMP: of 67,000 pairs of sentences that differ minimally, how often is the grammatical one the more probable?

Warstadt et al. (2020): 67 paradigms of 1,000 pairs, in 12 phenomena of 4 fields. Whole sentences are compared ("full-
sentence method"), by `likelihoods`.

**Accuracy** is in per cent. That of a phenomenon, of a field and of all is the mean over its paradigms, each weighing
the same, as Warstadt et al. and the group of lm-evaluation-harness (0.4.13: `weight_by_size: false`) have it.

**Ties are wrong**, and counted beside: a model that cannot tell two sentences apart does not know which is right, and a
pipeline that counts ties as right gives a perfect score to a model that finds all sentences equally probable. A tie is
a difference of at most TIE; sums of float32 differ by that much for nothing (of a model that looks at single words
only, two orders of the same words are equal). lm-evaluation-harness counts a tie as right: `accuracy_with_ties_right`
is its number. It also puts a space before each sentence, which changes the first token of most tokenizers:
`leading_space=True`.

Seven pairs of the published data hold twice the same sentence (two of passive_1, five of principle_A_case_2): no model
can be right there. They are among the ties. In a file of one's own such a pair is an error.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data.files import missing_file
from ..data.tables import read_table
from ..paths import user_path

TIE = 1e-5
"""In nats. Of a trained model's 67,000 pairs less than one is expected to lie so near by chance."""
# The data write one field in two ways, and two of the paper's nine paradigms of argument structure as a phenomenon.
AS_PUBLISHED = {"syntax/semantics": "syntax_semantics", "s-selection": "argument_structure"}
COLUMNS = ("paradigm", "field", "phenomenon", "good", "bad")
HUB_ID = "nyu-mll/blimp"
HUB_COLUMNS = {
    "paradigm": "UID",
    "field": "field",
    "phenomenon": "linguistics_term",
    "good": "sentence_good",
    "bad": "sentence_bad",
}
SYSTEMS = {
    "ngram_5": "5-gram",
    "lstm_gulordova": "LSTM (Gulordova et al.)",
    "transformer_xl": "Transformer-XL",
    "gpt2_large": "GPT-2 large",
}
"""Columns of the authors' results, and what they are."""


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences, of which one is grammatical."""

    paradigm: str
    field: str
    phenomenon: str
    good: str
    bad: str
    place: str
    """File and line, for messages."""


def read_minimal_pairs(
    file: str | os.PathLike | None = None, *, limit: int | None = None
) -> list[MinimalPair]:
    """The pairs of a table with the columns COLUMNS; without a file BLiMP's.

    Args:
        file: a .tsv, .csv or .jsonl, also .gz. None: $HFSEQ_DATA/blimp/blimp.tsv.gz, else `nyu-mll/blimp` of the Hub.
        limit: only the first so many pairs of each paradigm.

    Raises:
        ValueError: a missing column, an empty sentence or name, a paradigm in two phenomena or fields, no pairs; in a
            file of the user's also two equal sentences. Each names its place.
        OSError: no such file; the Hub cannot be asked.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"The limit must be at least 1 pair a paradigm, not {limit}.")
    path: Path | None
    if file is not None:
        path = user_path(file)
        if not path.is_file():
            raise FileNotFoundError(missing_file(path))
        rows = _rows_of(path)
    else:
        path = _packed_file()
        rows = _rows_of(path) if path else _hub_rows()
    pairs = []
    kinds: dict[str, tuple[str, str]] = {}
    counts: Counter[str] = Counter()
    for place, row in rows:
        pair = _pair(place, row, {} if file is not None else AS_PUBLISHED)
        if file is not None and pair.good == pair.bad:
            raise ValueError(
                f"{place}: good and bad are the same sentence, {pair.good!r:.80}, so that no model can be right. Take "
                "the pair out, or mend it."
            )
        kind = kinds.setdefault(pair.paradigm, (pair.field, pair.phenomenon))
        if kind != (pair.field, pair.phenomenon):
            raise ValueError(
                f"{place}: paradigm {pair.paradigm!r} is of {pair.field} / {pair.phenomenon} here, of "
                f"{' / '.join(kind)} above: a paradigm has one field and one phenomenon."
            )
        counts[pair.paradigm] += 1
        if limit is None or counts[pair.paradigm] <= limit:
            pairs.append(pair)
    if not pairs:
        raise ValueError(f"{path or HUB_ID} holds no pairs.")
    return pairs


def published_accuracies(paradigms: Iterable[str]) -> dict[str, dict[str, float]]:
    """{system: {paradigm: per cent}} of Warstadt et al. (2020), from $HFSEQ_DATA/blimp/published.tsv.

    Empty where that file is not there, or does not have just these paradigms: the means would be of other pairs.
    """
    packed = _packed_file()
    file = packed.with_name("published.tsv") if packed else None
    if file is None or not file.is_file():
        return {}
    rows = [row for _, row in read_table(file, ("paradigm", *SYSTEMS))]
    if {row["paradigm"] for row in rows} != set(paradigms):
        return {}
    return {
        name: {row["paradigm"]: 100 * float(row[column]) for row in rows} for column, name in SYSTEMS.items()
    }


@dataclass(frozen=True)
class BlimpResult:
    """A model's scores of pairs."""

    pairs: Sequence[MinimalPair]
    good: np.ndarray
    """[pairs], log-probability of each grammatical sentence in nats."""
    bad: np.ndarray
    """[pairs], likewise of each ungrammatical one."""

    @property
    def right(self) -> np.ndarray:
        """[pairs], bool."""
        return self.good - self.bad > TIE

    @property
    def ties(self) -> np.ndarray:
        """[pairs], bool."""
        return np.abs(self.good - self.bad) <= TIE

    @property
    def by_paradigm(self) -> dict[str, float]:
        """Accuracy of each, in per cent, in the order of the data."""
        return self._by_paradigm(self.right)

    @property
    def accuracy(self) -> float:
        """The mean over the paradigms, in per cent."""
        return _mean(self.by_paradigm.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON: accuracies in per cent, numbers of pairs and of ties."""
        by_paradigm = self.by_paradigm
        sizes = Counter(pair.paradigm for pair in self.pairs)
        ties = Counter(pair.paradigm for pair, tie in zip(self.pairs, self.ties, strict=True) if tie)
        return {
            "accuracy": self.accuracy,
            "accuracy_with_ties_right": _mean(self._by_paradigm(self.right | self.ties).values()),
            "pairs": len(self.pairs),
            "ties": int(self.ties.sum()),
            "equal_pairs": sum(pair.good == pair.bad for pair in self.pairs),
            "by_field": grouped(self.pairs, by_paradigm, "field"),
            "by_phenomenon": grouped(self.pairs, by_paradigm, "phenomenon"),
            "by_paradigm": {
                name: {"accuracy": value, "pairs": sizes[name], "ties": ties[name]}
                for name, value in by_paradigm.items()
            },
        }

    def _by_paradigm(self, counted: np.ndarray) -> dict[str, float]:
        answers: dict[str, list[bool]] = {}
        for pair, is_counted in zip(self.pairs, counted, strict=True):
            answers.setdefault(pair.paradigm, []).append(bool(is_counted))
        return {name: 100 * _mean(values) for name, values in answers.items()}


class SentenceScorer(Protocol):
    """What `judge` needs of a model: a `Likelihood`, or an `NgramLikelihood`."""

    def encode(self, texts: Sequence[str], places: Sequence[str]) -> list[Any]:
        """What it reads of each text; `places` for messages."""

    def sentence_scores(self, sentences: Any) -> np.ndarray:
        """Natural logarithms of their probabilities, [sentences]."""


def judge(
    likelihood: SentenceScorer, pairs: Sequence[MinimalPair], *, leading_space: bool = False
) -> BlimpResult:
    """Scores both sentences of each pair.

    Args:
        leading_space: a space stands before each sentence, as in lm-evaluation-harness. By default none does: a
            sentence begins as a document does.

    Raises:
        ValueError: a sentence that is no token or too long. FloatingPointError: see `Likelihood.log_probabilities`.
    """
    space = " " * leading_space
    texts = [space + sentence for pair in pairs for sentence in (pair.good, pair.bad)]
    places = [pair.place for pair in pairs for _ in range(2)]
    scores = likelihood.sentence_scores(likelihood.encode(texts, places)).reshape(-1, 2)
    return BlimpResult(pairs, scores[:, 0], scores[:, 1])


def grouped(pairs: Iterable[MinimalPair], by_paradigm: Mapping[str, float], level: str) -> dict[str, float]:
    """The mean over the paradigms of each "field" or "phenomenon", in the order of the data.

    A phenomenon whose paradigms are of two fields (npi_licensing, binding) is one; its field is each paradigm's own.
    """
    group_of = {pair.paradigm: getattr(pair, level) for pair in pairs}
    groups: dict[str, list[float]] = {}
    for paradigm, group in group_of.items():
        groups.setdefault(group, []).append(by_paradigm[paradigm])
    return {group: _mean(values) for group, values in groups.items()}


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _packed_file() -> Path | None:
    root = os.environ.get("HFSEQ_DATA")
    path = user_path(root) / "blimp" / "blimp.tsv.gz" if root else None
    return path if path is not None and path.is_file() else None


def _rows_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return read_table(path, COLUMNS, remedy=f"Minimal pairs have the columns {', '.join(COLUMNS)}.")


def _hub_rows() -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"BLiMP: $HFSEQ_DATA/blimp/blimp.tsv.gz is not there, and reading {HUB_ID} from the Hub needs datasets: "
            "pip install datasets"
        ) from error
    try:
        names = datasets.get_dataset_config_names(HUB_ID)
        sides = {name: datasets.load_dataset(HUB_ID, name, split="train") for name in names}
    except (OSError, ValueError) as error:
        raise OSError(
            f"BLiMP: $HFSEQ_DATA/blimp/blimp.tsv.gz is not there, and {HUB_ID} could not be had from the Hub "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Set HFSEQ_DATA to the folder "
            "that holds blimp/, or connect to the network."
        ) from error
    for name, side in sides.items():
        for number, row in enumerate(side, 1):
            yield (
                f"{HUB_ID}:{name}, row {number}",
                {ours: row[theirs] for ours, theirs in HUB_COLUMNS.items()},
            )


def _pair(place: str, row: Mapping[str, Any], renamed: Mapping[str, str]) -> MinimalPair:
    values = {}
    for column in COLUMNS:
        value = row[column]
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{place}: column {column!r} must be text, not {value!r:.80}.")
        values[column] = renamed.get(value, value)
    return MinimalPair(**values, place=place)


__all__ = [
    "BlimpResult",
    "MinimalPair",
    "grouped",
    "judge",
    "published_accuracies",
    "read_minimal_pairs",
]
