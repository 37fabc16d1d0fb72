"""Conformance: items are copied into a dictionary and out of it, and their bytes are at hand."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from persidict.exceptions import MutationPolicyError
from persidict.local_dict import LocalDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.stored_dict import StoredDict
from persidict.testing._base import AnyDict, ConformanceBase, NewDict, as_tuple, content_of
from persidict.testing.model import Key
from persidict.transfer import copy_items, sync_items


def in_ram(d: AnyDict, content: Mapping[Any, Any] | None = None) -> LocalDict[Any]:
    """Return a dictionary in RAM of the same format, with some items."""
    copy: LocalDict[Any] = LocalDict(
        serialization_format=d.serialization_format, base_class_for_values=d.base_class_for_values
    )
    copy.update(content or {})
    return copy


def tuples(keys: Iterable[NonEmptySafeStrTuple]) -> set[Key]:
    """Return keys as plain tuples, without their order."""
    return {as_tuple(key) for key in keys}


class TransferTests(ConformanceBase):
    """Items are copied in and out, once each."""

    def test_copied_items_arrive_from_another_dictionary(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        content = {("a",): values[0], ("b", "c"): values[1]}
        result = copy_items(in_ram(d, content), d)
        assert content_of(d) == content
        assert (tuples(result.copied), result.failed) == (set(content), {})

    def test_copied_items_arrive_in_another_dictionary(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        content = {("a",): values[0], ("b", "c"): values[1]}
        d.update(content)
        target = in_ram(d)
        copy_items(d, target)
        assert content_of(target) == content

    def test_copied_items_arrive_in_a_dictionary_of_the_same_kind(
        self, d: AnyDict, new_dict: NewDict, values: tuple[Any, ...]
    ) -> None:
        content = {("a",): values[0], ("b", "c"): values[1]}
        d.update(content)
        target = new_dict()
        copy_items(d, target, keys=["a", ("b", "c")])
        assert content_of(target) == content

    def test_copying_what_is_absent_fails_for_it_alone(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        result = copy_items(in_ram(d, {("a",): values[0]}), d, keys=["absent", "a"])
        assert (tuples(result.copied), tuples(result.failed)) == ({("a",)}, {("absent",)})
        assert isinstance(next(iter(result.failed.values())), KeyError)

    def test_without_overwriting_what_is_there_stays(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        source = in_ram(d, {("a",): values[1], ("b",): values[2]})
        result = copy_items(source, d, overwrite=False)
        assert content_of(d) == {("a",): values[0], ("b",): values[2]}
        assert (tuples(result.copied), tuples(result.skipped)) == ({("b",)}, {("a",)})

    def test_a_sync_copies_what_is_missing_and_a_second_one_nothing(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        content = {("a",): values[0], ("b", "c"): values[1]}
        d["a"] = values[0]
        source = in_ram(d, content)
        assert tuples(sync_items(source, d).copied) == {("b", "c")}
        assert content_of(d) == content
        assert tuples(sync_items(source, d).skipped) == set(content)


class TransferChangingTests(ConformanceBase):
    """Copies replace items, and a sync removes them on request."""

    def test_a_copy_replaces_what_is_there(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"a": values[0], "b": values[0]})
        copy_items(in_ram(d, {("a",): values[1]}), d)
        assert content_of(d) == {("a",): values[1], ("b",): values[0]}

    def test_a_sync_makes_the_content_the_same(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d.update({"same": values[0], "other": values[0], "gone": values[0]})
        content = {("same",): values[0], ("other",): values[1], ("new",): values[2]}
        result = sync_items(in_ram(d, content), d, delete=True)
        assert content_of(d) == content
        assert tuples(result.copied) == {("other",), ("new",)}
        assert tuples(result.deleted) == {("gone",)}


class TransferAppendOnlyTests(ConformanceBase):
    """Nothing that is copied replaces an item of an append-only dictionary."""

    @pytest.mark.parametrize("transfer", [copy_items, sync_items])
    def test_what_exists_is_kept_and_differences_are_refused(
        self, append_only_d: AnyDict, values: tuple[Any, ...], transfer: Any
    ) -> None:
        append_only_d.update({"same": values[0], "other": values[0]})
        content = {("same",): values[0], ("other",): values[1], ("new",): values[2]}
        result = transfer(in_ram(append_only_d, content), append_only_d)
        assert content_of(append_only_d) == {**content, ("other",): values[0]}
        assert tuples(result.skipped) == {("same",)}
        assert isinstance(result.failed[NonEmptySafeStrTuple("other")], MutationPolicyError)

    def test_a_sync_that_deletes_is_refused_before_it_copies(
        self, append_only_d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        source = in_ram(append_only_d, {("a",): values[0]})
        with pytest.raises(MutationPolicyError):
            sync_items(source, append_only_d, delete=True)
        assert content_of(append_only_d) == {}


class StoredBytesTests(ConformanceBase):
    """The stored bytes are values, too, and can be read as a stream."""

    @pytest.fixture
    def stored(self, d: AnyDict) -> StoredDict[Any]:
        """Return a fresh, empty dictionary, if it is one on a store."""
        if not isinstance(d, StoredDict):
            pytest.skip("this dictionary keeps no bytes of its own")
        return d

    def test_raw_values_are_bytes_that_make_the_same_values_again(
        self, stored: StoredDict[Any], new_dict: NewDict, values: tuple[Any, ...]
    ) -> None:
        stored.update({"a": values[0], ("b", "c"): values[1]})
        raw = dict(stored.raw.items())
        assert {type(data) for data in raw.values()} == {bytes}
        again = new_dict()
        assert isinstance(again, StoredDict)
        again.raw.update(raw)
        assert content_of(again) == {("a",): values[0], ("b", "c"): values[1]}

    def test_a_raw_value_has_the_version_of_its_item(
        self, stored: StoredDict[Any], values: tuple[Any, ...]
    ) -> None:
        stored["a"] = values[0]
        assert stored.raw.etag("a") == stored.etag("a")

    def test_an_item_is_opened_as_a_stream_of_its_bytes(
        self, stored: StoredDict[Any], values: tuple[Any, ...]
    ) -> None:
        stored["a"] = values[0]
        with stored.open("a") as stream:
            beginning = stream.read(1)
            rest = stream.read()
            stream.seek(0)
            whole = stream.read()
        assert beginning + rest == whole == stored.raw["a"]

    def test_a_stream_seeks_from_the_end(
        self, stored: StoredDict[Any], values: tuple[Any, ...]
    ) -> None:
        stored["a"] = values[0]
        with stored.open("a") as stream:
            assert stream.seek(-1, io.SEEK_END) == len(stored.raw["a"]) - 1
            assert stream.read() == stored.raw["a"][-1:]

    def test_opening_what_is_absent_is_a_key_error(self, stored: StoredDict[Any]) -> None:
        with pytest.raises(KeyError):
            stored.open("absent")

    def test_a_stream_that_is_written_becomes_the_item_when_it_is_closed(
        self, stored: StoredDict[Any], values: tuple[Any, ...]
    ) -> None:
        stored["a"] = values[0]
        with stored.open("b", "wb") as stream:
            stream.write(stored.raw["a"])
            assert "b" not in stored
        assert stored.raw["b"] == stored.raw["a"]

    @pytest.mark.parametrize("mode", ["r", "w", "r+b", "a"])
    def test_items_are_opened_for_reading_or_writing_bytes_anew_alone(
        self, stored: StoredDict[Any], values: tuple[Any, ...], mode: Any
    ) -> None:
        stored["a"] = values[0]
        with pytest.raises(ValueError):
            stored.open("a", mode)
