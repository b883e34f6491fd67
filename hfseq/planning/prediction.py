"""Memory per device and seconds per update, from what an update takes and what a device can do.

    seconds of a micro-batch = arithmetic / matrix rate + traffic / bandwidth + recurrent steps x their latency,
                               but at least operations x the time to issue one
    update                   = micro-batches + optimiser + the exchange of gradients, as far as nothing hides it

The exchange is a ring: each device sends 2 (n - 1) / n times the gradients (Patarasuk and Yuan 2009), or, where weights
are sharded, 3 (n - 1) / n times the weights (Zhao et al. 2023). Two thirds of a micro-batch are its backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .devices import Device
from .simulation import Work

STRATEGIES = ("ddp", "fsdp2")
# Devices of one node; beyond, gradients travel by the network.
NODE = 8
# Of what the links can do, in an exchange.
_LINK_SHARE = 0.7
# An allocator cannot use all of a device: pieces between the pieces.
_USABLE = 0.92


@dataclass
class Prediction:
    """What a run will take."""

    memory: dict[str, int]
    """Bytes per device, by what they are for."""
    fits: bool
    seconds: dict[str, float]
    """Of one update, by what they go to; they add up to `step_seconds`."""
    step_seconds: float
    tokens_per_second: float
    """Of all devices."""
    updates: int
    total_seconds: float
    limit: str
    """What takes most of an update, in words."""
    mfu: float
    """Arithmetic of the update over what the devices' peaks would allow in its time (Chowdhery et al. 2022)."""


def predict(
    works: Sequence[Work],
    heaviest: Work,
    device: Device,
    *,
    devices: int = 1,
    accumulation: int = 1,
    tokens_per_update: float,
    updates: int,
    sixteen_bits: bool = False,
    strategy: str = "ddp",
    network: float = 50e9,
) -> Prediction:
    """Puts the two together.

    Args:
        works: of typical micro-batches of one device; their mean counts.
        heaviest: of the micro-batch that needs most memory.
        devices: how many share an update.
        accumulation: micro-batches of a device per update.
        tokens_per_update: over all devices.
        sixteen_bits: whether matrix products are in bfloat16.
        strategy: "ddp" (each device has everything) or "fsdp2" (weights, gradients and the optimiser's memory divided).
        network: bytes per second between nodes, one way.

    Raises:
        ValueError: fewer than one device, an unknown strategy.
    """
    if devices < 1:
        raise ValueError(f"devices must be at least 1, not {devices}.")
    if strategy not in STRATEGIES:
        raise ValueError(f"Unknown strategy {strategy!r}: choose {' or '.join(STRATEGIES)}.")
    memory = _memory(heaviest, device, devices, strategy)
    rate = device.matmul_share * (device.flops_16 if sixteen_bits else device.flops)
    bandwidth = device.traffic_share * device.bandwidth
    mean = _mean(works)
    seconds = {
        "matrix products": accumulation * mean["flops"] / rate,
        "memory traffic": accumulation * mean["bytes_moved"] / bandwidth,
        "recurrent steps": accumulation * 2 * mean["recurrent_steps"] * device.recurrent_step,
        "optimiser": mean["optimizer_flops"] / rate + mean["optimizer_bytes_moved"] / bandwidth,
    }
    busy = sum(seconds.values())
    operations = accumulation * mean["operations"] + mean["optimizer_operations"]
    # The device waits where the next operation comes later than the last one ends.
    seconds["issuing operations"] = max(0.0, operations * device.launch - busy)
    link = _LINK_SHARE * (device.link if devices <= NODE else min(device.link, network))
    volume = heaviest.gradient_bytes * 2 if strategy == "ddp" else heaviest.parameter_bytes * 3 * accumulation
    hidden = 2 / 3 * (busy - seconds["optimiser"]) / accumulation
    seconds["exchange"] = max(0.0, volume * (devices - 1) / devices / link - hidden)
    step = sum(seconds.values())
    peak = device.flops_16 if sixteen_bits else device.flops
    flops = accumulation * mean["flops"] + mean["optimizer_flops"]
    return Prediction(
        memory=memory,
        fits=sum(memory.values()) <= _USABLE * device.memory,
        seconds=seconds,
        step_seconds=step,
        tokens_per_second=tokens_per_update / step,
        updates=updates,
        total_seconds=updates * step,
        limit=max(seconds, key=seconds.__getitem__),
        mfu=flops / step / peak,
    )


def _memory(work: Work, device: Device, devices: int, strategy: str) -> dict[str, int]:
    parts = {
        "weights": work.parameter_bytes,
        "gradients": work.gradient_bytes,
        "optimiser": work.optimizer_bytes,
        "activations": work.activation_bytes,
        "driver": device.context,
    }
    if devices == 1:
        return parts
    if strategy == "fsdp2":
        divided = {name: -(-parts[name] // devices) for name in ("weights", "gradients", "optimiser")}
        # The block at work and the one fetched ahead of it are whole.
        return {**parts, **divided, "gathered": 2 * work.largest_module_bytes}
    return {**parts, "buckets": work.gradient_bytes}


def _mean(works: Sequence[Work]) -> dict[str, float]:
    names = (
        "flops", "bytes_moved", "operations", "recurrent_steps", "optimizer_flops", "optimizer_bytes_moved",
        "optimizer_operations",
    )  # fmt: skip
    return {name: sum(getattr(work, name) for work in works) / len(works) for name in names}


__all__ = ["STRATEGIES", "Prediction", "predict"]
