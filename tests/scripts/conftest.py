"""A small text, and scripts/pretrain.py as a function."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory with a small text of 40 documents."""
    documents = [
        "\n".join(f"And king {n} reigned {year} years in the city of {n * year % 7}." for year in range(1, 8))
        for n in range(40)
    ]
    (tmp_path / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pretrain(monkeypatch):
    """Calls the script's main with a command line."""
    spec = importlib.util.spec_from_file_location("pretrain", ROOT / "scripts/pretrain.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115 - nobody answers questions

    def run(*words: str, recipe: str = "lstm-kjv.yaml") -> None:
        path = recipe if "/" in recipe else ROOT / "scripts/recipes" / recipe
        monkeypatch.setattr(sys, "argv", ["pretrain.py", str(path), *words])
        module.main()

    return run
