"""Conformance: constructor parameters, what values are taken, copies and pickles of handles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from mixinforge import dumpjs, loadjs

from persidict.jokers_and_status_flags import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    NEVER_RETRIEVE,
    VALUE_NOT_RETRIEVED,
)
from persidict.testing._base import AnyDict, ConformanceBase, NewDict, content_of


class Headline(str):
    """A kind of text that plain texts are not."""

    __slots__ = ()


WRITES: dict[str, Callable[[AnyDict, Any], object]] = {
    "assignment": lambda d, value: d.__setitem__("a", value),
    "update": lambda d, value: d.update({"a": value}),
    "setdefault": lambda d, value: d.setdefault("a", value),
    "setdefault_if": lambda d, value: d.setdefault_if(
        "a", default_value=value, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
}

CHANGING_WRITES: dict[str, Callable[[AnyDict, Any], object]] = {
    "set_item_if": lambda d, value: d.set_item_if(
        "a", value=value, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "transform_item": lambda d, value: d.transform_item("a", transformer=lambda _: value),
}

READS: dict[str, Callable[[AnyDict], object]] = {
    "d[key]": lambda d: d["a"],
    "get": lambda d: d.get("a"),
    "values": lambda d: list(d.values()),
    "items": lambda d: list(d.items()),
    "get_with_etag": lambda d: d.get_with_etag("a"),
    "get_item_if": lambda d: d.get_item_if(
        "a",
        condition=ANY_ETAG,
        expected_etag=ITEM_NOT_AVAILABLE,
        retrieve_value=ALWAYS_RETRIEVE,
    ),
}


TRIPS: dict[str, Callable[[AnyDict], AnyDict]] = {
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    "json": lambda d: loadjs(dumpjs(d)),
}


class HandleTests(ConformanceBase):
    """A handle is its parameters: it can be copied, shown and made again from them."""

    def test_parameters_are_sorted_by_name(self, d: AnyDict) -> None:
        names = list(d.get_params())
        assert names == sorted(names)

    def test_a_handle_made_of_the_parameters_is_equal_and_shows_the_same_items(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        other = type(d)(**d.get_params())
        d["a"] = values[0]
        assert other == d
        assert other.get_params() == d.get_params()
        assert content_of(other) == {("a",): values[0]}

    def test_a_copy_is_a_second_handle_on_the_same_items(
        self, d: AnyDict, values: tuple[Any, ...]
    ) -> None:
        other = copy.copy(d)
        assert other is not d
        assert type(other) is type(d)
        assert other.get_params() == d.get_params()
        other["a"] = values[0]
        assert content_of(d) == {("a",): values[0]}

    def test_repr_shows_the_class_and_every_parameter(self, d: AnyDict) -> None:
        shown = repr(d)
        missing = [name for name in (type(d).__name__, *d.get_params()) if name not in shown]
        assert missing == []

    @pytest.mark.parametrize("way", list(TRIPS))
    def test_a_handle_travels_as_its_parameters_or_refuses_with_a_type_error(
        self, d: AnyDict, values: tuple[Any, ...], handles_travel: bool, way: str
    ) -> None:
        d["a"] = values[0]
        if not handles_travel:
            with pytest.raises(TypeError):
                TRIPS[way](d)
            return
        other = TRIPS[way](d)
        assert type(other) is type(d)
        assert other.get_params() == d.get_params()
        assert content_of(other) == {("a",): values[0]}


class ValueTests(ConformanceBase):
    """Only values of the promised class go in, and only such come out."""

    @pytest.mark.parametrize("operation", list(WRITES))
    def test_a_dictionary_is_never_a_value(
        self, d: AnyDict, new_dict: NewDict, operation: str
    ) -> None:
        other = new_dict()
        with pytest.raises(TypeError):
            WRITES[operation](d, other)
        assert content_of(d) == {}

    @pytest.mark.parametrize("default", [None, 5], ids=repr)
    def test_the_default_of_an_item_that_exists_may_be_of_another_class(
        self, new_dict: NewDict, default: Any
    ) -> None:
        d = new_dict(base_class_for_values=str)
        d["a"] = "text"
        assert d.setdefault("a", default) == "text"
        assert d.setdefault_if(
            "a",
            default_value=default,
            condition=ANY_ETAG,
            expected_etag=ITEM_NOT_AVAILABLE,
            retrieve_value=ALWAYS_RETRIEVE,
        ).new_value == ("text")

    @pytest.mark.parametrize("operation", list(WRITES))
    def test_a_value_of_another_class_is_refused(self, new_dict: NewDict, operation: str) -> None:
        d = new_dict(base_class_for_values=str)
        with pytest.raises(TypeError):
            WRITES[operation](d, 5)
        assert content_of(d) == {}

    def test_values_of_the_base_class_are_taken(self, new_dict: NewDict) -> None:
        d = new_dict(base_class_for_values=str)
        d["a"] = "text"
        assert content_of(d) == {("a",): "text"}

    def test_what_is_read_is_an_instance_of_the_base_class(self, new_dict: NewDict) -> None:
        is_text = new_dict().serialization_format not in ("pkl", "json")
        value = Headline("text") if is_text else Fraction(1, 3)
        d = new_dict(base_class_for_values=type(value))
        d["a"] = value
        assert (type(d["a"]), d["a"]) == (type(value), value)

    def test_the_base_class_is_a_parameter_that_sub_dictionaries_inherit(
        self, new_dict: NewDict
    ) -> None:
        d = new_dict(base_class_for_values=str)
        assert d.base_class_for_values is str
        with pytest.raises(TypeError):
            d.get_subdict("g")["a"] = 5


class ChangingValueTests(ConformanceBase):
    """The same for operations that can also change items."""

    @pytest.mark.parametrize("operation", list(CHANGING_WRITES))
    def test_a_dictionary_is_never_a_new_value(
        self, d: AnyDict, new_dict: NewDict, operation: str
    ) -> None:
        other = new_dict()
        with pytest.raises(TypeError):
            CHANGING_WRITES[operation](d, other)
        assert content_of(d) == {}

    @pytest.mark.parametrize("operation", list(CHANGING_WRITES))
    def test_a_new_value_of_another_class_is_refused(
        self, new_dict: NewDict, operation: str
    ) -> None:
        d = new_dict(base_class_for_values=str)
        d["a"] = "text"
        with pytest.raises(TypeError):
            CHANGING_WRITES[operation](d, 5)
        assert content_of(d) == {("a",): "text"}

    def test_a_new_value_of_another_class_is_refused_even_if_the_condition_is_not_met(
        self, new_dict: NewDict
    ) -> None:
        d = new_dict(base_class_for_values=str)
        d["a"] = "text"
        with pytest.raises(TypeError):
            d.set_item_if(
                "a", value=5, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
            )

    @pytest.mark.parametrize("operation", list(READS))
    def test_a_stored_value_of_another_class_is_refused_when_read(
        self, new_dict: NewDict, operation: str
    ) -> None:
        narrow = self.narrow_handle_on_a_plain_text(new_dict)
        with pytest.raises(TypeError):
            READS[operation](narrow)

    def test_never_retrieve_does_not_look_at_the_stored_value(self, new_dict: NewDict) -> None:
        narrow = self.narrow_handle_on_a_plain_text(new_dict)
        result = narrow.get_item_if(
            "a",
            condition=ANY_ETAG,
            expected_etag=ITEM_NOT_AVAILABLE,
            retrieve_value=NEVER_RETRIEVE,
        )
        assert result.new_value is VALUE_NOT_RETRIEVED

    def narrow_handle_on_a_plain_text(self, new_dict: NewDict) -> AnyDict:
        """Store a text, and return a handle that expects another class than what lies there."""
        d = new_dict(base_class_for_values=str)
        if d.serialization_format not in ("pkl", "json"):
            pytest.skip("what a text format reads is made into the base class")
        d["a"] = "text"
        return self.another_handle(d, base_class_for_values=Headline)


class ConstructorTests(ConformanceBase):
    """The parameters that every storage has are checked."""

    @pytest.mark.parametrize("base_class", [5, "str", (str, int)], ids=repr)
    def test_a_base_class_that_is_no_class_is_refused(
        self, new_dict: NewDict, base_class: Any
    ) -> None:
        with pytest.raises(TypeError):
            new_dict(base_class_for_values=base_class)

    @pytest.mark.parametrize("name", ["", "a/b", "p kl", "ä", "..", "."], ids=repr)
    def test_an_empty_or_unsafe_format_is_refused(self, new_dict: NewDict, name: str) -> None:
        with pytest.raises(ValueError):
            new_dict(serialization_format=name, base_class_for_values=str)

    @pytest.mark.parametrize("base_class", [None, int, object], ids=repr)
    def test_a_text_format_needs_a_class_of_texts(
        self, new_dict: NewDict, base_class: type | None
    ) -> None:
        with pytest.raises(ValueError):
            new_dict(serialization_format="md", base_class_for_values=base_class)

    def test_any_safe_name_is_a_format_for_texts(self, new_dict: NewDict) -> None:
        d = new_dict(serialization_format="md", base_class_for_values=str)
        d["a"] = "# Title\r\n"
        assert content_of(d) == {("a",): "# Title\r\n"}

    def test_parameters_are_keyword_only(self, d: AnyDict) -> None:
        constructor: Callable[..., AnyDict] = type(d)
        with pytest.raises(TypeError):
            constructor("somewhere")
