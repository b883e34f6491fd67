"""A module for `evaluate.load`: precision, recall and F1 of whole entities, by the library seqeval in its default mode.

Needs hfseq and no network: `hfseq.metrics.load("seqeval")`.
"""

import datasets
import evaluate

from hfseq.metrics.entities import entity_scores


class Seqeval(evaluate.Metric):
    """`compute` returns {"overall_f1": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {
                "predictions": datasets.Sequence(datasets.Value("string")),
                "references": datasets.Sequence(datasets.Value("string")),
            }
        )
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of whole entities, by the library seqeval in its default mode.",
            citation="",
            inputs_description="predictions, references: lists of tags O, B-TYPE, I-TYPE, one per sentence.",
            features=features,
        )

    def _compute(self, predictions, references):
        scores = entity_scores(references, predictions)
        overall = {f"overall_{name}": scores[name] for name in ("precision", "recall", "f1", "accuracy")}
        by_type = {
            kind: {"precision": s["precision"], "recall": s["recall"], "f1": s["f1"], "number": s["support"]}
            for kind, s in scores["by_type"].items()
        }
        return {**by_type, **overall}
