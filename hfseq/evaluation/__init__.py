"""Judging trained models by what they find probable.

    likelihoods    log-probabilities of sentences, token by token: causal, masked, sequence-to-sequence
    blimp          minimal pairs: is the grammatical sentence the more probable one?
    surprisal      each word's surprisal in bits
    ngram_likelihood   the same sentences under a Kneser-Ney model of a run's training text
    adaptation     a text scored by a model that goes on learning from it: dynamic evaluation, neural cache

What a run scores its own text by is the objectives' (`hfseq.objectives`).
"""

from __future__ import annotations

from .adaptation import DynamicEvaluation, NeuralCache, score_adapting
from .blimp import BlimpResult, MinimalPair, judge, read_minimal_pairs
from .likelihoods import Likelihood, Tokens, load_likelihood
from .surprisal import WordSurprisal, word_surprisals

__all__ = [
    "BlimpResult",
    "DynamicEvaluation",
    "Likelihood",
    "MinimalPair",
    "NeuralCache",
    "Tokens",
    "WordSurprisal",
    "judge",
    "load_likelihood",
    "read_minimal_pairs",
    "score_adapting",
    "word_surprisals",
]
