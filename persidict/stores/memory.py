"""A store in RAM: the reference of the port."""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Literal, NoReturn, cast

from persidict.buffers import settled
from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagValue
from persidict.stores.memory_contents import Memory, MemoryBlock, Stored
from persidict.stores.object_store import (
    ANY_VERSION,
    NOT_MODIFIED,
    AnyVersion,
    Buffer,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
    check_version,
    list_from_sorted,
)
from persidict.stores.site import Site
from persidict.traits import Traits

_HAS_GIL: Final = bool(getattr(sys, "_is_gil_enabled", lambda: True)())
"""Whether statements that call nothing are one step among threads, too."""


class MemoryStore(ObjectStore):
    """Named bytes in RAM, safe among threads. ETags count the writes and never repeat.

    Args:
        name: What this process knows the memory by, if it does.

    Examples:
        >>> store = MemoryStore()
        >>> etag = store.put("a/b", b"data")
        >>> store.get("a/b")[0]
        b'data'
    """

    traits = Traits(reads_are_cheap=True, back_off_seconds=0.00002)

    def __init__(self, *, name: str | None = None) -> None:
        self._memory = Memory()
        self._name = name
        self._prefix = ""
        self._block: MemoryBlock | None = None

    def __repr__(self) -> str:
        scope = f" below {self._prefix!r}" if self._prefix else ""
        return f"<MemoryStore{scope} at {id(self._memory):#x}>"

    @property
    def site(self) -> Site:
        """Where the objects lie: in which memory."""
        return Site(("memory", id(self._memory)), self._prefix)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryStore):
            return NotImplemented
        return self._memory is other._memory and self._prefix == other._prefix

    def __hash__(self) -> int:
        return hash((id(self._memory), self._prefix))

    def __copy__(self) -> MemoryStore:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryStore:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "items in RAM cannot be pickled or passed to another process:"
            " use a FileDirDict or an S3 dictionary"
        )

    @property
    def path(self) -> str | None:
        """The name of the memory and the prefix in it; None: it has no name."""
        return None if self._name is None else f"{self._name}/{self._prefix}".rstrip("/")

    def _seen(self) -> dict[str, dict[str, Stored]]:
        if self._block is not None:
            self._block.check()
        return self._memory.seen()

    def _block_to_change(self) -> MemoryBlock | None:
        if self._block is not None:
            self._block.check()  # another thread's would be waited for, and in vain
        return self._memory.block_to_change()

    def find(self, name: str) -> Stored:
        """Return the bytes, the version and the time of an object.

        Raises:
            ObjectNotFound: There is none.
        """
        directory, _, file_name = (self._prefix + name).rpartition("/")
        memory = self._memory
        try:
            if self._block is None and not memory.blocks:
                return memory.directories[directory][file_name]
            return self._seen()[directory][file_name]
        except KeyError as absent:
            raise ObjectNotFound(name) from absent

    def head(self, name: str) -> ObjectInfo:
        data, etag, last_modified = self.find(name)
        return ObjectInfo(name, etag, len(data), last_modified)

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        data, etag, last_modified = self.find(name)
        if if_none_match == etag:
            return NOT_MODIFIED
        return cast("Buffer", data), ObjectInfo(name, etag, len(data), last_modified)

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        held = data if type(data) is bytes else settled(data)
        memory = self._memory
        directory, _, file_name = (self._prefix + name).rpartition("/")
        if if_match is None and if_none_match is None:
            stored = (held, next(memory.new_etags), time.time())
            # no calls from here on: nothing comes between, no other thread either; see Memory
            if _HAS_GIL and self._block is None and not memory.blocks and not memory.is_copied:
                directories = memory.directories
                if directory in directories:
                    memory.changes += 1
                    directories[directory][file_name] = stored
                    return stored[1]
        with memory.lock:
            while True:
                changes = memory.changes
                block, seen = self._block_to_change(), self._seen()
                files = seen.get(directory)
                replaced = files.get(file_name) if files else None
                if if_match is not None or if_none_match is not None:
                    check_version(
                        replaced[1] if replaced else ITEM_NOT_AVAILABLE, if_match, if_none_match
                    )
                if block is not None:
                    files = block.files_to_change(directory)
                elif files is None:
                    files = {}
                etag = next(memory.new_etags)
                stored = (held, etag, time.time())
                if memory.changes == changes:
                    # no calls from here on: nothing comes between; see Memory
                    memory.changes = changes + 1
                    files[file_name] = stored
                    seen[directory] = files
                    if block is not None:
                        block.copied[directory] = True
                    return etag

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        memory = self._memory
        directory, _, file_name = (self._prefix + name).rpartition("/")
        with memory.lock:
            while True:
                changes = memory.changes
                block = self._block_to_change()
                seen = self._seen()
                files = seen.get(directory, {})
                found = files.get(file_name)
                if found is None:
                    if if_match is None:
                        return
                    raise ObjectNotFound(name)
                if if_match is not None and if_match != ANY_VERSION:
                    check_version(found[1], if_match, None)
                if block is not None:
                    files = block.files_to_change(directory)
                else:
                    seen, files = memory.without_holes(seen, directory, files)
                is_last = len(files) == 1
                if memory.changes == changes:
                    # no calls from here on, and `found` lives on: nothing comes between
                    memory.changes = changes + 1
                    del files[file_name]
                    if is_last:
                        if directory in seen:
                            del seen[directory]
                    else:
                        seen[directory] = files
                    if block is None:
                        memory.directories = seen
                    else:
                        block.copied[directory] = True
                    return

    def names(
        self, prefix: str = "", *, start_after: str | None = None, page_size: int | None = None
    ) -> Iterator[str]:
        """List names alone, in no order unless after one; the first takes one look."""
        if start_after is not None:
            yield from sorted(name for name in self._all_names(prefix) if name > start_after)
            return
        first = self._some_name(prefix)
        if first is None:
            return
        yield first
        others = self._all_names(prefix)
        with suppress(ValueError):  # it has been deleted meanwhile
            others.remove(first)
        yield from others

    def _some_name(self, prefix: str) -> str | None:
        """Return a name that begins with a prefix, None if there is none."""
        whole_prefix = self._prefix + prefix
        strip = len(self._prefix)
        with self._memory.lock:
            name = self._first_at(whole_prefix)
        return None if name is None else name[strip:]

    def _first_at(self, whole_prefix: str) -> str | None:
        """Return a whole name that begins so, None if there is none; under the lock."""
        for directory, files in self._tables_at(whole_prefix):
            path = f"{directory}/" if directory else ""
            within = whole_prefix[len(path) :]
            for name in files if not within else files.copy():
                if name.startswith(within):
                    return path + name
        return None

    def _tables_at(self, whole_prefix: str) -> Iterator[tuple[str, dict[str, Stored]]]:
        """Iterate over the directories that may hold names with a prefix; under the lock."""
        seen = self._seen()
        if not whole_prefix:
            for directory in seen:
                yield directory, seen[directory]
                break
        itself = seen.get(whole_prefix[:-1]) if whole_prefix.endswith("/") else None
        if itself is not None:
            yield whole_prefix[:-1], itself
        for directory, files in seen.copy().items():
            path = f"{directory}/" if directory else ""
            if path.startswith(whole_prefix) or whole_prefix.startswith(path):
                yield directory, files

    def _all_names(self, prefix: str) -> builtins.list[str]:
        """Return the names that begin with a prefix."""
        whole_prefix = self._prefix + prefix
        with self._memory.lock:
            listed = [(directory, [*files]) for directory, files in self._seen().copy().items()]
        strip = len(self._prefix)
        found: builtins.list[str] = []
        for directory, names in listed:
            path = f"{directory}/" if directory else ""
            if path.startswith(whole_prefix):
                above = path[strip:]
                found += [above + name for name in names] if above else names
            elif whole_prefix.startswith(path):
                within = whole_prefix[len(path) :]
                found += [(path + name)[strip:] for name in names if name.startswith(within)]
        return found

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        strip = len(self._prefix)
        whole_prefix = self._prefix + prefix
        found = []
        with self._memory.lock:
            listed = [(directory, files.copy()) for directory, files in self._seen().copy().items()]
        for directory, files in listed:
            path = f"{directory}/" if directory else ""
            if path.startswith(whole_prefix) or whole_prefix.startswith(path):
                found += [
                    ObjectInfo((path + name)[strip:], etag, len(data), last_modified)
                    for name, (data, etag, last_modified) in files.items()
                    if (path + name).startswith(whole_prefix)
                ]
        found.sort()
        return list_from_sorted(found, prefix=prefix, start_after=start_after, delimiter=delimiter)

    def scoped(self, prefix: str) -> MemoryStore:
        scope = MemoryStore.__new__(MemoryStore)
        scope._memory = self._memory
        scope._prefix = self._prefix + prefix
        scope._block = self._block
        scope._name = self._name
        return scope

    def transaction(self, *, read_only: bool) -> tuple[MemoryStore, MemoryBlock]:
        """Prepare a transaction of this thread; nested ones are parts of the outermost.

        Costs: a directory is copied before it is first changed, by reference; everything is,
        where it is `read_only`.

        Returns:
            This store as seen from inside, usable as long as the transaction is open; and what
            begins it, commits it, or undoes it when it is closed.
        """
        inside = self.scoped("")
        inside._block = MemoryBlock(self._memory, read_only=read_only)
        return inside, inside._block
