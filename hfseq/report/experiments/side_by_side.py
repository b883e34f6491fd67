"""The same sources and prompts through all models, to be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ...metrics.bleu import translation_scores
from ...training.translating import translate
from ..experiment import Context, Experiment, Measurement, Result, Section, Table
from ..sources import missing_multi30k
from ..translators import TRANSLATORS, given_translators, load_given, pairs, trained

SHOWN = 5
"""Sources: the first of the test set, not the nicest."""


class SideBySide(Experiment):
    """Translations of the first sentences of the test set."""

    name = "side_by_side"
    title = "What do they write?"
    story = "The first sentences of the test set, as each model translates them: nothing is picked."
    takes_models = True

    def missing(self, context: Context) -> str | None:
        return missing_multi30k(context)

    def measurements(self, context: Context) -> list[Measurement]:
        own = [Measurement(f"own-{key}", partial(_translated, key, context)) for key in TRANSLATORS]
        theirs = [
            Measurement(f"given-{run.name}", partial(_translated_by_given, run.path, context))
            for run in given_translators(context)
        ]
        return own + theirs

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        if not results:
            return Section()
        any_result = next(iter(results.values()))
        tables = []
        for i, (source, reference) in enumerate(
            zip(any_result["sources"], any_result["references"], strict=True)
        ):
            rows = [["reference", reference]]
            for key, result in results.items():
                kind, _, name = key.partition("-")
                label = f"{name} (given run)" if kind == "given" else TRANSLATORS[name].label
                rows.append([label, result["translations"][i]])
            tables.append(Table(f"Source: {source}", ["model", "translation"], rows))
        exact = [
            f"{_label(key)} {sum(_same(a, b) for a, b in zip(r['translations'], r['references'], strict=True))}"
            for key, r in results.items()
        ]
        total = len(any_result["sources"])
        sentence = f"Of {total} translations, word for word the reference's: {', '.join(exact)}."
        setup = (
            "The first seed of the models of the section on translation, greedy search; given runs likewise."
        )
        return Section([sentence], [], tables, setup)


def _label(key: str) -> str:
    kind, _, name = key.partition("-")
    return f"{name} (given run)" if kind == "given" else TRANSLATORS[name].label


def _same(one: str, other: str) -> bool:
    return one.lower().split() == other.lower().split()


def _translated(key: str, context: Context) -> Result:
    model, tokenizer, _ = trained(key, 0, context)
    return _shown(context, lambda sources: translate(model, tokenizer, sources, num_beams=1))


def _translated_by_given(path: Path, context: Context) -> Result:
    model, tokenizer = load_given(path)
    return _shown(context, lambda sources: translate(model, tokenizer, sources, num_beams=1))


def _shown(context: Context, translated: Callable[[list[str]], list[str]]) -> Result:
    sources, references = (list(side)[:SHOWN] for side in pairs(context).corpus.texts["test"])
    outputs = translated(sources)
    score = translation_scores(outputs, references)["chrf"]
    return {"sources": sources, "references": references, "translations": outputs, "chrf": score}


__all__ = ["SideBySide"]
