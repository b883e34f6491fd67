"""A list of layers that says of what class they are: to torch, and at run time, every element is some module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)

if TYPE_CHECKING:

    class LayerList(nn.ModuleList, Generic[Layer]):
        def __init__(self, modules: Iterable[Layer]) -> None: ...

        def __iter__(self) -> Iterator[Layer]: ...

        @overload
        def __getitem__(self, idx: slice) -> LayerList[Layer]: ...

        @overload
        def __getitem__(self, idx: int) -> Layer: ...

        def __getitem__(self, idx: int | slice) -> Layer | LayerList[Layer]: ...
else:
    LayerList = nn.ModuleList
