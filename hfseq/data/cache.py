"""Where trained tokenizers and token arrays are kept, and how several processes make each of them once."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ..paths import user_path


def default_cache_dir() -> Path:
    """$HFSEQ_CACHE, else ~/.cache/hfseq."""
    return user_path(os.environ.get("HFSEQ_CACHE") or "~/.cache/hfseq")


def cache_folder(cache_dir: str | os.PathLike | None) -> Path:
    """Where to keep things: `cache_dir`, or without one `default_cache_dir()`."""
    return default_cache_dir() if cache_dir is None else user_path(cache_dir)


def check_writable(cache: Path) -> None:
    """Makes the cache directory, or raises PermissionError with the remedy."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise PermissionError(
            f"Cannot write token arrays to {cache} ({error.strerror or error}). Name another directory with cache_dir "
            "or the environment variable HFSEQ_CACHE."
        ) from error


# Seconds that a process waits for another one that makes what both need, without a sign of progress from it.
PATIENCE = 3600.0


def build_once(
    target: Path,
    build: Callable[[], None],
    what: str,
    patience: float = PATIENCE,
    is_there: Callable[[], bool] | None = None,
) -> None:
    """Makes `target`, a directory, unless it is there. Of several processes one does, the others wait for it.

    A process that dies lets go of its lock, and the next one builds. A process that lives but does not get on (its
    `touch_builder` is that sign) is waited for so many seconds.

    Args:
        build: makes the target under another name and renames it at the end; called once at most.
        what: for messages.
        is_there: whether nothing needs to be made, or waited for; by default whether `target` is.

    Raises:
        PermissionError: the cache cannot be written; TimeoutError: the other process does not get on.
    """
    from filelock import FileLock, Timeout

    is_there = is_there or target.is_dir
    if is_there():
        return
    check_writable(target.parent)
    lock, builder = FileLock(target.parent / f"{target.name}.lock"), _builder_file(target)
    said, sign, since = False, None, time.monotonic()
    while True:
        try:
            lock.acquire(timeout=min(patience, 5.0 if said else 1.0))
            break
        except Timeout:
            if is_there():
                return
            seen = builder.stat().st_mtime_ns if builder.exists() else None
            if seen != sign:
                sign, since = seen, time.monotonic()
            who = builder.read_text(encoding="utf-8").strip() if builder.exists() else "another process"
            if time.monotonic() - since > patience:
                raise TimeoutError(
                    f"Waited {patience:.0f} s for {who}, which makes {what} in {target.parent} and did not get on. "
                    f"End it, or name another directory with cache_dir or HFSEQ_CACHE."
                ) from None
            if not said:
                print(f"Waiting for {who}, which makes {what} ({target}).", file=sys.stderr, flush=True)
                said = True
    try:
        if not is_there():
            builder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
            build()
    finally:
        builder.unlink(missing_ok=True)
        lock.release()


def touch_builder(target: Path) -> None:
    """Tells those who wait for `target` that its making gets on."""
    builder = _builder_file(target)
    if builder.exists():
        os.utime(builder)


def _builder_file(target: Path) -> Path:
    return target.parent / f"{target.name}.builder"
