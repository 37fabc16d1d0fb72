"""A store in RAM: the reference of the port."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Literal, NoReturn, TypeAlias, cast

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
from persidict.stores.place import Place
from persidict.traits import Traits

_Stored: TypeAlias = tuple[Buffer, ETagValue, float]
"""Bytes, version and time of writing; a plain tuple, which is fastest to make."""


class Memory:
    """What all scopes of one store share: objects by directory and file name.

    Attributes:
        directories: The objects that are there for everybody.
        lock: Held while something changes, and while all of it is looked at.
        writer: The transaction that all other writers wait for.
        writer_left: Tells them, under the lock.
        blocks: The innermost transaction of each thread that has one open.
    """

    def __init__(self) -> None:
        self.directories: dict[str, dict[str, _Stored]] = {}
        self.start_afresh()
        _memories.add(self)

    def start_afresh(self) -> None:
        """Begin without locks and transactions; those there were are somebody else's.

        Versions begin anywhere, so that a cache that outlives this memory mistakes no other
        for it.
        """
        self.lock = threading.Lock()
        self.writer: MemoryBlock | None = None
        self.writer_left = threading.Condition(self.lock)
        self.blocks: dict[int, MemoryBlock] = {}
        numbers = itertools.count(random.SystemRandom().getrandbits(62))
        self.new_etags = cast("Iterator[ETagValue]", map(str, numbers))

    def seen(self) -> dict[str, dict[str, _Stored]]:
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
        if not self.writer_left.wait_for(lambda: self.writer is None, TIMEOUT_SECONDS):
            raise BackendError(
                f"timed out after {TIMEOUT_SECONDS:.0f} s: another thread's transaction is open",
                backend="memory",
            )


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

    Example:
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
    def place(self) -> Place:
        """Where the objects lie: in which memory."""
        return Place(("memory", id(self._memory)), self._prefix)

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

    def _split(self, name: str) -> tuple[str, str]:
        directory, _, file_name = (self._prefix + name).rpartition("/")
        return directory, file_name

    def _seen(self) -> dict[str, dict[str, _Stored]]:
        if self._block is not None:
            self._block.check()
        return self._memory.seen()

    def _find(self, name: str) -> _Stored:
        directory, file_name = self._split(name)
        try:
            return self._seen()[directory][file_name]
        except KeyError as absent:
            raise ObjectNotFound(name) from absent

    def head(self, name: str) -> ObjectInfo:
        data, etag, last_modified = self._find(name)
        return ObjectInfo(name, etag, len(data), last_modified)

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        data, etag, last_modified = self._find(name)
        if if_none_match == etag:
            return NOT_MODIFIED
        return data, ObjectInfo(name, etag, len(data), last_modified)

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        is_final = type(data) is bytes or (type(data) is memoryview and data.readonly)
        held = data if is_final else bytes(data)
        memory = self._memory
        directory, file_name = self._split(name)
        with memory.lock:
            block = memory.block_to_change()
            seen = self._seen()
            files = seen.get(directory)
            if if_match is not None or if_none_match is not None:
                found = files and files.get(file_name)
                check_version(found[1] if found else ITEM_NOT_AVAILABLE, if_match, if_none_match)
            etag = next(memory.new_etags)
            if block is not None:
                files = block.files_to_change(directory)
            elif files is None:
                files = seen[directory] = {}
            files[file_name] = (held, etag, time.time())
        return etag

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        memory = self._memory
        directory, file_name = self._split(name)
        with memory.lock:
            block = memory.block_to_change()
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
            del files[file_name]
            if not files:
                del seen[directory]

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
            for directory, files in self._seen().items():
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
