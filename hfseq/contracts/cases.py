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
from transformers.modeling_outputs import BaseModelOutput

from . import kinds
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
        return "shift_labels" in inspect.signature(self.model_class.forward).parameters


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


def _recurrent_bad_inputs() -> tuple[BadInput, ...]:
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
        BadInput("vocab_size of 0", config_with(vocab_size=0), ("vocab_size", "0")),
        BadInput("hidden_size of -1", config_with(hidden_size=-1), ("hidden_size", "-1")),
        BadInput("last_hidden_size of 0", config_with(last_hidden_size=0), ("last_hidden_size", "0")),
        BadInput("a dropout of 1", config_with(hidden_dropout=1.0), ("hidden_dropout", "1.0")),
        BadInput("a negative dropout", config_with(weight_dropout=-0.5), ("weight_dropout", "-0.5")),
        BadInput("label smoothing of 1.5", config_with(label_smoothing=1.5), ("label_smoothing", "1.5")),
        BadInput("a size that is no number", config_with(hidden_size="wide"), ("hidden_size", "wide")),
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
            kind=kinds.CAUSAL_BASE,
            make_config=tiny(config, **fields, **awd),
            in_subprocesses=cell == prefix,
            **shared,
        )
        for variant, options in variants.items():
            yield Case(
                f"{cell}ForCausalLM-{variant}",
                model_class=getattr(models, f"{prefix}ForCausalLM"),
                kind=kinds.CAUSAL_LM,
                make_config=tiny(config, **fields, **options),
                plain={"activation_regularization": 0.0, "temporal_activation_regularization": 0.0},
                # Tied with a projection: the most parameters that a loss must reach, and a tie.
                in_subprocesses=variant == "tied" and cell == prefix,
                full=variant not in quick,
                **shared,
            )


def _feature_bad_inputs() -> tuple[BadInput, ...]:
    def without(model, batch):
        return model(**{name: value for name, value in batch.items() if name != "features"})

    def spoilt(change, **others):
        return lambda model, batch: model(**{**batch, "features": change(batch["features"]), **others})

    def streams(model, batch):
        rows = torch.arange(len(batch["input_ids"]))
        return model(input_ids=batch["input_ids"], features=batch["features"], stream_id=rows)

    def generate(model, batch):
        return model.generate(batch["input_ids"], max_new_tokens=2)

    def to_a_model_without(model, batch):
        fields = {**model.config.to_dict(), "feature_size": 0}
        return type(model)(type(model.config)(**fields)).to(model.dtype)(**batch)

    return (
        BadInput("a negative feature_size", config_with(feature_size=-1), ("feature_size", "-1")),
        BadInput("no features", without, ("features", "[3, 3]")),
        BadInput("generate() without features", generate, ("features", "[3, 3]", "generate")),
        BadInput("features of another width", spoilt(lambda f: f[:, :2]), ("features", "[3, 3]", "[3, 2]")),
        BadInput("features of another batch", spoilt(lambda f: f[:1]), ("features", "[3, 3]", "[1, 3]")),
        BadInput(
            "features along time", spoilt(lambda f: f.unsqueeze(1)), ("features", "[3, 3]", "[3, 1, 3]")
        ),
        BadInput("whole numbers as features", spoilt(lambda f: f.long()), ("features", "float", "int64")),
        BadInput("features in a list", spoilt(lambda f: f.tolist()), ("features", "float", "list")),
        BadInput("features of a stream", streams, ("features", "stream_id")),
        BadInput("features for a model without", to_a_model_without, ("features", "feature_size", "0")),
    )


