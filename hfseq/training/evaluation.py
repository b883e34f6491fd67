"""The exact loss of a language model over a whole text, and the units it is told in.

Trainer's `eval_loss` is a mean of batch means; here every target of the text counts once. Perplexity per token
depends on the tokenizer, perplexity per word and bits per byte do not: compare models by those. A masked language
model gives no probability of a text: its perplexity is that of the masked tokens, given all others.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch

from ..data import MaskedPlan, StreamCollator, StreamPlan, TokenArray
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


@dataclass
class MaskedLanguageModelScore:
    """How well masked tokens are guessed."""

    nll: float
    """Sum over all masked tokens, in nats."""
    correct: int
    """How often the likeliest token was right."""
    targets: int
    tokens: int
    """Positions of the text, special tokens included."""

    def as_dict(self) -> dict[str, float]:
        """The totals, the mean loss per masked token, its perplexity, and the accuracy."""
        return {
            **asdict(self),
            "loss": self.nll / self.targets,
            "perplexity": perplexity_per_token(self.nll, self.targets),
            "accuracy": self.correct / self.targets,
        }


@torch.inference_mode()
def score_masked_language_model(model, plan: MaskedPlan) -> MaskedLanguageModelScore:
    """Scores every masked token of an evaluation plan (`MaskedPlan.evaluation`).

    Args:
        model: an encoder with a masked-LM head, on any device; its mode is left as found. Only the masked positions'
            logits are computed.
        plan: masked rows in whole batches.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    nll = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    targets = tokens = 0
    try:
        for index in range(len(plan)):
            batch = {k: v.to(device) if torch.is_tensor(v) else v for k, v in plan[index].items()}
            labels, columns = batch.pop("labels"), batch.pop("masked_positions")
            batch.pop("next_sentence_label", None)
            used = columns >= 0
            columns = columns.masked_fill(~used, labels.shape[1] - 1)
            hidden = model.model(**batch, output_positions=columns).last_hidden_state[used]
            target = labels.gather(1, columns)[used]
            logits = model.lm_head(model.head(hidden)).float()  # [targets, vocabulary]
            nll += torch.nn.functional.cross_entropy(logits, target, reduction="sum").double()
            correct += (logits.argmax(-1) == target).sum()
            targets += len(target)
            tokens += int((batch["input_ids"] != plan.vocabulary.pad_id).sum())
    finally:
        model.train(was_training)
    if not math.isfinite(nll.item()):
        raise FloatingPointError(
            f"The model's loss on {plan.array.path} is {nll.item()}: its weights are not finite or it diverged in "
            "training; train again with a lower learning rate."
        )
    return MaskedLanguageModelScore(nll=nll.item(), correct=int(correct), targets=targets, tokens=tokens)
