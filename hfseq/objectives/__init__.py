"""The ways to pretrain: one file each, all that an objective is in it (`base.py` says what that is).

A recipe chooses one by `objective.type`. A new objective is one file, and one line in `OBJECTIVES`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import TrainingArguments
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..hints import nearest_hint
from ..recipe import RawSections, Recipe, Section, check_sections, find_recipe, read_options, read_sections
from ..training.arguments import check_values
from .base import Objective, Plan, Score, model_class_of
from .causal import Causal
from .denoising import Denoising
from .masked import Masked
from .old_recipes import refuse_old_form
from .sections import Training, check_sources
from .translation import Translation
from .vector_to_text import VectorToText

OBJECTIVES: dict[str, type[Objective]] = {
    objective.name: objective for objective in (Causal, Masked, Denoising, Translation, VectorToText)
}

SECTIONS = ("data", "tokenizer", "objective", "model", "training")

# TrainingArguments that are text whatever they look like: a folder may be called 1e3.
_TEXTS = frozenset({"output_dir", "run_name", "hub_model_id", "prompt", "note"})

# TrainingArguments that would mean nothing, or another thing than they say, and what is said in their place.
SET_HERE = {
    "optim": "optimizer",
    "optim_args": "optimizer_arguments",
    "optim_target_modules": "optimizer",
    "label_smoothing_factor": "the model's own label_smoothing, where it has one",
    "resume_from_checkpoint": "--resume",
}


def load_recipe(name: str | os.PathLike, command_line: Iterable[str] = ()) -> Recipe:
    """A pretraining recipe with `--field value` words on top.

    Args:
        name: a file, or the name of a packaged recipe.

    Raises:
        ValueError: an unknown objective or model type, a model type without the head that the objective needs, fields
            that objective or model do not have (the nearest is named), values of the wrong type, a recipe in the form
            of hfseq 0.1 (its new form is printed).
        FileNotFoundError: no such recipe.
    """
    file, words = find_recipe(name), list(command_line)
    options = dict(read_options(words))
    raw = _one_optimizer(_one_tokenizer(read_sections(file), options), options)
    recipe = check_sections(raw, words, _sections, file.stem, str(file))
    arguments = recipe.training_arguments
    for key, value in arguments.items():
        if value is False and key.endswith("_strategy"):
            arguments[key] = "no"  # YAML 1.1 reads no as false
    return recipe


def _one_tokenizer(raw: RawSections, options: dict[str, Any]) -> RawSections:
    """The file's sections without the tokenizer that the command line's takes the place of: one that is there
    (`--tokenizer.path`), or one to be trained (`--tokenizer.type`)."""
    own = raw.get("tokenizer", {})
    if options.get("tokenizer.path", options.get("path")) is not None:
        own = {}
    elif options.get("tokenizer.type") is not None:
        own = {key: value for key, value in own.items() if key != "path"}
    return {**raw, "tokenizer": own} if "tokenizer" in raw else raw


def _one_optimizer(raw: RawSections, options: dict[str, Any]) -> RawSections:
    """The file's sections without the arguments of an optimizer that the command line's takes the place of."""
    own = raw.get("training", {})
    chosen = options.get("training.optimizer", options.get("optimizer"))
    if chosen is None or chosen == own.get("optimizer", Training.optimizer):
        return raw
    return {**raw, "training": {key: value for key, value in own.items() if key != "optimizer_arguments"}}


def objective_of(recipe: Recipe) -> Objective:
    """The recipe's objective, ready to prepare."""
    return OBJECTIVES[recipe.objective.type](recipe)


def model_config(recipe: Recipe, **fields: Any) -> Any:
    """The config of the recipe's model.

    Args:
        fields: vocabulary and special ids, from the tokenizer; those that the config does not have are left out, those
            that the recipe gives too are the recipe's.

    Raises:
        ValueError: a value that the config refuses.
    """
    config_class = CONFIG_MAPPING[recipe.model_type]
    known = _config_fields(config_class)
    given = {key: value for key, value in recipe.model.items() if key != "model_type"}
    try:
        config = config_class(**{**{k: v for k, v in fields.items() if k in known}, **given})
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ValueError(f"{recipe.path}: section model: {error}") from error
    return config


def check_recipe(recipe: Recipe, objective: Objective) -> None:
    """Refuses what cannot be right whatever the corpus is, before anything is read or written.

    Raises:
        ValueError, OSError, ImportError: what does not fit, and where.
    """
    check_values(recipe.training_arguments)
    objective.check_numbers()
    objective.check_before(model_config(recipe))
    check_sources(recipe.data)


