"""What a model that begins with a vector is measured and asked by: its loss with the right vectors and with those of
others, and the texts that it makes of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.colours import rgb_of
from ..data.tables import finite_number
from ..metrics.language_model import bits_per_byte, perplexity_per_token, perplexity_per_word


@dataclass
class VectorScore:
    """Total negative log-likelihood of texts, in nats, given their vectors."""

    nll: float
    tokens: int
    """Targets; the end of each text is one."""
    words: int
    bytes: int
    texts: int
    nll_permuted: float | None = None
    """The same where each text is given the vector of another one; None for a model without vectors."""

    def as_dict(self) -> dict[str, float]:
        """The totals, the mean loss per token, and the units of `hfseq.metrics.language_model`."""
        score = {
            **asdict(self),
            "loss": self.nll / self.tokens,
            "perplexity_per_token": perplexity_per_token(self.nll, self.tokens),
            "perplexity_per_word": perplexity_per_word(self.nll, self.words),
            "bits_per_byte": bits_per_byte(self.nll, self.bytes),
            "bits_per_text": self.nll / math.log(2) / self.texts,
        }
        if self.nll_permuted is not None:
            score["perplexity_permuted"] = perplexity_per_token(self.nll_permuted, self.tokens)
        return {key: value for key, value in score.items() if value is not None}


def parse_vector(text: str, size: int) -> list[float]:
    """Numbers from text, "0.8, 0.2, 0.2" or "0.8 0.2 0.2"; where three are wanted, also a colour, "#c93f38".

    Raises:
        ValueError: what is no finite number, or another number of them than `size`.
    """
    words = text.replace(",", " ").split()
    if size == 3 and len(words) == 1 and words[0].startswith("#"):
        return list(rgb_of(words[0]))
    if len(words) != size:
        raise ValueError(
            f"{text!r} has {len(words)} numbers, but the model's vectors have {size} (config.feature_size)."
        )
    return [finite_number(word, f"vector {text!r}") for word in words]


@torch.inference_mode()
def describe_vectors(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vectors: Sequence[Sequence[float]],
    batch_size: int = 256,
    **options: Any,
) -> list[str]:
    """The texts that the model begins with each vector: one each, or num_return_sequences in a row.

    Args:
        model: a recurrent `*ForCausalLM` with feature_size; its mode is left as found.
        tokenizer: its eos token stands before every text.
        vectors: [texts, feature_size], finite numbers.
        options: of `generate`; four beams by default, at most 60 new tokens.
    """
    options = {"max_new_tokens": 60, **({} if options else {"num_beams": 4}), **options}
    was_training = model.training
    model.eval()
    texts: list[str] = []
    try:
        for first in range(0, len(vectors), batch_size):
            features = torch.tensor(
                vectors[first : first + batch_size], dtype=model.dtype, device=model.device
            )
            begin = torch.full((len(features), 1), tokenizer.eos_token_id, device=model.device)
            ids = model.generate(begin, attention_mask=torch.ones_like(begin), features=features, **options)
            texts += tokenizer.batch_decode(ids, skip_special_tokens=True)
    finally:
        model.train(was_training)
    return texts
