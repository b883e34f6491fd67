"""What "equal" means: every bit, or a relative difference of 1e-9 in float64 and of 1e-4 in float32.

Relative to the largest entry of the expected tensor: entry by entry, a logit that happens to be near zero would fail
models that are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .violation import ContractViolation, require


@dataclass(frozen=True)
class Precision:
    """A dtype to run in, and the largest relative difference that still counts as equal."""

    dtype: torch.dtype
    tolerance: float


FLOAT64 = Precision(torch.float64, 1e-9)
FLOAT32 = Precision(torch.float32, 1e-4)
PRECISIONS = (FLOAT64, FLOAT32)


def require_close(
    what: str, got: torch.Tensor, expected: torch.Tensor, tolerance: float, floor: float = 0.0
) -> None:
    """Raises unless two tensors agree.

    Args:
        what: named in the message.
        tolerance: largest allowed difference, relative to the largest entry of `expected`.
        floor: the least that the difference is divided by (for gradients that are zero but for rounding).

    A result that a model computes in float32 whatever its weights are (losses, in transformers) is held to 1e-6.
    """
    got, expected = got.detach(), expected.detach()
    if torch.float32 in (got.dtype, expected.dtype):
        tolerance = max(tolerance, 1e-6)
    require(
        got.shape == expected.shape, f"{what}: shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
    )
    if got.numel() == 0:
        return
    for name, tensor in (("got", got), ("expected", expected)):
        require(bool(torch.isfinite(tensor).all()), f"{what}: non-finite values in what was {name}")
    difference = (got.double() - expected.double()).abs()
    largest = float(difference.max())
    scale = max(float(expected.abs().max()), floor)
    if largest > tolerance * scale:
        index = [int(i) for i in torch.unravel_index(difference.argmax(), difference.shape)]
        relative = f"{largest / scale:.1e} relative" if scale else "expected zero"
        raise ContractViolation(
            f"{what}: differs by {largest:.3e} ({relative}, allowed {tolerance:.0e}) at {index}: "
            f"{float(got[tuple(index)]):.6g} instead of {float(expected[tuple(index)]):.6g}"
        )


def require_same_bits(
    what: str, got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Raises unless two dictionaries of tensors have the same keys, dtypes and bits."""
    missing, surplus = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    require(not missing and not surplus, f"{what}: lacks {missing}, has {surplus} in surplus")
    for name, value in expected.items():
        other = got[name]
        require(other.dtype == value.dtype, f"{what}: {name} is {other.dtype} instead of {value.dtype}")
        require(
            other.shape == value.shape,
            f"{what}: {name} has shape {tuple(other.shape)}, not {tuple(value.shape)}",
        )
        if not torch.equal(other, value):
            changed = int((other != value).sum())
            largest = float((other.detach().double() - value.detach().double()).abs().max())
            raise ContractViolation(
                f"{what}: {name} differs in {changed} of {value.numel()} entries, by up to {largest:.3e}"
            )


def require_same_tokens(what: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    """Raises unless two tensors of token ids are the same."""
    if got.shape != expected.shape or not torch.equal(got, expected):
        raise ContractViolation(f"{what}: tokens {got.tolist()} instead of {expected.tolist()}")


def require_close_gradients(
    what: str, got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], tolerance: float
) -> None:
    """Raises unless all gradients agree, each relative to its own size but at least 0.01 of the largest one."""
    require(
        got.keys() == expected.keys(),
        f"{what}: gradients of {sorted(got.keys() ^ expected.keys())} on one side only",
    )
    floor = 1e-2 * max((float(g.abs().max()) for g in expected.values()), default=0.0)
    for name, gradient in expected.items():
        require_close(f"{what}: gradient of {name}", got[name], gradient, tolerance, floor)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradients of a model by parameter name, cleared from the model."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found
