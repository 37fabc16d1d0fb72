"""Streams of objects on S3: seekable, buffered, and of one version."""

from __future__ import annotations

import io
import os
import pickle
import random
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persidict.exceptions import ObjectNotFound
from persidict.stores.s3.store import S3Store
from tests.s3_dicts import connect
from tests.s3_servers.canned import CannedServer, start_canned
from tests.s3_servers.fault_proxy import Fault, FaultProxy

MIB = 1024 * 1024
READ_AHEAD = MIB
OLD = random.Random(1).randbytes(3 * MIB + 17)
NEW = random.Random(2).randbytes(3 * MIB + 17)


@pytest.fixture(scope="module")
def server() -> Iterator[CannedServer]:
    with start_canned() as server:
        yield server


@pytest.fixture(scope="module")
def proxy(server: CannedServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def any_store(proxy: FaultProxy) -> S3Store:
    store = connect(proxy.endpoint_url)._store
    assert isinstance(store, S3Store)
    return store


@pytest.fixture
def store(any_store: S3Store, proxy: FaultProxy, server: CannedServer) -> S3Store:
    proxy.calm()
    any_store.put("a", OLD)
    server.reset_counts()
    return any_store


def reads(server: CannedServer) -> int:
    return server.counts()["GetObject"]


def test_a_stream_reads_what_is_stored(store: S3Store) -> None:
    with store.open("a") as stream:
        assert stream.read() == OLD


def test_opening_what_is_absent_says_so(store: S3Store) -> None:
    with pytest.raises(ObjectNotFound):
        store.open("absent")


def test_an_empty_object_is_an_empty_stream(store: S3Store) -> None:
    store.put("empty", b"")
    with store.open("empty") as stream:
        assert (stream.read(), stream.seek(0, io.SEEK_END)) == (b"", 0)


def test_a_stream_tells_what_it_can_do(store: S3Store) -> None:
    with store.open("a") as stream:
        assert (stream.readable(), stream.seekable(), stream.writable()) == (True, True, False)
        assert (stream.mode, stream.name) == ("rb", store.location("a"))


def test_a_stream_seeks_from_any_origin(store: S3Store) -> None:
    with store.open("a") as stream:
        assert stream.seek(2 * MIB) == 2 * MIB
        assert stream.read(3) == OLD[2 * MIB : 2 * MIB + 3]
        assert stream.seek(-3, io.SEEK_CUR) == 2 * MIB
        assert stream.seek(-5, io.SEEK_END) == len(OLD) - 5
        assert stream.read() == OLD[-5:]


def test_behind_the_end_there_is_nothing(store: S3Store) -> None:
    with store.open("a") as stream:
        stream.seek(100, io.SEEK_END)
        assert stream.read(1) == b""


def test_a_stream_does_not_seek_before_the_beginning(store: S3Store) -> None:
    with store.open("a") as stream, pytest.raises(ValueError):
        stream.seek(-1)


POSITIONS = st.integers(0, len(OLD) + 10)
SIZES = st.one_of(st.integers(0, 20), st.integers(READ_AHEAD - 20, 2 * READ_AHEAD))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.tuples(POSITIONS | st.none(), SIZES), max_size=6))
def test_a_stream_reads_as_one_in_memory_does(
    store: S3Store, steps: list[tuple[int | None, int]]
) -> None:
    model = io.BytesIO(OLD)
    with store.open("a") as stream:
        for position, size in steps:
            if position is not None:
                stream.seek(position)
                model.seek(position)
            assert stream.read(size) == model.read(size)


def test_a_small_object_is_opened_and_read_in_one_request(
    store: S3Store, server: CannedServer
) -> None:
    store.put("small", OLD[:READ_AHEAD])
    server.reset_counts()
    with store.open("small") as stream:
        assert stream.read() == OLD[:READ_AHEAD]
    assert server.counts() == {"GetObject": 1}


