"""The models that the contracts run on: one line per class and variant.

To add a family: write its tiny config, add its `Case`s here and its rows to `table.py`. Nothing else; a test fails
while a class that hfseq registers has no case or no row.

Tiny models keep the whole suite fast; *sharp* weights keep it honest. With the weights of a fresh initialisation
every distribution is nearly uniform, states hardly move, greedy decoding repeats one token, and a model with a
broken cache passes. `sharpen` draws weights large enough that everything matters.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel

from .comparing import FLOAT64, PRECISIONS, Precision
from .kinds import CAUSAL_BASE, CAUSAL_LM, IGNORE_INDEX, Batch, Kind, Row, random_ids


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
        sharpness: standard deviation of the random matrices.
        plain: overrides that leave a loss of nothing but cross-entropy.
        sides: where padding may stand: only "right" for absolute positions that the caller cannot give.
        packs: several sequences in one row are kept apart (False: they must be refused).
        streams: carries its state along `stream_id` in training.
        bad_inputs: what only this family refuses.
        full: runs only in the full matrix (`make contracts`).
        in_subprocesses: stands for its class in the contracts that run in a subprocess (the full matrix runs all).
        load: loads given weights under a changed config, for a checkpoint; None for random weights.
    """

    name: str
    family: str
    model_class: type[PreTrainedModel]
    kind: Kind
    make_config: Callable[..., PreTrainedConfig]
    sharpness: float = 0.7
    plain: dict[str, object] = field(default_factory=dict)
    sides: tuple[str, ...] = ("right", "left")
    packs: bool = False
    streams: bool = False
    bad_inputs: tuple[BadInput, ...] = ()
    full: bool = False
    in_subprocesses: bool = False
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
            sharpen(model, self.sharpness, seed)
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
            width = max(len(row[ids_name]) for row in rows) + extra
            left = side == "left" and axis != "target"
            batch[mask_name] = _pad([torch.ones_like(row[ids_name]) for row in rows], width, 0, left)
            for name in (n for n, a in self.kind.axes.items() if a == axis):
                value = IGNORE_INDEX if name == self.kind.labels else pad_id if name == ids_name else 0
                batch[name] = _pad([row[name] for row in rows], width, value, left)
                if generator is not None and name == ids_name:
                    noise = random_ids(config, batch[name].numel(), generator).view_as(batch[name])
                    batch[name] = torch.where(batch[mask_name].bool(), batch[name], noise)
            if self.takes_positions and axis != "target":
                batch["position_ids"] = positions(batch[mask_name])
        for name in (n for n, a in self.kind.axes.items() if a is None):
            batch[name] = torch.stack([row[name] for row in rows])
        return batch

    def alone(self, row: Row, config: PreTrainedConfig) -> Batch:
        """One example as a batch of its own."""
        return self.batch([row], config)

    def without_labels(self, batch: Batch) -> Batch:
        return {name: value for name, value in batch.items() if name != self.kind.labels}

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
        return "shift_labels" in inspect.signature(self.model_class.forward).parameters


def _pad(rows: list[torch.Tensor], width: int, value: int, left: bool) -> torch.Tensor:
    padded = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), value)
    for i, row in enumerate(rows):
        start = width - len(row) if left else 0
        padded[i, start : start + len(row)] = row
    return padded


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Positions of the tokens of a masked batch [batch, time], counted from each row's first token."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def dropout_fields(config: PreTrainedConfig) -> list[str]:
    """Names of the fields that hold a probability of dropping something."""
    return [
        name
        for name, value in config.to_dict().items()
        if "drop" in name and isinstance(value, float) and value > 0
    ]


