"""Contract 7, second half: `torch.compile` gives what eager gives.

The family's heads share one subprocess, because the compiler keeps everything it ever compiled. Backend "aot_eager"
traces and differentiates as inductor does without generating code, which costs a minute per model here; inductor runs
in the full matrix (HFSEQ_COMPILE_BACKEND).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence

import torch

from .cases import Case
from .comparing import FLOAT64, gradients, require_close, require_close_gradients
from .sources import find_cases
from .subprocesses import run_python
from .violation import run_checks

LENGTHS = [2, 1]  # a decoder's steps are unrolled, and the compiler reads each


def contract(cases: Sequence[Case], source: str) -> None:
    """`source` is where the subprocess finds the cases, as `find_cases` reads it."""
    with tempfile.TemporaryDirectory() as directory:
        run_python(["-m", __name__, source, *(case.name for case in cases)], directory, seconds=900)


def compiled_equals_eager(case: Case) -> None:
    torch.compiler.reset()
    backend = os.environ.get("HFSEQ_COMPILE_BACKEND", "aot_eager")
    model = case.model(FLOAT64)
    compiled = torch.compile(model, backend=backend)
    batch = case.batch(case.rows(model.config, LENGTHS), model.config)
    expected = case.outputs(model, batch)
    for name, value in case.outputs(compiled, batch).items():
        require_close(f"{name}, compiled with {backend}", value, expected[name], FLOAT64.tolerance)
    if not case.kind.labels:
        return
    model.train()
    results = []
    for candidate in (model, compiled):
        loss = candidate(**batch).loss
        loss.backward()
        results.append((loss, gradients(model)))
    (eager, eager_gradients), (loss, got) = results
    require_close(f"training loss, compiled with {backend}", loss, eager, FLOAT64.tolerance)
    require_close_gradients(f"compiled with {backend}", got, eager_gradients, FLOAT64.tolerance)


def main(source: str, *names: str) -> None:
    torch.set_num_threads(1)
    for case in find_cases(source, names):
        run_checks(case, compiled_equals_eager)


if __name__ == "__main__":
    main(*sys.argv[1:])
