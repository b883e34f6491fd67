"""A text scored by a model that goes on learning from it, each token before it is learnt from.

**Dynamic evaluation** (Krause et al. 2018): after every few tokens the weights take a step against the gradient of the
loss on them, divided by its root mean square over the training text, and are drawn back to the trained weights. With g
the gradient, M its mean square in training, and w0 the trained weights:

    w <- w - rate * g / (sqrt(M) + epsilon) + min(decay * sqrt(M) / mean(sqrt(M)), 1) * (w0 - w)

**Neural cache** (Grave et al. 2017): the last states h_i of the text and the tokens that followed them are kept, and a
token that followed a state like the present one becomes more probable:

    p(token) = (1 - weight) p_model(token) + weight * sum of softmax_i(theta h . h_i) over the i that it followed

Both read the text as one stream, from its beginning to its end. What they reach is no score of the model as it was
trained: it is reported apart, and does not compare with models that were not given the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data import TokenArray
from ..hints import nearest_hint
from ..objectives.base import positive_int
from ..training.evaluation import LanguageModelScore, evaluation_streams, segments
from ..training.exact_loss import on_device
from ..training.processes import world_size

SEGMENT = 64  # tokens that are read at once where the weights stay


@dataclass(frozen=True)
class DynamicEvaluation:
    """How weights follow the text; the defaults are the authors'."""

    rate: float = 0.002
    decay: float = 0.02
    epsilon: float = 0.001
    tokens: int = 5
    """Tokens from one step to the next, at most: segments are as evenly long as they can be."""
    batches: int = 200
    """Batches of the training text over which the mean square of the gradient is taken, at most."""

    def __post_init__(self) -> None:
        _check_numbers(self, at_least_one=("tokens", "batches"), positive=("epsilon",))


@dataclass(frozen=True)
class NeuralCache:
    """What is remembered, and how much it counts; the defaults are near the best tried on lstm-kjv (validation)."""

    size: int = 2000
    """States that are kept, the last ones."""
    theta: float = 10.0
    """0: all that are kept count alike. The smaller a model's states, the larger it should be."""
    weight: float = 0.15
    """Share of the cache in the probability, below 1."""

    def __post_init__(self) -> None:
        _check_numbers(self, at_least_one=("size",))
        if self.weight >= 1:
            raise ValueError(f"weight must be below 1, not {self.weight}.")


def _check_numbers(options: Any, at_least_one: tuple[str, ...] = (), positive: tuple[str, ...] = ()) -> None:
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in at_least_one:
            positive_int(value, field.name)
        elif not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{field.name} must be a number from 0 on, not {value!r}.")
        elif field.name in positive and not value:
            raise ValueError(f"{field.name} must be above 0.")


def options_of(kind: type, words: list[str]) -> Any:
    """`kind` with fields as a command line gives them: ["rate=0.01", "tokens=10"].

    Raises:
        ValueError: no NAME=NUMBER, no such field, or a value that the field refuses.
    """
    known = {field.name: int if field.type == "int" else float for field in fields(kind)}
    given = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or name not in known:
            raise ValueError(
                f"{word!r} is no NAME=NUMBER with a name of {', '.join(known)}.{nearest_hint(name, known)}"
            )
        try:
            given[name] = known[name](text)
        except ValueError:
            raise ValueError(f"{name} must be a number, not {text!r}.") from None
    return kind(**given)


def score_adapting(
    model: PreTrainedModel,
    array: TokenArray,
    *,
    dynamic: DynamicEvaluation | None = None,
    cache: NeuralCache | None = None,
    train: TokenArray | None = None,
) -> LanguageModelScore:
    """Scores every token of `array`, as `score_language_model` with one stream, by a model that adapts on the way.

    Args:
        model: a recurrent `*ForCausalLM`, on any device; its weights and its mode are left as found.
        train: the text that it was trained on, for dynamic evaluation.

    Raises:
        ValueError: dynamic evaluation without `train`, or several processes: a text is learnt from in its order.
        FloatingPointError: the loss is not finite: the rate is too high.
    """
    if world_size() > 1:
        raise ValueError("A model that adapts reads the text in its order: start this in one process.")
    if dynamic and train is None:
        raise ValueError("Dynamic evaluation needs the training text, for the size of its gradients.")
    plan = evaluation_streams(array, 1, dynamic.tokens if dynamic else SEGMENT)
    memory = _Memory(cache) if cache else None
    nll = torch.zeros((), dtype=torch.float64, device=model.device)
    with _as_found(model):
        step = _Step(model, dynamic, train) if dynamic and train is not None else None
        model.carried_states.clear(training=False)
        for batch in segments(plan):
            batch = on_device(batch, model)
            labels = batch["shift_labels"]
            with torch.set_grad_enabled(step is not None):
                outputs = model(**batch, num_items_in_batch=1, output_hidden_states=memory is not None)
            logits = outputs.logits.detach()[0].double()
            found = logits.log_softmax(-1).gather(1, labels[0].unsqueeze(1)).squeeze(1)
            if memory is not None:
                found = memory.mixed(found, outputs.hidden_states[-1].detach()[0], labels[0])
            nll -= found.sum()
            if step is not None:
                step.take(outputs.loss / labels.numel())
    if not math.isfinite(total := float(nll)):
        raise FloatingPointError(
            f"The adapted model's loss on {array.path} is {total}: lower the rate of dynamic evaluation."
        )
    return LanguageModelScore(nll=total, tokens=plan.n_targets, words=array.n_words, bytes=array.n_bytes)


