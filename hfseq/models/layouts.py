"""How weight matrices lie in memory while decoding on a CPU.

A step of decoding multiplies every matrix of the model by one row or a few, so that reading the matrices is most of
its time, and how they lie decides how fast they are read. PyTorch keeps them [out, in], row after row, and with one
row of input takes an inner product for each row of theirs. Against that, on one core and for matrices that no cache
holds (2048 x 512 to 16000 x 512, float32):

- one row of input: column after column, 1.6 to 1.9 times as fast;
- 5 rows: blocked, as oneDNN lays them out for itself, 1.5 to 2.1 times; 32 rows 1.2 to 1.7 times.

Below a megabyte the gain is nothing, or less: a call of oneDNN's operation costs 28 microseconds of its own.

`decoding()` says that many steps with the same weights are to come; inside it `linear` and `one_row_weight` use copies
in the better layout, made once as many products have been computed as a copy costs: a short decoding pays nothing.
Until the end they take as much memory as the matrices themselves. Nothing else in a model knows of it, and outside of
it everything is as PyTorch has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import nn

from .plain_layers import is_plain

# A copy costs as much as so many products gain by it (4 to 14, by the shape of the matrix).
PRODUCTS_OF_ONE_ROW = 10
PRODUCTS_OF_MORE_ROWS = 8
SMALLEST = 2**18
"""Elements of a matrix."""


class Layouts:
    """Copies of weights, each made when it begins to pay; they hold as long as the weights do not change."""

    def __init__(self) -> None:
        # By the weight's id: the weight itself, so that no other takes its id; uses so far; the copy.
        self._columns: dict[int, tuple[torch.Tensor, int, torch.Tensor | None]] = {}
        self._blocks: dict[int, tuple[torch.Tensor, int, torch.Tensor | None]] = {}

    def columns(self, weight: torch.Tensor) -> torch.Tensor:
        """The same matrix [out, in], in time column after column; of many uses in a row this is one."""
        copy = _use(self._columns, weight, PRODUCTS_OF_ONE_ROW, lambda w: w.t().contiguous().t())
        return weight if copy is None else copy

    def blocks(self, weight: torch.Tensor) -> torch.Tensor | None:
        """The matrix in oneDNN's layout, which only its own operations read; None until that pays."""
        return _use(self._blocks, weight, PRODUCTS_OF_MORE_ROWS, torch.ops.mkldnn._reorder_linear_weight)


def _use(
    copies: dict[int, tuple[torch.Tensor, int, torch.Tensor | None]],
    weight: torch.Tensor,
    enough: int,
    lay_out: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor | None:
    _, uses, copy = copies.get(id(weight), (weight, 0, None))
    if copy is None:
        if uses == enough:
            copy = lay_out(weight.detach())
        copies[id(weight)] = weight, uses + 1, copy
    return copy


_current: ContextVar[Layouts | None] = ContextVar("hfseq_layouts", default=None)


@contextmanager
def decoding() -> Iterator[None]:
    """Many steps with the same weights are to come: nobody changes any until the end. `generate()` does this itself.

    Whoever calls a model step by step may say so too:

        with decoding(), torch.no_grad():
            for token in tokens:
                output = model(token, past_key_values=cache, use_cache=True)
    """
    if _current.get() is not None:
        yield
        return
    before = _current.set(Layouts())
    try:
        yield
    finally:
        _current.reset(before)


def linear(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """The layer's output for x [..., in], by the fastest layout there is."""
    layouts = _layouts_for(x, layer.weight) if is_plain(layer) else None
    if layouts is None:
        return layer(x)
    if _is_one_row(x):
        return F.linear(x, layouts.columns(layer.weight), layer.bias)
    if not HAS_BLOCKS:
        return layer(x)
    blocks = layouts.blocks(layer.weight)
    if blocks is None:
        return layer(x)
    return torch.ops.mkldnn._linear_pointwise(x, blocks, layer.bias, "none", [], "")


def one_row_weight(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The matrix [out, in] to multiply x [..., in] by: where x is one row, in time a copy in another layout."""
    layouts = _layouts_for(x, weight) if _is_one_row(x) else None
    return weight if layouts is None else layouts.columns(weight)


def _layouts_for(x: torch.Tensor, weight: torch.Tensor) -> Layouts | None:
    if torch.compiler.is_compiling():
        return None
    layouts = _current.get()
    fits = (
        layouts is not None
        and type(weight) is nn.Parameter
        and weight.device.type == "cpu"
        and weight.dtype == x.dtype == torch.float32
        and weight.numel() >= SMALLEST
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
    )
    return layouts if fits else None


def _is_one_row(x: torch.Tensor) -> bool:
    return x.numel() == x.shape[-1]


# torch does not document the two operations: it may have others tomorrow.
HAS_BLOCKS = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