def _feature_cases() -> Iterator[Case]:
    """Language models that begin with a vector. The layers differ in width, so that there are two blocks."""
    from ..models import configuration_recurrent as configs
    from ..models import modeling_recurrent as models

    def tiny(config_class):
        def make(**overrides):
            return config_class(**{**sizes, **overrides})

        sizes = {
            "vocab_size": 40, "embedding_size": 12, "hidden_size": 16, "num_hidden_layers": 3, "last_hidden_size": 12,
            "feature_size": 3, "input_dropout": 0.2, "hidden_dropout": 0.2, "output_dropout": 0.2,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        return make

    for cell in ("LSTM", "GRU", "RNN"):
        yield Case(
            f"{cell}ForCausalLM-features",
            family="recurrent",
            model_class=getattr(models, f"{cell}ForCausalLM"),
            kind=kinds.FEATURED_LM,
            make_config=tiny(getattr(configs, f"{cell}Config")),
            bad_inputs=_feature_bad_inputs(),
            full=cell != "LSTM",
        )


def _recurrent_head_bad_inputs(kind: Kind) -> tuple[BadInput, ...]:
    def several_without_saying_so(model, batch):
        model.config.problem_type = "single_label_classification"
        return model(**batch, labels=torch.zeros(rows, 3))

    rows, time = 3, 5  # of the batches that `bad_input` spoils
    found = [
        BadInput(
            "an unknown pooling", config_with(classifier_pooling="first"), ("classifier_pooling", "attention")
        ),
        BadInput(
            "an unknown choice of layers", config_with(classifier_layers="top"), ("classifier_layers", "all")
        ),
        BadInput("a head of width 0", config_with(classifier_hidden_size=0), ("classifier_hidden_size", "0")),
        BadInput("a dropout of 1", config_with(classifier_dropout=1.0), ("classifier_dropout", "1.0")),
    ]
    if kind is kinds.TOKEN_CLASSIFICATION:
        short = torch.zeros(rows, time - 1).long()
        words = ("labels", f"[{rows}, {time}]", f"[{rows}, {time - 1}]")
        found += [
            BadInput("labels of another length", lambda model, batch: model(**batch, labels=short), words)
        ]
    else:
        many = torch.zeros(rows + 1).long()
        found += [
            BadInput(
                "labels of another batch", lambda model, batch: model(**batch, labels=many), (f"[{rows}]",)
            ),
            BadInput(
                "float labels for a classifier of one label",
                several_without_saying_so,
                ("int64", "multi_label_classification"),
            ),
        ]
    return tuple(found)


def _recurrent_head_cases() -> Iterator[Case]:
    from ..models import configuration_recurrent as configs
    from ..models import modeling_recurrent as models

    def tiny(config_class, **fields):
        def make(**overrides):
            return config_class(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "embedding_size": 12, "hidden_size": 10, "num_hidden_layers": 2, "num_labels": 3,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        return make

    variants = {
        "both-ways": {"bidirectional": True, "hidden_dropout": 0.2, "output_dropout": 0.2},
        # A classifier of a pretrained AWD-LSTM, with everything that a head can have.
        "all-layers": {
            "last_hidden_size": 12, "input_dropout": 0.2, "variational_dropout": True, "embedding_dropout": 0.1,
            "weight_dropout": 0.3, "classifier_layers": "all", "classifier_pooling": "attention",
            "classifier_hidden_size": 7, "classifier_dropout": 0.2,
        },
        "concat": {"bidirectional": True, "last_hidden_size": 6, "classifier_pooling": "concat"},
    }  # fmt: skip
    heads = {
        "ForSequenceClassification": kinds.SEQUENCE_CLASSIFICATION,
        "ForTokenClassification": kinds.TOKEN_CLASSIFICATION,
    }
    quick = {
        "LSTMForSequenceClassification": "both-ways", "LSTMForTokenClassification": "both-ways",
        "GRUForSequenceClassification": "all-layers", "GRUForTokenClassification": "all-layers",
        "RNNForSequenceClassification": "concat", "RNNForTokenClassification": "both-ways",
    }  # fmt: skip
    for cell in ("LSTM", "GRU", "RNN"):
        for head, kind in heads.items():
            name = f"{cell}{head}"
            for variant, fields in variants.items():
                if variant == "concat" and kind is kinds.TOKEN_CLASSIFICATION:
                    continue  # pools nothing
                yield Case(
                    f"{name}-{variant}",
                    family="recurrent",
                    model_class=getattr(models, name),
                    kind=kind,
                    make_config=tiny(getattr(configs, f"{cell}Config"), **fields),
                    bad_inputs=_recurrent_head_bad_inputs(kind),
                    full=variant != quick[name],
                    in_subprocesses=variant == quick[name],
                )


def _padded_pair_bad_inputs(cache: str) -> tuple[BadInput, ...]:
    """What every model refuses that turns one sequence into another and takes padded batches alone.

    Args:
        cache: the only kind that it takes.
    """
    ids, borders = torch.full((3, 5), 5), torch.tensor([0, 5, 10, 15], dtype=torch.int32)
    masks = "attention_mask", "decoder_attention_mask"
    packed = {"cu_seq_lens": borders, "decoder_cu_seq_lens": borders}
    return (
        BadInput("vocab_size of 0", config_with(vocab_size=0), ("vocab_size", "0")),
        BadInput("a dropout of 1", config_with(hidden_dropout=1.0), ("hidden_dropout", "1.0")),
        BadInput("label smoothing of 1.5", config_with(label_smoothing=1.5), ("label_smoothing", "1.5")),
        BadInput(
            "one embedding for two vocabularies",
            config_with(vocab_size=40, decoder_vocab_size=50),
            ("50", "40", "share_encoder_decoder_embeddings"),
        ),
        BadInput(
            "a source without tokens", changed("attention_mask", input_ids=ids[:, :0]), ("source", "token")
        ),
        BadInput(
            "a target without tokens",
            changed("decoder_attention_mask", decoder_input_ids=ids[:, :0]),
            ("target", "decoder_start_token_id"),
        ),
        BadInput("no target", changed("decoder_input_ids", "labels"), ("decoder_input_ids",)),
        BadInput(
            "as many sources as there are not targets",
            changed("decoder_attention_mask", decoder_input_ids=ids[:1]),
            ("3 sources", "1 targets"),
        ),
        BadInput(
            "packed pairs by borders",
            changed(*masks, input_ids=ids, decoder_input_ids=ids, **packed),
            ("packed", "cu_seq_lens"),
        ),
        BadInput(
            "a key-value cache",
            changed(past_key_values=DynamicCache(), use_cache=True),
            ("DynamicCache", cache),
        ),
    )


def _recurrent_seq2seq_bad_inputs() -> tuple[BadInput, ...]:
    def without_the_first_state(model, batch):
        memory = model.get_encoder()(input_ids=batch["input_ids"]).last_hidden_state
        return model(encoder_outputs=BaseModelOutput(memory), decoder_input_ids=batch["decoder_input_ids"])

    return (
        *_padded_pair_bad_inputs("RecurrentCache"),
        BadInput("hidden_size of -1", config_with(hidden_size=-1), ("hidden_size", "-1")),
        BadInput(
            "encoder_hidden_size of 0",
            config_with(encoder_hidden_size=0),
            ("encoder_hidden_size", "0", "None"),
        ),
        BadInput("unknown scores", config_with(attention="dot"), ("dot", "multiplicative")),
        BadInput("an unknown position", config_with(attention_position="middle"), ("middle", "first")),
        BadInput("an unknown bridge", config_with(bridge="first"), ("first", "mean")),
        BadInput(
            "nothing to feed", config_with(attention=None, input_feeding=True), ("input_feeding", "attention")
        ),
        BadInput(
            "attention between layers of one layer",
            config_with(attention_position="first", decoder_layers=1),
            ("decoder_layers 1", "last"),
        ),
        BadInput(
            "an encoder's outputs without the first state",
            without_the_first_state,
            ("initial_state", "get_encoder"),
        ),
    )


def _recurrent_seq2seq_cases() -> Iterator[Case]:
    from ..models import configuration_recurrent_seq2seq as configs
    from ..models import modeling_recurrent_seq2seq as models

    def tiny(config_class, **fields):
        def make(**overrides):
            return config_class(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "embedding_size": 12, "hidden_size": 14, "encoder_layers": 1, "decoder_layers": 2,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        }  # fmt: skip
        return make

    dropped = {"input_dropout": 0.2, "hidden_dropout": 0.3, "output_dropout": 0.2}
    variants = {
        "last": {"encoder_layers": 2, **dropped},
        # Wu et al. 2016, with every size and dropout of its own.
        "first": {
            "attention": "additive", "attention_position": "first", "attention_size": 9, "encoder_hidden_size": 10,
            "tie_word_embeddings": False, "variational_dropout": True,
            "weight_dropout": 0.3, **dropped,
        },
        "none": {"attention": None, "hidden_dropout": 0.2},
        "hands-over": {"attention": None, "bidirectional": False, "encoder_layers": 2},
        "mean": {"attention": "additive", "bridge": "mean", "bidirectional": False},
        "luong": {"input_feeding": True, **dropped},
        "bahdanau": {
            "input_feeding": True, "attention": "additive", "attention_position": "first", "decoder_layers": 1,
            "tie_word_embeddings": False,
        },
        "separate": {
            "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50, "attention_position": "first",
        },
    }  # fmt: skip
    cells = {
        # The first variant is the class's own; base models run in that alone.
        "LSTM": ("last", "first", "none", "hands-over", "mean", "luong", "bahdanau", "separate"),
        "GRU": ("first", "hands-over", "bahdanau", "mean"),
        "RNN": ("none", "last", "luong"),
    }
    heads = (("Seq2SeqModel", kinds.SEQ2SEQ_BASE), ("ForSeq2SeqLM", kinds.SEQ2SEQ_LM))
    for cell, names in cells.items():
        for head, kind in heads:
            for variant in names if kind.labels else names[:1]:
                yield Case(
                    f"{cell}{head}-{variant}",
                    family="recurrent_seq2seq",
                    model_class=getattr(models, f"{cell}{head}"),
                    kind=kind,
                    make_config=tiny(getattr(configs, f"{cell}Seq2SeqConfig"), **variants[variant]),
                    # Without gates a loop over time is chaotic: gradients grow at each step until float32 is lost.
                    sharpness=0.4 if cell == "RNN" else 0.7,
                    bad_inputs=_recurrent_seq2seq_bad_inputs(),
                    full=variant != names[0],
                    in_subprocesses=variant == names[0],
                )


def _encoder_bad_inputs(class_name: str) -> tuple[BadInput, ...]:
    """What an encoder class refuses; the last one concerns learned positions alone."""

    def longer(model, batch):
        ids = batch["input_ids"]
        return model(input_ids=ids.repeat(*[1] * (ids.ndim - 1), 10))

    def spoilt(**others):
        return lambda model, batch: model(**{**batch, **others})

    def in_training(**others):
        return lambda model, batch: model.train()(**{**batch, **others})

    def packed_with_a_mask(name, value):
        def call(model, batch):
            return model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **{name: value}
            )

        return call

    rows, time = 3, 5  # of the batches that `bad_input` spoils
    found = [
        BadInput("hidden_size 0", config_with(hidden_size=0), ("hidden_size", "0")),
        BadInput(
            "a hidden_size that the heads do not divide",
            config_with(hidden_size=20, num_attention_heads=3),
            ("hidden_size", "20", "num_attention_heads", "3"),
        ),
        BadInput(
            "rotary positions in heads of odd width",
            config_with(hidden_size=15, num_attention_heads=3, position_embedding_type="rotary"),
            ("even", "15", "3"),
        ),
        BadInput(
            "an unknown kind of positions",
            config_with(position_embedding_type="relative"),
            ("position_embedding_type", "relative", "rotary"),
        ),
        BadInput("an unknown activation", config_with(hidden_act="gelo"), ("hidden_act", "gelo")),
        BadInput("a dropout of 1", config_with(hidden_dropout_prob=1.0), ("hidden_dropout_prob", "1.0")),
        BadInput(
            "a negative dropout",
            config_with(attention_probs_dropout_prob=-0.1),
            ("attention_probs_dropout_prob", "-0.1"),
        ),
        BadInput("a classifier dropout of 2", config_with(classifier_dropout=2), ("classifier_dropout", "2")),
        BadInput("label smoothing of 1.5", config_with(label_smoothing=1.5), ("label_smoothing", "1.5")),
        BadInput("segment types below none", config_with(type_vocab_size=-1), ("type_vocab_size", "-1")),
        BadInput(
            "attention weights that SDPA does not keep",
            spoilt(output_attentions=True),
            ("sdpa", 'attn_implementation="eager"'),
        ),
    ]
    if class_name != "EncoderForMultipleChoice":
        borders = torch.arange(0, (rows + 1) * time, time, dtype=torch.int32)
        found += [
            BadInput(
                "packed rows with a mask, by borders",
                packed_with_a_mask("cu_seq_lens_q", borders),
                ("acked", "attention_mask") if class_name in PACKING_ENCODERS else ("packed",),
            ),
            BadInput(
                "packed rows with a mask, by numbers",
                packed_with_a_mask("seq_idx", torch.zeros(rows, time, dtype=torch.long)),
                ("acked", "attention_mask") if class_name in PACKING_ENCODERS else ("packed",),
            ),
        ]
    if class_name in ("EncoderForMaskedLM", "EncoderForPreTraining"):
        short, wide = torch.zeros(rows, time - 1).long(), torch.zeros(rows - 1, 2).long()
        found += [
            BadInput("labels of another length", in_training(labels=short), ("labels", f"[{rows}, {time}]")),
            BadInput(
                "evaluation labels of another length",
                lambda model, batch: model.eval()(**batch, labels=short),
                ("labels", f"[{rows}, {time}]"),
            ),
            BadInput(
                "masked positions of another batch",
                in_training(labels=torch.zeros(rows, time).long(), masked_positions=wide),
                ("masked_positions", f"[{rows}, ", f"[{rows - 1}, 2]"),
            ),
            BadInput(
                "masked positions in one line",
                in_training(labels=torch.zeros(rows, time).long(), masked_positions=wide.flatten()),
                ("masked_positions", f"[{rows}, "),
            ),
        ]
    if class_name == "EncoderForPreTraining":
        found += [
            BadInput(
                "sentence labels of another batch",
                spoilt(next_sentence_label=torch.zeros(rows + 1).long()),
                ("next_sentence_label", f"[{rows}]", f"[{rows + 1}]"),
            )
        ]
    if class_name == "EncoderForTokenClassification":
        found += [
            BadInput(
                "labels of another length",
                spoilt(labels=torch.zeros(rows, time - 1).long()),
                ("labels", f"[{rows}, {time}]", f"[{rows}, {time - 1}]"),
            )
        ]
    if class_name == "EncoderForSequenceClassification":

        def several_without_saying_so(model, batch):
            model.config.problem_type = "single_label_classification"
            return model(**batch, labels=torch.zeros(rows, 3))

        found += [
            BadInput("labels of another batch", spoilt(labels=torch.zeros(rows + 1).long()), (f"[{rows}]",)),
            BadInput(
                "float labels for a classifier of one label",
                several_without_saying_so,
                ("int64", "multi_label_classification"),
            ),
        ]
    if class_name == "EncoderForQuestionAnswering":
        found += [
            BadInput(
                "answers of another batch",
                spoilt(
                    start_positions=torch.zeros(rows + 1).long(), end_positions=torch.zeros(rows + 1).long()
                ),
                ("start_positions", f"[{rows}]", f"[{rows + 1}]"),
            ),
            BadInput(
                "beginnings without ends",
                spoilt(start_positions=torch.zeros(rows).long()),
                ("start_positions", "end_positions"),
            ),
        ]
    if class_name == "EncoderForMultipleChoice":
        found += [
            BadInput(
                "inputs without choices",
                lambda model, batch: model(input_ids=batch["input_ids"][:, 0]),
                ("[batch, choices, time]", f"[{rows}, {time}]"),
            ),
            BadInput(
                "labels of another batch",
                spoilt(labels=torch.zeros(rows + 1).long()),
                ("labels", f"[{rows}]", f"[{rows + 1}]"),
            ),
        ]
    return (*found, BadInput("more positions than there are", longer, ("max_position_embeddings", "16")))


PACKING_ENCODERS = ("EncoderModel", "EncoderForMaskedLM", "EncoderForTokenClassification")


def _encoder_cases() -> Iterator[Case]:
    from ..models import modeling_encoder as models
    from ..models.configuration_encoder import EncoderConfig

    def tiny(**fields):
        def make(**overrides):
            return EncoderConfig(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 24, "max_position_embeddings": 16, "num_labels": 3,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3,
        }  # fmt: skip
        return make

    # "bert" is published BERT, with its dropout and its ties; "modern" is everything that is not.
    modern = {
        "pre_norm": True, "position_embedding_type": "rotary", "gated_mlp": True, "hidden_act": "silu",
        "use_bias": False, "type_vocab_size": 0,
    }  # fmt: skip
    variants = {
        "bert": {},
        "modern": modern,
        "bert-untied": {"tie_word_embeddings": False},
        "modern-untied": {**modern, "tie_word_embeddings": False, "hidden_act": "gelu"},
    }
    heads = {
        "Model": (kinds.BASE, ("bert", "modern")),
        "ForMaskedLM": (kinds.MASKED_LM, ("bert", "modern", "bert-untied")),
        "ForPreTraining": (kinds.PRETRAINING, ("bert",)),
        "ForSequenceClassification": (kinds.SEQUENCE_CLASSIFICATION, ("bert",)),
        "ForTokenClassification": (kinds.TOKEN_CLASSIFICATION, ("modern",)),
        "ForQuestionAnswering": (kinds.QUESTION_ANSWERING, ("bert",)),
        "ForMultipleChoice": (kinds.MULTIPLE_CHOICE, ("bert",)),
    }
    averaging = {"classifier_pooling": "mean"}  # what heads of one answer per text do in the modern variant
    for head, (kind, quick) in heads.items():
        name = f"Encoder{head}"
        for variant, fields in variants.items():
            if variant.endswith("untied") and kind not in (kinds.MASKED_LM, kinds.PRETRAINING):
                continue  # nothing to tie
            if variant == "modern" and kind in (kinds.SEQUENCE_CLASSIFICATION, kinds.MULTIPLE_CHOICE):
                fields = {**fields, **averaging}
            bad_inputs = _encoder_bad_inputs(name)
            yield Case(
                f"{name}-{variant}",
                family="encoder",
                model_class=getattr(models, name),
                kind=kind,
                make_config=tiny(**fields),
                sharpness=0.4,
                packs=kinds.PACKED_FORMS if name in PACKING_ENCODERS else (),
                # Rotary positions have no last one.
                bad_inputs=bad_inputs[:-1] if variant.startswith("modern") else bad_inputs,
                full=variant not in quick,
                in_subprocesses=variant == quick[0],
            )


def _transformer_bad_inputs() -> tuple[BadInput, ...]:
    def source_of(time):
        ids = torch.full((3, time), 5)
        return lambda model, batch: model(input_ids=ids, decoder_input_ids=batch["decoder_input_ids"])

    def target_of(time):
        ids = torch.full((3, time), 5)
        return lambda model, batch: model(
            **{**batch, "decoder_input_ids": ids, "decoder_attention_mask": None}
        )

    def only(**arguments):
        return lambda model, batch: model(**arguments)

    ids = torch.full((1, 6), 5)
    places, borders = torch.tensor([[0, 1, 2, 0, 1, 2]]), torch.tensor([0, 3, 6], dtype=torch.int32)
    pair = {"input_ids": ids, "decoder_input_ids": ids}
    masks = "attention_mask", "decoder_attention_mask", "position_ids"
    return (
        BadInput("vocab_size of 0", config_with(vocab_size=0), ("vocab_size", "0")),
        BadInput(
            "a width that heads do not divide",
            config_with(d_model=20, encoder_attention_heads=3),
            ("20", "3"),
        ),
        BadInput("a dropout of 1", config_with(dropout=1.0), ("dropout", "1.0")),
        BadInput("label smoothing of 1.5", config_with(label_smoothing=1.5), ("label_smoothing", "1.5")),
        BadInput("a negative r_drop", config_with(r_drop=-1.0), ("r_drop", "-1.0")),
        BadInput("unknown positions", config_with(position_embedding_type="rotarry"), ("rotarry", "rotary")),
        BadInput("an unknown activation", config_with(activation_function="rely"), ("rely", "relu")),
        BadInput(
            "one embedding for two vocabularies",
            config_with(vocab_size=40, decoder_vocab_size=50),
            ("50", "40", "share_encoder_decoder_embeddings"),
        ),
        BadInput(
            "a source longer than the positions", source_of(99), ("source", "99", "max_position_embeddings")
        ),
        BadInput(
            "a target longer than the positions", target_of(99), ("target", "99", "max_position_embeddings")
        ),
        BadInput("a source without tokens", source_of(0), ("source", "token")),
        BadInput("no target", changed("decoder_input_ids", "labels"), ("decoder_input_ids",)),
        BadInput(
            "a mask of another width", changed("attention_mask", attention_mask=torch.ones(3, 2)), ("[3, 2]",)
        ),
        BadInput(
            "packed sources, unpacked targets", only(**pair, position_ids=places), ("packed", "targets")
        ),
        BadInput(
            "packed rows with a mask",
            only(**pair, attention_mask=torch.ones(1, 6), cu_seq_lens=borders, decoder_cu_seq_lens=borders),
            ("acked", "attention_mask"),
        ),
        BadInput(
            "more packed sources than targets",
            only(**pair, cu_seq_lens=borders, decoder_cu_seq_lens=borders[[0, 2]]),
            ("2", "1", "segment"),
        ),
        BadInput("borders under another model's name", changed(*masks, seq_idx=ids), ("pack", "seq_idx")),
        BadInput(
            "as many sources as there are not targets",
            lambda model, batch: model(**{**batch, "decoder_input_ids": ids, "decoder_attention_mask": None}),
            ("sources", "1 targets"),
        ),
    )


def _transformer_cases() -> Iterator[Case]:
    from ..models import modeling_transformer as models
    from ..models.configuration_transformer import TransformerConfig

    def tiny(**fields):
        def make(**overrides):
            return TransformerConfig(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24, "max_position_embeddings": 48, "label_smoothing": 0.0,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        }  # fmt: skip
        return make

    # "paper" is Vaswani et al. 2017, "modern" everything that is not, of different depths.
    modern = {
        "pre_norm": True, "position_embedding_type": "rotary", "gated_mlp": True, "activation_function": "silu",
        "tie_word_embeddings": False, "output_bias": True, "decoder_layers": 3, "attention_dropout": 0.1,
    }  # fmt: skip
    # With larger matrices a post-norm layer drowns the token that it is given, and every continuation is one token.
    sharp = {
        "paper": (0.2, 1.5), "modern": (0.4, 0.3), "learned": (0.2, 1.5), "interleaved": (0.4, 1.0),
        "separate": (0.2, 1.5),
    }  # fmt: skip
    variants = {
        "paper": {},
        "modern": modern,
        "learned": {
            "position_embedding_type": "learned",
            "scale_embedding": False,
            "activation_dropout": 0.1,
        },
        "interleaved": {"interleaved_positions": True, "pre_norm": True},
        "separate": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50},
    }
    for head, kind in (("Model", kinds.SEQ2SEQ_BASE), ("ForSeq2SeqLM", kinds.SEQ2SEQ_LM)):
        for variant, fields in variants.items():
            yield Case(
                f"Transformer{head}-{variant}",
                family="transformer",
                model_class=getattr(models, f"Transformer{head}"),
                kind=kind,
                make_config=tiny(**fields),
                sharpness=sharp[variant][0],
                norm_spread=sharp[variant][1],
                packs=kinds.PACKED_PAIR_FORMS,
                bad_inputs=_transformer_bad_inputs(),
                full=variant not in ("paper", "modern"),
                in_subprocesses=variant == "paper",
            )


