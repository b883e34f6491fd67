"""Arrays come back; anything that could run code does not."""

import os
import pickle

import numpy as np
import pytest
import torch

from hfseq.convert.array_pickle import load_arrays

CALLS = []


class Trap:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write(path, value, protocol):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_values_and_arrays_come_back(tmp_path, protocol):
    value = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": [1, "two", (3.0, None)],
        "c": np.float64(4),
        "d": (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(["x", "yy"]), np.array(5, ">i2")),
    }
    read = load_arrays(write(tmp_path / "x.pkl", value, protocol))
    assert read["b"] == value["b"] and read["c"] == 4 and type(read["c"]) is np.float64
    for array, expected in zip((read["a"], *read["d"]), (value["a"], *value["d"]), strict=True):
        assert type(array) is np.ndarray and array.dtype == expected.dtype and array.flags.writeable
        assert np.array_equal(array, expected)


class FromAddresses:
    """An array of objects over bytes: NumPy would take them for the addresses of objects."""

    def __reduce__(self):
        return np.ndarray, ((1,), np.dtype("O"), b"\x10" * 8)


@pytest.mark.parametrize(
    "value",
    [FromAddresses(), np.array([None]), np.zeros(2, "f4,i4"), np.zeros(2, "M8[s]"), np.float32],
    ids=["objects over bytes", "objects", "records", "dates", "a class"],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_types_whose_bytes_are_no_plain_values_are_refused(tmp_path, value, protocol):
    with pytest.raises(ValueError, match=r"x\.pkl was not read"):
        load_arrays(write(tmp_path / "x.pkl", value, protocol))


def test_damage_is_one_kind_of_error(tmp_path):
    """NumPy's own functions crash the interpreter on some of these."""
    random = np.random.default_rng(0)
    value = {"a": np.arange(6, dtype=np.float32), "b": [np.float64(1), (None, "two")]}
    refused = 0
    for protocol in (2, 5):
        whole = np.frombuffer(pickle.dumps(value, protocol=protocol), np.uint8)
        for _ in range(150):
            damaged = whole.copy()
            damaged[random.integers(0, len(whole), 3)] = random.integers(0, 256, 3)
            (tmp_path / "x.pkl").write_bytes(damaged.tobytes())
            try:
                load_arrays(tmp_path / "x.pkl")
            except ValueError as error:
                assert "x.pkl was not read" in str(error)
                refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    "trap",
    [
        Trap(os.system, "touch trapped"),
        Trap(eval, "__import__('os').system('touch trapped')"),
        Trap(CALLS.append, 1),
        Trap(np.load, "x.npy", None, True),
        torch.zeros(1),
        {"nested": [Trap(os.getcwd)]},
    ],
    ids=["system", "eval", "method", "numpy's own loader", "tensor", "nested"],
)
def test_what_names_anything_else_is_refused_and_does_not_run(tmp_path, monkeypatch, trap):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "x.pkl", trap, 2)
    with pytest.raises(ValueError, match=r"x\.pkl was not read: it names .*can run code"):
        load_arrays(path)
    assert not (tmp_path / "trapped").exists() and not CALLS


def test_what_is_no_pickle_is_refused(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match=r"x\.pkl was not read"):
        load_arrays(tmp_path / "x.pkl")
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "none.pkl")
