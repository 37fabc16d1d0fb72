"""Conformance: what is taken as a key, and that no two keys are ever mixed up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.testing._base import AnyDict, ConformanceBase, NewDict, as_tuple, content_of
from persidict.testing.model import Key
from persidict.testing.samples import AWKWARD_KEYS, groups_of_keys

FORMS_OF_ONE_KEY = (
    ("a", "b"),
    ["a", "b"],
    ("a", ("b",)),
    [["a"], [["b"]]],
    SafeStrTuple("a", "b"),
    NonEmptySafeStrTuple("a", "b"),
    (SafeStrTuple("a"), "b"),
)

BAD_PARTS: tuple[tuple[Any, type[Exception]], ...] = (
    ("", ValueError),
    (("a", ""), ValueError),
    ("a/b", ValueError),
    ("a b", ValueError),
    ("ä", ValueError),
    ("a\0", ValueError),
    (".", ValueError),
    (("a", ".."), ValueError),
    ("x" * 254, ValueError),
    (5, TypeError),
    (None, TypeError),
    (("a", 5), TypeError),
    (b"a", TypeError),
    ({"a"}, TypeError),
    ({"a": 1}, TypeError),
)

BAD_KEYS = (*BAD_PARTS, ((), ValueError), ([], ValueError), (SafeStrTuple(), ValueError))

OPERATIONS_ON_A_KEY: dict[str, Callable[[AnyDict, Any, Any], object]] = {
    "get": lambda d, key, value: d[key],
    "set": lambda d, key, value: d.update([(key, value)]),
    "setdefault": lambda d, key, value: d.setdefault(key, value),
    "etag": lambda d, key, value: d.etag(key),
    "timestamp": lambda d, key, value: d.timestamp(key),
    "get_with_etag": lambda d, key, value: d.get_with_etag(key),
}


class KeyTests(ConformanceBase):
    """Every safe key works everywhere, and nothing else is taken for a key."""

    @pytest.mark.parametrize("form", FORMS_OF_ONE_KEY, ids=repr)
    def test_a_key_means_the_same_in_every_form(
        self, d: AnyDict, values: tuple[Any, ...], form: Any
    ) -> None:
        d[form] = values[0]
        assert [key.strings for key in d] == [("a", "b")]
        assert all(d[other] == values[0] for other in FORMS_OF_ONE_KEY)

    @pytest.mark.parametrize("key", AWKWARD_KEYS, ids=lambda key: "/".join(key)[:40])
    def test_an_awkward_key_comes_back_as_it_went_in(
        self, d: AnyDict, values: tuple[Any, ...], key: Key
    ) -> None:
        d[key] = values[0]
        assert content_of(d) == {key: values[0]}
        assert d[key] == values[0]

    def test_all_awkward_keys_live_side_by_side(self, d: AnyDict, values: tuple[Any, ...]) -> None:
        expected = {key: values[n % len(values)] for n, key in enumerate(AWKWARD_KEYS)}
        for key, value in expected.items():
            d[key] = value
        assert content_of(d) == expected
        assert {key: d[key] for key in expected} == expected

    @settings(
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,  # the suite is made to be inherited
        ],
    )
    @given(data=st.data())
    def test_any_keys_come_back_as_they_went_in(
        self, new_dict: NewDict, values: tuple[Any, ...], data: st.DataObject
    ) -> None:
        d = new_dict()
        chosen = data.draw(groups_of_keys(d.serialization_format))
        expected = {key: values[n % len(values)] for n, key in enumerate(chosen)}
        for key, value in expected.items():
            d[key] = value
        assert sorted(map(as_tuple, d)) == sorted(expected)
        assert {key: d[key] for key in expected} == expected

    @pytest.mark.parametrize(("key", "error"), BAD_KEYS, ids=lambda value: repr(value)[:20])
    @pytest.mark.parametrize("operation", list(OPERATIONS_ON_A_KEY))
    def test_what_is_no_key_is_refused(
        self,
        d: AnyDict,
        values: tuple[Any, ...],
        key: Any,
        error: type[Exception],
        operation: str,
    ) -> None:
        with pytest.raises(error):
            OPERATIONS_ON_A_KEY[operation](d, key, values[0])
        assert len(d) == 0

    @pytest.mark.parametrize(("prefix", "error"), BAD_PARTS, ids=lambda value: repr(value)[:20])
    def test_what_is_no_prefix_is_refused(
        self, d: AnyDict, prefix: Any, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            d.get_subdict(prefix)
