"""scripts/time_to_quality.py: what is noted while a command runs, when a target counts as reached, what is kept."""

from __future__ import annotations

import importlib
import sys

import pytest

SCRIPT = """
import pathlib, time
out = pathlib.Path("out")
print("loss 3.0", flush=True)
for n in (1, 2):
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass
    (out / f"checkpoint-{n}").mkdir(parents=True)
    print(f"score {n / 2}", flush=True)
time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def quality(repository):
    sys.path.insert(0, str(repository / "scripts"))
    names = ("racing", "record", "drawing", "tasks")
    try:
        yield {name: importlib.import_module(f"benchmarks.quality.{name}") for name in names}
    finally:
        sys.path.remove(str(repository / "scripts"))


def contender(quality, tmp_path, script: str = SCRIPT, **options):
    (tmp_path / "train.py").write_text(script)
    return quality["racing"].Contender("it", [sys.executable, "train.py"], tmp_path, **options)


def test_checkpoints_are_noted_when_they_appear(quality, tmp_path):
    runner = contender(quality, tmp_path, checkpoints=tmp_path / "out")
    moments = quality["racing"].race(runner, tmp_path / "log.txt", limit=60)
    assert [moment.checkpoint for moment in moments] == ["checkpoint-1", "checkpoint-2"]
    assert 0.4 <= moments[0].seconds < moments[1].seconds
    assert moments[1].seconds >= 0.8 and moments[0].score is None
    assert "score 1.0" in (tmp_path / "log.txt").read_text()


def test_printed_scores_are_taken_from_the_lines(quality, tmp_path):
    def printed(line: str) -> float | None:
        return float(line.split()[1]) if line.startswith("score") else None

    runner = contender(quality, tmp_path, printed=printed)
    moments = quality["racing"].race(runner, tmp_path / "log.txt", limit=60)
    assert [moment.score for moment in moments] == [0.5, 1.0]


def test_a_command_that_fails_says_what_it_said(quality, tmp_path):
    runner = contender(quality, tmp_path, "raise SystemExit('no such corpus')", checkpoints=tmp_path / "out")
    with pytest.raises(RuntimeError, match="it ended with 1(?s:.*)no such corpus"):
        quality["racing"].race(runner, tmp_path / "log.txt", limit=60)


def test_a_command_that_leaves_nothing_is_told(quality, tmp_path):
    with pytest.raises(RuntimeError, match="left nothing to score"):
        quality["racing"].race(
            contender(quality, tmp_path, "pass", checkpoints=tmp_path / "out"), tmp_path / "log.txt", limit=60
        )


def test_a_command_is_stopped_at_the_limit(quality, tmp_path):
    script = SCRIPT + "\nwhile True: pass\n"
    runner = contender(quality, tmp_path, script, checkpoints=tmp_path / "out")
    assert len(quality["racing"].race(runner, tmp_path / "log.txt", limit=1.5)) == 2


CURVE = [{"seconds": 10.0, "score": 4.0}, {"seconds": 20.0, "score": 3.0}, {"seconds": 30.0, "score": 2.0}]


@pytest.mark.parametrize(
    ("target", "lower", "seconds"),
    [
        (4.0, True, 10.0),
        (3.5, True, 15.0),
        (2.0, True, 30.0),
        (1.9, True, None),
        (5.0, True, 10.0),
        (4.1, False, None),
    ],
)
def test_when_a_target_is_reached(quality, target, lower, seconds):
    assert quality["record"].reached(CURVE, target, lower) == seconds


def test_higher_scores_may_be_better(quality):
    rising = [{"seconds": point["seconds"], "score": -point["score"]} for point in CURVE]
    assert quality["record"].reached(rising, -3.5, False) == 15.0


def test_summary(quality, tmp_path):
    def run(rate: float, *scores: float) -> dict:
        return {
            "rate": rate,
            "curve": [{"seconds": 10.0 * (i + 1), "score": s} for i, s in enumerate(scores)],
        }

    sides = {"ours": [run(1.0, 2.0, 1.0)], "peer": [run(1.0, 4.0, 3.0), run(2.0, 3.0, 2.5, 2.0)]}
    found = quality["record"].summary(sides, "ours", True)
    assert found["targets"] == [
        {"score": 2.0, "seconds": {"ours": 10.0, "peer": 30.0}, "times": {"peer": 3.0}}
    ]
    assert found["tried"] == {"ours": {"1": 1.0}, "peer": {"1": 3.0, "2": 2.0}}
    unreached = quality["record"].summary(sides, "ours", True, targets=(1.5,))["targets"][0]
    assert unreached["seconds"]["peer"] is None and unreached["times"] == {"peer": None}
    pytest.importorskip("matplotlib")
    task = {"ours": "ours", "title": "t", "unit": "u", **found}
    quality["drawing"].draw({"one": task, "two": task}, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").stat().st_size > 1000


def test_the_language_model_of_the_examples(quality, tmp_path):
    """Its perplexity becomes bits per byte of the same tokens."""
    task = quality["tasks"].WordLanguageModel(tmp_path, tmp_path)
    array = type("Array", (), {"tokens": range(100), "n_bytes": 400})()
    task.__dict__["objective"] = type("Objective", (), {"arrays": {"validation": array}})()
    line = "| end of epoch   1 | time: 12.00s | valid loss  2.77 | valid ppl    16.00\n"
    assert task._printed(line) == pytest.approx(4 * 100 / 400)
    assert task._printed("| epoch   1 |   200/  100 batches | loss  9.0 | ppl  900.0") is None
