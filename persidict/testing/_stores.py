"""Conformance: the port of object stores, operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagValue
from persidict.stores.object_store import (
    ANY_VERSION,
    NOT_MODIFIED,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
)
from persidict.testing._base import read_of

NewStore: TypeAlias = Callable[[], ObjectStore]
"""Makes a fresh, empty store in a new place."""

PAYLOADS = (b"data", b"", bytes(range(256)) * 5, b"\r\n\0", b"x" * 300_000)
BUFFERS = {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}

NAMES = (
    *("a-b.bin", "a.bin", "a/b.bin", "a/b/c.bin", "a/~.bin"),
    *("aa.bin", "b/=.bin", "b_.bin", "B.bin"),
)
"""Names of which some begin like others, and whose order is not that of their levels."""


def bytes_of(store: ObjectStore, name: str) -> bytes:
    """Read the bytes of an object."""
    found = store.get(name)
    assert not isinstance(found, NotModified)
    return bytes(found[0])


def contents_of(store: ObjectStore) -> dict[str, bytes]:
    """Read all the objects of a store."""
    return {name: bytes_of(store, name) for name in store.names()}


def another_version(store: ObjectStore, name: str) -> ETagValue:
    """Make an object with other bytes, and return its ETag: some version that others lack."""
    return store.put(name, b"some other bytes")


class StoreFixtures:
    """The fixtures of the suite. A subclass adds `new_store`, and overrides what differs."""

    @pytest.fixture
    def new_store(self) -> NewStore:
        """Return a maker of fresh, empty stores; each call makes one in a new place."""
        raise NotImplementedError("override the fixture new_store")

    @pytest.fixture
    def etags_never_repeat(self) -> bool:
        """Tell whether writing equal bytes again gives a new ETag (S3's may be the same)."""
        return True

    @pytest.fixture
    def absence_is_an_error(self) -> bool:
        """Tell whether the storage itself raises an exception for what does not exist."""
        return False

    @pytest.fixture
    def store(self, new_store: NewStore) -> ObjectStore:
        """Return a fresh, empty store."""
        return new_store()

    @pytest.fixture
    def filled(self, store: ObjectStore) -> ObjectStore:
        """Return a store with an object under every name, whose bytes are the name."""
        for name in NAMES:
            store.put(name, name.encode())
        return store


class StoreReadingTests(StoreFixtures):
    """What `put`, `get` and `head` agree on."""

    @pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: f"{len(payload)} bytes")
    @pytest.mark.parametrize("buffer", list(BUFFERS))
    def test_bytes_are_read_back_as_they_were_written(
        self, store: ObjectStore, payload: bytes, buffer: str
    ) -> None:
        store.put("a/b.bin", BUFFERS[buffer](payload))
        assert bytes_of(store, "a/b.bin") == payload

    def test_put_get_and_head_tell_the_same_version(self, store: ObjectStore) -> None:
        written = store.put("a.bin", b"data")
        found = store.get("a.bin")
        assert not isinstance(found, NotModified)
        assert found[1].etag == store.head("a.bin").etag == written

    def test_head_tells_name_and_size(self, store: ObjectStore) -> None:
        store.put("a/b.bin", b"12345")
        assert (store.head("a/b.bin").name, store.head("a/b.bin").size) == ("a/b.bin", 5)

    def test_head_and_get_tell_the_same_time(self, store: ObjectStore) -> None:
        store.put("a.bin", b"data")
        found = store.get("a.bin")
        assert not isinstance(found, NotModified)
        assert found[1].last_modified == store.head("a.bin").last_modified

    @pytest.mark.parametrize("operation", ["head", "get"])
    def test_what_is_absent_is_not_found(self, store: ObjectStore, operation: str) -> None:
        with pytest.raises(ObjectNotFound):
            getattr(store, operation)("a/b.bin")

    @pytest.mark.parametrize("operation", ["head", "get"])
    def test_an_error_of_the_storage_that_says_absent_is_the_cause(
        self, store: ObjectStore, absence_is_an_error: bool, operation: str
    ) -> None:
        if not absence_is_an_error:
            pytest.skip("absence is no exception of this storage's own")
        with pytest.raises(ObjectNotFound) as caught:
            getattr(store, operation)("a/b.bin")
        assert isinstance(caught.value.__cause__, Exception)

    def test_contains_tells_whether_there_is_an_object(self, store: ObjectStore) -> None:
        store.put("a/b.bin", b"data")
        asked = ["a/b.bin", "a/c.bin", "a.bin", "b.bin"]
        assert [store.contains(name) for name in asked] == [True, False, False, False]

    def test_a_known_version_is_not_read_again(self, store: ObjectStore) -> None:
        etag = store.put("a.bin", b"data")
        assert store.get("a.bin", if_none_match=etag) is NOT_MODIFIED

    def test_a_version_that_is_not_known_is_read(self, store: ObjectStore) -> None:
        store.put("a.bin", b"data")
        found = store.get("a.bin", if_none_match=another_version(store, "b.bin"))
        assert not isinstance(found, NotModified)
        assert bytes(found[0]) == b"data"

    def test_what_is_absent_is_not_found_whatever_version_is_known(
        self, store: ObjectStore
    ) -> None:
        with pytest.raises(ObjectNotFound):
            store.get("a.bin", if_none_match=another_version(store, "b.bin"))


