"""From the forms of a model to the table that its card shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..measuring import Line, Report, take_turns
from .forms import Form


@dataclass
class Task:
    """What a model is served for, and how.

    Args:
        how: what was done, for the card: "Beam 5".
        forms: {name: form}, "torch" first.
        amounts: {unit: how many a turn makes}.
        peer: name of the form that the others are held against.
        speed_goals: {name of a form: how many times the peer's speed}.
        loss_goal: how much of the first quality any form may lose against torch.
        higher_is_better: of the first quality.
    """

    how: str
    forms: dict[str, Form]
    amounts: dict[str, int]
    peer: str = "torch"
    speed_goals: dict[str, float] = field(default_factory=dict)
    loss_goal: float | None = None
    higher_is_better: bool = True


def write_table(report: Report, task: Task) -> None:
    """Lines of speed and of lost quality, and in the facts the table for the card."""
    rows: dict[str, dict[str, Any]] = {
        name: {"form": name, **({} if form.size is None else {"bytes": form.size}), "speeds": {}}
        for name, form in task.forms.items()
    }
    for unit, amount in task.amounts.items():
        runs: dict[str, Callable[[], Any]] = {
            name: form.runs[unit] for name, form in task.forms.items() if unit in form.runs
        }
        times = take_turns(runs, report.settings)
        for name in runs:
            rows[name]["speeds"][unit] = amount / times[name].median(report.clock)
            if name != task.peer:
                title, goal = f"{name}, {unit}", task.speed_goals.get(name)
                size = task.forms[name].size
                note = "" if size is None else f"{size / 1e6:.1f} MB"
                report.compare(title, task.peer, unit, amount, times[name], times[task.peer], goal, note)
    for name, form in task.forms.items():
        if form.quality is not None:
            rows[name]["quality"] = form.quality()
    torchs: dict[str, float] = rows["torch"].get("quality", {})
    for name, row in rows.items():
        if name == "torch" or "quality" not in row:
            continue
        (measure, mine), *_ = row["quality"].items()
        lost = (torchs[measure] - mine) * (1 if task.higher_is_better else -1)
        line = Line(
            f"{name}: lost", "torch", mine, torchs[measure], measure, lost, task.loss_goal, at_least=False
        )
        report.add(line)
    report.facts["how"] = task.how
    report.facts["deployment"] = list(rows.values())
