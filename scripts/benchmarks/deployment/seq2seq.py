"""Encoder-decoders in each engine: sources written out by beam search, and given targets scored."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from hfseq.models.losses import IGNORE_INDEX, cross_entropy
from hfseq.positions import position_limit

from ..measuring import Report
from .forms import ctranslate2_forms, ends_of, onnx_forms, torch_forms
from .onnx_decoding import OnnxTranslator, facts_of

BEAMS = 5
ROWS = 32  # sources in a batch
PATIENCE = 2  # of CTranslate2: by default it stops before `generate()` would, which costs up to 0.4 BLEU

Ids = list[list[int]]


@dataclass
class Pairs:
    """Sources and their targets, padded on the right: int64 [pairs, longest] each; labels -100 at padding."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor


class Engine(Protocol):
    """What serves an encoder-decoder."""

    def write(self, rows: Ids) -> Ids:
        """Ids of a batch of sources -> ids that beam search finds, without start and end."""

    def nll(self, pairs: Pairs) -> float:
        """Sum over the targets, their ends included, in nats."""


def longest_of(rows: Ids, config: Any) -> int:
    """Tokens of a translation at most, end included: as `hfseq.training.translate` bounds them, less the start.

    Random weights hardly ever end a sentence, and this is then the length of all.
    """
    longest = 2 * max(map(len, rows)) + 9
    return min(longest, (position_limit(config) or longest + 1) - 1)


def by_batch(engine: Engine, rows: Ids) -> Ids:
    return [text for begin in range(0, len(rows), ROWS) for text in engine.write(rows[begin : begin + ROWS])]


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
    end = ends_of(config)[0]
    row = row[: row.index(end)] if end in row else row
    return [i for i in row if i != config.pad_token_id]


class Torch:
    """`generate()` of transformers."""

    def __init__(self, model: PreTrainedModel, **options: Any):
        self.model, self.write = model, functools.partial(generated, model, **options)

    @torch.inference_mode()
    def nll(self, pairs: Pairs) -> float:
        return float(cross_entropy(self.model(**vars(pairs)).logits, pairs.labels))


class Onnx:
    """onnxruntime, with the beam search of `onnx_decoding.py`."""

    def __init__(self, graphs: Path, model: PreTrainedModel, threads: int):
        self.translator, self.config = (
            OnnxTranslator(graphs, **facts_of(model), threads=threads),
            model.config,
        )

    def write(self, rows: Ids) -> Ids:
        return self.translator.translate(rows, BEAMS, longest_of(rows, self.config))

    def nll(self, pairs: Pairs) -> float:
        targets = pairs.labels.masked_fill(pairs.labels == IGNORE_INDEX, self.config.pad_token_id).numpy()
        shifted = np.roll(targets, 1, axis=1)
        shifted[:, 0] = self.config.decoder_start_token_id
        logits = self.translator.logits(pairs.input_ids.numpy(), pairs.attention_mask.numpy(), shifted)
        return float(cross_entropy(torch.from_numpy(logits), pairs.labels))


class CTranslate2:
    """`ctranslate2.Translator`."""

    def __init__(self, folder: Path, config: Any, compute: str, tokenizers: tuple[Any, Any], threads: int):
        import ctranslate2

        self.engine = ctranslate2.Translator(
            str(folder), compute_type=compute, inter_threads=1, intra_threads=threads
        )
        self.config, (self.source, self.target) = config, tokenizers

    def write(self, rows: Ids) -> Ids:
        found = self.engine.translate_batch(
            [self.source.convert_ids_to_tokens(row) for row in rows],
            beam_size=BEAMS,
            patience=PATIENCE,
            max_decoding_length=longest_of(rows, self.config),
            max_batch_size=ROWS,
        )
        return [self.target.convert_tokens_to_ids(result.hypotheses[0]) for result in found]

    def nll(self, pairs: Pairs) -> float:
        lengths = pairs.attention_mask.sum(1).tolist()
        sources = [row[:n] for row, n in zip(pairs.input_ids.tolist(), lengths, strict=True)]
        # The engine adds the end, which ends each of our targets.
        targets = [row[row != IGNORE_INDEX][:-1].tolist() for row in pairs.labels]
        scored = self.engine.score_batch(
            [self.source.convert_ids_to_tokens(row) for row in sources],
            [self.target.convert_ids_to_tokens(row) for row in targets],
        )
        return -sum(sum(result.log_probs) for result in scored)


def engines_of(
    report: Report, model: PreTrainedModel, tokenizers: tuple[Any, Any], folder: Path
) -> Iterator[tuple[str, int, Engine]]:
    """(name, bytes, engine) of every form that can be had here, "torch" first."""
    threads = report.settings.threads
    for name, own, size in torch_forms(model, folder):
        yield name, size, Torch(own)
    for name, graphs, size in onnx_forms(report, model, folder):
        yield name, size, Onnx(graphs, model, threads)
    for name, compute, target, size in ctranslate2_forms(report, model, folder, tokenizers):
        yield name, size, CTranslate2(target, model.config, compute, tokenizers, threads)
