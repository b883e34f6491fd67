"""hfseq: the architectures of sequence learning as Hugging Face models.

`import hfseq` registers every model class with transformers' Auto classes, so that
`AutoModelForCausalLM.from_pretrained(directory)` finds them, and a pipeline for the task "translation".
It costs little beyond torch and transformers: `hfseq.data`, `hfseq.training`, `hfseq.metrics`, `hfseq.convert`
and `hfseq.hub` load when first used.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

__version__ = "0.2.0"

_LAZY_MODULES = (
    "cards",
    "contracts",
    "convert",
    "data",
    "hub",
    "metrics",
    "pipelines",
    "plots",
    "recipe",
    "training",
)


def _runs_a_command() -> bool:
    """Whether this process was begun as `hfseq ...` or `python -m hfseq ...`. `hfseq --help` shall not wait for torch:
    there `hfseq.__main__` loads the classes, once it knows that a command needs them."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    if program.name == "-m":  # what argv[0] is while the module that -m names is looked for
        words = sys.orig_argv
        return "-m" in words[:-1] and words[words.index("-m") + 1] == __name__
    return program.stem == __name__ and program.parent == Path(sys.executable).parent


def __getattr__(name: str):
    if name in _LAZY_MODULES:
        return importlib.import_module(f".{name}", __name__)
    if not name.startswith("_") or name == "__all__":
        classes = importlib.import_module(".classes", __name__)
        if name == "__all__" or name in classes.__all__:
            return getattr(classes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING or not _runs_a_command():
    from .classes import *  # noqa: F403
    from .classes import __all__ as __all__
