"""Metrics as modules of the library `evaluate`, which itself ships none and asks the Hub for each.

The folders beside this file, `NAME/NAME.py`, are what `evaluate.load` takes; they wrap the functions of
`hfseq.metrics`, so both ways give the same numbers. Each takes the place of the Hub's module of its name: the same
inputs, options, defaults and keys of the result (those of evaluate 0.4). `bits_per_byte` is ours alone, and
`perplexity` also takes the losses of tokens, without a model.

    metric = hfseq.metrics.load("accuracy")
    metric.compute(predictions=[0, 1], references=[0, 0])
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..hints import nearest_hint

NAMES = (
    "accuracy",
    "bits_per_byte",
    "f1",
    "matthews_correlation",
    "pearsonr",
    "perplexity",
    "sacrebleu",
    "seqeval",
    "spearmanr",
    "squad",
)
"""The metrics there are."""


def path(name: str) -> str:
    """The folder of a metric, for `evaluate.load(path)`.

    Raises:
        ValueError: no such metric.
    """
    if name not in NAMES:
        raise ValueError(f"Unknown metric {name!r}.{nearest_hint(name, NAMES)} Known: {', '.join(NAMES)}.")
    return str(Path(__file__).parent / name)


def load(name: str, config_name: str | None = None, **options: Any) -> Any:
    """`evaluate.load` of a metric of ours; needs no network.

    Args:
        name: one of `NAMES`.
        config_name: "multilabel" for f1 of several labels per text.
        options: more arguments of `evaluate.load`, such as `experiment_id`.

    Raises:
        ValueError: no such metric; ModuleNotFoundError: `evaluate` is not installed.
    """
    folder = path(name)
    return import_evaluate().load(folder, config_name, **options)


def import_evaluate() -> ModuleType:
    """The library `evaluate`, also where a file evaluate.py stands before it on the path.

    A script that is run from scripts/ has that folder first on its path, and `import evaluate` would run
    scripts/evaluate.py. The library is a package, so files of that name are passed over; it is put into
    `sys.modules`, because its own modules, and the metrics it loads, import it by its name.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    loaded = sys.modules.get("evaluate")
    if loaded is not None and hasattr(loaded, "__path__"):
        return loaded
    # Editable installations are found by finders of their own, which know nothing of folders on the path.
    if loaded is None:
        spec = importlib.util.find_spec("evaluate")
        if spec is not None and spec.submodule_search_locations:
            return importlib.import_module("evaluate")
    for entry in sys.path:
        spec = importlib.machinery.PathFinder.find_spec("evaluate", [entry])
        if spec is None or spec.loader is None or not spec.submodule_search_locations:
            continue
        module = importlib.util.module_from_spec(spec)
        sys.modules["evaluate"] = module
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(_put_back, loaded)
            spec.loader.exec_module(module)
            on_failure.pop_all()
        return module
    raise ModuleNotFoundError("hfseq.metrics.load needs the library evaluate: pip install 'hfseq[metrics]'")


def _put_back(loaded: ModuleType | None) -> None:
    if loaded is None:
        del sys.modules["evaluate"]
    else:
        sys.modules["evaluate"] = loaded


__all__ = ["NAMES", "import_evaluate", "load", "path"]
