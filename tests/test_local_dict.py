"""A LocalDict: what it holds, how formats keep apart, and that one item takes one look."""

from __future__ import annotations

import copy
import pickle
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import FileDirDict, LocalDict, NonEmptySafeStrTuple, copy_items
from persidict.stores.memory import MemoryStore


def local_class() -> type:
    class Local:
        def __init__(self, **attributes: Any) -> None:
            vars(self).update(attributes)

        def __eq__(self, other: object) -> bool:
            return type(self) is type(other) and vars(self) == vars(other)

        __hash__ = None  # type: ignore[assignment]

    return Local


READS: dict[str, Callable[[LocalDict[Any]], Any]] = {
    "d[key]": lambda d: d["a"],
    "get": lambda d: d.get("a"),
    "get_with_etag": lambda d: d.get_with_etag("a").new_value,
    "items": lambda d: dict(d.items())["a",],
    "get_many": lambda d: d.get_many(["a"])["a",],
    "setdefault": lambda d: d.setdefault("a", 1),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem()[1],
    "transform_item": lambda d: d.transform_item("a", transformer=copy.copy).new_value,
}

WRITES: dict[str, Callable[[LocalDict[Any], Any], object]] = {
    "d[key] = ": lambda d, value: d.__setitem__("a", value),
    "update": lambda d, value: d.update({"a": value}),
    "setdefault": lambda d, value: d.setdefault("a", value),
    "transform_item": lambda d, value: d.transform_item("a", transformer=lambda _: value),
}


@pytest.mark.parametrize("serialization_format", ["pkl", "json"])
@pytest.mark.parametrize("write", list(WRITES))
def test_an_instance_of_a_local_class_is_held_apart_from_what_is_outside(
    write: str, serialization_format: str
) -> None:
    d: LocalDict[Any] = LocalDict(serialization_format=serialization_format)
    value = [local_class()(inner=[1]), lambda: 5]
    WRITES[write](d, value)
    value[0].inner.append(2)
    found = d["a"]
    assert (found[0].inner, found[1]()) == ([1], 5)
    found[0].inner.append(3)
    assert d["a"][0].inner == [1]


@pytest.mark.parametrize("read", list(READS))
def test_every_way_to_read_gives_a_local_instance_back(read: str) -> None:
    d: LocalDict[Any] = LocalDict()
    value = [local_class()(x=1), len]
    d["a"] = value
    assert READS[read](d) == value


def test_a_local_instance_is_of_the_class_for_values() -> None:
    kind = local_class()
    d: LocalDict[Any] = LocalDict(base_class_for_values=kind)
    d["a"] = kind(x=1)
    assert d["a"] == kind(x=1)
    other: LocalDict[Any] = LocalDict(backend=d.backend, base_class_for_values=int)
    with pytest.raises(TypeError, match="base_class_for_values"):
        other["a"]


@pytest.mark.parametrize("value", [threading.Lock(), (n for n in "ab")], ids=["lock", "generator"])
def test_what_can_be_neither_pickled_nor_copied_is_refused_with_the_reason(value: Any) -> None:
    d: LocalDict[Any] = LocalDict()
    with pytest.raises(TypeError, match="cannot pickle"):
        d["a"] = value
    assert len(d) == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda d: d.raw["a"],
        lambda d: d.open("a"),
        lambda d: list(d.raw.values()),
        lambda d: d.raw.get_with_etag("a"),
    ],
    ids=["raw", "open", "values of raw", "raw with version"],
)
def test_what_has_no_bytes_says_so_where_they_are_asked_for(
    ask: Callable[[LocalDict[Any]], object],
) -> None:
    d: LocalDict[Any] = LocalDict()
    d["a"] = lambda: 1
    with pytest.raises(TypeError, match="has no bytes"):
        ask(d)


def test_copying_what_has_no_bytes_elsewhere_says_so_and_copies_the_rest(tmp_path: Path) -> None:
    source: LocalDict[Any] = LocalDict()
    source["a"], source["b"] = local_class()(), 1
    target: FileDirDict[Any] = FileDirDict(base_dir=tmp_path)
    result = copy_items(source, target)
    assert "has no bytes" in str(result.failed[NonEmptySafeStrTuple("a")])
    assert dict(target.items()) == {("b",): 1}


# ---------------------------------------------------------------------- formats


def test_formats_of_which_one_ends_like_the_other_keep_apart() -> None:
    backend = MemoryStore()
    gz: LocalDict[str] = LocalDict(
        backend=backend, serialization_format="gz", base_class_for_values=str
    )
    tar: LocalDict[str] = LocalDict(
        backend=backend, serialization_format="tar.gz", base_class_for_values=str
    )
    gz["x.tar"], tar["x"] = "gz", "tar"
    gz["p", "y"], tar["p", "z.tar"] = "gz", "tar"
    assert {**gz} == {("x.tar",): "gz", ("p", "y"): "gz"}
    assert {**tar} == {("x",): "tar", ("p", "z.tar"): "tar"}
    assert [*tar.keys(prefix="p")] == [("p", "z.tar")]
    assert [*tar.keys(start="x")] == [("x",)]
    assert {**tar.get_subdict("p")} == {("z.tar",): "tar"}
    gz.clear()
    assert {**tar} == {("x",): "tar", ("p", "z.tar"): "tar"}


