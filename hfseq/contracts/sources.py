"""Finding the cases again in a subprocess, which is given names only."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable

from .cases import Case
from .checkpoints import checkpoint_case


def find_cases(source: str, names: Iterable[str]) -> list[Case]:
    """The cases of the given names.

    Args:
        source: "module:ATTRIBUTE" or "/path/file.py:ATTRIBUTE", a sequence of cases; or "checkpoint:PATH" and
            "trusted-checkpoint:PATH" for the single case of a checkpoint (whose own code runs only if trusted).
    """
    scheme, _, path = source.partition(":")
    if scheme in ("checkpoint", "trusted-checkpoint"):
        return [checkpoint_case(path, trust_remote_code=scheme.startswith("trusted"))]
    place, _, attribute = source.rpartition(":")
    if place.endswith(".py"):
        spec = importlib.util.spec_from_file_location("given_cases", place)
        module = importlib.util.module_from_spec(spec)
        sys.modules["given_cases"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found = {case.name: case for case in getattr(module, attribute)}
    return [found[name] for name in names]