class StoreChangingTests(StoreFixtures):
    """What `put` and `delete` do, with and without conditions."""

    def test_put_replaces_the_bytes_and_the_version(self, store: ObjectStore) -> None:
        first = store.put("a.bin", b"first")
        second = store.put("a.bin", b"second")
        assert bytes_of(store, "a.bin") == b"second"
        assert first != second

    def test_equal_bytes_get_a_new_etag(self, store: ObjectStore, etags_never_repeat: bool) -> None:
        if not etags_never_repeat:
            pytest.skip("the ETags of this storage name the content")
        assert len({store.put("a.bin", b"data") for _ in range(30)}) == 30

    def test_an_object_that_was_deleted_comes_back_under_a_new_etag(
        self, store: ObjectStore, etags_never_repeat: bool
    ) -> None:
        if not etags_never_repeat:
            pytest.skip("the ETags of this storage name the content")
        etags = set()
        for _ in range(30):
            etags.add(store.put("a/b.bin", b"data"))
            store.delete("a/b.bin")
        assert len(etags) == 30

    def test_a_version_that_is_current_is_replaced(self, store: ObjectStore) -> None:
        first = store.put("a.bin", b"first")
        second = store.put("a.bin", b"second", if_match=first)
        assert store.head("a.bin").etag == second
        assert bytes_of(store, "a.bin") == b"second"

    def test_a_version_that_is_no_longer_current_is_not_replaced(self, store: ObjectStore) -> None:
        first = store.put("a.bin", b"first")
        store.put("a.bin", b"second")
        with pytest.raises(PreconditionFailed):
            store.put("a.bin", b"third", if_match=first)
        assert bytes_of(store, "a.bin") == b"second"

    def test_an_absent_object_is_no_version_to_replace(self, store: ObjectStore) -> None:
        other = another_version(store, "b.bin")
        with pytest.raises(PreconditionFailed):
            store.put("a.bin", b"data", if_match=other)
        assert not store.contains("a.bin")

    def test_inserting_succeeds_where_there_is_nothing(self, store: ObjectStore) -> None:
        etag = store.put("a/b.bin", b"data", if_none_match=ANY_VERSION)
        assert store.head("a/b.bin").etag == etag

    def test_inserting_fails_where_there_is_an_object(self, store: ObjectStore) -> None:
        store.put("a.bin", b"first")
        with pytest.raises(PreconditionFailed):
            store.put("a.bin", b"second", if_none_match=ANY_VERSION)
        assert bytes_of(store, "a.bin") == b"first"

    def test_inserting_succeeds_after_a_deletion(self, store: ObjectStore) -> None:
        store.put("a/b.bin", b"first")
        store.delete("a/b.bin")
        store.put("a/b.bin", b"second", if_none_match=ANY_VERSION)
        assert bytes_of(store, "a/b.bin") == b"second"

    def test_a_failed_condition_tells_what_was_found_or_that_it_cannot(
        self, store: ObjectStore
    ) -> None:
        first = store.put("a.bin", b"first")
        second = store.put("a.bin", b"second")
        found = []
        for name in ("a.bin", "absent.bin"):
            with pytest.raises(PreconditionFailed) as caught:
                store.put(name, b"third", if_match=first)
            found.append(caught.value.actual_etag)
        assert found[0] in (second, None)
        assert found[1] in (ITEM_NOT_AVAILABLE, None)

    def test_delete_removes_one_object(self, store: ObjectStore) -> None:
        store.put("a/b.bin", b"first")
        store.put("a/c.bin", b"second")
        store.delete("a/b.bin")
        assert contents_of(store) == {"a/c.bin": b"second"}

    def test_deleting_what_is_absent_does_nothing(self, store: ObjectStore) -> None:
        store.put("a.bin", b"data")
        store.delete("absent.bin")
        store.delete("absent/absent.bin")
        assert contents_of(store) == {"a.bin": b"data"}

    @pytest.mark.parametrize("version", ["current", "any"])
    def test_a_version_that_is_wanted_is_deleted(self, store: ObjectStore, version: str) -> None:
        etag = store.put("a.bin", b"data")
        store.delete("a.bin", if_match=etag if version == "current" else ANY_VERSION)
        assert contents_of(store) == {}

    def test_a_version_that_is_no_longer_current_is_not_deleted(self, store: ObjectStore) -> None:
        first = store.put("a.bin", b"first")
        store.put("a.bin", b"second")
        with pytest.raises(PreconditionFailed):
            store.delete("a.bin", if_match=first)
        assert contents_of(store) == {"a.bin": b"second"}

    @pytest.mark.parametrize("version", ["some", "any"])
    def test_deleting_a_version_of_what_is_absent_fails(
        self, store: ObjectStore, version: str
    ) -> None:
        other = another_version(store, "b.bin")
        with pytest.raises(ObjectNotFound):
            store.delete("a.bin", if_match=other if version == "some" else ANY_VERSION)


