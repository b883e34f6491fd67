"""Language models that begin with a vector: texts described greedily, and the texts of the test side scored."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hfseq.metrics.language_model import bits_per_byte
from hfseq.models.losses import IGNORE_INDEX, cross_entropy
from hfseq.objectives.vector_to_text import VectorToText
from hfseq.training.describing import describe_vectors
from hfseq.training.model_batches import ModelBatches

from ..measuring import Report
from .continuation import OnnxReader
from .forms import Form, onnx_forms, onnx_session, torch_forms
from .table import Task

UNIT = "texts/s"
ROWS, LONGEST = 32, 16  # texts in a batch, tokens of one

Describe = Callable[[np.ndarray], list[str]]


def task(report: Report, model: Any, objective: VectorToText, folder: Path) -> Task:
    plan = objective.evaluation_plan("test")
    collate = ModelBatches(type(model))
    batches = [collate([plan[index]]) for index in range(len(plan))]
    vectors = torch.cat([batch["features"] for batch in batches])[
        : 4 if report.settings.quick else ROWS
    ].numpy()

    def form(size: int, describe: Describe, logits: Callable[[dict], torch.Tensor]) -> Form:
        return Form(
            size,
            {UNIT: functools.partial(describe, vectors)},
            functools.partial(quality, logits, batches, objective.arrays["test"].n_bytes),
        )

    forms = {
        name: form(
            size, functools.partial(by_torch, own, objective.tokenizer), functools.partial(read_by_torch, own)
        )
        for name, own, size in torch_forms(model, folder)
    }
    for name, graphs, size in onnx_forms(report, model, folder):
        reader = VectorReader(graphs, report.settings.threads)
        never = list(model.generation_config.suppress_tokens or ())
        describe = functools.partial(reader.describe, tokenizer=objective.tokenizer, never=never)
        forms[name] = form(size, describe, reader.logits)
    if "ONNX" in forms:
        ours, theirs = (forms[name].runs[UNIT]() for name in ("torch", "ONNX"))
        other = sum(a != b for a, b in zip(ours, theirs, strict=True)) / len(ours)
        report.check("ONNX against torch: other texts", other, 0.0)
    return Task(
        how=f"Greedily, batches of {ROWS} vectors, at most {LONGEST} tokens",
        forms=forms,
        amounts={UNIT: len(vectors)},
        higher_is_better=False,
    )


def by_torch(model: PreTrainedModel, tokenizer: Any, vectors: np.ndarray) -> list[str]:
    options = {"max_new_tokens": LONGEST, "do_sample": False}
    return describe_vectors(model, tokenizer, vectors.tolist(), **options)


@torch.inference_mode()
def read_by_torch(model: PreTrainedModel, batch: dict[str, Any]) -> torch.Tensor:
    return model(**{**batch, "labels": None}).logits


class VectorReader(OnnxReader):
    """That, begun with what `initial_state.onnx` makes of a vector."""

    def __init__(self, graphs: Path, threads: int):
        super().__init__(graphs / "model.onnx", threads)
        self.initial = onnx_session(graphs / "initial_state.onnx", threads)

    def states_of(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self.shapes, self.initial.run(None, {"features": vectors}), strict=True))

    def describe(self, vectors: np.ndarray, tokenizer: Any, never: list[int]) -> list[str]:
        """As `describe_vectors` without beams."""
        states, end = self.states_of(vectors), tokenizer.eos_token_id
        ids, written = np.full((len(vectors), 1), end, np.int64), []
        ended = np.zeros(len(vectors), bool)
        for _ in range(LONGEST):
            logits, states = self.step(ids, states)
            last = logits[:, -1]
            last[:, never] = -np.inf
            chosen = np.where(ended, end, last.argmax(1))
            written.append(chosen)
            ended |= chosen == end
            if ended.all():
                break
            ids = chosen[:, None]
        return tokenizer.batch_decode(np.stack(written, 1), skip_special_tokens=True)

    def logits(self, batch: dict[str, Any]) -> torch.Tensor:
        found, _ = self.step(batch["input_ids"].numpy(), self.states_of(batch["features"].numpy()))
        return torch.from_numpy(found)


def quality(
    logits: Callable[[dict], torch.Tensor], batches: list[dict[str, Any]], size: int
) -> dict[str, float]:
    """Of all texts, their ends included."""
    nll = 0.0
    for batch in batches:
        shifted = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE_INDEX)
        nll += float(cross_entropy(logits(batch), batch.get("shift_labels", shifted)))
    return {"bits_per_byte": bits_per_byte(nll, size)}
