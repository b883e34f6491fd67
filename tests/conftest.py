"""What every test gets: no network, no shared caches, and where the data that cannot be shipped lies."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# Before transformers or datasets are imported: the suite never asks the Hub, and neither reads nor fills the user's
# caches (data sets, token arrays, remote code), so that a second run sees what the first saw. Subprocesses inherit it.
_CACHE = tempfile.mkdtemp(prefix="hfseq-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ.update(
    HF_HOME=_CACHE,
    HFSEQ_CACHE=os.path.join(_CACHE, "hfseq"),
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
)
for _variable in ("HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HF_TOKEN"):
    os.environ.pop(_variable, None)

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_finish():
    """What is imported by now lives to the end, and the collector need not look through it again: accelerate collects
    before each training, which was two thirds of the processor time of a tiny run (1.1 of 1.6 s)."""
    gc.collect()
    gc.freeze()


def pytest_runtest_teardown(item, nextitem):
    """The same for what the tests of a file imported or compiled. Rings that are dropped later stay in memory."""
    if nextitem is None or nextitem.path != item.path:
        gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of benchmarks (multi30k/, sst2/, wnut17/): HFSEQ_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("HFSEQ_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(
            f"no benchmark data at {folder}: set HFSEQ_DATA to the folder that holds multi30k/, sst2/, wnut17/"
        )
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout: where scripts/ and README.md are."""
    return REPOSITORY


@pytest.fixture(scope="session")
def commands_in():
    """A function that puts `python`, `hfseq` and `hf`, run by this interpreter, into a folder for PATH."""

    def make(folder: Path) -> Path:
        programs = folder / "bin"
        programs.mkdir()
        for name, start in {
            "python": "",
            "hfseq": "-m hfseq",
            "hf": "-c 'from huggingface_hub.cli.hf import main; main()'",
        }.items():
            file = programs / name
            file.write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
            file.chmod(0o755)
        return programs

    return make


@pytest.fixture(scope="session")
def loopback_hub_class() -> type:
    """`LoopbackHub` of tests/loopback_hub.py: a Hub on this machine that the real client talks to."""
    spec = importlib.util.spec_from_file_location("loopback_hub", REPOSITORY / "tests" / "loopback_hub.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module.LoopbackHub


class FakeHub:
    """Stands in for HfApi; remembers what would have been sent."""

    def __init__(self):
        self.calls, self.files, self.texts = [], [], {}

    def __call__(self, token=None):
        self.token = token
        return self

    def create_repo(self, repo_id, **kwargs):
        self.calls.append(("create_repo", repo_id, kwargs))
        return type("Url", (), {"repo_id": repo_id if "/" in repo_id else f"me/{repo_id}"})

    def model_info(self, repo_id):
        return type("Info", (), {"private": True})

    def upload_folder(self, repo_id, folder_path, commit_message, ignore_patterns, revision):
        self.calls.append(("upload_folder", repo_id, {"ignore_patterns": ignore_patterns}))
        names = [
            str(file.relative_to(folder_path)) for file in Path(folder_path).rglob("*") if file.is_file()
        ]
        import huggingface_hub

        self.files = sorted(huggingface_hub.utils.filter_repo_objects(names, ignore_patterns=ignore_patterns))
        texts = [name for name in self.files if name.endswith((".md", ".json", ".yaml"))]
        self.texts = {name: (Path(folder_path) / name).read_text() for name in texts}
        return type("Commit", (), {"commit_url": f"https://huggingface.co/{repo_id}/commit/0"})


@pytest.fixture
def fake_hub(monkeypatch) -> FakeHub:
    import huggingface_hub

    fake = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", fake)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_test")
    return fake
