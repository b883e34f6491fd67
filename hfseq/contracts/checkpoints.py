"""A case made of a checkpoint: trained weights instead of sharp random ones, ours or a stranger's."""

from __future__ import annotations

import dataclasses
import os

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.models.auto import modeling_auto as names

from ..loading import load_config
from . import kinds
from .cases import Case
from .families import CASES

# Class names of each kind of head, as transformers itself tells them apart.
KINDS = (
    (kinds.SEQ2SEQ_LM, names.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    (kinds.CAUSAL_LM, names.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    (kinds.MASKED_LM, names.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    (kinds.SEQUENCE_CLASSIFICATION, names.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    (kinds.TOKEN_CLASSIFICATION, names.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES),
    (kinds.QUESTION_ANSWERING, names.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES),
    (kinds.MULTIPLE_CHOICE, names.MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES),
    (kinds.PRETRAINING, {"bert": "BertForPreTraining"}),  # what other families pretrain on differs
    (kinds.BASE, names.MODEL_MAPPING_NAMES),
)


def checkpoint_case(path: str, trust_remote_code: bool = False) -> Case:
    """The case of a checkpoint directory or Hub id.

    Args:
        path: what `from_pretrained` takes.
        trust_remote_code: whether code that the checkpoint brings may run.

    Raises:
        ValueError: the class that the checkpoint names is unknown, or of a kind that no contract knows.
    """
    path = os.path.abspath(path) if os.path.isdir(path) else path
    options = {"trust_remote_code": trust_remote_code}
    config = load_config(path, **options)
    architecture = (config.architectures or ["no class"])[0]
    model_class, kind = _find_class(path, config, architecture, trust_remote_code)

    def make_config(**overrides) -> PreTrainedConfig:
        return AutoConfig.from_pretrained(path, **overrides, **options)

    def load(config: PreTrainedConfig) -> PreTrainedModel:
        return model_class.from_pretrained(path, config=config)

    template = next((case for case in CASES if case.model_class.__name__ == architecture), None)
    changes = {
        "name": path,
        "model_class": model_class,
        "make_config": make_config,
        "load": load,
        "full": False,
    }
    if template is not None:
        return dataclasses.replace(template, **changes)
    if kind is kinds.SEQ2SEQ_LM and config.decoder_start_token_id is None:
        raise ValueError(
            f"{path}: config.decoder_start_token_id is None; set it to the id that targets begin with."
        )
    stranger = Case(kind=kind, family="stranger", **changes)
    # Whoever generates is given left padding; elsewhere it is not known that the positions may be shifted.
    sides = ("right", "left") if stranger.takes_positions and kind.generates else ("right",)
    # What transformers does for causal models under its own attention; borders are for flash attention alone.
    packs = ("position_ids",) if kind.causal_axis and kind.pack and stranger.takes_positions else ()
    return dataclasses.replace(stranger, sides=sides, packs=packs)


def _find_class(path: str, config: PreTrainedConfig, name: str, trust: bool) -> tuple[type, kinds.Kind]:
    auto_map = getattr(config, "auto_map", None) or {}
    remote = {reference.split(".")[-1]: (auto, reference) for auto, reference in auto_map.items()}
    ours = {case.model_class.__name__: case for case in CASES}
    if name in ours:
        return ours[name].model_class, ours[name].kind
    if hasattr(transformers, name):
        model_class = getattr(transformers, name)
        auto_class = None
    elif name in remote and trust:
        auto_class, reference = remote[name]
        model_class = get_class_from_dynamic_module(reference, path)
    else:
        remedy = "pass --trust_remote_code if you trust its code" if name in remote else "is it a checkpoint?"
        raise ValueError(f"{path} names the class {name}, which neither hfseq nor transformers has: {remedy}")
    for kind, known in KINDS:
        if auto_class == kind.auto_class or (auto_class is None and name in _values(known)):
            if kind is kinds.BASE and config.is_encoder_decoder:
                return model_class, kinds.SEQ2SEQ_BASE
            return model_class, kind
    raise ValueError(f"{path} holds a {name}; contracts know {', '.join(k.name for k, _ in KINDS)}s only.")


def _values(mapping) -> set[str]:
    found = set()
    for value in mapping.values():
        found.update([value] if isinstance(value, str) else value)
    return found
