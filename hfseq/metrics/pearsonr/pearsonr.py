"""A module for `evaluate.load`: Pearson's correlation of numbers.

Needs hfseq and no network: `hfseq.metrics.load("pearsonr")`.
"""

import datasets
import evaluate

from hfseq.metrics.classification import pearson


class Pearson(evaluate.Metric):
    """`compute` returns {"pearsonr": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
        )
        return evaluate.MetricInfo(
            description="Pearson's correlation of numbers.",
            citation="",
            inputs_description="predictions, references: numbers; return_pvalue: also how likely so strong a "
            "correlation is by chance (by scipy).",
            features=features,
        )

    def _compute(self, predictions, references, return_pvalue=False):
        scores = {"pearsonr": pearson(references, predictions)}
        if return_pvalue:
            from scipy import stats

            scores["p-value"] = float(stats.pearsonr(references, predictions).pvalue)
        return scores