# ---------------------------------------------------------------------- one look


class CountedDict(dict[str, Any]):
    """Counts the entries that an iteration looks at."""

    looks = 0

    def __iter__(self) -> Any:
        for key in super().__iter__():
            CountedDict.looks += 1
            yield key


@pytest.mark.parametrize(
    "look",
    [bool, lambda d: next(iter(d)), lambda d: d.popitem(), lambda d: next(iter(d.items()))],
    ids=["bool", "next(iter)", "popitem", "next(items)"],
)
@pytest.mark.parametrize("prefix", [(), ("p",)])
def test_looking_at_one_item_looks_at_one_entry(
    look: Callable[[Any], object], prefix: tuple[str, ...]
) -> None:
    d: LocalDict[Any] = LocalDict()
    for number in range(100):
        d[*prefix, str(number)] = number
    memory = d.backend._memory
    directory = "/".join(prefix)
    memory.directories[directory] = CountedDict(memory.directories[directory])
    CountedDict.looks = 0
    look(d.get_subdict(prefix))
    assert CountedDict.looks <= 2


def test_entries_that_were_deleted_are_not_looked_through_again_and_again() -> None:
    d: LocalDict[Any] = LocalDict()
    for number in range(5000):
        d[str(number)] = number
        d["in", str(number), "x"] = number
    for number in range(4900):
        del d[str(number)]
        del d["in", str(number), "x"]
    memory = d.backend._memory
    # a dict that has never had more entries takes as much room
    assert memory.directories[""].__sizeof__() < 40_000
    assert memory.directories.__sizeof__() < 40_000


def test_a_queue_drained_by_popitem_gives_each_item_once() -> None:
    d: LocalDict[int] = LocalDict()
    d.update({str(number): number for number in range(3000)})
    drained = []
    while d:
        drained.append(d.popitem()[1])
        if len(drained) % 7 == 0:
            d["late", str(len(drained))] = -1
            d.pop(("late", str(len(drained))))
    assert sorted(drained) == [*range(3000)]


def test_keys_listed_while_others_change_them_come_once_each() -> None:
    d: LocalDict[int] = LocalDict()
    names = [f"{number % 7}-{number}" for number in range(500)]
    d.update(dict.fromkeys(names, 0))
    listing = iter(d)
    seen = [next(listing)]
    random.Random(1).shuffle(names)
    for name in names[:100]:
        del d[name]
        d["new", name] = 1
    seen.extend(listing)
    assert len(seen) == len({*seen})
    assert {key.strings[0] for key in seen if len(key) == 1} >= {*names[100:]}


def test_items_of_many_directories_are_listed_below_any_prefix() -> None:
    d: LocalDict[int] = LocalDict()
    keys = [("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("ab", "c"), ("b", "a")]
    d.update(dict.fromkeys(keys, 1))
    assert {key.strings for key in d} == {*keys}
    assert {key.strings for key in d.get_subdict("a")} == {("b",), ("b", "c")}
    assert bool(d.get_subdict("a"))
    assert not d.get_subdict("c")


def test_a_deep_copy_of_a_handle_shares_the_items() -> None:
    d: LocalDict[int] = LocalDict()
    d["a"] = 1
    assert copy.deepcopy(d) == d
    copy.deepcopy(d)["b"] = 2
    assert d["b"] == 2


def test_values_are_held_as_their_pickles() -> None:
    d: LocalDict[Any] = LocalDict()
    d["a"] = {"x": 1}
    assert pickle.loads(d.raw["a"]) == {"x": 1}


def test_a_handle_with_other_parameters_is_on_the_same_place() -> None:
    d: LocalDict[Any] = LocalDict()
    d["a"] = 1
    other = d.with_params(append_only=True)
    assert (other["a"], other.append_only) == (1, True)
    assert d.raw.with_params(append_only=True)["a"] == d.raw["a"]
    with pytest.raises(TypeError):
        d.with_params(no_such=1)


def test_any_is_no_class_for_values() -> None:
    with pytest.raises(TypeError, match="base_class_for_values"):
        LocalDict(base_class_for_values=Any)  # type: ignore[arg-type]


def test_memory_that_runs_out_while_a_value_is_read_is_said_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    d: LocalDict[Any] = LocalDict(serialization_format="json")
    d["a"] = 1

    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(d._codec, "decode", fail)
    with pytest.raises(MemoryError) as caught:
        d["a"]
    assert "'a'" in caught.value.__notes__[0]


def test_handles_on_different_memories_are_equal_only_by_content() -> None:
    one, other = LocalDict[int](), LocalDict[int]()
    one["a"] = 1
    assert one != other
    assert one.backend != other.backend
    other["a"] = 1
    assert one == other
