"""`hfseq COMMAND ...`; also `python -m hfseq COMMAND ...` and `torchrun -m hfseq pretrain ...`.

A command is a module of `hfseq/commands/`, imported when it is called: its docstring's first line is its help here,
read from the file.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

from hfseq.commands.console import print_what_the_terminal_can
from hfseq.hints import nearest_hint

COMMANDS = {
    "recipes": "hfseq.commands.recipes",
    "tokenize": "hfseq.commands.tokenize",
    "plan": "hfseq.commands.plan",
    "pretrain": "hfseq.commands.pretrain",
    "finetune": "hfseq.commands.finetune",
    "generate": "hfseq.commands.generate",
    "evaluate": "hfseq.commands.evaluate",
    "compare": "hfseq.commands.compare",
    "check": "hfseq.commands.check",
    "convert": "hfseq.commands.convert",
    "push": "hfseq.commands.push",
}
HELP = ("-h", "--help", "help")


def main(argv: list[str] | None = None) -> None:
    """Runs the command that the first word names; the rest is its own."""
    print_what_the_terminal_can()
    words = sys.argv[1:] if argv is None else argv
    if not words:
        print(overview(), file=sys.stderr)
        sys.exit(2)
    name, *rest = words
    if name in HELP:
        print(overview())
    elif name == "--version":
        from hfseq import __version__

        print(f"hfseq {__version__}")
    elif name in COMMANDS:
        importlib.import_module(COMMANDS[name]).main(rest)
    else:
        hint = nearest_hint(name, COMMANDS) or f" There are {', '.join(COMMANDS)}."
        print(f"hfseq: no command {name!r}.{hint}", file=sys.stderr)
        sys.exit(2)


def overview() -> str:
    """Every command with its line."""
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{first_line(module)}" for name, module in COMMANDS.items()]
    return "\n".join(["usage: hfseq COMMAND ...", "", *lines, "", "hfseq COMMAND --help says the rest."])


def first_line(module: str) -> str:
    """Of the module's docstring; the module is read, not imported."""
    path = Path(__file__).parent / "commands" / f"{module.rpartition('.')[2]}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
