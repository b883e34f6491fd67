"""A module for `evaluate.load`: negative log-likelihood of texts in bits, divided by their length in UTF-8 bytes.

Needs hfseq and no network: `hfseq.metrics.load("bits_per_byte")`.
"""

import math

import datasets
import evaluate

from hfseq.metrics.language_model import bits_per_byte


class BitsPerByte(evaluate.Metric):
    """`compute` returns {"bits_per_byte": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("string")}
        )
        return evaluate.MetricInfo(
            description="Negative log-likelihood of texts in bits, divided by their length in UTF-8 bytes.",
            citation="",
            inputs_description="predictions: the negative log-likelihood of each text in nats, document ends included; "
            "references: the texts.",
            features=features,
        )

    def _compute(self, predictions, references):
        total = sum(len(text.encode("utf-8")) for text in references)
        return {"bits_per_byte": bits_per_byte(math.fsum(predictions), total)}
