"""The exact loss of a language model over a whole text, and the units it is told in.

Trainer's `eval_loss` is a mean over batches; here every target of the text counts once. Perplexity per token depends on
the tokenizer, perplexity per word and bits per byte do not: compare models by those. A masked language model gives no
probability of a text: its perplexity is that of the masked tokens, given all others.

Every function here is called by all processes of a run: they share the work and all have the result. Models whose class
ignores `num_items_in_batch` are measured by their logits (`exact_loss.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data import MaskedPlan, StreamCollator, StreamPlan, TokenArray
from ..data.plans.base import BatchPlan
from ..metrics.language_model import bits_per_byte, perplexity_per_token, perplexity_per_word
from ..models.losses import IGNORE_INDEX
from .exact_loss import honours_item_count, on_device, summed_loss
from .model_batches import ModelBatches
from .processes import add_up, share


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


def score_language_model(
    model: PreTrainedModel, array: TokenArray, *, streams: int = 8, segment_length: int = 256
) -> LanguageModelScore:
    """Scores every token of `array` with carried state.

    Args:
        model: a recurrent `*ForCausalLM`, on any device; its mode and its training states are left as found.
        array: the text's tokens. They begin with an end-of-document token, which is context only, so every token of
            the text is a target.
        streams: contiguous parts read side by side; each begins with an empty state.
    """
    plan = evaluation_streams(array, streams, segment_length)
    own = share(range(plan.streams))
    total = _zero(model)
    with _evaluating(model):
        try:
            # A process without a stream of its own reads one that it does not count: no other may wait for it.
            for batch in segments(plan, own or [0]):
                loss = model(**on_device(batch, model), num_items_in_batch=1).loss.double()
                total += loss if own else 0 * loss
        finally:
            model.carried_states.clear(training=False)
    nll = _finite(add_up(total)[0], array.path)
    return LanguageModelScore(nll=nll, tokens=plan.n_targets, words=array.n_words, bytes=array.n_bytes)


def evaluation_streams(array: TokenArray, streams: int = 8, segment_length: int = 256) -> StreamPlan:
    """The text as so many streams, or as fewer where it is short."""
    tokens = len(array.tokens) - 1
    streams = max(1, min(streams, tokens // segment_length))
    return StreamPlan(array.tokens, streams=streams, segment_length=min(segment_length, tokens))


def segments(plan: StreamPlan, streams: Sequence[int] | None = None) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of the plan, one segment of each of the streams (None: of all) after the other."""
    collate = StreamCollator()
    chosen = range(plan.streams) if streams is None else streams
    for start in range(0, len(plan), plan.streams):
        yield collate(plan.__getitems__([start + stream for stream in chosen]))


@torch.inference_mode()
def score_rows(model: PreTrainedModel, plan: BatchPlan, *, shifts: bool = False) -> tuple[float, int]:
    """Summed loss of all targets of an evaluation plan (no label smoothing), in nats, and their number.

    Args:
        model: any model with `labels`; its mode is left as found.
        plan: a map-style data set of whole batches, -100 where there is no target; as many batches as a multiple of
            the processes.
        shifts: the model predicts label t + 1 at position t.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    collate, total = ModelBatches(type(model)), _zero(model)
    tokens = torch.zeros((), dtype=torch.int64, device=total.device)
    with _evaluating(model):
        honours = honours_item_count(model, collate([plan[0]]))
        for index in share(range(len(plan))):
            batch = collate([plan[index]])
            total += summed_loss(model, batch, honours=honours, shifts=shifts)
            labels = batch["labels"]
            tokens += int(((labels[:, 1:] if shifts else labels) != IGNORE_INDEX).sum())
    total, tokens = add_up(total, tokens)
    return _finite(total, f"{int(tokens)} targets"), int(tokens)


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
def score_masked_language_model(model: PreTrainedModel, plan: MaskedPlan) -> MaskedLanguageModelScore:
    """Scores every masked token of an evaluation plan (`MaskedPlan.evaluation`).

    Args:
        model: any model with a masked-LM head, on any device; its mode is left as found.
        plan: masked rows in whole batches.
    """
    collate, nll = ModelBatches(type(model)), _zero(model)
    counts = torch.zeros(3, dtype=torch.int64, device=nll.device)  # right, targets, tokens
    with _evaluating(model):
        for index in share(range(len(plan))):
            batch = on_device(collate([plan[index]]), model)
            labels, columns = batch.pop("labels"), batch.pop("masked_positions", None)
            batch.pop("next_sentence_label", None)
            logits, target = masked_logits(model, batch, labels, columns)  # [targets, vocabulary], [targets]
            nll += torch.nn.functional.cross_entropy(logits, target, reduction="sum").double()
            tokens = (batch["input_ids"] != plan.vocabulary.pad_id).sum()
            counts += torch.stack(
                [(logits.argmax(-1) == target).sum(), tokens.new_tensor(len(target)), tokens]
            )
    nll, counts = add_up(nll, counts)
    correct, targets, tokens = counts.tolist()
    return MaskedLanguageModelScore(_finite(nll, plan.array.path), correct, targets, tokens)


def masked_logits(
    model: PreTrainedModel, batch: dict[str, Any], labels: torch.Tensor, columns: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits where a token is masked; a model that can computes no others."""
    if hasattr(model, "logits_at") and columns is not None:
        used = columns >= 0
        columns = columns.masked_fill(~used, labels.shape[1] - 1)
        return model.logits_at(columns, used, **batch).float(), labels.gather(1, columns)[used]
    outputs = model(**batch)
    logits = outputs["prediction_logits"] if "prediction_logits" in outputs else outputs["logits"]
    masked = labels != IGNORE_INDEX
    return logits[masked].float(), labels[masked]


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _zero(model: PreTrainedModel) -> torch.Tensor:
    return torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)


def _finite(total: torch.Tensor, where: object) -> float:
    nll = total.item()
    if not math.isfinite(nll):
        raise FloatingPointError(
            f"The model's loss on {where} is {nll}: its weights are not finite or it diverged in training; train again "
            "with a lower learning rate."
        )
    return nll
