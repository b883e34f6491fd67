"""Translators: sentences by beam search, and BLEU of the whole test side.

Beam 5, sentences sorted by length in batches of 32. A Transformer is held against `MarianMTModel.generate`, with the
same weights where Marian can express them. Where it cannot (pre-norm), the peer has the same shape and, batch by batch,
makes as many steps as our torch form: what it writes then is nothing to score. For the other families transformers has
no peer: their forms are held against torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import hfseq
from hfseq.metrics.bleu import translation_scores
from hfseq.objectives.translation import Translation

from ..measuring import Report
from ..transformer import TINY, TransformerSize, marian_of, our_model, translated_sentences
from .forms import Form
from .seq2seq import BEAMS, ROWS, Engine, Ids, Torch, by_batch, engines_of, generated
from .table import Task

TIMED = 64  # sentences of a turn, of all lengths
UNIT = "sentences/s"
SPEED_GOAL, LOSS_GOAL = 3.0, 0.2

QUICK = TransformerSize(vocabulary=320, width=16, layers=2, heads=2, inner=32, tokens=512, updates=2)


class Subject:
    """A model and the sentences that it translates.

    Args:
        rows: source ids.
        tokenizers: of sources and targets.
        references: one per source; None: translations cannot be scored.
    """

    def __init__(
        self, model: Any, rows: Ids, tokenizers: tuple[Any, Any], references: Sequence[str] | None = None
    ):
        self.model, self.tokenizers, self.references = model, tokenizers, references
        # All forms get the longest sentences first, in batches of one length or nearly so.
        self.order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        self.sources = [rows[i] for i in self.order]
        step = max(len(rows) // TIMED, 1)
        self.timed = self.sources[::step][:TIMED]
        self._made: dict[Engine, Ids] = {}

    def translations(self, engine: Engine) -> Ids:
        """Of all sources, made once."""
        if engine not in self._made:
            self._made[engine] = by_batch(engine, self.sources)
        return self._made[engine]

    def quality(self, engine: Engine, torchs: Engine) -> dict[str, float]:
        """Lower-cased BLEU, where there is something to hold translations against, and how many are torch's own."""
        translations = self.translations(engine)
        same = {"as_torch": equal(translations, self.translations(torchs))}
        if self.references is None:
            return same
        texts = self.tokenizers[1].batch_decode(translations, skip_special_tokens=True)
        scores = translation_scores(texts, [self.references[i] for i in self.order])
        return {"bleu_lowercase": float(scores["bleu_lowercase"]), **same}


def task(report: Report, model: Any, objective: Translation, folder: Path) -> Task:
    """Of a trained model."""
    sources, references = objective.texts["test"]
    first = 8 if report.settings.quick else report.settings.sentences or len(sources)
    sources, references = sources[:first], references[:first]
    tokenizers = (objective.tokenizer, objective.target_tokenizer)
    rows = tokenizers[0](list(sources))["input_ids"]
    return task_of(report, Subject(model, rows, tokenizers, list(references)), folder)


def untrained_task(report: Report, folder: Path) -> Task:
    """Of random weights."""
    settings = report.settings
    size = QUICK if settings.quick else TINY
    model = our_model(size, "cpu").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    pairs, _ = translated_sentences(size, settings)
    batch = pairs.batch(np.arange(8 if settings.quick else TIMED))
    # Cut short: random weights write as much as they may.
    rows = [row[row != model.config.pad_token_id].tolist()[:8] for row in batch["input_ids"]]
    tokenizer = _tokenizer_of([f"t{i}" for i in range(size.vocabulary)])
    model.generation_config.suppress_tokens = [model.config.pad_token_id]
    return task_of(report, Subject(model, rows, (tokenizer, tokenizer)), folder)


def _tokenizer_of(words: list[str]) -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    vocabulary = {word: i for i, word in enumerate(words)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    )


SHAPE = (
    "vocab_size", "decoder_vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads",
    "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings",
    "share_encoder_decoder_embeddings", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id",
    "decoder_start_token_id",
)  # fmt: skip


def marian_peer(report: Report, subject: Subject) -> tuple[str, Callable[[], Ids], Engine | None]:
    """(name, what is timed, the engine where the weights are ours)."""
    model, timed = subject.model, subject.timed
    try:
        marian = marian_of(model).eval()
    except ValueError as refusal:
        report.facts["the peer's weights"] = f"random, of the same shape: {refusal}"
        shape = hfseq.TransformerConfig(**{name: getattr(model.config, name) for name in SHAPE})
        marian = marian_of(hfseq.TransformerForSeq2SeqLM(shape)).eval()
        batches = [timed[i : i + ROWS] for i in range(0, len(timed), ROWS)]
        steps = [max(map(len, generated(model, rows))) + 1 for rows in batches]

        def as_many_steps() -> Ids:
            return [
                text
                for rows, number in zip(batches, steps, strict=True)
                for text in generated(marian, rows, min_new_tokens=number, max_new_tokens=number)
            ]

        return "MarianMTModel.generate, same shape, as many steps", as_many_steps, None
    # As a user of Marian's published models has it.
    never = [[i] for i in model.generation_config.suppress_tokens or ()]
    peer = Torch(marian, bad_words_ids=never or None, suppress_tokens=None)
    return "MarianMTModel.generate", functools.partial(by_batch, peer, timed), peer


def task_of(report: Report, subject: Subject, folder: Path) -> Task:
    model = subject.model
    engines = list(engines_of(report, model, subject.tokenizers, folder))
    torchs = engines[0][2]

    def form(size: int | None, engine: Engine) -> Form:
        return Form(
            size,
            {UNIT: functools.partial(by_batch, engine, subject.timed)},
            functools.partial(subject.quality, engine, torchs),
        )

    forms = {name: form(size, engine) for name, size, engine in engines}
    goals: dict[str, Any] = {}
    if isinstance(model, hfseq.TransformerForSeq2SeqLM):
        name, run, marian = marian_peer(report, subject)
        forms[name] = form(None, marian) if marian else Form(None, {UNIT: run})
        if marian:
            # Two beams that are as good may fall either way in float32.
            others = 1 - equal(*map(subject.translations, (marian, torchs)))
            report.check("torch against Marian: other translations", others, 0.02)
        goals = {"peer": name, "speed_goals": {"CTranslate2 int8": SPEED_GOAL}}
    report.facts["sentences timed, scored"] = f"{len(subject.timed)}, {len(subject.sources)}"
    return Task(
        how=f"Beam {BEAMS}, batches of {ROWS} sentences, the scores those of {len(subject.sources):,}",
        forms=forms,
        amounts={UNIT: len(subject.timed)},
        loss_goal=None if subject.references is None else LOSS_GOAL,
        **goals,
    )


def equal(some: Ids, others: Ids) -> float:
    """The share of translations that are the same."""
    return sum(a == b for a, b in zip(some, others, strict=True)) / len(others)
