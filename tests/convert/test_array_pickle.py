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


@pytest.mark.parametrize("protocol", [3, 4])
def test_values_and_arrays_come_back(tmp_path, protocol):
    value = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": [1, "two", (3.0, None)],
        "c": np.float64(4),
    }
    read = load_arrays(write(tmp_path / "x.pkl", value, protocol))
    assert read["b"] == value["b"] and read["c"] == 4
    assert read["a"].dtype == np.float32 and np.array_equal(read["a"], value["a"])


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
