"""Which accelerator there is: one place to ask."""

from __future__ import annotations

import torch


def available_accelerator() -> torch.device | None:
    """The accelerator of this machine, CUDA, Apple's, Intel's or another that torch knows; None: there is none.

    torch's own answer, unasked, is what it was *built* for: "cuda" for what `pip install torch` brings on Linux, on a
    machine without a GPU too, where the first use of it then ends in "Found no NVIDIA driver".
    """
    return torch.accelerator.current_accelerator(check_available=True)


__all__ = ["available_accelerator"]
