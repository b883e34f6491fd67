"""Whether a layer may be read in place of being called.

Reading a layer's matrix is often faster than calling the layer: the loss multiplies by it chunk by chunk
(`losses.py`), decoding keeps a copy in another layout (`layouts.py`), three projections become one product. But what
others hang on a layer takes effect only where the layer is called: forward and backward hooks (captum, NEFTune,
pruning), adapters and quantised layers (another class), parametrisations (another class too), `forward` replaced on
the instance (accelerate's offloading), quantised weights (another class of tensor). So: ask here first, and call a
layer that is not plain.
"""

from __future__ import annotations

from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.module import _has_any_global_hook

# Parameters without content (torch's FakeTensorMode) stand for plain ones.
_PLAIN = (nn.Parameter, FakeTensor)


def is_plain(layer: nn.Module, kind: type[nn.Module] = nn.Linear) -> bool:
    """Whether the layer is of this very class and computes what the class computes from parameters of its own."""
    return type(layer) is kind and not is_watched(layer) and type(layer.weight) in _PLAIN


def is_watched(layer: nn.Module) -> bool:
    """Whether calling the layer does more, or other, than its class does: hooks of any kind, or another `forward`."""
    return has_hooks(layer) or bool(_has_any_global_hook())


def has_hooks(layer: nn.Module) -> bool:
    """Whether somebody hung hooks, or another `forward`, on this very layer."""
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
    )
