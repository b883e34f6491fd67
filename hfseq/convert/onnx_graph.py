"""ONNX graphs written node by node, in ONNX's own operators; here what the recurrent models are made of.

torch's exporters unroll a recurrent layer or trace its kernel call, for the lengths at hand. ONNX has LSTM, GRU and RNN
as operators with lengths and states of their own, so each block becomes one node per layer and any length runs. Only
the order of the gates differs: torch's i, f, g, o is ONNX's i, o, f, c, and its r, z, n is z, r, h.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..models.modeling_recurrent import WEIGHT_NAMES, RecurrentBlock

if TYPE_CHECKING:
    import onnx

OPSET = 18
IR_VERSION = 9  # onnxruntime 1.17 (2024) and newer

GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}
OPERATORS = {"LSTM": "LSTM", "GRU": "GRU", "RNN_TANH": "RNN", "RNN_RELU": "RNN"}


def import_onnx():
    """The package `onnx`, or an error that says how to get it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError("Writing ONNX needs onnx: pip install 'hfseq[convert]'") from error
    return onnx


class Graph:
    """A graph under construction. Values are the names of tensors."""

    def __init__(self, name: str):
        self.onnx = import_onnx()
        self.name = name
        self.nodes, self.initializers, self.inputs, self.outputs = [], [], [], []
        self._count = 0

    def input(self, name: str, dtype: type, shape: tuple[int | str, ...]) -> str:
        """Declares an input; named dimensions are free."""
        self.inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: type, shape: tuple[int | str, ...]) -> None:
        """Declares `value` an output called `name`."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name]))
        self.outputs.append(self._value(name, dtype, shape))

    def constant(self, array) -> str:
        """A constant or a weight."""
        if isinstance(array, torch.Tensor):
            array = array.detach().cpu().float().numpy()
        name = self._name("c")
        self.initializers.append(self.onnx.numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes) -> str | tuple[str, ...]:
        """Adds a node; returns the name of its output, or a tuple of several."""
        names = [self._name(operator.lower()) for _ in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def linear(self, x: str, layer: nn.Linear) -> str:
        """x [..., in] -> [..., out]."""
        y = self.add("MatMul", x, self.constant(layer.weight.t()))
        return y if layer.bias is None else self.add("Add", y, self.constant(layer.bias))

    def embedding(self, ids: str, layer: nn.Embedding) -> str:
        """ids [...] -> [..., width]."""
        return self.add("Gather", self.constant(layer.weight), ids)

    def floats(self, x: str) -> str:
        return self.add("Cast", x, to=self.onnx.TensorProto.FLOAT)

    def lengths(self, attention_mask: str) -> str:
        """attention_mask [batch, time], padded on the right -> int32 [batch]."""
        total = self.add("ReduceSum", attention_mask, self.integers(1), keepdims=0)
        return self.add("Cast", total, to=self.onnx.TensorProto.INT32)

    def block(
        self, block: RecurrentBlock, x: str, lengths: str = "", states: tuple[str, ...] = ()
    ) -> tuple[str, list[str], tuple[str, ...]]:
        """A block of recurrent layers.

        Args:
            x: [time, batch, in].
            lengths: int32 [batch], or "" where all rows are of full length.
            states: [layers * directions, batch, hidden] each, or none for zeros.

        Returns:
            output [time, batch, directions * hidden], zero beyond a row's length; every layer's; the final states.
        """
        ways, width = block.directions, block.hidden_size
        parts = [self._split(state, block.num_layers) for state in states]
        outputs, finals = [], []
        for layer in range(block.num_layers):
            given = tuple(part[layer] for part in parts)
            x, *final = self._layer(block, layer, x, lengths, given)
            # [time, directions, batch, hidden] -> [time, batch, directions * hidden]
            x = self.add("Transpose", x, perm=[0, 2, 1, 3])
            x = self.add("Reshape", x, self.integers(0, 0, ways * width))
            outputs.append(x)
            finals.append(final)
        if block.num_layers == 1:
            return x, outputs, tuple(finals[0])
        return x, outputs, tuple(self.add("Concat", *parts, axis=0) for parts in zip(*finals, strict=True))

    def _layer(self, block: RecurrentBlock, layer: int, x: str, lengths: str, states: tuple[str, ...]):
        ways = ("", "_reverse") if block.bidirectional else ("",)
        weights = {
            name: torch.stack([getattr(block.rnn, f"{name}_l{layer}{way}") for way in ways])
            for name in WEIGHT_NAMES
        }
        weights = {name: _reordered(w, block.mode) for name, w in weights.items()}
        bias = torch.cat([weights["bias_ih"], weights["bias_hh"]], dim=1)
        attributes = {
            "hidden_size": block.hidden_size,
            "direction": "bidirectional" if block.bidirectional else "forward",
        }
        if block.mode == "GRU":
            attributes["linear_before_reset"] = 1  # the reset gate as in cuDNN and torch
        if block.mode.startswith("RNN"):
            attributes["activations"] = [block.mode[4:].capitalize()] * len(ways)
        inputs = [x, *(self.constant(w) for w in (weights["weight_ih"], weights["weight_hh"], bias)), lengths]
        return self.add(
            OPERATORS[block.mode], *inputs, *states, outputs=1 + block.state_tensors, **attributes
        )

    def _split(self, state: str, layers: int) -> tuple[str, ...]:
        if layers == 1:
            return (state,)
        return self.add("Split", state, outputs=layers, axis=0, num_outputs=layers)

    def save(self, path: Path) -> onnx.ModelProto:
        """Checks the graph and writes it."""
        graph = self.onnx.helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, self.initializers
        )
        opsets = [self.onnx.helper.make_opsetid("", OPSET)]
        model = self.onnx.helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hfseq"
        )
        self.onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.onnx.save(model, path)
        return model

    def _value(self, name: str, dtype: type, shape: tuple[int | str, ...]):
        kind = {float: self.onnx.TensorProto.FLOAT, int: self.onnx.TensorProto.INT64}[dtype]
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"


def _reordered(weight: torch.Tensor, mode: str) -> torch.Tensor:
    """[directions, gates * hidden, ...] with the gates in ONNX's order."""
    gates = weight.detach().chunk(len(GATES[mode]), dim=1)
    return torch.cat([gates[i] for i in GATES[mode]], dim=1)
