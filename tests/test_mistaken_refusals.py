"""Refusals that are mistaken, since the write took place: they are asked before they are reported.

What stands between client and server may deliver a request twice and pass on the second answer.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    NEVER_RETRIEVE,
    AppendOnlyDictCached,
    ConcurrencyConflictError,
    ETagValue,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    WriteOnceDict,
)
from persidict.exceptions import PreconditionFailed
from persidict.persi_dict import PersiDict
from persidict.stores.memory import MemoryStore


class Mistaken(PreconditionFailed):
    """A refusal that knows, if asked, which version the write made, and is asked in vain if not."""

    def __init__(self, store: MistakenStore, etag: ETagValue) -> None:
        super().__init__()
        self._store = store
        self._etag = etag

    def written_after_all(self, seen_etag: ETagValue | None) -> ETagValue | None:
        self._store.asked += 1
        if self._store.is_down:
            raise OSError("the store is down")
        return self._etag


class MistakenStore(MemoryStore):
    """Refuses the next conditional write after having carried it out."""

    def __init__(self) -> None:
        super().__init__()
        self.mistakes = 1
        self.asked = 0
        self.is_down = False
        self.goes_down = False
        self.refusals: weakref.WeakSet[Mistaken] = weakref.WeakSet()

    def put(self, name: str, data: Any, **condition: Any) -> ETagValue:
        etag = super().put(name, data, **condition)
        if any(condition.values()) and self.mistakes:
            self.mistakes -= 1
            self.is_down = self.goes_down
            refusal = Mistaken(self, etag)
            self.refusals.add(refusal)
            raise refusal
        return etag

    def get(self, name: str, *, if_none_match: ETagValue | None = None) -> Any:
        self._fail_if_down()
        return super().get(name, if_none_match=if_none_match)

    def head(self, name: str) -> Any:
        self._fail_if_down()
        return super().head(name)

    def _fail_if_down(self) -> None:
        if self.is_down:
            raise OSError("the store is down")


def on_mistaken_store(**params: Any) -> tuple[LocalDict[Any], MistakenStore]:
    store = MistakenStore()
    return LocalDict(backend=store, **params), store


KINDS: dict[str, Callable[[LocalDict[Any]], PersiDict[Any]]] = {
    "stored": lambda main: main,
    "cached": lambda main: MutableDictCached(
        main_dict=main,
        data_cache=LocalDict(),
        etag_cache=LocalDict(base_class_for_values=str),
    ),
}


@pytest.fixture(params=KINDS)
def d(request: pytest.FixtureRequest) -> PersiDict[Any]:
    return KINDS[request.param](on_mistaken_store()[0])


def add_one(d: PersiDict[Any], **params: Any) -> Any:
    return d.transform_item(
        "a", transformer=lambda n: 1 if n is ITEM_NOT_AVAILABLE else n + 1, **params
    )


def test_a_swap_reports_the_version_that_it_made(d: PersiDict[Any]) -> None:
    d["a"] = 1
    before = d.etag("a")
    result = d.set_item_if("a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=before)
    assert result.condition_was_satisfied
    assert (result.actual_etag, result.resulting_etag) == (before, d.etag("a"))
    assert (result.new_value, d["a"]) == (2, 2)


def test_setting_what_has_changed_reports_the_version_that_it_made(d: PersiDict[Any]) -> None:
    d["a"] = 1
    before = d.etag("a")
    result = d.set_item_if(
        "a", value=2, condition=ETAG_HAS_CHANGED, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert (result.actual_etag, result.resulting_etag) == (before, d.etag("a"))


def test_an_insertion_reports_that_it_inserted(d: PersiDict[Any]) -> None:
    result = d.setdefault_if(
        "a", default_value=1, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert result.value_was_mutated
    assert result.resulting_etag == d.etag("a")


@pytest.mark.parametrize("n_retries", [0, 6, None])
def test_a_transformation_takes_effect_once(d: PersiDict[Any], n_retries: int | None) -> None:
    d["a"] = 1
    assert add_one(d, n_retries=n_retries).new_value == 2
    assert d["a"] == 2


def append_only() -> Iterator[tuple[str, PersiDict[Any]]]:
    main, _ = on_mistaken_store(append_only=True)
    yield "stored", main
    main, _ = on_mistaken_store(append_only=True)
    cache: LocalDict[Any] = LocalDict(append_only=True)
    yield "cached", AppendOnlyDictCached(main_dict=main, data_cache=cache)


@pytest.mark.parametrize("name", ["stored", "cached"])
def test_an_append_only_assignment_succeeds(name: str) -> None:
    d = dict(append_only())[name]
    d["a"] = 1
    assert d["a"] == 1


@pytest.mark.parametrize("name", ["stored", "cached"])
def test_an_append_only_bulk_write_succeeds(name: str) -> None:
    d = dict(append_only())[name]
    d.set_many({"a": 1, "b": 2})
    assert dict(d.items()) == {("a",): 1, ("b",): 2}


def test_a_first_value_that_stays_is_not_compared_with_itself() -> None:
    main, _ = on_mistaken_store(append_only=True)
    d: WriteOnceDict[Any] = WriteOnceDict(wrapped_dict=main, p_consistency_checks=1)
    d["a"] = 1
    assert d.consistency_checks_attempted == 0


def test_a_refusal_that_is_right_is_reported() -> None:
    d, store = on_mistaken_store()
    store.mistakes = 0
    d["a"] = 1
    result = d.set_item_if(
        "a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert not result.condition_was_satisfied
    assert d["a"] == 1


def test_a_refused_append_only_change_is_reported() -> None:
    d, store = on_mistaken_store(append_only=True)
    store.mistakes = 0
    d["a"] = 1
    with pytest.raises(MutationPolicyError):
        d["a"] = 2


def test_a_conflict_that_is_one_is_reported() -> None:
    d, store = on_mistaken_store()
    store.mistakes = 0

    def interfered_with(current: Any) -> int:
        d["a"] = 5
        return 6

    with pytest.raises(ConcurrencyConflictError):
        d.transform_item("a", transformer=interfered_with, n_retries=0)
    assert d["a"] == 5


@pytest.mark.parametrize("retrieve", [NEVER_RETRIEVE, None])
def test_what_cannot_be_found_out_is_raised(retrieve: Any) -> None:
    d, store = on_mistaken_store()
    d["a"] = 1
    before = d.etag("a")
    store.goes_down = True
    params = {} if retrieve is None else {"retrieve_value": retrieve}
    with pytest.raises(OSError, match="the store is down"):
        d.set_item_if("a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=before, **params)
    assert store.asked == 1


def test_a_look_that_fails_does_not_hide_that_the_write_took_place() -> None:
    d, store = on_mistaken_store()
    d["a"] = 1
    store.goes_down = True
    store_get = store.get

    def fail_once(name: str, **params: Any) -> Any:
        if store.is_down:
            store.is_down = False
            raise OSError("not now")
        return store_get(name, **params)

    store.get = fail_once  # type: ignore[method-assign]
    assert add_one(d).new_value == 2
    assert d["a"] == 2


def test_an_operation_that_was_refused_keeps_nothing_alive() -> None:
    d, store = on_mistaken_store()
    gc.disable()
    try:
        add_one(d)
        assert not store.refusals
    finally:
        gc.enable()
