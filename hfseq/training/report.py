"""What a finished run says of itself in numbers, and the machine that they were measured on."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any


def write_json(path: str | os.PathLike, content: dict[str, Any]) -> Path:
    """Writes JSON atomically: a reader sees the old file or the whole new one."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def describe_machine() -> dict[str, Any]:
    """Processor, cores, GPU and versions: what a time or a number was measured with."""
    import torch
    import transformers

    from .. import __version__

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": _accelerator_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hfseq": __version__,
    }


def peak_memory() -> int | None:
    """Most bytes of memory that this process has had at once; None: the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _accelerator_name() -> str | None:
    """Of the accelerator in use; Apple's has no name of its own."""
    import torch

    from ..accelerators import available_accelerator

    accelerator = available_accelerator()
    if accelerator is None:
        return None
    of_type = getattr(torch, accelerator.type, None)
    name = getattr(of_type, "get_device_name", None)
    return accelerator.type if name is None else name()


__all__ = ["describe_machine", "peak_memory", "write_json"]
