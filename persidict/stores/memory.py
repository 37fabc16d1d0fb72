"""A store in RAM: the reference of the port."""

from __future__ import annotations

import builtins
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Literal, NoReturn, TypeAlias, cast

from persidict.buffers import settled
from persidict.exceptions import BackendError, MutationPolicyError, ObjectNotFound
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagValue
from persidict.stores.memory_block import TIMEOUT_SECONDS, MemoryBlock
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
from persidict.stores.unencoded import Unencoded
from persidict.traits import Traits

_HAS_GIL: Final = bool(getattr(sys, "_is_gil_enabled", lambda: True)())
"""Whether statements that call nothing are one step among threads, too."""
_FEW_HOLES: Final = 64
_HOLES: Final = 8

Stored: TypeAlias = tuple[Buffer | Unencoded, ETagValue, float]
"""Bytes, version and time of writing; a plain tuple, which is fastest to make."""


class Memory:
    """What all scopes of one store share: objects by directory and file name.

    The thread that holds the lock may be called away at any moment, by a signal or by the
    `__del__` of something, and find itself here again. So a change is prepared, and made only
    if no other was made meanwhile, by statements that call nothing: the interpreter turns to
    signals, and to other threads, at calls and at the beginnings of loops. So what replaces an
    object whatever it is needs no lock.

    Attributes:
        directories: The objects that are there for everybody.
        changes: How many changes have been made.
        is_copied: Whether all of it is being copied: then every change waits for the lock, as
            there would be no end to it. Left set by an interruption, it costs time alone.
        lock: Held while something changes, and while all of it is looked at.
        writer: The transaction that all other writers wait for.
        writer_left: Tells them, under the lock.
        blocks: The innermost transaction of each thread that has one open.
    """

    def __init__(self) -> None:
        self.directories: dict[str, dict[str, Stored]] = {}
        self.changes = 0
        self._holes: dict[str | None, int] = {}
        self.start_afresh()
        _memories.add(self)

    def start_afresh(self) -> None:
        """Begin without locks and transactions; those there were are somebody else's.

        Versions begin anywhere, so that a cache that outlives this memory mistakes no other
        for it.
        """
        self.lock = threading.RLock()
        self.is_copied = False
        self.writer: MemoryBlock | None = None
        self.writer_left = threading.Condition(self.lock)
        self.blocks: dict[int, MemoryBlock] = {}
        numbers = itertools.count(int.from_bytes(os.urandom(8)) >> 2)
        self.new_etags = cast("Iterator[ETagValue]", map(str, numbers))

    def seen(self) -> dict[str, dict[str, Stored]]:
        """Return what this thread sees."""
        blocks = self.blocks
        if not blocks:
            return self.directories
        block = blocks.get(threading.get_ident())
        return self.directories if block is None else block.view

    def block_to_change(self) -> MemoryBlock | None:
        """Return this thread's transaction, or wait for those of others; under the lock.

        Raises:
            MutationPolicyError: It is read-only.
        """
        if not self.blocks:
            return None
        block = self.blocks.get(threading.get_ident())
        if block is None:
            self.wait_for_writer()
        elif block.read_only:
            raise MutationPolicyError("read-only", "the transaction is read-only")
        return block

    def wait_for_writer(self) -> None:
        """Wait, under the lock, until no transaction is open that writes.

        Raises:
            BackendError: One stays open for a minute.
        """
        if not self.writer_left.wait_for(self._may_write, TIMEOUT_SECONDS):
            raise BackendError(
                f"timed out after {TIMEOUT_SECONDS:.0f} s: another thread's transaction is open",
                backend="memory",
            )

    def _may_write(self) -> bool:
        # this thread's own block has come to its end, where a signal handler writes on
        return self.writer is None or self.writer.is_of_this_thread

    def without_holes(
        self, table: dict[str, dict[str, Stored]], directory: str, files: dict[str, Stored]
    ) -> tuple[dict[str, dict[str, Stored]], dict[str, Stored]]:
        """Return the table of directories and one of them, from which an entry is to be deleted.

        A dict keeps a hole for every entry that was deleted, and looks through those at its
        beginning for the first that is there: they must not become too many. So either of the
        two is a copy now and then, to be put in its place.
        """
        if len(files) == 1:
            self._holes.pop(directory, None)
            if self._is_full_of_holes(None, len(table)):
                table = {**table}
        elif self._is_full_of_holes(directory, len(files)):
            files = {**files}
        return table, files

    def _is_full_of_holes(self, where: str | None, n_entries: int) -> bool:
        holes = self._holes.get(where, 0) + 1
        is_full = holes > _FEW_HOLES and holes * holes > _HOLES * n_entries
        self._holes[where] = 0 if is_full else holes
        return is_full


_memories: weakref.WeakSet[Memory] = weakref.WeakSet()


def _part_from_parent() -> None:
    """In a forked child: lock holders do not exist here, and writes are no longer shared."""
    for memory in _memories:
        memory.start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_part_from_parent)


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
