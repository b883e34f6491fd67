"""Where a command may write: asked before the work, not found out after it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_output_file(path: Path | None, option: str) -> None:
    """Raises OSError, with the option's name and a remedy, unless a file can be written at `path`.

    The file itself is not touched: what an earlier run wrote stays until there is something to replace it with.

    Args:
        path: None where nothing is to be written.
        option: how the user named it, "--output".
    """
    if path is None:
        return
    if path.is_dir():
        raise IsADirectoryError(f"{option} {path} is a directory: name a file in it.")
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{option} {path}: there is no folder {folder}. Make it, or name another file."
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{option} {path} cannot be written over: name another file.")
    _probe(folder, f"{option} {path}")


def check_output_directory(path: Path, option: str) -> None:
    """Raises OSError, with the option's name and a remedy, unless files can be written in the directory or it can be
    made. Nothing is made yet: what fails later leaves no empty folder."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{option} {path}: {folder} is a file. Name a directory.")
    _probe(folder, f"{option} {path}")


def _probe(folder: Path, what: str) -> None:
    """Permissions do not say it all (read-only mounts, quotas): only a file that was written does."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise PermissionError(
            f"{what}: cannot write in {folder} ({error.strerror}). Name another place."
        ) from error


__all__ = ["check_output_directory", "check_output_file"]
