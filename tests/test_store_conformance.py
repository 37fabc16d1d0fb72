"""Every object store keeps the port."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from persidict.stores.files.store import FileStore
from persidict.stores.memory import MemoryStore
from persidict.stores.object_store import ObjectStore
from persidict.stores.wrapper_store import WrapperStore
from persidict.testing import StoreConformance

CASES: dict[str, Callable[[Path], ObjectStore]] = {
    "MemoryStore": lambda place: MemoryStore(),
    "WrapperStore": lambda place: WrapperStore(MemoryStore()),
    "FileStore": lambda place: FileStore(str(place), fsync=False),
    "FileStore-durable": lambda place: FileStore(str(place), fsync=True),
}


class TestStoreConformance(StoreConformance):
    @pytest.fixture(params=CASES)
    def new_store(
        self, request: pytest.FixtureRequest, tmp_path: Path
    ) -> Callable[[], ObjectStore]:
        make: Callable[[Path], ObjectStore] = CASES[request.param]
        places = (tmp_path / str(number) for number in itertools.count())
        return lambda: make(next(places))
