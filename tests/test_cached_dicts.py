"""MutableDictCached and AppendOnlyDictCached: right values, whatever happens to the caches."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persidict import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    AppendOnlyDictCached,
    EmptyDict,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    PersiDict,
    WriteOnceDict,
)
from persidict.testing import (
    AppendOnlyDictConformance,
    DictModel,
    MutableDictConformance,
    state_machine_for,
)

AnyDict = PersiDict[Any]
Maker = Callable[..., AnyDict]


def parts_in_ram(tmp_path: Path) -> Maker:
    return LocalDict


def parts_in_files(tmp_path: Path) -> Maker:
    numbers = itertools.count()

    def make(**params: Any) -> AnyDict:
        return FileDirDict(base_dir=tmp_path / str(next(numbers)), fsync=False, **params)

    return make


PLACES = {"RAM": parts_in_ram, "files": parts_in_files}
FORMATS = {"RAM": "pkl", "files": "json"}
ETAG_CACHES: dict[str, dict[str, Any]] = {
    "pkl": {},
    "json": {"serialization_format": "json"},
    "txt": {"serialization_format": "txt", "base_class_for_values": str},
    "json of str": {"serialization_format": "json", "base_class_for_values": str},
}


def cached(part: Maker = LocalDict, etag_cache: str = "pkl", **params: Any) -> MutableDictCached:
    """Return a MutableDictCached whose main dictionary and data cache have some parameters."""
    return MutableDictCached(
        main_dict=part(**params),
        data_cache=part(**params),
        etag_cache=part(**ETAG_CACHES[etag_cache]),
    )


def cached_append_only(part: Maker = LocalDict, **params: Any) -> AppendOnlyDictCached:
    params["append_only"] = True
    return AppendOnlyDictCached(main_dict=part(**params), data_cache=part(**params))


def changed(d: AnyDict, names: tuple[str, ...], **params: Any) -> AnyDict:
    """Return a handle whose named parts have some parameters changed."""
    parts = d.get_params()
    for name in names:
        parts[name] = type(parts[name])(**{**parts[name].get_params(), **params})
    return type(d)(**parts)


# ---------------------------------------------------------------------- the contract


@pytest.mark.filterwarnings("ignore:a cache of")
class CachedConformance:
    @pytest.fixture(params=PLACES)
    def place(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def handles_travel(self, place: str) -> bool:
        return place == "files"

    def another_handle(self, d: AnyDict, **params: Any) -> AnyDict:
        return changed(d, ("main_dict", "data_cache"), **params)


@pytest.mark.slow
class TestMutableDictCached(CachedConformance, MutableDictConformance):
    @pytest.fixture
    def new_dict(self, place: str, tmp_path: Path) -> Maker:
        part, format_ = PLACES[place](tmp_path), FORMATS[place]
        return partial(cached, part, format_, serialization_format=format_)

    @pytest.fixture
    def append_only_d(self, d: AnyDict) -> AnyDict:
        """The suite asks for one where any dictionary will do; these are mutable by nature."""
        return d


@pytest.mark.slow
class TestAppendOnlyDictCached(CachedConformance, AppendOnlyDictConformance):
    @pytest.fixture
    def new_dict(self, place: str, tmp_path: Path) -> Maker:
        part = PLACES[place](tmp_path)
        return partial(cached_append_only, part, serialization_format=FORMATS[place])


class CachedAppendOnlyModel(DictModel):
    """What an AppendOnlyDictCached refuses always."""

    def discard_if(self, *args: Any, **kwargs: Any) -> Any:
        raise MutationPolicyError("append-only")

    def transform_item(self, *args: Any, **kwargs: Any) -> Any:
        raise MutationPolicyError("append-only")


@pytest.mark.parametrize("place", PLACES)
def test_a_cached_dictionary_whose_main_one_is_changed_behind_its_back_behaves_like_the_model(
    place: str, tmp_path: Path
) -> None:
    detours: Any = {
        "its main dictionary": lambda d: d.main_dict,
        "another cache": lambda d: MutableDictCached(
            main_dict=d.main_dict, data_cache=LocalDict(), etag_cache=LocalDict()
        ),
    }
    machine = state_machine_for(partial(cached, PLACES[place](tmp_path)), detours=detours)
    machine("runTest").debug()


@pytest.mark.parametrize("place", PLACES)
def test_an_append_only_cached_dictionary_with_rivals_behaves_like_the_model(
    place: str, tmp_path: Path
) -> None:
    detours: Any = {
        "another cache": lambda d: AppendOnlyDictCached(
            main_dict=d.main_dict, data_cache=LocalDict(append_only=True)
        )
    }
    machine = state_machine_for(
        partial(cached_append_only, PLACES[place](tmp_path)),
        model_class=CachedAppendOnlyModel,
        detours=detours,
    )
    machine("runTest").debug()


# ---------------------------------------------------------------------- what is asked of whom


class SpiedDict(LocalDict[Any]):
    """A LocalDict that calls a hook ahead of every primitive that touches an item."""

    def __init__(self, *, before: Callable[[str], None] = lambda name: None, **kw: Any) -> None:
        super().__init__(**kw)
        self.before = before

    def _own_params(self) -> dict[str, Any]:
        return super()._own_params() | {"before": self.before}

    def _load(self, *args: Any, **kwargs: Any) -> Any:
        self.before("load")
        return super()._load(*args, **kwargs)

    def _value(self, *args: Any) -> Any:
        self.before("load")
        return super()._value(*args)

    def _head(self, *args: Any) -> Any:
        self.before("head")
        return super()._head(*args)

    def _contains(self, *args: Any) -> Any:
        self.before("contains")
        return super()._contains(*args)

    def _write(self, *args: Any) -> Any:
        self.before("write")
        return super()._write(*args)

    def _remove(self, *args: Any) -> Any:
        self.before("remove")
        return super()._remove(*args)


class Calls(list[str]):
    """The primitives that a main dictionary was asked for."""

    def of(self, operation: Callable[[], Any]) -> list[str]:
        self.clear()
        with suppress(KeyError):
            operation()
        return list(self)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def d(calls: Calls) -> MutableDictCached:
    spied = SpiedDict(before=calls.append)
    d = MutableDictCached(main_dict=spied, data_cache=LocalDict(), etag_cache=LocalDict())
    d["a"] = 1
    return d


@pytest.fixture
def append_only(calls: Calls) -> AppendOnlyDictCached:
    spied = SpiedDict(before=calls.append, append_only=True)
    d = AppendOnlyDictCached(main_dict=spied, data_cache=LocalDict(append_only=True))
    d["a"] = 1
    return d


ONE_REQUEST: dict[str, tuple[Callable[[AnyDict], Any], list[str]]] = {
    "reading": (lambda d: d["a"], ["load"]),
    "reading what is absent": (lambda d: d["b"], ["load"]),
    "get_with_etag": (lambda d: d.get_with_etag("a"), ["load"]),
    "in": (lambda d: "a" in d, ["contains"]),
    "etag": (lambda d: d.etag("a"), ["head"]),
    "timestamp": (lambda d: d.timestamp("a"), ["head"]),
    "assigning": (lambda d: d.__setitem__("a", 2), ["write"]),
    "deleting": (lambda d: d.__delitem__("a"), ["remove"]),
    "popping": (lambda d: d.pop("a"), ["load", "remove"]),
    "transforming": (lambda d: d.transform_item("a", transformer=str), ["load", "write"]),
}


@pytest.mark.parametrize("name", ONE_REQUEST)
def test_each_operation_asks_the_main_dictionary_as_often_as_needed(
    name: str, d: MutableDictCached, calls: Calls
) -> None:
    operation, expected = ONE_REQUEST[name]
    assert calls.of(lambda: operation(d)) == expected


CACHED_READS: dict[str, Callable[[AnyDict], Any]] = {
    "d[key]": lambda d: d["a"],
    "get": lambda d: d.get("a"),
    "in": lambda d: "a" in d,
    "setdefault": lambda d: d.setdefault("a", 2),
    "values": lambda d: list(d.values()),
    "get_many": lambda d: d.get_many(["a"]),
}


@pytest.mark.parametrize("name", CACHED_READS)
def test_what_an_append_only_cache_holds_is_not_asked_for(
    name: str, append_only: AppendOnlyDictCached, calls: Calls
) -> None:
    loads = calls.of(lambda: CACHED_READS[name](append_only))
    assert set(loads) <= {"head"}  # iterating tells the times of writing, too


def test_a_second_read_of_an_append_only_item_is_answered_by_the_cache(calls: Calls) -> None:
    main = SpiedDict(before=calls.append, append_only=True)
    main["a"] = 1
    d = AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))
    assert d["a"] == 1
    assert calls.of(lambda: d["a"]) == []


def test_many_items_of_an_append_only_dictionary_come_in_order_cached_or_not() -> None:
    d = cached_append_only()
    for n in range(100):
        d[f"k{n}"] = n
    for n in range(0, 100, 3):
        d.data_cache._remove(next(k for k in d.data_cache if k.strings == (f"k{n}",)), None)
    keys = [f"k{n}" for n in range(120)]
    assert [k.strings[0] for k in d.get_many(keys)] == keys[:100]
    assert dict(d.items()) == dict(d.main_dict.items())
    assert len(d.data_cache) == 100


UPDATES: dict[str, Callable[[AnyDict], Any]] = {
    "assigning": lambda d: d.__setitem__("a", 2),
    "set_item_if": lambda d: d.set_item_if(
        "a", value=2, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "transform_item": lambda d: d.transform_item("a", transformer=lambda _: 2),
    "setdefault_if on an item changed elsewhere": lambda d: (
        d.main_dict.__setitem__("a", 2),
        d.setdefault_if(
            "a",
            default_value=3,
            condition=ANY_ETAG,
            expected_etag="",
            retrieve_value=ALWAYS_RETRIEVE,
        ),
    ),
    "reading an item changed elsewhere": lambda d: (d.main_dict.__setitem__("a", 2), d["a"]),
}


@pytest.mark.parametrize("name", UPDATES)
def test_what_was_written_or_fetched_is_in_the_cache_at_once(
    name: str, d: MutableDictCached
) -> None:
    UPDATES[name](d)
    assert d.data_cache["a"] == 2
    assert d.main_dict.etag("a") in d.etag_cache["a"]


def deleted_elsewhere(d: MutableDictCached) -> Any:
    etag = d.etag("a")
    d.main_dict.discard("a")
    return etag


def changed_elsewhere(d: MutableDictCached) -> Any:
    etag = d.etag("a")
    d.main_dict["a"] = 2
    return etag


REMOVALS: dict[str, Callable[[AnyDict], Any]] = {
    "del": lambda d: d.__delitem__("a"),
    "discard": lambda d: d.discard("a"),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
    "discard_many": lambda d: d.discard_many(["a"]),
    "DELETE_CURRENT": lambda d: d.__setitem__("a", DELETE_CURRENT),
    "discard_if": lambda d: d.discard_if("a", condition=ANY_ETAG, expected_etag=""),
    "transforming away": lambda d: d.transform_item("a", transformer=lambda _: DELETE_CURRENT),
    "set_item_if": lambda d: d.set_item_if(
        "a", value=DELETE_CURRENT, condition=ANY_ETAG, expected_etag=""
    ),
    "reading what was deleted elsewhere": lambda d: (d.main_dict.discard("a"), d.get("a")),
    "deleting what was deleted elsewhere": lambda d: (d.main_dict.discard("a"), d.discard("a")),
    "an unmet condition on what was deleted elsewhere": lambda d: d.set_item_if(
        "a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=deleted_elsewhere(d)
    ),
    "an unmet condition of a write on what was changed elsewhere": lambda d: d.set_item_if(
        "a",
        value=3,
        condition=ETAG_IS_THE_SAME,
        expected_etag=changed_elsewhere(d),
        retrieve_value=NEVER_RETRIEVE,
    ),
    "an unmet condition on what was changed elsewhere": lambda d: (
        d.main_dict.__setitem__("a", 2),
        d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag="other"),
    ),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_what_is_gone_is_forgotten(name: str, d: MutableDictCached) -> None:
    REMOVALS[name](d)
    assert list(d.data_cache) == list(d.etag_cache) == []


def test_a_sub_dictionary_has_the_sub_dictionaries_of_all_parts() -> None:
    d = cached()
    d.get_subdict("g")["a"] = 1
    assert d["g", "a"] == 1
    assert d.data_cache["g", "a"] == 1
    assert set(d.etag_cache.subdicts()) == {"g"}


def test_what_a_transformer_changed_in_place_but_kept_is_not_cached() -> None:
    d = cached()
    d["a"] = [1]

    def append_but_keep(value: list[int]) -> Any:
        value.append(2)
        return KEEP_CURRENT

    d.transform_item("a", transformer=append_but_keep)
    assert d["a"] == [1]


@pytest.mark.parametrize("operation", ["discard_if", "transform_item"])
@pytest.mark.parametrize("key", ["present", "absent"])
def test_an_append_only_cached_dictionary_refuses_always(operation: str, key: str) -> None:
    d = cached_append_only()
    d["present"] = 1
    arguments: dict[str, Any] = {
        "discard_if": {"condition": ETAG_IS_THE_SAME, "expected_etag": "other"},
        "transform_item": {"transformer": lambda _: KEEP_CURRENT},
    }[operation]
    with pytest.raises(MutationPolicyError) as caught:
        getattr(d, operation)(key, **arguments)
    assert caught.value.policy == "append-only"


def test_a_write_once_main_dictionary_is_not_outwitted_by_the_cache() -> None:
    main = WriteOnceDict(wrapped_dict=LocalDict(append_only=True))
    d = AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))
    main["a"] = 1
    with pytest.raises(MutationPolicyError):
        d["a"] = 2
    assert d["a"] == 1


# ---------------------------------------------------------------------- encoded once


class Restless:
    """A value that is another one each time that it is encoded."""

    times_encoded = 0

    def __init__(self) -> None:
        self.number = 0

    def __reduce__(self) -> Any:
        type(self).times_encoded += 1
        return int, (type(self).times_encoded,)


KINDS: dict[str, Callable[..., AnyDict]] = {
    "mutable": cached,
    "append-only": cached_append_only,
    "mutable, another format in front": lambda: MutableDictCached(
        main_dict=LocalDict(),
        data_cache=LocalDict(serialization_format="json"),
        etag_cache=LocalDict(),
    ),
    "append-only, another format in front": lambda: AppendOnlyDictCached(
        main_dict=LocalDict(append_only=True),
        data_cache=LocalDict(append_only=True, serialization_format="json"),
    ),
    "mutable over mutable": lambda: MutableDictCached(
        main_dict=cached(), data_cache=LocalDict(), etag_cache=LocalDict()
    ),
    "append-only over write-once": lambda: AppendOnlyDictCached(
        main_dict=WriteOnceDict(wrapped_dict=LocalDict(append_only=True)),
        data_cache=LocalDict(append_only=True),
    ),
}
WRITES: dict[str, Callable[[AnyDict, Any], Any]] = {
    "assigning": lambda d, value: d.__setitem__("a", value),
    "setdefault": lambda d, value: d.setdefault("a", value),
    "update": lambda d, value: d.update({"a": value}),
    "set_item_if": lambda d, value: d.set_item_if(
        "a", value=value, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "transform_item": lambda d, value: d.transform_item("a", transformer=lambda _: value),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITES)
def test_a_value_is_encoded_once_and_what_main_holds_is_read(kind: str, write: str) -> None:
    if kind.startswith("append-only") and write in ("set_item_if", "transform_item"):
        pytest.skip("refused by nature, or written like the others")
    d: Any = KINDS[kind]()
    Restless.times_encoded = 0
    WRITES[write](d, Restless())
    assert Restless.times_encoded == 1
    assert [d["a"], d["a"]] == [1, 1] == [d.main_dict["a"]] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_that_a_generator_uses_again_is_read_as_main_holds_it(kind: str) -> None:
    d: Any = KINDS[kind]()

    def items() -> Iterator[tuple[str, list[int]]]:
        shared = [0]
        for n in range(6):
            shared[0] = n
            yield f"k{n}", shared

    d.update(items())
    assert [d[f"k{n}"] for n in range(6)] == [d.main_dict[f"k{n}"] for n in range(6)]


class Text(str):
    """A str that is more than one."""


ONLY_IN_PKL = {
    "a masked array": np.ma.masked_array([1, 2], mask=[False, True]),
    "an array of no dimensions": np.array(5),
    "fold": datetime(2026, 11, 1, 1, 30, fold=1),
    "a str of its own class": Text("text"),
    "an array in the order of Fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "a mapping of mixed keys": {1: "a", "1": "b", (1, 2): "c"},
    "negative zero": -0.0,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", ONLY_IN_PKL.values(), ids=list(ONLY_IN_PKL))
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "another format" in kind])
@pytest.mark.parametrize("write_behind", [False, True])
def test_a_cache_in_another_format_never_answers_something_else(
    kind: str, value: Any, write_behind: bool
) -> None:
    d: Any = KINDS[kind]()
    (d.main_dict if write_behind else d)["a"] = value
    for _ in range(3):
        found = d["a"]
        assert type(found) is type(value)
        assert pickle.dumps(found) == pickle.dumps(d.main_dict["a"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_can_only_be_copied_is_read_as_main_holds_it(kind: str) -> None:
    d: Any = KINDS[kind]()
    d["a"] = lambda: 5
    d.update({"b": lambda: 6, "c": 7})
    assert (d["a"](), d.get("b")(), d["c"]) == (5, 6, 7)
    assert sorted(found() if callable(found) else found for found in d.values()) == [5, 6, 7]


def test_raw_of_a_cached_dictionary_is_cached(calls: Calls) -> None:
    main = SpiedDict(before=calls.append, append_only=True)
    d = AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))
    d["a"] = 1
    assert calls.of(lambda: d.raw["a"]) == []
    assert d.raw["a"] == pickle.dumps(1, 5)


def test_a_cache_in_front_of_a_cached_dictionary_is_answered_by_its_cache(calls: Calls) -> None:
    inner = cached_append_only(lambda **params: SpiedDict(before=calls.append, **params))
    inner["a"] = 1
    d = AppendOnlyDictCached(main_dict=inner, data_cache=LocalDict(append_only=True))
    assert calls.of(lambda: d["a"]) in (["head"], ["load", "head"])
    assert calls.of(lambda: d["a"]) == []


@pytest.mark.filterwarnings("error")
def test_a_cache_that_fails_while_warnings_are_errors_fails_no_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(name: str) -> None:
        raise OSError(28, "No space left on device")

    d = MutableDictCached(
        main_dict=LocalDict(), data_cache=SpiedDict(before=fail), etag_cache=LocalDict()
    )
    d["a"] = 1
    assert d["a"] == 1
    assert "No space left on device" in caplog.text


# ---------------------------------------------------------------------- interleavings and deaths


Act = Callable[[AnyDict], Any]


class Death(BaseException):
    """The end of a process, as far as the steps after it are concerned."""


class Stage:
    """Two handles on the same three dictionaries; things happen ahead of steps of the first."""

    def __init__(self) -> None:
        self.steps = 0
        self.events: dict[int, Callable[[], None]] = {}
        main, data, records = (LocalDict() for _ in range(3))
        self.first = MutableDictCached(
            main_dict=self.spied(main), data_cache=self.spied(data), etag_cache=self.spied(records)
        )
        self.rival = MutableDictCached(main_dict=main, data_cache=data, etag_cache=records)

    def spied(self, part: LocalDict[Any]) -> SpiedDict:
        return SpiedDict(backend=part.backend, before=self.step)

    def step(self, name: str) -> None:
        self.steps += 1
        self.events.pop(self.steps, lambda: None)()

    def act(self, operation: Act, events: dict[int, Callable[[], None]]) -> bool:
        """Do an operation with events ahead of some steps; False if it has not so many."""
        self.steps, self.events = 0, dict(events)
        with suppress(KeyError, Death):
            operation(self.first)
        have_happened, self.events = not self.events, {}
        return have_happened

    def let_rival(self, operation: Act) -> None:
        with suppress(KeyError):
            operation(self.rival)

    def assert_reads_are_right(self) -> None:
        truth = self.rival.main_dict.get_with_etag("k")
        for _ in range(2):  # the first read may mend the caches, the second one uses them
            for reader in (self.first, self.rival):
                assert reader.get_with_etag("k") == truth
                assert reader.get("k", ITEM_NOT_AVAILABLE) == truth.new_value


def die() -> None:
    raise Death


OPERATIONS: dict[str, Act] = {
    "reads": lambda d: d["k"],
    "assigns": lambda d: d.__setitem__("k", f"by {id(d)}"),
    "deletes": lambda d: d.__delitem__("k"),
    "swaps": lambda d: d.set_item_if(
        "k", value="swapped", condition=ETAG_IS_THE_SAME, expected_etag=d.etag("k")
    ),
    "transforms": lambda d: d.transform_item("k", transformer=lambda v: f"after {v}"),
    "looks": lambda d: d.get_item_if(
        "k", condition=ANY_ETAG, expected_etag="", retrieve_value=NEVER_RETRIEVE
    ),
    "deletes and assigns": lambda d: (d.discard("k"), d.__setitem__("k", f"again by {id(d)}")),
}

STATES: dict[str, Callable[[Stage], Any]] = {
    "nothing there": lambda stage: None,
    "cached": lambda stage: stage.rival.__setitem__("k", "old"),
    "not cached": lambda stage: stage.rival.main_dict.__setitem__("k", "old"),
    "an older version cached": lambda stage: (
        stage.rival.__setitem__("k", "older"),
        stage.rival.main_dict.__setitem__("k", "old"),
    ),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("rival", OPERATIONS)
@pytest.mark.parametrize("first", OPERATIONS)
def test_whatever_a_rival_does_between_any_two_steps_every_later_read_is_right(
    first: str, rival: str, state: str
) -> None:
    for due in itertools.count(1):
        stage = Stage()
        STATES[state](stage)
        happened = stage.act(OPERATIONS[first], {due: partial(stage.let_rival, OPERATIONS[rival])})
        stage.assert_reads_are_right()
        if not happened:
            break
    assert due > 1


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("rival", OPERATIONS)
@pytest.mark.parametrize("first", OPERATIONS)
def test_wherever_a_process_dies_after_a_rival_was_there_every_later_read_is_right(
    first: str, rival: str, state: str
) -> None:
    for last in itertools.count(2):
        happened = False
        for due in range(1, last):
            stage = Stage()
            STATES[state](stage)
            events = {due: partial(stage.let_rival, OPERATIONS[rival]), last: die}
            happened |= stage.act(OPERATIONS[first], events)
            stage.assert_reads_are_right()
        if not happened:
            break


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("first", OPERATIONS)
def test_wherever_a_process_dies_every_later_read_is_right(first: str, state: str) -> None:
    for due in itertools.count(1):
        stage = Stage()
        STATES[state](stage)
        happened = stage.act(OPERATIONS[first], {due: die})
        stage.assert_reads_are_right()
        if not happened:
            break
    assert due > 1


# ---------------------------------------------------------------------- caches that fail


@contextmanager
def at_most_one_warning() -> Iterator[None]:
    with pytest.warns(RuntimeWarning, match="cache") as warned:
        yield
    assert len(warned) == 1


@pytest.mark.parametrize("part", ["data_cache", "etag_cache"])
def test_a_cache_that_fails_at_everything_is_done_without_and_warned_of_once(part: str) -> None:
    def fail(name: str) -> None:
        raise OSError(28, "No space left on device")

    parts: dict[str, Any] = {
        name: LocalDict() for name in ("main_dict", "data_cache", "etag_cache")
    }
    parts[part] = SpiedDict(before=fail)
    d = MutableDictCached(**parts)
    with at_most_one_warning():
        d["a"] = 1
        assert d["a"] == 1
        d.transform_item("a", transformer=lambda n: n + 1)
        assert d.pop("a") == 2
    assert "a" not in d


def test_an_append_only_cache_that_fails_is_done_without_and_warned_of_once() -> None:
    def fail(name: str) -> None:
        raise OSError(30, "Read-only file system")

    cache = SpiedDict(before=fail, append_only=True)
    d = AppendOnlyDictCached(main_dict=LocalDict(append_only=True), data_cache=cache)
    with at_most_one_warning():
        d["a"] = 1
        assert d["a"] == 1
        assert "a" in d
        assert list(d.values()) == [1]


JUNK = [
    "junk",
    '"an ETag, as 0.309 kept it"',
    "[]",
    '["a", "b", "c"]',
    "[1, 2]",
    '{"a": 1}',
    7,
    None,
]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_a_record_that_is_none_counts_for_nothing(junk: Any) -> None:
    d = cached()
    d["a"] = 1
    d.etag_cache["a"] = junk
    assert d["a"] == 1


@pytest.mark.filterwarnings("ignore:a cache of")
@pytest.mark.parametrize("damaged", ["data_cache", "etag_cache"])
def test_a_damaged_file_of_a_cache_is_a_miss_and_is_mended(damaged: str, tmp_path: Path) -> None:
    d = cached(parts_in_files(tmp_path))
    d["a"] = 1
    cache = d.get_params()[damaged]
    (file,) = Path(cache.base_dir).iterdir()
    file.write_bytes(b"damaged")
    assert d["a"] == 1
    assert d.data_cache["a"] == 1
    assert d.main_dict.etag("a") in d.etag_cache["a"]


@pytest.mark.filterwarnings("ignore:a cache of")
def test_a_damaged_value_of_an_append_only_cache_is_a_miss_and_is_mended(tmp_path: Path) -> None:
    d = cached_append_only(parts_in_files(tmp_path))
    d["a"] = 1
    (file,) = Path(d.data_cache.base_dir).iterdir()
    file.write_bytes(b"damaged")
    assert d["a"] == 1
    assert d.data_cache["a"] == 1


def test_records_that_outlive_a_cache_in_ram_do_not_speak_of_the_next_one(tmp_path: Path) -> None:
    part = parts_in_files(tmp_path)
    main, records = part(), part()
    for value in range(20):
        fresh = MutableDictCached(main_dict=main, data_cache=LocalDict(), etag_cache=records)
        fresh.data_cache["a"] = "what another process has cached"
        assert fresh.get("a", 0) == max(0, value - 1)
        fresh["a"] = value


@pytest.mark.parametrize("cache", ["data_cache", "etag_cache"])
def test_a_cache_that_keeps_nothing_is_a_cache(cache: str) -> None:
    parts: dict[str, Any] = {
        name: LocalDict() for name in ("main_dict", "data_cache", "etag_cache")
    }
    d = MutableDictCached(**{**parts, cache: EmptyDict()})
    d["a"] = 1
    assert d["a"] == 1


def test_a_value_that_the_cache_cannot_hold_is_read_from_the_main_dictionary() -> None:
    d = MutableDictCached(
        main_dict=LocalDict(),
        data_cache=LocalDict(base_class_for_values=str),
        etag_cache=LocalDict(),
    )
    d["a"] = "text"
    with at_most_one_warning():
        d["a"] = 5
    assert d["a"] == 5


@pytest.mark.parametrize("format_", ETAG_CACHES)
def test_records_are_kept_in_any_format(format_: str, tmp_path: Path) -> None:
    d = cached(parts_in_files(tmp_path), format_)
    d["a"] = 1
    assert d["a"] == 1
    assert list(d.etag_cache) == list(d.data_cache) == list(d)


# ---------------------------------------------------------------------- constructors


def test_every_part_of_a_mutable_cached_dictionary_must_be_a_mutable_persidict() -> None:
    good: dict[str, Any] = {name: LocalDict() for name in ("main_dict", "data_cache", "etag_cache")}
    for name in good:
        with pytest.raises(TypeError):
            MutableDictCached(**{**good, name: {}})
        with pytest.raises(ValueError):
            MutableDictCached(**{**good, name: LocalDict(append_only=True)})


def test_both_parts_of_an_append_only_cached_dictionary_must_be_append_only_persidicts() -> None:
    good: dict[str, Any] = {n: LocalDict(append_only=True) for n in ("main_dict", "data_cache")}
    for name in good:
        with pytest.raises(TypeError):
            AppendOnlyDictCached(**{**good, name: {}})
        with pytest.raises(ValueError):
            AppendOnlyDictCached(**{**good, name: LocalDict()})


def test_an_append_only_cache_must_hold_values_of_the_same_class() -> None:
    main = LocalDict(append_only=True, base_class_for_values=str)
    with pytest.raises(ValueError):
        AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))


def test_a_dictionary_is_no_cache_of_itself(tmp_path: Path) -> None:
    main, same = FileDirDict(base_dir=tmp_path), FileDirDict(base_dir=tmp_path)
    with pytest.raises(ValueError):
        MutableDictCached(main_dict=main, data_cache=same, etag_cache=LocalDict())


def test_an_etag_cache_must_be_able_to_hold_texts() -> None:
    with pytest.raises(TypeError):
        MutableDictCached(
            main_dict=LocalDict(),
            data_cache=LocalDict(),
            etag_cache=LocalDict(base_class_for_values=int),
        )
