"""A disk that is full, a quota or a limit on file sizes, told with the file and the disk.

The libraries that write checkpoints say it each in its own way: torch "PytorchStreamWriter failed writing file",
safetensors "I/O error", the system an error number. The checkpoint that was being written stays without its marker, so
the older one counts; it is deleted only when the newer one is complete.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .checkpoints import newest_complete_checkpoint

_NUMBERS = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "files may not grow that big",
}
# Of safetensors (Rust) and torch (C++), where they say it; torch does not always know why.
_TEXTS = {
    "os error 28": "no space is left", "No space left": "no space is left", "os error 122": "the quota is used up",
    "os error 27": "files may not grow that big", "PytorchStreamWriter": "it takes no more",
    "iostream error": "it takes no more", "unexpected pos": "it takes no more",
}  # fmt: skip


class DiskFullError(OSError):
    """A checkpoint could not be written."""


@contextmanager
def full_disk_told(output: Path) -> Iterator[None]:
    """Around all that writes to `output`.

    Raises:
        DiskFullError: names file, disk, what is left on it, and the checkpoint that is still whole.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        file = getattr(error, "filename", None) or _newest_file(output)
        left = shutil.disk_usage(output).free
        whole = newest_complete_checkpoint(output)
        raise DiskFullError(
            f"Writing {file} failed: {reason} on {_mount_point(output)} ({left / 1e6:,.0f} MB are free). "
            + (f"{whole} is whole. " if whole else "No checkpoint was complete yet. ")
            + "Make room, lower save_total_limit, or look at ulimit -f; then go on from there."
        ) from error


def _reason(error: BaseException) -> str | None:
    """In words; None: it is about something else."""
    number = getattr(error, "errno", None)
    if number in _NUMBERS:
        return _NUMBERS[number]
    found = next((reason for part, reason in _TEXTS.items() if part in str(error)), None)
    # torch may end with a second error, of closing what it could not write.
    before = _reason(error.__context__) if error.__context__ is not None else None
    return before or found


def _newest_file(output: Path) -> Path:
    """What was being written when it failed."""
    files = [path for path in output.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=output)


def _mount_point(path: Path) -> Path:
    path = path.resolve()
    while not os.path.ismount(path):
        path = path.parent
    return path


__all__ = ["DiskFullError", "full_disk_told"]
