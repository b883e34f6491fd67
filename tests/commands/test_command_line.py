"""`hfseq NAME`: the table of commands, their help, and what a terminal cannot show."""

from __future__ import annotations

import importlib
import io
import os
import runpy
import subprocess
import sys

import pytest

import hfseq.commands
from hfseq import __main__ as command_line
from hfseq.commands import console


def test_every_command_has_a_line_and_a_help(capsys):
    command_line.main(["--help"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {name for name, _ in lines} == set(command_line.COMMANDS)
    for name, line in lines:
        with pytest.raises(SystemExit) as raised:
            command_line.main([name, "--help"])
        printed = capsys.readouterr().out
        assert raised.value.code == 0 and printed.startswith(f"usage: hfseq {name}")
        assert line in " ".join(printed.split())


def test_an_unknown_command_is_told_the_nearest(capsys):
    for words, message in ((["evalute"], "Did you mean 'evaluate'?"), (["xyzzy"], "There are recipes, ")):
        with pytest.raises(SystemExit) as raised:
            command_line.main(words)
        assert raised.value.code == 2 and message in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        command_line.main([])
    assert raised.value.code == 2 and "usage: hfseq COMMAND" in capsys.readouterr().err


def test_as_a_module_and_by_the_launchers(repository, monkeypatch, capsys):
    done = subprocess.run(
        [sys.executable, "-m", "hfseq", "--help"], capture_output=True, text=True, cwd=repository
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: hfseq"), done.stderr
    monkeypatch.setattr(sys, "argv", ["check.py", "--help"])
    with pytest.raises(SystemExit) as raised:
        runpy.run_path(str(repository / "scripts/check.py"), run_name="__main__")
    assert raised.value.code == 0 and capsys.readouterr().out.startswith("usage: hfseq check")


def test_commands_ask_for_large_pages_unless_told_otherwise(monkeypatch):
    for before, after in ((None, "1"), ("0", "0")):
        monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
        if before is not None:
            monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", before)
        importlib.reload(hfseq.commands)
        assert os.environ["THP_MEM_ALLOC_ENABLE"] == after


def test_launchers_are_three_lines_under_the_old_names(repository):
    names = {"train_tokenizer": "tokenize", "push_to_hub": "push"}
    names |= {name: name for name in ("evaluate", "generate", "compare", "check", "convert")}
    for script, name in names.items():
        text = (repository / "scripts" / f"{script}.py").read_text()
        code = [line for line in text.splitlines() if line][1:]
        assert code == [f"from hfseq.commands.{name} import main", 'if __name__ == "__main__":', "    main()"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_that_the_terminal_does_not_have(run, language_model, monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    # not by `run`, which looks at standard output itself
    command_line.main(["generate", str(language_model), "--prompt", "ﬁ 王", "--max_new_tokens", "1"])
    sys.stdout.flush()
    assert raw.getvalue().startswith(b"? ?")


def test_a_mistake_is_one_line_and_a_fault_keeps_its_traceback(capsys):
    parser = console.CommandParser("test", "Words.")
    with pytest.raises(SystemExit) as raised, console.mistakes_told(parser):
        raise ValueError("--x 3: too many")
    assert raised.value.code == 2 and capsys.readouterr().err == "hfseq test: --x 3: too many\n"
    with pytest.raises(KeyError), console.mistakes_told(parser):
        raise KeyError("ours")


def test_a_path_is_what_the_user_means(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("RUNS", "/data/runs")
    assert str(console.path("~/a")) == "/home/me/a" and console.model_id("$RUNS/b") == "/data/runs/b"
    assert console.model_id("org/name") == "org/name"
