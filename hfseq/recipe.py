"""A recipe: one YAML file that says all there is to know about a run, with the command line on top.

A recipe has sections (`data`, `tokenizer`, `objective`, `model`, `training`; fine-tuning has a `task` in place of the
objective), and which fields a section has follows from what the recipe chooses: the objective, the model. Whoever reads
recipes of a kind says so by a function from the sections as they are written to their `Section`s (see
`hfseq.objectives.load_recipe`); this module reads YAML and command lines, and refuses what does not fit.

On the command line `--field value` sets a field whose name is unique among the sections, `--section.field value` any.
A key that does not exist is refused, with the nearest one that does.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from .hints import nearest_hint
from .paths import user_path

RawSections = dict[str, dict[str, Any]]


@dataclass
class Section:
    """Which fields a section may have.

    Args:
        own: a dataclass; its fields, types and defaults are the section's.
        others: names of fields whose values somebody else checks (TrainingArguments, the model's config).
        owner: whose these fields are, for messages: "objective causal", "model_type gpt2".
        elsewhere: {name: who has it}, fields that other choices have: named where one of them is given by mistake.
        texts: which of the others are text whatever it looks like: a folder may be called 1e3.
    """

    own: type | None
    others: frozenset[str] = frozenset()
    owner: str = ""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        """All fields."""
        return self.others | ({f.name for f in dataclasses.fields(self.own)} if self.own else set())


@dataclass
class Recipe:
    """A loaded recipe; `as_dict` is what `recipe.yaml` in the output directory holds."""

    name: str
    sections: dict[str, Any]
    """{section: its dataclass; None where it has none}."""
    others: dict[str, dict[str, Any]]
    """{section: the fields that somebody else checks}."""
    path: str
    overrides: list[str] = field(default_factory=list)
    """The command line's share, as it was typed."""

    @property
    def data(self) -> Any:
        return self.sections["data"]

    @property
    def tokenizer(self) -> Any:
        return self.sections["tokenizer"]

    @property
    def objective(self) -> Any:
        return self.sections["objective"]

    @property
    def model(self) -> dict[str, Any]:
        """`model_type` and fields of its config."""
        return self.others["model"]

    @property
    def training(self) -> Any:
        return self.sections["training"]

    @property
    def training_arguments(self) -> dict[str, Any]:
        """Fields of transformers' `TrainingArguments`."""
        return self.others["training"]

    @property
    def model_type(self) -> str:
        return self.model["model_type"]

    def as_dict(self) -> RawSections:
        return {
            name: {**(dataclasses.asdict(own) if own is not None else {}), **self.others.get(name, {})}
            for name, own in self.sections.items()
        }


def recipe_folder() -> Path:
    """Where the packaged recipes are."""
    return Path(str(resources.files(__package__) / "recipes"))


def packaged_recipes() -> dict[str, Path]:
    """{name: file} of the recipes that come with hfseq."""
    return {path.stem: path for path in sorted(recipe_folder().glob("*.yaml"))}


def find_recipe(name: str | os.PathLike) -> Path:
    """The file of a recipe: a path (of a .yaml, or with a folder before it), else the name of a packaged one.

    Raises:
        FileNotFoundError: neither; the nearest packaged names are told.
    """
    text = os.fspath(name)
    path = user_path(text)
    if path.is_file():
        return path
    packaged = packaged_recipes()
    if text in packaged:
        return packaged[text]
    hint = nearest_hint(path.stem, packaged)
    raise FileNotFoundError(
        f"No recipe {text!r}: it is no file, and none of the packaged recipes has that name.{hint} `hfseq recipes` "
        "lists them."
    )


def read_recipe(path: Path) -> str:
    """The file's text; ValueError where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from error


class _StrictLoader(yaml.SafeLoader):
    """YAML takes the last of two equal keys, and the first is gone without a word; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            name, line = key.value, key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in seen:
                raise yaml.YAMLError(
                    f"{name!r} stands twice, in lines {seen[name]} and {line}. Keep one of the two."
                )
            if isinstance(key, yaml.ScalarNode):
                seen[name] = line
        return super().construct_mapping(node, deep)


def read_sections(path: Path) -> RawSections:
    """The sections as they are written, each a mapping.

    Raises:
        ValueError: what is no UTF-8, no YAML, no mapping of mappings; a key that stands twice.
    """
    text = read_recipe(path)
    try:
        content = yaml.load(text, Loader=_StrictLoader) or {}
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold sections such as data and model, not a {type(content).__name__}.")
    for name, values in content.items():
        if not isinstance(values or {}, dict):
            raise ValueError(f"{path}: section {name} must be a mapping, not {values!r}.")
    return {str(name): dict(values or {}) for name, values in content.items()}


def check_sections(
    raw: RawSections,
    command_line: Iterable[str],
    sections_of: Callable[[RawSections, str], dict[str, Section]],
    name: str,
    path: str,
) -> Recipe:
    """A recipe with the command line on top, checked.

    Args:
        raw: the file's sections (`read_sections`), or none, where all is on the command line.
        command_line: `--field value` and `--field=value` words.
        sections_of: from the sections as written, and the recipe's name for messages, to what they may hold. It is
            called once with the command line's `--section.field`s applied, and may raise ValueError.
        name: of the recipe.
        path: what messages call the recipe.

    Raises:
        ValueError: unknown sections or keys (the nearest known one is named), values of the wrong type, options
            without a value, a bare option that two sections have.
    """
    words = list(command_line)
    options = read_options(words)
    for option, value in options:
        # Choices (objective.type, model.model_type) decide which fields there are, so they are applied first.
        section, _, key = option.rpartition(".")
        if section in raw or key == "model_type":
            raw.setdefault(section or "model", {})[key] = value
    sections = sections_of(raw, path)
    for section in raw:
        if section not in sections:
            raise ValueError(f"{path}: unknown section {section!r}.{nearest_hint(section, sections)}")
    for option, value in options:
        section, key = _place(option, sections)
        raw.setdefault(section, {})[key] = value

    built: dict[str, Any] = {}
    others: dict[str, dict[str, Any]] = {}
    for section, allowed in sections.items():
        values = raw.get(section, {})
        for key in values:
            if key not in allowed.names:
                raise ValueError(f"{path}: {_no_field(section, key, allowed)}")
        own = {f.name for f in dataclasses.fields(allowed.own)} if allowed.own else set()
        built[section] = allowed.own and build(
            allowed.own, {k: v for k, v in values.items() if k in own}, f"{path}: {section}"
        )
        others[section] = {
            k: v if k in allowed.texts else read_number(v) for k, v in values.items() if k not in own
        }
    return Recipe(name, built, others, path, words)


def read_options(command_line: Iterable[str]) -> list[tuple[str, Any]]:
    """(option, value) of `--option value` and `--option=value` words; values are YAML."""
    pairs, words = [], list(command_line)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            raise ValueError(f"Expected --field value, found {word!r}. Values with spaces need quotes.")
        option, equals, text = word[2:].partition("=")
        if not equals:
            if not words:
                raise ValueError(f"Option {word} has no value.")
            text = words.pop(0)
        pairs.append((option, _read_value(text)))
    return pairs


def _read_value(text: str) -> Any:
    """The YAML value, where a word of a command line means one: "He said: go" is no mapping, "#c04e01" no comment."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return text  # such as "[MASK] is", which is meant as it stands
    if value is None:
        return None if text.strip().lower() in ("", "null", "~") else text
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        return text
    return value if isinstance(value, bool | int | float | list | dict | str) else text  # a date is text


def read_number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 (no dot) as text; nobody means text by it."""
    if isinstance(value, str):
        mantissa, e, exponent = value.lower().partition("e")
        is_number = e and mantissa.lstrip("+-").replace(".", "", 1).isdecimal()
        if is_number and exponent.lstrip("+-").isdecimal() and len(value) < 40:
            return float(value)
    return value


def build(section: type, values: Mapping[str, Any], where: str) -> Any:
    """The dataclass with these values.

    Raises:
        ValueError: a value of another type than the field's, with the field and what it may be.
    """
    hints = typing.get_type_hints(section)
    built = {}
    for f in dataclasses.fields(section):
        if f.name in values:
            value = values[f.name]
            kinds = kinds_of(hints[f.name])
            if str not in kinds and kinds & {int, float}:
                value = read_number(value)
            if int in kinds and float not in kinds and isinstance(value, float) and value.is_integer():
                value = int(value)
            fits = isinstance(value, bool) == (bool in kinds) if isinstance(value, bool) else (
                type(value) in kinds or (float in kinds and isinstance(value, int))
            )  # fmt: skip
            if not fits:
                raise ValueError(f"{where}.{f.name} must be {f.type}, not {value!r:.200}.")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{where}.{f.name} must be a finite number, not {value!r}.")
            if isinstance(value, int) and abs(value) >= 2**63:
                raise ValueError(f"{where}.{f.name} is beyond all that can be counted: {value!r:.60}.")
            built[f.name] = value
    try:
        return section(**built)
    except ValueError as error:  # what __post_init__ refuses
        raise ValueError(f"{where}: {error}") from error


def kinds_of(hint: Any) -> set[type]:
    """The plain types that a field may have: `str | list[str] | None` -> {str, list, NoneType}."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return set().union(*(kinds_of(part) for part in typing.get_args(hint)))
    return {typing.get_origin(hint) or hint}


def _place(option: str, sections: Mapping[str, Section]) -> tuple[str, str]:
    section, dot, key = option.partition(".")
    if dot:
        if section not in sections:
            raise ValueError(f"--{option}: no section {section!r}.{nearest_hint(section, sections)}")
        if key not in sections[section].names:
            raise ValueError(f"--{option}: {_no_field(section, key, sections[section])}")
        return section, key
    places = [name for name, allowed in sections.items() if option in allowed.names]
    if not places:
        for name, allowed in sections.items():
            if option in allowed.elsewhere:
                raise ValueError(f"--{option}: {_no_field(name, option, allowed)}")
        known = {f"{name}.{key}" for name, allowed in sections.items() for key in allowed.names}
        bare = set().union(*(allowed.names for allowed in sections.values()))
        raise ValueError(
            f"Unknown option --{option}.{nearest_hint(option, bare) or nearest_hint(option, known)}"
        )
    if len(places) > 1:
        both = " or ".join(f"--{place}.{option}" for place in places)
        raise ValueError(f"--{option} is a field of several sections; write {both}.")
    return places[0], option


def _no_field(section: str, key: str, allowed: Section) -> str:
    of = f" of {allowed.owner}" if allowed.owner else ""
    if key in allowed.elsewhere:
        return (
            f"section {section}{of} has no field {key!r}: that is a field of {allowed.elsewhere[key]}."
            f"{nearest_hint(key, allowed.names)}"
        )
    return f"section {section}{of} has no field {key!r}.{nearest_hint(key, allowed.names)}"


__all__ = [
    "Recipe",
    "Section",
    "build",
    "check_sections",
    "find_recipe",
    "kinds_of",
    "packaged_recipes",
    "read_number",
    "read_options",
    "read_recipe",
    "read_sections",
    "recipe_folder",
]
