"""Large values: in files beside the database.

A file is complete and synced before a row names it, and is deleted only after no row does, not
even one that a power failure brings back: so whatever stops when, every row finds its bytes.
That takes the syncs also where commits are not durable: a row can reach the disk at any time,
and takes the place of a value that had been safe. The name of a file tells the version that
it holds: no file is ever written twice. What a killed writer leaves behind no row names: `sweep`
finds it.
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from io import BufferedReader, FileIO
from typing import BinaryIO, Final

from persidict.buffers import pieces
from persidict.exceptions import BackendError
from persidict.stores.files.descriptor import Descriptor, opened
from persidict.stores.files.lock import claim_file, remove_if_unclaimed
from persidict.stores.files.platform import CREATE_FLAGS, READ_FLAGS, sync_directory
from persidict.stores.object_store import Buffer

if sys.platform != "win32":
    import fcntl

_HOLD: Final = ".hold"
_HOLD_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
_MAX_RACES: Final = 100


class NewFile:
    """A file that no row names yet, claimed so that no sweeper takes it for abandoned.

    Nothing is made before `write`: who has this object in hand can discard whatever an
    interruption leaves.

    Args:
        directory: Where it is to be; made when it is missing.
        etag: The version that it is to hold.

    Attributes:
        name: Its name among the value files; that of the version, unless others took it.
    """

    __slots__ = ("_directory", "_etag", "_file", "name")

    def __init__(self, directory: str, etag: str) -> None:
        self.name = etag
        self._directory = directory
        self._etag = etag
        self._file: Descriptor | None = None

    def write(self, data: Buffer) -> None:
        """Write the bytes, whole, and make them and the name durable.

        Costs: the file is created, written and synced, and its directory synced.
        """
        for attempt in itertools.count(1):
            if self._make():
                break
            if attempt == _MAX_RACES:
                raise BackendError(f"what is written into {self._directory!r} vanishes at once")
            # a sweeper that came before it was claimed deletes what has the old name
            self.name = f"{self._etag}-{attempt}"
        self.fill(data)
        sync_directory(self._directory)

    def _make(self) -> bool:
        """Make the file and claim it; False: a sweeper came between, or the directory went."""
        path = os.path.join(self._directory, self.name)
        try:
            self._file = opened(path, CREATE_FLAGS)
        except FileNotFoundError:
            os.makedirs(self._directory, exist_ok=True)
            sync_directory(os.path.dirname(self._directory))
            return False
        fd = self._file.fileno()
        if claim_file(fd) and os.fstat(fd).st_nlink:
            return True
        self._file.close()
        return False

    def fill(self, data: Buffer) -> None:
        """Write the bytes, and make them durable."""
        assert self._file is not None
        fd = self._file.fileno()
        for piece in pieces(data):
            view = memoryview(piece)
            while len(view):
                view = view[os.write(fd, view) :]
        os.fsync(fd)

    def close(self) -> None:
        """Let go of it: a row names it now, or will once a transaction is committed."""
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Delete it, if it was made: no row will name it."""
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._directory, self.name))
        self.close()


class Hold:
    """A lock that keeps value files from being deleted, until it is closed; others share it.

    Args:
        path: The file that is locked; made when it is missing.
    """

    __slots__ = ("_file",)

    def __init__(self, path: str) -> None:
        self._file = opened(path, _HOLD_FLAGS)
        if sys.platform != "win32":
            # whoever deletes has it for less than a moment, see `_is_held`
            fcntl.flock(self._file.fileno(), fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go; closing alone is not enough while a forked child has a copy."""
        if sys.platform != "win32" and not self._file.closed:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_UN)
        self._file.close()


def _is_held(path: str) -> bool:
    """Tell whether anybody holds a file.

    It is locked and let go in one call of C code: nobody who comes to hold it waits for who
    asks, be it a signal handler in the same thread, or while this process is stopped.

    Raises:
        FileNotFoundError: There is no directory for it.
    """
    if sys.platform == "win32":
        return False
    file = opened(path, _HOLD_FLAGS)
    fd = file.fileno()
    try:
        list(map(fcntl.flock, (fd, fd), (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN)))
    except BlockingIOError:
        return True
    finally:
        file.close()
    return False


class ValueFiles:
    """The files of one database.

    Args:
        directory: Where they are; made with the first of them.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.directory, name)

    def new(self, etag: str) -> NewFile:
        """Return the file for a version, which is not made yet."""
        return NewFile(self.directory, etag)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; it stays readable when it is deleted meanwhile.

        Raises:
            FileNotFoundError: There is none any more: the row has changed.
        """
        # in one call of C code, so that an interruption leaves no descriptor without an owner
        return BufferedReader(next(map(FileIO, map(os.open, (self.path(name),), (READ_FLAGS,)))))

    def names(self) -> Iterator[str]:
        """List the files there are."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        yield from (name for name in names if name != _HOLD)

    def delete(self, names: Iterable[str]) -> bool:
        """Delete files that no row names, unless a snapshot may still do so.

        One that begins later sees no such row, so it need not be kept from beginning.

        Returns:
            Whether they are gone.
        """
        try:
            if _is_held(self.path(_HOLD)):
                return False
        except FileNotFoundError:
            return False
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(self.path(name))
        return True

    def keep(self, *, may_make: bool) -> Hold | None:
        """Keep all files from deletion, also by other processes, until the result is closed.

        Args:
            may_make: Whether the directory is made when it is missing.

        Returns:
            None where there is no directory, or nothing can be written: nobody deletes there.
        """
        try:
            if may_make:
                os.makedirs(self.directory, exist_ok=True)
            return Hold(self.path(_HOLD))
        except PermissionError:
            return None
        except FileNotFoundError:
            if may_make:
                raise
            return None
        except OSError as error:
            if error.errno == errno.EROFS:
                return None
            raise

    def sweep(self, known: Container[str]) -> None:
        """Delete what killed writers left; no row may come to name a file meanwhile.

        Args:
            known: The files that rows name.
        """
        for name in self.names():
            if name not in known:
                remove_if_unclaimed(self.path(name))
