"""What a finished run leaves behind beside the weights: a summary in numbers and a loss curve."""

from __future__ import annotations

import json
import os
import platform
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
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hfseq": __version__,
    }


def plot_loss_curve(log_history: list[dict[str, Any]], path: str | os.PathLike, title: str) -> Path | None:
    """Draws training and validation loss against updates as a PNG.

    Args:
        log_history: `trainer.state.log_history`.

    Returns:
        The path, or None where matplotlib is not installed (`pip install hfseq[report]`).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    training = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    validation = [(entry["step"], entry["eval_loss"]) for entry in log_history if "eval_loss" in entry]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    if training:
        axes.plot(
            *zip(*training, strict=True), color="tab:blue", linewidth=1.2, label="training (with dropout)"
        )
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color="tab:orange", markersize=4, label="validation")
        step, loss = min(validation, key=lambda pair: pair[1])
        axes.annotate(
            f"{loss:.3f}", (step, loss), textcoords="offset points", xytext=(0, -14), ha="center", fontsize=8
        )
    axes.set_xlabel("updates")
    axes.set_ylabel("cross-entropy per token [nats]")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if training or validation:
        axes.legend()
    path = Path(path)
    figure.savefig(path, dpi=140)
    return path
