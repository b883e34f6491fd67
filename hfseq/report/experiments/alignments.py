"""Do translators look at the words that belong together? Attention against hand-made word alignments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...attention_maps import attention_maps
from ..drawing import dot_figure, map_figure
from ..experiment import Context, Experiment, Measurement, Picture, Result, Row, Section
from ..sources import missing_multi30k
from ..statistics import interval
from ..translators import TRANSLATORS, given_translators, load_given, trained
from ..word_alignments import (
    AlignedPair,
    aligned_pairs,
    diagonal,
    error_rate,
    links_of,
    word_map,
    words_of,
    words_of_tokens,
)
from ..wording import listed, ranked, told

SHOWN = 4
"""The pair that is drawn: one with a word that moves."""
DIAGONAL = "diagonal (no model)"


class Alignments(Experiment):
    """Alignment error rate of Bahdanau's attention, cross-attention and Pervasive Attention."""

    name = "alignments"
    title = "Does attention find the words that belong together?"
    story = (
        "Nobody tells a translator which word goes with which. Attention was said to find it out by itself. Twenty "
        "captions were aligned by hand to see; whoever links each word to the one at the same place is the baseline."
    )
    reading = (
        "First picture: the further left, the fewer words are linked wrongly; the dotted line is the baseline. Maps: "
        "each line is a word of the translation, each column a word of the source, dark is where the model looks. "
        "Rings are the links made by hand: a model that finds the words that belong together is dark inside them."
    )
    takes_models = True

    def missing(self, context: Context) -> str | None:
        return missing_multi30k(context)

    def measurements(self, context: Context) -> list[Measurement]:
        own = [
            Measurement(f"{seed}-{t.key}", partial(_of_trained, t.key, seed, context))
            for seed in range(context.seeds)
            for t in TRANSLATORS.values()
            if t.aligns
        ]
        theirs = [
            Measurement(f"given-{run.name}", partial(_of_given, run.path, context))
            for run in given_translators(context)
        ]
        return theirs + own

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        found: dict[str, list[Result]] = {}
        for key, result in results.items():
            kind, _, name = key.partition("-")
            label = f"{name} (given run)" if kind == "given" else TRANSLATORS[name].label
            found.setdefault(label, []).append(result)
        if not found:
            return Section()
        rates = {label: interval([r["error_rate"] for r in own]) for label, own in found.items()}
        baseline = next(iter(results.values()))["diagonal"]
        several = {label: value for label, value in rates.items() if value.margin is not None}
        sentences = ranked(
            several or rates, higher_is_better=False, what="alignment error rate (0 is all right)"
        )
        for label, value in rates.items():
            if value.margin is None and several:
                sentences.append(f"{label}, one run: {told(value)}.")
        better = [label for label, value in rates.items() if value.high < baseline]
        worse = [label for label in rates if label not in better]
        text = f"The diagonal, which needs no model, has {baseline:.3f}. "
        text += f"Better than it: {listed(better)}." if better else "No model is better than it."
        if worse and better:
            text += f" Not better, as far as this run shows: {listed(worse)}."
        sentences.append(text)
        figure = dot_figure(
            rates, x_label="alignment error rate", baseline=(DIAGONAL, baseline),
            styles={t.label: t.style for t in TRANSLATORS.values()},
        )  # fmt: skip
        rows = [
            Row(
                label,
                "error rate",
                v.mean,
                v.low if v.margin else None,
                v.high if v.margin else None,
                v.count,
            )
            for label, v in rates.items()
        ]
        rows.append(Row(DIAGONAL, "error rate", baseline))
        alt = "Alignment error rate. " + " ".join(f"{label}: {told(v)}." for label, v in rates.items())
        pictures = [
            Picture("alignments", figure, "Alignment error rate over all twenty pairs; lower is better.",
                    f"{alt} {DIAGONAL}: {baseline:.3f}.", rows)
        ]  # fmt: skip
        if self.missing(context) is None:  # the sentence itself stands in the data, not in what was measured
            pictures.append(_maps(found, context))
        setup = (
            "Every target word is linked to the source word that it looks at most; attention to the parts of a word is "
            "added up, heads are averaged, and of several layers the last but one is taken (Garg et al. 2019). For "
            "Pervasive Attention what counts is each source position's share of the maximum. The error rate is Och and "
            "Ney's (2003), with sure and possible links. The models are those of the section on translation."
        )
        return Section(sentences, pictures, setup=setup)


def _of_trained(key: str, seed: int, context: Context) -> Result:
    model, tokenizer, _ = trained(key, seed, context)
    return aligned(model, tokenizer, context)


def _of_given(path: Path, context: Context) -> Result:
    return aligned(*load_given(path), context)


def aligned(model: Any, tokenizer: Any, context: Context) -> Result:
    """Error rate over all pairs, that of the diagonal, and the word map of the pair that is shown."""
    pairs = aligned_pairs(context)
    maps = [attention_words(model, tokenizer, pair) for pair in pairs]
    shown = min(SHOWN, len(pairs) - 1)
    return {
        "error_rate": error_rate(pairs, [links_of(words) for words in maps]),
        "diagonal": error_rate(pairs, [diagonal(pair) for pair in pairs]),
        "map": np.round(maps[shown], 4).tolist(),
    }


def attention_words(model: Any, tokenizer: Any, pair: AlignedPair) -> np.ndarray:
    """[target words, source words]: where the model looks while it is made to say the pair's target."""
    found = attention_maps(model, tokenizer, pair.source, "cross", target=pair.target)
    layer = max(found.weights.shape[0] - 2, 0)
    weights = found.weights[layer].mean(0).numpy()
    sources, targets = (words_of_tokens(tokenizer, text) for text in (pair.source, pair.target))
    return word_map(weights, targets, sources)


def _maps(found: Mapping[str, list[Result]], context: Context) -> Picture:
    pairs = aligned_pairs(context)
    pair = pairs[min(SHOWN, len(pairs) - 1)]
    lines, heads = ([word for word, _, _ in words_of(text)] for text in (pair.target, pair.source))
    panels = [(label, np.array(own[0]["map"]), lines, heads) for label, own in found.items()]
    marks = [(target, source) for source, target in sorted(pair.possible)]
    figure = map_figure(panels, columns=min(2, len(panels)), marks=marks, colour_bar="share of the attention")
    rows = [
        Row(f"{label}: {lines[i]} ({i})", f"{heads[j]} ({j})", float(value))
        for label, values, _, _ in panels
        for i, line in enumerate(values)
        for j, value in enumerate(line)
    ]
    hits = [
        f"{label}: {sum((s, t) in pair.possible for s, t in links_of(values))} of {len(lines)} words look most at a "
        "word that they are linked to by hand"
        for label, values, _, _ in panels
    ]
    caption = (
        f"“{pair.source}” (columns) and “{pair.target}” (lines): where each word of the translation looks; "
        "rings are the links made by hand. One seed."
    )
    return Picture(
        "alignments_maps", figure, caption, f"Attention of one sentence. {'; '.join(hits)}.", rows, wide=True
    )


__all__ = ["Alignments", "aligned", "attention_words"]
