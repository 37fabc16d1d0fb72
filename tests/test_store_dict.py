"""A dictionary on any store: the one that docs/own-storage.md shows keeps port and contract."""

from __future__ import annotations

import copy
import shelve
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    ITEM_NOT_AVAILABLE,
    ConcurrencyConflictError,
    NonEmptySafeStrTuple,
    StoreDict,
)
from persidict.exceptions import PreconditionFailed
from persidict.persi_dict import PersiDict
from persidict.stores.files.store import FileStore
from persidict.stores.memory import MemoryStore
from persidict.stores.object_store import ObjectStore
from persidict.testing import (
    DictConformance,
    StoreConformance,
    state_machine_for,
    store_machine_for,
)

ROOT = Path(__file__).parent.parent


def shown_in_docs() -> type[Any]:
    """Return the class that the first block of the page defines."""
    text = (ROOT / "docs" / "own-storage.md").read_text(encoding="utf-8")
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    module = sys.modules["own_storage"] = ModuleType("own_storage")
    exec(compile(code, "docs/own-storage.md", "exec", dont_inherit=True), module.__dict__)
    store_class: type[Any] = module.__dict__["MappingStore"]
    return store_class


MappingStore = shown_in_docs()


def new_mapping_store() -> ObjectStore:
    store: ObjectStore = MappingStore({})
    return store


class TestTheStoreThatDocsShow(StoreConformance):
    @pytest.fixture
    def new_store(self) -> Callable[[], ObjectStore]:
        return new_mapping_store


class TestADictionaryOnTheStoreThatDocsShow(DictConformance):
    @pytest.fixture
    def handles_travel(self) -> bool:
        return False

    @pytest.fixture
    def new_dict(self) -> Callable[..., PersiDict[Any]]:
        return lambda **params: StoreDict(store=new_mapping_store(), **params)


def test_the_store_that_docs_show_behaves_like_the_model() -> None:
    store_machine_for(new_mapping_store)("runTest").debug()


def test_a_dictionary_on_the_store_that_docs_show_behaves_like_the_model() -> None:
    machine = state_machine_for(lambda: StoreDict(store=new_mapping_store()))
    machine("runTest").debug()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[shelve.Shelf[Any]]:
    with shelve.open(str(tmp_path / "items")) as opened:
        yield opened


def test_items_are_on_the_shelf_that_the_store_was_given(shelf: shelve.Shelf[Any]) -> None:
    StoreDict[Any](store=MappingStore(shelf))["a", "b"] = 1
    assert list(shelf) == ["a/b.pkl"]
    assert StoreDict[Any](store=MappingStore(shelf)) == {("a", "b"): 1}


def test_formats_on_one_store_are_apart() -> None:
    store = MemoryStore()
    pickles = StoreDict[Any](store=store)
    texts = StoreDict[Any](store=store, serialization_format="json")
    pickles["a"] = 1
    texts["a"] = 2
    pickles.clear()
    assert (dict(pickles), dict(texts)) == ({}, {("a",): 2})


def test_a_copy_is_a_handle_on_the_same_store() -> None:
    d = StoreDict[Any](store=MemoryStore())
    other = copy.copy(d)
    other["a"] = 1
    assert d == other
    assert d["a"] == 1


def test_large_objects_of_a_store_that_opens_them_are_read(tmp_path: Path) -> None:
    d = StoreDict[Any](store=FileStore(str(tmp_path), fsync=False))
    value = bytes(range(256)) * 4096
    d["a"] = value
    assert d["a"] == value


class CountingStore(MemoryStore):
    """Counts the names that it lists."""

    listed = 0

    def names(self, prefix: str = "", **params: Any) -> Iterator[str]:
        for name in super().names(prefix, **params):
            self.listed += 1
            yield name


def test_a_range_is_listed_from_its_start_to_its_end() -> None:
    store = CountingStore()
    d = StoreDict[int](store=store)
    d.update({f"k{number}": number for number in range(100, 1000)})
    assert list(d.values(start="k500", stop="k510")) == list(range(500, 510))
    assert store.listed < 20


def test_what_is_no_store_is_refused_by_name() -> None:
    not_a_store: Any = {}
    with pytest.raises(TypeError, match="store must be an ObjectStore, not dict"):
        StoreDict(store=not_a_store)


class Contested(MemoryStore):
    """A store in which somebody else is always faster to delete."""

    def delete(self, name: str, **kwargs: Any) -> None:
        raise ConcurrencyConflictError(name, 3)


def test_a_conflict_in_the_storage_names_the_key_and_not_the_object() -> None:
    d: PersiDict[Any] = StoreDict(store=Contested())
    d["a"] = 1
    with pytest.raises(ConcurrencyConflictError) as caught:
        d.discard("a")
    assert (caught.value.key, caught.value.attempts) == (NonEmptySafeStrTuple("a"), 3)


def test_a_value_of_another_class_is_refused_with_a_note_on_the_item() -> None:
    d: PersiDict[Any] = StoreDict(store=MemoryStore())
    d["a"] = 1
    with pytest.raises(TypeError) as caught:
        d.with_params(base_class_for_values=str)["a"]
    assert "during 'get' of item NonEmptySafeStrTuple('a')" in caught.value.__notes__[0]


class Contrary(MemoryStore):
    """A store that shows one version, and says of each write that it is not the current one."""

    def put(self, name: str, data: Any, *, if_match: Any = None, **kwargs: Any) -> Any:
        if if_match is not None:
            raise PreconditionFailed(actual_etag=self.head(name).etag)
        return super().put(name, data, **kwargs)


def test_a_write_is_given_up_where_the_storage_contradicts_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(StoreDict, "_seconds_to_pause", lambda *_: 0.0)
    d: PersiDict[Any] = StoreDict(store=Contrary())
    d["a"] = 1
    with pytest.raises(ConcurrencyConflictError) as caught:
        d.set_item_if("a", value=2, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE)
    assert (caught.value.key, d["a"]) == (("a",), 1)
