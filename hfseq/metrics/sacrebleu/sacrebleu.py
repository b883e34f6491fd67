"""A module for `evaluate.load`: BLEU of translations, by the library sacrebleu.

Needs hfseq and no network: `hfseq.metrics.load("sacrebleu")`. chrF, lower-cased BLEU and the signatures of each are in
`hfseq.metrics.translation_scores`.
"""

import datasets
import evaluate

from hfseq.metrics.bleu import corpus_bleu


class Sacrebleu(evaluate.Metric):
    """`compute` returns {"score": ..., "counts", "totals", "precisions", "bp", "sys_len", "ref_len"}."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        # One reference a prediction, bare or in a list, or several: the first form that fits the input is taken.
        features = [
            datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
            datasets.Features({"predictions": text, "references": text}),
        ]
        return evaluate.MetricInfo(
            description="BLEU of translations, by the library sacrebleu.",
            citation="",
            inputs_description="predictions: one untokenised text per sentence; references: a text each, or equally "
            "many in a list each; smooth_method, smooth_value, force, lowercase, tokenize and use_effective_order are "
            "sacrebleu's.",
            features=features,
        )

    def _compute(
        self,
        predictions,
        references,
        smooth_method="exp",
        smooth_value=None,
        force=False,
        lowercase=False,
        tokenize=None,
        use_effective_order=False,
    ):
        return corpus_bleu(
            predictions,
            [[texts] if isinstance(texts, str) else list(texts) for texts in references],
            smooth_method=smooth_method,
            smooth_value=smooth_value,
            force=force,
            lowercase=lowercase,
            tokenize=tokenize,
            effective_order=use_effective_order,
        )
