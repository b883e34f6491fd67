"""Work in the middle of a training that draws random numbers without changing those that training draws."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def forked_random_state(device: torch.device) -> AbstractContextManager:
    """A context after which torch's random state, the CPU's and that of `device`, is as it was before."""
    if device.type == "cpu":
        return torch.random.fork_rng([])
    return torch.random.fork_rng([device], device_type=device.type)
