"""Measures what has not been measured yet. Each measurement becomes a file, DIRECTORY/data/EXPERIMENT/KEY.json, when it
is made; a run that was killed goes on after the last of them, and the page is written again every few minutes.

Everything with the first seed comes before anything with the second, so that the page is soon complete and its
intervals become narrower as the run goes on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from ..data.tables import read_json
from ..training.report import describe_machine, write_json
from .experiment import Context, Experiment, Measurement, Result

PAGE_EVERY, PAGE_SHARE = 300.0, 20
"""Seconds between two writings of the page; and not before twenty times as long as one took, on a machine with much
else to do."""


def begin(context: Context) -> dict[str, Any]:
    """The report's own file: of which scale it is, on what machine. Made at the first call.

    Raises:
        ValueError: the directory holds a report of another scale.
        NotADirectoryError, PermissionError: it cannot be made.
    """
    context.data.mkdir(parents=True, exist_ok=True)
    file = context.data / "report.json"
    if file.is_file():
        known = read_json(file)
        if known.get("scale") != context.scale.name:
            raise ValueError(
                f"--report {context.directory} holds a report of --scale {known.get('scale')}, not of "
                f"{context.scale.name}: name another directory, or the same scale."
            )
    else:
        known = {"scale": context.scale.name, "machine": describe_machine()}
    known["seeds"] = max(context.seeds, known.get("seeds", 0))
    write_json(file, known)
    return known


def measure(
    experiments: Sequence[Experiment],
    context: Context,
    *,
    after_some: Callable[[], object] = lambda: None,
    progress: bool = True,
) -> None:
    """Makes all measurements of these experiments that have no file yet.

    Args:
        after_some: called now and then: it writes the page.
        progress: a bar on standard error, over measurements.
    """
    todo = [
        (experiment, measurement)
        for experiment in experiments
        if experiment.missing(context) is None
        for measurement in experiment.measurements(context)
    ]
    todo.sort(key=lambda pair: pair[1].round)  # stable: within a round in the order of the page
    written, pause = time.monotonic(), PAGE_EVERY
    with tqdm(
        total=len(todo), unit="measurement", disable=not progress, file=sys.stderr, dynamic_ncols=True
    ) as bar:
        for experiment, measurement in todo:
            bar.set_description(f"{experiment.name} {measurement.key}")
            _measure_once(experiment, measurement, context)
            bar.update(1)
            if time.monotonic() - written > pause:
                start = time.monotonic()
                after_some()
                written = time.monotonic()
                pause = max(PAGE_EVERY, PAGE_SHARE * (written - start))


def results_of(experiment: Experiment, context: Context) -> dict[str, Result]:
    """What has been measured so far, by key."""
    folder = context.data / experiment.name
    return {file.stem: read_json(file)["result"] for file in sorted(folder.glob("*.json"))}


def seconds_of(experiments: Sequence[Experiment], context: Context) -> float:
    """How long all measurements took together."""
    files = [file for e in experiments for file in (context.data / e.name).glob("*.json")]
    return sum(read_json(file)["seconds"] for file in files)


def _measure_once(experiment: Experiment, measurement: Measurement, context: Context) -> None:
    file = context.data / experiment.name / f"{measurement.key}.json"
    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    result = measurement.measure()
    if context.device != "cpu":
        torch.cuda.synchronize()
    content: Mapping[str, Any] = {
        "experiment": experiment.name,
        "key": measurement.key,
        "seconds": round(time.perf_counter() - start, 3),
        "result": json.loads(json.dumps(result)),
    }
    write_json(file, dict(content))


__all__ = ["begin", "measure", "results_of", "seconds_of"]
