"""A directory of cache entries, shared by processes that may not rely on it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from copy import copy
from typing import BinaryIO, Final, NamedTuple

from persidict.exceptions import BackendError, ObjectNotFound
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.cached.budget import LOCK_TIMEOUT_SECONDS, CacheBudget
from persidict.stores.files.platform import native_path
from persidict.stores.files.private import secure_directory
from persidict.stores.files.store import FileStore
from persidict.stores.object_store import BUFFERS, Buffer, ObjectInfo
from persidict.stores.shared.complaint import complain

_ENTRIES: Final = "entries"
_SWEEP_INTERVAL: Final = 1000
"""After how many writes the temporary files of dead writers are looked for again."""

_ENTRY: Final = re.compile(r"[0-9a-f]{40}\.entry")
"""Names of files that are made here; nothing else is ever deleted."""

_ENTRY_OF_ANY_SCOPE: Final = re.compile(rf"[0-9a-f]{{32}}/{_ENTRY.pattern}")
_FOLLOWS_LINKS: Final = os.utime not in os.supports_follow_symlinks

_Trouble: Final = (OSError, BackendError)

_warned_about: set[str] = set()


class FileVersion(NamedTuple):
    """What tells two versions of a file apart, if both are this package's; times in ns."""

    mtime: int
    ctime: int
    size: int
    inode: int


