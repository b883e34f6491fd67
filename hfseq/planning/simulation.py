"""One update without data: the real model, loss, backward pass and optimiser, on tensors without content.

PyTorch's `FakeTensorMode` runs every operation for its shapes alone, so a model of any size costs neither memory nor
arithmetic, and no formula has to be kept in step with the models: what is counted is what they do. Three things are
counted as the operations go by:

- memory: bytes of all storages that are alive at once, from when they are made until they die;
- arithmetic: multiplications and additions of matrix products, convolutions, attention and recurrent layers (two
  operations per multiply-add), the convention of Kaplan et al. 2020;
- traffic: bytes that all other operations read and write, none of them fused.

What PyTorch's shapes leave out is added here: the workspace in which a fused LSTM layer keeps its gates for the
backward pass, its arithmetic, and that of attention on a CPU. For every family the peak is within 4% of what torch's
allocator records of a real update (tests/planning); of a recurrent layer cuDNN keeps less than oneDNN, which is asked.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


@dataclass
class Work:
    """What one micro-batch and one update take on one device."""

    parameter_bytes: int
    """Weights and buffers."""
    gradient_bytes: int
    optimizer_bytes: int
    """What the optimiser keeps between updates."""
    peak_bytes: int
    """Most that is alive at once: all of the above, what is kept for the backward pass, and what comes and goes."""
    flops: int
    """Of one micro-batch, forward and backward."""
    optimizer_flops: int
    bytes_moved: int
    """Of one micro-batch: read and written by operations that multiply no matrices."""
    operations: int
    """Of one micro-batch: what a GPU has to be told one by one."""
    recurrent_steps: int
    """Steps of recurrent layers that wait for the step before, forward; the backward pass has as many."""
    optimizer_bytes_moved: int
    optimizer_operations: int
    parameters: int
    largest_module_bytes: int
    """Of the largest module that is gathered whole where weights are sharded."""

    @property
    def activation_bytes(self) -> int:
        """What an update needs beside weights, gradients and the optimiser's memory."""
        return self.peak_bytes - self.parameter_bytes - self.gradient_bytes - self.optimizer_bytes


