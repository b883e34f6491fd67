"""Registers with a part of transformers when that part is first imported, as loading it costs time.

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


__all__ = ["when_imported"]
