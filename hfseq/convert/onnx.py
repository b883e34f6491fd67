"""ONNX out: every family for onnxruntime, where neither torch nor transformers is.

| model | files | inputs -> outputs |
|---|---|---|
| recurrent `*ForCausalLM` | `model.onnx` | input_ids [batch, time], the states -> logits, new states |
| with `feature_size` | and `initial_state.onnx` | features [batch, feature_size] -> the states to begin with |
| recurrent `*ForSequenceClassification` | `model.onnx` | input_ids, attention_mask [batch, time] -> logits |
| recurrent `*ForTokenClassification` | `model.onnx` | the same -> logits [batch, time, labels] |
| `Encoder*`, every head | `model.onnx` | see `onnx_encoder.py` |
| recurrent `*ForSeq2SeqLM` | `encoder.onnx`, `decoder.onnx` | see `onnx_seq2seq.py` |
| `TransformerForSeq2SeqLM` | the same | see `onnx_transformer.py` |
| `PervasiveForSeq2SeqLM` | the same | see `onnx_pervasive.py` |

A generative model is a step with explicit state, in every family: begin with zeros, with what `initial_state.onnx`
makes of a vector, or with the states that `encoder.onnx` puts out; feed tokens, one or many at a time; feed the new
states back, `new_state_0` as `state_0`. What `encoder.onnx` calls memory goes to every step as it is. The axis called
"batch" in a state's shape is the one that beam search reorders. Batch, lengths and time are free everywhere. Padding of
a recurrent model stands on the right, and only a classifier knows of it. Beside the graphs lies `config.json`. With
quantization "int8" the weights are bytes (`onnx_int8.py`).
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from ..hints import nearest_hint
from ..models.modeling_encoder import EncoderPreTrainedModel
from ..models.modeling_pervasive import PervasiveForSeq2SeqLM
from ..models.modeling_recurrent import (
    RecurrentForCausalLM,
    RecurrentForSequenceClassification,
    RecurrentForTokenClassification,
    RecurrentModel,
    TextPooling,
)
from ..models.modeling_recurrent_seq2seq import RecurrentForSeq2SeqLM
from ..models.modeling_transformer import TransformerForSeq2SeqLM
from . import onnx_encoder, onnx_int8, onnx_pervasive, onnx_seq2seq, onnx_transformer
from .onnx_graph import Graph

MODEL_FILE = "model.onnx"
QUANTIZATIONS = ("float32", "int8")
INITIAL_STATE_FILE = "initial_state.onnx"


def export_model(
    model: PreTrainedModel, directory: str | PathLike[str], quantization: str | None = None
) -> None:
    """Writes `model` as ONNX; see `hfseq.convert.export_model`.

    Args:
        quantization: one of QUANTIZATIONS (see `onnx_int8.py`); None: "float32".

    Raises:
        ValueError: no such quantization, or a model without an ONNX form.
        ImportError: onnx, or for int8 onnxruntime, is not installed.
    """
    quantization = quantization or "float32"
    if quantization not in QUANTIZATIONS:
        raise ValueError(
            f"ONNX has no quantization {quantization!r} here.{nearest_hint(quantization, QUANTIZATIONS)} Known: "
            f"{', '.join(QUANTIZATIONS)}."
        )
    if quantization == "int8":
        onnx_int8.import_quantize_dynamic()  # before the graphs are written
    writers = {
        RecurrentForCausalLM: _causal_lm,
        RecurrentForSequenceClassification: _sequence_classifier,
        RecurrentForTokenClassification: _token_classifier,
        RecurrentForSeq2SeqLM: onnx_seq2seq.write_graphs,
        EncoderPreTrainedModel: lambda model: {MODEL_FILE: onnx_encoder.write_graph(model)},
        TransformerForSeq2SeqLM: onnx_transformer.write_graphs,
        PervasiveForSeq2SeqLM: onnx_pervasive.write_graphs,
    }
    write = next((w for kind, w in writers.items() if isinstance(model, kind)), None)
    if write is None:
        raise ValueError(
            f"{type(model).__name__} has no ONNX form here: only models with a head have, and EncoderModel. Load the "
            "checkpoint with the class that its config names."
        )
    directory = Path(directory)
    for file, graph in write(model).items():
        graph.save(directory / file)
        if quantization == "int8":
            onnx_int8.quantize(directory / file)
    model.config.save_pretrained(directory)


def _causal_lm(model: RecurrentForCausalLM) -> dict[str, Graph]:
    graph = Graph("causal_lm")
    ids = graph.input("input_ids", int, ("batch", "time"))
    x = graph.add("Transpose", graph.embedding(ids, model.model.embed_tokens), perm=[1, 0, 2])
    number, finals = 0, []
    for block in model.model.blocks:
        shape = (block.num_layers, "batch", block.hidden_size)
        states = []
        for _ in range(block.state_tensors):
            states.append(graph.input(f"state_{number}", float, shape))
            number += 1
        x, _, final = graph.block(block, x, states=tuple(states))
        finals += [(value, shape) for value in final]
    if model.projection is not None:
        x = graph.linear(x, model.projection)
    logits = graph.add("Transpose", graph.linear(x, model.lm_head), perm=[1, 0, 2])
    graph.output("logits", logits, float, ("batch", "time", model.config.vocab_size))
    for number, (value, shape) in enumerate(finals):
        graph.output(f"new_state_{number}", value, float, shape)
    if not model.config.feature_size:
        return {MODEL_FILE: graph}
    return {MODEL_FILE: graph, INITIAL_STATE_FILE: _initial_state(model.model)}


def _initial_state(model: RecurrentModel) -> Graph:
    """The states that a text begins with, from its vector: `FeatureProjection`."""
    graph, projection = Graph("initial_state"), model.feature_projection
    features = graph.input("features", float, ("batch", model.config.feature_size))
    parts = graph.linear(features, projection.linear)  # [batch, all states]
    if len(projection.sizes) > 1:
        sizes = graph.integers(*projection.sizes)
        parts = graph.add("Split", parts, sizes, outputs=len(projection.sizes), axis=1)
    else:
        parts = (parts,)
    shapes = [(shape, place == 0) for state in projection.shapes for place, shape in enumerate(state)]
    for number, (part, ((layers, width), is_h)) in enumerate(zip(parts, shapes, strict=True)):
        state = graph.add("Reshape", part, graph.integers(0, layers, width))
        state = graph.add("Transpose", state, perm=[1, 0, 2])
        state = graph.add("Tanh", state) if is_h else state
        graph.output(f"state_{number}", state, float, (layers, "batch", width))
    return graph


def _layers(graph: Graph, model: RecurrentModel, every: bool) -> tuple[list[str], str]:
    """(what a classifier reads: [batch, time, width] each, zero at padding; 1.0 at tokens, [batch, time, 1])."""
    ids = graph.input("input_ids", int, ("batch", "time"))
    mask = graph.input("attention_mask", int, ("batch", "time"))
    lengths = graph.lengths(mask)
    x = graph.add("Transpose", graph.embedding(ids, model.embed_tokens), perm=[1, 0, 2])
    layers = [x]
    for block in model.blocks:
        x, outputs, _ = graph.block(block, x, lengths)
        layers += outputs
    real = graph.add("Unsqueeze", graph.floats(mask), graph.integers(2))  # [batch, time, 1]
    kept = layers if every else layers[-1:]
    kept = [graph.add("Mul", graph.add("Transpose", y, perm=[1, 0, 2]), real) for y in kept]
    return kept, real


def _head(graph: Graph, head, x: str) -> str:
    if head.dense is not None:
        x = graph.add("Relu", graph.linear(x, head.dense))
    return graph.linear(x, head.out_proj)


def _token_classifier(model: RecurrentForTokenClassification) -> dict[str, Graph]:
    graph = Graph("token_classifier")
    layers, _ = _layers(graph, model.model, model.config.classifier_layers == "all")
    x = layers[0] if len(layers) == 1 else graph.add("Concat", *layers, axis=2)
    logits = _head(graph, model.classifier, x)
    graph.output("logits", logits, float, ("batch", "time", model.config.num_labels))
    return {MODEL_FILE: graph}


def _sequence_classifier(model: RecurrentForSequenceClassification) -> dict[str, Graph]:
    graph = Graph("sequence_classifier")
    layers, real = _layers(graph, model.model, model.config.classifier_layers == "all")
    logits = _head(graph, model.classifier, _pool(graph, model.pooling, model.config, layers, real))
    graph.output("logits", logits, float, ("batch", model.config.num_labels))
    return {MODEL_FILE: graph}


def _pool(graph: Graph, pooling: TextPooling, config, layers: list[str], real: str) -> str:
    """layers [batch, time, width] each, real 1.0 at tokens [batch, time, 1] -> [batch, width]."""
    time, one = graph.integers(1), graph.constant(np.float32(1))
    hidden = layers[0] if len(layers) == 1 else graph.add("Concat", *layers, axis=2)
    beyond = graph.add("Mul", graph.add("Sub", real, one), graph.constant(np.float32(1e30)))  # 0 or -1e30

    def mean() -> str:
        count = graph.add("Max", graph.add("ReduceSum", real, time, keepdims=0), one)
        return graph.add("Div", graph.add("ReduceSum", hidden, time, keepdims=0), count)

    def highest() -> str:
        return graph.add("ReduceMax", graph.add("Add", hidden, beyond), time, keepdims=0)

    def last() -> str:
        # 1.0 at the last token: there the tokens from here on are one
        after = graph.add("CumSum", real, graph.constant(np.int64(1)), reverse=1)
        is_last = graph.add("Mul", graph.floats(graph.add("Equal", after, one)), real)
        pooled = []
        for number, layer in enumerate(layers):
            at_end = graph.add("ReduceSum", graph.add("Mul", layer, is_last), time, keepdims=0)
            if config.bidirectional and not (len(layers) > 1 and number == 0):
                at_start = graph.add("Gather", layer, graph.constant(np.int64(0)), axis=1)
                forwards, _ = graph.add("Split", at_end, outputs=2, axis=1, num_outputs=2)
                _, backwards = graph.add("Split", at_start, outputs=2, axis=1, num_outputs=2)
                pooled += [forwards, backwards]
            else:
                pooled.append(at_end)
        return pooled[0] if len(pooled) == 1 else graph.add("Concat", *pooled, axis=1)

    def attention() -> str:
        scores = graph.add("Add", graph.linear(hidden, pooling.attention), beyond)
        weights = graph.add("Softmax", scores, axis=1)
        return graph.add("ReduceSum", graph.add("Mul", hidden, weights), time, keepdims=0)

    ways = {"mean": mean, "max": highest, "last": last, "attention": attention}
    if pooling.way == "concat":
        return graph.add("Concat", last(), highest(), mean(), axis=1)
    return ways[pooling.way]()
