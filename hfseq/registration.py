"""Registers with what transformers has no door for: its namespace, and a part of it that is not imported yet.

Tools take the class that a checkpoint's config names from the namespace of transformers (`transformers serve`, TRL).

`transformers.pipelines` takes a tenth of a second that a training does not need. A finder in `sys.meta_path` waits for
its import, and is gone after it.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType


class _Waiting(importlib.abc.MetaPathFinder):
    def __init__(self, module: str, action: Callable[[], object]):
        self.module, self.action = module, action

    def find_spec(self, name, path=None, target=None):
        if name != self.module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)  # what the others say
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            self.action()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]  # of this one loader
        return spec


def when_imported(module: str, action: Callable[[], object]) -> None:
    """Runs `action` right after the first import of `module`; now, if it is imported already.

    Args:
        module: its full name.
        action: without arguments; imports what it needs itself.
    """
    if module in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Waiting(module, action))


def enter_in_transformers(classes: dict[str, type]) -> None:
    """Makes `transformers.NAME` the class, for every name that transformers does not have.

    There are two modules of that name: `transformers.processing_utils` puts a second one in `sys.modules`, and whoever
    imported transformers before keeps the first. So it is looked up where it is held.
    """
    holders = [
        vars(module).get("transformers") for module in list(sys.modules.values()) if module is not None
    ]
    for held in [sys.modules["transformers"], *holders]:
        if isinstance(held, ModuleType) and held.__name__ == "transformers":
            for name, value in classes.items():
                if not hasattr(held, name):
                    setattr(held, name, value)


__all__ = ["enter_in_transformers", "when_imported"]
