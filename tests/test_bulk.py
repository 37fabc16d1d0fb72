"""Operations on many items whose sources break, whose items fail, or which are interrupted."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from persidict import FileDirDict, LocalDict, StoreDict, sync_items
from persidict.persi_dict import PersiDict
from persidict.stores.memory import MemoryStore
from persidict.stores.object_store import AnyVersion, Buffer, NotModified, ObjectInfo
from persidict.stores.shared.parallel import WorkerPool, map_in_order
from tests.dict_cases import CASES, DictCase, parameters


class ParallelStore(MemoryStore):
    """Writes many objects by several threads, as stores on a network do."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = WorkerPool(4)
        self.begun = threading.Semaphore(0)
        self.under_way = 0
        self.hold = threading.Event()
        self.hold.set()

    def put(self, name: str, data: Buffer, **conditions: Any) -> Any:
        self.under_way += 1
        self.begun.release()
        assert self.hold.wait(30)
        try:
            return super().put(name, data, **conditions)
        finally:
            self.under_way -= 1

    def get_many(
        self, entries: Iterable[str | ObjectInfo]
    ) -> Iterator[tuple[str, Buffer, ObjectInfo]]:
        return map_in_order(self._read, entries, self.pool)

    def _read(self, entry: str | ObjectInfo) -> tuple[str, Buffer, ObjectInfo]:
        name = entry if isinstance(entry, str) else entry.name
        self.under_way += 1
        self.begun.release()
        assert name == "a.pkl" or self.hold.wait(30)
        try:
            found = self.get(name)
            assert not isinstance(found, NotModified)
            return name, *found
        finally:
            self.under_way -= 1

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, Any]]:
        put = partial(self._put_and_report, if_none_match=if_none_match)
        return map_in_order(put, items, self.pool)


def in_parallel(place: Path, **params: Any) -> PersiDict[Any]:
    return StoreDict(store=ParallelStore(), **params)


ALL = [*CASES, DictCase("StoreDict-parallel", in_parallel, "pkl", handles_travel=False)]

each_kind = pytest.mark.parametrize(
    "case", parameters(case for case in ALL if case.serialization_format == "pkl")
)


@pytest.fixture
def make(case: DictCase, tmp_path: Path) -> Callable[..., PersiDict[Any]]:
    return case.maker(tmp_path)


class Breakdown(Exception):
    """A source of items cannot go on."""


def breaking_off(elements: Iterable[Any]) -> Iterator[Any]:
    yield from elements
    raise Breakdown


FIFTY = {f"k{number}": number for number in range(50)}


def content(d: PersiDict[Any]) -> dict[str, Any]:
    return {key.strings[0]: value for key, value in d.items()}


# ---------------------------------------------------------------------- sources that break


@each_kind
def test_items_that_break_off_lose_none_that_they_had_yielded(make: Any) -> None:
    d = make()
    with pytest.raises(Breakdown):
        d.set_many(breaking_off(FIFTY.items()))
    assert content(d) == FIFTY


@each_kind
@pytest.mark.parametrize(
    "bad",
    [5, ("a", 1, 2), ("a/b", 1), ("a", threading.Lock())],
    ids=["no pair", "three", "bad key", "a value that cannot be stored"],
)
def test_a_bad_item_among_many_is_an_error_and_all_others_are_stored(make: Any, bad: Any) -> None:
    d = make()
    items = [*FIFTY.items()]
    with pytest.raises((TypeError, ValueError)):
        d.update([*items[:20], bad, *items[20:]])
    assert content(d) == FIFTY


@each_kind
def test_keys_that_break_off_are_deleted_as_far_as_they_came(make: Any) -> None:
    d = make()
    d.update({**FIFTY, "kept": 1})
    with pytest.raises(Breakdown):
        d.discard_many(breaking_off(FIFTY))
    assert content(d) == {"kept": 1}


@each_kind
def test_a_bad_key_among_many_is_an_error_and_all_others_are_deleted(make: Any) -> None:
    d = make()
    d.update({**FIFTY, "kept": 1})
    keys = [*FIFTY]
    with pytest.raises(ValueError, match="a/b"):
        d.discard_many([*keys[:20], "a/b", *keys[20:]])
    assert content(d) == {"kept": 1}


