"""A module for `evaluate.load`: precision, recall and F1 of whole entities, by the library seqeval in its default mode.

Needs hfseq and no network: `hfseq.metrics.load("seqeval")`.
"""

import datasets
import evaluate

from hfseq.metrics.entities import entity_scores

SCHEMES = ("IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU")


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
            inputs_description="predictions, references: lists of tags O, B-TYPE, I-TYPE, one per sentence; suffix, "
            "scheme, mode, sample_weight, zero_division: as in seqeval's classification_report.",
            features=features,
        )

    def _compute(
        self,
        predictions,
        references,
        suffix=False,
        scheme=None,
        mode=None,
        sample_weight=None,
        zero_division="warn",
    ):
        if scheme is not None:
            from seqeval import scheme as schemes

            if scheme not in SCHEMES:
                raise ValueError(f"Unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}.")
            scheme = getattr(schemes, scheme)
        options = {"suffix": suffix, "scheme": scheme, "mode": mode, "sample_weight": sample_weight}
        scores = entity_scores(references, predictions, zero_division=zero_division, **options)
        overall = {f"overall_{name}": scores[name] for name in ("precision", "recall", "f1", "accuracy")}
        by_type = {
            kind: {"precision": s["precision"], "recall": s["recall"], "f1": s["f1"], "number": s["support"]}
            for kind, s in scores["by_type"].items()
        }
        return {**by_type, **overall}
