"""What devices can do: peaks from their makers' data sheets, or measured on the spot for the device that is here.

A peak is not what a training reaches. `Device.matmul_share` and `traffic_share` say how much of it is assumed; no
number of this table has been measured by hfseq yet, except those of `measure_here`, and every prediction says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..accelerators import available_accelerator
from ..hints import nearest_hint

GB, TERA = 10**9, 10**12


@dataclass(frozen=True)
class Device:
    """One device.

    Rates are per second; memory is in bytes.
    """

    name: str
    memory: int
    flops: float
    """Peak of dense float32 matrix products (TF32 where the device has it)."""
    flops_16: float
    """Peak of dense bfloat16 matrix products (float16 where it has no bfloat16)."""
    bandwidth: float
    """Bytes from and to memory."""
    link: float
    """Bytes to other devices of its node, one way."""
    launch: float = 5e-6
    """Seconds until the next operation can begin: what the CPU needs to issue it."""
    recurrent_step: float = 1e-5
    """Seconds of one step of a recurrent layer, however small: each waits for the one before."""
    context: int = 600 * 1024**2
    """Bytes that the driver and its libraries take."""
    matmul_share: float = 0.6
    """Of the peak, in matrix products."""
    traffic_share: float = 0.75
    """Of the bandwidth, in all other operations."""
    measured: bool = False
    """Whether the rates were measured here; else they are the data sheet's."""


DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("h200", 141 * GB, 494 * TERA, 989 * TERA, 4.8 * TERA, 450 * GB),
        Device("h100", 80 * GB, 494 * TERA, 989 * TERA, 3.35 * TERA, 450 * GB),
        Device("a100-80gb", 80 * GB, 156 * TERA, 312 * TERA, 2.04 * TERA, 300 * GB),
        Device("a100-40gb", 40 * GB, 156 * TERA, 312 * TERA, 1.56 * TERA, 300 * GB),
        Device("l40s", 48 * GB, 183 * TERA, 362 * TERA, 0.86 * TERA, 32 * GB),
        Device("l4", 24 * GB, 60 * TERA, 121 * TERA, 0.3 * TERA, 32 * GB),
        Device("rtx4090", 24 * GB, 82.6 * TERA, 165 * TERA, 1.01 * TERA, 32 * GB),
        Device("rtx3090", 24 * GB, 35.6 * TERA, 71 * TERA, 0.94 * TERA, 16 * GB),
        Device("v100", 32 * GB, 15.7 * TERA, 125 * TERA, 0.9 * TERA, 150 * GB),
        Device("t4", 16 * GB, 8.1 * TERA, 65 * TERA, 0.32 * TERA, 16 * GB),
    )
}
"""{name: device}, without `here`."""


def find_device(name: str) -> Device:
    """The device of that name; "here" is what this machine has, measured now (about a second).

    Raises:
        ValueError: unknown; the nearest is named.
    """
    if name == "here":
        return measure_here()
    if name not in DEVICES:
        known = ("here", *DEVICES)
        raise ValueError(f"Unknown device {name!r}.{nearest_hint(name, known)} Known: {', '.join(known)}.")
    return DEVICES[name]


def measure_here() -> Device:
    """The accelerator of this machine, or its CPU with the threads that torch uses."""
    accelerator = available_accelerator()
    where = accelerator or torch.device("cpu")
    flops, flops_16 = (_matmul_rate(where, dtype) for dtype in (torch.float32, torch.bfloat16))
    cpu = accelerator is None
    return Device(
        name=f"{where.type} of this machine" + (f", {torch.get_num_threads()} threads" if cpu else ""),
        memory=_memory(where),
        flops=flops,
        flops_16=flops_16,
        bandwidth=_copy_rate(where),
        link=GB if cpu else 32 * GB,
        launch=2e-6 if cpu else 5e-6,
        recurrent_step=0.0 if cpu else 1e-5,
        context=0 if cpu else 600 * 1024**2,
        matmul_share=0.8,
        traffic_share=0.75,
        measured=True,
    )


def _matmul_rate(where: torch.device, dtype: torch.dtype) -> float:
    size = 512 if where.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=where).to(dtype) for _ in range(2))
    return 2 * size**3 / _fastest(where, lambda: left @ right)


def _copy_rate(where: torch.device) -> float:
    block = torch.ones(2**24, device=where)  # 64 MB: no cache holds it
    target = torch.empty_like(block)
    return 2 * block.nbytes / _fastest(where, lambda: target.copy_(block))


def _fastest(where: torch.device, work: object, trials: int = 8) -> float:
    times = []
    for _ in range(trials):
        _wait(where)
        start = time.perf_counter()
        work()  # type: ignore[operator]
        _wait(where)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(where: torch.device) -> None:
    if where.type != "cpu":
        torch.accelerator.synchronize()


def _memory(where: torch.device) -> int:
    if where.type != "cpu":
        return int(torch.accelerator.get_memory_info()[1])
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


__all__ = ["DEVICES", "Device", "find_device", "measure_here"]
