"""A module for `evaluate.load`: Pearson's correlation of numbers.

Needs hfseq and no network: `hfseq.metrics.load("pearsonr")`.
"""

import datasets
import evaluate

from hfseq.metrics.classification import pearson


class Pearson(evaluate.Metric):
    """`compute` returns {"pearsonr": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description="Pearson's correlation of numbers.",
            citation="",
            inputs_description="predictions, references: numbers.",
            features=features,
        )

    def _compute(self, predictions, references):
        return {"pearsonr": pearson(references, predictions)}
