"""A module for `evaluate.load`: Spearman's correlation of ranks; equal numbers share the mean of theirs.

Needs hfseq and no network: `hfseq.metrics.load("spearmanr")`.
"""

import datasets
import evaluate

from hfseq.metrics.classification import spearman


class Spearman(evaluate.Metric):
    """`compute` returns {"spearmanr": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description="Spearman's correlation of ranks; equal numbers share the mean of theirs.",
            citation="",
            inputs_description="predictions, references: numbers.",
            features=features,
        )

    def _compute(self, predictions, references):
        return {"spearmanr": spearman(references, predictions)}
