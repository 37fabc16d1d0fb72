"""ExpiringDict: what is too old is absent, in every operation, and replaced by exactly one."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    BackendError,
    ExpiringDict,
    FileDirDict,
    LocalDict,
    MeasuredDict,
    NonEmptySafeStrTuple,
    UnreadableItemsError,
    copy_items,
    expiring_dict,
)
from persidict.persi_dict import PersiDict
from persidict.testing import MutableDictConformance
from persidict.traits import Traits
from persidict.wrapper_dict import WrapperDict
from tests.dict_cases import in_files

DAY = 24 * 3600.0


class Clock:
    """Tells the time to expiring dictionaries; can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = expiring_dict._now
        self.ahead = 0.0
        monkeypatch.setattr(expiring_dict, "_now", lambda: real() + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(params=["RAM", "files"])
def wrapped(request: pytest.FixtureRequest, tmp_path: Path) -> PersiDict[Any]:
    if request.param == "RAM":
        return LocalDict()
    return FileDirDict(base_dir=tmp_path, fsync=False)


@pytest.fixture
def d(wrapped: PersiDict[Any], clock: Clock) -> ExpiringDict[Any]:
    """A dictionary whose item `a` is expired."""
    d = ExpiringDict[Any](wrapped_dict=wrapped, ttl=DAY)
    d["a"] = "old"
    clock.ahead = DAY
    return d


class TestExpiringDictKeepsTheContract(MutableDictConformance):
    @pytest.fixture
    def new_dict(self, tmp_path: Path) -> Callable[..., PersiDict[Any]]:
        numbers = itertools.count()
        return lambda **params: ExpiringDict(
            wrapped_dict=in_files(tmp_path / str(next(numbers)), **params), ttl=DAY
        )

    def another_handle(self, d: PersiDict[Any], **params: Any) -> PersiDict[Any]:
        wrapped = d.get_params()["wrapped_dict"]
        return ExpiringDict(wrapped_dict=super().another_handle(wrapped, **params), ttl=DAY)


@pytest.mark.slow
class TestExpiredItemsAreAsIfTheyWereNot(TestExpiringDictKeepsTheContract):
    @pytest.fixture
    def new_dict(self, tmp_path: Path) -> Callable[..., PersiDict[Any]]:
        numbers = itertools.count()

        def make(**params: Any) -> PersiDict[Any]:
            place = tmp_path / str(next(numbers))
            ghosts = in_files(place)
            ghosts.update(
                dict.fromkeys("abcdefgkxyz", "ghost") | {("g", "a"): "1", ("p", "q"): "2"}
            )
            for path in place.rglob("*.pkl"):
                os.utime(path, (0, 0))
            return ExpiringDict(wrapped_dict=in_files(place, **params), ttl=DAY)

        return make


READS: dict[str, tuple[Callable[[ExpiringDict[Any]], Any], Any]] = {
    "get": (lambda d: d.get("a"), None),
    "in": (lambda d: "a" in d, False),
    "len": (len, 0),
    "bool": (bool, False),
    "keys": (lambda d: list(d), []),
    "keys of a range": (lambda d: list(d.keys(prefix="a")), []),
    "values": (lambda d: list(d.values()), []),
    "items of a range": (lambda d: list(d.items(start="a")), []),
    "keys of a range, backwards": (lambda d: list(reversed(d.keys(prefix="a"))), []),
    "glob": (lambda d: [*d.glob("*"), *d.glob("a")], []),
    "infos": (lambda d: list(d.infos()), []),
    "get_many": (lambda d: d.get_many(["a"]), {}),
    "items_and_timestamps": (lambda d: list(d.items_and_timestamps()), []),
    "newest_keys": (lambda d: d.newest_keys(max_n=1), []),
    "random_key": (lambda d: d.random_key(), None),
    "subdicts": (lambda d: d.subdicts(), {}),
    "discard": (lambda d: d.discard("a"), False),
    "pop": (lambda d: d.pop("a", "none"), "none"),
    "setdefault": (lambda d: d.setdefault("a", "new"), "new"),
    "raw": (lambda d: list(d.raw.items()), []),
    "get_with_etag": (lambda d: d.get_with_etag("a").actual_etag, ITEM_NOT_AVAILABLE),
}


@pytest.mark.parametrize("operation", list(READS))
def test_an_expired_item_is_absent(d: ExpiringDict[Any], operation: str) -> None:
    function, expected = READS[operation]
    assert function(d) == expected


@pytest.mark.parametrize("operation", list(READS))
def test_an_expired_item_that_cannot_be_decoded_is_absent(
    wrapped: PersiDict[Any], clock: Clock, operation: str
) -> None:
    wrapped.raw["a"] = b"\x80\x05 no pickle"
    clock.ahead = DAY
    function, expected = READS[operation]
    assert function(ExpiringDict[Any](wrapped_dict=wrapped, ttl=DAY)) == expected


def test_an_item_that_cannot_be_decoded_is_no_absence_before_it_is_expired(
    wrapped: PersiDict[Any],
) -> None:
    wrapped.raw["a"] = b"\x80\x05 no pickle"
    d: ExpiringDict[Any] = ExpiringDict(wrapped_dict=wrapped, ttl=DAY)
    with pytest.raises(BackendError, match="cannot be decoded"):
        d.get("a")
    with pytest.raises(UnreadableItemsError):
        list(d.items())


@pytest.mark.parametrize("between", [lambda d: d, lambda d: MeasuredDict(wrapped_dict=d)])
def test_what_is_expired_and_cannot_be_decoded_hides_nothing_else(
    tmp_path: Path, between: Callable[[PersiDict[Any]], PersiDict[Any]]
) -> None:
    files: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False)
    for key in "ac":
        files.raw[key] = b"\x80\x05 no pickle"
    for path in tmp_path.rglob("*.pkl"):
        os.utime(path, (0, 0))
    files["b"] = "new"
    d: ExpiringDict[Any] = ExpiringDict(wrapped_dict=between(files), ttl=DAY)
    assert list(d.items()) == [(("b",), "new")]
    assert d.newest_values() == ["new"]
    assert d.get_many(list("abc")) == {NonEmptySafeStrTuple("b"): "new"}


