"""Language models: RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import DynamicCache

from .. import kinds
from ..cases import BadInput, Case, config_with


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
    from ...models import configuration_recurrent as configs
    from ...models import modeling_recurrent as models

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


RECURRENT = tuple(_recurrent_cases())
