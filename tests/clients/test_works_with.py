"""The page docs/works-with.md is in step with the cells that are tested; its script refuses what did not pass."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parent
ROWS = yaml.safe_load((FOLDER / "cells.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def script(repository=FOLDER.parents[1]):
    spec = importlib.util.spec_from_file_location("works_with", repository / "scripts" / "works_with.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def passed() -> dict[str, dict[str, str]]:
    return {key: dict.fromkeys(row["cells"], "passed") for key, row in ROWS.items()}


def test_every_row_is_a_test_and_says_something_of_every_family(script):
    tests = {
        node.name.removeprefix("test_")
        for file in FOLDER.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and "case" in {argument.arg for argument in node.args.args}
    } & set(ROWS)
    assert tests == set(ROWS)
    families = script.family_of()
    for key, row in ROWS.items():
        tried = {families[name] for name in row["cells"]}
        assert tried.isdisjoint(row.get("without", {})), key
        assert tried | set(row.get("without", {})) == set(script.FAMILIES), key


def test_the_page_is_what_the_script_writes_of_these_cells(script, passed):
    page = script.DOCUMENT.read_text(encoding="utf-8")
    (line,) = re.findall(r"^Run with (.*)\.$", page, flags=re.MULTILINE)
    versions = dict(entry.split(" ") for entry in line.split(", "))
    assert {"torch", *(row["package"] for row in ROWS.values())} == set(versions)
    assert script.document(ROWS, passed, versions) == page


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_a_cell_that_did_not_pass_is_not_written(script, passed, outcome):
    passed["sft"]["LSTMForCausalLM-untied"] = outcome
    with pytest.raises(ValueError, match=f"sft: LSTMForCausalLM-untied {outcome}"):
        script.document(ROWS, passed, {})


def test_a_report_is_read_by_the_names_of_tests(script, tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><properties><property name="trl" value="1.0"/></properties>'
        '<testcase name="test_sft[A]"/><testcase name="test_sft[B]"><failure/></testcase>'
        '<testcase name="test_sft[C]"><skipped/></testcase><testcase name="test_else"/></testsuite></testsuites>'
    )
    outcomes = {"A": "passed", "B": "failed", "C": "skipped"}
    assert script.results([report]) == ({"sft": outcomes}, {"trl": "1.0"})