class StoreListingTests(StoreFixtures):
    """What `list` and `names` show, in which order, and that they take their time."""

    def test_an_empty_store_lists_nothing(self, store: ObjectStore) -> None:
        assert ([*store.list()], [*store.names()]) == ([], [])

    def test_every_object_is_listed_once_as_head_tells_it(self, filled: ObjectStore) -> None:
        listed = {entry[:3] for entry in filled.list()}
        assert listed == {filled.head(name)[:3] for name in NAMES}
        assert len(list(filled.list())) == len(NAMES)

    def test_names_are_those_of_the_listing(self, filled: ObjectStore) -> None:
        assert sorted(filled.names()) == sorted(NAMES)

    def test_what_was_deleted_is_not_listed(self, filled: ObjectStore) -> None:
        filled.delete("a/b.bin")
        assert sorted(filled.names()) == sorted(set(NAMES) - {"a/b.bin"})

    @pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/b/", "a/b.bin", "b", "nothing"])
    def test_a_prefix_is_the_beginning_of_a_name_even_within_a_level(
        self, filled: ObjectStore, prefix: str
    ) -> None:
        expected = sorted(name for name in NAMES if name.startswith(prefix))
        assert sorted(filled.names(prefix)) == expected
        assert sorted(entry[0] for entry in filled.list(prefix)) == expected

    @pytest.mark.parametrize("start", ["", "a", "a.bin", "a/", "a/b.bin", "a/b/c.bin", "zzz"])
    @pytest.mark.parametrize("prefix", ["", "a", "a/"])
    def test_what_starts_after_a_name_comes_in_the_order_of_names(
        self, filled: ObjectStore, prefix: str, start: str
    ) -> None:
        expected = sorted(name for name in NAMES if name.startswith(prefix) and name > start)
        assert list(filled.names(prefix, start_after=start)) == expected
        assert [entry[0] for entry in filled.list(prefix, start_after=start)] == expected

    @pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "b/"])
    def test_a_delimiter_rolls_up_what_lies_deeper(self, filled: ObjectStore, prefix: str) -> None:
        entries = list(filled.list(prefix, delimiter="/"))
        groups = [entry.prefix for entry in entries if isinstance(entry, CommonPrefix)]
        objects = [entry.name for entry in entries if isinstance(entry, ObjectInfo)]
        assert (sorted(groups), sorted(objects)) == self.rolled_up(prefix)

    @staticmethod
    def rolled_up(prefix: str) -> tuple[list[str], list[str]]:
        """Return groups and objects that a delimited listing shows, without duplicates."""
        below = [name for name in NAMES if name.startswith(prefix)]
        deep = [name for name in below if "/" in name[len(prefix) :]]
        groups = {name[: name.index("/", len(prefix)) + 1] for name in deep}
        return sorted(groups), sorted(set(below) - set(deep))

    def test_a_small_page_does_not_shorten_the_listing(self, filled: ObjectStore) -> None:
        assert sorted(filled.names(page_size=2)) == sorted(NAMES)
        assert sorted(entry[0] for entry in filled.list(page_size=2)) == sorted(NAMES)

    def test_a_listing_survives_the_deletion_of_what_it_has_not_shown(
        self, filled: ObjectStore
    ) -> None:
        listing = filled.names()
        first = next(listing)
        for name in NAMES:
            filled.delete(name)
        assert set(listing) <= set(NAMES) - {first}

    def test_a_listing_survives_the_deletion_of_each_object_that_it_shows(
        self, filled: ObjectStore
    ) -> None:
        shown = []
        for name in filled.names():
            filled.delete(name)
            shown.append(name)
        assert sorted(shown) == sorted(NAMES)
        assert list(filled.names()) == []

    @settings(
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,  # the suite is made to be inherited
        ],
    )
    @given(
        stems=st.sets(st.text("aB0-._~=", min_size=1, max_size=3), min_size=1, max_size=6),
        levels=st.sampled_from([("",), ("", "a/"), ("", "a/", "a-/", "a/b/")]),
        start=st.text("aB0-./", max_size=4),
    )
    def test_ordered_listings_are_in_the_order_of_their_bytes(
        self, new_store: NewStore, stems: set[str], levels: tuple[str, ...], start: str
    ) -> None:
        store = new_store()
        names = [f"{level}{stem}.bin" for level in levels for stem in stems]
        for name in names:
            store.put(name, b"data")
        expected = sorted((name for name in names if name > start), key=str.encode)
        assert list(store.names(start_after=start)) == expected


