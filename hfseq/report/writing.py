"""The whole: what is missing is measured, and the page written now and then, and at the end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..hints import nearest_hint
from ..plots.figure import require_matplotlib
from .experiment import Context, Experiment
from .page import write_page
from .runner import begin, measure
from .scales import scale_named
from .translators import given


def write_report(
    directory: Path,
    experiments: Mapping[str, Experiment],
    *,
    scale: str = "cpu",
    only: Sequence[str] = (),
    seeds: int | None = None,
    models: Sequence[Path] = (),
    progress: bool = True,
) -> Path:
    """Measures and writes DIRECTORY/index.html, numbers.json and one CSV a figure.

    Args:
        directory: what was measured there before is kept; only what is missing is measured.
        experiments: by name, in the order of the page.
        scale: "cpu", "gpu" or "tiny".
        only: names of experiments to run; the page shows all that there is. Empty: all.
        seeds: None: the scale's.
        models: trained runs, what `hfseq pretrain` and `hfseq finetune` wrote.
        progress: a bar on standard error.

    Returns:
        the page.

    Raises:
        ValueError: an unknown scale or experiment, seeds below 1, a directory with a report of another scale.
        OSError, ModuleNotFoundError: what cannot be written or read, or is not installed.
    """
    require_matplotlib()
    sizes = scale_named(scale)
    seeds = sizes.seeds if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1, not {seeds}.")
    for name in only:
        if name not in experiments:
            hint = nearest_hint(name, experiments)
            raise ValueError(
                f"--only {name}: there is no such experiment.{hint} Known: {', '.join(experiments)}."
            )
    context = Context(directory, sizes, seeds, tuple(models))
    names = [run.name for run in given(context)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"--models has two runs of the name {sorted(twice)[0]}: rename one of the directories."
        )
    _check_device(sizes.device)
    facts = begin(context)
    command = _command(directory, scale, seeds, models)
    everything = list(experiments.values())

    def page() -> Path:
        return write_page(everything, context, facts, command)

    measure([experiments[name] for name in only] or everything, context, after_some=page, progress=progress)
    return page()


def _check_device(device: str) -> None:
    from ..accelerators import available_accelerator

    there = available_accelerator()
    if device == "cuda" and (there is None or there.type != "cuda"):
        raise ValueError("--scale gpu needs a GPU that torch can use, and there is none: take --scale cpu.")


def _command(directory: Path, scale: str, seeds: int, models: Sequence[Path]) -> str:
    """As a reader may type it again: directories by their names, for where they lie is the writer's matter."""
    words = ["hfseq", "compare", "--report", directory.name, "--scale", scale, "--seeds", str(seeds)]
    if models:
        words += ["--models", *(path.resolve().name for path in models)]
    return shlex.join(words)


__all__ = ["write_report"]
