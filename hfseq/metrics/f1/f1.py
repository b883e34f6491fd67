"""A module for `evaluate.load`: the harmonic mean of precision and recall.

Needs hfseq and no network: `hfseq.metrics.load("f1")`.
"""

import datasets
import evaluate

from hfseq.metrics.classification import f1, f1_of_classes


class F1(evaluate.Metric):
    """`compute` returns {"f1": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        kind = (
            datasets.Sequence(datasets.Value("int64"))
            if self.config_name == "multilabel"
            else datasets.Value("int64")
        )
        features = datasets.Features({"predictions": kind, "references": kind})
        return evaluate.MetricInfo(
            description="The harmonic mean of precision and recall.",
            citation="",
            inputs_description="predictions, references: class numbers; average: binary, micro, macro, weighted, "
            "samples, or None for each class; pos_label: the class of binary; labels: the classes that count; "
            "sample_weight: how much each text counts. Configuration 'multilabel' takes 0/1 lists.",
            features=features,
        )

    def _compute(
        self, predictions, references, labels=None, pos_label=1, average="binary", sample_weight=None
    ):
        if average is None:
            each = f1_of_classes(references, predictions, labels, sample_weight)
            return {"f1": float(each[0]) if len(each) == 1 else each}
        return {"f1": f1(references, predictions, average, pos_label, labels, sample_weight)}
