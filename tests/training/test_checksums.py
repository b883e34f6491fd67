"""A flipped bit in any file of a checkpoint is noticed, wherever it is and of whatever kind the file."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import save_file

from hfseq.training import checksums
from hfseq.training.checksums import checksum_of, is_unchanged


@pytest.fixture(params=["model.safetensors", "optimizer.pt", "trainer_state.json"])
def file(request, tmp_path, monkeypatch):
    """Three kinds of files, each large enough for its own kind of checksum."""
    monkeypatch.setattr(checksums, "SMALL", 1000)
    path = tmp_path / request.param
    tensor = torch.randn(300, 111)
    if path.suffix == ".safetensors":
        save_file({"weight": tensor}, path)
    elif path.suffix == ".pt":
        torch.save({"state": {0: {"exp_avg": tensor, "step": 3}}}, path)
    else:
        path.write_text('{"log_history": []}')
    return path


def test_kinds(file):
    kind = {"safetensors": "words", "pt": "zip", "json": "blake2"}[file.name.rpartition(".")[2]]
    assert checksum_of(file).startswith(f"{kind}:")
    assert is_unchanged(file, checksum_of(file))


def test_a_flipped_bit_is_noticed(file):
    written, checksum = file.read_bytes(), checksum_of(file)
    bits = random.Random(0)
    # Padding between the tensors of an archive is nobody's content: only what torch reads counts there.
    places = [bits.randrange(8 * len(written)) for _ in range(60)]
    for place in places:
        changed = bytearray(written)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        if file.suffix == ".pt" and is_unchanged(file, checksum):
            content = torch.load(file, weights_only=True)["state"][0]
            file.write_bytes(written)
            assert torch.equal(content["exp_avg"], torch.load(file, weights_only=True)["state"][0]["exp_avg"])
        else:
            assert not is_unchanged(file, checksum), place
    file.write_bytes(written)
    assert is_unchanged(file, checksum)


def test_blocks_that_changed_places_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "SMALL", 0)
    file = tmp_path / "model.safetensors"
    first, second = (bytes([byte]) * checksums.BLOCK for byte in (1, 2))
    file.write_bytes(first + second + b"end")
    checksum = checksum_of(file)
    file.write_bytes(second + first + b"end")
    assert not is_unchanged(file, checksum)


def test_mapped_and_read_give_the_same(tmp_path, monkeypatch):
    """When saving the file is mapped, when loading it is read, each in parts of its own size."""
    monkeypatch.setattr(checksums, "SMALL", 0)
    monkeypatch.setattr(checksums, "MAPPED", 4 * checksums.BLOCK)
    monkeypatch.setattr(checksums, "BUFFER", checksums.BLOCK)
    file = tmp_path / "model.safetensors"
    for size in (1, checksums.BLOCK, 9 * checksums.BLOCK + 13):
        file.write_bytes(random.Random(size).randbytes(size))
        assert is_unchanged(file, checksum_of(file))
