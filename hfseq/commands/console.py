"""How a command speaks: its parser, its mistakes, and letters that a terminal does not have.

A mistake of the user's ends in one message and exit code 2, never in a traceback; a fault of ours keeps its traceback.
A terminal that cannot show a letter (PYTHONIOENCODING=cp1252, LANG=C) gets a "?" in its place: print() would raise
after the work was done. Files are always written as UTF-8.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hfseq.paths import user_path

# What a wrong path, value, file or installation raises here and in the libraries below.
MISTAKES = (ValueError, OSError, ImportError, FloatingPointError)


class CommandParser(argparse.ArgumentParser):
    """Prints the module's docstring as it stands, and an error without the list of all options before it.

    Options are never abbreviated: what a command passes on (`--num_beams 4`) must not be taken for one of its own.
    Making one prepares the terminal (`print_what_the_terminal_can`).

    Args:
        name: of the command.
        documentation: its module's docstring.
        options: of ArgumentParser.
    """

    def __init__(self, name: str, documentation: str | None, **options: Any) -> None:
        print_what_the_terminal_can()
        super().__init__(
            prog=f"hfseq {name}",
            description=documentation,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def add_subparsers(self, **options):
        """Whose parsers are plain ones: argparse makes them with `prog` and `description` of its own."""
        return super().add_subparsers(parser_class=argparse.ArgumentParser, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


@contextmanager
def mistakes_told(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Ends the command with the message of a mistake, told as the parser tells its own."""
    try:
        yield
    except BrokenPipeError:
        # `hfseq generate ... | head` has what it wanted. What is still buffered goes nowhere, without a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        parser.exit(0)
    except MISTAKES as error:
        parser.error(str(error) or type(error).__name__)


@contextmanager
def messages_exit_with_2() -> Iterator[None]:
    """`sys.exit(message)` is a mistake of the user's too: the message, and exit code 2 where Python's own is 1."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
            error.code = 2
        raise


def print_what_the_terminal_can() -> None:
    """From here on print() puts "?" for a letter that standard output or standard error cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def path(text: str) -> Path:
    """A path of the command line, as its user means it (`hfseq.paths`)."""
    try:
        return user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def model_id(text: str) -> str:
    """A checkpoint directory, likewise, or a Hub id, which stays what it is."""
    return str(path(text))


def device(text: str) -> str:
    """Where a model is put: "cpu", "cuda", "cuda:1", ...; refused where it is not there."""
    import torch

    try:
        torch.zeros(1, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f"no device {text!r} here ({reason}): leave it out, or say cpu"
        ) from error
    return text


__all__ = [
    "MISTAKES",
    "CommandParser",
    "device",
    "messages_exit_with_2",
    "mistakes_told",
    "model_id",
    "path",
    "print_what_the_terminal_can",
]
