"""What a case is: a model class in one configuration; `families/` has them all.

Tiny models keep the whole suite fast; *sharp* weights keep it honest. With the weights of a fresh initialisation
every distribution is nearly uniform, states hardly move, greedy decoding repeats one token, and a model with a
broken cache passes. `sharpen` draws weights large enough that everything matters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .comparing import FLOAT64, PRECISIONS, Precision
from .kinds import IGNORE_INDEX, Batch, Kind, Row, random_ids


@dataclass(frozen=True)
class BadInput:
    """Something that must be refused.

    Args:
        what: as the report prints it.
        call: (model, batch) -> does it.
        words: what the message must contain: the value, and the remedy.
    """

    what: str
    call: Callable[[PreTrainedModel, Batch], object]
    words: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """A model class in one configuration.

    Args:
        name: unique; test ids and reports print it.
        family: heads of one family share the contracts that run in a subprocess.
        model_class: the class.
        kind: what goes in and what comes out.
        make_config: a fresh tiny config; keyword arguments override fields.
        sharpness: standard deviation of the random matrices; norm_spread: of the norms' weights about one. Where an
            output layer is tied to a scaled embedding every token predicts itself, unless norms turn some signs.
        plain: overrides that leave a loss of nothing but cross-entropy.
        sides: where padding may stand: only "right" for absolute positions that the caller cannot give.
        packs: the ways, of `kinds.PACKED_FORMS` or `kinds.PACKED_PAIR_FORMS`, to say where sequences that share a row
            begin; none: such rows must be refused.
        streams: carries its state along `stream_id` in training.
        bad_inputs: what only this family refuses.
        full: runs only in the full matrix (`make contracts`).
        in_subprocesses: stands for its class in the contracts that run in a subprocess (the full matrix runs all).
        broken: {contract's key: why it does not hold}: what this variant, though not its class, cannot promise.
        load: loads given weights under a changed config, for a checkpoint; None for random weights.
    """

    name: str
    family: str
    model_class: type[PreTrainedModel]
    kind: Kind
    make_config: Callable[..., PreTrainedConfig]
    sharpness: float = 0.7
    norm_spread: float = 0.3
    plain: dict[str, object] = field(default_factory=dict)
    sides: tuple[str, ...] = ("right", "left")
    packs: tuple[str, ...] = ()
    streams: bool = False
    bad_inputs: tuple[BadInput, ...] = ()
    full: bool = False
    in_subprocesses: bool = False
    broken: dict[str, str] = field(default_factory=dict)
    load: Callable[[PreTrainedConfig], PreTrainedModel] | None = None

    def config(self, *, dropout: bool = False, **overrides) -> PreTrainedConfig:
        """The configuration, with every dropout at zero unless `dropout`."""
        config = self.make_config(**overrides)
        if not dropout:
            for name in dropout_fields(config):
                setattr(config, name, 0.0)
        return config

    def model(
        self, precision: Precision = FLOAT64, *, seed: int = 0, dropout: bool = False, **overrides
    ) -> PreTrainedModel:
        """A model in evaluation mode; the same seed gives the same weights in every precision."""
        config = self.config(dropout=dropout, **overrides)
        if self.load is None:
            model = self.model_class(config)
            sharpen(model, self.sharpness, seed, self.norm_spread)
        else:
            model = self.load(config)
        return model.to(precision.dtype).eval()

    def models(self, **options) -> Iterator[tuple[PreTrainedModel, Precision]]:
        """The same model in each precision."""
        for precision in PRECISIONS:
            yield self.model(precision, **options), precision

    def rows(self, config: PreTrainedConfig, lengths: list[int], seed: int = 0) -> list[Row]:
        """Random examples, one for each length. Source and target of a pair have different lengths."""
        generator = torch.Generator().manual_seed(seed)
        others = {"source": lengths, "tokens": lengths, "target": [n + 1 for n in lengths[::-1]]}
        return [
            self.kind.make_row(config, {axis: others[axis][i] for axis in self.kind.masks}, generator)
            for i in range(len(lengths))
        ]

    def batch(
        self,
        rows: list[Row],
        config: PreTrainedConfig,
        *,
        side: str = "right",
        extra: int = 0,
        junk: int | None = None,
    ) -> Batch:
        """Pads rows to one batch with masks (and position_ids, where the class takes them).

        Args:
            rows: examples without padding.
            side: "right" or "left". Targets of pairs are padded on the right always: a decoder begins at its start.
            extra: columns of padding more than needed.
            junk: seed of random ids to pad with, instead of the padding id.
        """
        pad_id = config.get_text_config().pad_token_id or 0
        generator = None if junk is None else torch.Generator().manual_seed(junk)
        batch: Batch = {}
        for axis, mask_name in self.kind.masks.items():
            ids_name = self.kind.ids[axis]
            width = max(row[ids_name].shape[-1] for row in rows) + extra
            left = side == "left" and axis != "target"
            batch[mask_name] = _pad([torch.ones_like(row[ids_name]) for row in rows], width, 0, left)
            for name in (n for n, a in self.kind.axes.items() if a == axis):
                value = IGNORE_INDEX if name in self.kind.labels else pad_id if name == ids_name else 0
                batch[name] = _pad([row[name] for row in rows], width, value, left)
                if generator is not None and name == ids_name:
                    noise = random_ids(config, batch[name].numel(), generator).view_as(batch[name])
                    batch[name] = torch.where(batch[mask_name].bool(), batch[name], noise)
            if self.takes_positions and axis != "target":
                batch["position_ids"] = positions(batch[mask_name])
        for name in (n for n, a in self.kind.axes.items() if a is None):
            batch[name] = torch.stack([row[name] for row in rows])
            if name in self.kind.columns and side == "left":
                batch[name] += (batch["attention_mask"] == 0).sum(-1)
        return batch

    def alone(self, row: Row, config: PreTrainedConfig) -> Batch:
        """One example as a batch of its own."""
        return self.batch([row], config)

    def without_labels(self, batch: Batch) -> Batch:
        return {name: value for name, value in batch.items() if name not in self.kind.labels}

    def timeless(self, batch: Batch) -> Batch:
        """The inputs of a batch that are not along time: vectors that texts begin with."""
        axes = self.kind.axes
        return {
            name: batch[name] for name, axis in axes.items() if axis is None and name not in self.kind.labels
        }

    def outputs(self, model: PreTrainedModel, batch: Batch, **options) -> dict[str, torch.Tensor]:
        """The outputs worth comparing, computed without labels or gradients."""
        with torch.no_grad():
            result = model(**self.without_labels(batch), **options)
        return {name: result[name] for name in self.kind.outputs}

    @property
    def takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(self.model_class.forward).parameters

    @property
    def takes_shift_labels(self) -> bool:
        return hasattr(self.model_class, "carried_states")


def _pad(rows: list[torch.Tensor], width: int, value: int, left: bool) -> torch.Tensor:
    padded = rows[0].new_full((len(rows), *rows[0].shape[:-1], width), value)
    for i, row in enumerate(rows):
        length = row.shape[-1]
        start = width - length if left else 0
        padded[i, ..., start : start + length] = row
    return padded


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Positions of the tokens of a masked batch [..., time], counted from each row's first token."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def dropout_fields(config: PreTrainedConfig) -> list[str]:
    """Names of the fields that hold a probability of dropping something."""
    return [
        name
        for name, value in config.to_dict().items()
        if "drop" in name and isinstance(value, float) and value > 0
    ]


@torch.no_grad()
def sharpen(model: PreTrainedModel, std: float, seed: int, norm_spread: float = 0.3) -> None:
    """Random weights that matter: matrices N(0, std), biases N(0, 0.3), norms around one. Ties stay tied."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue  # sinusoids
            is_gain = is_norm and name == "weight"
            scale = norm_spread if is_gain else std if parameter.ndim > 1 else 0.3
            value = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(value + 1 if is_gain else value)
    model.tie_weights()


def config_with(**fields):
    """A call that builds a config with these fields."""
    return lambda model, batch: type(model.config)(**fields)


def changed(*left_out, **others):
    """A call of the model with some of the batch left out and other arguments added."""

    def call(model, batch):
        kept = {name: value for name, value in batch.items() if name not in left_out}
        return model(**{**kept, **others})

    return call
