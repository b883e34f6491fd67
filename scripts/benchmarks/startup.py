"""What `import hfseq` costs on top of torch and transformers."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from .measuring import REPOSITORY, Line, Report

HEAVY_MODULES = ("datasets", "evaluate", "sklearn", "matplotlib")


def import_cost(report: Report) -> None:
    """Seconds that `import hfseq` adds, in fresh processes."""
    report.section(import_line)


def import_line(report: Report) -> None:
    code = (
        "import json, sys, time, torch, transformers.modeling_utils\n"
        "wall, cpu = time.perf_counter(), time.process_time()\n"
        "import hfseq\n"
        "added = {'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu, 'before': cpu}\n"
        f"print(json.dumps({{**added, 'heavy': [name for name in {HEAVY_MODULES} if name in sys.modules]}}))\n"
    )
    command = [sys.executable, "-c", code]
    results = []
    for _ in range(2 if report.settings.quick else 7):
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    report.check(f"modules of {HEAVY_MODULES} that were imported", len(results[0]["heavy"]), 0)
    medians = {key: statistics.median(r[key] for r in results) for key in ("wall", "cpu", "before")}
    name, peer = "import hfseq: seconds more", "torch, transformers.modeling_utils"
    details = {"medians": medians, "processes": results}
    report.add(
        Line(name, peer, medians["cpu"], medians["before"], "s", medians["cpu"], 0.2, False, details=details)
    )
