"""A Hypothesis state machine: random histories of an object store beside a model of its port."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagValue
from persidict.stores.object_store import (
    ANY_VERSION,
    NOT_MODIFIED,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
    list_from_sorted,
)
from persidict.testing._base import read_of
from persidict.testing._stores import NAMES, NewStore

_NAME = st.sampled_from(NAMES)
_SOME_NAMES = st.lists(_NAME, max_size=4, unique=True)
_DATA = st.sampled_from([b"", b"data", b"data of another kind", b"\r\n\0" * 100])
_VERSION = st.sampled_from(["current", "stale", "of another object", "of nobody"])
_PREFIX = st.sampled_from(["", "a", "a/", "a/b", "b", "nothing"])
_START = st.sampled_from([None, "", "a", "a.bin", "a/", "a/b.bin", "b", "zzz"])
_REACH = st.sampled_from(["", "a/", "a/b/"])


class _Held(NamedTuple):
    data: bytes
    etag: ETagValue


class StoreMachine(RuleBasedStateMachine):
    """One store, looked at from several prefixes, beside a model of what it holds."""

    new_store: ClassVar[NewStore]
    etags_never_repeat: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).new_store()
        self.held: dict[str, _Held] = {}
        self.history: dict[str, list[ETagValue]] = {}

    def _reach(self, name: str, prefix: str) -> tuple[ObjectStore, str]:
        """Return a handle that shows the object, and the object's name in it."""
        if prefix and name.startswith(prefix):
            return self.store.scoped(prefix), name.removeprefix(prefix)
        return self.store, name

    def _version(self, name: str, which: str) -> ETagValue:
        nobodys = ETagValue('"00000000000000000000000000000000"')
        match which:
            case "current":
                return self.held[name].etag if name in self.held else nobodys
            case "stale":
                return self.history.get(name, [nobodys])[0]
            case "of another object":
                others = [held.etag for other, held in self.held.items() if other != name]
                return others[-1] if others else nobodys
            case _:
                return nobodys

    def _note_written(self, name: str, data: bytes, etag: ETagValue) -> None:
        past = self.history.setdefault(name, [])
        if self.etags_never_repeat:
            assert etag not in past, f"{etag!r} came back for {name!r}"
        past.append(etag)
        self.held[name] = _Held(data, etag)

    def _refused(self, change: Callable[[], object], name: str) -> None:
        """Assert that a change is refused, and that what it tells of the object is true."""
        with pytest.raises(PreconditionFailed) as caught:
            change()
        actual: Any = self.held[name].etag if name in self.held else ITEM_NOT_AVAILABLE
        assert caught.value.actual_etag in (actual, None)

    @staticmethod
    def _not_found(operation: Callable[[], object]) -> None:
        with pytest.raises(ObjectNotFound):
            operation()

    # One object

    @rule(name=_NAME, data=_DATA, prefix=_REACH)
    def put(self, name: str, data: bytes, prefix: str) -> None:
        """Write whatever is there."""
        store, local = self._reach(name, prefix)
        self._note_written(name, data, store.put(local, data))

    @rule(name=_NAME, data=_DATA, prefix=_REACH, which=_VERSION)
    def put_over_a_version(self, name: str, data: bytes, prefix: str, which: str) -> None:
        """Write over one version only."""
        store, local = self._reach(name, prefix)
        version = self._version(name, which)
        if name in self.held and self.held[name].etag == version:
            self._note_written(name, data, store.put(local, data, if_match=version))
        else:
            self._refused(lambda: store.put(local, data, if_match=version), name)

    @rule(name=_NAME, data=_DATA, prefix=_REACH)
    def insert(self, name: str, data: bytes, prefix: str) -> None:
        """Write only where there is nothing."""
        store, local = self._reach(name, prefix)
        if name in self.held:
            self._refused(lambda: store.put(local, data, if_none_match=ANY_VERSION), name)
        else:
            self._note_written(name, data, store.put(local, data, if_none_match=ANY_VERSION))

    @rule(name=_NAME, prefix=_REACH)
    def delete(self, name: str, prefix: str) -> None:
        """Delete whatever is there."""
        store, local = self._reach(name, prefix)
        store.delete(local)
        self.held.pop(name, None)

    @rule(name=_NAME, prefix=_REACH, which=st.one_of(_VERSION, st.just("any")))
    def delete_a_version(self, name: str, prefix: str, which: str) -> None:
        """Delete one version only, or any, but something."""
        store, local = self._reach(name, prefix)
        version = ANY_VERSION if which == "any" else self._version(name, which)
        if name not in self.held:
            self._not_found(lambda: store.delete(local, if_match=version))
        elif version in (ANY_VERSION, self.held[name].etag):
            store.delete(local, if_match=version)
            del self.held[name]
        else:
            self._refused(lambda: store.delete(local, if_match=version), name)

    @rule(name=_NAME, prefix=_REACH)
    def look(self, name: str, prefix: str) -> None:
        """Look at an object without its bytes."""
        store, local = self._reach(name, prefix)
        held = self.held.get(name)
        assert store.contains(local) == (held is not None)
        if held is None:
            self._not_found(lambda: store.head(local))
        else:
            assert store.head(local)[:3] == (local, held.etag, len(held.data))

    @rule(name=_NAME, prefix=_REACH, which=st.one_of(st.none(), _VERSION))
    def get(self, name: str, prefix: str, which: str | None) -> None:
        """Read an object, of which some version may be known."""
        store, local = self._reach(name, prefix)
        known = None if which is None else self._version(name, which)
        held = self.held.get(name)
        if held is None:
            self._not_found(lambda: store.get(local, if_none_match=known))
            self._not_found(lambda: store.open(local))
            return
        found = store.get(local, if_none_match=known)
        if known == held.etag:
            assert found is NOT_MODIFIED
            return
        assert not isinstance(found, NotModified)
        data, info = found
        assert (bytes(data), info[:3]) == (held.data, (local, held.etag, len(held.data)))
        with store.open(local) as stream:
            assert stream.read() == held.data

    # Many objects

    @rule(names=_SOME_NAMES, by_listing=st.booleans())
    def get_many(self, names: list[str], by_listing: bool) -> None:
        """Read several objects, by name or by what a listing told of them."""
        entries: list[str | ObjectInfo] = list(names)
        if by_listing:
            entries = [e for e in self.store.list() if isinstance(e, ObjectInfo)]
            names = [info[0] for info in entries]
        found = read_of(self.store.get_many(entries))
        read = [(name, bytes(data), info.etag) for name, data, info in found]
        assert read == [(name, *self.held[name]) for name in names if name in self.held]

    @rule(names=_SOME_NAMES, data=_DATA, only_new=st.booleans())
    def put_many(self, names: list[str], data: bytes, only_new: bool) -> None:
        """Write several objects, or insert them."""
        condition = ANY_VERSION if only_new else None
        outcomes = dict(self.store.put_many(((n, data) for n in names), if_none_match=condition))
        assert sorted(outcomes) == sorted(names)
        for name, outcome in outcomes.items():
            if only_new and name in self.held:
                assert isinstance(outcome, PreconditionFailed)
            else:
                assert not isinstance(outcome, Exception)
                self._note_written(name, data, outcome)

    @rule(names=_SOME_NAMES)
    def delete_many(self, names: list[str]) -> None:
        """Delete several objects, whether they are there or not."""
        assert list(self.store.delete_many(names)) == []
        for name in names:
            self.held.pop(name, None)

    # What is there

    def _infos(self, prefix: str) -> list[tuple[str, Any, int]]:
        return sorted(
            (name.removeprefix(prefix), held.etag, len(held.data))
            for name, held in self.held.items()
            if name.startswith(prefix)
        )

    @invariant()
    def lists_the_objects_of_the_model(self) -> None:
        """Every object is listed, once, as it was written."""
        assert sorted(entry[:3] for entry in self.store.list()) == self._infos("")

    @rule(scope=_REACH)
    def list_from_below(self, scope: str) -> None:
        """List what lies below a prefix under shorter names."""
        store = self.store.scoped(scope) if scope else self.store
        assert sorted(entry[:3] for entry in store.list()) == self._infos(scope)

    @rule(prefix=_PREFIX, start=_START, page_size=st.sampled_from([None, 1, 3]), deep=st.booleans())
    def list_a_part(
        self, prefix: str, start: str | None, page_size: int | None, deep: bool
    ) -> None:
        """List some of the objects, all levels or one."""
        delimiter: Literal["/"] | None = None if deep else "/"
        found = list(
            self.store.list(
                prefix,
                start_after=start,
                delimiter=delimiter,
                page_size=page_size,
            )
        )
        entries = [ObjectInfo(*info, 0.0) for info in self._infos("")]
        modelled = list_from_sorted(entries, prefix=prefix, start_after=start, delimiter=delimiter)
        shown, expected = _comparable(found), _comparable(list(modelled))
        assert (shown if start is not None else sorted(shown)) == expected
        if deep:
            names = list(self.store.names(prefix, start_after=start, page_size=page_size))
            assert (names if start is not None else sorted(names)) == [e[0] for e in expected]


