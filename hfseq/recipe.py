"""A recipe: one YAML file that says all there is to know about a run, with the command line on top.

Three sections. `data:` (class `DataSection` below), `model:` (`model_type` and the fields of its config) and
`training:` (the fields of transformers' `TrainingArguments` under their own names, and those of
`TrainingSection`). On the command line `--field value` sets a field whose name is unique among the sections,
`--model.field value` any field. A key that does not exist is refused, with the nearest one that does.

    recipe = load_recipe("scripts/recipes/lstm-kjv.yaml", ["--hidden_size", "256"])
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class DataSection:
    """What is read, and how it becomes training rows."""

    corpus: str | list[str] | None = None
    """A packaged demo ("kjv", "wiki", "imdb"), a Hub data set id ("org/name", "org/name:configuration"), or several."""
    train_file: str | list[str] | None = None
    """Local text instead: files, folders or globs of .txt, .jsonl, .csv, .parquet, each also .gz. Translation: a .tsv,
    .csv or .jsonl of pairs, or two parallel files, [train.en, train.de]."""
    validation_file: str | list[str] | None = None
    """Validation text; without it `validation_share` of the documents is set aside."""
    test_file: str | list[str] | None = None
    """Test text; without it `test_share` of the documents is set aside."""
    source_language: str = "en"
    """Translation: the language translated from, as the corpus calls it."""
    target_language: str = "de"
    """Translation: the language translated into."""
    source_column: str | None = None
    """Translation: the column (or JSON key) translated from; without it, the one called like the language."""
    target_column: str | None = None
    """Translation: the column translated into, likewise."""
    feature_columns: str | list[str] | None = None
    """Vector-to-sequence: the columns of .csv or .jsonl (there also a list of numbers) whose numbers each text begins
    with; of the corpus "colours": red, green, blue, lightness, green_red, blue_yellow."""
    text_column: str = "text"
    """The column (or JSON key) that holds the text."""
    txt_document: str = "paragraph"
    """What is a document in a .txt file: "paragraph", "line" or "file"."""
    validation_share: float = 0.05
    """Share of documents set aside for validation, chosen by a hash of each document."""
    test_share: float = 0.05
    """Share of documents set aside for testing, chosen likewise."""
    split_seed: int = 0
    """Another number is another split."""
    deduplicate: bool | str = False
    """Drop documents that repeat an earlier one: "whitespace" (or true) up to white space, "exact" letter by letter."""
    streaming: bool = False
    """Read a Hub data set without downloading it first."""
    tokenizer: str = "bpe"
    """An algorithm to train (bpe, wordpiece, unigram, word, character), or a tokenizer's directory or Hub id."""
    tokenizer_vocab_size: int = 4096
    """Vocabulary of a trained tokenizer; the model's is this rounded up to a multiple of 64."""
    vocabulary: str = "joint"
    """Translation: one trained tokenizer for both languages (joint), or one for each (separate)."""
    noise: str | None = None
    """An encoder-decoder learns to repair plain text in place of translating: spans (T5) or infilling (BART)."""
    noise_rate: float | None = None
    """Share of the tokens that the noise takes away; by default as published, 0.15 for spans, 0.3 for infilling."""
    noise_span: float = 3.0
    """Mean length of what is taken away at once, in tokens."""
    permute_sentences: bool = False
    """Infilling: shuffle the sentences as well."""
    sentinels: int = 100
    """Pretraining by span corruption: how many tokens <extra_id_0>, ... a trained tokenizer has to stand for spans."""
    lowercase: bool = False
    """Lower-case the text before tokenising (byte-level tokenizers then no longer give the text back exactly)."""
    streams: int = 32
    """Contiguous text streams read side by side: the global batch, whatever the number of processes."""
    segment_length: int = 64
    """Tokens of each stream per update: how far back-propagation through time reaches."""
    random_lengths: bool = False
    """Vary the segment length as AWD-LSTM does (Merity et al. 2017); the learning rate follows the length."""
    evaluation_streams: int = 8
    """Streams that the validation text is cut into; few, because each begins without context."""
    max_source_length: int | None = None
    """Translation: training pairs with more source tokens (the end token counts) are dropped, and how many is said."""
    max_target_length: int | None = None
    """Translation: likewise for targets."""
    max_length_ratio: float | None = None
    """Translation: training pairs are dropped where one text has more than so many times the other's tokens."""
    packing: str | None = None
    """Masked-LM rows: blocks (the default; text cut anywhere), documents or sentences (whole ones, several per row), or
    pairs of texts for next-sentence (nsp) or sentence-order prediction (sop). Translation: batches (the default; pairs
    of similar length) or packed (several pairs per row of row_length)."""
    row_length: int | list[list[float]] = 128
    """Tokens per masked-LM row; or a curriculum, [[0.9, 128], [0.1, 512]]: 128 for 90% of the run, then 512. With
    noise: the longest piece of text; for packed pairs: positions of a row."""
    tokens_per_update: int = 8192
    """Masked-LM positions per optimiser step over all processes: a multiple of the row length. Translation: at most so
    many positions, pairs x the longest source or target. With features likewise, texts x the longest."""
    cells_per_update: int | None = None
    """Translation: at most so many cells, pairs x the longest source x the longest target, per optimiser step, beside
    tokens_per_update: the memory of hfseq_pervasive grows with them. Evaluation keeps to them too. null: no limit."""
    long_documents: str = "split"
    """Documents (or sentences) longer than a packed row: split (go on in further rows) or error."""
    mask_strategy: str = "token"
    """What is masked: single tokens (token), whole words (whole_word) or runs of words (span)."""
    mask_rate: float = 0.15
    """Share of tokens to guess; evaluation always has 0.15."""
    mask_rate_end: float | None = None
    """The share at the end of the run, reached in a straight line."""
    mask_replacement: str = "bert"
    """What stands in a guessed token's place: bert (80% [MASK], 10% random, 10% the token) or mask (always [MASK])."""
    cache_dir: str | None = None
    """Where token arrays are kept; default: $HFSEQ_CACHE, else ~/.cache/hfseq."""

    def arguments_of(self, load: Callable) -> dict[str, Any]:
        """The fields that `load` (say, hfseq.data.load_corpus) takes by keyword, under the same names."""
        parameters = inspect.signature(load).parameters.values()
        return {p.name: getattr(self, p.name) for p in parameters if p.kind is p.KEYWORD_ONLY}