def prepared_config(recipe: Recipe, objective: Objective) -> Any:
    """Prepares the data, which are then in the objective; the model's config, its vocabulary fitted to the tokenizer
    and checked.

    Raises:
        ValueError, OSError, ImportError: what does not fit, and where.
    """
    objective.prepare()
    config = model_config(recipe, **objective.config_fields())
    objective.check(config)
    objective.check_prompt(config)
    return config


def _sections(raw: RawSections, path: str) -> dict[str, Section]:
    if "task" in raw and "objective" not in raw:
        raise ValueError(f"{path} is a recipe of fine-tuning: `hfseq finetune` takes it.")
    for section in raw:
        if section not in SECTIONS:
            raise ValueError(f"{path}: unknown section {section!r}.{nearest_hint(section, SECTIONS)}")
    refuse_old_form(raw, path)
    chosen = raw.get("objective", {}).get("type")
    if not isinstance(chosen, str) or chosen not in OBJECTIVES:
        known = f"one of {', '.join(OBJECTIVES)}"
        if chosen is None:
            raise ValueError(f"{path}: the objective section needs a type, {known}.")
        raise ValueError(
            f"{path}: unknown objective.type {chosen!r}, {known}.{nearest_hint(str(chosen), OBJECTIVES)}"
        )
    objective = OBJECTIVES[chosen]
    model_type = raw.get("model", {}).get("model_type")
    config_class = _config_class(model_type, path)
    auto_class = objective.auto_class_name(raw["objective"])
    model_class = model_class_of(auto_class, config_class)
    if model_class is None:
        fitting = sorted(c.model_type for c in _configs_with(auto_class))
        raise ValueError(
            f"{path}: objective {chosen} needs a model of {auto_class}, and model_type {model_type} has none."
            f"{nearest_hint(model_type, fitting)} hfseq's own that have: "
            f"{', '.join(name for name in fitting if name.startswith('hfseq_'))}."
        )
    own = objective.section(model_class)
    return {
        "data": Section(
            objective.data_section, owner=f"objective {chosen}", elsewhere=_elsewhere("data_section", chosen)
        ),
        "tokenizer": Section(
            objective.tokenizer_section,
            owner=f"objective {chosen}",
            elsewhere=_elsewhere("tokenizer_section", chosen),
        ),
        "objective": Section(
            own, owner=_owner(objective, own, model_type), elsewhere=_other_fields(chosen, own)
        ),
        "model": Section(
            None, frozenset({"model_type", *_config_fields(config_class)}), f"model_type {model_type}"
        ),
        "training": Section(
            Training,
            frozenset(f.name for f in dataclasses.fields(TrainingArguments) if f.init) - set(SET_HERE),
            elsewhere={key: f"TrainingArguments that is set here ({how})" for key, how in SET_HERE.items()},
            texts=_TEXTS,
        ),
    }


def _config_class(model_type: Any, path: str) -> type:
    types = sorted(CONFIG_MAPPING.keys())
    own = ", ".join(name for name in types if name.startswith("hfseq_"))
    if model_type is None:
        raise ValueError(f"{path}: the model section needs a model_type: {own}, or any of transformers.")
    if not isinstance(model_type, str):
        raise ValueError(
            f"{path}: model.model_type must be a name such as hfseq_lstm, not {model_type!r:.100}."
        )
    if model_type not in types:
        raise ValueError(
            f"{path}: unknown model_type {model_type!r}.{nearest_hint(model_type, types)} hfseq's own: {own}."
        )
    return CONFIG_MAPPING[model_type]


def _config_fields(config_class: type) -> set[str]:
    names = {f.name for f in dataclasses.fields(config_class) if f.init}
    return names | set(getattr(config_class, "attribute_map", {}))


def _configs_with(auto_class: str) -> list[Any]:
    import transformers

    return list(getattr(transformers, auto_class)._model_mapping.keys())


def _owner(objective: type[Objective], own: type, model_type: Any) -> str:
    one_form = objective.section(None) is own
    return (
        f"objective {objective.name}"
        if one_form
        else f"objective {objective.name} with model_type {model_type}"
    )


def _other_fields(chosen: str, own: type) -> dict[str, str]:
    """Fields of other objectives, and of this one with other models."""
    found = {name: f"objective {chosen} with other models" for name in OBJECTIVES[chosen].all_fields()}
    for objective in OBJECTIVES.values():
        if objective.name != chosen:
            for name in objective.all_fields():
                found.setdefault(name, f"objective {objective.name}")
    return found


def _elsewhere(attribute: str, chosen: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for objective in OBJECTIVES.values():
        if objective.name != chosen:
            for f in dataclasses.fields(getattr(objective, attribute)):
                found.setdefault(f.name, f"objective {objective.name}")
    return found


__all__ = [
    "OBJECTIVES",
    "Objective",
    "Plan",
    "Score",
    "check_recipe",
    "load_recipe",
    "model_config",
    "objective_of",
    "prepared_config",
]
