"""What every test gets: no network, no shared caches, and where the data that cannot be shipped lies."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
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
