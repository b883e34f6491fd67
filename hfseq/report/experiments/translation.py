"""Quality against cost of translators: the same captions, vocabulary and seconds; curves over tokens and seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from ...metrics.bleu import all_translation_scores
from ...planning.simulation import simulate
from ...training.translating import translate
from ..contestants import Style
from ..drawing import Line, line_figure, rows_of
from ..experiment import Context, Experiment, Measurement, Picture, Result, Section, Table, by_subject
from ..sources import missing_multi30k
from ..statistics import Interval, interval
from ..translators import TRANSLATORS, pairs, trained
from ..wording import number, ranked, told


class Translation(Experiment):
    """BLEU, loss, parameters, arithmetic, memory and speed of small models that this report trains."""

    name = "translation"
    title = "Translation: what does quality cost?"
    story = (
        "Translators came in this order: two LSTMs with one vector between them; attention, so that the second one can "
        "look at every source word; the Transformer, which is attention alone; Pervasive Attention, which reads both "
        "sentences as a picture. All are trained here on English and German captions for equally many seconds."
    )
    reading = (
        "Down is better. Both pictures show the same trainings: the first over the time that they took, the second "
        "over the words that they read. A model that is ahead in the second only learns more from each word, but takes "
        "longer for it."
    )

    def missing(self, context: Context) -> str | None:
        return missing_multi30k(context)

    def measurements(self, context: Context) -> list[Measurement]:
        return [
            Measurement(f"{seed}-{key}", partial(quality, key, seed, context))
            for seed in range(context.seeds)
            for key in TRANSLATORS
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        by_model = by_subject(results, TRANSLATORS)
        if not by_model:
            return Section()
        labels = {key: TRANSLATORS[key].label for key in by_model}
        bleu = {labels[key]: interval([r["bleu"] for r in own]) for key, own in by_model.items()}
        seconds = f"{context.scale.translation_seconds:g}"
        sentences = ranked(bleu, higher_is_better=True, what=f"BLEU after {seconds} seconds of training")
        equal = {labels[key]: loss for key, loss in at_equal_tokens(by_model).items()}
        tokens = min(r["curve"][-1]["tokens"] for own in by_model.values() for r in own)
        sentences += ranked(
            equal, higher_is_better=False,
            what=f"validation loss per token, each after the last look at which it had read at most "
            f"{number(tokens)} tokens",
        )  # fmt: skip
        speed = {
            labels[key]: interval([r["decoding_tokens_per_second"] for r in own])
            for key, own in by_model.items()
        }
        sentences += ranked(
            speed, higher_is_better=True, what="words per second of greedy decoding", best="fastest"
        )
        pictures = [
            curve_picture("translation_seconds", by_model, "seconds", "seconds of training"),
            curve_picture("translation_tokens", by_model, "tokens", "target tokens read"),
        ]
        rows = []
        for key, own in by_model.items():
            of = own[0]
            rows.append([
                labels[key], f"{of['parameters']:,}", told(interval([r["bleu"] for r in own])),
                number(interval([r["tokens"] for r in own]).mean), number(of["flops_per_token"]),
                number(of["training_bytes"] / 2**20), told(interval([r["decoding_tokens_per_second"] for r in own])),
            ])  # fmt: skip
        table = Table(
            f"Small models after {seconds} seconds each, {max(map(len, by_model.values()))} seeds.",
            ["model", "parameters", "BLEU, lower-cased", "target tokens read", "FLOP per target token",
             "memory of an update [MiB]", "words per second, decoding"], rows,
        )  # fmt: skip
        setup = (
            "Multi30k, English to German, one vocabulary of both languages, batches by a budget of tokens, Muon at a "
            f"constant rate, all alike; sacreBLEU, lower-cased, of {context.scale.translated} sentences of the "
            "test set of 2016, greedy search. FLOP and memory of an update are counted (hfseq plan). Seconds are "
            + ("processor time of one process." if context.device == "cpu" else "those of the clock.")
        )
        return Section(sentences, pictures, [table], setup)


def quality(key: str, seed: int, context: Context) -> Result:
    """Trains (unless it has been), translates, counts."""
    model, tokenizer, fit = trained(key, seed, context)
    texts = pairs(context)
    sources, references = (list(side)[: context.scale.translated] for side in texts.corpus.texts["test"])
    clock = time.process_time if context.device == "cpu" else time.perf_counter
    start = clock()
    outputs = translate(model, tokenizer, sources, num_beams=1)
    seconds = clock() - start
    scores = all_translation_scores(outputs, references, "de")
    work = update_work(model, key, context)
    return {
        "bleu": scores["bleu_lowercase"],
        "signature": scores["bleu_lowercase_signature"],
        "chrf": scores["chrf"],
        "decoding_tokens_per_second": sum(len(text.split()) for text in outputs) / max(seconds, 1e-9),
        **{name: fit[name] for name in ("parameters", "tokens", "seconds", "updates", "curve")},
        **work,
    }


def update_work(model: Any, key: str, context: Context) -> Result:
    """Arithmetic per target token and memory of an update, from the plan's middle batch."""
    from ... import data
    from ..translators import CELLS_PER_UPDATE, TOKENS_PER_UPDATE

    options = {"tokens_per_update": TOKENS_PER_UPDATE, "cells_per_update": CELLS_PER_UPDATE}
    plan = data.PairPlan(pairs(context).arrays["train"], **options)
    batch = plan[len(plan) // 2]
    config = model.config

    def make() -> Any:
        return type(model)(config)

    work = simulate(make, batch)
    return {
        "flops_per_token": work.flops / max(int((batch["labels"] >= 0).sum()), 1),
        "training_bytes": work.peak_bytes,
    }


def at_equal_tokens(by_model: Mapping[str, list[Result]], what: str = "loss") -> dict[str, Interval]:
    """Of each model, the score at its last look by which it had read no more tokens than the slowest reads in all."""
    tokens = min(r["curve"][-1]["tokens"] for own in by_model.values() for r in own)
    found = {}
    for key, own in by_model.items():
        values = [[p[what] for p in r["curve"] if p["tokens"] <= tokens] for r in own]
        if all(values):
            found[key] = interval([v[-1] for v in values])
    return found


def curve_picture(
    name: str,
    by_model: Mapping[str, list[Result]],
    x: str,
    x_label: str,
    what: str = "loss",
    y_label: str = "validation loss per token [nats]",
    styles: Mapping[str, tuple[str, Style]] | None = None,
) -> Picture:
    """Curves of all models over tokens or seconds; seeds are put together look by look."""
    styles = styles or {t.key: (t.label, t.style) for t in TRANSLATORS.values()}
    lines = []
    for key, own in by_model.items():
        points: dict[float, list[float]] = {}
        for look in range(min(len(r["curve"]) for r in own)):
            place = sum(r["curve"][look][x] for r in own) / len(own)
            points[place] = [r["curve"][look][what] for r in own]
        label, style = styles[key]
        lines.append(Line(label, points, style))
    figure = line_figure(lines, x_label=x_label, y_label=y_label)
    if x == "tokens":
        figure.axes[0].ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
    alt = f"{y_label[0].upper()}{y_label[1:]} over {x_label}. " + " ".join(
        f"{line.label}: {told(line.intervals()[-1][1])} after {number(line.intervals()[-1][0])}."
        for line in lines
    )
    caption = f"{y_label[0].upper()}{y_label[1:]}, over {x_label}."
    return Picture(name, figure, caption, alt, rows_of(lines))


__all__ = ["Translation", "at_equal_tokens", "curve_picture", "quality"]
