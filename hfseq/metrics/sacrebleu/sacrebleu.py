"""A module for `evaluate.load`: BLEU and chrF of translations with their signatures, by the library sacrebleu.

Needs hfseq and no network: `hfseq.metrics.load("sacrebleu")`.
"""

import datasets
import evaluate

from hfseq.metrics.translation import translation_scores


class Sacrebleu(evaluate.Metric):
    """`compute` returns {"bleu": ..., "bleu_signature": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(
            description="BLEU and chrF of translations with their signatures, by the library sacrebleu.",
            citation="",
            inputs_description="predictions, references: one untokenised text per sentence.",
            features=features,
        )

    def _compute(self, predictions, references):
        return translation_scores(predictions, references)