def test_an_item_is_copied_inside_the_storage_as_its_bytes_are(wrapped: PersiDict[Any]) -> None:
    wrapped.raw["a"] = b"no pickle"
    ExpiringDict[Any](wrapped_dict=wrapped, ttl=DAY).copy_item("a", "b")
    assert wrapped.raw["b"] == b"no pickle"


def test_many_are_read_side_by_side_where_that_takes_a_network() -> None:
    both = threading.Barrier(2, timeout=60)

    class Far(LocalDict[Any]):
        _traits = Traits(reads_are_cheap=False)

        def _load_version(self, key: Any) -> Any:
            both.wait()
            return super()._load_version(key)

    far = Far()
    far.update({"a": 1, "b": 2})
    d: ExpiringDict[Any] = ExpiringDict(wrapped_dict=far, ttl=DAY)
    assert list(d.get_many(["b", "a"]).values()) == [2, 1]


def test_one_that_cannot_be_read_is_told_when_all_others_have_been() -> None:
    class Far(LocalDict[Any]):
        _traits = Traits(reads_are_cheap=False)

    far = Far()
    far.update({"a": 1, "b": 2})
    far.raw["x"] = b"no pickle"
    d: ExpiringDict[Any] = ExpiringDict(wrapped_dict=far, ttl=DAY)
    with pytest.raises(UnreadableItemsError) as caught:
        d.get_many(["x", "b", "a"])
    assert list(caught.value.found.values()) == [2, 1]


def test_a_transformer_gets_item_not_available_for_an_expired_item(d: ExpiringDict[Any]) -> None:
    seen = []
    d.transform_item("a", transformer=lambda value: seen.append(value) or "new")
    assert seen == [ITEM_NOT_AVAILABLE]
    assert d.wrapped_dict["a"] == "new"


@pytest.mark.parametrize(
    "operation",
    [
        lambda d: d["a"],
        lambda d: d.pop("a"),
        lambda d: d.__delitem__("a"),
        lambda d: d.popitem(),
        lambda d: d.etag("a"),
        lambda d: d.timestamp("a"),
        lambda d: d.info("a"),
        lambda d: d.open("a"),
        lambda d: d.touch("a"),
        lambda d: d.expires_at("a"),
        lambda d: d.copy_item("a", "b"),
    ],
    ids=[
        "d[]",
        "pop",
        "del",
        "popitem",
        "etag",
        "timestamp",
        "info",
        "open",
        "touch",
        "expires_at",
        "copy_item",
    ],
)
def test_an_expired_item_raises_key_error(
    d: ExpiringDict[Any], operation: Callable[[ExpiringDict[Any]], object]
) -> None:
    with pytest.raises(KeyError):
        operation(d)


def test_an_item_lives_until_its_time_is_over(wrapped: PersiDict[Any], clock: Clock) -> None:
    d = ExpiringDict[int](wrapped_dict=wrapped, ttl=DAY)
    d["a"] = 1
    clock.ahead = DAY - 60
    assert d["a"] == 1
    assert d.expires_at("a") == d.timestamp("a") + DAY


def test_writing_again_begins_the_time_anew(d: ExpiringDict[Any], clock: Clock) -> None:
    clock.ahead = 0
    d["a"] = "new"
    assert d["a"] == "new"


