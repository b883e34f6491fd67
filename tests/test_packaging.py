"""What the files around the package say of each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools
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


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> Path:
    """Built from a copy of the checkout, as `pip wheel` builds it."""
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} is installed; the project asks for 77 (extra dev)")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        repository,
        source,
        ignore=lambda _, names: [n for n in names if n[0] == "." or n.endswith(".egg-info")],
    )
    build = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_what_runs_and_nothing_else(wheel, repository):
    files = set(zipfile.ZipFile(wheel).namelist())
    package = repository / "hfseq"
    expected = [*package.rglob("*.py"), *package.glob("recipes/*"), package / "py.typed"]
    missing = {path.relative_to(repository).as_posix() for path in expected} - files
    assert not missing
    for name in (
        "commands/pretrain.py",
        "recipes/lstm-kjv.yaml",
        "recipes/claims.json",
        "metrics/f1/f1.py",
        "report/alignments.tsv",
    ):
        assert f"hfseq/{name}" in files
    assert {name.split("/")[0] for name in files} == {"hfseq", f"hfseq-{hfseq.__version__}.dist-info"}
    # What hfseq is timed against stays in scripts/; `evaluate --benchmark` is a command's.
    strange = [name for name in files if re.search("benchmark|tests?[/_.]", name)]
    assert strange == ["hfseq/commands/benchmarks.py"]
    licence = zipfile.ZipFile(wheel).read(f"hfseq-{hfseq.__version__}.dist-info/licenses/LICENSE")
    assert b"Apache License" in licence[:200]
    entry_points = zipfile.ZipFile(wheel).read(f"hfseq-{hfseq.__version__}.dist-info/entry_points.txt")
    assert b"hfseq = hfseq.__main__:main" in entry_points


def test_the_wheel_runs_where_there_is_no_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "work").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    words = [sys.executable, "-c", "import hfseq.__main__ as m; print(m.__file__); m.main(['recipes'])"]
    done = subprocess.run(words, cwd=tmp_path / "work", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site")) and "bits per byte" in done.stdout


def test_tests_are_no_package(repository):
    assert not list((repository / "tests").rglob("__init__.py"))
