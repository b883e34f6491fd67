"""What each head of a Transformer looks at in one sentence, and how much BLEU is lost without it.

A head is pruned by making zero what it hands on (its columns of the output projection): nothing of it is left (Michel,
Levy and Neubig 2019; Voita et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ...attention_maps import KINDS, attention_maps
from ...metrics.bleu import corpus_bleu, paired_bootstrap
from ...training.translating import translate
from ..drawing import map_figure, value_grid
from ..experiment import Context, Experiment, Measurement, Picture, Result, Row, Section
from ..sources import missing_multi30k
from ..statistics import interval
from ..translators import given_translators, load_given, pairs, trained
from ..wording import told

OUTPUTS = ("o_proj", "out_proj")
HEADS = ("heads", "num_heads")
SURE = 0.05
"""Above, a difference may be chance."""


class Heads(Experiment):
    """All heads of the Transformer that this report trains, or of a run that was given."""

    name = "heads"
    title = "What do several heads see?"
    story = (
        "One attention takes one mean. With several heads side by side, each can look for something else: the word "
        "before, the verb, the same word. And is each head needed? One is taken out at a time."
    )
    reading = (
        "The grid has a cell for each head: how much BLEU is lost without it; a number near zero is a head that is not "
        "missed. In the maps below, each panel is a head, each line a word, and dark is where that word looks. A dark "
        "diagonal is a head that looks at the word of the same place or its neighbour; a dark column, one at which all "
        "words look; a pale panel, a head that takes the mean of everything."
    )
    takes_models = True

    def missing(self, context: Context) -> str | None:
        return missing_multi30k(context)

    def measurements(self, context: Context) -> list[Measurement]:
        runs = given_translators(context)
        names = [f"given-{run.name}" for run in runs] + [
            f"{seed}-transformer" for seed in range(context.seeds)
        ]
        return [Measurement(name, partial(pruned, name, context)) for name in names]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        results = {key: result for key, result in results.items() if result["heads"]}
        if not results:
            return Section()
        sentences = []
        for key, result in results.items():
            if key.startswith("given-"):
                heads = result["heads"]
                needed = [h for h in heads if h["p_value"] < SURE and h["lost"] > 0]
                worst = max(heads, key=lambda h: h["lost"])
                sentences.append(
                    f"{key.removeprefix('given-')} (given run, BLEU {result['bleu']:.1f}): without one of its "
                    f"{len(heads)} heads, {len(needed)} cost more BLEU than chance explains; the most, {_name(worst)}, "
                    f"{worst['lost']:.1f}."
                )
        own = [result for key, result in results.items() if not key.startswith("given-")]
        if own:
            counts = interval(
                [float(sum(h["p_value"] < SURE and h["lost"] > 0 for h in r["heads"])) for r in own]
            )
            most = interval([max(h["lost"] for h in r["heads"]) for r in own])
            sentences.append(
                f"In the Transformer that this report trained (BLEU {told(interval([r['bleu'] for r in own]))}), "
                f"{told(counts, 2)} of {len(own[0]['heads'])} heads cost more BLEU than chance explains when "
                f"pruned alone; the one that costs most costs {told(most, 2)}."
            )
        shown_key, shown = next(
            iter(sorted(results.items(), key=lambda item: not item[0].startswith("given-")))
        )
        shown_name = (
            shown_key.removeprefix("given-") if shown_key.startswith("given-") else "the Transformer, seed 0"
        )
        pictures = [_grid(shown, shown_name)]
        pictures += [_maps(kind, found, shown_name) for kind, found in shown["maps"].items()]
        setup = (
            f"BLEU (lower-cased, greedy) of {context.scale.translated} sentences of the test set, with all "
            f"heads and without one; whether the loss is chance, by a paired bootstrap ({context.scale.samples} "
            f"samples, p < {SURE}), without correction for the number of heads. A head that costs nothing alone may be "
            "one that others stand in for."
        )
        return Section(sentences, pictures, setup=setup)


def pruned(name: str, context: Context) -> Result:
    """BLEU with all heads and without each, and where all look in one sentence."""
    model, tokenizer = _model(name, context)
    sources, references = (
        list(side)[: context.scale.translated] for side in pairs(context).corpus.texts["test"]
    )
    layers = list(attention_layers(model))
    if not layers:
        return {"heads": []}

    def outputs() -> list[str]:
        return translate(model, tokenizer, sources, num_beams=1)

    whole = outputs()
    heads = []
    for place, (part, layer, module) in enumerate(layers):
        for head in range(_heads_of(module)):
            with without_head(module, head):
                systems = {"whole": whole, "pruned": outputs()}
            found = paired_bootstrap(systems, references, samples=context.scale.samples, lowercase=True)
            heads.append(
                {
                    "part": part,
                    "layer": layer,
                    "head": head,
                    "place": place,
                    "lost": found["whole"]["bleu"] - found["pruned"]["bleu"],
                    "p_value": found["pruned"]["p_value"],
                }
            )
    bleu = corpus_bleu(whole, [[text] for text in references], lowercase=True)["score"]
    maps = {}
    for kind in KINDS:
        found_maps = attention_maps(model, tokenizer, min(sources[:20], key=len), kind)
        maps[kind] = {
            "weights": [
                [[[round(v, 3) for v in line] for line in head] for head in layer]
                for layer in found_maps.weights.tolist()
            ],
            "lines": found_maps.lines,
            "columns": found_maps.columns,
        }
    return {"bleu": bleu, "heads": heads, "maps": maps}


def _model(name: str, context: Context) -> tuple[Any, Any]:
    kind, _, which = name.partition("-")
    if kind == "given":
        run = next(run for run in given_translators(context) if run.name == which)
        return load_given(run.path)
    model, tokenizer, _ = trained(which, int(kind), context)
    return model, tokenizer


def attention_layers(model: nn.Module) -> Iterator[tuple[str, int, nn.Module]]:
    """(encoder, decoder or cross; number of the layer; the attention), of any Transformer of transformers' naming."""
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        if not any(hasattr(module, output) for output in OUTPUTS) or not any(
            hasattr(module, n) for n in HEADS
        ):
            continue
        side = "encoder" if "encoder" in name.split(".") else "decoder"
        part = "cross" if side == "decoder" and ("cross" in name or "encoder_attn" in name) else side
        yield part, counts.setdefault(part, 0), module
        counts[part] += 1


