"""Where a command may write: asked before the work, not found out after it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hfseq.plots import require_matplotlib


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


def check_picture(path: Path | None, option: str) -> None:
    """As `check_output_file`; also ValueError where its ending is of no picture that can be drawn, and
    ModuleNotFoundError where matplotlib is missing."""
    if path is None:
        return
    require_matplotlib()
    from matplotlib.figure import Figure

    known = sorted(Figure().canvas.get_supported_filetypes())
    ending = path.suffix.removeprefix(".").lower()
    if ending and ending not in known:
        raise ValueError(f"{option} {path}: end its name in .png, or one of {', '.join(known)}.")
    check_output_file(path, option)


def check_different_files(files: dict[str, Path | None]) -> None:
    """Raises ValueError where two options name the same file: the second would be written over the first."""
    seen: dict[Path, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        other = seen.setdefault(path.resolve(), option)
        if other != option:
            raise ValueError(f"{other} and {option} both name {path}: give each a file of its own.")


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


__all__ = ["check_different_files", "check_output_directory", "check_output_file", "check_picture"]
