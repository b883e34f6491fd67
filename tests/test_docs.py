"""The pages of docs/: their commands and code run, in their order, made small where a comment of the page says so.

    <!-- test: OLD => NEW -->       in this page's blocks OLD is replaced; it must stand in one
    <!-- test: skip WORDS -->       the block that holds WORDS is not run (another page's, or the network's)
    <!-- test: needs FOLDER -->     a folder of the benchmark data that the page reads
    <!-- test: first COMMAND -->    what the page takes as given is made by this command

Blocks in `bash` and `python` are run, those in `text` and `yaml` are to be read. docs/deploy.md has a test of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hfseq.__main__ import COMMANDS
from hfseq.recipe import packaged_recipes

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(
    page.relative_to(DOCS).as_posix()
    for page in DOCS.rglob("*.md")
    if "_build" not in page.parts and "reference" not in page.parts
)
# Run by tests of their own: a Hub on loopback, launchers of several processes.
ELSEWHERE = {"deploy.md", "cluster.md"}
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


class Page:
    """A page's blocks, as they are run."""

    def __init__(self, name: str):
        text = (DOCS / name).read_text(encoding="utf-8")
        notes = re.findall(r"^<!-- test: (.*?) -->$", text, flags=re.MULTILINE)
        self.needs = [note.removeprefix("needs ") for note in notes if note.startswith("needs ")]
        skipped = [note.removeprefix("skip ") for note in notes if note.startswith("skip ")]
        self.before = [note.removeprefix("first ") for note in notes if note.startswith("first ")]
        smaller = [note.split(" => ", 1) for note in notes if " => " in note]
        self.blocks = BLOCK.findall(text)
        for words in [*skipped, *(old for old, _ in smaller)]:
            assert any(words in code for _, code in self.blocks), f"{name} no longer says {words!r}"
        self.blocks = [block for block in self.blocks if not any(words in block[1] for words in skipped)]
        for old, new in smaller:
            self.blocks = [(language, code.replace(old, new)) for language, code in self.blocks]


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_says_is_there(name):
    """Python parses, commands and packaged recipes exist, links lead somewhere."""
    text = (DOCS / name).read_text(encoding="utf-8")
    Page(name)
    for language, code in BLOCK.findall(text):
        if language == "python":
            compile(code, name, "exec")
            continue
        for command, word in re.findall(
            r"^(?:torchrun .*-m )?hfseq (\w+)(?: ([\w-]+))?", code, flags=re.MULTILINE
        ):
            assert command in COMMANDS, f"{name}: hfseq {command}"
            if command == "pretrain" and word:
                assert word in packaged_recipes(), f"{name}: hfseq pretrain {word}"
    for target in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (DOCS / name).parent.joinpath(target).exists(), f"{name}: no {target}"
    for path in re.findall(r"`((?:hfseq|scripts|tests|docs|model_cards)/[\w./-]+)`", text):
        assert (DOCS.parent / path).exists(), f"{name}: no {path}"


@pytest.fixture
def folder(tmp_path, monkeypatch, commands_in):
    """A folder with small texts of every kind that the pages read, and `hfseq` and `python` on the path."""
    chapters = [
        "\n".join(f"And in year {year} the king of the {n}th city did what was good." for year in range(12))
        for n in range(60)
    ]
    (tmp_path / "verses.txt").write_text("\n\n".join(chapters), encoding="utf-8")
    numbers = ["one eins", "two zwei", "three drei", "four vier", "five fünf", "six sechs"]
    things = ["dogs Hunde", "cats Katzen", "birds Vögel", "men Männer", "houses Häuser"]
    pairs = [
        f"Here are {n} {t} and {o}.\tHier sind {nn} {tt} und {oo}."
        for n, nn in map(str.split, numbers)
        for t, tt in map(str.split, things)
        for o, oo in map(str.split, things)
    ]
    (tmp_path / "pairs.tsv").write_text("\n".join(pairs), encoding="utf-8")
    films = [
        f"{word} film number {n}\t{label}" for n in range(12) for word, label in (("a good", 1), ("a bad", 0))
    ]
    for side in ("train", "dev", "test"):
        (tmp_path / f"{side}.tsv").write_text("\n".join(["text\tlabel", *films]), encoding="utf-8")
        films = [line.replace("number", f"of {side}") for line in films]
    monkeypatch.setenv("PATH", f"{commands_in(tmp_path)}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    monkeypatch.setenv("HFSEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in PAGES if name not in ELSEWHERE and Page(name).blocks])
def test_the_blocks_run(name, folder, request, monkeypatch):
    page = Page(name)
    for need in page.needs:
        data = request.getfixturevalue("shared_data")
        if not (data / need).is_dir():
            pytest.skip(f"no {need} in the benchmark data")
        monkeypatch.setenv("HFSEQ_DATA", str(data))
    for command in page.before:
        run(shlex.split(command), folder)
    for number, (language, code) in enumerate(page.blocks):
        if language == "bash":
            run(["bash", "-euo", "pipefail", "-c", code], folder)
        else:
            file = folder / f"block{number}.py"
            file.write_text(code, encoding="utf-8")
            run(["python", file.name], folder)


@pytest.mark.long
def test_the_site_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        pytest.importorskip(package, reason="pip install 'hfseq[docs]'")
    run(
        [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)],
        tmp_path,
    )
    assert "LSTMForCausalLM" in (tmp_path / "reference/models.html").read_text(encoding="utf-8")