@dataclass
class TrainingSection:
    """What `TrainingArguments` lacks."""

    optimizer: str = "adamw"
    """adamw, muon (matrices by Muon, the rest by AdamW) or ntasgd (SGD, averaged once validation stalls)."""
    optimizer_arguments: dict[str, Any] = field(default_factory=dict)
    """More arguments of that optimizer, e.g. {nonmono: 5}."""
    initialize_from: str | None = None
    """A checkpoint directory (or Hub id) whose weights the run starts from; data.tokenizer must name it too."""
    average_checkpoints: int = 0
    """After training, average the weights of the last N checkpoints; kept if validation is better for it. 0: no."""
    translated_sentences: int = 500
    """Translation: validation sentences translated, greedily, at each evaluation for BLEU and chrF; 0: none."""
    num_beams: int = 5
    """Translation: beams of the final scores, and of the saved generation config."""
    prompt: str | None = None
    """After training, continue (or translate) this text and print the result."""
    note: str | None = None
    """What readers of the card should know of this recipe."""
    trials: list[dict[str, Any]] = field(default_factory=list)
    """What was tried before these values were chosen, e.g. {learning_rate: 0.001, validation: 2.3}; for the card."""


@dataclass
class Recipe:
    """A loaded recipe; `as_dict` is what `recipe.yaml` in the output directory holds."""

    name: str
    data: DataSection
    model: dict[str, Any]
    training: TrainingSection
    training_arguments: dict[str, Any]
    path: str | None = None
    overrides: list[str] = field(default_factory=list)
    """The command line's share, as it was typed."""

    @property
    def model_type(self) -> str:
        return self.model["model_type"]

    def as_dict(self) -> dict[str, dict[str, Any]]:
        return {
            "data": dataclasses.asdict(self.data),
            "model": self.model,
            "training": {**dataclasses.asdict(self.training), **self.training_arguments},
        }


