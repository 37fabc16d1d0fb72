"""WrapperDict: everything of the dictionary beneath is there, and what is changed is changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    ITEM_NOT_AVAILABLE,
    EmptyDict,
    ExpiringDict,
    LocalDict,
    MeasuredDict,
    PersiDict,
)
from persidict.contract.primitives import DictPrimitives
from persidict.safe_str_tuple import as_key
from persidict.testing import DictConformance
from persidict.wrapper_dict import WrapperDict, innermost

ITS_OWN = {
    "_check_is_instance",
    "_check_value",
    "_refuse_bytes",
    "_refuse_change",
    "_refuse_deletion",
    "_refuse_if_read_only",
    "_become_raw",
    "_insert",
    "_write_settled",
    "_pause",
    "_seconds_to_pause",
    "_dated_keys",
}
"""What a dictionary does by itself, whatever lies beneath."""


def another_handle(d: PersiDict[Any], **params: Any) -> PersiDict[Any]:
    beneath = d.get_params()["wrapped_dict"]
    return type(d)(wrapped_dict=type(beneath)(**{**beneath.get_params(), **params}))


class WrapperConformance(DictConformance):
    @pytest.fixture
    def handles_travel(self) -> bool:
        return False

    def another_handle(self, d: PersiDict[Any], **params: Any) -> PersiDict[Any]:
        return another_handle(d, **params)


class TestWrapperDict(WrapperConformance):
    @pytest.fixture
    def new_dict(self) -> Callable[..., PersiDict[Any]]:
        return lambda **params: WrapperDict(wrapped_dict=LocalDict(**params))


class OneByOne(WrapperDict[Any]):
    """A wrapper that has its own idea of everything that matters, and so follows by itself."""

    def _load(self, *args: Any, **kwargs: Any) -> Any:
        return super()._load(*args, **kwargs)

    def _head(self, key: Any) -> Any:
        return super()._head(key)

    def _write(self, *args: Any) -> Any:
        return super()._write(*args)

    def _remove(self, *args: Any) -> None:
        super()._remove(*args)

    def _keys(self, *, page_size: int | None = None) -> Any:
        return super()._keys(page_size=page_size)


class TestWrapperOfEveryPrimitive(WrapperConformance):
    @pytest.fixture
    def new_dict(self) -> Callable[..., PersiDict[Any]]:
        return lambda **params: OneByOne(wrapped_dict=LocalDict(**params))


def test_every_primitive_is_forwarded() -> None:
    primitives = {
        name
        for name, member in vars(DictPrimitives).items()
        if name.startswith("_") and not name.startswith("__")
        if inspect.isfunction(member) or isinstance(member, property)
    }
    assert primitives - ITS_OWN <= set(vars(WrapperDict))


def noting(name: str) -> Callable[..., Any]:
    def primitive(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.is_inside:
            self.asked.append(name)
        outer, self.is_inside = self.is_inside, True
        try:
            return getattr(LocalDict, name)(self, *args, **kwargs)
        finally:
            self.is_inside = outer

    return primitive


class Noting(LocalDict[Any]):
    """A dictionary that notes which primitives it is asked for."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.asked: list[str] = []
        self.is_inside = False


for _name, _member in vars(DictPrimitives).items():
    if inspect.isfunction(_member) and _name not in (*ITS_OWN, "_encode", "_decode", "_subdict"):
        setattr(Noting, _name, noting(_name))


def expiring(d: PersiDict[Any]) -> ExpiringDict[Any]:
    return ExpiringDict(wrapped_dict=d, ttl=1e9)


