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
            inputs_description="predictions, references: numbers; return_pvalue: also how likely so strong a "
            "correlation is by chance (by scipy).",
            features=features,
        )

    def _compute(self, predictions, references, return_pvalue=False):
        scores = {"spearmanr": spearman(references, predictions)}
        if return_pvalue:
            from scipy import stats

            scores["spearmanr_pvalue"] = float(stats.spearmanr(references, predictions).pvalue)
        return scores
