"""What was measured, as JSON: of each task both sides' curves, the target, and the seconds until it is reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def reached(curve: Sequence[dict[str, float]], target: float, lower_is_better: bool) -> float | None:
    """Processor seconds until a curve first has the target: on the straight line between two of its points, for one
    side is looked at more often than the other. None: never."""
    sign = 1 if lower_is_better else -1
    before: dict[str, float] | None = None
    for point in curve:
        if sign * point["score"] <= sign * target:
            if before is None or before["score"] == point["score"]:
                return point["seconds"]
            share = (before["score"] - target) / (before["score"] - point["score"])
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None


def best_of(runs: Sequence[dict[str, Any]], lower_is_better: bool) -> dict[str, Any]:
    """The run whose best score is best."""
    return (min if lower_is_better else max)(runs, key=lambda run: best_score(run, lower_is_better))


def best_score(run: dict[str, Any], lower_is_better: bool) -> float:
    return (min if lower_is_better else max)(point["score"] for point in run["curve"])


def summary(
    sides: dict[str, Sequence[dict[str, Any]]],
    ours: str,
    lower_is_better: bool,
    targets: Sequence[float] = (),
) -> dict[str, Any]:
    """Of all sides' runs: each side's best, and of each target the seconds until it is reached.

    Args:
        sides: the runs by the name of the side, each with "rate" and "curve".
        ours: which of them is ours; the others are peers, one of them perhaps in another precision.
        targets: scores; by default there is one, the best score of the best peer.
    """
    best = {name: best_of(runs, lower_is_better) for name, runs in sides.items()}
    peers = {name: run for name, run in best.items() if name != ours}
    wanted = targets or [best_score(best_of(list(peers.values()), lower_is_better), lower_is_better)]
    return {
        "targets": [_target(score, best, ours, lower_is_better) for score in wanted],
        "best": best,
        "tried": {
            name: {f"{run['rate']:g}": best_score(run, lower_is_better) for run in runs}
            for name, runs in sides.items()
        },
    }


def _target(
    score: float, best: dict[str, dict[str, Any]], ours: str, lower_is_better: bool
) -> dict[str, Any]:
    """Seconds of each side until it has the score (None: never), and how many times as long as ours each peer takes."""
    seconds = {name: reached(run["curve"], score, lower_is_better) for name, run in best.items()}
    own = seconds[ours]
    times = {
        name: None if taken is None or own is None else taken / own
        for name, taken in seconds.items()
        if name != ours
    }
    return {"score": score, "seconds": seconds, "times": times}


__all__ = ["best_of", "best_score", "reached", "summary"]
