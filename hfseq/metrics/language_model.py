"""The units of a language model's loss.

All three spread one total, the negative log-likelihood of a whole text (its document ends included), over the text:
over its tokens (comparable only between models with the same tokenizer), over its white-space words, or over its
UTF-8 bytes (comparable between any two models of that text, n-gram models included).
"""

from __future__ import annotations

import math


def perplexity_per_token(nll_nats: float, tokens: int) -> float:
    """exp(nll / tokens).

    Args:
        nll_nats: total negative log-likelihood of the text, a sum in nats, not a mean.
        tokens: number of predicted tokens, document ends included.

    Raises:
        ValueError: the total is negative or not a number, or there are no tokens.
    """
    return _perplexity(nll_nats, tokens, "tokens")


def perplexity_per_word(nll_nats: float, words: int) -> float:
    """exp(nll / words): what word pieces and document ends cost is spread over the white-space words.

    Args:
        nll_nats: as in `perplexity_per_token`.
        words: number of words between white space in the text.

    Raises:
        ValueError: as in `perplexity_per_token`.
    """
    return _perplexity(nll_nats, words, "words")


def bits_per_byte(nll_nats: float, bytes: int) -> float:
    """nll / ln 2 / bytes: document ends cost bits, but are no bytes.

    Args:
        nll_nats: as in `perplexity_per_token`.
        bytes: length of the text in UTF-8.

    Raises:
        ValueError: as in `perplexity_per_token`.
    """
    _check(nll_nats, bytes, "bytes")
    return nll_nats / math.log(2) / bytes


def _perplexity(nll_nats: float, count: int, unit: str) -> float:
    _check(nll_nats, count, unit)
    mean = nll_nats / count
    # exp overflows above 709 nats; a model that bad (an infinite loss too) has no finite perplexity.
    return math.exp(mean) if mean < 709 else math.inf


def _check(nll_nats: float, count: int, unit: str) -> None:
    if not nll_nats >= 0:
        raise ValueError(
            f"nll_nats = {nll_nats}: a total negative log-likelihood is never negative or NaN. Pass the sum over the "
            "text, in nats, and look for NaN in the model's weights."
        )
    if not count > 0:
        raise ValueError(
            f"{unit} = {count}: a text with no {unit} has no score. Evaluate on a text that has some."
        )
