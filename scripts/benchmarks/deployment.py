"""The deployment lines: one translation model in the forms that it is served in, against `MarianMTModel.generate`.

    python scripts/benchmark.py deployment --model outputs/transformer-multi30k-en-de --output deployment.json

torch, ONNX under onnxruntime, CTranslate2 in float32 and in int8, all from one checkpoint, on one thread in one run,
beam 5, the same sentences sorted by length in batches of 32; quality on the whole test side. The peer has the same
weights where Marian can express them. Where it cannot (pre-norm), it has the same shape and, batch by batch, makes as
many steps as our torch form: what it writes then is nothing to score.

Without --model the weights are random: sizes and speeds of a fresh model, no quality, and translations of equal length.
`pip install 'hfseq[deploy]'` brings CTranslate2 and onnxruntime; a form whose package is missing is left out and said.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import hfseq
from hfseq import data
from hfseq.convert import export_model
from hfseq.hub import load_checkpoint
from hfseq.metrics.bleu import translation_scores

from .measuring import Line, Report, take_turns
from .onnx_decoding import OnnxTranslator, facts_of
from .transformer import TINY, TransformerSize, marian_of, our_model, translated_sentences

BEAMS = 5
ROWS = 32  # sentences in a batch
TIMED = 64  # sentences of a turn, of all lengths
SPEED_GOAL, LOSS_GOAL = 3.0, 0.2

Ids = list[list[int]]
QUICK = TransformerSize(vocabulary=320, width=16, layers=2, heads=2, inner=32, tokens=512, updates=2)


def deployment(report: Report) -> None:
    report.section(deployed_lines)


class Subject:
    """The model, and the sentences that it translates.

    Args:
        settings.model: a checkpoint, or empty for random weights.
    """

    def __init__(self, report: Report):
        settings = report.settings
        self.references: list[str] | None = None
        self.name = settings.model or "random weights"
        if settings.model:
            self.model = load_checkpoint(settings.model).eval()
            self.tokenizer, self.target_tokenizer = data.load_pair_tokenizers(settings.model)
            sources, references = data.load_multi30k().texts["test"]
            if settings.quick:
                sources, references = sources[:8], references[:8]
            self.references = list(references)
            rows = self.tokenizer(list(sources))["input_ids"]
        else:
            size = QUICK if settings.quick else TINY
            self.model = our_model(size, "cpu").eval()
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.mul_(1.5)
            pairs, _ = translated_sentences(size, settings)
            batch = pairs.batch(np.arange(8 if settings.quick else TIMED))
            # Cut short: random weights write as much as they may.
            rows = [row[row != self.model.config.pad_token_id].tolist()[:8] for row in batch["input_ids"]]
            words = [f"t{i}" for i in range(size.vocabulary)]
            self.tokenizer = self.target_tokenizer = _tokenizer_of(words)
            self.model.generation_config.suppress_tokens = [self.model.config.pad_token_id]
        # All forms get the longest sentences first, in batches of one length or nearly so.
        self.order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        self.sources = [rows[i] for i in self.order]
        step = max(len(rows) // TIMED, 1)
        self.timed = self.sources[::step][:TIMED]

    def score(self, translations: Ids) -> float | None:
        """Lower-cased BLEU of translations of `sources`; None where there is nothing to hold them against."""
        if self.references is None:
            return None
        texts = self.target_tokenizer.batch_decode(translations, skip_special_tokens=True)
        return translation_scores(texts, [self.references[i] for i in self.order])["bleu_lowercase"]


def _tokenizer_of(words: list[str]) -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    vocabulary = {word: i for i, word in enumerate(words)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    )


def longest_of(rows: Ids) -> int:
    """Tokens of a translation at most, end included: as `hfseq.training.translate` bounds them, less the start.

    Random weights hardly ever end a sentence, and this is then the length of all.
    """
    return 2 * max(map(len, rows)) + 9


def by_batch(translate: Callable[[Ids], Ids], rows: Ids) -> Ids:
    return [text for begin in range(0, len(rows), ROWS) for text in translate(rows[begin : begin + ROWS])]


@torch.inference_mode()
def generated(model: Any, rows: Ids, **options: Any) -> Ids:
    """By `generate()` of transformers; ids without start and end."""
    width, config = max(map(len, rows)), model.config
    ids = torch.tensor([row + [config.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    options = {"max_new_tokens": longest_of(rows), "num_beams": BEAMS, "do_sample": False, **options}
    found = model.generate(input_ids=ids, attention_mask=mask, **options)
    return [without_ends(row, config) for row in found[:, 1:].tolist()]


def without_ends(row: list[int], config: Any) -> list[int]:
    end = config.eos_token_id if isinstance(config.eos_token_id, int) else config.eos_token_id[0]
    row = row[: row.index(end)] if end in row else row
    return [i for i in row if i != config.pad_token_id]


@dataclass
class Form:
    """A form that the model is served in.

    Args:
        translate: ids of a batch of sources -> ids of their translations.
        size: bytes of its weights.
    """

    translate: Callable[[Ids], Ids]
    size: int


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


def forms_of(report: Report, subject: Subject, folder: Path, threads: int) -> dict[str, Form]:
    """Every form that can be had here, "torch" first."""
    model = subject.model
    model.save_pretrained(folder / "torch")
    forms = {"torch": Form(functools.partial(generated, model), size_of(folder / "torch", "*.safetensors"))}
    if missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        report.facts["ONNX"] = f"left out: {', '.join(missing)} not installed"
    else:
        export_model(model, folder / "onnx", "onnx")
        translator = OnnxTranslator(folder / "onnx", **facts_of(model), threads=threads)
        forms["ONNX"] = Form(
            lambda rows: translator.translate(rows, BEAMS, longest_of(rows)),
            size_of(folder / "onnx", "*.onnx"),
        )
    if importlib.util.find_spec("ctranslate2") is None:
        report.facts["CTranslate2"] = "left out: ctranslate2 is not installed: pip install 'hfseq[deploy]'"
        return forms
    for quantization in ("float32", "int8"):
        target = folder / quantization
        tokenizers = (subject.tokenizer, subject.target_tokenizer)
        export_model(model, target, "ctranslate2", tokenizers=tokenizers, quantization=quantization)
        translate = ctranslate2_of(subject, target, quantization, threads)
        forms[f"CTranslate2 {quantization}"] = Form(translate, size_of(target, "*.bin"))
    return forms


def ctranslate2_of(subject: Subject, folder: Path, quantization: str, threads: int) -> Callable[[Ids], Ids]:
    import ctranslate2

    engine = ctranslate2.Translator(
        str(folder), compute_type=quantization, inter_threads=1, intra_threads=threads
    )
    to_tokens, to_ids = (
        subject.tokenizer.convert_ids_to_tokens,
        subject.target_tokenizer.convert_tokens_to_ids,
    )

    def translate(rows: Ids) -> Ids:
        found = engine.translate_batch(
            [to_tokens(row) for row in rows],
            beam_size=BEAMS,
            max_decoding_length=longest_of(rows),
            max_batch_size=ROWS,
        )
        return [to_ids(result.hypotheses[0]) for result in found]

    return translate


def size_of(directory: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in directory.glob(pattern))


def deployed_lines(report: Report) -> None:
    """Speed of every form against the peer, and what each loses in quality against torch."""
    subject, settings = Subject(report), report.settings
    peer, run_peer, peer_translates = marian_peer(report, subject)
    with tempfile.TemporaryDirectory() as temporary:
        forms = forms_of(report, subject, Path(temporary), settings.threads)
        runs = {
            name: functools.partial(by_batch, form.translate, subject.timed) for name, form in forms.items()
        }
        times = take_turns({peer: run_peer, **runs}, settings)
        translations = {name: by_batch(form.translate, subject.sources) for name, form in forms.items()}
    scores = {name: subject.score(texts) for name, texts in translations.items()}
    if peer_translates is not None:
        theirs = by_batch(peer_translates, subject.sources)
        # Two beams that are as good may fall either way in float32.
        report.check(
            "torch against Marian: other translations", 1 - equal(theirs, translations["torch"]), 0.02
        )
        scores[peer] = subject.score(theirs)
    table: list[dict[str, Any]] = []
    for name, form in forms.items():
        same = equal(translations[name], translations["torch"])
        note = f"{form.size / 1e6:.1f} MB; {same:.0%} of the translations are torch's"
        goal = SPEED_GOAL if name == "CTranslate2 int8" else None
        title, number = f"translation, beam {BEAMS}, {name}", len(subject.timed)
        report.compare(title, peer, "sentences/s", number, times[name], times[peer], goal, note)
        row = {"form": name, "bytes": form.size, "sentences_per_second": report.lines[-1].ours}
        table.append({**row, "bleu_lowercase": scores[name], "as_torch": same})
        mine, torchs = scores[name], scores["torch"]
        if name != "torch" and mine is not None and torchs is not None:
            lost, unit = torchs - mine, "BLEU, lower-cased"
            report.add(Line(f"{title}: lost", "torch", mine, torchs, unit, lost, LOSS_GOAL, at_least=False))
    speed = len(subject.timed) / times[peer].median(report.clock)
    table.append({"form": peer, "sentences_per_second": speed, "bleu_lowercase": scores.get(peer)})
    report.facts["deployment"] = table
    report.facts["sentences timed, scored"] = f"{len(subject.timed)}, {len(subject.sources)}"
    report.facts["model"] = subject.name


def equal(some: Ids, others: Ids) -> float:
    """The share of translations that are the same."""
    return sum(a == b for a, b in zip(some, others, strict=True)) / len(others)
