"""What positions are for: telling a sentence from the same words in another order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ...models.configuration_encoder import EncoderConfig
from ...models.configuration_recurrent import LSTMConfig
from ...models.modeling_encoder import EncoderForSequenceClassification
from ...models.modeling_recurrent import LSTMForSequenceClassification
from ..contestants import BLUE, GREEN, VERMILLION, Style
from ..drawing import Line, line_figure, rows_of
from ..experiment import Context, Experiment, Measurement, Picture, Result, Section, by_subject
from ..fitting import fit
from ..sources import english_sentences, missing_multi30k
from ..statistics import interval
from ..wording import change, ranked, told

MODELS = {
    "with": ("encoder with positions", Style(GREEN, "o", "-")),
    "without": ("encoder without positions", Style(VERMILLION, "v", (0, (1, 1)))),
    "lstm": ("LSTM (no positions needed)", Style(BLUE, "s", (0, (4, 2)))),
}
LOOKS = 5
WIDTH = 64
LONGEST = 24
WORDS = 2000
"""Most frequent words, of which each has an id; the rest share one."""


class WordOrder(Experiment):
    """A sentence or its words shuffled: which of the two is it?"""

    name = "word_order"
    title = "What are positions for?"
    story = (
        "“The dog bites the man” and “the man bites the dog” have the same words. Recurrent networks read in order; "
        "attention alone looks at a bag of words, and has to be told where each one stands: the positional encoding."
    )
    reading = (
        "Up is better; from left to right the models train on. The dotted line is guessing: a line that stays on it "
        "does not tell a sentence from the same words shuffled."
    )

    def missing(self, context: Context) -> str | None:
        return missing_multi30k(context)

    def measurements(self, context: Context) -> list[Measurement]:
        return [
            Measurement(f"{seed}-{model}", partial(in_order, model, seed, context))
            for seed in range(context.seeds)
            for model in MODELS
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        lines, last = [], {}
        for model, own in by_subject(results, MODELS).items():
            label, style = MODELS[model]
            points: dict[float, list[float]] = {}
            for result in own:
                for point in result["curve"]:
                    points.setdefault(point["updates"], []).append(point["accuracy"])
            lines.append(Line(label, points, style))
            last[label] = interval([r["accuracy"] for r in own])
        if not lines:
            return Section()
        with_, without = MODELS["with"][0], MODELS["without"][0]
        sentences = []
        if with_ in last and without in last:
            sentences.append(change("Encoder", last[without], last[with_], "accuracy", "with positions"))
        if without in last:
            value = last[without]
            if value.low <= 0.5 <= value.high:
                sentences.append(f"Without positions it guesses: {told(value)}, where chance is 0.5.")
        sentences += ranked(
            last, higher_is_better=True, what="accuracy at telling sentences from shuffled ones"
        )
        figure = line_figure(lines, x_label="updates", y_label="accuracy", chance=0.5, y_limits=(0.4, 1.03))
        alt = "Accuracy at telling a sentence from its shuffled words. " + " ".join(
            f"{name}: {told(value)} after training." for name, value in last.items()
        )
        picture = Picture(
            "word_order", figure, "Is it a sentence, or its words shuffled? The dotted line is guessing.", alt,
            rows_of(lines),
        )  # fmt: skip
        setup = (
            f"{context.scale.order_sentences:,} English captions of Multi30k, each once as it is and once with "
            f"its words shuffled; tested on captions that were not trained on, both ways. Two layers of width {WIDTH}, "
            f"{context.scale.order_updates} updates of 32 captions both ways, AdamW. Without positions: the "
            "same encoder with its table of positions at zero, not trained."
        )
        return Section(sentences, [picture], setup=setup)


def in_order(kind: str, seed: int, context: Context) -> Result:
    """Trains a classifier on sentences and their shuffled words."""
    sentences = [text.split()[: LONGEST - 1] for text in english_sentences(context)]
    sentences = [words for words in sentences if len(set(words)) > 3][: context.scale.order_sentences + 500]
    cut = max(len(sentences) - 500, len(sentences) // 2)
    ids = _vocabulary(sentences[:cut])
    generator = torch.Generator().manual_seed(seed)
    tested = _batch(sentences[cut:], ids, torch.Generator().manual_seed(0))

    def batches() -> Iterator[dict[str, Any]]:
        while True:
            order = torch.randperm(cut, generator=generator).tolist()
            for start in range(0, cut, 32):
                yield _batch([sentences[i] for i in order[start : start + 32]], ids, generator)

    torch.manual_seed(seed)
    model = _model(kind).to(context.device)

    @torch.inference_mode()
    def look() -> dict[str, float]:
        logits = model(**{k: v.to(context.device) for k, v in tested.items() if k != "labels"}).logits
        return {"accuracy": float((logits.argmax(-1).cpu() == tested["labels"]).float().mean())}

    done = fit(
        model, batches(), learning_rate=5e-3 if kind == "lstm" else 1e-3, updates=context.scale.order_updates,
        look=look, looks=LOOKS, tokens_of=lambda batch: batch["input_ids"].numel(),
    )  # fmt: skip
    return {"accuracy": done.curve[-1]["accuracy"], "curve": done.curve, "seconds": done.seconds}


def _model(kind: str) -> Any:
    if kind == "lstm":
        return LSTMForSequenceClassification(
            LSTMConfig(
                vocab_size=WORDS + 2,
                embedding_size=WIDTH,
                hidden_size=WIDTH,
                num_labels=2,
                pad_token_id=0,
            )
        )
    model = EncoderForSequenceClassification(
        EncoderConfig(
            vocab_size=WORDS + 2,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * WIDTH,
            max_position_embeddings=LONGEST,
            type_vocab_size=0,
            classifier_pooling="mean",
            num_labels=2,
            pad_token_id=0,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    if kind == "without":
        table = next(p for name, p in model.named_parameters() if "position" in name)
        with torch.no_grad():
            table.zero_()
        table.requires_grad_(False)
    return model


def _vocabulary(sentences: list[list[str]]) -> dict[str, int]:
    """{word: id}; 0 is padding, 1 all other words."""
    counts: dict[str, int] = {}
    for words in sentences:
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]
    return {word: i + 2 for i, word in enumerate(frequent)}


def _batch(
    sentences: list[list[str]], ids: dict[str, int], generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Every sentence (label 1), then every one shuffled (label 0)."""
    rows = [torch.tensor([ids.get(word, 1) for word in words]) for words in sentences]
    shuffled = []
    for row in rows:
        other = row[torch.randperm(len(row), generator=generator)]
        # One that chance left in order is turned round: no row has both labels.
        shuffled.append(other if not torch.equal(other, row) else row.flip(0))
    padded = torch.nn.utils.rnn.pad_sequence([*rows, *shuffled], batch_first=True)
    labels = torch.tensor([1] * len(rows) + [0] * len(shuffled))
    return {"input_ids": padded, "attention_mask": (padded != 0).long(), "labels": labels}


__all__ = ["WordOrder", "in_order"]
