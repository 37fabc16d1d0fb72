"""A limit on the bytes of a cache that many processes write to."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from persidict import log
from persidict.exceptions import BackendError
from persidict.stores.files.descriptor import Descriptor, opened
from persidict.stores.files.lock import DirectoryLock
from persidict.stores.files.platform import READ_FLAGS
from persidict.stores.files.private import require_private
from persidict.stores.files.store import FileStore
from persidict.stores.object_store import ObjectInfo

_USAGE_FILE: Final = "usage"
_USAGE: Final = struct.Struct("<QI")
LOCK_TIMEOUT_SECONDS: Final = 2.0
"""How long a cache waits for a lock before it does without the copy."""

_FILL_AFTER_EVICTION: Final = 0.9
"""How full a cache is left by an eviction, so that not every write has to evict."""


class CacheBudget:
    """Keeps the files of a cache within a limit by deleting the least recently used ones.

    The bytes in use are counted in a file that all processes share. Who writes holds the
    directory's lock meanwhile, so that the limit holds at every moment; who reads or deletes
    does not. The count is raised before a file is written and lowered by counting anew, so
    that whoever dies leaves it too high at worst, and an early eviction sets it right.

    Args:
        directory: Holds the count, and is locked. It is made, and seen to be this user's
            alone, by the caller.
        entries: Lists the files that count.
        files: Where they are.
        limit: How many bytes they may have in all.
    """

    def __init__(
        self,
        directory: str,
        entries: Callable[[], Iterable[ObjectInfo]],
        files: FileStore,
        limit: int,
    ) -> None:
        self._directory = directory
        self._usage_path = os.path.join(directory, _USAGE_FILE)
        self._entries = entries
        self._files = files
        self._limit = limit
        self.evictions = 0

    @contextlib.contextmanager
    def room_for(self, path: str, size: int) -> Iterator[bool]:
        """Make room for a file that is written in the body of the `with` statement.

        Args:
            path: The file; what it replaces makes room, too.
            size: Its bytes.

        Yields:
            Whether there is room. Otherwise the file must not be written.

        Raises:
            OSError: The directory cannot be used.
            BackendError: Others keep it locked, or what should be the count is no file.
        """
        if size > self._limit:
            yield False
            return
        lock = DirectoryLock(self._directory, timeout=LOCK_TIMEOUT_SECONDS)
        try:
            used = self._recorded_use()
            replaced = _size_of(path)
            # Who writes here without a limit does not count: the count may be too low.
            if used is None or used < replaced or used - replaced + size > self._limit:
                used = self._evict(size)
                replaced = _size_of(path)
            expected = max(0, used - replaced) + size
            if expected > self._limit:
                yield False
                return
            self._record_use(expected)
            try:
                yield True
            except BaseException:
                self._record_use(used)
                raise
        finally:
            lock.descriptor.close()

    def _recorded_use(self) -> int | None:
        """Return the bytes in use as counted; None if nobody has counted, or not legibly."""
        try:
            usage = self._open_usage(READ_FLAGS)
        except FileNotFoundError:
            return None
        try:
            content = os.read(usage.fileno(), _USAGE.size + 1)
        finally:
            usage.close()
        if len(content) != _USAGE.size:
            return None
        used, checksum = _USAGE.unpack(content)
        return used if checksum == zlib.crc32(content[:8]) else None

    def _record_use(self, used: int) -> None:
        number = struct.pack("<Q", used)
        usage = self._open_usage(READ_FLAGS | os.O_RDWR | os.O_CREAT)
        try:
            os.write(usage.fileno(), number + struct.pack("<I", zlib.crc32(number)))
        finally:
            usage.close()

    def _open_usage(self, flags: int) -> Descriptor:
        """Open the count; raise BackendError if that could be a file of somebody else."""
        path = self._usage_path
        usage = opened(path, flags, 0o600)
        try:
            status = os.fstat(usage.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise BackendError(f"{path!r} is no regular file of its own", backend="files")
            require_private(path, status)
        except BaseException:
            usage.close()
            raise
        return usage

    def _evict(self, size: int) -> int:
        """Count the bytes in use, and delete files if they leave too little room."""
        files = list(self._entries())
        used = sum(file.size for file in files)
        if used + size <= self._limit:
            return used
        goal = max(0, int(self._limit * _FILL_AFTER_EVICTION) - size)
        files.sort(key=lambda file: file.last_modified, reverse=True)
        doomed = {}
        left = used
        while files and left > goal:
            file = files.pop()
            doomed[file.name] = file.size
            left -= file.size
        for name, _ in self._files.delete_many(doomed):
            left += doomed.pop(name)
        self.evictions += len(doomed)
        log.debug("evicted %d files from the cache %r", len(doomed), self._directory)
        return left


def _size_of(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0
