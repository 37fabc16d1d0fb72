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

from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagValue
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
from persidict.traits import Traits

_Stored: TypeAlias = tuple[Buffer, ETagValue, float]
"""Bytes, version and time of writing; a plain tuple, which is fastest to make."""


class _Memory:
    """What all scopes of one store share: objects by directory and file name."""

    def __init__(self) -> None:
        self.directories: dict[str, dict[str, _Stored]] = {}
        self.lock = threading.Lock()
        self.start_counting()
        _memories.add(self)

    def start_counting(self) -> None:
        """Begin anywhere, so that a cache that outlives this memory mistakes no other for it."""
        numbers = itertools.count(random.SystemRandom().getrandbits(62))
        self.new_etags = cast("Iterator[ETagValue]", map(str, numbers))


_memories: weakref.WeakSet[_Memory] = weakref.WeakSet()


def _part_from_parent() -> None:
    """In a forked child: lock holders do not exist here, and writes are no longer shared."""
    for memory in _memories:
        memory.lock = threading.Lock()
        memory.start_counting()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_part_from_parent)


class MemoryStore(ObjectStore):
    """Named bytes in RAM, safe among threads. ETags count the writes and never repeat.

    Example:
        >>> store = MemoryStore()
        >>> etag = store.put("a/b", b"data")
        >>> store.get("a/b")[0]
        b'data'
    """

    traits = Traits(reads_are_cheap=True, back_off_seconds=0.00002)

    def __init__(self) -> None:
        self._memory = _Memory()
        self._prefix = ""

    def __repr__(self) -> str:
        scope = f" below {self._prefix!r}" if self._prefix else ""
        return f"<MemoryStore{scope} at {id(self._memory):#x}>"

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

    def _split(self, name: str) -> tuple[str, str]:
        directory, _, file_name = (self._prefix + name).rpartition("/")
        return directory, file_name

    def _held(self, directory: str, file_name: str) -> _Stored | None:
        return self._memory.directories.get(directory, {}).get(file_name)

    def _find(self, name: str) -> _Stored:
        directory, file_name = self._split(name)
        try:
            return self._memory.directories[directory][file_name]
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
            if if_match is not None or if_none_match is not None:
                found = self._held(directory, file_name)
                check_version(found[1] if found else ITEM_NOT_AVAILABLE, if_match, if_none_match)
            etag = next(memory.new_etags)
            files = memory.directories.get(directory)
            if files is None:
                files = memory.directories[directory] = {}
            files[file_name] = (held, etag, time.time())
        return etag

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        memory = self._memory
        directory, file_name = self._split(name)
        with memory.lock:
            files = memory.directories.get(directory, {})
            found = files.get(file_name)
            if found is None:
                if if_match is None:
                    return
                raise ObjectNotFound(name)
            if if_match is not None and if_match != ANY_VERSION:
                check_version(found[1], if_match, None)
            del files[file_name]
            if not files:
                del memory.directories[directory]

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
            for directory, files in self._memory.directories.items():
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
        return scope
