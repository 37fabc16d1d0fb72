"""Every object store keeps the port."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from moto import mock_aws

from persidict.basic_s3_dict import BasicS3Dict
from persidict.stores.cached.store import CachedStore
from persidict.stores.files.store import FileStore
from persidict.stores.memory import MemoryStore
from persidict.stores.object_store import ObjectStore
from persidict.stores.sqlite.store import SQLiteStore
from persidict.stores.wrapper_store import WrapperStore
from persidict.testing import StoreConformance, store_machine_for
from tests.clouds import CLOUDS
from tests.s3_dicts import connect
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS, CEPH, LOCALSTACK

__all__ = ["moto_aws_server"]

NewStore = Callable[[], ObjectStore]


def in_a_cloud(name: str, place: Path) -> ObjectStore:
    return CLOUDS[name]()._store


CASES: dict[str, Callable[[Path], ObjectStore]] = {
    "MemoryStore": lambda place: MemoryStore(),
    "WrapperStore": lambda place: WrapperStore(MemoryStore()),
    "FileStore": lambda place: FileStore(str(place), fsync=False),
    "FileStore-durable": lambda place: FileStore(str(place), fsync=True),
    "SQLiteStore": lambda place: SQLiteStore(str(place), fsync=False),
    "SQLiteStore-durable": lambda place: SQLiteStore(str(place), fsync=True),
    "SQLiteStore-files": lambda place: SQLiteStore(str(place), fsync=False, large_value_size=1),
    **{name: partial(in_a_cloud, name) for name in CLOUDS},
}

NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in CLOUDS else name for name in CASES]


ABSENCE_IS_NO_ERROR = frozenset({"SQLiteStore", "SQLiteStore-durable", "SQLiteStore-files"})
"""The cases in which the storage itself raises no exception for what does not exist."""


class TestStoreConformance(StoreConformance):
    @pytest.fixture
    def absence_is_an_error(self, request: pytest.FixtureRequest) -> bool:
        return request.node.callspec.params["new_store"] not in ABSENCE_IS_NO_ERROR

    @pytest.fixture(params=NAMES)
    def new_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
        make: Callable[[Path], ObjectStore] = CASES[request.param]
        places = (tmp_path / str(number) for number in itertools.count())
        return lambda: make(next(places))


class S3Conformance(StoreConformance):
    @pytest.fixture
    def absence_is_an_error(self) -> bool:
        return True

    @pytest.fixture
    def etags_never_repeat(self) -> bool:
        return False


@pytest.fixture(scope="module")
def moto_in_process() -> Iterator[None]:
    with mock_aws():
        yield


def new_store_on_moto() -> ObjectStore:
    """Make a store below a prefix of its own, in a bucket that all share."""
    place = BasicS3Dict[bytes](
        bucket_name="stores", root_prefix=uuid.uuid4().hex, region="eu-west-1"
    )
    return place._store


class TestS3StoreOnMotoInProcess(S3Conformance):
    @pytest.fixture
    def new_store(self, moto_in_process: None) -> NewStore:
        return new_store_on_moto


class TestS3StoreThroughBotocore(S3Conformance):
    """The other wire; all else on S3 is tested on the direct one, which is the default."""

    @pytest.fixture
    def new_store(self, moto_aws_server: MotoServer) -> NewStore:
        place = {"bucket_name": "through-botocore", "transport": "botocore"}
        return lambda: (
            connect(moto_aws_server.endpoint_url, root_prefix=uuid.uuid4().hex, **place)._store
        )


@pytest.fixture(params=[AWS, CEPH, LOCALSTACK], ids=["aws", "ceph", "localstack"])
def new_store_on_a_server(moto_aws_server: MotoServer, request: pytest.FixtureRequest) -> NewStore:
    url = moto_aws_server.with_quirks(request.param).endpoint_url
    bucket_name = new_bucket_name()
    return lambda: connect(url, bucket_name=bucket_name, root_prefix=uuid.uuid4().hex)._store


@pytest.mark.slow
class TestS3StoreOnServers(S3Conformance):
    @pytest.fixture
    def new_store(self, new_store_on_a_server: NewStore) -> NewStore:
        return new_store_on_a_server


@pytest.mark.parametrize("name", NAMES)
def test_a_store_behaves_like_the_model(name: str, tmp_path: Path) -> None:
    places = (tmp_path / str(number) for number in itertools.count())
    machine: Any = store_machine_for(lambda: CASES[name](next(places)))
    if name in CLOUDS:
        machine.settings = settings(machine.settings, max_examples=5)
    machine("runTest").debug()


def test_a_cached_store_behaves_like_the_model(tmp_path: Path) -> None:
    places = (str(tmp_path / str(number)) for number in itertools.count())

    def new_store() -> ObjectStore:
        return CachedStore(MemoryStore(), next(places), identity="memory")

    store_machine_for(new_store)("runTest").debug()


def run_a_few_histories(new_store: NewStore) -> None:
    machine: Any = store_machine_for(new_store, etags_never_repeat=False)
    machine.settings = settings(machine.settings, max_examples=20)
    machine("runTest").debug()


@pytest.mark.slow
def test_a_store_on_s3_behaves_like_the_model(moto_in_process: None) -> None:
    run_a_few_histories(new_store_on_moto)


@pytest.mark.slow
def test_a_store_on_a_server_behaves_like_the_model(new_store_on_a_server: NewStore) -> None:
    run_a_few_histories(new_store_on_a_server)
