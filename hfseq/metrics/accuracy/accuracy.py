"""A module for `evaluate.load`: share of predictions that equal their reference.

Needs hfseq and no network: `hfseq.metrics.load("accuracy")`.
"""

import datasets
import evaluate

from hfseq.metrics.classification import accuracy


class Accuracy(evaluate.Metric):
    """`compute` returns {"accuracy": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        kind = datasets.Value("int64")
        if self.config_name == "multilabel":
            kind = datasets.Sequence(kind)
        features = datasets.Features({"predictions": kind, "references": kind})
        return evaluate.MetricInfo(
            description="Share of predictions that equal their reference.",
            citation="",
            inputs_description="predictions, references: class numbers; normalize: false for the number, not the "
            "share; sample_weight: how much each counts. Configuration 'multilabel' takes 0/1 lists.",
            features=features,
        )

    def _compute(self, predictions, references, normalize=True, sample_weight=None):
        share = accuracy(references, predictions, sample_weight)
        total = len(references) if sample_weight is None else float(sum(sample_weight))
        return {"accuracy": share if normalize else share * total}
