"""A module for `evaluate.load`: exp of the mean negative log-likelihood of tokens.

Needs hfseq and no network: `hfseq.metrics.load("perplexity")`.
"""

import math

import datasets
import evaluate

from hfseq.metrics.language_model import perplexity_per_token


class Perplexity(evaluate.Metric):
    """`compute` returns {"perplexity": ...}."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("float64")})
        return evaluate.MetricInfo(
            description="exp of the mean negative log-likelihood of tokens.",
            citation="",
            inputs_description="predictions: the negative log-likelihood of each token, in nats.",
            features=features,
        )

    def _compute(self, predictions):
        return {"perplexity": perplexity_per_token(math.fsum(predictions), len(predictions))}
