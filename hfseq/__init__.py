"""hfseq: the architectures of sequence learning as Hugging Face models.

`import hfseq` registers every model class with transformers' Auto classes, so that
`AutoModelForCausalLM.from_pretrained(directory)` finds them, and a pipeline for the task "translation". All of them,
and their configurations, can be imported from here; the list is `hfseq.models.AUTO_CLASSES`. They are in the namespace
of transformers too, where some tools look up the class that a checkpoint's config names (`transformers serve`, TRL
given a path, pipelines); a name that transformers has is never replaced. The import costs little beyond torch and
transformers: `hfseq.data`, `hfseq.training`, `hfseq.metrics`, `hfseq.convert` and `hfseq.hub` load when first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import transformers

from .models import AUTO_CLASSES
from .registration import enter_in_transformers, when_imported

__version__ = "0.2.0"

_LAZY_MODULES = (
    "cards",
    "contracts",
    "convert",
    "data",
    "hub",
    "metrics",
    "pipelines",
    "recipe",
    "tasks",
    "training",
)

_CLASSES: dict[str, type] = {}
for _config, _heads in AUTO_CLASSES.items():
    transformers.AutoConfig.register(_config.model_type, _config, exist_ok=True)
    for _auto_name, _class in _heads.items():
        getattr(transformers, _auto_name).register(_config, _class, exist_ok=True)
    _CLASSES.update((_class.__name__, _class) for _class in (_config, *_heads.values()))
globals().update(_CLASSES)
enter_in_transformers(_CLASSES)
when_imported("transformers.pipelines", lambda: importlib.import_module(".pipelines", __name__))


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY_MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = sorted(_CLASSES)
