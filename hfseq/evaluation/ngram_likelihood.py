"""How probable a Kneser-Ney model of a run's training text finds sentences: the baseline of the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..metrics.baselines.ngram import BEGIN, END, Estimator, kneser_ney_model

if TYPE_CHECKING:
    from ..data.token_arrays import TokenArray


class NgramLikelihood:
    """Scores sentences as a `Likelihood` does, each as the beginning of a document and without its end.

    Args:
        train: what is counted.
        tokenizer: by which it was tokenised.
        order: length of the n-grams.
        estimator: of the counts; default `hfseq.metrics.find_estimator()`.
    """

    def __init__(
        self,
        train: TokenArray,
        tokenizer: PreTrainedTokenizerBase,
        order: int,
        estimator: Estimator | None = None,
    ):
        self.train, self.tokenizer, self.order, self.estimator = train, tokenizer, order, estimator

    @property
    def method(self) -> str:
        """In a few words, for results."""
        return f"log-probability of the whole sentence, interpolated Kneser-Ney of order {self.order}"

    def encode(self, texts: Sequence[str], places: Sequence[str]) -> list[list[str]]:
        """Of each text [BEGIN, its ids as strings, END].

        Raises:
            ValueError: a text that is no token, by its place.
        """
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)[
            "input_ids"
        ]
        for ids, text, place in zip(encoded, texts, places, strict=True):
            if not ids:
                raise ValueError(
                    f"{place}: {text!r:.80} becomes no token at all, so that no model can score it."
                )
        return [[BEGIN, *map(str, ids), END] for ids in encoded]

    def sentence_scores(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """Natural logarithms of the probability of each, [sentences], float64; counts first."""
        model = kneser_ney_model(self.train, [sentences], order=self.order, estimator=self.estimator)
        return np.array(
            [
                math.log(10) * math.fsum(model.log10_probability(words, i) for i in range(1, len(words) - 1))
                for words in sentences
            ]
        )


__all__ = ["NgramLikelihood"]
