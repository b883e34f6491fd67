"""A module for `evaluate.load`: Matthews' correlation coefficient of any number of classes.

Needs hfseq and no network: `hfseq.metrics.load("matthews_correlation")`.
"""

import datasets
import evaluate

from hfseq.metrics.classification import matthews_correlation


class MatthewsCorrelation(evaluate.Metric):
    """`compute` returns {"matthews_correlation": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(
            description="Matthews' correlation coefficient of any number of classes.",
            citation="",
            inputs_description="predictions, references: class numbers; sample_weight: how much each counts.",
            features=features,
        )

    def _compute(self, predictions, references, sample_weight=None):
        return {"matthews_correlation": matthews_correlation(references, predictions, sample_weight)}
