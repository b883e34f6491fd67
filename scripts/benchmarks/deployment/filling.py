"""Encoders that fill in masked tokens: whole texts read, and the masked tokens of the test side guessed.

Texts that evaluation packs into a row are served one a row here, as a server gets them, the longest first in batches of
one length or nearly so. CTranslate2 has no head for an encoder: it is applied by torch to what the engine put out,
where a token is masked.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hfseq.models.losses import IGNORE_INDEX, cross_entropy
from hfseq.objectives.masked import Masked
from hfseq.training.evaluation import masked_logits
from hfseq.training.model_batches import ModelBatches

from ..measuring import Report
from .forms import Form, ctranslate2_forms, onnx_forms, onnx_session, torch_forms
from .table import Task

ROWS = 32  # texts in a batch
TIMED = 4  # batches of a turn, of all lengths


@dataclass
class Batch:
    """Texts with masked tokens, padded on the right: int64 [texts, longest] each."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    @property
    def tokens(self) -> int:
        return int(self.attention_mask.sum())

    @property
    def given(self) -> dict[str, torch.Tensor]:
        """What a model reads."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    @property
    def masked(self) -> torch.Tensor:
        """Where a token is to be guessed, bool [texts, longest]."""
        return self.labels != IGNORE_INDEX


Guess = Callable[[Batch], torch.Tensor]
"""Logits where a token is masked [targets, vocabulary], row by row."""


def task(report: Report, model: PreTrainedModel, objective: Masked, folder: Path) -> Task:
    batches = test_batches(model, objective)
    if report.settings.quick:
        batches = batches[:2]
    timed = batches[:: max(len(batches) // TIMED, 1)][:TIMED]

    def form(size: int, guess: Guess) -> Form:
        return Form(
            size,
            {"tokens/s": lambda: [guess(batch) for batch in timed]},
            lambda: quality(guess, batches),
        )

    forms = {name: form(size, partial(by_torch, own)) for name, own, size in torch_forms(model, folder)}
    for name, graphs, size in onnx_forms(report, model, folder):
        session = onnx_session(graphs / "model.onnx", report.settings.threads)
        forms[name] = form(size, partial(by_onnx, session))
    tokenizers = (objective.tokenizer, objective.tokenizer)
    for name, compute, target, size in ctranslate2_forms(report, model, folder, tokenizers):
        engine = ctranslate2_encoder(target, compute, report.settings.threads)
        forms[name] = form(size, partial(by_ctranslate2, engine, model))
    return Task(
        how=f"Whole texts in batches of {ROWS}, a guess for each masked token",
        forms=forms,
        amounts={"tokens/s": sum(batch.tokens for batch in timed)},
        higher_is_better=False,
    )


def test_batches(model: PreTrainedModel, objective: Masked) -> list[Batch]:
    """The test side with the masks that every evaluation has, the longest texts first."""
    plan = objective.evaluation_plan("test")
    collate, pad = ModelBatches(type(model)), int(model.config.pad_token_id)
    texts = [text for index in range(len(plan)) for text in texts_of(collate([plan[index]]), pad)]
    texts.sort(key=lambda text: -len(text[0]))
    return [padded(texts[begin : begin + ROWS], pad) for begin in range(0, len(texts), ROWS)]


def texts_of(batch: dict[str, Any], pad: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, labels) of each text of packed rows: one begins where positions do."""
    ids, labels = batch["input_ids"], batch["labels"]
    positions = batch.get("position_ids", torch.arange(ids.shape[1]).expand_as(ids))
    for row in range(len(ids)):
        length = int((ids[row] != pad).sum())
        begins = (
            (positions[row, :length] == 0).nonzero().flatten().tolist()
        )  # none in a row that fills the batch up
        for begin, end in itertools.pairwise([*begins, length]):
            yield ids[row, begin:end], labels[row, begin:end]


def padded(texts: list[tuple[torch.Tensor, torch.Tensor]], pad: int) -> Batch:
    ids, labels = zip(*texts, strict=True)
    pad_to = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    return Batch(
        pad_to(ids, padding_value=pad),
        pad_to([torch.ones_like(text) for text in ids]),
        pad_to(labels, padding_value=IGNORE_INDEX),
    )


@torch.inference_mode()
def by_torch(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    columns = None
    if hasattr(model, "logits_at"):  # which are masked, -1 to fill up
        most = int(batch.masked.sum(1).max())
        order = batch.masked.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        columns = order.masked_fill(~batch.masked.gather(1, order), -1)
    return masked_logits(model, batch.given, batch.labels, columns)[0]


def by_onnx(session: Any, batch: Batch) -> torch.Tensor:
    given = {name: value.numpy() for name, value in batch.given.items()}
    if "token_type_ids" in {value.name for value in session.get_inputs()}:
        given["token_type_ids"] = np.zeros_like(given["input_ids"])
    (logits,) = session.run(["logits"], given)
    return torch.from_numpy(logits)[batch.masked]


def ctranslate2_encoder(folder: Path, compute: str, threads: int) -> Any:
    import ctranslate2

    return ctranslate2.Encoder(str(folder), compute_type=compute, inter_threads=1, intra_threads=threads)


@torch.inference_mode()
def by_ctranslate2(engine: Any, model: Any, batch: Batch) -> torch.Tensor:
    lengths = batch.attention_mask.sum(1).tolist()
    rows = [row[:length] for row, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
    hidden = torch.from_numpy(np.array(engine.forward_batch(rows).last_hidden_state))
    return model.lm_head(model.transform(hidden[batch.masked]))


def quality(guess: Guess, batches: list[Batch]) -> dict[str, float]:
    """Over all masked tokens."""
    nll, right, targets = 0.0, 0, 0
    for batch in batches:
        if not batch.masked.any():
            continue
        logits, wanted = guess(batch), batch.labels[batch.masked]
        nll += float(cross_entropy(logits, wanted))
        right += int((logits.argmax(-1) == wanted).sum())
        targets += len(wanted)
    return {"perplexity": math.exp(nll / targets), "accuracy": right / targets}
