"""What was measured: the scores with their baselines, averaged weights, translations compared, fine-tuned runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .card_text import CardText
from .markdown import finite, table


def results(facts: Mapping[str, Any], text: CardText) -> str:
    """Each split's scores, with the baselines that were measured on it, and how they were counted."""
    rows = []
    for split, values in facts["scores"].items():
        rows.append(
            {"split": split, "model": f"**{facts['recipe']}**", **metrics(text, values, f"scores.{split}")}
        )
        for baseline in facts.get("baselines") or []:
            if split in baseline:
                where = f"baseline {baseline['name']!r}, {split}"
                rows.append(
                    {"split": split, "model": baseline["name"], **metrics(text, baseline[split], where)}
                )
    sizes = [
        {"split": split, **{key: values.get(key) for key in text.sizes}}
        for split, values in facts["scores"].items()
    ]
    section = f"{table(rows)}\n\n{text.note} Measured on:\n\n{table(sizes)}"
    signatures = {
        name: values[f"{metric}_signature"]
        for values in facts["scores"].values()
        for metric, (name, _) in text.metrics.items()
        if f"{metric}_signature" in values
    }
    if signatures:
        counted = [{"score": name, "signature": f"`{how}`"} for name, how in signatures.items()]
        section += f"\n\nHow it was counted:\n\n{table(counted)}"
    return section


def averaged_weights(facts: Mapping[str, Any], text: CardText) -> str:
    """The end of training against the mean of the last checkpoints, on validation."""
    averaging = facts["averaging"]
    names = {"last": "the last", "average": f"mean of the last {len(averaging['checkpoints'])} checkpoints"}
    rows = [
        {
            "weights": names[which] + (" (kept)" if which == averaging["kept"] else ""),
            "loss": f"{finite(values['loss'], f'averaging.validation.{which}.loss'):.4f}",
            **metrics(text, values, f"averaging.validation.{which}"),
        }
        for which, values in averaging["validation"].items()
    ]
    steps = ", ".join(f"{step:,}" for step in averaging["checkpoints"])
    return (
        f"On the validation split, which chose by {averaging['score'].replace('_', ' ')}; checkpoints after {steps} "
        f"updates.\n\n{table(rows)}"
    )


def comparison(compared: Mapping[str, Any]) -> str:
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


def fine_tuned(summaries: list[Mapping[str, Any]]) -> str:
    """A row for each summary of `hfseq finetune`: what started where, and what it reached."""
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
            mean = finite(score["mean"], f"fine_tuning.{run['name']}.{split}")
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
        f"{table(rows)}\n\nMean ± sample standard deviation over seeds. Where several learning rates were "
        "tried, validation chose; the best checkpoint on validation is what counts.\n\n"
        f"{notes}\n\n```bash\n{commands}\n```"
    )


def colours_and_names(swatches: Mapping[str, Any]) -> str:
    """What scripts/swatches.py found: how far names are from the colours that they were given to."""
    text = (
        f"Names for the {swatches['test_colours']:,} colours of the test split, and how far (CIELAB, Delta E of 1976; "
        "2.3 is just noticeable) what the name stands for in the training table is from the colour: a known name for "
        "its own colour, another for the mean of the known names that end in the same words.\n\n"
        f"{table(swatches['distances'])}\n\n```bash\n{swatches['command']}\n```"
    )
    if swatches.get("picture"):
        text = f"![held-out colours and their names]({swatches['picture']})\n\n{text}"
    return text


WAYS = {
    "dynamic": ("dynamic_evaluation", "dynamic evaluation (Krause et al. 2018)"),
    "cache": ("neural_cache", "a neural cache (Grave et al. 2017)"),
}


def adapted(found: Mapping[str, Any], text: CardText, scores: Mapping[str, Any]) -> str:
    """A score of the model while it goes on learning from the text, beside its own.

    Args:
        text: how the scores are called and written.
        scores: of the model as it is, by split.
    """
    ways = " and ".join(WAYS[name][1] for name in found["options"])
    words = " ".join(
        f"--{WAYS[name][0]} " + " ".join(f"{key}={value}" for key, value in options.items())
        for name, options in found["options"].items()
    )
    split = found["split"]
    rows = [
        {"split": split, "model": name, **metrics(text, values, f"adapted.{split}")}
        for name, values in (("as it is", scores[split]), ("going on learning", found["scores"]))
    ]
    return (
        f"With {ways}, the text read as one stream, each token before it is learnt from; options chosen on the "
        "validation side. Compare with models that were given the same.\n\n"
        f"{table(rows)}\n\n```bash\nhfseq evaluate DIRECTORY --split {split} {words}\n```"
    )


