"""A directory of cache entries, shared by processes that may not rely on it."""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO, Final

from persidict.exceptions import BackendError, ObjectNotFound
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.cached.budget import LOCK_TIMEOUT_SECONDS, CacheBudget
from persidict.stores.files.store import FileStore
from persidict.stores.object_store import Buffer, NotModified, ObjectInfo
from persidict.stores.shared.complaint import complain

_ENTRIES: Final = "entries"
_SWEEP_INTERVAL: Final = 1000
"""After how many writes the temporary files of dead writers are looked for again."""

_Trouble: Final = (OSError, BackendError)

_warned_about: set[str] = set()


class CacheDirectory:
    """Files below a directory that may vanish, be damaged, and not be writable at all.

    Nothing here raises: what cannot be read is absent, what cannot be written is not
    written, and the first time in a process that the disk is to blame there is a warning.
    Files are replaced atomically and not synced.

    Args:
        base_dir: The directory; made with the first write.
        scope: Tells apart those who share the directory; a safe name.
        size_limit: How many bytes all scopes together may have; None: any. Least recently
            used files go first. Give all who share a directory the same.

    Raises:
        ValueError: `base_dir` is a file.
    """

    def __init__(self, base_dir: str, scope: str, *, size_limit: int | None = None) -> None:
        FileStore(base_dir)  # refuses what is no directory
        self._base_dir = base_dir
        entries = os.path.join(base_dir, _ENTRIES)
        self._files = FileStore(
            os.path.join(entries, scope), fsync=False, lock_timeout=LOCK_TIMEOUT_SECONDS
        )
        self._all_files = FileStore(entries, fsync=False, lock_timeout=LOCK_TIMEOUT_SECONDS)
        self._budget = None
        if size_limit is not None:
            self._budget = CacheBudget(base_dir, self._all_files, size_limit)
        self._writes = 0

    @property
    def evictions(self) -> int:
        """How many files this handle has deleted to stay within the limit."""
        return self._budget.evictions if self._budget else 0

    def read(self, name: str) -> tuple[Buffer | BinaryIO, ObjectInfo] | None:
        """Return a file's content, or a large file itself, and what is known of it.

        None if there is nothing to be had. The caller closes the file.
        """
        try:
            found = self._files.get_or_open(name)
        except ObjectNotFound:
            return None
        except _Trouble as error:
            self._warn(error)
            return None
        assert not isinstance(found, NotModified)
        if self._budget is not None:
            with contextlib.suppress(OSError):
                os.utime(self._files.location(name))  # used now, as far as eviction goes
        return found

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
        if self._writes % _SWEEP_INTERVAL == 0:
            for _ in self._files.names():
                continue  # a listing removes the temporary files of dead writers
        self._writes += 1
        if self._budget is None:
            return self._files.put(name, content)
        with self._budget.room_for(self._files.location(name), len(content)) as has_room:
            return self._files.put(name, content) if has_room else None

    def remove(self, name: str) -> None:
        """Delete a file if there is one."""
        try:
            self._files.delete(name)
        except _Trouble as error:
            self._warn(error)

    def clear(self) -> None:
        """Delete all files of this scope."""
        for _, error in self._files.delete_many(self._files.names()):
            self._warn(error)

    def usage(self) -> tuple[int, int]:
        """Return how many bytes and how many files all scopes together have."""
        sizes = [entry.size for entry in self._all_files.list() if isinstance(entry, ObjectInfo)]
        return sum(sizes), len(sizes)

    def _warn(self, error: Exception) -> None:
        if self._base_dir in _warned_about:
            return
        _warned_about.add(self._base_dir)
        complain(
            f"the cache in {self._base_dir!r} cannot be used and is done without:"
            f" {type(error).__name__}: {error}"
        )
