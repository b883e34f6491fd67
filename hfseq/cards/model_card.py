"""A model card, from what a run measured.

No number of it is typed by hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from .card_text import CardText
from .corpora import describe_corpus, licence
from .front_matter import front_matter
from .making import introduction, making, usage
from .markdown import table
from .results import (
    adapted,
    averaged_weights,
    colours_and_names,
    comparison,
    deployed,
    fine_tuned,
    grammar,
    results,
)


def write_model_card(directory: str | PathLike[str], facts: Mapping[str, Any], text: CardText) -> Path:
    """Writes `directory/README.md`, the card that the Hub shows, from what the run measured.

    Args:
        directory: the checkpoint directory.
        facts: what `hfseq pretrain` writes to `training_summary.json`. Required:
            recipe: its name, the title; recipe_content: its sections; command: the exact command.
            model_class; parameters: their number.
            scores: {split: {the metrics of its objective}}.
          Optional:
            baselines: [{name, SPLIT: {metrics as in scores}, ...}], measured on the same splits.
            fine_tuning: what `hfseq finetune` wrote to its summaries, of this model and of what it is held against.
            learning_rate_trials: [{learning_rate, ..., validation}], all that was tried.
            vocabulary, train_documents, train_tokens, train_bytes, updates, epochs, training_seconds,
            tokens_per_second; machine: {torch, processor, ...}.
            averaging: {checkpoints, score, validation: {last, average}, kept}, what the choice of weights after
            training found; {metric}_signature in a score: how it was counted.
            swatches: what scripts/swatches.py found.
            deployment: {how, forms: [{form, bytes, speeds, quality}], updates, cpu, threads, clock}, what
                scripts/benchmark.py deployment measured; bytes, quality and updates are optional.
            blimp: what `hfseq evaluate --benchmark blimp` wrote, and under `baselines` such results of n-grams.
            adapted: {options: {dynamic: {...}, cache: {...}}, split, scores}, what `hfseq evaluate` found with a model
                that goes on learning from the text.
            compared: {systems: {name: {bleu, margin, p_value, parameters, tokens_read}}, sentences, lowercase}, a
                paired bootstrap of translations, the last of the systems the model's own, the last two numbers of
                the target side and optional; alignment: file name of an image.
            prompt, continuation, translation, repaired or described: a sample.
            loss_curve: file name of an image in the directory.
            license, license_link, terms, language: of the training data, where it is not a packaged corpus.
        text: what the model's objective adds (`objective.card`).

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
    corpus = describe_corpus(facts)

    sections = [f"# {facts['recipe']}"]
    if facts.get("compared"):
        sections.append(comparison(facts["compared"]))
    sections += [introduction(facts, corpus), "## Results", results(facts, text)]
    if facts.get("learning_rate_trials"):
        # Trials that are dated say themselves whether they came before the settings below were chosen.
        dated = any("when" in trial for trial in facts["learning_rate_trials"])
        when = "" if dated else ", before the settings below were chosen"
        sections += ["### What was tried", f"On the validation split{when}."]
        sections.append(table(facts["learning_rate_trials"]))
    if facts.get("averaging"):
        sections += ["### Averaged weights", averaged_weights(facts, text)]
    if facts.get("swatches"):
        sections += ["### Colours and their names", colours_and_names(facts["swatches"])]
    if facts.get("fine_tuning"):
        sections += ["### Fine-tuned", fine_tuned(facts["fine_tuning"])]
    if facts.get("blimp"):
        sections += ["### Grammar", grammar(facts["blimp"])]
    if facts.get("adapted"):
        sections += ["### Going on learning", adapted(facts["adapted"], text, facts["scores"])]
    if facts.get("deployment"):
        sections += ["### Deployed", deployed(facts["deployment"], text, facts["scores"].get("test", {}))]
    for picture, title in pictures.items():
        sections.append(f"![{title}]({picture})")
    sections += ["## Use", usage(directory, facts, text)]
    sections += ["## How it was made", making(facts)]
    sections += ["## Data and licence", licence(corpus)]
    card = f"---\n{front_matter(facts, text, corpus)}---\n\n" + "\n\n".join(sections) + "\n"
    path = directory / "README.md"
    part = path.with_suffix(".md.part")
    part.write_text(card, encoding="utf-8")
    os.replace(part, path)
    return path


__all__ = ["write_model_card"]