EVERYTHING: dict[str, Callable[[PersiDict[Any]], Any]] = {
    "[]": lambda d: d["a"],
    "in": lambda d: "a" in d,
    "get of nothing": lambda d: d.get("nothing"),
    "assigning": lambda d: d.__setitem__("a", 2),
    "deleting": lambda d: d.__delitem__("a"),
    "discard": lambda d: d.discard("a"),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("new", 2),
    "update": lambda d: d.update({"a": 2, "new": 3}),
    "clear": lambda d: d.clear(),
    "len": len,
    "bool": bool,
    "list": lambda d: [list(d), list(d.values()), list(d.items())],
    "a range": lambda d: [list(d.keys(prefix="p")), list(d.items(prefix="p"))],
    "glob": lambda d: list(d.glob("p/*")),
    "get_many": lambda d: d.get_many(["a", "nothing"]),
    "discard_many": lambda d: d.discard_many(["a", "nothing"]),
    "info": lambda d: [d.info("a"), d.etag("a"), d.timestamp("a")],
    "infos": lambda d: list(d.infos()),
    "newest": lambda d: [d.newest_keys(max_n=1), d.oldest_values(max_n=1)],
    "random_key": lambda d: d.random_key(),
    "subdicts": lambda d: d.subdicts(),
    "copy_item": lambda d: d.copy_item("a", "new"),
    "open": lambda d: d.open("a").read(),
    "get_with_etag": lambda d: d.get_with_etag("a"),
    "set_item_if": lambda d: d.set_item_if(
        "a", value=2, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "discard_if": lambda d: d.discard_if("a", condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE),
    "transform_item": lambda d: d.transform_item("a", transformer=lambda n: n + 1),
    "reading through one that expires": lambda d: expiring(d)["a"],
    "iterating through one that expires": lambda d: list(expiring(d).items()),
    "==": lambda d: d == {"a": 1},
    "str": str,
}

WRAPPERS: dict[str, Callable[[PersiDict[Any]], PersiDict[Any]]] = {
    "one": lambda d: WrapperDict(wrapped_dict=d),
    "two": lambda d: WrapperDict(wrapped_dict=WrapperDict(wrapped_dict=d)),
    "a measured one": lambda d: MeasuredDict(wrapped_dict=d),
    "one in front of a measured one": lambda d: WrapperDict(
        wrapped_dict=MeasuredDict(wrapped_dict=d)
    ),
}


def asked_by(operation: Callable[[PersiDict[Any]], Any], wrap: Any = lambda d: d) -> list[str]:
    d = Noting()
    d.update({"a": 1, ("p", "b"): 2})
    wrapper = wrap(d)
    d.asked.clear()
    operation(wrapper)
    return d.asked


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize("name", EVERYTHING)
def test_a_wrapper_asks_what_it_wraps_for_what_it_is_asked_for(name: str, kind: str) -> None:
    asked = asked_by(EVERYTHING[name])
    assert asked
    assert asked_by(EVERYTHING[name], WRAPPERS[kind]) == asked


class Upper(WrapperDict[str]):
    """A wrapper that changes what is written, in one place."""

    def _write(self, key: Any, value: Any, expected: Any) -> Any:
        return super()._write(key, value.upper(), expected)


WRITES: dict[str, Callable[[PersiDict[str]], Any]] = {
    "assigning": lambda d: d.__setitem__("a", "x"),
    "setdefault": lambda d: d.setdefault("a", "x"),
    "update": lambda d: d.update({"a": "x"}),
    "set_many": lambda d: d.set_many([("a", "x")]),
    "transform_item": lambda d: d.transform_item("a", transformer=lambda _: "x"),
    "set_item_if": lambda d: d.set_item_if(
        "a", value="x", condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "a sub-dictionary": lambda d: d.get_subdict("s").__setitem__("a", "x"),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_changed_primitive_changes_every_operation_that_is_built_on_it(name: str) -> None:
    beneath: LocalDict[str] = LocalDict()
    WRITES[name](Upper(wrapped_dict=beneath))
    assert list(beneath.values()) == ["X"]


class WithoutHidden(WrapperDict[Any]):
    """A wrapper that shows some of the keys."""

    def _keys(self, *, page_size: int | None = None) -> Any:
        return (key for key in super()._keys() if not key[-1].startswith("."))


LISTINGS: dict[str, Callable[[PersiDict[Any]], Any]] = {
    "list": list,
    "len": lambda d: [("a",)] * len(d),
    "keys of a range": lambda d: d.keys(start=".a"),
    "values": lambda d: [("a",) for _ in d.values()],
    "items": lambda d: [key for key, _ in d.items()],
    "times": lambda d: [key for key, _ in d.keys_and_timestamps()],
    "newest": lambda d: d.newest_keys(),
    "first parts": lambda d: [(part,) for part in d.subdicts()],
    "popitem": lambda d: [d.popitem()[0]],
}


@pytest.mark.parametrize("name", LISTINGS)
def test_what_a_wrapper_does_not_show_is_in_no_listing(name: str) -> None:
    d = WithoutHidden(wrapped_dict=LocalDict())
    d.update({"a": 1, ".b": 2})
    assert list(LISTINGS[name](d)) == [("a",)]


class WithVanishing(WrapperDict[Any]):
    """A wrapper that lists a key whose item is gone."""

    def _keys(self, *, page_size: int | None = None) -> Any:
        yield as_key("gone")
        yield from super()._keys()


def test_what_vanishes_between_listing_and_reading_is_left_out_of_items_and_times() -> None:
    d = WithVanishing(wrapped_dict=LocalDict())
    d["a"] = 1
    assert [key for key, _, _ in d.items_and_timestamps()] == [("a",)]


def test_a_length_asked_for_between_listing_and_reading_counts_what_is_shown() -> None:
    d = WithoutHidden(wrapped_dict=LocalDict())
    d.update({"a": 1, ".b": 2})
    items = iter(d.items())
    assert len(d) == 1
    assert list(items) == [(("a",), 1)]


def test_a_wrapper_asks_for_what_it_is_called_in_its_own_constructor() -> None:
    with pytest.raises(TypeError, match="wrapped_dict must be a PersiDict, not dict"):
        WrapperDict(wrapped_dict={})  # type: ignore[arg-type]


def test_a_wrapper_has_the_traits_of_what_lies_beneath() -> None:
    beneath: LocalDict[Any] = LocalDict()
    assert WrapperDict(wrapped_dict=WrapperDict(wrapped_dict=beneath))._traits is (
        beneath.backend.traits
    )


def test_the_innermost_dictionary_is_the_one_that_holds_the_items() -> None:
    beneath: LocalDict[Any] = LocalDict()
    wrapper = WrapperDict(wrapped_dict=WrapperDict(wrapped_dict=beneath))
    assert innermost(wrapper) is innermost(beneath) is beneath


def test_a_wrapper_of_what_keeps_nothing_reports_that_nothing_is_kept() -> None:
    d = WrapperDict(wrapped_dict=EmptyDict())
    result = d.set_item_if("a", value=1, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE)
    assert (result.resulting_etag, result.new_value) == (ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)


class Counted(LocalDict[Any]):
    """A dictionary that notes which primitives are asked for from outside, and how often."""

    asked: list[str] = []  # noqa: RUF012  # each test has its own

    def __getattribute__(self, name: str) -> Any:
        if name in FORWARDED:
            self.asked.append(name)
        return super().__getattribute__(name)


FORWARDED = {"_keys", "_keys_in", "_count", "_remove_all", "_first_parts", "_versions", "_items"}

AS_CHEAP_AS_BENEATH: dict[str, Callable[[PersiDict[Any]], object]] = {
    "len": len,
    "keys of a range": lambda d: list(d.keys(start="a")),
    "items of a range": lambda d: list(d.items(start="a")),
    "infos of a range": lambda d: list(d.infos(start="a")),
    "items": lambda d: list(d.items_and_timestamps()),
    "clear": lambda d: d.clear(),
    "subdicts": lambda d: list(d.subdicts()),
}


@pytest.mark.parametrize("operation", AS_CHEAP_AS_BENEATH)
def test_a_wrapper_asks_for_no_more_than_what_lies_beneath_does(operation: str) -> None:
    def asked(wrap: Callable[[PersiDict[Any]], PersiDict[Any]]) -> list[str]:
        beneath = Counted()
        d = wrap(beneath)
        d.update({"a": 1, "b": 2})
        beneath.asked = []
        AS_CHEAP_AS_BENEATH[operation](d)
        return beneath.asked

    assert asked(lambda beneath: WrapperDict(wrapped_dict=beneath)) == asked(lambda d: d)
