"""Entity scores of tagged sentences, by the library seqeval in its default mode (that of conlleval, CoNLL-2000)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INSTALL = "Entity scores need seqeval: pip install 'hfseq[metrics]' (or seqeval)"


def entity_scores(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], **options: Any
) -> dict[str, Any]:
    """Precision, recall and F1 of whole entities (type, first and last word all right), and the accuracy of tags.

    Args:
        references, predictions: tags O, B-TYPE, I-TYPE [sentences][words].
        options: of seqeval's `classification_report`: mode, scheme, suffix, sample_weight, zero_division.

    Returns:
        precision, recall, f1 (micro), accuracy, and by type {type: {precision, recall, f1, support}}.

    Raises:
        ValueError: sentences of different lengths; ModuleNotFoundError: seqeval is not installed.
    """
    try:
        from seqeval import metrics
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(INSTALL) from error
    references, predictions = [list(s) for s in references], [list(s) for s in predictions]
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} sentences of references, {len(predictions)} of predictions.")
    for number, (true, claimed) in enumerate(zip(references, predictions, strict=True)):
        if len(true) != len(claimed):
            raise ValueError(f"Sentence {number}: {len(true)} reference tags, {len(claimed)} predicted ones.")
    if not any(references):
        raise ValueError("No tags: nothing to score.")
    # Where there is no entity at all on one side, seqeval's per-type report raises.
    any_entity = any(tag != "O" for sentence in (*references, *predictions) for tag in sentence)
    report = (
        metrics.classification_report(
            references, predictions, output_dict=True, **{"zero_division": 0, **options}
        )
        if any_entity
        else {}
    )
    micro = report.get("micro avg", {"precision": 0.0, "recall": 0.0, "f1-score": 0.0})
    return {
        "precision": float(micro["precision"]),
        "recall": float(micro["recall"]),
        "f1": float(micro["f1-score"]),
        "accuracy": float(metrics.accuracy_score(references, predictions)),
        "by_type": {
            kind: {
                "precision": float(scores["precision"]),
                "recall": float(scores["recall"]),
                "f1": float(scores["f1-score"]),
                "support": int(scores["support"]),
            }
            for kind, scores in report.items()
            if not kind.endswith(" avg")
        },
    }


__all__ = ["entity_scores"]
