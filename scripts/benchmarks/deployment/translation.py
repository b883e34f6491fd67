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
from hfseq.positions import position_limit

from ..measuring import Report
from ..transformer import TINY, TransformerSize, marian_of, our_model, translated_sentences
from .forms import Form, ctranslate2_forms, onnx_forms, torch_forms
from .onnx_decoding import OnnxTranslator, facts_of
from .table import Task

BEAMS = 5
ROWS = 32  # sentences in a batch
TIMED = 64  # sentences of a turn, of all lengths
UNIT = "sentences/s"
SPEED_GOAL, LOSS_GOAL = 3.0, 0.2

Ids = list[list[int]]
Translate = Callable[[Ids], Ids]
"""Ids of a batch of sources -> ids of their translations."""
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
        self.torch: Translate = functools.partial(generated, model)
        self._made: dict[Translate, Ids] = {}

    def translations(self, translate: Translate) -> Ids:
        """Of all sources, made once."""
        if translate not in self._made:
            self._made[translate] = by_batch(translate, self.sources)
        return self._made[translate]

    def quality(self, translate: Translate) -> dict[str, float]:
        """Lower-cased BLEU, where there is something to hold translations against, and how many are torch's own."""
        translations = self.translations(translate)
        same = {"as_torch": equal(translations, self.translations(self.torch))}
        if self.references is None:
            return same
        texts = self.tokenizers[1].batch_decode(translations, skip_special_tokens=True)
        scores = translation_scores(texts, [self.references[i] for i in self.order])
        return {"bleu_lowercase": float(scores["bleu_lowercase"]), **same}


def task(report: Report, model: Any, objective: Translation, folder: Path) -> Task:
    """Of a trained model."""
    sources, references = objective.texts["test"]
    if report.settings.quick:
        sources, references = sources[:8], references[:8]
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


def longest_of(rows: Ids, config: Any) -> int:
    """Tokens of a translation at most, end included: as `hfseq.training.translate` bounds them, less the start.

    Random weights hardly ever end a sentence, and this is then the length of all.
    """
    longest = 2 * max(map(len, rows)) + 9
    return min(longest, (position_limit(config) or longest + 1) - 1)


def by_batch(translate: Translate, rows: Ids) -> Ids:
    return [text for begin in range(0, len(rows), ROWS) for text in translate(rows[begin : begin + ROWS])]


@torch.inference_mode()
def generated(model: Any, rows: Ids, **options: Any) -> Ids:
    """By `generate()` of transformers; ids without start and end."""
    width, config = max(map(len, rows)), model.config
    ids = torch.tensor([row + [config.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    options = {"max_new_tokens": longest_of(rows, config), "num_beams": BEAMS, "do_sample": False, **options}
    found = model.generate(input_ids=ids, attention_mask=mask, **options)
    return [without_ends(row, config) for row in found[:, 1:].tolist()]


def without_ends(row: list[int], config: Any) -> list[int]:
    end = config.eos_token_id if isinstance(config.eos_token_id, int) else config.eos_token_id[0]
    row = row[: row.index(end)] if end in row else row
    return [i for i in row if i != config.pad_token_id]


SHAPE = (
    "vocab_size", "decoder_vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads",
    "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim", "max_position_embeddings",
    "share_encoder_decoder_embeddings", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id",
    "decoder_start_token_id",
)  # fmt: skip


def marian_peer(
    report: Report, subject: Subject
) -> tuple[str, Callable[[], Ids], Callable[[Ids], Ids] | None]:
    """(name, what is timed, what translates a batch where the weights are ours)."""
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
    translate = functools.partial(generated, marian, bad_words_ids=never or None, suppress_tokens=None)
    return "MarianMTModel.generate", functools.partial(by_batch, translate, timed), translate


def task_of(report: Report, subject: Subject, folder: Path) -> Task:
    model, threads = subject.model, report.settings.threads

    def form(size: int | None, translate: Translate) -> Form:
        return Form(
            size,
            {UNIT: functools.partial(by_batch, translate, subject.timed)},
            functools.partial(subject.quality, translate),
        )

    forms = {
        name: form(size, subject.torch if own is model else functools.partial(generated, own))
        for name, own, size in torch_forms(model, folder)
    }
    for name, graphs, size in onnx_forms(report, model, folder):
        translator = OnnxTranslator(graphs, **facts_of(model), threads=threads)
        forms[name] = form(size, onnx_of(translator, model.config))
    for name, compute, target, size in ctranslate2_forms(report, model, folder, subject.tokenizers):
        forms[name] = form(size, ctranslate2_of(subject, target, compute, threads))
    goals: dict[str, Any] = {}
    if isinstance(model, hfseq.TransformerForSeq2SeqLM):
        name, run, translate = marian_peer(report, subject)
        forms[name] = form(None, translate) if translate else Form(None, {UNIT: run})
        if translate:
            # Two beams that are as good may fall either way in float32.
            others = 1 - equal(*map(subject.translations, (translate, subject.torch)))
            report.check("torch against Marian: other translations", others, 0.02)
        goals = {"peer": name, "speed_goals": {"CTranslate2 int8": SPEED_GOAL}}
    report.facts["sentences timed, scored"] = f"{len(subject.timed)}, {len(subject.sources)}"
    return Task(
        how=f"Beam {BEAMS}, batches of {ROWS} sentences",
        forms=forms,
        amounts={UNIT: len(subject.timed)},
        loss_goal=None if subject.references is None else LOSS_GOAL,
        **goals,
    )


def onnx_of(translator: OnnxTranslator, config: Any) -> Translate:
    return lambda rows: translator.translate(rows, BEAMS, longest_of(rows, config))


def ctranslate2_of(subject: Subject, folder: Path, compute: str, threads: int) -> Translate:
    import ctranslate2

    engine = ctranslate2.Translator(str(folder), compute_type=compute, inter_threads=1, intra_threads=threads)
    source, target = subject.tokenizers
    to_tokens, to_ids = source.convert_ids_to_tokens, target.convert_tokens_to_ids

    def translate(rows: Ids) -> Ids:
        found = engine.translate_batch(
            [to_tokens(row) for row in rows],
            beam_size=BEAMS,
            max_decoding_length=longest_of(rows, subject.model.config),
            max_batch_size=ROWS,
        )
        return [to_ids(result.hypotheses[0]) for result in found]

    return translate


def equal(some: Ids, others: Ids) -> float:
    """The share of translations that are the same."""
    return sum(a == b for a, b in zip(some, others, strict=True)) / len(others)
