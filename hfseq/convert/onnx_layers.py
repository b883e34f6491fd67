"""What the attention families and the grid are made of, as ONNX: norms, activations, attention, positions.

Everything is [batch, time, width] as in torch; masks are added to scores as 0 or MASKED, so that no value is infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from .onnx_graph import Graph

MASKED = -1e30


def layer_norm(graph: Graph, x: str, norm: nn.LayerNorm) -> str:
    inputs = [x, graph.constant(norm.weight)]
    if norm.bias is not None:
        inputs.append(graph.constant(norm.bias))
    return graph.add("LayerNormalization", *inputs, axis=-1, epsilon=float(norm.eps))


def _gelu(graph: Graph, x: str) -> str:
    scaled = graph.add("Mul", x, graph.constant(np.float32(2**-0.5)))
    gate = graph.add("Add", graph.add("Erf", scaled), graph.constant(np.float32(1)))
    return graph.add("Mul", graph.add("Mul", x, graph.constant(np.float32(0.5))), gate)


def _gelu_tanh(graph: Graph, x: str) -> str:
    cube = graph.add("Mul", graph.add("Mul", x, x), graph.add("Mul", x, graph.constant(np.float32(0.044715))))
    inner = graph.add("Mul", graph.add("Add", x, cube), graph.constant(np.float32((2 / np.pi) ** 0.5)))
    gate = graph.add("Add", graph.add("Tanh", inner), graph.constant(np.float32(1)))
    return graph.add("Mul", graph.add("Mul", x, graph.constant(np.float32(0.5))), gate)


def _silu(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


# transformers' name of an activation -> its nodes.
ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "relu": lambda graph, x: graph.add("Relu", x),
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "silu": _silu,
    "swish": _silu,
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "sigmoid": lambda graph, x: graph.add("Sigmoid", x),
}


def activation(graph: Graph, x: str, name: str) -> str:
    """Raises ValueError for an activation that is not in ACTIVATIONS."""
    if name not in ACTIVATIONS:
        raise ValueError(f"The ONNX form has no activation {name!r}, only {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name](graph, x)


def feed_forward(graph: Graph, x: str, mlp: Any, name: str) -> str:
    """A `FeedForward` with the activation of that name."""
    if mlp.gate_proj is None:
        return graph.linear(activation(graph, graph.linear(x, mlp.up_proj), name), mlp.down_proj)
    gate = activation(graph, graph.linear(x, mlp.gate_proj), name)
    return graph.linear(graph.add("Mul", gate, graph.linear(x, mlp.up_proj)), mlp.down_proj)


def projections(graph: Graph, x: str, heads: int, *layers: nn.Linear) -> list[str]:
    """x [batch, time, width] through each layer, as one product: [batch, heads, time, width / heads] each."""
    weight = graph.constant(torch.cat([layer.weight for layer in layers]).t())
    y = graph.add("MatMul", x, weight)
    if layers[0].bias is not None:
        y = graph.add("Add", y, graph.constant(torch.cat([layer.bias for layer in layers])))
    if len(layers) == 1:
        return [split_heads(graph, y, heads)]
    parts = graph.add("Split", y, outputs=len(layers), axis=-1, num_outputs=len(layers))
    return [split_heads(graph, part, heads) for part in parts]


def split_heads(graph: Graph, x: str, heads: int) -> str:
    """[batch, time, width] -> [batch, heads, time, width / heads]."""
    return graph.add("Transpose", graph.add("Reshape", x, graph.integers(0, 0, heads, -1)), perm=[0, 2, 1, 3])


def attention(graph: Graph, q: str, k: str, v: str, bias: str, layer: Any) -> str:
    """An `AttentionLayer` from its projections on: [batch, heads, time, width / heads] each -> [batch, time, width].

    Args:
        bias: added to the scores [batch, heads, queries, keys], broadcast.
    """
    q = graph.add("Mul", q, graph.constant(np.float32(layer.scaling)))
    scores = graph.add("MatMul", q, graph.add("Transpose", k, perm=[0, 1, 3, 2]))
    weights = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
    found = graph.add("Transpose", graph.add("MatMul", weights, v), perm=[0, 2, 1, 3])
    return graph.linear(graph.add("Reshape", found, graph.integers(0, 0, -1)), layer.o_proj)


def padding_bias(graph: Graph, mask: str) -> str:
    """attention_mask [batch, time] -> [batch, 1, 1, time], for scores: 0 at tokens, MASKED at padding."""
    off = graph.add("Sub", graph.constant(np.float32(1)), graph.floats(mask))
    return graph.add(
        "Unsqueeze", graph.add("Mul", off, graph.constant(np.float32(MASKED))), graph.integers(1, 2)
    )


def length(graph: Graph, x: str, axis: int) -> str:
    """The length of an axis, an int64 scalar."""
    return graph.add("Gather", graph.add("Shape", x), graph.constant(np.int64(axis)))


def count(graph: Graph, begin: str, end: str) -> str:
    """begin, begin + 1, ... below end: int64 scalars -> int64 [end - begin]."""
    return graph.add("Range", begin, end, graph.constant(np.int64(1)))


def places(graph: Graph, mask: str) -> str:
    """Positions counted from each row's first token, on whichever side padding stands: int64 [batch, time]."""
    seen = graph.add("CumSum", mask, graph.constant(np.int64(1)))
    return graph.add("Max", graph.add("Sub", seen, graph.constant(np.int64(1))), graph.constant(np.int64(0)))


def rotary_angles(graph: Graph, positions: str, width: int, theta: float, batched: bool) -> tuple[str, str]:
    """int64 [batch, time] or [time] -> cosines and sines [batch or nothing, 1, time, width], for `rotate`."""
    frequencies = theta ** -(np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    wide = graph.add("Unsqueeze", graph.floats(positions), graph.integers(2 if batched else 1))
    angles = graph.add("Mul", wide, graph.constant(frequencies.astype(np.float32)))
    angles = graph.add("Concat", angles, angles, axis=-1)
    if batched:
        angles = graph.add("Unsqueeze", angles, graph.integers(1))
    return graph.add("Cos", angles), graph.add("Sin", angles)


def rotate(graph: Graph, x: str, angles: tuple[str, str]) -> str:
    """Turns x [batch, heads, time, width]; number i of the first half is paired with number i of the second."""
    first, second = graph.add("Split", x, outputs=2, axis=-1, num_outputs=2)
    turned = graph.add("Concat", graph.add("Neg", second), first, axis=-1)
    return graph.add("Add", graph.add("Mul", x, angles[0]), graph.add("Mul", turned, angles[1]))
