"""A store with copies of its objects in a local directory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from io import BytesIO
from itertools import chain
from typing import BinaryIO, Final, NamedTuple
from weakref import WeakValueDictionary

from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.cached.directory import CacheDirectory, FileVersion
from persidict.stores.cached.entry import CacheEntry, CorruptEntry, pack, unpack
from persidict.stores.object_store import (
    BUFFERS,
    NOT_MODIFIED,
    AnyVersion,
    Buffer,
    NotModified,
    ObjectInfo,
    ObjectStore,
    OneOfMany,
    Read,
    Unread,
)
from persidict.stores.optional import CopiesInside, ReadsManyUnlessKnown
from persidict.stores.shared.recent_notes import RecentNotes
from persidict.stores.wrapper_store import WrapperStore
from persidict.traffic import Traffic

_NAME_BYTES: Final = 20
_SCOPE_BYTES: Final = 16
_MAX_SOUND_FILES: Final = 10_000
_MAX_NAMES: Final = 1 << 15
_MOST_WAITING: Final = 1000
_MOST_HELD: Final = 16 * 1024
"""Of how many copies, and of how many bytes each, may wait for their turn in memory."""

_MAX_VALIDATIONS: Final = 1 << 16


class _Plan(NamedTuple):
    """How one of many objects is read.

    Attributes:
        entry: What was asked for.
        name: Its name.
        etag: The version that there is a copy of, None if there is none.
        copy: The copy; None: there is none, or it is too large to be held.
        is_hit: Whether the copy is served without asking.
        asked: When this was planned, by the monotonic clock.
        scope: Whose copy it is.
    """

    entry: str | ObjectInfo
    name: str
    etag: ETagValue | None
    copy: CacheEntry | None
    is_hit: bool
    asked: float
    scope: _Scope

    def to_wait(self) -> _Plan:
        """Return the same without the bytes of a copy that is large."""
        is_large = self.copy is not None and len(self.copy.data) > _MOST_HELD
        return self._replace(copy=None) if is_large else self


class CacheInfo(NamedTuple):
    """What a cache has done and what it holds.

    Attributes:
        hits: Values served without asking.
        revalidations: Values served after the storage said that they are the current ones.
        misses: Values fetched.
        corrupt: Damaged entries that were found and dropped.
        evictions: Entries deleted to stay within the limit.
        bytes: What all entries in the directory have in all.
        entries: How many there are.
    """

    hits: int
    revalidations: int
    misses: int
    corrupt: int
    evictions: int
    bytes: int
    entries: int


@dataclass
class _Counts:
    hits: int = 0
    revalidations: int = 0
    misses: int = 0
    corrupt: int = 0


class _Sound(NamedTuple):
    """What an entry's file holds that was found to be sound, as long as it is that version."""

    version: FileVersion
    etag: ETagValue
    last_modified: float
    data_begin: int


class _Validations:
    """When each object was last known to be a certain version, by the monotonic clock.

    Shared by all handles of this process on the same objects.
    """

    def __init__(self) -> None:
        self._latest = RecentNotes[tuple[ETagValue, float]](_MAX_VALIDATIONS)

    def note(self, file_name: str, etag: ETagValue, when: float) -> None:
        """Note that an object was a version at some moment after `when`."""
        known = self._latest.get(file_name)
        if known is None or known[1] <= when:
            self._latest.put(file_name, (etag, when))

    def is_recent(self, file_name: str, etag: ETagValue, max_staleness: float) -> bool:
        """Tell whether an object was that version less than so many seconds ago."""
        known = self._latest.get(file_name)
        return (
            known is not None and known[0] == etag and time.monotonic() - known[1] < max_staleness
        )


_VALIDATIONS: Final[WeakValueDictionary[tuple[str, str], _Validations]] = WeakValueDictionary()


class _Scope(NamedTuple):
    """The copies of one reader.

    Attributes:
        key: Goes into the names of their files.
        directory: Where they are.
        sound: What was found to be sound; a file that is replaced or changed is another
            version of it, and is checked again.
        validations: When they were last known to be current.
    """

    key: bytes
    directory: CacheDirectory
    sound: dict[str, _Sound]
    validations: _Validations


