"""Large values: in files beside the database.

A file is complete and synced before a row names it, and is deleted only after no row does, not
even one that a power failure brings back: so whatever stops when, every row finds its bytes.
That takes the syncs also where commits are not durable: a row can reach the disk at any time,
and takes the place of a value that had been safe. The name of a file is the version that it
holds: no file is ever written twice. What a killed writer leaves behind no row names: `sweep`
finds it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from io import BufferedReader, FileIO
from typing import BinaryIO, Final

from persidict.buffers import pieces
from persidict.exceptions import BackendError
from persidict.stores.files.lock import claim_file, remove_if_unclaimed
from persidict.stores.files.platform import READ_FLAGS, sync_directory
from persidict.stores.object_store import Buffer

if sys.platform != "win32":
    import fcntl

_HOLD: Final = ".hold"
_MAX_RACES: Final = 100


class NewFile:
    """A file that no row names yet, claimed so that no sweeper takes it for abandoned.

    Attributes:
        name: Its name among the value files.
    """

    __slots__ = ("_file", "_path", "name")

    def __init__(self, path: str, name: str) -> None:
        self.name = name
        self._path = path
        self._file = FileIO(path, "xb")
        fd = self._file.fileno()
        if not claim_file(fd) or not os.fstat(fd).st_nlink:
            self._file.close()
            # a sweeper came before it was claimed
            raise FileNotFoundError(path)

    def fill(self, data: Buffer) -> None:
        """Write the bytes, and make them durable."""
        for piece in pieces(data):
            view = memoryview(piece)
            while len(view):
                view = view[self._file.write(view) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of it: a row names it now, or will once a transaction is committed."""
        self._file.close()

    def discard(self) -> None:
        """Delete it: no row will name it."""
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._file.close()


class Hold:
    """A lock that keeps value files from being deleted, until it is closed.

    Args:
        path: The file that is locked; made when it is missing.
        shared: Whether others may hold it, too: whoever reads does, whoever deletes does not.

    Raises:
        BlockingIOError: Somebody who does not share holds it, or anybody, and this one does not.
    """

    __slots__ = ("_file",)

    def __init__(self, path: str, *, shared: bool) -> None:
        self._file = FileIO(path, "ab")
        if sys.platform != "win32":
            # whoever deletes does so for a moment; snapshots last
            how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB
            try:
                fcntl.flock(self._file, how)
            except BaseException:
                self._file.close()
                raise

    def close(self) -> None:
        """Let go; closing alone is not enough while a forked child has a copy."""
        if sys.platform != "win32" and not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()


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

    def write(self, etag: str, data: Buffer) -> NewFile:
        """Write the bytes of a version to a file of their own, whole or not at all.

        Costs: the file is created, written, synced and closed, and its directory synced.
        """
        file = self._new(etag)
        try:
            file.fill(data)
            sync_directory(self.directory)
        except BaseException:
            file.discard()
            raise
        return file

    def _new(self, name: str) -> NewFile:
        for _ in range(_MAX_RACES):
            with suppress(FileNotFoundError):
                return NewFile(self.path(name), name)
            os.makedirs(self.directory, exist_ok=True)
            sync_directory(os.path.dirname(self.directory))
        raise BackendError(f"what is written into {self.directory!r} vanishes at once")

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

        Returns:
            Whether they are gone.
        """
        try:
            hold = Hold(self.path(_HOLD), shared=False)
        except (BlockingIOError, FileNotFoundError):
            return False
        try:
            for name in names:
                with suppress(FileNotFoundError):
                    os.unlink(self.path(name))
        finally:
            hold.close()
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
            return Hold(self.path(_HOLD), shared=True)
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
