"""Quality against cost of the runs that were given: read from what they wrote when they ended; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..drawing import STYLES, Line, line_figure, rows_of
from ..experiment import Context, Experiment, Measurement, Picture, Result, Section, Table
from ..translators import given
from ..wording import listed, number

SCORES = {
    "bits_per_byte": ("bits per byte", False),
    "tokenized_bleu": ("tokenised BLEU, lower-cased", True),
    "bleu_lowercase": ("BLEU, lower-cased", True),
    "bleu": ("BLEU", True),
    "accuracy": ("accuracy", True),
    "f1": ("F1", True),
    "perplexity": ("perplexity per token", False),
    "perplexity_per_token": ("perplexity per token", False),
}
"""What a run is compared by: the first of these that all have; and whether more is better."""
KINDS = {
    "causal": "Language models",
    "masked": "Masked language models",
    "denoising": "Models that repair texts",
    "translation": "Translators",
    "vector_to_text": "Models that write a text for a vector",
}
"""What an objective trains, for a reader who knows no objectives."""


class GivenRuns(Experiment):
    """One table of the user's trained runs, and their learning curves."""

    name = "given_runs"
    title = "Trained runs: what does quality cost?"
    story = (
        "Everything else on this page is small and trained in minutes. Here are runs of full recipes (hfseq pretrain, "
        "hfseq finetune), as they described themselves when they ended. Runs compare only within a table: the "
        "same data and the same score."
    )
    reading = "Down is better; from left to right the models read on. The tables below have what that took."
    takes_models = True

    def missing(self, context: Context) -> str | None:
        return None if context.models else "no trained runs were given: name their directories with --models."

    def measurements(self, context: Context) -> list[Measurement]:
        return [
            Measurement(run.name, partial(facts_of, run.facts, run.objective))
            for run in given(context)
            if run.facts
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        section = Section()
        groups: dict[tuple[str, str], dict[str, Result]] = {}
        for name, result in results.items():
            groups.setdefault((result["objective"], result["data"]), {})[name] = result
        for (objective, data), runs in groups.items():
            score = next((s for s in SCORES if all(s in r["scores"] for r in runs.values())), None)
            label = SCORES[score][0] if score else "score"
            order = sorted(
                runs,
                key=lambda n: runs[n]["scores"].get(score, 0.0),
                reverse=bool(score and SCORES[score][1]),
            )
            kind = KINDS.get(objective, objective)
            section.tables.append(Table(f"{kind}, {data}.", ["run", "class", "parameters", label, "epochs",
                                        "tokens read", "seconds", "BLiMP, per cent"],
                                        [_row(n, runs[n], score) for n in order]))  # fmt: skip
            if score and len(runs) > 1:
                section.sentences.append(
                    f"{kind} on {data}, {label} of the test side: "
                    + listed([f"{name} {number(runs[name]['scores'][score], 4)}" for name in order])
                    + ". One run each, so small differences may be chance."
                )
            if picture := _curves(objective, data, runs):
                section.pictures.append(picture)
        section.setup = (
            "From training_summary.json or finetune_summary.json of each run; seconds are of its own machine."
        )
        return section


def facts_of(summary: Mapping[str, Any], objective: str) -> Result:
    """What a table needs of a run's summary."""
    recipe = summary.get("recipe_content") or {}
    section = recipe.get("data") or {}
    corpus = section.get("corpus") or section.get("dataset") or section.get("train_file") or "its own data"
    languages = [section[key] for key in ("source_language", "target_language") if section.get(key)]
    scores = summary.get("scores") or {}
    test = scores.get("test") or scores.get("validation") or {}
    read = summary.get("train_target_tokens") or summary.get("train_tokens")
    epochs = summary.get("epochs")
    return {
        "objective": objective,
        "data": f"{corpus} {' to '.join(languages)}".strip(),
        "class": summary.get("model_class", ""),
        "parameters": summary.get("parameters"),
        "scores": {
            name: value for name, value in test.items() if name in SCORES and isinstance(value, int | float)
        },
        "epochs": epochs,
        "tokens": round(read * epochs) if read and epochs else None,
        "seconds": summary.get("training_seconds"),
        "blimp": (summary.get("blimp") or {}).get("accuracy"),
        "updates": summary.get("updates"),
        "curve": [
            {"epoch": point["epoch"], "loss": point["eval_loss"]}
            for point in summary.get("evaluations") or []
            if "epoch" in point and "eval_loss" in point
        ],
    }


def _row(name: str, run: Result, score: str | None) -> list[str]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        name, run["class"], shown(run["parameters"], ",d"), shown(run["scores"].get(score), ".3f") if score else "-",
        shown(run["epochs"], ".3g"), "-" if run["tokens"] is None else number(run["tokens"]),
        shown(run["seconds"], ",.0f"),
        shown(run["blimp"], ".1f"),
    ]  # fmt: skip


def _curves(objective: str, data: str, runs: Mapping[str, Result]) -> Picture | None:
    """Validation loss over tokens, of runs that logged it; seconds are in proportion to tokens within a run."""
    lines: list[Line] = []
    for name, run in runs.items():
        if len(run["curve"]) < 2 or not run["tokens"] or not run["epochs"]:
            continue
        per_epoch = run["tokens"] / run["epochs"]
        points = {point["epoch"] * per_epoch: [point["loss"]] for point in run["curve"]}
        lines.append(Line(name, points, STYLES[len(lines) % len(STYLES)]))
    if not lines or len(lines) > len(STYLES):
        return None
    kind = KINDS.get(objective, objective)
    figure = line_figure(lines, x_label="tokens read", y_label="validation loss per token [nats]")
    figure.axes[0].ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
    alt = f"Validation loss over tokens, {kind} on {data}. " + " ".join(
        f"{line.label}: {number(line.intervals()[-1][1].mean)} at the end." for line in lines
    )
    slug = "".join(c if c.isalnum() else "_" for c in f"{objective}_{data}").lower()
    caption = f"Validation loss over tokens read, {kind} on {data}."
    return Picture(f"given_{slug}", figure, caption, alt, rows_of(lines))


__all__ = ["GivenRuns", "facts_of"]