def test_several_bad_items_are_raised_as_a_group_that_names_them() -> None:
    d: LocalDict[Any] = LocalDict()
    with pytest.raises(ExceptionGroup, match="2 items could not be stored") as caught:
        d.set_many([("a/b", 1), ("good", 2), "no pair"])
    assert len(caught.value.exceptions) == 2
    assert "a/b" in str(caught.value)
    assert "no pair" in str(caught.value)
    assert content(d) == {"good": 2}


@pytest.mark.parametrize(
    ("count", "rest"), [(10, "item NonEmptySafeStrTuple('k9')"), (12, " and 2 more")]
)
def test_a_group_names_ten_items_and_counts_the_others(count: int, rest: str) -> None:
    d: LocalDict[int] = LocalDict(append_only=True)
    items = {f"k{number}": number for number in range(count)}
    d.update(items)
    with pytest.raises(ExceptionGroup) as caught:
        d.update(items)
    assert caught.value.message.endswith(rest)
    assert caught.value.message.count("NonEmptySafeStrTuple") == 10


NOT_MANY: dict[str, Callable[[PersiDict[Any]], object]] = {
    "items must be an iterable": lambda d: d.set_many(5),  # type: ignore[arg-type]
    "items must be pairs": lambda d: d.set_many([5]),  # type: ignore[list-item]
    "keys must be an iterable": lambda d: d.get_many(5),  # type: ignore[arg-type]
    "keys must be an iterable, not": lambda d: d.discard_many(5),  # type: ignore[arg-type]
    "keys must be an iterable of keys": lambda d: d.discard_many("ab"),
    "^prefix: ": lambda d: d.keys(prefix=5),  # type: ignore[arg-type]
    "^start: ": lambda d: d.values(start=5),  # type: ignore[arg-type]
    "^stop: ": lambda d: d.items(stop=[5]),  # type: ignore[list-item]
    "^prefix_key: ": lambda d: d.get_subdict(5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("said", NOT_MANY)
def test_an_argument_that_makes_no_sense_is_refused_by_name(said: str) -> None:
    with pytest.raises(TypeError, match=said):
        NOT_MANY[said](LocalDict())


# ---------------------------------------------------------------------- interruption


def test_when_an_interruption_is_raised_nothing_is_under_way() -> None:
    store = ParallelStore()
    d: StoreDict[Any] = StoreDict(store=store)
    store.hold.clear()

    def items() -> Iterator[tuple[str, int]]:
        yield from [("a", 1), ("b", 2), ("c", 3)]
        for _ in range(3):
            assert store.begun.acquire(timeout=30)
        threading.Timer(0.05, store.hold.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        d.set_many(items())
    assert store.under_way == 0
    assert len(list(store.names())) == 3


class Interrupting:
    """A value in whose reading an interruption comes, when three others are under way."""

    store: ClassVar[ParallelStore]

    def __reduce__(self) -> Any:
        return interrupt, ()


def interrupt() -> None:
    store = Interrupting.store
    for _ in range(3):
        assert store.begun.acquire(timeout=30)
    threading.Timer(0.05, store.hold.set).start()
    raise KeyboardInterrupt


def test_when_an_interruption_of_a_sync_is_raised_nothing_is_under_way() -> None:
    source: LocalDict[Any] = LocalDict()
    source.update({"a": 1, "b": 2, "c": 3, "d": Interrupting(), "e": 5})
    Interrupting.store = store = ParallelStore()
    store.hold.clear()
    with pytest.raises(KeyboardInterrupt):
        # of another format, so that values are read
        sync_items(source, StoreDict(store=store, serialization_format="json"))
    assert store.under_way == 0
    assert len(list(store.names())) == 3


@pytest.mark.parametrize(
    "read",
    [
        lambda d: dict(d.items()),
        lambda d: list(d.values()),
        lambda d: d.get_many([f"{letter}" for letter in "abcdefgh"]),
        lambda d: sync_items(d, LocalDict(serialization_format="json")),
    ],
    ids=["items", "values", "get_many", "sync_items"],
)
def test_when_an_interruption_of_a_reading_is_raised_nothing_is_under_way(
    read: Callable[[PersiDict[Any]], object],
) -> None:
    Interrupting.store = store = ParallelStore()
    d: StoreDict[Any] = StoreDict(store=store)
    d["a"] = Interrupting()
    for letter in "bcdefgh":
        d[letter] = letter
    while store.begun.acquire(blocking=False):
        pass
    store.hold.clear()
    with pytest.raises(KeyboardInterrupt):
        read(d)
    assert store.under_way == 0


# ---------------------------------------------------------------------- failures in memory


class Refused:
    """A value that cannot be stored, of which the living are counted."""

    living: ClassVar[weakref.WeakSet[Refused]] = weakref.WeakSet()
    most: ClassVar[int] = 0

    def __init__(self, *, is_refused: bool = True) -> None:
        self.is_refused = is_refused
        Refused.living.add(self)
        Refused.most = max(Refused.most, len(Refused.living))

    def __reduce__(self) -> Any:
        if self.is_refused:
            raise ValueError("this is not to be stored")
        return Refused, ()


@pytest.fixture
def nobody_lives() -> Iterator[None]:
    gc.collect()
    Refused.living.clear()
    Refused.most = 0
    gc.disable()
    yield
    gc.enable()


@each_kind
def test_values_that_cannot_be_stored_are_not_kept_with_their_errors(
    make: Any, nobody_lives: None
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        make().set_many((f"k{number}", Refused()) for number in range(300))
    assert len(caught.value.exceptions) == 300
    assert Refused.most <= 20
    assert not Refused.living


@each_kind
def test_values_of_items_that_exist_are_not_kept_with_their_errors(
    make: Any, nobody_lives: None
) -> None:
    d = make(append_only=True)
    d.update({f"k{number}": 1 for number in range(300)})
    with pytest.raises(ExceptionGroup):
        d.set_many((f"k{number}", Refused(is_refused=False)) for number in range(300))
    assert Refused.most <= 20
    assert not Refused.living


def test_items_that_cannot_be_copied_are_not_kept_with_their_errors(nobody_lives: None) -> None:
    source: LocalDict[Any] = LocalDict()
    for number in range(300):
        source[f"k{number}"] = "a text that is no number" * 1000
    target: LocalDict[Any] = LocalDict(base_class_for_values=int, serialization_format="json")
    result = sync_items(source, target)
    assert len(result.failed) == 300
    for error in result.failed.values():
        assert error.__traceback__ is None


@pytest.mark.parametrize("is_there", [False, True], ids=["copied", "compared"])
def test_values_that_a_sync_may_not_store_are_not_kept_with_their_errors(
    is_there: bool, nobody_lives: None
) -> None:
    source: LocalDict[Any] = LocalDict()
    source.update({f"k{number}": Refused(is_refused=False) for number in range(300)})
    target: LocalDict[Any] = LocalDict(base_class_for_values=int, serialization_format="json")
    if is_there:
        target.update(dict.fromkeys(source, 1))
    Refused.most = 0
    result = sync_items(source, target)
    assert len(result.failed) == 300
    assert Refused.most <= 20
    assert not Refused.living


def test_a_text_that_cannot_be_encoded_is_shown_in_part(tmp_path: Path) -> None:
    d: FileDirDict[str] = FileDirDict(
        base_dir=tmp_path, serialization_format="txt", base_class_for_values=str
    )
    with pytest.raises(UnicodeEncodeError, match="surrogates") as caught:
        d.set_many({"a": "x" * 100_000 + "\ud800"})
    assert len(caught.value.object) < 100
    assert any("position 100000" in note for note in caught.value.__notes__)


def test_an_error_of_a_value_says_where_it_was_raised() -> None:
    with pytest.raises(ValueError, match="not to be stored") as caught:
        LocalDict[Any]().set_many({"a": Refused()})
    assert any("test_bulk.py" in note and "__reduce__" in note for note in caught.value.__notes__)


def test_what_the_caller_was_handling_meanwhile_is_left_as_it_is() -> None:
    try:
        raise Breakdown
    except Breakdown as handled:
        with pytest.raises(ValueError, match="not to be stored"):
            LocalDict[Any]().set_many({"a": Refused()})
        traceback = handled.__traceback__
    assert traceback is not None
