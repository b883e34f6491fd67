"""Recipes in the form of hfseq 0.1, which had one bag of data fields for all kinds of runs.

Such a recipe is refused with its new form, ready to be saved; `modernise` also rewrites the recipes that old runs and
cards carry.
"""

from __future__ import annotations

from typing import Any

import yaml

_TO_TOKENIZER = {"tokenizer_vocab_size": "vocab_size", "lowercase": "lowercase", "vocabulary": "vocabulary"}
_ALGORITHMS = ("bpe", "wordpiece", "unigram", "word", "character")
_TO_OBJECTIVE = {
    "causal": ("streams", "segment_length", "random_lengths", "evaluation_streams"),
    "masked": (
        "packing", "row_length", "tokens_per_update", "long_documents", "mask_strategy", "mask_rate", "mask_rate_end",
        "mask_replacement",
    ),
    "denoising": (
        "noise", "noise_rate", "noise_span", "permute_sentences", "sentinels", "row_length", "tokens_per_update",
        "num_beams",
    ),
    "translation": (
        "packing", "row_length", "tokens_per_update", "cells_per_update", "translated_sentences", "num_beams",
    ),
    "vector_to_text": ("tokens_per_update",),
}  # fmt: skip
_TEXT = (
    "corpus",
    "train_file",
    "validation_file",
    "test_file",
    "validation_share",
    "test_share",
    "split_seed",
    "cache_dir",
)
_TO_DATA = {
    "translation": (
        *_TEXT, "source_language", "target_language", "source_column", "target_column", "max_source_length",
        "max_target_length", "max_length_ratio", "deduplicate", "streaming",
    ),
    "vector_to_text": (*_TEXT, "text_column", "feature_columns"),
}  # fmt: skip
_PLAIN_TEXT = (*_TEXT, "text_column", "txt_document", "deduplicate", "streaming")
# What recipe.yaml of an old run holds of every field, whether its run used it or not.
_DEFAULTS: dict[str, Any] = {
    "text_column": "text", "txt_document": "paragraph", "validation_share": 0.05, "test_share": 0.05, "split_seed": 0,
    "deduplicate": False, "streaming": False, "vocabulary": "joint", "noise_span": 3.0, "permute_sentences": False,
    "sentinels": 100, "lowercase": False, "random_lengths": False, "evaluation_streams": 8, "long_documents": "split",
    "mask_strategy": "token", "mask_replacement": "bert", "optimizer_arguments": {}, "average_checkpoints": 0,
    "trials": [],
}  # fmt: skip


def is_old(sections: dict[str, dict[str, Any]]) -> bool:
    """Whether these are the sections of a recipe of hfseq 0.1."""
    return {"data", "model"} <= sections.keys() and not {"tokenizer", "objective", "task"} & sections.keys()


def refuse_old_form(sections: dict[str, dict[str, Any]], path: str) -> None:
    """ValueError with the new form, where the sections have the old one."""
    if is_old(sections):
        new = yaml.safe_dump(modernise(sections), sort_keys=False, allow_unicode=True, width=110)
        raise ValueError(
            f"{path} is a recipe of hfseq 0.1. Since 0.2 a recipe also has the sections tokenizer and objective. The "
            f"same recipe in the new form:\n\n{new}"
        )


def modernise(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The sections of an old recipe in the new form; fields that its run did not use are left out."""
    data, model = dict(sections.get("data") or {}), dict(sections.get("model") or {})
    training = dict(sections.get("training") or {})
    kind = _objective_of(data, str(model.get("model_type")))
    tokenizer: dict[str, Any] = {}
    name = data.get("tokenizer", "bpe")
    if name in _ALGORITHMS:
        tokenizer["type"] = name
        for old, new in _TO_TOKENIZER.items():
            if _says_something(old, data) and (old != "vocabulary" or kind == "translation"):
                tokenizer[new] = data[old]
    else:
        tokenizer["path"] = name
    objective: dict[str, Any] = {"type": kind}
    for field in _TO_OBJECTIVE[kind]:
        source = training if field in ("translated_sentences", "num_beams") else data
        if _says_something(field, source):
            objective[field] = source.pop(field)
    if kind == "translation" and objective.get("packing") != "packed":
        objective.pop("row_length", None)
    for field in ("translated_sentences", "num_beams"):
        training.pop(field, None)
    return {
        "data": {f: data[f] for f in _TO_DATA.get(kind, _PLAIN_TEXT) if _says_something(f, data)},
        "tokenizer": tokenizer,
        "objective": objective,
        "model": model,
        "training": {f: training[f] for f in training if _says_something(f, training)},
    }


def _says_something(field: str, values: dict[str, Any]) -> bool:
    value = values.get(field)
    return value is not None and not (field in _DEFAULTS and value == _DEFAULTS[field])


def _objective_of(data: dict[str, Any], model_type: str) -> str:
    if model_type == "hfseq_encoder":
        return "masked"
    if model_type.endswith("_seq2seq") or model_type in ("hfseq_transformer", "hfseq_pervasive"):
        return "translation" if data.get("noise") is None else "denoising"
    return "causal" if data.get("feature_columns") is None else "vector_to_text"


__all__ = ["is_old", "modernise", "refuse_old_form"]