def _pervasive_bad_inputs() -> tuple[BadInput, ...]:
    return (
        *_padded_pair_bad_inputs("GridCache"),
        BadInput("growth_size of -1", config_with(growth_size=-1), ("growth_size", "-1")),
        BadInput("an even kernel", config_with(kernel_size=4), ("kernel_size 4", "odd")),
        BadInput(
            "odd channels of sines and cosines", config_with(form="residual", hidden_size=7), ("7", "even")
        ),
        BadInput("an unknown form", config_with(form="deep"), ("deep", "residual")),
        BadInput("an unknown norm", config_with(norm="group"), ("group", "batch")),
        BadInput("an unknown aggregation", config_with(aggregation="sum"), ("sum", "average")),
        BadInput(
            "batch statistics of the other form",
            config_with(form="residual", norm="batch"),
            ("batch", "dense"),
        ),
    )


def _pervasive_cases() -> Iterator[Case]:
    """norm="batch" has no case: in training it is neither causal nor independent of batch-mates, which is what the
    contracts demand; `tests/models/test_modeling_pervasive.py` has what holds for it."""
    from ..models import configuration_pervasive as configs
    from ..models import modeling_pervasive as models

    def tiny(**fields):
        def make(**overrides):
            return configs.PervasiveConfig(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "embedding_size": 12, "num_hidden_layers": 3, "growth_size": 6, "kernel_size": 3,
            "hidden_size": 16, "intermediate_size": 24,
            "embedding_dropout": 0.2, "hidden_dropout": 0.2, "output_dropout": 0.2,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        }  # fmt: skip
        return make

    variants = {
        "dense": {},
        "residual": {"form": "residual", "kernel_size": 5, "aggregation": "gated_max"},
        "attention": {"aggregation": "attention", "kernel_size": 5, "tie_word_embeddings": False},
        "average": {"aggregation": "average", "kernel_size": 1},
        "separate": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50},
    }
    for head, kind in (("Model", kinds.SEQ2SEQ_BASE), ("ForSeq2SeqLM", kinds.SEQ2SEQ_LM)):
        for variant, fields in variants.items():
            yield Case(
                f"Pervasive{head}-{variant}",
                family="pervasive",
                model_class=getattr(models, f"Pervasive{head}"),
                kind=kind,
                make_config=tiny(**fields),
                bad_inputs=_pervasive_bad_inputs(),
                full=variant != "dense",
                in_subprocesses=variant == "dense",
            )


RECURRENT = (*_recurrent_cases(), *_feature_cases(), *_recurrent_head_cases())
RECURRENT_SEQ2SEQ = tuple(_recurrent_seq2seq_cases())
ENCODER = tuple(_encoder_cases())
TRANSFORMER = tuple(_transformer_cases())
PERVASIVE = tuple(_pervasive_cases())
CASES = (*RECURRENT, *RECURRENT_SEQ2SEQ, *ENCODER, *TRANSFORMER, *PERVASIVE)


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
