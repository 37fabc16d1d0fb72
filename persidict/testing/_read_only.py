"""Conformance: handles that cannot change items, operation by operation."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import pytest

from persidict.exceptions import MutationPolicyError
from persidict.jokers_and_status_flags import (
    ANY_ETAG,
    DELETE_CURRENT,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
)
from persidict.testing._base import AnyDict, ConformanceBase, NewDict, content_of

ALWAYS: Final[dict[str, Any]] = {"condition": ANY_ETAG, "expected_etag": ITEM_NOT_AVAILABLE}

REFUSED: Final[dict[str, Callable[[AnyDict, Any], object]]] = {
    "__setitem__": lambda d, value: d.__setitem__("a", value),
    "__setitem__ of KEEP_CURRENT": lambda d, value: d.__setitem__("a", KEEP_CURRENT),
    "__setitem__ of DELETE_CURRENT": lambda d, value: d.__setitem__("a", DELETE_CURRENT),
    "__delitem__": lambda d, value: d.__delitem__("a"),
    "__ior__": lambda d, value: d.__ior__({"a": value}),
    "setdefault": lambda d, value: d.setdefault("a", value),
    "setdefault_if": lambda d, value: d.setdefault_if("a", default_value=value, **ALWAYS),
    "set_item_if": lambda d, value: d.set_item_if("a", value=value, **ALWAYS),
    "set_item_if of KEEP_CURRENT": lambda d, value: d.set_item_if(
        "a", value=KEEP_CURRENT, **ALWAYS
    ),
    "discard_if": lambda d, value: d.discard_if("a", **ALWAYS),
    "transform_item": lambda d, value: d.transform_item("a", transformer=lambda _: value),
    "update": lambda d, value: d.update({"a": value}),
    "set_many": lambda d, value: d.set_many([("a", value)]),
    "discard": lambda d, value: d.discard("a"),
    "delete_if_exists": lambda d, value: d.delete_if_exists("a"),
    "discard_many": lambda d, value: d.discard_many(["a"]),
    "pop": lambda d, value: d.pop("a"),
    "pop with a default": lambda d, value: d.pop("a", None),
    "popitem": lambda d, value: d.popitem(),
    "clear": lambda d, value: d.clear(),
    "copy_item": lambda d, value: d.copy_item("a", "b"),
    "open": lambda d, value: d.open("a", "wb"),
}
"""What every dictionary has that may change items, called such that it would."""

OTHER_HANDLES: Final[dict[str, Callable[[AnyDict], AnyDict]]] = {
    "a copy": copy.copy,
    "a deep copy": copy.deepcopy,
    "what its parameters make": lambda d: type(d)(**d.get_params()),
    "another read-only handle": lambda d: d.read_only(),
    "a sub-dictionary": lambda d: d.get_subdict("g"),
    "everything as a sub-dictionary": lambda d: d.get_subdict(()),
    "the first of its sub-dictionaries": lambda d: d.subdicts()["a"],
    "one with other parameters": lambda d: d.with_params(),
}


def policy_of(operation: Callable[[AnyDict, Any], object], d: AnyDict, value: Any) -> str | None:
    """Return the policy that an operation is refused under, None if it is not."""
    try:
        operation(d, value)
    except MutationPolicyError as refusal:
        return refusal.policy
    return None


class ReadOnlyTests(ConformanceBase):
    """A read-only handle shows what there is, and refuses whatever may change it."""

    @pytest.mark.parametrize("present", [True, False], ids=["present", "absent"])
    def test_what_may_change_items_is_refused_whether_or_not_there_is_one(
        self, d: AnyDict, values: tuple[Any, ...], present: bool
    ) -> None:
        before = {("a",): values[0]} if present else {}
        d.update(before)
        shown = d.read_only()
        policies = {name: policy_of(refused, shown, values[1]) for name, refused in REFUSED.items()}
        assert policies == dict.fromkeys(REFUSED, "read-only")
        assert content_of(d) == before

    def test_what_others_write_is_seen(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        shown = d.read_only()
        d["a"] = values[0]
        assert content_of(shown) == {("a",): values[0]}
        assert shown["a"] == shown.get("a") == shown.get_with_etag("a").new_value == values[0]
        assert (type(shown), shown.is_read_only, d.is_read_only) == (type(d), True, False)

    def test_every_constructor_takes_it_as_a_parameter(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        shown = type(d)(**{**d.get_params(), "read_only": True})
        assert shown.is_read_only
        assert shown == d.read_only()
        assert content_of(shown) == {("a",): values[0]}

    def test_what_is_made_of_a_read_only_handle_is_read_only(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        d["a"] = values[0]
        made = {name: make(d.read_only()) for name, make in OTHER_HANDLES.items()}
        policies = {
            name: policy_of(REFUSED["__setitem__"], other, values[1])
            for name, other in made.items()
            if other.is_read_only
        }
        assert policies == dict.fromkeys(OTHER_HANDLES, "read-only")

    def test_its_stored_bytes_are_read_only(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        d["a"] = values[0]
        try:
            raw = d.read_only().raw
        except TypeError:
            pytest.skip("values are not kept as bytes")
        with pytest.raises(MutationPolicyError, match="read-only"):
            raw["a"] = b"other"
        assert content_of(d) == {("a",): values[0]}

    def test_its_pickle_is_read_only(
        self, d: AnyDict, values: tuple[Any, ...], handles_travel: bool
    ) -> None:
        if not handles_travel:
            pytest.skip("handles do not travel")
        back = pickle.loads(pickle.dumps(d.read_only()))
        with pytest.raises(MutationPolicyError, match="read-only"):
            back["a"] = values[0]

    def test_nothing_is_taken_from_a_source_that_cannot_be_stored(self, d: AnyDict) -> None:
        def source() -> Iterator[NoReturn]:
            pytest.fail("asked for an item")
            yield

        with pytest.raises(MutationPolicyError, match="read-only"):
            d.read_only().update(source())

    @pytest.mark.parametrize("flag", [None, "yes"], ids=repr)
    def test_a_flag_that_is_no_bool_is_refused_by_name(self, new_dict: NewDict, flag: Any) -> None:
        d = new_dict()
        with pytest.raises(TypeError, match="read_only"):
            type(d)(**{**d.get_params(), "read_only": flag})