def load_recipe(path: str | os.PathLike, command_line: list[str] | None = None) -> Recipe:
    """Reads a recipe and applies `--field value` pairs.

    Raises:
        ValueError: unknown sections or keys (the nearest known one is named), values of the wrong type, options
            without a value, a bare option that two sections have.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No recipe at {path}. The packaged ones are in scripts/recipes/.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold the sections data, model and training, not a {type(content).__name__}."
        )
    sections = {"data": {}, "model": {}, "training": {}}
    for name, values in content.items():
        if name not in sections:
            raise ValueError(f"{path}: unknown section {name!r}.{_nearest(name, sections)}")
        if not isinstance(values or {}, dict):
            raise ValueError(f"{path}: section {name} must be a mapping, not {values!r}.")
        sections[name].update(values or {})

    if "model_type" not in sections["model"]:
        raise ValueError(f"{path}: the model section needs a model_type, one of {', '.join(_model_types())}.")
    for option, value in _options(command_line or []):
        # The model type decides which model fields there are, so it is applied first.
        if option in ("model_type", "model.model_type"):
            sections["model"]["model_type"] = value
    known = _known_fields(sections["model"]["model_type"], str(path))
    for option, value in _options(command_line or []):
        section, key = _place(option, known)
        sections[section][key] = value
    for section, values in sections.items():
        for key in values:
            if key not in known[section]:
                raise ValueError(
                    f"{path}: section {section} has no field {key!r}.{_nearest(key, known[section])}"
                )

    own = {f.name for f in dataclasses.fields(TrainingSection)}
    arguments = {k: v for k, v in sections["training"].items() if k not in own}
    return Recipe(
        name=path.stem,
        data=_build(DataSection, sections["data"], f"{path}: data"),
        model=sections["model"],
        training=_build(
            TrainingSection, {k: v for k, v in sections["training"].items() if k in own}, f"{path}: training"
        ),
        training_arguments=_strategies(_numbers(arguments)),
        path=str(path),
        overrides=list(command_line or []),
    )


def model_config(recipe: Recipe, **fields: Any):
    """The config of the recipe's model; `fields` (vocabulary, special ids) come from the tokenizer."""
    from transformers import AutoConfig

    values = {k: v for k, v in recipe.model.items() if k != "model_type"}
    try:
        return AutoConfig.for_model(recipe.model_type, **{**fields, **_numbers(values)})
    except Exception as error:  # strict configs raise their own class; say where the value came from
        raise ValueError(f"{recipe.path}: section model: {error}") from error


def _model_types() -> list[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return sorted(name for name in CONFIG_MAPPING if name.startswith("hfseq_"))


def _known_fields(model_type: str, path: str) -> dict[str, set[str]]:
    from transformers import TrainingArguments
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"{path}: unknown model_type {model_type!r}.{_nearest(model_type, _model_types())}")
    fields = {f.name for f in dataclasses.fields(CONFIG_MAPPING[model_type])}
    return {
        "data": {f.name for f in dataclasses.fields(DataSection)},
        "model": fields | {"model_type"},
        "training": {f.name for f in dataclasses.fields(TrainingArguments) if f.init}
        | {f.name for f in dataclasses.fields(TrainingSection)},
    }


def _options(command_line: list[str]) -> list[tuple[str, Any]]:
    pairs, position = [], 0
    while position < len(command_line):
        word = command_line[position]
        if not word.startswith("--"):
            raise ValueError(f"Expected --field value, found {word!r}. Values with spaces need quotes.")
        if "=" in word:
            option, text = word[2:].split("=", 1)
            position += 1
        else:
            if position + 1 >= len(command_line):
                raise ValueError(f"Option {word} has no value.")
            option, text = word[2:], command_line[position + 1]
            position += 2
        pairs.append((option, yaml.safe_load(text)))
    return pairs


def _place(option: str, known: dict[str, set[str]]) -> tuple[str, str]:
    if "." in option:
        section, key = option.split(".", 1)
        if section not in known:
            raise ValueError(f"--{option}: no section {section!r}.{_nearest(section, known)}")
        if key not in known[section]:
            raise ValueError(
                f"--{option}: section {section} has no field {key!r}.{_nearest(key, known[section])}"
            )
        return section, key
    places = [section for section, keys in known.items() if option in keys]
    if not places:
        raise ValueError(f"Unknown option --{option}.{_nearest(option, set().union(*known.values()))}")
    if len(places) > 1:
        raise ValueError(
            f"--{option} is a field of several sections; write "
            + " or ".join(f"--{p}.{option}" for p in places)
        )
    return places[0], option


def _nearest(word: str, known) -> str:
    matches = difflib.get_close_matches(str(word), sorted(known), n=3, cutoff=0.5)
    if matches:
        return f" Did you mean {' or '.join(matches)}?"
    return f" Known: {', '.join(sorted(known))}." if len(known) <= 12 else ""


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 (no dot) as text; nobody means text by it."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _number(v) if k not in ("output_dir", "run_name") else v for k, v in values.items()}


def _strategies(values: dict[str, Any]) -> dict[str, Any]:
    """YAML 1.1 reads no as false; `save_strategy: no` means TrainingArguments' "no"."""
    return {k: "no" if v is False and k.endswith("_strategy") else v for k, v in values.items()}


_TYPES = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
    "None": (type(None),),
}


def _build(section: type, values: dict[str, Any], where: str):
    built = {}
    for f in dataclasses.fields(section):
        if f.name not in values:
            continue
        value = values[f.name]
        names = [part.split("[")[0].strip() for part in str(f.type).split("|")]
        if names == ["float"] or names == ["int"]:
            value = _number(value)
        allowed = tuple(t for name in names for t in _TYPES[name])
        wrong_bool = isinstance(value, bool) and bool not in allowed
        if wrong_bool or not isinstance(value, allowed):
            raise ValueError(f"{where}: {f.name} must be {f.type}, not {value!r}.")
        built[f.name] = value
    return section(**built)