class CachedStore(WrapperStore):
    """A store in front of which copies of objects are kept in files.

    A copy and the version it is of are one file, replaced atomically and checked when read:
    bytes are never paired with the version of others. A copy is served only after the store
    has said that it still is the current version, in the very request that would otherwise
    bring the new one. Whatever happens to the files costs time, never a wrong answer.

    Args:
        store: Where the objects live.
        base_dir: The directory of the copies; may be shared by any number of stores and
            processes.
        identity: What the names of the objects are relative to, e.g. a URL; keeps the copies
            of different stores apart.
        reader: Tells who reads now; keeps the copies of different readers apart.
        trusting: Whether objects never change, so that a copy is served without asking.
        max_staleness: For how many seconds after `get` or `put` have seen the current
            version `recent` serves it without asking.
        size_limit: How many bytes the directory may have; see CacheDirectory.

    Raises:
        ValueError: `base_dir` is a file.
        BackendError: `base_dir` is another user's, or others may write to it.
    """

    shows_wrapped = True

    def __init__(
        self,
        store: ObjectStore,
        base_dir: str,
        *,
        identity: str,
        reader: Callable[[], str] = str,
        trusting: bool = False,
        max_staleness: float = 0.0,
        size_limit: int | None = None,
    ) -> None:
        super().__init__(store)
        self._prefix = ""
        self._identity = identity
        self._reader = reader
        self._scopes: dict[str, _Scope] = {}
        first = reader()
        digest = self._digest_for(first)
        self._directory = CacheDirectory(base_dir, digest.hexdigest(), size_limit=size_limit)
        self._add_scope(first, digest, self._directory)
        self._trusting = trusting
        self._max_staleness = max_staleness
        self._counts = _Counts()

    def _digest_for(self, reader: str) -> blake2b:
        whose = f"{self._identity}\n{reader}" if reader else self._identity
        return blake2b(whose.encode(), digest_size=_SCOPE_BYTES)

    def _add_scope(self, reader: str, digest: blake2b, directory: CacheDirectory) -> _Scope:
        place = directory.base_dir, digest.hexdigest()
        validations = _VALIDATIONS.setdefault(place, _Validations())
        scope = _Scope(digest.digest(), directory, {}, validations)
        return self._scopes.setdefault(reader, scope)

    @property
    def _scope(self) -> _Scope:
        """The copies of who reads now."""
        reader = self._reader()
        scope = self._scopes.get(reader)
        if scope is None:
            digest = self._digest_for(reader)
            scope = self._add_scope(reader, digest, self._directory.beside(digest.hexdigest()))
        return scope

    def scoped(self, prefix: str) -> CachedStore:
        scope = super().scoped(prefix)
        scope._prefix = self._prefix + prefix
        return scope

    def info(self) -> CacheInfo:
        """Tell what this store and its scopes have done, and what the directory holds."""
        counts = self._counts
        return CacheInfo(
            counts.hits,
            counts.revalidations,
            counts.misses,
            counts.corrupt,
            self._directory.evictions,
            *self._directory.usage(),
        )

    def traffic(self) -> Traffic:
        """Tell what this store and its scopes have found in the cache, and what not."""
        counts = self._counts
        return Traffic(hits=counts.hits, revalidations=counts.revalidations, misses=counts.misses)

    def clear_cache(self) -> None:
        """Delete the copies of all objects of this store, above and below its prefix."""
        self._scope.directory.clear()

    # ------------------------------------------------------------------ copies

    def _file_of(self, scope: _Scope, name: str) -> tuple[str, int]:
        """Return the name of a copy's file and the identity that it must have."""
        return _file_of(scope.key, self._prefix + name)

    def _recall(self, scope: _Scope, name: str) -> CacheEntry | None:
        """Return a copy if there is a sound one."""
        file_name, identity = self._file_of(scope, name)
        sound = scope.sound.get(file_name)
        found = scope.directory.read(file_name, sound.version if sound else None)
        if found is None:
            return None
        content, version = found
        if sound is not None and sound.version == version and isinstance(content, BUFFERS):
            data = memoryview(content)[sound.data_begin :]
            return CacheEntry(sound.etag, sound.last_modified, data)
        return self._checked(scope, content, version, file_name, identity)

    def _checked(
        self,
        scope: _Scope,
        content: Buffer | BinaryIO,
        version: FileVersion,
        file_name: str,
        identity: int,
    ) -> CacheEntry | None:
        try:
            entry = unpack(content, version.size, identity)
        except CorruptEntry:
            self._counts.corrupt += 1
            scope.directory.remove(file_name)
            return None
        finally:
            if not isinstance(content, BUFFERS):
                content.close()
        if len(scope.sound) >= _MAX_SOUND_FILES:
            scope.sound.clear()
        data_begin = version.size - len(entry.data)
        scope.sound[file_name] = _Sound(version, entry.etag, entry.last_modified, data_begin)
        return entry

    def _recall_or_open(
        self, scope: _Scope, file_name: str, identity: int
    ) -> tuple[ETagValue, Buffer | BinaryIO] | None:
        """Return a copy's version and bytes; a large one that is sound is only opened."""
        sound = scope.sound.get(file_name)
        found = scope.directory.read(file_name, sound.version if sound else None)
        if found is None:
            return None
        content, version = found
        if sound is not None and sound.version == version:
            if isinstance(content, BUFFERS):
                return sound.etag, memoryview(content)[sound.data_begin :]
            content.seek(sound.data_begin)
            return sound.etag, content
        entry = self._checked(scope, content, version, file_name, identity)
        return None if entry is None else (entry.etag, entry.data)

    def _remember(self, scope: _Scope, name: str, entry: CacheEntry, asked: float) -> None:
        """Keep a copy of what the reader of a scope has asked for."""
        if scope is not self._scope:
            return  # nobody knows who was answered
        file_name, identity = self._file_of(scope, name)
        scope.directory.write(file_name, pack(entry, identity))
        self._note_validation(scope, name, entry.etag, asked)

    def _note_validation(self, scope: _Scope, name: str, etag: ETagValue, asked: float) -> None:
        if self._max_staleness > 0 and scope is self._scope:
            scope.validations.note(self._file_of(scope, name)[0], etag, asked)

    def _forget(self, name: str) -> None:
        scope = self._scope
        scope.directory.remove(self._file_of(scope, name)[0])

    def recent(self, name: str) -> Buffer | BinaryIO | None:
        """Return an object's copy if it may be served without asking, else None.

        A large one may come as a stream at the first of its bytes, which the caller closes.
        """
        if not self._trusting and self._max_staleness <= 0:
            return None
        scope = self._scope
        file_name, identity = self._file_of(scope, name)
        found = self._recall_or_open(scope, file_name, identity)
        if found is None:
            return None
        etag, data = found
        if not self._trusting and not scope.validations.is_recent(
            file_name, etag, self._max_staleness
        ):
            if not isinstance(data, BUFFERS):
                data.close()
            return None
        self._counts.hits += 1
        return data

    # ------------------------------------------------------------------ one object

    def head(self, name: str) -> ObjectInfo:
        try:
            return self._wrapped.head(name)
        except ObjectNotFound:
            self._forget(name)
            raise

    def contains(self, name: str) -> bool:
        if self._trusting and self._recall(self._scope, name) is not None:
            return True
        return self._wrapped.contains(name)

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        scope = self._scope
        entry = self._recall(scope, name)
        if entry is not None and self._trusting:
            self._counts.hits += 1
            return _answer(name, entry, if_none_match)
        asked = time.monotonic()
        try:
            found = self._wrapped.get(name, if_none_match=entry.etag if entry else if_none_match)
        except ObjectNotFound:
            self._forget(name)
            raise
        if not isinstance(found, NotModified):
            data, info = found
            entry = CacheEntry(info.etag, info.last_modified, data)
            self._counts.misses += 1
            self._remember(scope, name, entry, asked)
            return NOT_MODIFIED if info.etag == if_none_match else found
        if entry is None:
            return NOT_MODIFIED
        self._counts.revalidations += 1
        self._note_validation(scope, name, entry.etag, asked)
        return _answer(name, entry, if_none_match)

    def open(self, name: str) -> BinaryIO:
        recent = self.recent(name)
        if recent is None:
            return self._wrapped.open(name)
        if isinstance(recent, BUFFERS):
            return BytesIO(recent)
        with recent:
            return BytesIO(recent.read())

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        scope, asked = self._scope, time.monotonic()
        etag = self._wrapped.put(name, data, if_match=if_match, if_none_match=if_none_match)
        self._remember(scope, name, CacheEntry(etag, time.time(), data), asked)
        return etag

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        try:
            self._wrapped.delete(name, if_match=if_match)
        except ObjectNotFound:
            self._forget(name)
            raise
        self._forget(name)

    # ------------------------------------------------------------------ many objects

    def get_many(self, entries: Iterable[str | ObjectInfo]) -> Iterator[Read | Unread]:
        """Read many objects, in the order given; see the port.

        Where the caller knows the versions from a listing, copies of these are served
        without asking; for all else the store is asked, for many at the same time where it
        can do that. Copies that wait for their turn are held in memory only if they are small.
        """
        store = self._wrapped
        if not isinstance(store, ReadsManyUnlessKnown):
            yield from filter(None, map(self._read_one, entries))
            return
        remaining = iter(entries)
        for entry in remaining:
            plan = self._plan(entry)
            if not plan.is_hit:
                yield from self._read_together(store, plan, remaining)
            elif (found := self._serve(plan)) is not None:
                yield found

    def _read_together(
        self, store: ReadsManyUnlessKnown, first: _Plan, remaining: Iterator[str | ObjectInfo]
    ) -> Iterator[Read | Unread]:
        """Read on from one that is asked for, until too many that are not wait behind one."""
        planned: deque[_Plan] = deque()

        def wanted() -> Iterator[tuple[str | ObjectInfo, ETagValue | None]]:
            for plan in chain((first,), map(self._plan, remaining)):
                planned.append(plan.to_wait())
                if not plan.is_hit:
                    yield plan.entry, plan.etag
                elif len(planned) > _MOST_WAITING:
                    return

        answers = store.get_many_unless_known(wanted())
        while True:
            try:
                _, answer = next(answers)
            except StopIteration:
                yield from self._hits_in_front(planned)
                return
            except Exception:  # in its place
                yield from self._hits_in_front(planned)
                raise
            yield from self._hits_in_front(planned)
            found = self._settle(planned.popleft(), answer)
            if found is not None:
                yield found

    def _hits_in_front(self, planned: deque[_Plan]) -> Iterator[Read | Unread]:
        while planned and planned[0].is_hit:
            found = self._serve(planned.popleft())
            if found is not None:
                yield found

    def _plan(self, entry: str | ObjectInfo) -> _Plan:
        """Look for a copy, and tell whether it is served without asking."""
        name = entry if isinstance(entry, str) else entry.name
        scope = self._scope
        cached = self._recall(scope, name)
        if cached is None:
            return _Plan(entry, name, None, None, False, time.monotonic(), scope)
        is_hit = self._trusting or (not isinstance(entry, str) and cached.etag == entry.etag)
        return _Plan(entry, name, cached.etag, cached, is_hit, time.monotonic(), scope)

    def _serve(self, plan: _Plan) -> Read | Unread | None:
        """Return a copy that is current; one that has vanished meanwhile is fetched."""
        cached = plan.copy or self._recall(plan.scope, plan.name)
        if cached is None or (cached.etag != plan.etag and not self._trusting):
            return self._read_one(plan.entry)
        self._counts.hits += 1
        if isinstance(plan.entry, str):
            return plan.name, cached.data, _info(plan.name, cached)
        return plan.name, cached.data, plan.entry

    def _settle(self, plan: _Plan, answer: OneOfMany) -> Read | Unread | None:
        """Return an object that the store has been asked for, and keep its copy in step."""
        name = plan.name
        if answer is None:
            self._forget(name)
            return None
        if isinstance(answer, Exception):
            return name, answer, None
        if not isinstance(answer, NotModified):
            data, info = answer
            self._counts.misses += 1
            copy = CacheEntry(info.etag, info.last_modified, data)
            self._remember(plan.scope, name, copy, plan.asked)
            return name, data, info
        cached = plan.copy or self._recall(plan.scope, name)
        if cached is None or cached.etag != plan.etag:
            return self._read_one(plan.entry)
        self._counts.revalidations += 1
        self._note_validation(plan.scope, name, cached.etag, plan.asked)
        return name, cached.data, _info(name, cached)

    def _read_one(self, entry: str | ObjectInfo) -> Read | Unread | None:
        if isinstance(entry, str):
            return self._get_and_report(entry)
        plan = self._plan(entry)
        return self._serve(plan) if plan.is_hit else self._get_and_report(entry.name)

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        under_way: dict[str, tuple[_Scope, Buffer, float]] = {}

        def noted() -> Iterator[tuple[str, Buffer]]:
            for name, data in items:
                under_way[name] = self._scope, data, time.monotonic()
                yield name, data

        for name, outcome in self._wrapped.put_many(noted(), if_none_match=if_none_match):
            scope, data, asked = under_way.pop(name)
            if not isinstance(outcome, Exception):
                self._remember(scope, name, CacheEntry(outcome, time.time(), data), asked)
            yield name, outcome

    def can_copy_from(self, source: ObjectStore) -> bool:
        return isinstance(self._wrapped, CopiesInside) and self._wrapped.can_copy_from(source)

    def copy_many(
        self, source: ObjectStore, names: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[str, ETagValue | Exception | None]]:
        assert isinstance(self._wrapped, CopiesInside)
        for name, outcome in self._wrapped.copy_many(source, names):
            self._forget(name)
            yield name, outcome

    def delete_many(self, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
        def forgotten() -> Iterator[str]:
            for name in names:
                self._forget(name)
                yield name

        return self._wrapped.delete_many(forgotten())


@lru_cache(maxsize=_MAX_NAMES)
def _file_of(scope_key: bytes, full_name: str) -> tuple[str, int]:
    digest = blake2b(full_name.encode(), digest_size=_NAME_BYTES, key=scope_key).digest()
    return f"{digest.hex()}.entry", int.from_bytes(digest[:4])


def _answer(
    name: str, entry: CacheEntry, if_none_match: ETagValue | None
) -> tuple[Buffer, ObjectInfo] | NotModified:
    if entry.etag == if_none_match:
        return NOT_MODIFIED
    return entry.data, _info(name, entry)


def _info(name: str, entry: CacheEntry) -> ObjectInfo:
    return ObjectInfo(name, entry.etag, len(entry.data), entry.last_modified)
