"""Pickles of plain values and NumPy arrays, and of nothing else.

A pickle is a program: it may name any function that can be imported and have it called. Published weights are
sometimes pickles all the same. Here only what rebuilds an array may be named; everything else is refused before
anything runs.
"""

from __future__ import annotations

import io
import pickle
from os import PathLike
from pathlib import Path

import numpy as np

# What NumPy writes into a pickle of an array, under the names that it had before and has since version 2.
ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.multiarray", name): getattr(np.core.multiarray, name)
        if np.lib.NumpyVersion(np.__version__) < "2.0.0"
        else getattr(np._core.multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads numbers, strings, containers and NumPy arrays."""

    def find_class(self, module: str, name: str) -> object:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is no part of a NumPy array"
            ) from None


def load_arrays(path: str | PathLike[str]) -> object:
    """The content of a pickle file that holds only plain values and NumPy arrays.

    Raises:
        ValueError: anything else in it, or no pickle at all.
    """
    path = Path(path)
    try:
        return ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may raise whatever its operations raise
        raise ValueError(
            f"{path} was not read: {error}. Only pickles of numbers, strings, containers and NumPy arrays are: any "
            "other can run code."
        ) from error