def test_an_expired_item_is_inserted_anew_where_absence_is_the_condition(
    d: ExpiringDict[Any], clock: Clock
) -> None:
    result = d.set_item_if(
        "a", value="new", condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert (result.condition_was_satisfied, result.actual_etag) == (True, ITEM_NOT_AVAILABLE)
    clock.ahead = 0
    assert d["a"] == "new"


def test_the_etag_of_an_expired_item_is_not_its_version_any_more(
    d: ExpiringDict[Any], wrapped: PersiDict[Any]
) -> None:
    old = wrapped.etag("a")
    written = d.set_item_if("a", value="new", condition=ETAG_IS_THE_SAME, expected_etag=old)
    deleted = d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=old)
    changed = d.get_item_if("a", condition=ETAG_HAS_CHANGED, expected_etag=old)
    assert [r.condition_was_satisfied for r in (written, deleted, changed)] == [False, False, True]
    assert wrapped["a"] == "old"


def test_what_is_below_the_expiry_is_not_touched_by_looking(
    d: ExpiringDict[Any], wrapped: PersiDict[Any]
) -> None:
    d.get("a")
    list(d.items())
    assert wrapped["a"] == "old"


def test_of_many_that_find_an_old_file_one_replaces_it(tmp_path: Path) -> None:
    wrapped = FileDirDict[Any](base_dir=tmp_path, fsync=False)
    d = ExpiringDict[Any](wrapped_dict=wrapped, ttl=DAY)
    barrier = threading.Barrier(8)

    def insert(number: int) -> bool:
        barrier.wait()
        return d.setdefault_if(
            "a", default_value=number, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
        ).value_was_mutated

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            wrapped["a"] = "old"
            os.utime(next(tmp_path.glob("*.pkl")), (0, 0))
            assert sum(pool.map(insert, range(8))) == 1


def test_touching_begins_the_time_anew_and_keeps_the_value(
    wrapped: PersiDict[Any], clock: Clock
) -> None:
    d = ExpiringDict[Any](wrapped_dict=wrapped, ttl=DAY)
    d["a"] = "value"
    before = d.etag("a")
    d.touch("a")
    assert d["a"] == "value"
    assert d.etag("a") != before


def test_purging_deletes_what_is_expired_and_tells_how_many(
    d: ExpiringDict[Any], wrapped: PersiDict[Any], clock: Clock
) -> None:
    wrapped["b", "c"] = "old, too"
    assert d.purge() == 2
    assert len(wrapped) == 0
    assert d.purge() == 0


def test_purging_leaves_what_is_not_expired(wrapped: PersiDict[Any], clock: Clock) -> None:
    d = ExpiringDict[int](wrapped_dict=wrapped, ttl=DAY)
    d["a"] = 1
    assert d.purge() == 0
    assert d["a"] == 1


def test_purging_leaves_what_was_written_anew_while_it_was_listed(
    d: ExpiringDict[Any], wrapped: PersiDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = list(wrapped._versions())
    wrapped["a"] = "new"
    monkeypatch.setattr(wrapped, "_versions", lambda: iter(listed))
    assert d.purge() == 0
    assert wrapped["a"] == "new"


def test_copying_from_it_leaves_out_what_is_expired(d: ExpiringDict[Any]) -> None:
    target = LocalDict[Any]()
    copy_items(d, target)
    assert len(target) == 0


def test_a_sub_dictionary_expires_too(d: ExpiringDict[Any], wrapped: PersiDict[Any]) -> None:
    wrapped["g", "a"] = 1
    assert "a" not in d.get_subdict("g")


@pytest.mark.parametrize(
    ("ttl", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), ("1", TypeError)]
)
def test_a_time_to_live_that_is_none_is_refused(ttl: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="ttl"):
        ExpiringDict(wrapped_dict=LocalDict(), ttl=ttl)


def test_an_append_only_dictionary_is_refused() -> None:
    with pytest.raises(ValueError, match="append-only"):
        ExpiringDict(wrapped_dict=LocalDict(append_only=True), ttl=1)


def test_what_is_no_dictionary_is_refused() -> None:
    with pytest.raises(TypeError, match="wrapped_dict"):
        ExpiringDict(wrapped_dict={}, ttl=1)  # type: ignore[arg-type]


class Upper(WrapperDict[str]):
    """A wrapper that changes what is read, in one place."""

    def _load(self, *args: Any, **kwargs: Any) -> Any:
        value, etag = super()._load(*args, **kwargs)
        return value.upper(), etag


def test_what_lies_beneath_is_shown_as_a_wrapper_there_shows_it() -> None:
    d = ExpiringDict[str](wrapped_dict=Upper(wrapped_dict=LocalDict()), ttl=DAY)
    d["a"] = "x"
    assert d["a"] == "X"
    assert d.get_with_etag("a").new_value == "X"
