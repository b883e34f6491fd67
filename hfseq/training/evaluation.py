"""The exact loss of a language model over a whole text, and the units it is told in.

Trainer's `eval_loss` is a mean of batch means; here every target of the text counts once. Perplexity per token
depends on the tokenizer, perplexity per word and bits per byte do not: compare models by those.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch

from ..data.collators import StreamCollator
from ..data.streams import StreamPlan
from ..data.token_arrays import TokenArray
from ..metrics.language_model import bits_per_byte, perplexity_per_token, perplexity_per_word


@dataclass
class LanguageModelScore:
    """Total negative log-likelihood of a text and its units."""

    nll: float
    """Sum over all targets, in nats; the end-of-document tokens count as targets."""
    tokens: int
    words: int
    bytes: int

    def as_dict(self) -> dict[str, float]:
        """The totals, the mean loss per token, and the three units of `hfseq.metrics.language_model`."""
        return {
            **asdict(self),
            "loss": self.nll / self.tokens,
            "perplexity_per_token": perplexity_per_token(self.nll, self.tokens),
            "perplexity_per_word": perplexity_per_word(self.nll, self.words),
            "bits_per_byte": bits_per_byte(self.nll, self.bytes),
        }


@torch.inference_mode()
def score_language_model(
    model, array: TokenArray, *, streams: int = 8, segment_length: int = 256
) -> LanguageModelScore:
    """Scores every token of `array` with carried state.

    Args:
        model: a recurrent `*ForCausalLM`, on any device; its mode and its training states are left as found.
        array: the text's tokens. They begin with an end-of-document token, which is context only, so every token of
            the text is a target.
        streams: contiguous parts read side by side; each begins with an empty state.
    """
    streams = max(1, min(streams, (len(array.tokens) - 1) // segment_length))
    segment_length = min(segment_length, len(array.tokens) - 1)
    plan = StreamPlan(array.tokens, streams=streams, segment_length=segment_length)
    collate = StreamCollator()
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=device)
    try:
        for start in range(0, len(plan), streams):
            rows = plan.__getitems__(list(range(start, start + streams)))
            batch = {k: v.to(device) for k, v in collate(rows).items()}
            total += model(**batch, num_items_in_batch=1).loss.double()
    finally:
        model.train(was_training)
        model.carried_states.clear(training=False)
    nll = total.item()
    if not math.isfinite(nll):
        raise FloatingPointError(
            f"The model's loss on {array.path} is {nll}: its weights are not finite or it diverged in training; "
            "train again with a lower learning rate."
        )
    return LanguageModelScore(nll=nll, tokens=plan.n_targets, words=array.n_words, bytes=array.n_bytes)