class StoreScopeTests(StoreFixtures):
    """What a store looks like from below a prefix."""

    def test_a_scope_shows_what_lies_below_its_prefix_under_shorter_names(
        self, filled: ObjectStore
    ) -> None:
        expected = {name[2:]: name.encode() for name in NAMES if name.startswith("a/")}
        assert contents_of(filled.scoped("a/")) == expected

    def test_scopes_nest(self, filled: ObjectStore) -> None:
        assert contents_of(filled.scoped("a/").scoped("b/")) == {"c.bin": b"a/b/c.bin"}

    def test_what_a_scope_writes_and_deletes_is_seen_from_above(self, filled: ObjectStore) -> None:
        scope = filled.scoped("a/b/")
        etag = scope.put("new.bin", b"new")
        scope.delete("c.bin")
        assert filled.head("a/b/new.bin").etag == etag
        assert not filled.contains("a/b/c.bin")

    def test_a_version_is_the_same_from_everywhere(self, filled: ObjectStore) -> None:
        assert filled.scoped("a/").head("b.bin").etag == filled.head("a/b.bin").etag

    def test_a_scope_lists_from_a_name_of_its_own(self, filled: ObjectStore) -> None:
        assert list(filled.scoped("a/").names(start_after="b.bin")) == ["b/c.bin", "~.bin"]

    def test_a_scope_without_objects_is_empty(self, filled: ObjectStore) -> None:
        assert list(filled.scoped("nothing/").names()) == []


class StoreBulkTests(StoreFixtures):
    """What `get_many`, `put_many` and `delete_many` do to many objects."""

    def test_many_objects_are_read_in_the_order_they_are_asked_for(
        self, filled: ObjectStore
    ) -> None:
        read = [(name, bytes(data)) for name, data, _ in read_of(filled.get_many(NAMES))]
        assert read == [(name, name.encode()) for name in NAMES]

    def test_many_objects_are_read_by_what_a_listing_told(self, filled: ObjectStore) -> None:
        infos = [entry for entry in filled.list() if isinstance(entry, ObjectInfo)]
        found = read_of(filled.get_many(infos))
        read = [(name, bytes(data), info.etag) for name, data, info in found]
        assert read == [(info.name, info.name.encode(), info.etag) for info in infos]

    def test_what_is_absent_is_left_out_of_many(self, filled: ObjectStore) -> None:
        asked = ["absent.bin", "a.bin", "absent/absent.bin", "b_.bin"]
        assert [name for name, *_ in filled.get_many(asked)] == ["a.bin", "b_.bin"]

    def test_reading_many_asks_for_no_more_names_than_it_needs(self, filled: ObjectStore) -> None:
        endless = (NAMES[number % len(NAMES)] for number in count())
        read = [name for name, *_ in islice(filled.get_many(endless), 3)]
        assert read == list(NAMES[:3])

    def test_many_objects_are_written_with_their_new_versions(self, store: ObjectStore) -> None:
        written = dict(store.put_many((name, name.encode()) for name in NAMES))
        assert written == {name: store.head(name).etag for name in NAMES}
        assert contents_of(store) == {name: name.encode() for name in NAMES}

    def test_writing_many_asks_for_no_more_objects_than_it_needs(self, store: ObjectStore) -> None:
        endless = ((f"{number}.bin", b"data") for number in count())
        written: Iterator[tuple[str, Any]] = store.put_many(endless)
        assert len(list(islice(written, 3))) == 3

    def test_inserting_many_reports_those_that_exist_and_leaves_them(
        self, store: ObjectStore
    ) -> None:
        store.put("b.bin", b"old")
        items = [(name, b"new") for name in ("a.bin", "b.bin", "c.bin")]
        written = dict(store.put_many(items, if_none_match=ANY_VERSION))
        failed = {name for name, answer in written.items() if isinstance(answer, Exception)}
        assert failed == {"b.bin"}
        assert isinstance(written["b.bin"], PreconditionFailed)
        assert contents_of(store) == {"a.bin": b"new", "b.bin": b"old", "c.bin": b"new"}

    def test_many_objects_are_deleted_and_the_absent_ones_are_no_failure(
        self, filled: ObjectStore
    ) -> None:
        kept = NAMES[0]
        assert list(filled.delete_many([*NAMES[1:], "absent.bin", "absent/absent.bin"])) == []
        assert contents_of(filled) == {kept: kept.encode()}