def test_reading_in_sequence_takes_a_request_for_each_mebibyte(
    store: S3Store, server: CannedServer
) -> None:
    with store.open("a") as stream:
        pieces = list(iter(lambda: stream.read(10_000), b""))
    assert b"".join(pieces) == OLD
    assert reads(server) == 4


def test_a_jump_takes_one_request(store: S3Store, server: CannedServer) -> None:
    with store.open("a") as stream:
        stream.seek(2 * MIB)
        assert stream.read(10) == OLD[2 * MIB : 2 * MIB + 10]
        assert stream.read(10) == OLD[2 * MIB + 10 : 2 * MIB + 20]
    assert reads(server) == 2


def test_the_rest_of_an_object_is_read_in_one_request(store: S3Store, server: CannedServer) -> None:
    with store.open("a") as stream:
        assert stream.read() == OLD
    assert reads(server) == 2


def test_a_stream_of_a_replaced_object_fails_and_says_why(store: S3Store) -> None:
    with store.open("a") as stream:
        store.put("a", NEW)
        with pytest.raises(OSError, match="was changed or deleted while it was being read"):
            stream.read()


def test_a_stream_of_a_deleted_object_fails_and_says_why(store: S3Store) -> None:
    with store.open("a") as stream:
        store.delete("a")
        stream.seek(2 * MIB)
        with pytest.raises(OSError, match="was changed or deleted while it was being read"):
            stream.read(1)


def test_what_was_read_ahead_outlives_its_version(store: S3Store) -> None:
    with store.open("a") as stream:
        store.put("a", NEW)
        assert stream.read(READ_AHEAD) == OLD[:READ_AHEAD]


@pytest.mark.parametrize("fault", [Fault.TRUNCATED_BODY, Fault.ERROR_500, Fault.RESET_BEFORE])
def test_opening_outlives_a_bad_network(store: S3Store, proxy: FaultProxy, fault: Fault) -> None:
    proxy.script(fault, operation="GetObject")
    with store.open("a") as stream:
        assert stream.read(10) == OLD[:10]


@pytest.mark.parametrize("fault", [Fault.TRUNCATED_BODY, Fault.ERROR_500, Fault.RESET_BEFORE])
def test_reading_outlives_a_bad_network(store: S3Store, proxy: FaultProxy, fault: Fault) -> None:
    with store.open("a") as stream:
        proxy.script(fault, operation="GetObject")
        assert stream.read() == OLD


@pytest.mark.parametrize("sent", [0, 1], ids=["opening", "reading"])
def test_what_cannot_be_read_raises_what_went_wrong(
    store: S3Store, proxy: FaultProxy, sent: int
) -> None:
    proxy.script(*[Fault.PASS] * sent, *[Fault.ERROR_500] * 5, operation="GetObject")
    with pytest.raises(ClientError) as caught, store.open("a") as stream:
        stream.read()
    assert any("GetObject" in note and "'a'" in note for note in caught.value.__notes__)


def test_a_pickle_is_loaded_from_a_stream(proxy: FaultProxy) -> None:
    value = {"text": "x" * 100, "bytes": os.urandom(2 * MIB), "numbers": list(range(1000))}
    d: Any = connect(proxy.endpoint_url)
    proxy.calm()
    d["a"] = value
    with d.open("a") as stream:
        assert pickle.load(stream) == value


def test_an_archive_is_read_from_a_stream(store: S3Store) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(5):
            archive.writestr(f"file{number}", OLD[number : number + MIB])
    store.put("archive", made.getvalue())
    with store.open("archive") as stream, zipfile.ZipFile(stream) as archive:
        assert archive.read("file3") == OLD[3 : 3 + MIB]


def test_lines_are_read_from_a_stream(store: S3Store) -> None:
    store.put("text", "".join(f"line {number}\n" for number in range(200_000)).encode())
    with store.open("text") as stream:
        assert sum(1 for _ in stream) == 200_000
