"""What the CPU can do that decides how a model computes on it."""

from __future__ import annotations

from typing import Any

import torch


def _capabilities() -> dict[str, Any]:
    """As torch knows them; older versions do not."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    return ask() if ask is not None else {}


def multiplies_bfloat16() -> bool:
    """Whether it has units for products of bfloat16 matrices (Intel's AMX, from Sapphire Rapids on)."""
    return bool(_capabilities().get("amx_bf16"))


def emulates_bfloat16() -> bool:
    """Whether it is known to have no instruction for bfloat16: training in it is slower than in float32."""
    found = _capabilities()
    return found.get("architecture") == "x86_64" and not (found.get("amx_bf16") or found.get("avx512_bf16"))


# Asked once: the answer stands in traced code.
CPU_MULTIPLIES_BFLOAT16 = multiplies_bfloat16()


def autocast_pays(device_type: str) -> bool:
    """Whether recurrent kernels follow autocast there.

    On a CPU with units for bfloat16 they gain as everything else does: forward and backward pass of a layer of 640, 64
    rows of 80 tokens, one core, LSTM 0.64 to 0.15 s, GRU 0.52 to 0.22, RNN 0.15 to 0.08. On others they are kept in
    float32: oneDNN has no LSTM in what is emulated.
    """
    return device_type != "cpu" or (
        CPU_MULTIPLIES_BFLOAT16 and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


__all__ = ["CPU_MULTIPLIES_BFLOAT16", "autocast_pays", "emulates_bfloat16", "multiplies_bfloat16"]
