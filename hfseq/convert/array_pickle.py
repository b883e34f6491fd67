"""Pickles of plain values and NumPy arrays, and of nothing else.

A pickle is a program: it may name any function that can be imported and have it called. Published weights are
sometimes pickles all the same. Here only what rebuilds an array may be named, and stands for functions of this file:
NumPy's own take addresses for values (an array of objects over a buffer, types with a forged size), so that a pickle
made for it, or merely a damaged one, crashes the interpreter or worse. Everything else is refused before anything
runs.
"""

from __future__ import annotations

import io
import pickle
from os import PathLike
from pathlib import Path

import numpy as np

PLAIN_KINDS = "biufcSU"
"""Kinds of NumPy types whose values are the bytes themselves: truth values, numbers, strings of fixed width."""

# What the operations of a damaged pickle raise, as far as it is not told by pickle itself.
DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Type:
    """A NumPy type under construction: its code, such as "f4", and its byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def plain(self) -> np.dtype:
        found = np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]  # NumPy refuses others
        if found.kind not in PLAIN_KINDS or not isinstance(self.code, str):
            raise pickle.UnpicklingError(f"it holds values of the type {self.code!r}")
        return found


class _Array:
    """An array under construction; `finished` is the array."""

    finished: np.ndarray

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        values = np.frombuffer(data, _plain(kind))
        self.finished = values.reshape(shape, order="F" if is_fortran else "C").copy()


def _plain(kind: object) -> np.dtype:
    if not isinstance(kind, _Type):
        raise pickle.UnpicklingError("it holds values of no known type")
    return kind.plain()


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    return _Array()


def _frombuffer(data: bytes, kind: object, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", data))
    return array


def _scalar(kind: object, data: bytes) -> np.generic:
    return np.frombuffer(data, _plain(kind), count=1)[0]


def _bytes(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


# What NumPy writes into a pickle of an array, under the names that it had before and has since version 2.
ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    **{
        (f"numpy.{core}.multiarray", name): function
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("_codecs", "encode"): _bytes,  # how Python 3 writes bytes in protocols older than its own
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
    content = path.read_bytes()
    try:
        return _finished(ArrayUnpickler(io.BytesIO(content)).load())
    except DAMAGE as error:
        raise ValueError(
            f"{path} was not read: {error}. Only pickles of numbers, strings, containers and NumPy arrays are: any "
            "other can run code."
        ) from error


def _finished(value: object) -> object:
    """The value with its arrays, in lists, tuples and dictionaries."""
    if isinstance(value, _Array):
        return value.finished
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_finished, value))
    return value
