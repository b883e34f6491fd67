"""Tensors of a published checkpoint, from a file that a stranger wrote: safetensors, or torch's pickle.

torch reads a pickle with `weights_only`, which calls no function that a pickle names but those that rebuild a tensor.
What it raises then, and what a damaged file of either kind raises, says nothing of the file and advises to switch the
protection off; here it is one error with the file's name.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

# What reading a damaged pickle of torch raises (found by damaging some at random), beside what pickle itself tells.
DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """{name: tensor} of a .safetensors file or of what torch.save wrote, on the CPU.

    Raises:
        ValueError: a pickle of anything but tensors and plain values (nothing of it is run), or a damaged file.
    """
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(
                f"{file} is not a whole safetensors file ({error}). Download or copy it again."
            ) from error
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(refusal(file)) from error
    except DAMAGE as error:
        raise ValueError(
            f"{file} is not a whole file of torch's: {type(error).__name__}. Download or copy it again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise ValueError(f"{file} holds no table of tensors: it is not the weights of a model.")
    return found


def refusal(file: Path | str) -> str:
    """What to say of a pickle that torch would not read: a file, or words for one."""
    return (
        f"{file} was not read: it is damaged, or holds more than tensors and plain values, and a pickle of anything "
        "else can run code. Take the checkpoint from where you trust it, in safetensors where there is a choice."
    )