def _comparable(entries: list[ObjectInfo | CommonPrefix]) -> list[tuple[Any, ...]]:
    """Leave out the times."""
    return [tuple(entry[:3]) for entry in entries]


def store_machine_for(
    new_store: NewStore, *, etags_never_repeat: bool = True
) -> type[unittest.TestCase]:
    """Return a test case that drives an object store through random histories beside a model.

    How many histories and how long they are is a matter of the Hypothesis profile that is
    loaded when the test case is made (`max_examples`, `stateful_step_count`).

    Args:
        new_store: Makes a fresh, empty store in a new place.
        etags_never_repeat: Whether an object never gets an ETag again that it had before.

    Returns:
        A `unittest.TestCase` class. Assigned to a name in a test module it is collected.

    Examples:
        >>> from persidict.stores.memory import MemoryStore
        >>> TestMemoryStore = store_machine_for(MemoryStore)
    """
    attributes = {
        "new_store": staticmethod(new_store),
        "etags_never_repeat": etags_never_repeat,
    }
    machine: type[Any] = type("StoreMachineInUse", (StoreMachine,), attributes)
    machine.TestCase.settings = settings(deadline=None, suppress_health_check=list(HealthCheck))
    test_case: type[unittest.TestCase] = machine.TestCase
    return test_case