class CacheDirectory:
    """Files below a directory that may vanish, be damaged, and not be writable at all.

    Once made, nothing here raises: what cannot be read is absent, what cannot be written is
    not written, and the first time in a process that the disk is to blame there is a warning.
    Files are replaced atomically and not synced.

    The directory is this user's alone, and each change sees to it that it still is; each
    read, that it is the same one, and that the file is this user's. Links in it are not
    followed, pipes not waited for, and no file is deleted that does not bear the name of an
    entry. Costs, in system calls: a read 1, a change 4.

    Args:
        base_dir: The directory; made with the first write, for this user alone.
        scope: Tells apart those who share the directory; 32 hexadecimal digits. Names of
            files are 40, and ``.entry``.
        size_limit: How many bytes all scopes together may have; None: any. Least recently
            used files go first. Give all who share a directory the same.

    Raises:
        ValueError: `base_dir` is a file.
        BackendError: `base_dir`, or a directory in it, is another user's, or others may
            write to it.
    """

    def __init__(self, base_dir: str, scope: str, *, size_limit: int | None = None) -> None:
        FileStore(base_dir)  # refuses what is no directory
        self.base_dir = base_dir
        self._base_dir = native_path(base_dir)
        entries = os.path.join(self._base_dir, _ENTRIES)
        self._directories = (entries, os.path.join(entries, scope))
        self._seen: tuple[int, ...] | None = None
        self._secure()
        self._files, self._all_files = map(self._files_in, reversed(self._directories))
        self._budget = None
        if size_limit is not None:
            self._budget = CacheBudget(self._base_dir, self._entries, self._all_files, size_limit)
        self._writes = 0

    def _files_in(self, place: str) -> FileStore:
        return FileStore(
            place,
            fsync=False,
            lock_timeout=LOCK_TIMEOUT_SECONDS,
            private_from=self._base_dir,
        )

    def beside(self, scope: str) -> CacheDirectory:
        """Return the same directory for another scope; raises nothing."""
        other = copy(self)
        other._directories = (self._directories[0], os.path.join(self._directories[0], scope))
        other._seen = None
        other._files = self._files_in(other._directories[1])
        other._writes = 0
        return other

    @property
    def evictions(self) -> int:
        """How many files this handle has deleted to stay within the limit."""
        return self._budget.evictions if self._budget else 0

    def _secure(self) -> bool:
        """Raise unless the directories are this user's alone; tell whether all are there."""
        self._seen = None
        if not secure_directory(self._base_dir, may_be_link=True):
            return False
        if not all(map(secure_directory, self._directories)):
            return False
        with contextlib.suppress(FileNotFoundError):
            self._seen = _identity_of(os.lstat(self._directories[1]))
        return True

    def _is_as_seen(self) -> bool:
        """Tell whether entries still are in the directory that was last found to be secure.

        That is enough for reading: each file has to be this user's own, too.
        """
        try:
            return _identity_of(os.lstat(self._directories[1])) == self._seen
        except FileNotFoundError:
            return False

    def _entries(self) -> Iterator[ObjectInfo]:
        """List the entries of all scopes."""
        for entry in self._all_files.list():
            if isinstance(entry, ObjectInfo) and _ENTRY_OF_ANY_SCOPE.fullmatch(entry.name):
                yield entry

    def read(
        self, name: str, sound: FileVersion | None = None
    ) -> tuple[Buffer | BinaryIO, FileVersion] | None:
        """Return a file's content, or a large file itself, and which version it is.

        None if there is nothing to be had. The caller closes the file.

        Args:
            name: The file.
            sound: The version that was found to be sound: it is that wherever it lies now.
        """
        try:
            content, status = self._files.read_with_status(name)
        except ObjectNotFound:
            self._is_trusted()  # warns, if it is not
            return None
        except _Trouble as error:
            self._warn(error)
            return None
        version = FileVersion(status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        if version != sound and not self._is_trusted():
            if not isinstance(content, BUFFERS):
                content.close()
            return None
        if self._budget is not None:
            with contextlib.suppress(OSError):
                # used now, as far as eviction goes
                os.utime(self._files.location(name), follow_symlinks=_FOLLOWS_LINKS)
        return content, version

    def _is_trusted(self) -> bool:
        try:
            return self._is_as_seen() or self._secure()
        except _Trouble as error:
            self._warn(error)
            return False

    def write(self, name: str, content: Buffer) -> None:
        """Replace a file; where that is not possible, nothing is left there."""
        try:
            written = self._write(name, content)
        except FileNotFoundError:
            written = None  # somebody is deleting the whole cache right now
        except _Trouble as error:
            self._warn(error)
            written = None
        if written is None:
            self.remove(name)

    def _write(self, name: str, content: Buffer) -> ETagValue | None:
        if not self._secure():
            self._make_base()
        if self._writes % _SWEEP_INTERVAL == 0:
            for _ in self._files.names():
                continue  # a listing removes the temporary files of dead writers
        self._writes += 1
        if self._budget is None:
            return self._files.put(name, content)
        with self._budget.room_for(self._files.location(name), len(content)) as has_room:
            return self._files.put(name, content) if has_room else None

    def _make_base(self) -> None:
        os.makedirs(os.path.dirname(self._base_dir), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._base_dir, 0o700)
        self._secure()  # somebody else may have been first

    def remove(self, name: str) -> None:
        """Delete a file if there is one."""
        try:
            if self._secure():
                self._files.delete(name)
        except _Trouble as error:
            self._warn(error)

    def clear(self) -> None:
        """Delete all files of this scope."""
        try:
            if not self._secure():
                return
            own = filter(_ENTRY.fullmatch, self._files.names())
            for _, error in self._files.delete_many(own):
                self._warn(error)
        except _Trouble as error:
            self._warn(error)

    def usage(self) -> tuple[int, int]:
        """Return how many bytes and how many files all scopes together have."""
        try:
            self._secure()
            sizes = [entry.size for entry in self._entries()]
        except _Trouble as error:
            self._warn(error)
            return 0, 0
        return sum(sizes), len(sizes)

    def _warn(self, error: Exception) -> None:
        if self._base_dir in _warned_about:
            return
        _warned_about.add(self._base_dir)
        complain(
            f"the cache in {self._base_dir!r} cannot be used and is done without:"
            f" {type(error).__name__}: {error}"
        )


def _identity_of(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mode, status.st_uid
