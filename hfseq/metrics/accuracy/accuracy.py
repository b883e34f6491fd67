"""A module for `evaluate.load`: share of predictions that equal their reference.

Needs hfseq and no network: `hfseq.metrics.load("accuracy")`.
"""

import datasets
import evaluate

from hfseq.metrics.classification import accuracy


class Accuracy(evaluate.Metric):
    """`compute` returns {"accuracy": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(
            description="Share of predictions that equal their reference.",
            citation="",
            inputs_description="predictions, references: class numbers.",
            features=features,
        )

    def _compute(self, predictions, references):
        return {"accuracy": accuracy(references, predictions)}
