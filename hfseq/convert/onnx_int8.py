"""ONNX graphs with bytes for weights, by onnxruntime's own dynamic quantisation.

Nothing is calibrated: activations become bytes when a layer is reached. onnxruntime does so for matrix products, tables
and LSTMs; what it has no such form for (GRU, plain RNN, convolutions over a state) stays as it is.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path


def import_quantize_dynamic():
    """The function of onnxruntime, or an error that says how to get it."""
    try:
        from onnxruntime.quantization import quantize_dynamic
    except ImportError as error:
        raise ImportError("ONNX in int8 needs onnxruntime: pip install 'hfseq[deploy]'") from error
    return quantize_dynamic


def quantize(file: Path) -> None:
    """Replaces the graph by one that has a scale for each column of a weight."""
    quantize_dynamic = import_quantize_dynamic()
    part = file.with_suffix(".part")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it suggests a pass of its own, which our graphs have no need of
    try:
        quantize_dynamic(file, part, per_channel=True)
    finally:
        logging.disable(before)
    os.replace(part, file)
