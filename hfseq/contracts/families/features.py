"""Language models that begin with a vector."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .. import kinds
from ..cases import BadInput, Case, config_with


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
    from ...models import configuration_recurrent as configs
    from ...models import modeling_recurrent as models

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


FEATURES = tuple(_feature_cases())
