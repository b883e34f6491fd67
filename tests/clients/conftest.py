"""A test with the argument `case` runs once for each cell of its row in cells.yaml, the row of its function's name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import random
import re
from pathlib import Path

import pytest
import yaml

from hfseq.contracts import CASES
from hfseq.contracts.clients import tokenizer_of
from hfseq.contracts.comparing import FLOAT32

ROWS = yaml.safe_load((Path(__file__).parent / "cells.yaml").read_text(encoding="utf-8"))
BY_NAME = {case.name: case for case in CASES}


def pytest_configure(config):
    """Knows the markers of transformers' own tests, where they are run (test_transformers_common.py)."""
    source = os.environ.get("HFSEQ_TRANSFORMERS_SOURCE")
    if not source:
        return
    names = ("test_modeling_common", "generation/test_utils", "exporters/test_export")
    files = [Path(source) / "tests" / f"{name}.py" for name in names]
    files.append(Path(importlib.util.find_spec("transformers").origin).with_name("testing_utils.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    for marker in {name for text in texts for name in re.findall(r"mark\.(\w+)", text)}:
        config.addinivalue_line("markers", f"{marker}: of transformers' own tests")


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        row = ROWS[metafunc.function.__name__.removeprefix("test_")]
        metafunc.parametrize("case", [BY_NAME[name] for name in row["cells"]], ids=row["cells"])


@pytest.fixture(scope="session", autouse=True)
def versions(record_testsuite_property):
    """The packages that were run, for the table of the docs."""
    for package in sorted({"torch", *(row["package"] for row in ROWS.values())}):
        try:
            record_testsuite_property(package, importlib.metadata.version(package.replace("_", "-")))
        except importlib.metadata.PackageNotFoundError:
            continue


@pytest.fixture
def saved(case, tmp_path) -> str:
    """A checkpoint of the case, with a tokenizer whose words are <0>, <1>, ...."""
    model = case.model(FLOAT32)
    directory = str(tmp_path / "model")
    model.save_pretrained(directory)
    tokenizer = tokenizer_of(model.config)
    tokenizer.padding_side = "left" if case.kind.shifts else "right"
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def texts() -> list[str]:
    """Eight texts of such words."""
    draw = random.Random(0)
    return [" ".join(f"<{draw.randrange(4, 39)}>" for _ in range(draw.randrange(4, 9))) for _ in range(8)]