@torch.no_grad()
def sharpen(model: PreTrainedModel, std: float, seed: int) -> None:
    """Random weights that matter: matrices N(0, std), biases N(0, 0.3), norms around one. Ties stay tied."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue  # sinusoids
            scale = std if parameter.ndim > 1 else 0.3
            value = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(value + 1 if is_norm and name == "weight" else value)
    model.tie_weights()


def _recurrent_bad_inputs() -> tuple[BadInput, ...]:
    def config(**fields):
        return lambda model, batch: type(model.config)(**fields)

    def stream(**others):
        def call(model, batch):
            return model(
                input_ids=batch["input_ids"], stream_id=torch.arange(len(batch["input_ids"])), **others
            )

        return call

    def crop_too_much(model, batch):
        cache = model(input_ids=batch["input_ids"], use_cache=True).past_key_values
        cache.activate_past_recording()
        try:
            cache.crop(-2)
        except RuntimeError as error:  # transformers' own caches raise the same
            raise ValueError(str(error)) from error

    return (
        BadInput("vocab_size of 0", config(vocab_size=0), ("vocab_size", "0")),
        BadInput("hidden_size of -1", config(hidden_size=-1), ("hidden_size", "-1")),
        BadInput("last_hidden_size of 0", config(last_hidden_size=0), ("last_hidden_size", "0")),
        BadInput("a dropout of 1", config(hidden_dropout=1.0), ("hidden_dropout", "1.0")),
        BadInput("a negative dropout", config(weight_dropout=-0.5), ("weight_dropout", "-0.5")),
        BadInput("label smoothing of 1.5", config(label_smoothing=1.5), ("label_smoothing", "1.5")),
        BadInput("a size that is no number", config(hidden_size="wide"), ("hidden_size", "wide")),
        BadInput(
            "a key-value cache",
            lambda model, batch: model(**batch, past_key_values=DynamicCache(), use_cache=True),
            ("DynamicCache", "RecurrentCache"),
        ),
        BadInput(
            "streams with a mask", stream(attention_mask=torch.ones(3, 5)), ("stream_id", "attention_mask")
        ),
        BadInput("cropping tokens that were not recorded", crop_too_much, ("2", "activate_past_recording")),
    )


def _recurrent_cases() -> Iterator[Case]:
    from ..models import configuration_recurrent as configs
    from ..models import modeling_recurrent as models

    def tiny(config_class, **fields):
        def make(**overrides):
            return config_class(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "embedding_size": 12, "hidden_size": 16, "num_hidden_layers": 2,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        return make

    # Everything AWD-LSTM has; the last layer is as wide as the embedding, so there are two blocks and no projection.
    awd = {
        "num_hidden_layers": 3, "last_hidden_size": 12,
        "input_dropout": 0.2, "hidden_dropout": 0.2, "output_dropout": 0.2, "variational_dropout": True,
        "embedding_dropout": 0.1, "weight_dropout": 0.3,
        "activation_regularization": 2.0, "temporal_activation_regularization": 1.0,
    }  # fmt: skip
    dropped = {"input_dropout": 0.2, "hidden_dropout": 0.3, "output_dropout": 0.2}
    variants = {
        "untied": {"tie_word_embeddings": False, **dropped},
        "tied": {},
        "awd": awd,
        "narrow": {"last_hidden_size": 10, **dropped},
    }
    cells = [
        ("LSTM", configs.LSTMConfig, {}, 0.7, ("untied", "tied", "awd")),
        ("GRU", configs.GRUConfig, {}, 0.7, ("tied", "awd")),
        ("RNN", configs.RNNConfig, {"nonlinearity": "tanh"}, 0.7, ("untied", "awd")),
        # ReLU states grow with the power of the matrix' norm: at 0.7 every softmax would be one-hot.
        ("RNN-relu", configs.RNNConfig, {"nonlinearity": "relu"}, 0.3, ("tied",)),
    ]
    bad_inputs = _recurrent_bad_inputs()
    for cell, config, fields, sharpness, quick in cells:
        prefix = cell.split("-")[0]
        shared = {"family": "recurrent", "sharpness": sharpness, "streams": True, "bad_inputs": bad_inputs}
        yield Case(
            f"{cell}Model",
            model_class=getattr(models, f"{prefix}Model"),
            kind=CAUSAL_BASE,
            make_config=tiny(config, **fields, **awd),
            in_subprocesses=cell == prefix,
            **shared,
        )
        for variant, options in variants.items():
            yield Case(
                f"{cell}ForCausalLM-{variant}",
                model_class=getattr(models, f"{prefix}ForCausalLM"),
                kind=CAUSAL_LM,
                make_config=tiny(config, **fields, **options),
                plain={"activation_regularization": 0.0, "temporal_activation_regularization": 0.0},
                # Tied with a projection: the most parameters that a loss must reach, and a tie.
                in_subprocesses=variant == "tied" and cell == prefix,
                full=variant not in quick,
                **shared,
            )


RECURRENT = tuple(_recurrent_cases())
CASES = RECURRENT


def find_cases(source: str, names: Iterable[str]) -> list[Case]:
    """The cases of the given names, in a subprocess.

    Args:
        source: "module:ATTRIBUTE" or "/path/file.py:ATTRIBUTE", a sequence of cases; or "checkpoint:PATH" and
            "trusted-checkpoint:PATH" for the single case of a checkpoint (whose own code runs only if trusted).
    """
    scheme, _, path = source.partition(":")
    if scheme in ("checkpoint", "trusted-checkpoint"):
        from .checkpoints import checkpoint_case

        return [checkpoint_case(path, trust_remote_code=scheme.startswith("trusted"))]
    place, _, attribute = source.rpartition(":")
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location("given_cases", place)
        module = importlib.util.module_from_spec(spec)
        sys.modules["given_cases"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found = {case.name: case for case in getattr(module, attribute)}
    return [found[name] for name in names]


SOURCE = f"{__name__}:CASES"
