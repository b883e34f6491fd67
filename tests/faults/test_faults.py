"""The short form of `make faults`: runs as a user starts them, killed, and started late."""

from __future__ import annotations

import importlib.util
import sys

import pytest


@pytest.fixture(scope="module")
def faults(repository):
    spec = importlib.util.spec_from_file_location("faults", repository / "scripts" / "faults.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["faults"]


def test_killed_in_a_save_and_told_to_stop(faults, capsys):
    faults.main(["--short", "--only", "kills"])
    printed = capsys.readouterr().out
    assert printed.count("  equal\n") == 2, printed


@pytest.mark.long
def test_processes_that_come_late(faults, capsys):
    faults.main(["--only", "starts", "--objectives", "causal", "--processes", "2", "--count", "1"])
    assert capsys.readouterr().out.count("  equal\n") == 1


def test_what_is_not_survived_is_told(faults, monkeypatch):
    rows = [("causal", 1, "SIGKILL", "equal"), ("causal", 1, "SIGKILL", "FAILED: other weights")]
    monkeypatch.setattr(faults, "faults", lambda arguments, root: iter(rows))
    with pytest.raises(SystemExit, match="1 of 2 faults were not survived"):
        faults.main([])


def test_a_stopped_table_goes_on_where_it_was(faults, monkeypatch, tmp_path):
    """Outcomes are written as they come; what has one is not done again, and the table has all of them."""
    done = []

    def faults_of(kind, case, arguments):
        for number in range(3):

            def do(draw, number=number):
                if number == stop_at:
                    raise KeyboardInterrupt
                done.append(number)
                return "equal" if number else "refused: damaged"

            yield "full disk", do

    monkeypatch.setattr(faults, "faults_of", faults_of)
    monkeypatch.setattr(faults, "undisturbed", lambda case: True)
    words = [
        "--folder",
        str(tmp_path / "runs"),
        "--only",
        "disks",
        "--objectives",
        "causal",
        "--processes",
        "1",
    ]
    words += ["--table", str(tmp_path / "table.md")]
    stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        faults.main(words)
    assert not (tmp_path / "table.md").exists()
    stop_at = None
    faults.main(words)
    assert done == [0, 1, 2]
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| causal | 1 | full disk | 3 | 2 | 1 | 0 |" in table and "torch" in table