def _heads_of(module: nn.Module) -> int:
    return int(next(getattr(module, name) for name in HEADS if hasattr(module, name)))


@contextmanager
def without_head(module: nn.Module, head: int) -> Iterator[None]:
    """Inside, the head hands on nothing; afterwards the weights are what they were, every bit."""
    output: nn.Linear = next(getattr(module, name) for name in OUTPUTS if hasattr(module, name))
    width = output.weight.shape[1] // _heads_of(module)
    columns = slice(head * width, (head + 1) * width)
    with torch.no_grad():
        kept = output.weight[:, columns].clone()
        output.weight[:, columns] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            output.weight[:, columns] = kept


def _name(head: Mapping[str, Any]) -> str:
    part = {"encoder": "of the encoder", "decoder": "of the decoder", "cross": "of the cross-attention"}[
        head["part"]
    ]
    return f"head {head['head'] + 1} {part}, layer {head['layer'] + 1}"


def _grid(result: Result, name: str) -> Picture:
    heads = result["heads"]
    places = sorted(
        {h["place"] for h in heads},
        key=lambda p: next((h["part"], h["layer"]) for h in heads if h["place"] == p),
    )
    width = max(h["head"] for h in heads) + 1
    values, labels = [], []
    for place in places:
        own = {h["head"]: h for h in heads if h["place"] == place}
        values.append([own[i]["lost"] if i in own else 0.0 for i in range(width)])
        first = next(iter(own.values()))
        labels.append(f"{first['part']} {first['layer'] + 1}")
    figure = value_grid(
        f"BLEU lost without a head, {name}",
        values,
        labels,
        [f"head {i + 1}" for i in range(width)],
        "BLEU lost",
    )
    rows = [Row(f"{h['part']} {h['layer'] + 1}", f"head {h['head'] + 1}", h["lost"]) for h in heads]
    worst = max(heads, key=lambda h: h["lost"])
    median = sorted(h["lost"] for h in heads)[len(heads) // 2]
    alt = f"BLEU lost when a head is pruned. Most: {_name(worst)}, {worst['lost']:.2f}; median {median:.2f}."
    caption = f"BLEU lost when one head is taken out ({name}); red is a loss, blue a gain."
    return Picture("heads_pruned", figure, caption, alt, rows)


def _maps(kind: str, found: Mapping[str, Any], name: str) -> Picture:
    weights = torch.tensor(found["weights"])  # [layers, heads, lines, columns]
    layers, heads = weights.shape[:2]
    panels = [
        (
            f"layer {layer + 1}, head {head + 1}",
            weights[layer, head].numpy(),
            found["lines"],
            found["columns"],
        )
        for layer in range(layers)
        for head in range(heads)
    ]
    size = (max(1.25, 0.15 * len(found["columns"])), max(1.15, 0.15 * len(found["lines"])))
    figure = map_figure(panels, columns=min(heads, 4), panel_size=size, font=8.5)
    rows = [
        Row(f"layer {layer + 1}, head {head + 1}: {line}", column, float(weights[layer, head, i, j]))
        for layer in range(layers)
        for head in range(heads)
        for i, line in enumerate(found["lines"])
        for j, column in enumerate(found["columns"])
    ]
    sharpness = weights.amax(-1).mean(-1)  # [layers, heads]
    flat = sharpness.flatten()
    most, least = int(flat.argmax()), int(flat.argmin())
    alt = (
        f"{KINDS[kind]}, {layers} layers of {heads} heads, one sentence. Sharpest: {panels[most][0]}, whose words give "
        f"{float(flat[most]):.0%} of their attention to one place in the mean; most spread: {panels[least][0]}, "
        f"{float(flat[least]):.0%}."
    )
    caption = f"{KINDS[kind]}, all heads ({name}): dark is where a word (line) looks."
    return Picture(f"heads_{kind}", figure, caption, alt, rows, wide=True)


__all__ = ["Heads", "attention_layers", "pruned", "without_head"]
