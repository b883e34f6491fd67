"""Pervasive Attention as ONNX: a graph that reads the source, and one that adds rows to the grid.

| file | inputs -> outputs |
|---|---|
| `encoder.onnx` | input_ids, attention_mask [batch, source time] -> `memory_0`, ..., the states to begin with |
| `decoder.onnx` | decoder_input_ids [batch, time], attention_mask, memory, the states -> logits, new states |

The memory is the source's share of what the layers read. A state is what a convolution still sees of the rows before
[batch, rows, source time, channels], zeros at first; forms that count positions have one more, their number so far
[batch, 1]. All four forms, with every norm, aggregation and treatment of padding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..models.grid import Aggregation, CausalGridConv, GridBatchNorm
from ..models.modeling_pervasive import DenseGrid, GridShare, PervasiveForSeq2SeqLM, ResidualGrid
from ..models.pervasive_published import HALF, DenseNet2018, ResNet2020
from .onnx_graph import Graph
from .onnx_layers import count, layer_norm, length
from .onnx_seq2seq import DECODER_FILE, ENCODER_FILE

LOWEST = np.finfo(np.float32).min


def write_graphs(model: PervasiveForSeq2SeqLM) -> dict[str, Graph]:
    """{file: graph}."""
    return {ENCODER_FILE: _encoder(model), DECODER_FILE: _decoder(model)}


def _convolutions(model: PervasiveForSeq2SeqLM) -> list[CausalGridConv]:
    """Those that see earlier rows, in the order of their states."""
    layers = model.model.decoder.grid.layers
    return [layer.conv for layer in layers if layer.conv.rows_kept]


def _state_shape(conv: CausalGridConv) -> tuple[int | str, ...]:
    return ("batch", conv.rows_kept, "source_time", conv.shape[1] * conv.groups)


def _counts(model: PervasiveForSeq2SeqLM) -> bool:
    return model.config.form in ("residual", "resnet_2020")


def _sinusoids(graph: Graph, positions: str, width: int) -> str:
    """int64 [batch, time] -> [batch, time, width]; `hfseq.models.grid.sinusoids`."""
    half = width // 2
    exponents = np.arange(half, dtype=np.float32) / np.float32(max(half - 1, 1))
    frequencies = np.exp(exponents * np.float32(-math.log(10000.0))).astype(np.float32)
    wide = graph.add("Unsqueeze", graph.floats(positions), graph.integers(2))
    angles = graph.add("Mul", wide, graph.constant(frequencies))
    return graph.add("Concat", graph.add("Sin", angles), graph.add("Cos", angles), axis=2)


def _batch_norm(graph: Graph, x: str, norm: GridBatchNorm) -> str:
    """In evaluation: one factor and one summand for each channel."""
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    return graph.add("Add", graph.add("Mul", x, graph.constant(scale)), graph.constant(shift))


def _relu(graph: Graph, x: str) -> str:
    return graph.add("Relu", x)


def _convolved(graph: Graph, x: str, conv: CausalGridConv, states: list[str], new: list[str]) -> str:
    """x [batch, time, source, in] after the rows of its state -> [batch, time, source, out]; appends the new state."""
    if conv.rows_kept:
        x = graph.add("Concat", states[len(new)], x, axis=1)
        ends = graph.integers(-conv.rows_kept), graph.integers(np.iinfo(np.int64).max), graph.integers(1)
        new.append(graph.add("Slice", x, *ends))
    weight = graph.constant(conv.weight.view(conv.shape))
    inputs = [graph.add("Transpose", x, perm=[0, 3, 1, 2]), weight]
    if conv.bias is not None:
        inputs.append(graph.constant(conv.bias))
    reach = conv.reach
    y = graph.add("Conv", *inputs, group=conv.groups, pads=[0, reach, 0, reach])
    return graph.add("Transpose", y, perm=[0, 2, 3, 1])


# ------------------------------------------------------------------------------------------------------- the source


def _encoder(model: PervasiveForSeq2SeqLM) -> Graph:
    config, grid = model.config, model.model.decoder.grid
    graph = Graph("encoder")
    ids = graph.input("input_ids", int, ("batch", "source_time"))
    mask = graph.input("attention_mask", int, ("batch", "source_time"))
    x = graph.embedding(ids, model.model.encoder.embed_tokens)
    if config.form == "resnet_2020":
        seen = graph.add("CumSum", mask, graph.constant(np.int64(1)))
        positions = graph.add("Add", seen, graph.constant(np.int64(config.first_position - 1)))
        real = graph.add("Unsqueeze", graph.floats(mask), graph.integers(2))
        sines = graph.add("Mul", _sinusoids(graph, positions, config.embedding_size), real)
        scaled = graph.add("Mul", x, graph.constant(np.float32(config.embedding_size**0.5)))
        x = graph.add("Add", scaled, sines)
    for number, (value, width) in enumerate(_source_shares(graph, grid, x, mask)):
        graph.output(f"memory_{number}", value, float, ("batch", "source_time", width))
    number = 0
    for conv in _convolutions(model):
        shape = _state_shape(conv)
        sizes = [graph.add("Unsqueeze", length(graph, ids, axis), graph.integers(0)) for axis in (0, 1)]
        whole = graph.add(
            "Concat", sizes[0], graph.integers(shape[1]), sizes[1], graph.integers(shape[3]), axis=0
        )
        graph.output(
            f"state_{number}", graph.add("Expand", graph.constant(np.float32(0)), whole), float, shape
        )
        number += 1
    if _counts(model):
        total = graph.add("ReduceSum", mask, graph.integers(1), keepdims=1)
        none = graph.add("Mul", total, graph.constant(np.int64(0)))
        graph.output(f"state_{number}", none, int, ("batch", 1))
    return graph


def _source_shares(graph: Graph, grid: Any, x: str, mask: str) -> list[tuple[str, int]]:
    """What `read_source` gives, with the widths."""
    if isinstance(grid, DenseGrid):
        x = x if grid.is_batch else layer_norm(graph, x, grid.source_norm)
        width = grid.source_shares[0].linear.in_features
        return [
            (_share(graph, share, x), width if share.linear is None else share.linear.out_features)
            for share in grid.source_shares
        ]
    y, width = graph.linear(x, grid.source), grid.source.out_features
    if isinstance(grid, ResidualGrid):
        seen = graph.add("CumSum", mask, graph.constant(np.int64(1)))
        before = graph.add("Sub", seen, graph.constant(np.int64(1)))
        positions = graph.add("Max", before, graph.constant(np.int64(0)))
        y = graph.add("Add", y, _sinusoids(graph, positions, width))
    return [(y, width)]


def _share(graph: Graph, share: GridShare, x: str) -> str:
    if share.norm is not None:
        x = _relu(graph, _batch_norm(graph, x, share.norm))
    return x if share.linear is None else graph.linear(x, share.linear)


# --------------------------------------------------------------------------------------------------------- the grid


def _decoder(model: PervasiveForSeq2SeqLM) -> Graph:
    config, grid = model.config, model.model.decoder.grid
    graph = Graph("decoder")
    ids = graph.input("decoder_input_ids", int, ("batch", "time"))
    mask = graph.input("attention_mask", int, ("batch", "source_time"))
    memory = []
    shares = grid.source_shares if isinstance(grid, DenseGrid) else [grid]
    for number, share in enumerate(shares):
        linear = share.linear if isinstance(grid, DenseGrid) else grid.source
        width = config.embedding_size if linear is None else linear.out_features
        memory.append(graph.input(f"memory_{number}", float, ("batch", "source_time", width)))
    shapes = [_state_shape(conv) for conv in _convolutions(model)]
    states = [graph.input(f"state_{n}", float, shape) for n, shape in enumerate(shapes)]
    positions = ""
    if _counts(model):
        seen = graph.input(f"state_{len(states)}", int, ("batch", 1))
        time = length(graph, ids, 1)
        rows = count(graph, graph.constant(np.int64(0)), time)
        positions = graph.add("Add", seen, rows)  # [batch, time]

    target = graph.embedding(ids, model.model.decoder.embed_tokens or model.model.encoder.embed_tokens)
    if config.form == "resnet_2020":
        places = graph.add("Add", positions, graph.constant(np.int64(config.first_position)))
        scaled = graph.add("Mul", target, graph.constant(np.float32(config.embedding_size**0.5)))
        target = graph.add("Add", scaled, _sinusoids(graph, places, config.embedding_size))
    new: list[str] = []
    step = _Step(graph, mask, ids, states, new)
    networks = {DenseGrid: _dense, ResidualGrid: _residual, DenseNet2018: _densenet, ResNet2020: _resnet}
    x = networks[type(grid)](step, grid, memory, target, positions)
    logits = graph.linear(graph.linear(x, model.projection), model.lm_head)
    graph.output("logits", logits, float, ("batch", "time", config.decoder_vocab_size))
    for number, (value, shape) in enumerate(zip(new, shapes, strict=True)):
        graph.output(f"new_state_{number}", value, float, shape)
    if positions:
        graph.output(f"new_state_{len(states)}", graph.add("Add", seen, time), int, ("batch", 1))
    return graph


class _Step:
    """What every form reads while rows are added: the graph, the source's mask in its shapes, the states.

    Args:
        mask: int64 [batch, source]; ids: int64 [batch, time].
        states: before; new: filled with those after.
    """

    def __init__(self, graph: Graph, mask: str, ids: str, states: list[str], new: list[str]):
        self.graph, self.mask, self.ids, self.states, self.new = graph, mask, ids, states, new
        self.real = graph.floats(mask)  # [batch, source]
        self.keep = graph.add("Unsqueeze", self.real, graph.integers(1, 3))  # [batch, 1, source, 1]

    def cells(self, source: str, target: str) -> str:
        """source [batch, source, n] and target [batch, time, n], added: [batch, time, source, n]."""
        graph = self.graph
        rows = graph.add("Unsqueeze", target, graph.integers(2))
        return graph.add("Add", graph.add("Unsqueeze", source, graph.integers(1)), rows)

    def kept(self, x: str) -> str:
        return self.graph.add("Mul", x, self.keep)

    def convolved(self, x: str, conv: CausalGridConv) -> str:
        return _convolved(self.graph, x, conv, self.states, self.new)


def _dense(step: _Step, grid: DenseGrid, memory: list[str], target: str, positions: str) -> str:
    graph = step.graph
    *shares, vectors = memory
    target = target if grid.is_batch else layer_norm(graph, target, grid.target_norm)
    *of_target, own = (_share(graph, share, target) for share in grid.target_shares)
    channels: list[str] = []
    for layer, source_share, target_share in zip(grid.layers, shares, of_target, strict=True):
        x = step.cells(source_share, target_share)
        if layer.features is not None:
            known = channels[0] if len(channels) == 1 else graph.add("Concat", *channels, axis=3)
            if grid.is_batch:
                known = _relu(graph, _batch_norm(graph, known, layer.features_norm))
            x = graph.add("Add", x, graph.linear(known, layer.features))
        normed = (
            _batch_norm(graph, x, layer.bottleneck_norm)
            if grid.is_batch
            else layer_norm(graph, x, layer.bottleneck_norm)
        )
        x = step.convolved(_relu(graph, step.kept(normed)), layer.conv)
        channels.append(x if grid.is_batch else _relu(graph, layer_norm(graph, x, layer.output_norm)))
    together = channels[0] if len(channels) == 1 else graph.add("Concat", *channels, axis=3)
    if grid.is_batch:
        together = _relu(graph, _batch_norm(graph, together, grid.final_norm))
    return _aggregated(step, grid.aggregation, together, True, vectors, own)


def _residual(step: _Step, grid: ResidualGrid, memory: list[str], target: str, positions: str) -> str:
    graph = step.graph
    row = graph.linear(target, grid.target)
    row = graph.add("Add", row, _sinusoids(graph, positions, grid.target.out_features))
    x = step.cells(memory[0], row)
    for layer in grid.layers:
        read = step.convolved(step.kept(layer_norm(graph, x, layer.conv_norm)), layer.conv)
        x = graph.add("Add", x, graph.linear(_relu(graph, read), layer.mix))
        hidden = _relu(graph, graph.linear(layer_norm(graph, x, layer.mlp_norm), layer.up))
        x = graph.add("Add", x, graph.linear(hidden, layer.down))
    return _aggregated(step, grid.aggregation, layer_norm(graph, x, grid.output_norm), True)


def _densenet(step: _Step, grid: DenseNet2018, memory: list[str], target: str, positions: str) -> str:
    graph = step.graph
    channels = [step.cells(memory[0], graph.linear(target, grid.target))]
    for layer in grid.layers:
        known = channels[0] if len(channels) == 1 else graph.add("Concat", *channels, axis=3)
        x = _relu(graph, _batch_norm(graph, known, layer.read_norm))
        x = _relu(graph, _batch_norm(graph, graph.linear(x, layer.bottleneck), layer.bottleneck_norm))
        channels.append(step.convolved(step.kept(x) if grid.masks_padding else x, layer.conv))
    x = _relu(graph, _batch_norm(graph, graph.add("Concat", *channels, axis=3), grid.transition_norm))
    x = _relu(graph, _batch_norm(graph, graph.linear(x, grid.transition), grid.output_norm))
    masked = grid.masks_padding or grid.aggregation.kind == "average"
    return _aggregated(step, grid.aggregation, x, masked)


def _resnet(step: _Step, grid: ResNet2020, memory: list[str], target: str, positions: str) -> str:
    graph = step.graph
    half, share = (graph.constant(np.float32(value)) for value in (HALF, 1 / (len(grid.layers) + 1)))
    x = step.cells(memory[0], graph.linear(target, grid.target))
    mean = graph.add("Mul", x, share)
    for layer in grid.layers:
        read = graph.linear(x, layer.mix)
        read = step.convolved(step.kept(read) if grid.masks_padding else read, layer.conv)
        read = read if grid.masks_padding else step.kept(read)
        x = graph.add("Mul", graph.add("Add", x, read), half)
        hidden = graph.linear(_relu(graph, graph.linear(x, layer.up)), layer.down)
        x = graph.add("Mul", graph.add("Add", x, hidden), half)
        mean = graph.add("Add", mean, graph.add("Mul", x, share))
    return _aggregated(step, grid.aggregation, mean, grid.masks_padding)


def _aggregated(
    step: _Step,
    aggregation: Aggregation,
    cells: str,
    masked: bool,
    source: str | None = None,
    target: str | None = None,
) -> str:
    """`Aggregation.forward`: cells [batch, time, source, channels] -> [batch, time, channels + more]."""
    graph = step.graph
    two = graph.integers(2)
    if aggregation.kind == "average":
        number = graph.add("ReduceSum", step.real, graph.integers(1), keepdims=1)  # [batch, 1]
        number = graph.add("Unsqueeze", graph.add("Max", number, graph.constant(np.float32(1))), two)
        root = graph.add("Sqrt", number)  # [batch, 1, 1]
        parts = [graph.add("Div", graph.add("ReduceSum", step.kept(cells), two, keepdims=0), root)]
        if source is not None:
            real = graph.add("Unsqueeze", step.real, two)
            total = graph.add("ReduceSum", graph.add("Mul", source, real), graph.integers(1), keepdims=1)
            parts.append(_for_each_row(step, graph.add("Div", total, root)))
        if target is not None:
            parts.append(graph.add("Mul", target, root))
        return _side_by_side(graph, parts)
    if aggregation.kind == "attention":
        hidden = graph.add("Tanh", graph.linear(cells, aggregation.hidden))
        scores = graph.add("Squeeze", graph.linear(hidden, aggregation.score), graph.integers(3))
        if masked:
            scores = _filled(step, scores, graph.integers(1))
        weights = graph.add("Softmax", scores, axis=2)  # [batch, time, source]
        row = graph.add("Unsqueeze", weights, two)
        parts = [graph.add("Squeeze", graph.add("MatMul", row, cells), two)]
        if source is not None:
            parts.append(graph.add("MatMul", weights, source))
        return _side_by_side(graph, [*parts, *([] if target is None else [target])])
    if aggregation.kind == "gated_max":
        gates = graph.add("Sigmoid", graph.linear(cells, aggregation.gate))
        values = cells if aggregation.value is None else graph.linear(cells, aggregation.value)
        cells = graph.add("Mul", gates, values)
    if masked:
        cells = _filled(step, cells, graph.integers(1, 3))
    parts = [graph.add("ReduceMax", cells, two, keepdims=0)]
    if source is not None:
        seen = _filled(step, source, graph.integers(2)) if masked else source
        parts.append(_for_each_row(step, graph.add("ReduceMax", seen, graph.integers(1), keepdims=1)))
    return _side_by_side(graph, [*parts, *([] if target is None else [target])])


def _filled(step: _Step, x: str, axes: str) -> str:
    """x with the lowest number where the source's mask, with those axes added, is 0."""
    graph = step.graph
    real = graph.add("Unsqueeze", graph.add("Cast", step.mask, to=graph.onnx.TensorProto.BOOL), axes)
    return graph.add("Where", real, x, graph.constant(np.float32(LOWEST)))


def _for_each_row(step: _Step, x: str) -> str:
    """[batch, 1, n] -> [batch, time, n]."""
    graph = step.graph
    shape = graph.add("Concat", graph.add("Shape", step.ids), graph.integers(1), axis=0)
    return graph.add("Expand", x, shape)


def _side_by_side(graph: Graph, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=2)


__all__ = ["write_graphs"]
