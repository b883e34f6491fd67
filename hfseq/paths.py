"""Paths as users write them: in recipes, on the command line, in environment variables.

One rule for all of them, so that `~/texts` never is the home directory for one file and a new folder called `~` for the
next: variables ($NAME, ${NAME}) are replaced first, then a leading ~ or ~user. A shell does this for some words only
(not for `--option=~/texts`, and never in YAML).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_VARIABLE = re.compile(r"\$(\w+)|\$\{([^}]*)\}")


def user_path(text: str | os.PathLike) -> Path:
    """The path that a user means; also for globs, and for names that may be Hub ids (`str(user_path(name))`).

    A path that is there exactly as it is written is taken as it is: a file may well be called `price$EUR.txt`.

    Raises:
        ValueError: no text or an empty one, an unset variable, a user without a home directory.
    """
    if not isinstance(text, (str, os.PathLike)):
        raise ValueError(f"A path must be text, not {text!r:.60} ({type(text).__name__}).")
    written = os.fspath(text)
    if isinstance(written, bytes):
        written = os.fsdecode(written)
    if not written.strip():
        raise ValueError("An empty path. The current folder is written '.'.")
    if "\0" in written:
        raise ValueError(f"{written!r} is no path: it holds the character U+0000.")
    if os.path.lexists(written) and not written.startswith("~"):
        return Path(written)
    unset = [
        name or braced for name, braced in _VARIABLE.findall(written) if (name or braced) not in os.environ
    ]
    if unset:
        raise ValueError(
            f"Path {written!r}: the environment variable {unset[0]!r} is not set. Set it (export {unset[0]}=...), or "
            "write the path without it."
        )
    expanded = os.path.expanduser(os.path.expandvars(written))
    if expanded.startswith("~"):
        if os.path.lexists(expanded):
            return Path(expanded)
        user = expanded[1:].split(os.sep)[0]
        raise ValueError(
            f"Path {written!r}: no home directory of {f'user {user!r}' if user else 'yours'} is known. A file whose "
            f"name begins with ~ is written './{expanded}'."
        )
    return Path(expanded)
