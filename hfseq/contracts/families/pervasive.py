"""Pervasive Attention."""

from __future__ import annotations

from collections.abc import Iterator

from .. import kinds
from ..cases import BadInput, Case, config_with
from .padded_pairs import padded_pair_bad_inputs


def _pervasive_bad_inputs() -> tuple[BadInput, ...]:
    return (
        *padded_pair_bad_inputs("GridCache"),
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


_STATISTICS = "norm='batch': in training, as published, the statistics are of the whole batch, "
_PUBLISHED_PADDING = "padding='published': as in the authors' code, outputs depend on how a row is padded"
BATCH_NORM = {
    "padding": f"{_STATISTICS}so that a row depends on its neighbours",
    "causality": f"{_STATISTICS}future target words included",
    "loss": f"{_STATISTICS}which accumulation cuts into others",
    "distributed": f"{_STATISTICS}which each process takes of its own part",
}
PUBLISHED_PADDING = {
    "padding": _PUBLISHED_PADDING,
    "caching": f"{_PUBLISHED_PADDING}: a padded batch is not its rows alone, with which decoding is compared",
    "loss": f"{_PUBLISHED_PADDING}, and accumulation pads micro-batches otherwise",
    "distributed": f"{_PUBLISHED_PADDING}, and processes pad their parts otherwise",
}


def _pervasive_cases() -> Iterator[Case]:
    """`tests/models/test_modeling_pervasive.py` and `test_pervasive_published.py` have what holds where a contract does
    not: both are causal in evaluation, and padding="masked" mends what is not the statistics' doing."""
    from ...models import configuration_pervasive as configs
    from ...models import modeling_pervasive as models

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
        "batch": {"norm": "batch"},
        "densenet_2018": {"form": "densenet_2018"},
        "densenet_2018-masked": {"form": "densenet_2018", "padding": "masked"},
        "resnet_2020": {"form": "resnet_2020", "aggregation": "gated_max", "kernel_size": 5},
        "resnet_2020-masked": {"form": "resnet_2020", "aggregation": "gated_max", "padding": "masked"},
    }
    broken = {
        "batch": BATCH_NORM,
        "densenet_2018": {**PUBLISHED_PADDING, **BATCH_NORM},
        "densenet_2018-masked": BATCH_NORM,
        "resnet_2020": PUBLISHED_PADDING,
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
                sharpness=0.4 if variant == "batch" or "20" in variant else 0.7,
                broken=broken.get(variant, {}),
            )


PERVASIVE = tuple(_pervasive_cases())
