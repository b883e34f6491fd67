"""What a model is served in: torch, ONNX under onnxruntime, CTranslate2, each in float32 and in int8.

int8 is what each engine offers without data to calibrate on: weights become bytes when the form is made, activations
when a layer is reached. torch has it for linear, LSTM and GRU layers, onnxruntime for matrix products and LSTMs,
CTranslate2 for every matrix.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hfseq.convert import export_model

from ..measuring import Report

ONNX_NEEDS = ("onnx", "onnxruntime")


def ends_of(config: Any) -> list[int]:
    """The ids at which a text ends, of a model's config or generation config: one, several or none stand there."""
    end = config.eos_token_id
    return [] if end is None else end if isinstance(end, list) else [end]


@dataclass
class Form:
    """A form that the model is served in.

    Args:
        size: bytes of its weights.
        runs: {unit, such as "sentences/s": does the work of a turn}.
        quality: the model's score in this form, {name: value}, the most telling first; None where it has none.
    """

    size: int | None
    runs: dict[str, Callable[[], Any]]
    quality: Callable[[], dict[str, float]] | None = None


def size_of(directory: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in directory.glob(pattern))


def torch_int8(model: PreTrainedModel) -> tuple[PreTrainedModel, int]:
    """A copy whose layers have bytes for weights, and its size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch names the package that is to replace this
        small = torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(model), {nn.Linear, nn.LSTM, nn.GRU}, inplace=True
        )
    written = io.BytesIO()
    torch.save(small.state_dict(), written)
    return small, written.tell()


def torch_forms(model: PreTrainedModel, folder: Path) -> Iterator[tuple[str, PreTrainedModel, int]]:
    """(name, model, bytes) of what torch itself serves."""
    model.save_pretrained(folder / "torch")
    yield "torch", model, size_of(folder / "torch", "*.safetensors")
    yield "torch int8", *torch_int8(model)


def onnx_forms(report: Report, model: PreTrainedModel, folder: Path) -> Iterator[tuple[str, Path, int]]:
    """(name, folder of the graphs, bytes); none where a package is missing or the model has no such form, which the
    report then says."""
    if missing := [name for name in ONNX_NEEDS if importlib.util.find_spec(name) is None]:
        report.facts["ONNX"] = f"left out: {', '.join(missing)} not installed: pip install 'hfseq[deploy]'"
        return
    for name, quantization in (("ONNX", "float32"), ("ONNX int8", "int8")):
        target = folder / f"onnx-{quantization}"
        if exported(report, "ONNX", model, target, quantization=quantization):
            yield name, target, size_of(target, "*.onnx")


def ctranslate2_forms(
    report: Report, model: PreTrainedModel, folder: Path, tokenizers: tuple[Any, Any]
) -> Iterator[tuple[str, str, Path, int]]:
    """(name, compute type, folder, bytes); none as `onnx_forms`."""
    if importlib.util.find_spec("ctranslate2") is None:
        report.facts["CTranslate2"] = "left out: ctranslate2 is not installed: pip install 'hfseq[deploy]'"
        return
    for compute in ("float32", "int8"):
        target = folder / compute
        if exported(report, "CTranslate2", model, target, tokenizers=tokenizers, quantization=compute):
            yield f"CTranslate2 {compute}", compute, target, size_of(target, "*.bin")


def exported(report: Report, name: str, model: PreTrainedModel, target: Path, **options: Any) -> bool:
    """Whether the model has that form; the report has the reason where not."""
    target.mkdir(exist_ok=True)
    try:
        export_model(model, target, name.lower(), **options)
    except ValueError as refusal:
        report.facts[name] = f"none: {refusal}"
        return False
    return True


def onnx_session(file: Path, threads: int) -> Any:
    """onnxruntime on so many threads of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