def simulate(
    make_model: Callable[[], nn.Module],
    batch: Mapping[str, torch.Tensor],
    *,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    autocast: torch.dtype | None = None,
    gradient_checkpointing: bool = False,
) -> Work:
    """Counts one update.

    Args:
        make_model: called where tensors have no content; no weights are drawn or loaded.
        batch: what the model is given, with labels; of numbers that are not whole only shapes and types are read.
        make_optimizer: None: the gradients are left as they are.
        autocast: the type in which matrix products are computed (`bf16`); None: that of the weights.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.

    Raises:
        ValueError: the model computes no loss from the batch, or looks at what its tensors hold, which have nothing.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as shapes, _Counting() as counting:
        model = make_model().train()
        if gradient_checkpointing:
            model.gradient_checkpointing_enable()  # type: ignore[operator]  # of PreTrainedModel
        inputs = {
            name: shapes.from_tensor(value) if _has_no_content(value) else value
            for name, value in batch.items()
        }
        counting.see(value for value in inputs.values() if isinstance(value, torch.Tensor))
        optimizer = make_optimizer(model) if make_optimizer is not None else None
        try:
            _update(model, inputs, optimizer, autocast, counting)  # makes the optimiser's memory
            counting.begin_again()
            training, stepping = _update(model, inputs, optimizer, autocast, counting)
        except DataDependentOutputException as error:
            raise ValueError(
                f"{type(model).__name__} cannot be planned: its training looks at the values of its tensors "
                f"({error.func}), which a plan does not have."
            ) from error
        return Work(
            parameter_bytes=_bytes([*model.parameters(), *model.buffers()]),
            gradient_bytes=_bytes(p.grad for p in model.parameters() if p.grad is not None),
            optimizer_bytes=_bytes(_tensors_of(optimizer)) if optimizer is not None else 0,
            peak_bytes=counting.peak,
            flops=training.flops,
            optimizer_flops=stepping.flops,
            bytes_moved=training.moved,
            operations=training.operations,
            recurrent_steps=training.recurrent_steps,
            optimizer_bytes_moved=stepping.moved,
            optimizer_operations=stepping.operations,
            parameters=sum(p.numel() for p in model.parameters()),
            largest_module_bytes=_largest_module(model),
        )


@dataclass
class _Counts:
    flops: int = 0
    moved: int = 0
    operations: int = 0
    recurrent_steps: int = 0

    def __sub__(self, other: _Counts) -> _Counts:
        return _Counts(
            self.flops - other.flops,
            self.moved - other.moved,
            self.operations - other.operations,
            self.recurrent_steps - other.recurrent_steps,
        )


def _update(
    model: nn.Module, inputs: dict, optimizer: Any, autocast: torch.dtype | None, counting: _Counting
) -> tuple[_Counts, _Counts]:
    """One micro-batch, then the optimiser; what each took. Gradients stay until the next update begins, as Trainer
    leaves them."""
    start = counting.counts()
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        loss = getattr(model(**inputs), "loss", None)
    if loss is None:
        raise ValueError(f"{type(model).__name__} computes no loss from {', '.join(inputs)}.")
    loss.backward()
    del loss
    middle = counting.counts()
    if optimizer is not None:
        optimizer.step()
    return middle - start, counting.counts() - middle


class _Counting(TorchDispatchMode):
    """Counts memory, arithmetic and traffic of everything that happens inside.

    Whole numbers and masks keep their content: models look at lengths and borders on a CPU, and counting them costs
    nothing. An operation that reads no tensor without content and makes none is done for real.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()
        self._now = _Counts()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        out: Any
        if func is aten._pack_padded_sequence.default:
            out = _packed(*args)
        elif any(isinstance(x, FakeTensor) for x in read):
            out = func(*args, **kwargs)
        else:
            with unset_fake_temporarily():
                out = func(*args, **kwargs) if read or _makes_whole_numbers(func, args, kwargs) else None
            if out is None or any(map(_has_no_content, tree_leaves(out))):
                out = func(*args, **kwargs)
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.see(made)
        packet = func._overloadpacket
        flops = _flops(packet, args, kwargs, out)
        self._now.flops += flops
        if workspace := _WORKSPACES.get(packet):
            # Lives as long as the tensor by which the backward pass refers to it.
            self._count(made[-1].untyped_storage(), workspace(*args))
        if scratch := _SCRATCH.get(packet):
            self.peak = max(self.peak, self.live + scratch(*args))
        if packet in _STEPS:
            self._now.recurrent_steps += _STEPS[packet](*args)
        if not func.is_view and func not in _FREE:
            self._now.operations += 1
            if not flops:
                self._now.moved += sum(x.numel() * x.element_size() for x in (*read, *made))
        return out

    def counts(self) -> _Counts:
        """Since the beginning."""
        return _Counts(self._now.flops, self._now.moved, self._now.operations, self._now.recurrent_steps)

    def begin_again(self) -> None:
        """The peak from here on."""
        self.peak = self.live

    def see(self, tensors: Iterable[torch.Tensor]) -> None:
        """Counts their memory, each storage once, until it dies."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in self._known:
                self._known.add(key)
                self._count(storage, storage.nbytes(), key)

    def _count(self, storage: torch.UntypedStorage, size: int, key: int | None = None) -> None:
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, size, key)

    def _forget(self, size: int, key: int | None) -> None:
        self.live -= size
        self._known.discard(key)


def _packed(
    padded: torch.Tensor, lengths: torch.Tensor, batch_first: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """`pack_padded_sequence`, of whose result PyTorch knows no shape: the lengths have their content here."""
    with unset_fake_temporarily():
        steps = torch.arange(int(lengths[0]))  # sorted: the longest is the first
        batch_sizes, tokens = (lengths > steps.unsqueeze(1)).sum(1), int(lengths.sum())
    rows = padded.transpose(0, 1) if batch_first else padded
    return rows.flatten(0, 1)[:tokens].clone(), batch_sizes


def _has_no_content(value: Any) -> bool:
    """Whether it is a tensor that a plan needs no values of: of numbers that are not whole."""
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def _makes_whole_numbers(func: Any, args: Any, kwargs: dict) -> bool:
    """Of an operation that reads no tensor (arange, zeros, ...)."""
    dtype = kwargs.get("dtype")
    if dtype is None:
        return func._overloadpacket is aten.arange and not any(isinstance(x, float) for x in args)
    return not dtype.is_floating_point and not dtype.is_complex


def _flops(packet: Any, args: Any, kwargs: dict, out: Any) -> int:
    formula = _FLOPS.get(packet)
    if formula is not None:
        return formula(*args, **kwargs)
    # In place or not, a product is a product.
    formula = flop_registry.get(packet) or flop_registry.get(getattr(aten, packet.__name__.rstrip("_"), None))
    return formula(*args, **kwargs, out_val=out) if formula is not None else 0


def _recurrent_layer(
    inputs: torch.Tensor, weight_ih: torch.Tensor, weight_hh: torch.Tensor, *rest: Any
) -> int:
    positions = inputs.shape[0] * inputs.shape[1]
    return 2 * positions * (weight_ih.numel() + weight_hh.numel())


def _recurrent_layer_backward(*args: Any) -> int:
    return 2 * _recurrent_layer(*args)


def _workspace(*args: Any) -> int:
    """What oneDNN keeps of a layer for its backward pass: asked of it for one step and for two, for it grows by the
    step; of a layer wider than `_ASKED_WIDTH` for that width, for it grows with the width too."""
    inputs, states, rest = args[0], args[5:7], list(args[7:])
    steps, rows, width = inputs.shape
    hidden = states[0].shape[-1]
    asked = min(hidden, _ASKED_WIDTH)
    rest[3] = asked  # hidden_size
    with unset_fake_temporarily():
        inner = -(-width * asked // hidden)
        zeros = partial(torch.zeros, dtype=inputs.dtype)
        weights = [zeros(4 * asked, w) for w in (inner, asked)] + [zeros(4 * asked)] * 2
        state = zeros(rows, asked)
        first, second = (
            aten.mkldnn_rnn_layer(zeros(n, rows, inner), *weights, state, state, *rest)[3].nbytes
            for n in (1, 2)
        )
    return (first + (steps - 1) * (second - first)) * hidden // asked


def _scratch(inputs: torch.Tensor, weight_ih: torch.Tensor, weight_hh: torch.Tensor, *rest: Any) -> int:
    """What oneDNN takes during a layer's backward pass: the gradients of all gates, both matrices in its own layout and
    their gradients in it (measured: 4.1 values per state and step, and 4 matrices)."""
    positions = inputs.shape[0] * inputs.shape[1]
    values = positions * weight_hh.shape[0] + 2 * (weight_ih.numel() + weight_hh.numel())
    return values * inputs.element_size()


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **options: Any
) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *rest: Any,
    **options: Any,
) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


def _convolution_backward(
    grad: torch.Tensor, inputs: torch.Tensor, weight: torch.Tensor, *rest: Any, **options: Any
) -> int:
    """Of weights and inputs as much as the forward pass each: 2 x outputs x (channels of a group x kernel). (PyTorch's
    own formula forgets the groups.)"""
    wanted = sum(rest[-1][:2])
    return wanted * 2 * grad.numel() * weight[0].numel()


_FLOPS: dict[Any, Callable[..., int]] = {
    aten.mkldnn_rnn_layer: _recurrent_layer,
    aten.mkldnn_rnn_layer_backward: _recurrent_layer_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.convolution_backward: _convolution_backward,
}
_ASKED_WIDTH = 1024
_SCRATCH = {aten.mkldnn_rnn_layer_backward: _scratch}
_WORKSPACES = {aten.mkldnn_rnn_layer: _workspace}
_STEPS = {aten.mkldnn_rnn_layer: lambda inputs, *rest: inputs.shape[0]}
_FREE = frozenset({aten.detach.default, aten.alias.default})


def _bytes(tensors: Any) -> int:
    """Of all storages, each once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _tensors_of(optimizer: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(list(optimizer.state.values())) if isinstance(x, torch.Tensor)]


def _largest_module(model: nn.Module) -> int:
    """Bytes of the largest repeated block or embedding: what `fully_shard` gathers at a time."""
    sizes = [
        _bytes(child.parameters())
        for module in model.modules()
        for child in (module if isinstance(module, nn.ModuleList) else [])
    ]
    sizes += [_bytes(m.parameters()) for m in model.modules() if isinstance(m, nn.Embedding)]
    return max(sizes, default=_bytes(model.parameters()))


__all__ = ["Work", "simulate"]