def grammar(found: Mapping[str, Any]) -> str:
    """Accuracy on minimal pairs by phenomenon, beside n-grams of the same text and published systems.

    Args:
        found: what `hfseq evaluate MODEL --benchmark blimp --output FILE` wrote; under "baselines" {name: the same of
            --baseline}.
    """
    systems = {
        "model": found,
        **found.get("baselines", {}),
        **{f"{name}, published": values for name, values in found["published"].items()},
    }
    rows = [
        {
            "phenomenon": name.replace("_", " "),
            **{system: f"{values['by_phenomenon'][name]:.1f}" for system, values in systems.items()},
        }
        for name in found["by_phenomenon"]
    ]
    means = {name: finite(values["accuracy"], f"blimp, {name}") for name, values in systems.items()}
    rows.append(
        {"phenomenon": "**all paradigms**", **{name: f"**{mean:.2f}**" for name, mean in means.items()}}
    )
    limit = found.get("limit")
    which, option = (
        ("", "") if limit is None else (f", the first {limit:,} of each paradigm", f" --limit {limit}")
    )
    return (
        f"**{found['accuracy']:.2f}%** of {found['pairs']:,} minimal pairs{which} (BLiMP, Warstadt et al. 2020; "
        f"{found['method']}; mean over {len(found['by_paradigm'])} paradigms). {found['ties']:,} pairs are tied and "
        f"count as wrong, {found['equal_pairs']} of them because both sentences are the same; with ties as right it is "
        f"{found['accuracy_with_ties_right']:.2f}%. Published systems were trained on other and more text.\n\n"
        f"{table(rows)}\n\n```bash\nhfseq evaluate DIRECTORY --benchmark blimp{option}\n```"
    )


# A score of one model, computed in other batches.
SAME_SCORE = 1e-3


def deployed(measured: Mapping[str, Any], text: CardText, own: Mapping[str, Any]) -> str:
    """What `scripts/benchmark.py deployment` measured in one run: the forms that the model is served in.

    Args:
        text: how the scores are called and written.
        own: scores of the card's model on the test side. Where torch's form has others, by more than the order of beams
            or sums explains, it was another training of the recipe, and the text says so.
    """
    forms = measured["forms"]
    shown = {**text.metrics, "as_torch": ("as torch's", ".1%")}
    rows = [
        {
            "form": row["form"],
            "MB": row["bytes"] / 1e6 if "bytes" in row else None,
            **row["speeds"],
            **{
                shown[name][0]: format(value, shown[name][1])
                for name, value in row.get("quality", {}).items()
            },
        }
        for row in forms
    ]
    torchs: Mapping[str, float] = next(
        (row.get("quality", {}) for row in forms if row["form"] == "torch"), {}
    )
    another = any(abs(torchs[name] / own[name] - 1) > SAME_SCORE for name in torchs.keys() & own.keys())
    updates = f", {measured['updates']:,} updates long" if measured.get("updates") else ""
    weights = f"The weights are those of another training by this recipe{updates}. " if another else ""
    return (
        f"{weights}{measured['how']}; {measured['threads']} thread of {measured['cpu']}, all forms in turn in one run; "
        f"per second of {'processor' if measured['clock'] == 'cpu' else 'wall'} time.\n\n{table(rows)}\n\n"
        "```bash\npip install 'hfseq[deploy]'\npython scripts/benchmark.py deployment --model DIRECTORY\n```"
    )


def metrics(text: CardText, values: Mapping[str, Any], where: str) -> dict[str, str]:
    return {
        name: format(finite(values[metric], f"{where}.{metric}"), shape) if metric in values else "-"
        for metric, (name, shape) in text.metrics.items()
    }


__all__ = [
    "adapted",
    "averaged_weights",
    "colours_and_names",
    "comparison",
    "deployed",
    "fine_tuned",
    "grammar",
    "results",
]
