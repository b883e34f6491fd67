"""Language models: a text read with all its probabilities, and one written a token at a time.

A model that carries its state reads the test side in streams, as evaluation does; any other in rows. ONNX has the state
as inputs and outputs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hfseq.metrics.language_model import bits_per_byte
from hfseq.models.losses import cross_entropy
from hfseq.objectives.causal import Causal
from hfseq.positions import position_limit
from hfseq.training.evaluation import evaluation_streams, segments

from ..measuring import Report
from .forms import Form, ends_of, onnx_forms, onnx_session, torch_forms
from .table import Task

STREAMS, SEGMENT = 8, 256  # of the text that is read
WRITTEN = 64  # tokens of a turn


def task(report: Report, model: PreTrainedModel, objective: Causal, folder: Path) -> Task:
    streams, segment, number = (2, 8, 4) if report.settings.quick else (STREAMS, SEGMENT, WRITTEN)
    segment = min(segment, position_limit(model.config) or segment)
    array = objective.arrays["test"]
    start = torch.from_numpy(np.asarray(array.tokens[: streams * segment], dtype=np.int64)).view(streams, -1)
    prompt = start[:1, :8]
    never = [*(model.generation_config.suppress_tokens or ()), *ends_of(model.generation_config)]

    forms = {}
    for name, own, size in torch_forms(model, folder):
        forms[name] = Form(
            size,
            {
                "tokens/s read": partial(read_by_torch, own, start),
                "tokens/s written": partial(write_by_torch, own, prompt, number, never),
            },
            partial(quality_of_torch, own, objective),
        )
    for name, graphs, size in onnx_forms(report, model, folder):
        reader = OnnxReader(graphs / "model.onnx", report.settings.threads)
        forms[name] = Form(
            size,
            {
                "tokens/s read": partial(reader.read, start.numpy()),
                "tokens/s written": partial(reader.write, prompt.numpy(), number, never),
            },
            partial(quality_of_onnx, reader, objective),
        )
    if "ONNX" in forms:
        ours, theirs = (forms[name].runs["tokens/s written"]() for name in ("torch", "ONNX"))
        other = sum(a != b for a, b in zip(ours, theirs, strict=True)) / number
        report.check("ONNX against torch: other tokens written", other, 0.0)
    return Task(
        how=f"Text read in {streams} streams of {segment} tokens with all its probabilities, and written greedily, one "
        "token at a time",
        forms=forms,
        amounts={"tokens/s read": start.numel(), "tokens/s written": number},
        higher_is_better=False,
    )


@torch.inference_mode()
def read_by_torch(model: PreTrainedModel, ids: torch.Tensor) -> Any:
    return model(input_ids=ids).logits


@torch.inference_mode()
def write_by_torch(model: PreTrainedModel, prompt: torch.Tensor, number: int, never: list[int]) -> list[int]:
    options: dict[str, Any] = {"do_sample": False, "suppress_tokens": never or None}
    written = model.generate(prompt, min_new_tokens=number, max_new_tokens=number, **options)
    return written[0, prompt.shape[1] :].tolist()


def quality_of_torch(model: PreTrainedModel, objective: Causal) -> dict[str, float]:
    return {"bits_per_byte": objective.score(model, "test").as_dict()["bits_per_byte"]}


class OnnxReader:
    """A language model as a step with explicit state."""

    def __init__(self, file: Path, threads: int):
        self.session = onnx_session(file, threads)
        self.shapes = {
            value.name: value.shape for value in self.session.get_inputs() if value.name.startswith("state_")
        }

    def step(
        self, ids: np.ndarray, states: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """ids [batch, time] -> logits [batch, time, vocabulary], and the states after them."""
        if not states:
            sizes = {n: [len(ids) if s == "batch" else s for s in shape] for n, shape in self.shapes.items()}
            states = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
        logits, *new = self.session.run(None, {"input_ids": ids, **states})
        return logits, dict(zip(self.shapes, new, strict=True))

    def read(self, ids: np.ndarray) -> np.ndarray:
        return self.step(ids, {})[0]

    def write(self, prompt: np.ndarray, number: int, never: list[int]) -> list[int]:
        ids, states, written = prompt, {}, []
        for _ in range(number):
            logits, states = self.step(ids, states)
            last = logits[0, -1]
            last[never] = -np.inf
            written.append(int(last.argmax()))
            ids = np.array([[written[-1]]], np.int64)
        return written


def quality_of_onnx(reader: OnnxReader, objective: Causal) -> dict[str, float]:
    """As `hfseq.training.evaluation.score_language_model` counts it."""
    array = objective.arrays["test"]
    nll, states = 0.0, {}
    for batch in segments(evaluation_streams(array, objective.fields.evaluation_streams)):
        logits, states = reader.step(batch["input_ids"].numpy(), states)
        nll += float(cross_entropy(torch.from_numpy(logits), batch["shift_labels"]))
    return {"bits_per_byte": bits_per_byte(nll, array.n_bytes)}
