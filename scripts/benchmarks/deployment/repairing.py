"""Encoder-decoders that repair damaged text: what was taken away found by beam search, and scored on the test side.

CTranslate2 gives tokens that are never written (padding, the start) no probability, and the others all of it.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

from hfseq.models.losses import IGNORE_INDEX
from hfseq.objectives.denoising import Denoising
from hfseq.training.model_batches import ModelBatches

from ..measuring import Report
from .forms import Form
from .seq2seq import BEAMS, ROWS, Engine, Pairs, by_batch, engines_of
from .table import Task

UNIT = "texts/s"
TIMED = 32  # texts of a turn, of all lengths


def task(report: Report, model: Any, objective: Denoising, folder: Path) -> Task:
    plan = objective.evaluation_plan("test")
    collate = ModelBatches(type(model))
    batches = [pairs_of(collate([plan[index]]), model.config) for index in range(len(plan))]
    if report.settings.quick:
        batches = batches[:2]
    sources = [
        row[:length]
        for batch in batches
        for row, length in zip(batch.input_ids.tolist(), batch.attention_mask.sum(1).tolist(), strict=True)
    ]
    sources.sort(key=lambda row: -len(row))
    timed = sources[:: max(len(sources) // TIMED, 1)][:TIMED]
    forms = {
        name: Form(
            size,
            {UNIT: functools.partial(by_batch, engine, timed)},
            functools.partial(quality, engine, batches),
        )
        for name, size, engine in engines_of(report, model, (objective.tokenizer,) * 2, folder)
    }
    return Task(
        how=f"Beam {BEAMS}, batches of {ROWS} texts",
        forms=forms,
        amounts={UNIT: len(timed)},
        higher_is_better=False,
    )


def pairs_of(batch: dict[str, Any], config: Any) -> Pairs:
    ids = batch["input_ids"]
    mask = batch.get("attention_mask")
    return Pairs(ids, (ids != config.pad_token_id).long() if mask is None else mask, batch["labels"])


def quality(engine: Engine, batches: list[Pairs]) -> dict[str, float]:
    """Perplexity per target token."""
    targets = sum(int((batch.labels != IGNORE_INDEX).sum()) for batch in batches)
    return {"perplexity": math.exp(sum(map(engine.nll, batches)) / targets)}
