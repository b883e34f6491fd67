"""`pip install torch` brings a build for CUDA on Linux: without a GPU nothing may take it for one."""

import re

import pytest
import torch

from hfseq.accelerators import available_accelerator
from hfseq.planning import devices
from hfseq.training import describe_machine


@pytest.fixture
def built_for_cuda(monkeypatch):
    """torch's answers in a CUDA build without a driver."""

    def current(check_available=False):
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current)


def test_a_build_for_cuda_without_a_gpu_has_no_accelerator(built_for_cuda, monkeypatch):
    assert available_accelerator() is None
    assert describe_machine()["gpu"] is None
    monkeypatch.setattr(devices, "_matmul_rate", lambda where, dtype: 1.0)
    monkeypatch.setattr(devices, "_copy_rate", lambda where: 1.0)
    assert devices.measure_here().name.startswith("cpu")


def test_only_one_place_asks_torch(repository):
    asking = [
        path.relative_to(repository).as_posix()
        for path in sorted((repository / "hfseq").rglob("*.py"))
        if re.search(
            r"accelerator\.current_accelerator\(|cuda\.is_available\(", path.read_text(encoding="utf-8")
        )
    ]
    assert asking == ["hfseq/accelerators.py"]
