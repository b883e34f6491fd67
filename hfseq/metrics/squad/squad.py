"""A module for `evaluate.load`: exact match and F1 of answers as SQuAD 1.1 and 2.0 define them, as percentages.

Needs hfseq and no network: `hfseq.metrics.load("squad")`.
"""

import datasets
import evaluate

from hfseq.metrics.answers import answer_scores


class Squad(evaluate.Metric):
    """`compute` returns {"exact_match": ..., "f1": ...}; more of both where some questions have no answer."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {
                "predictions": {"id": datasets.Value("string"), "prediction_text": datasets.Value("string")},
                "references": {
                    "id": datasets.Value("string"),
                    "answers": {
                        "text": datasets.Sequence(datasets.Value("string")),
                        "answer_start": datasets.Sequence(datasets.Value("int32")),
                    },
                },
            }
        )
        return evaluate.MetricInfo(
            description="Exact match and F1 of answers as SQuAD 1.1 and 2.0 define them, as percentages.",
            citation="",
            inputs_description="predictions: [{id, prediction_text}], where an empty text says that there is none; "
            "references: [{id, answers: {text: [...], answer_start: [...]}}]",
            features=features,
        )

    def _compute(self, predictions, references):
        answer_of = {prediction["id"]: prediction["prediction_text"] for prediction in predictions}
        missing = [reference["id"] for reference in references if reference["id"] not in answer_of]
        if missing:
            raise ValueError(f"No prediction for question {missing[0]!r} ({len(missing)} in all).")
        scores = answer_scores(
            [reference["answers"]["text"] for reference in references],
            [answer_of[reference["id"]] for reference in references],
        )
        del scores["questions"]
        return scores