class _Step:
    """What the weights do after each segment."""

    def __init__(self, model: PreTrainedModel, options: DynamicEvaluation, train: TokenArray):
        self.options = options
        self.weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.trained = [weight.detach().clone() for weight in self.weights]
        roots = [square.sqrt() for square in self._mean_squares(model, train)]
        mean = sum(float(root.double().sum()) for root in roots) / sum(root.numel() for root in roots)
        self.rates = [options.rate / (root + options.epsilon) for root in roots]
        self.pulls = [(options.decay * root / mean).clamp(max=1) for root in roots]

    def _mean_squares(self, model: PreTrainedModel, train: TokenArray) -> list[torch.Tensor]:
        """Of the gradient of the mean loss of a batch: as many streams as give the number of batches."""
        segment, number = self.options.tokens, self.options.batches
        plan = evaluation_streams(train, (len(train.tokens) - 1) // (segment * number), segment)
        squares = [torch.zeros_like(weight) for weight in self.weights]
        count = min(number, len(plan) // plan.streams)
        for batch in itertools.islice(segments(plan), count):
            count_of_labels = batch["shift_labels"].numel()
            loss = model(**on_device(batch, model), num_items_in_batch=count_of_labels).loss
            for square, gradient in zip(squares, torch.autograd.grad(loss, self.weights), strict=True):
                square.addcmul_(gradient, gradient)
        return [square / count for square in squares]

    @torch.no_grad()
    def take(self, loss: torch.Tensor) -> None:
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss, self.weights)
        for weight, gradient, rate, pull, first in zip(
            self.weights, gradients, self.rates, self.pulls, self.trained, strict=True
        ):
            weight.add_(pull * (first - weight) - rate * gradient)


class _Memory:
    """The last states of a text and the tokens that followed them."""

    def __init__(self, options: NeuralCache):
        self.options = options
        self.states: torch.Tensor | None = None  # [kept, width]
        self.tokens: torch.Tensor | None = None  # [kept]

    def mixed(self, found: torch.Tensor, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of a segment's targets, the cache counted in; then the segment is remembered.

        Args:
            found: those of the model [time], float64.
            states: that the targets are predicted from [time, width].
            targets: [time].
        """
        size, theta, weight = self.options.size, self.options.theta, self.options.weight
        states = states.double()
        before = 0 if self.tokens is None else len(self.tokens)
        if self.states is not None and self.tokens is not None:
            kept = torch.cat([self.states, states]), torch.cat([self.tokens, targets])
        else:
            kept = states, targets
        # Each target sees the `size` places before its own.
        own = torch.arange(len(targets), device=targets.device).unsqueeze(1) + before
        places = torch.arange(len(kept[1]), device=targets.device)
        seen = (places < own) & (places >= own - size)  # [time, kept]
        scores = (theta * states @ kept[0].t()).masked_fill(~seen, -math.inf)
        any_seen = seen.any(1)
        shares = scores[any_seen].softmax(-1)  # of no place at all it would be none
        of_target = kept[1] == targets[any_seen].unsqueeze(1)
        in_cache = (shares * of_target).sum(1)
        mixed = found.clone()
        mixed[any_seen] = ((1 - weight) * found[any_seen].exp() + weight * in_cache).log()
        self.states, self.tokens = kept[0][-size:], kept[1][-size:]
        return mixed


@contextmanager
def _as_found(model: PreTrainedModel) -> Iterator[None]:
    """In evaluation mode meanwhile; afterwards mode, weights and carried states are as before."""
    was_training = model.training
    before = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    model.eval()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before:
                parameter.copy_(value)
        model.carried_states.clear(training=False)
        model.train(was_training)


__all__ = ["DynamicEvaluation", "NeuralCache", "options_of", "score_adapting"]
