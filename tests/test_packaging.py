"""What the files around the package say of each other."""

from __future__ import annotations

import re

import pytest
import yaml

import hfseq

tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins(repository) -> dict[str, str]:
    lines = (repository / "constraints.txt").read_text().splitlines()
    return dict(re.match(r"([\w-]+)==([^;\s]+)", line).groups() for line in lines if line and line[0] != "#")


def test_one_version_everywhere(repository, project):
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert hfseq.__version__ == project["project"]["version"] == citation["version"]
    assert f"## [{hfseq.__version__}]" in (repository / "CHANGELOG.md").read_text()


def test_pre_commit_runs_the_pinned_ruff(repository, pins):
    hooks = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {pin for hook in hooks for pin in hook["additional_dependencies"]} == {f"ruff=={pins['ruff']}"}


def test_pins_are_within_the_ranges(project, pins):
    from packaging.requirements import Requirement

    extras = project["project"]["optional-dependencies"]
    requirements = [
        Requirement(r) for rs in (project["project"]["dependencies"], *extras.values()) for r in rs
    ]
    names = {requirement.name for requirement in requirements}
    for requirement in requirements:
        if requirement.name in pins:
            assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert set(pins) <= names, "a pin of something that no extra installs"


def test_the_types_and_the_licence_are_shipped(repository, project):
    assert (repository / "hfseq/py.typed").is_file()
    assert project["tool"]["setuptools"]["package-data"]["hfseq"] == ["py.typed"]
    assert "Apache License" in (repository / "LICENSE").read_text()[:200]


def test_tests_are_no_package(repository):
    assert not list((repository / "tests").rglob("__init__.py"))
