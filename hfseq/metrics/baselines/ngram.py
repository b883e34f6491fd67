"""Interpolated Kneser-Ney, the n-gram baseline that a neural language model has to beat, on the same tokens.

A count model knows the last few tokens and nothing else, but it trains in seconds, and on a million words a careless
neural model loses to it. The comparison is only worth something if nothing differs but the model:

- the same events: every token id is a "word", the vocabulary is closed (`vocab_size` ids; an id that the training
  text lacks gets its share of the uniform distribution), each document ends with a predicted end token;
- the same text: bits are summed over all tokens of the split, document ends included, and divided by its bytes;
- a document's first token is predicted from a start mark. Histories do not reach into the document before.

Counts, discounts and interpolation are a library's, MITLM or KenLM (`find_estimator`), both for *modified*
interpolated Kneser-Ney (three discounts per order, in closed form; Chen and Goodman 1998). Both were checked against
the textbook formula: probabilities agree to 1e-6 and sum to one after every history (test_ngram.py). They write an ARPA
file, which is read here: only the n-grams that the scored text needs are kept.

Orders 3 to 6 together, one core: 21 s of CPU time and 0.4 GB on the King James Bible (0.95M tokens), 204 s and 1.3 GB
on 7.3M tokens of film reviews. The model's tokenizer does not handicap the baseline: on the King James Bible order 6
has 1.262, 1.261 and 1.263 bits per byte (validation) with byte-level BPE vocabularies of 2,048, 4,096 and 8,192;
smaller pieces are worse (1.268 with 1,024, 1.284 with 512, 1.504 with characters).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import math
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..language_model import bits_per_byte, perplexity_per_token, perplexity_per_word

if TYPE_CHECKING:
    from ...data.token_arrays import TokenArray

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
INSTALL = (
    "On Linux x86-64: pip install phonetisaurus==0.3.0 (it contains MITLM's estimate-ngram). Elsewhere: KenLM's lmplz "
    "on the PATH, built as its README says."
)


@dataclass(frozen=True)
class Estimator:
    """A program that estimates modified interpolated Kneser-Ney models."""

    kind: str
    """mitlm or kenlm."""
    name: str
    """Library and, where it tells, version, for the card."""
    program: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the program needs on top of this process's environment."""

    def run(self, text: Path, vocabulary: Path, vocab_size: int, order: int, arpa: Path) -> None:
        """Estimates a model of `text` (one document a line) and writes it to `arpa`.

        Args:
            vocabulary: a file with one token a line, all but the end token.
            vocab_size: how many tokens there are, the end token included.

        Raises:
            RuntimeError: the program failed; the end of what it said is in the message.
        """
        if self.kind == "mitlm":
            options = ["-order", order, "-smoothing", "ModKN", "-text", text, "-vocab", vocabulary]
            options += ["-write-lm", arpa]
        else:
            # Where a corpus is too small or too regular for closed-form discounts, KenLM's usual ones. vocab_pad
            # makes <unk> stand for each token that the text lacks.
            options = ["--order", order, "--text", text, "--arpa", arpa, "--vocab_pad", vocab_size]
            options += ["--discount_fallback", "--memory", "1G", "--temp_prefix", f"{arpa.parent}{os.sep}"]
        done = subprocess.run(
            [self.program, *map(str, options)],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode != 0 or not arpa.is_file():
            raise RuntimeError(
                f"{self.name} failed on order {order} (exit status {done.returncode}). A text of a few tokens is too "
                f"small for it; a large one needs some gigabytes of disk in {arpa.parent.parent} (TMPDIR chooses "
                "another place). It said:\n" + done.stdout[-2000:]
            )


def find_estimator(kind: str | None = None) -> Estimator:
    """The Kneser-Ney library of this machine.

    Args:
        kind: "mitlm" (in the PyPI package phonetisaurus, which is not imported: only its program is run) or "kenlm"
            (`lmplz` on the PATH); by default the first of these that is there.

    Raises:
        ValueError: an unknown kind.
        ModuleNotFoundError: not installed; the message says what to install.
    """
    finders = {"mitlm": _find_mitlm, "kenlm": _find_kenlm}
    if kind is not None and kind not in finders:
        raise ValueError(f"No Kneser-Ney estimator is called {kind!r}: choose one of {', '.join(finders)}.")
    for name, find in finders.items():
        found = find() if kind in (None, name) else None
        if found is not None:
            return found
    raise ModuleNotFoundError(
        f"No Kneser-Ney estimator ({kind or ' or '.join(finders)}) is installed. {INSTALL}"
    )


def _find_mitlm() -> Estimator | None:
    spec = importlib.util.find_spec("phonetisaurus")
    if spec is None or not spec.submodule_search_locations:
        return None
    package, machine = Path(spec.submodule_search_locations[0]), platform.machine()
    program = package / "bin" / machine / "estimate-ngram"
    if not os.access(program, os.X_OK):
        return None
    version = importlib.metadata.version("phonetisaurus")
    libraries = [str(package / "lib" / machine), os.environ.get("LD_LIBRARY_PATH", "")]
    return Estimator(
        kind="mitlm",
        name=f"MITLM of phonetisaurus {version}",
        program=str(program),
        environment={"LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries))},
    )


def _find_kenlm() -> Estimator | None:
    program = shutil.which("lmplz")
    # lmplz does not tell its version.
    return Estimator(kind="kenlm", name="KenLM", program=program) if program else None


class BackoffModel:
    """An n-gram model as an ARPA file states it: interpolation is already folded into its probabilities."""

    def __init__(self, order: int, entries: dict[str, tuple[float, float]]):
        self.order = order
        self.entries = entries
        """n-gram (tokens joined by blanks) -> log10 of its probability, log10 of its back-off weight."""

    @classmethod
    def from_arpa(cls, path: str | os.PathLike, order: int, wanted: set[str] | None = None) -> BackoffModel:
        """Reads the n-grams in `wanted`, or all: a model of a large corpus is larger than memory."""
        entries = {}
        with open(path, encoding="utf-8") as file:
            for line in file:
                # "log10(p) <tab> n-gram [<tab> log10(back-off)]"; headings have no tab.
                columns = line.rstrip("\n").split("\t")
                if len(columns) > 1 and (wanted is None or columns[1] in wanted):
                    entries[columns[1]] = (float(columns[0]), float(columns[2]) if len(columns) > 2 else 0.0)
        return cls(order, entries)

    def log10_probability(self, words: Sequence[str], position: int) -> float:
        """log10 of the probability of words[position] after the words before it."""
        weight = 0.0
        for start in range(max(0, position - self.order + 1), position + 1):
            entry = self.entries.get(" ".join(words[start : position + 1]))
            if entry is not None:
                return weight + entry[0]
            if start < position:
                history = self.entries.get(" ".join(words[start:position]))
                weight += history[1] if history is not None else 0.0
        return weight + self.entries[UNKNOWN][0]

    def bits(self, documents: Iterable[Sequence[str]]) -> float:
        """-log2 of the probability of all words of all documents but each one's first, the start mark."""
        # fsum: a plain sum of millions of terms would cost digits.
        log10 = math.fsum(
            self.log10_probability(words, position)
            for words in documents
            for position in range(1, len(words))
        )
        return -log10 / math.log10(2)


def kneser_ney_bits(
    train: TokenArray, evaluated: Mapping[str, TokenArray], *, order: int, estimator: Estimator | None = None
) -> dict[str, float]:
    """Total -log2 p of every token (document ends included) of texts under a Kneser-Ney model of `train`.

    Args:
        train: what is counted.
        evaluated: {name: text}, tokenised as `train`.
        order: length of the n-grams, history plus one; at least 2, with KenLM at most 6.
        estimator: default `find_estimator()`.

    Returns:
        {name: bits}. Divide by `n_bytes` for bits per byte.

    Raises:
        ValueError: an order below 2, ids outside the vocabulary, no training tokens, or texts of another tokenizer.
        ModuleNotFoundError: no estimator is installed.
        RuntimeError: the estimator failed.
    """
    if order < 2:
        raise ValueError(
            f"order = {order}: Kneser-Ney needs at least bigrams. Choose orders from 2 on, such as 3 to 6."
        )
    for name, array in {"train": train, **evaluated}.items():
        if (array.vocab_size, array.end_id) != (train.vocab_size, train.end_id):
            raise ValueError(
                f"{name} ({array.path}) was tokenised with a vocabulary of {array.vocab_size} and end token "
                f"{array.end_id}, the training text ({train.path}) with {train.vocab_size} and {train.end_id}. Build "
                "both with one tokenizer."
            )
        largest = int(array.tokens.max(initial=0))
        if largest >= array.vocab_size:
            raise ValueError(
                f"{name} ({array.path}) holds id {largest}, but its vocabulary ends at {array.vocab_size - 1}. Delete "
                "the cached token arrays; they will be built again."
            )
    documents = {name: list(_documents(array)) for name, array in evaluated.items()}
    model = kneser_ney_model(train, documents.values(), order=order, estimator=estimator)
    return {name: model.bits(texts) for name, texts in documents.items()}


def kneser_ney_model(
    train: TokenArray,
    evaluated: Iterable[Iterable[Sequence[str]]],
    *,
    order: int,
    estimator: Estimator | None = None,
) -> BackoffModel:
    """The model of `train`, as far as it is needed for some texts: all of it may be larger than memory.

    Args:
        evaluated: texts, each of documents, each of [BEGIN, its ids as strings, END].
        order, estimator: as for `kneser_ney_bits`.

    Raises:
        ValueError: no training tokens. ModuleNotFoundError, RuntimeError: as `kneser_ney_bits`.
    """
    if not (train.tokens != train.end_id).any():
        raise ValueError(f"{train.path} holds no tokens but document ends: nothing can be counted in it.")
    estimator = estimator or find_estimator()
    with tempfile.TemporaryDirectory(prefix="hfseq-kneser-ney-") as folder:
        text, vocabulary, arpa = (
            Path(folder) / name for name in ("train.txt", "vocabulary.txt", "model.arpa")
        )
        with open(text, "w", encoding="ascii") as file:
            # An empty document has nothing to count but its end, and a blank line may mean something else.
            file.writelines(" ".join(words[1:-1]) + "\n" for words in _documents(train) if len(words) > 2)
        ids = (str(i) for i in range(train.vocab_size) if i != train.end_id)
        vocabulary.write_text("\n".join(ids) + "\n", encoding="ascii")
        estimator.run(text, vocabulary, train.vocab_size, order, arpa)
        return BackoffModel.from_arpa(arpa, order, wanted=_ngrams(evaluated, order))


def best_kneser_ney(
    arrays: Mapping[str, TokenArray], orders: Sequence[int] = (3, 4, 5, 6), estimator: Estimator | None = None
) -> dict[str, Any]:
    """The Kneser-Ney model whose order is best on validation, as a baseline of a model card.

    Args:
        arrays: train, validation and, where there is one, test (`hfseq.data.load_token_arrays`).
        orders: the orders to choose from.
        estimator: default `find_estimator()`.

    Returns:
        name, library, order; per split (validation, test) perplexity_per_token, perplexity_per_word, bits_per_byte,
        tokens, words and bytes; orders: [{order, SPLIT: bits per byte, seconds}] for all that were tried.

    Raises:
        ValueError: no train or validation split, no orders, or as `kneser_ney_bits`.
        ModuleNotFoundError, RuntimeError: as `kneser_ney_bits`.
    """
    missing = [split for split in ("train", "validation") if split not in arrays]
    if missing:
        raise ValueError(
            f"No {missing[0]} split among the token arrays ({', '.join(arrays) or 'none'}): the model is counted on "
            "train and its order chosen on validation."
        )
    if not orders:
        raise ValueError("No orders to choose from. Give at least one, such as 3 4 5 6.")
    estimator = estimator or find_estimator()
    evaluated = {split: arrays[split] for split in ("validation", "test") if split in arrays}
    tried, scores = [], {}
    for order in orders:
        start = time.perf_counter()
        bits = kneser_ney_bits(arrays["train"], evaluated, order=order, estimator=estimator)
        seconds = time.perf_counter() - start
        scores[order] = {split: _score(bits[split], array) for split, array in evaluated.items()}
        per_byte = {split: score["bits_per_byte"] for split, score in scores[order].items()}
        tried.append({"order": order, **per_byte, "seconds": round(seconds, 1)})
    best = min(orders, key=lambda order: scores[order]["validation"]["bits_per_byte"])
    return {
        "name": f"interpolated Kneser-Ney, order {best} ({estimator.name})",
        "library": estimator.name,
        "smoothing": "modified interpolated Kneser-Ney",
        "order": best,
        **scores[best],
        "orders": tried,
    }


def _score(bits: float, array: TokenArray) -> dict[str, float]:
    nll, tokens = bits * math.log(2), len(array.tokens) - 1
    return {
        "perplexity_per_token": perplexity_per_token(nll, tokens),
        "perplexity_per_word": perplexity_per_word(nll, array.n_words),
        "bits_per_byte": bits_per_byte(nll, array.n_bytes),
        "tokens": tokens,
        "words": array.n_words,
        "bytes": array.n_bytes,
    }


def _documents(array: TokenArray) -> Iterator[list[str]]:
    """Each document as [start mark, its ids as strings, end mark]."""
    names = [str(i) for i in range(array.vocab_size)]
    # tokens = end document end document end
    ends = np.flatnonzero(array.tokens == array.end_id)
    for before, end in itertools.pairwise(ends):
        yield [BEGIN, *(names[i] for i in array.tokens[before + 1 : end].tolist()), END]


def _ngrams(texts: Iterable[Iterable[Sequence[str]]], order: int) -> set[str]:
    """All n-grams up to `order` of the documents, as an ARPA file writes them."""
    found = {UNKNOWN}
    for documents in texts:
        for words in documents:
            for n in range(1, order + 1):
                found.update(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    return found


__all__ = [
    "BackoffModel",
    "Estimator",
    "best_kneser_ney",
    "find_estimator",
    "kneser_ney_bits",
    "kneser_ney_model",
]
