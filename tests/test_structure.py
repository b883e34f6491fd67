"""What CONTRIBUTING says of the arrows and of what exists once, read from the sources; nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "hfseq").rglob("*.py"))
}
# Layers that a layer may never import from, inside functions either.
FORBIDDEN = {
    "models": {
        "data", "metrics", "convert", "training", "objectives", "tasks", "commands", "contracts", "plots", "cards",
        "hub", "hints", "paths", "recipe", "loading", "pipelines", "registration",
    },
    "data": {"training", "objectives", "tasks", "commands", "contracts", "cards", "convert"},
    "metrics": {"training", "objectives", "tasks", "commands", "contracts", "cards", "convert"},
    "convert": {"training", "objectives", "tasks", "commands", "cards"},
    "training": {"objectives", "tasks", "commands", "contracts"},
    "objectives": {"tasks", "commands", "contracts"},
    "tasks": {"objectives", "commands", "contracts"},
    "contracts": {"commands"},
    "plots": {"training", "objectives", "tasks", "commands"},
    "cards": {"training", "objectives", "tasks", "commands"},
    "report": {"commands", "contracts", "tasks", "objectives"},
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(node: ast.AST, everywhere: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements; unless everywhere, those that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif everywhere or not (
            isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        ):
            yield from imports(child, everywhere)


def imported(name: str, *, everywhere: bool) -> set[str]:
    """Modules of hfseq that a module imports."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for statement in imports(SOURCES[path], everywhere):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
            continue
        above = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
        base = ".".join([*above, *([statement.module] if statement.module else [])])
        for alias in statement.names:
            full = f"{base}.{alias.name}"
            found.add(full if full in MODULES else base)
    return (found & MODULES.keys()) - {name}


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """Modules that import each other in a ring; None: there is no such ring."""
    done: set[str] = set()

    def walk(module: str, trail: list[str]) -> list[str] | None:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return None
        for following in sorted(graph[module]):
            if ring := walk(following, [*trail, module]):
                return ring
        done.add(module)
        return None

    for module in graph:
        if ring := walk(module, []):
            return ring
    return None


def test_a_ring_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
    assert "hfseq.hints" in imported("hfseq.recipe", everywhere=False)  # from .hints import
    assert "hfseq.data" in imported("hfseq.objectives.base", everywhere=False)  # from .. import data


@pytest.mark.parametrize("everywhere", [False, True], ids=["at the top", "in functions too"])
def test_no_module_imports_itself_through_others(everywhere):
    assert circle({name: imported(name, everywhere=everywhere) for name in MODULES}) is None


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_arrows_point_one_way(layer):
    assert (ROOT / "hfseq" / layer).is_dir()
    inside = [name for name in MODULES if name.split(".")[1:2] == [layer]]
    wrong = {
        (name, other)
        for name in inside
        for other in imported(name, everywhere=True)
        if other.split(".")[1:2] and other.split(".")[1] in FORBIDDEN[layer]
    }
    assert not wrong


def test_the_number_of_no_label_is_written_once():
    """As code; docstrings may say -100."""
    places = [
        path.relative_to(ROOT).as_posix()
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.UnaryOp) and ast.unparse(node) == "-100"
    ]
    assert places == ["hfseq/models/losses.py"]


def test_nothing_is_caught_that_nobody_named():
    """Whatever a stranger's model raises is a finding of the contracts; elsewhere a fault keeps its traceback."""
    places = {
        path.relative_to(ROOT / "hfseq").parts[0]
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) == "Exception")
    }
    assert places <= {"contracts"}
