"""Writers take turns: a fair queue among threads and processes, on flock(2) of a side file.

SQLite lets one writer in at a time, too, but those that wait sleep longer and longer, and one
that never sleeps overtakes them again and again. Here, a writer that has had its time steps
back as long as somebody waits, and who has waited longest is next: the side file says since
when, and those who came later do not reach for the lock. Nor does anybody between two writes of
one turn, or each would find what it had read changed by the time it writes. Whoever stops,
killed or idle, is forgotten after a moment. The queue only makes waiting fair: that there is
one writer is SQLite's business.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final

from persidict.exceptions import BackendError
from persidict.stores.files.descriptor import Descriptor, opened
from persidict.stores.files.lock import holder_of

if sys.platform != "win32":
    import fcntl

_SLICE_SECONDS: Final = 0.002
"""How long a writer may come back without looking whether others wait."""

_LOOK_SECONDS: Final = 0.0001
_MARK_SECONDS: Final = 0.005
"""How long a mark says that somebody waits; those that do renew it."""

_REST_SECONDS: Final = 0.0002
"""Between two writes of a turn that goes on, others do not reach for the lock for so long."""

_MARK: Final = struct.Struct("=dd")
"""When somebody who waits was last seen, and since when that one waits."""

_NOBODY: Final = _MARK.pack(0.0, 0.0)
_WORK: Final = struct.Struct("=d")
"""Behind the mark: when whoever had to wait for its turn wrote last, as long as it goes on."""

_ALL: Final = struct.Struct("=ddd")


class Turn:
    """One thread's place in the queue for a database.

    Args:
        path: The side file; made when it is missing. It stays empty but for a hint. None:
            there is nobody to wait for.

    Raises:
        BackendError: There is something else in its place: a link, a pipe, a directory.

    Attributes:
        release: Lets the next writer in; whether the turn is held or not. It is implemented
            in C, so that no signal handler can come between it and a ``finally``.
    """

    __slots__ = ("_fd", "_file", "_has_waited", "_path", "_slice_end", "release")

    release: Callable[[], Any]

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._slice_end = 0.0
        self._has_waited = False
        self._fd = -1
        self._file: Descriptor | None = None
        if sys.platform == "win32" or path is None:
            self.release = partial(bool)
            return
        self._file = _opened_queue(path)
        self._fd = self._file.fileno()
        self.release = partial(fcntl.flock, self._file, fcntl.LOCK_UN)

    def take(self, timeout: float) -> None:
        """Wait until it is this thread's turn.

        Raises:
            BackendError: It did not come within `timeout` seconds.
        """
        if sys.platform == "win32" or self._file is None:
            return
        now = monotonic()
        goes_on = now < self._slice_end
        if self._has_waited:
            os.pwrite(self._fd, _WORK.pack(now if goes_on else 0.0), _MARK.size)
            self._has_waited = goes_on
        if goes_on or not self._somebody_waits(now):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                if not goes_on:
                    self._slice_end = now + _SLICE_SECONDS
                return
        self._wait(now + timeout, timeout)

    def _wait(self, deadline: float, timeout: float) -> None:
        arrived = now = monotonic()
        while not self.reach(now, arrived):
            if now > deadline:
                raise BackendError(
                    f"timed out after {timeout} s of waiting for another writer of the"
                    f" database beside {self._path!r}: its turn was held by"
                    f" {holder_of(os.fstat(self._fd))}",
                    backend="sqlite",
                )
            time.sleep(random.uniform(0.5, 1.5) * _LOOK_SECONDS)
            now = monotonic()

    def reach(self, now: float, arrived: float) -> bool:
        """Take the turn, unless somebody has it, or is known to have waited for longer.

        Args:
            now: The time.
            arrived: Since when this one has waited.
        """
        assert sys.platform != "win32"
        marks = os.pread(self._fd, _ALL.size, 0).ljust(_ALL.size, b"\0")
        seen, since, worked = _ALL.unpack(marks)
        if 0.0 <= now - seen < _MARK_SECONDS and since < arrived:
            return False
        os.pwrite(self._fd, _MARK.pack(now, arrived), 0)
        if 0.0 <= now - worked < _REST_SECONDS:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # others that wait say so again within the time of one look
        os.pwrite(self._fd, _NOBODY, 0)
        self._has_waited = True
        self._slice_end = monotonic() + _SLICE_SECONDS
        return True

    def _somebody_waits(self, now: float) -> bool:
        mark = os.pread(self._fd, _MARK.size, 0)
        return len(mark) == _MARK.size and 0.0 <= now - _MARK.unpack(mark)[0] < _MARK_SECONDS

    def leave(self, end: Callable[[], object]) -> None:
        """Do the last thing in turn, unless somebody else has it, and close the file."""
        file = self._file
        try:
            # the garbage collector may have come before
            if file is not None and not file.closed:
                with suppress(BackendError):
                    self.take(0.0)
            end()
        finally:
            if file is not None and not file.closed:
                self.release()
                file.close()

    def give_up(self) -> None:
        """Close the file in a forked child: what the parent holds, it keeps."""
        if self._file is not None:
            self._file.close()


def _opened_queue(path: str) -> Descriptor:
    """Open the side file, or make it; follows no link and waits for no pipe."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    refused = None
    try:
        file = opened(path, flags)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.EMLINK):
            raise
        refused = error
    raise BackendError(
        f"{path!r} is no file of this package, but a link, a pipe or the like: delete it",
        backend="sqlite",
    ) from refused
