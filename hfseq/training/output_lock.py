"""One run in one output directory: a lock that names who holds it and dies with him.

Two runs that write the same checkpoints end in weights that are neither's. So every process of a run locks its own
place in `OUTPUT/.lock`, and writes there who it is; the main process of a new run begins only where no place is locked.
Each process holds its own, since a launcher that is killed leaves its workers behind: they still write.

The locks are the system's own for parts of a file (POSIX): they end with the process however it ends, cannot be left
behind, are not inherited by data loader workers, and hold between machines where the file system is shared and knows
locks. The file itself stays; it means nothing without a process that locks it. (A process that opens and closes the
file once more loses its locks: nothing here does.)
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is locked
    fcntl = None  # type: ignore[assignment]

FILE_NAME = ".lock"
# Bytes of a process's place: its number, host and process id, and a line break.
PLACE = 128
_HELD = (errno.EACCES, errno.EAGAIN)


class OutputLock:
    """Of one output directory, by one process; a context, after which it is given back.

    The main process calls `take`, and once it has, all others call `join`.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self._file: BinaryIO | None = None

    def __enter__(self) -> OutputLock:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()  # and with it all locks of this process
            self._file = None

    def take(self) -> None:
        """Locks the directory for a new run.

        Raises:
            ValueError: a process of another run is alive in it; says which.
        """
        holders = self._try_to_lock(0, whole=True)
        if holders:
            raise ValueError(
                f"{self.path.parent} is being written by {', '.join(holders)}. End it (its launcher may be gone "
                "already), wait for it, or choose another --output_dir."
            )

    def join(self, number: int) -> None:
        """Locks the place of another process of the run that the main process began.

        Raises:
            ValueError: as in `take`.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        holders = self._try_to_lock(number, whole=False)
        if holders:
            raise ValueError(f"{self.path.parent} is being written by {', '.join(holders)} too.")

    def _try_to_lock(self, number: int, whole: bool) -> list[str]:
        """Who is in the way; empty: the place is ours."""
        if fcntl is None or self._file is not None:
            return []
        file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            try:
                # Length 0: to the end of the file, however long it gets.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 0 if whole else PLACE, number * PLACE)
            except OSError as error:
                if error.errno not in _HELD:
                    raise
                return _holders(file) or ["another run"]
            if whole:
                file.truncate(0)
            file.seek(number * PLACE)
            who = f"process {os.getpid()} on {socket.gethostname()}"[: PLACE - 1]
            file.write(who.encode("utf-8", "replace").ljust(PLACE - 1)[: PLACE - 1] + b"\n")
            if whole:
                fcntl.lockf(file, fcntl.LOCK_UN, 0, (number + 1) * PLACE)  # the others' places
            self._file = file
        except OSError as error:
            print(
                f"{self.path} cannot be locked ({error.strerror}): see yourself that no two runs write to one "
                "output_dir.",
                file=sys.stderr,
                flush=True,
            )
        finally:
            if self._file is None:
                file.close()
        return []


def _holders(file: BinaryIO) -> list[str]:
    """Those whose places are locked, as they named themselves."""
    file.seek(0)
    places = file.read()
    living = []
    for start in range(0, len(places), PLACE):
        name = places[start : start + PLACE].strip(b"\0 \n").decode("utf-8", "replace")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, PLACE, start)
            fcntl.lockf(file, fcntl.LOCK_UN, PLACE, start)
        except OSError:
            living.append(name or "another process")
    return living


__all__ = ["OutputLock"]
