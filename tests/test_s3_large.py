"""Large objects on S3: one version whole, under its condition, and nothing left behind."""

from __future__ import annotations

import _thread
import contextlib
import math
import os
import random
import sys
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from persidict import ANY_ETAG, ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE
from persidict.basic_s3_dict import BasicS3Dict
from persidict.exceptions import BackendError, ObjectNotFound, PreconditionFailed
from persidict.stored_dict import StoredDict
from persidict.stores.object_store import NOT_MODIFIED, ObjectInfo
from persidict.stores.s3 import download, upload
from persidict.stores.s3.store import S3Store
from persidict.stores.s3.transport.messages import GetObject
from persidict.stores.shared.recent_notes import RecentNotes
from tests.s3_dicts import connect
from tests.s3_servers.canned import start_canned
from tests.s3_servers.clients import new_bucket_name, s3_client
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server, moto_like
from tests.s3_servers.moto_server import LoggedRequest, MotoServer
from tests.s3_servers.quirks import AWS, CEPH, MOTO, NO_CONDITIONS, ServerQuirks

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["moto_aws_server", "moto_like"]

MIB = 1024 * 1024
LARGE = MIB
"""From here on objects are large in these tests, and read in ranges of half of that."""

ACTED_UNHEARD = [Fault.DROP_REPLY, Fault.RESET_AFTER, Fault.ERROR_500_AFTER]
NEVER_ACTED = [Fault.RESET_BEFORE, Fault.ERROR_500, Fault.SLOW_DOWN]
EVERY_ATTEMPT = 5
OTHER = '"0123456789abcdef0123456789abcdef"'

each_trouble = pytest.mark.parametrize(
    "fault",
    [*ACTED_UNHEARD, *NEVER_ACTED, Fault.DUPLICATE_FIRST],
    ids=lambda fault: fault.name,
)
each_unheard = pytest.mark.parametrize("fault", ACTED_UNHEARD, ids=lambda fault: fault.name)


Like = Callable[[ServerQuirks], MotoServer]


def content(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


OLD, NEW = content(1, 3 * MIB + 17), content(2, 3 * MIB + 17)
ONE_PART, ANOTHER_PART = content(3, LARGE + 1), content(4, LARGE + 1)
TWO_PARTS = content(5, 9 * MIB)


def store_at(endpoint_url: str, **params: Any) -> S3Store:
    store = connect(endpoint_url, **{"large_object_size": LARGE, **params})._store
    assert isinstance(store, S3Store)
    return store


class Place:
    """A bucket on a server, and a proxy before it, that many tests share."""

    def __init__(self, endpoint_url: str, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.bucket = new_bucket_name()
        self.direct = store_at(endpoint_url, bucket_name=self.bucket)
        self.behind = store_at(proxy.endpoint_url, bucket_name=self.bucket)
        for store in (self.direct, self.behind):
            find_out_abilities(store)


class Bench:
    """A store behind a proxy, and the same one that is not, in a corner of a bucket."""

    def __init__(self, place: Place) -> None:
        self.proxy = place.proxy
        self.bucket = place.bucket
        self.prefix = f"{uuid.uuid4().hex}/"
        self.direct = place.direct.scoped(self.prefix)
        self.behind = place.behind.scoped(self.prefix)
        self.proxy.calm()
        self._handled_before = len(self.proxy.handled())

    @property
    def client(self) -> S3Client:
        return self.direct.shared.client

    def behind_with_all_retries(self) -> S3Store:
        """A client gives up retrying when it has failed too often: one that has not yet."""
        return store_at(
            self.proxy.endpoint_url,
            bucket_name=self.bucket,
            root_prefix=self.prefix,
            boto_config={"user_agent_extra": uuid.uuid4().hex},
        )

    def raw_dict(self) -> StoredDict[bytes]:
        return connect(
            self.proxy.endpoint_url,
            bucket_name=self.bucket,
            root_prefix=self.prefix,
            large_object_size=LARGE,
        ).raw

    def trouble(self, operation: str, *faults: Fault, **params: Any) -> None:
        self.proxy.script(*faults, operation=operation, **params)

    def faults(self) -> list[Fault]:
        handled = self.proxy.handled()[self._handled_before :]
        return [entry.fault for entry in handled if entry.fault is not Fault.PASS]

    def bytes_of(self, name: str) -> bytes:
        return bytes_of(self.direct, name)

    def open_uploads(self) -> list[str]:
        listed: Any = self.client.list_multipart_uploads(Bucket=self.bucket)
        uploads = listed.get("Uploads", [])
        return [upload["UploadId"] for upload in uploads if upload["Key"] == self.prefix + "a"]

    def abort_uploads(self) -> None:
        for upload_id in self.open_uploads():
            self.client.abort_multipart_upload(
                Bucket=self.bucket, Key=self.prefix + "a", UploadId=upload_id
            )


def find_out_abilities(store: S3Store) -> None:
    """Let a store ask its server what it enforces, so that no test has to count that."""
    etag = store.put("settled", ONE_PART)
    store.put("settled", ONE_PART, if_match=etag)
    with contextlib.suppress(PreconditionFailed):
        store.put("settled", ONE_PART, if_none_match="*")


def bytes_of(store: S3Store, name: str) -> bytes:
    found = store.get(name)
    assert isinstance(found, tuple)
    return bytes(found[0])


@pytest.fixture
def server(moto_aws_server: MotoServer) -> MotoServer:
    moto_aws_server.reset_log()
    return moto_aws_server


@pytest.fixture
def store(server: MotoServer) -> S3Store:
    return store_at(server.endpoint_url)


@pytest.fixture(scope="module")
def place(moto_aws_server: MotoServer) -> Iterator[Place]:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        yield Place(moto_aws_server.endpoint_url, proxy)


@pytest.fixture
def bench(place: Place) -> Bench:
    return Bench(place)


@pytest.fixture(scope="module")
def canned_place() -> Iterator[Place]:
    """A server that says NoSuchUpload of what has ended, as AWS does, and moto does not."""
    with start_canned() as server, FaultProxy(server.endpoint_url) as proxy:
        yield Place(server.endpoint_url, proxy)


@pytest.fixture
def canned_bench(canned_place: Place) -> Bench:
    return Bench(canned_place)


def peak_of(operation: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        operation()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def reads(server: MotoServer) -> list[LoggedRequest]:
    return [request for request in server.requests() if request.operation == "GetObject"]


# ---------------------------------------------------------------------- reading


def test_a_large_object_is_read_back(store: S3Store) -> None:
    store.put("a", OLD)
    assert bytes_of(store, "a") == OLD


def test_ranges_are_asked_for_under_their_version(bench: Bench, server: MotoServer) -> None:
    etag = bench.direct.put("a", OLD)
    server.reset_log()
    bench.trouble("GetObject", Fault.TRUNCATED_BODY)
    bench.behind.get("a")
    ranged = [request.headers for request in reads(server) if "range" in request.headers]
    assert ranged
    assert {headers.get("if-match") for headers in ranged} == {etag}


def test_no_range_is_asked_for_twice(store: S3Store, server: MotoServer) -> None:
    store.put("a", OLD)
    server.reset_log()
    store.get("a")
    ranges = [request.headers.get("range") for request in reads(server)]
    assert len(ranges) == len(set(ranges)) <= math.ceil(len(OLD) / (LARGE // 2))


def test_an_object_of_just_the_limit_is_read_in_one_request(
    store: S3Store, server: MotoServer
) -> None:
    store.put("a", OLD[:LARGE])
    server.reset_log()
    assert bytes_of(store, "a") == OLD[:LARGE]
    assert len(reads(server)) == 1


def test_without_free_threads_one_request_reads_it_all(server: MotoServer) -> None:
    store = store_at(server.endpoint_url, max_concurrency=1)
    store.put("a", OLD)
    server.reset_log()
    assert bytes_of(store, "a") == OLD
    assert len(reads(server)) == 1


def test_many_large_objects_are_read_by_a_pool_that_is_smaller(server: MotoServer) -> None:
    store = store_at(server.endpoint_url, max_concurrency=2)
    names = [f"name{number}" for number in range(6)]
    for name in names:
        store.put(name, OLD)
    assert [(name, data == OLD) for name, data, _ in store.get_many(names)] == [
        (name, True) for name in names
    ]


def test_many_large_objects_are_written_by_a_pool_that_is_smaller(server: MotoServer) -> None:
    store = store_at(server.endpoint_url, max_concurrency=2)
    names = [f"name{number}" for number in range(4)]
    outcomes = dict(store.put_many((name, TWO_PARTS) for name in names))
    assert outcomes == {name: store.head(name).etag for name in names}


def test_an_object_replaced_in_mid_read_is_read_as_it_is_then(bench: Bench) -> None:
    bench.direct.put("a", OLD)
    bench.trouble("GetObject", Fault.TRUNCATED_BODY, meanwhile=lambda: bench.direct.put("a", NEW))
    assert bytes_of(bench.behind, "a") == NEW


def test_a_read_never_mixes_versions_while_others_write(bench: Bench) -> None:
    bench.direct.put("a", OLD)
    done = threading.Event()

    def replace_on_and_on() -> None:
        while not done.is_set():
            bench.direct.put("a", NEW)
            bench.direct.put("a", OLD)

    writer = threading.Thread(target=replace_on_and_on)
    writer.start()
    try:
        found = {bytes_of(bench.behind, "a") for _ in range(8)}
    finally:
        done.set()
        writer.join()
    assert found <= {OLD, NEW}


def test_an_object_that_keeps_changing_is_read_in_one_request_in_the_end(bench: Bench) -> None:
    alone = store_at(bench.proxy.endpoint_url, bucket_name=bench.bucket, max_concurrency=1)
    store = alone.scoped(bench.prefix)
    versions = [content(10 + number, len(OLD)) for number in range(5)]
    remaining = iter(versions)
    store.put("a", next(remaining))
    for _ in range(3):
        bench.trouble(
            "GetObject",
            Fault.TRUNCATED_BODY,
            meanwhile=lambda: bench.direct.put("a", next(remaining)),
        )
        bench.trouble("GetObject", Fault.PASS, Fault.PASS)  # the range, in either form
    assert bytes_of(store, "a") == versions[3]


def test_an_object_deleted_in_mid_read_is_absent(bench: Bench) -> None:
    bench.direct.put("a", OLD)
    bench.trouble("GetObject", Fault.TRUNCATED_BODY, meanwhile=lambda: bench.direct.delete("a"))
    with pytest.raises(ObjectNotFound):
        bench.behind.get("a")


def test_parts_that_break_off_are_read_again(bench: Bench) -> None:
    bench.direct.put("a", OLD)
    bench.trouble("GetObject", *[Fault.TRUNCATED_BODY] * 4)
    assert bytes_of(bench.behind, "a") == OLD


def test_a_read_that_goes_on_failing_raises_what_went_wrong(bench: Bench) -> None:
    store = bench.behind_with_all_retries()
    bench.direct.put("a", OLD)
    bench.trouble("GetObject", Fault.TRUNCATED_BODY, *[Fault.ERROR_500] * 100)
    with pytest.raises(ClientError) as caught:
        store.get("a")
    assert any("GetObject" in note and "/a'" in note for note in caught.value.__notes__)


@pytest.fixture
def read_before(store: S3Store, server: MotoServer) -> S3Store:
    """A store that knows "a" as large."""
    store.put("a", OLD)
    server.reset_log()
    return store


def test_of_what_was_large_before_the_server_is_never_asked_for_all(
    read_before: S3Store, server: MotoServer
) -> None:
    assert bytes_of(read_before, "a") == OLD
    assert all("range" in request.headers for request in reads(server))


def test_what_was_large_before_is_told_of_as_it_is(read_before: S3Store) -> None:
    found = read_before.get("a")
    assert isinstance(found, tuple)
    assert found[1] == read_before.head("a")


@pytest.mark.parametrize("size", [1, LARGE // 2, LARGE // 2 + 1, LARGE, LARGE + 1])
def test_what_was_large_before_is_read_whatever_its_size_is_now(
    read_before: S3Store, size: int
) -> None:
    read_before.shared.client.put_object(
        Bucket=read_before.bucket_name, Key=read_before.prefix + "a", Body=NEW[:size]
    )
    assert bytes_of(read_before, "a") == NEW[:size]


def test_what_was_large_before_is_read_when_it_is_empty_now(read_before: S3Store) -> None:
    read_before.put("a", b"")
    assert bytes_of(read_before, "a") == b""


def test_what_was_large_before_and_is_unchanged_is_not_read(read_before: S3Store) -> None:
    found = read_before.get("a", if_none_match=read_before.head("a").etag)
    assert found is NOT_MODIFIED


def test_what_is_small_again_is_read_in_one_request_without_a_range(
    read_before: S3Store, server: MotoServer
) -> None:
    read_before.put("a", b"small")
    read_before.get("a")
    server.reset_log()
    assert bytes_of(read_before, "a") == b"small"
    assert ["range" in request.headers for request in reads(server)] == [False]


def test_what_a_listing_tells_to_be_large_is_read_in_ranges_alone(
    bench: Bench, server: MotoServer
) -> None:
    bench.client.put_object(Bucket=bench.bucket, Key=bench.prefix + "listed", Body=OLD)
    entries = [entry for entry in bench.direct.list() if isinstance(entry, ObjectInfo)]
    server.reset_log()
    assert [bytes(data) for _, data, _ in bench.direct.get_many(entries)] == [OLD]
    assert all("range" in request.headers for request in reads(server))


class BodyThatWaits:
    """The body of a reply, which nobody gets anything of before a moment has come."""

    def __init__(self, body: Any, moment: threading.Event) -> None:
        self._body = body
        self._moment = moment
        self.has_read = 0

    def read(self, amt: int | None = None) -> bytes:
        assert self._moment.wait(30)
        chunk: bytes = self._body.read(amt)
        self.has_read += len(chunk)
        return chunk

    def readinto(self, buffer: Any) -> int:
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._body.close()


def test_once_others_help_the_rest_of_a_whole_body_is_not_read(bench: Bench) -> None:
    bench.direct.put("a", OLD)
    key = bench.prefix + "a"
    reply = bench.direct.transport.send(GetObject(key))
    help_has_come = threading.Event()
    reply.body = body = BodyThatWaits(reply.body, help_has_come)

    def note_help(**_: Any) -> None:
        help_has_come.set()

    bench.client.meta.events.register("before-send.s3.GetObject", note_help)
    try:
        data = download.read_large(bench.direct._requests, key, reply, large_object_size=LARGE)
    finally:
        bench.client.meta.events.unregister("before-send.s3.GetObject", note_help)
    assert bytes(data) == OLD
    assert body.has_read == download.range_size(LARGE)


def test_only_so_many_names_are_remembered_as_large_and_the_latest_are() -> None:
    names = RecentNotes[int](8)
    for number in range(100):
        names.put(str(number), 0)
    remembered = [number for number in range(100) if str(number) in names]
    assert len(remembered) <= 8
    assert remembered[-3:] == [97, 98, 99]


class _Reply412:
    def stream(self) -> Iterator[bytes]:
        yield b"<Error><Code>PreconditionFailed</Code></Error>"


def _refuse_quoted_etags(request: Any, **kwargs: Any) -> Any:
    if_match = request.headers.get("If-Match", "")
    text = if_match.decode() if isinstance(if_match, bytes) else if_match
    return AWSResponse(request.url, 412, HTTPHeaders(), _Reply412()) if text[:1] == '"' else None


def test_ranges_are_read_from_a_server_that_wants_etags_without_quotes(
    server: MotoServer,
) -> None:
    client = s3_client(server.endpoint_url)
    client.meta.events.register("before-send.s3.GetObject", _refuse_quoted_etags)
    d: BasicS3Dict[Any] = BasicS3Dict(
        s3_client=client, bucket_name=new_bucket_name(), large_object_size=LARGE
    )
    etag = d._store.put("a", OLD)
    server.reset_log()
    d._store.get("a")
    ranged = [r.headers for r in reads(server) if "range" in r.headers]
    conditions = {headers["if-match"] for headers in ranged if headers["range"][:8] != "bytes=0-"}
    assert conditions == {etag.strip('"')}


def test_nothing_holds_on_to_what_was_read(store: S3Store) -> None:
    store.put("a", OLD)
    found = store.get("a")
    assert isinstance(found, tuple)
    data = found[0]
    del found
    assert sys.getrefcount(data) == 2


# ---------------------------------------------------------------------- writing


def test_a_large_object_is_written_in_parts(store: S3Store, server: MotoServer) -> None:
    server.reset_log()
    etag = store.put("a", TWO_PARTS)
    assert server.counts() == {
        "CreateMultipartUpload": 1,
        "UploadPart": 2,
        "CompleteMultipartUpload": 1,
    }
    assert etag == store.head("a").etag


def test_an_object_of_just_the_limit_is_written_in_one_request(
    store: S3Store, server: MotoServer
) -> None:
    server.reset_log()
    store.put("a", TWO_PARTS[:LARGE])
    assert server.counts() == {"PutObject": 1}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_written(store: S3Store, kind: Callable[[bytes], Any]) -> None:
    store.put("a", kind(TWO_PARTS))
    assert bytes_of(store, "a") == TWO_PARTS


def test_what_is_written_in_parts_has_type_and_lineage_as_all_else(bench: Bench) -> None:
    client = bench.client
    bench.direct.put("small", b"1")
    bench.direct.put("large", ONE_PART)
    heads: Any = [
        client.head_object(Bucket=bench.bucket, Key=bench.prefix + name)
        for name in ("small", "large")
    ]
    assert heads[0]["ContentType"] == heads[1]["ContentType"]
    assert heads[0]["Metadata"].keys() == heads[1]["Metadata"].keys()


def test_a_large_write_makes_no_copy_of_the_data(store: S3Store) -> None:
    data = content(5, 24 * MIB)
    assert peak_of(lambda: store.put("a", data)) < len(data) // 4


def test_a_client_that_adds_checksums_writes_in_parts_too(server: MotoServer) -> None:
    client = s3_client(server.endpoint_url, request_checksum_calculation="when_supported")
    d: BasicS3Dict[Any] = BasicS3Dict(
        s3_client=client, bucket_name=new_bucket_name(), large_object_size=LARGE
    )
    d._store.put("a", TWO_PARTS)
    assert bytes_of(d._s3_store, "a") == TWO_PARTS


@given(size=st.integers(1, 10_000 * 5 * 1024**3))
def test_parts_are_no_more_and_no_larger_than_s3_takes(size: int) -> None:
    part_size = upload.part_size(size)
    assert -(-size // part_size) <= 10_000
    assert 5 * MIB <= part_size <= 5 * 1024**3


# ---------------------------------------------------------------------- conditions


def test_a_large_swap_replaces_the_version_it_names(bench: Bench) -> None:
    etag = bench.direct.put("a", ONE_PART)
    assert bench.direct.put("a", ANOTHER_PART, if_match=etag) == bench.direct.head("a").etag
    assert bench.bytes_of("a") == ANOTHER_PART


def test_a_large_insertion_finds_nothing_in_its_place(bench: Bench) -> None:
    assert bench.direct.put("a", ONE_PART, if_none_match="*") == bench.direct.head("a").etag


@pytest.mark.parametrize("condition", [{"if_match": OTHER}, {"if_none_match": "*"}])
def test_a_doomed_write_is_refused_before_anything_is_sent(
    store: S3Store, server: MotoServer, condition: dict[str, Any]
) -> None:
    store.put("first", ONE_PART, if_none_match="*")
    store.put("first", ONE_PART, if_match=store.head("first").etag)
    etag = store.put("a", ONE_PART)
    server.reset_log()
    with pytest.raises(PreconditionFailed) as caught:
        store.put("a", ANOTHER_PART, **condition)
    assert caught.value.actual_etag == etag
    assert server.counts() == {"HeadObject": 1}


def test_a_swap_whose_version_is_replaced_meanwhile_writes_nothing(bench: Bench) -> None:
    etag = bench.direct.put("a", ONE_PART)
    bench.trouble("UploadPart", Fault.PASS, meanwhile=lambda: bench.direct.put("a", b"rival"))
    with pytest.raises(PreconditionFailed):
        bench.behind.put("a", ANOTHER_PART, if_match=etag)
    assert bench.bytes_of("a") == b"rival"
    assert bench.open_uploads() == []


def test_an_insertion_that_comes_second_writes_nothing(bench: Bench) -> None:
    bench.trouble("UploadPart", Fault.PASS, meanwhile=lambda: bench.direct.put("a", b"rival"))
    with pytest.raises(PreconditionFailed):
        bench.behind.put("a", ANOTHER_PART, if_none_match="*")
    assert bench.bytes_of("a") == b"rival"
    assert bench.open_uploads() == []


def test_a_conflict_on_the_completion_is_tried_again(moto_like: Like) -> None:
    server = moto_like(ServerQuirks(conflict_every=2))
    store = store_at(server.endpoint_url)
    for number in range(3):
        store.put(f"name{number}", ONE_PART, if_none_match="*")
    statuses = [r.status for r in server.requests() if r.operation == "CompleteMultipartUpload"]
    assert 409 in statuses
    assert bytes_of(store, "name2") == ONE_PART


ENFORCING = {
    "AWS": (AWS, {"if_match": True, "if_none_match": True}),
    "moto": (MOTO, {"if_match": False, "if_none_match": True}),
    "Ceph": (CEPH, {"if_match": False, "if_none_match": False}),
}


@pytest.fixture(params=ENFORCING)
def kind_of_server(
    request: pytest.FixtureRequest, moto_like: Like
) -> tuple[MotoServer, dict[str, bool]]:
    quirks, enforced = ENFORCING[request.param]
    return moto_like(quirks), enforced


def parts_sent(server: MotoServer, store: S3Store, name: str) -> int:
    return sum(
        request.operation == "UploadPart" and request.key == store.prefix + name
        for request in server.requests()
    )


def test_a_large_swap_is_a_single_request_where_completions_do_not_check(
    kind_of_server: tuple[MotoServer, dict[str, bool]],
) -> None:
    server, enforced = kind_of_server
    store = store_at(server.endpoint_url)
    etag = store.put("a", b"old")
    store.put("a", ONE_PART, if_match=etag)
    assert bytes_of(store, "a") == ONE_PART
    assert (parts_sent(server, store, "a") > 0) == enforced["if_match"]


def test_a_large_insertion_is_a_single_request_where_completions_do_not_check(
    kind_of_server: tuple[MotoServer, dict[str, bool]],
) -> None:
    server, enforced = kind_of_server
    store = store_at(server.endpoint_url)
    store.put("a", ONE_PART, if_none_match="*")
    assert bytes_of(store, "a") == ONE_PART
    assert (parts_sent(server, store, "a") > 0) == enforced["if_none_match"]


@pytest.mark.parametrize("condition", [{"if_match": OTHER}, {"if_none_match": "*"}])
def test_a_large_write_under_an_unmet_condition_is_refused_everywhere(
    kind_of_server: tuple[MotoServer, dict[str, bool]], condition: dict[str, Any]
) -> None:
    store = store_at(kind_of_server[0].endpoint_url)
    store.put("a", b"old")
    with pytest.raises(PreconditionFailed):
        store.put("a", ONE_PART, **condition)
    assert bytes_of(store, "a") == b"old"


def test_finding_out_about_completions_leaves_nothing_behind(
    kind_of_server: tuple[MotoServer, dict[str, bool]],
) -> None:
    store = store_at(kind_of_server[0].endpoint_url)
    store.put("a", ONE_PART, if_none_match="*")
    store.put("a", ANOTHER_PART, if_match=store.head("a").etag)
    client = store.shared.client
    assert list(store.names()) == ["a"]
    assert not client.list_multipart_uploads(Bucket=store.bucket_name).get("Uploads")


def test_completions_are_asked_about_once(store: S3Store, server: MotoServer) -> None:
    etag = store.put("a", ONE_PART)
    etag = store.put("a", ANOTHER_PART, if_match=etag)
    server.reset_log()
    store.put("a", ONE_PART, if_match=etag)
    assert server.counts() == {
        "HeadObject": 1,
        "CreateMultipartUpload": 1,
        "UploadPart": 1,
        "CompleteMultipartUpload": 1,
    }


def test_without_leave_to_upload_in_parts_a_condition_is_kept_by_a_single_request(
    moto_like: Like,
) -> None:
    quirks = ServerQuirks(forbidden=frozenset({"CreateMultipartUpload"}))
    store = store_at(moto_like(quirks).endpoint_url)
    store.put("a", ONE_PART, if_none_match="*")
    assert bytes_of(store, "a") == ONE_PART


def test_no_condition_is_pretended_where_none_is_kept(moto_like: Like) -> None:
    store = store_at(moto_like(NO_CONDITIONS).endpoint_url)
    with pytest.raises(BackendError):
        store.put("a", ONE_PART, if_none_match="*")
    assert not store.contains("a")


def test_what_only_parts_can_carry_is_refused_where_completions_do_not_check(
    moto_like: Like, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_MOST_IN_ONE_PUT", len(ONE_PART) - 1)
    store = store_at(moto_like(CEPH).endpoint_url)
    with pytest.raises(BackendError, match="CompleteMultipartUpload"):
        store.put("a", ONE_PART, if_none_match="*")
    assert not store.contains("a")


# ---------------------------------------------------------------------- trouble


@each_trouble
def test_a_large_write_whose_completion_met_trouble_succeeds(bench: Bench, fault: Fault) -> None:
    bench.trouble("CompleteMultipartUpload", fault)
    assert bench.behind.put("a", ONE_PART) == bench.direct.head("a").etag
    assert bench.faults() == [fault]
    assert bench.open_uploads() == []


@each_trouble
def test_a_large_insertion_whose_completion_met_trouble_succeeds(
    bench: Bench, fault: Fault
) -> None:
    bench.trouble("CompleteMultipartUpload", fault)
    etag = bench.behind.put("a", ONE_PART, if_none_match="*")
    assert etag == bench.direct.head("a").etag
    assert bench.open_uploads() == []


@each_trouble
def test_a_large_swap_whose_completion_met_trouble_succeeds(bench: Bench, fault: Fault) -> None:
    old = bench.direct.put("a", ONE_PART)
    bench.trouble("CompleteMultipartUpload", fault)
    etag = bench.behind.put("a", ANOTHER_PART, if_match=old)
    assert etag == bench.direct.head("a").etag
    assert bench.open_uploads() == []


@each_unheard
def test_a_completion_that_is_never_heard_of_is_found_out(bench: Bench, fault: Fault) -> None:
    store = bench.behind_with_all_retries()
    bench.trouble("CompleteMultipartUpload", *[fault] * EVERY_ATTEMPT)
    etag = store.put("a", ONE_PART)
    assert etag == bench.direct.head("a").etag


def test_a_completion_that_others_wrote_upon_is_found_in_their_lineage(bench: Bench) -> None:
    def build_upon() -> None:
        bench.direct.put("a", b"built upon", if_match=bench.direct.head("a").etag)

    bench.direct.put("form", b"of etags", if_match=bench.direct.put("form", b""))
    bench.trouble("CompleteMultipartUpload", Fault.DROP_REPLY, meanwhile=build_upon)
    bench.behind.put("a", ONE_PART, if_none_match="*")
    assert bench.bytes_of("a") == b"built upon"


@each_trouble
def test_a_part_that_met_trouble_is_sent_again(bench: Bench, fault: Fault) -> None:
    bench.trouble("UploadPart", fault)
    bench.behind.put("a", TWO_PARTS)
    assert bench.bytes_of("a") == TWO_PARTS


def test_a_part_that_cannot_be_sent_ends_the_upload(bench: Bench) -> None:
    store = bench.behind_with_all_retries()
    bench.direct.put("a", b"old")
    bench.trouble("UploadPart", *[Fault.ERROR_500] * 2 * EVERY_ATTEMPT)
    with pytest.raises(ClientError) as caught:
        store.put("a", TWO_PARTS)
    assert any("UploadPart" in note and "/a'" in note for note in caught.value.__notes__)
    assert bench.bytes_of("a") == b"old"
    assert bench.open_uploads() == []


def test_a_completion_that_is_refused_ends_the_upload(moto_like: Like) -> None:
    quirks = ServerQuirks(forbidden=frozenset({"CompleteMultipartUpload"}))
    store = store_at(moto_like(quirks).endpoint_url)
    with pytest.raises(ClientError) as caught:
        store.put("a", ONE_PART)
    assert any("CompleteMultipartUpload" in note for note in caught.value.__notes__)
    client = store.shared.client
    assert not client.list_multipart_uploads(Bucket=store.bucket_name).get("Uploads")


def test_an_upload_that_cannot_be_ended_is_named(moto_like: Like) -> None:
    forbidden = frozenset({"CompleteMultipartUpload", "AbortMultipartUpload"})
    store = store_at(moto_like(ServerQuirks(forbidden=forbidden)).endpoint_url)
    with pytest.raises(ClientError) as caught:
        store.put("a", ONE_PART)
    client = store.shared.client
    (left,) = client.list_multipart_uploads(Bucket=store.bucket_name)["Uploads"]
    assert any(left["UploadId"] in note for note in caught.value.__notes__)


def test_an_interrupted_write_ends_the_upload(bench: Bench) -> None:
    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    # a real signal may come while Python swallows what a callback raises
    events = bench.behind.shared.client.meta.events
    events.register("before-send.s3.UploadPart", interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            bench.behind.put("a", TWO_PARTS)
    finally:
        events.unregister("before-send.s3.UploadPart", interrupt)
    assert bench.open_uploads() == []
    assert not bench.direct.contains("a")


def test_nothing_is_sent_after_an_interrupted_upload_was_aborted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes while the caller and its helpers send parts."""
    monkeypatch.setattr(upload, "part_size", lambda size: 64 * 1024)
    before = len(bench.proxy.handled())
    many = [Fault.PASS] * 12 + [Fault.DELAY] * 40
    bench.trouble("UploadPart", *[Fault.PASS] * 11)
    bench.trouble("UploadPart", Fault.PASS, meanwhile=_thread.interrupt_main)
    bench.trouble("UploadPart", *many)
    with pytest.raises(KeyboardInterrupt):
        bench.behind.put("a", OLD)
    sent = [entry.request.operation for entry in bench.proxy.handled()[before:]]
    assert sent[-1] == "AbortMultipartUpload"
    assert bench.open_uploads() == []
    assert len(bench.proxy.handled()) == before + len(sent)


def test_a_write_whose_upload_somebody_aborts_begins_another(canned_bench: Bench) -> None:
    bench = canned_bench
    bench.trouble("UploadPart", Fault.PASS, meanwhile=bench.abort_uploads)
    bench.behind.put("a", TWO_PARTS)
    assert bench.bytes_of("a") == TWO_PARTS


def test_a_write_whose_uploads_are_aborted_again_and_again_fails(canned_bench: Bench) -> None:
    bench = canned_bench
    bench.trouble("UploadPart", *[Fault.PASS] * 100, meanwhile=bench.abort_uploads)
    with pytest.raises(ClientError, match="NoSuchUpload") as caught:
        bench.behind.put("a", ONE_PART)
    assert any("CompleteMultipartUpload" in note for note in caught.value.__notes__)


def test_a_completion_delivered_twice_succeeds(canned_bench: Bench) -> None:
    canned_bench.trouble("CompleteMultipartUpload", Fault.DUPLICATE)
    etag = canned_bench.behind.put("a", ONE_PART)
    assert etag == canned_bench.direct.head("a").etag


def test_an_insertion_whose_completion_is_delivered_twice_succeeds(canned_bench: Bench) -> None:
    d = canned_bench.raw_dict()
    canned_bench.trouble("CompleteMultipartUpload", Fault.DUPLICATE)
    result = d.setdefault_if(
        "a", default_value=ONE_PART, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert result.value_was_mutated
    assert result.resulting_etag == d.etag("a")


def test_a_swap_whose_completion_is_delivered_twice_succeeds(canned_bench: Bench) -> None:
    d = canned_bench.raw_dict()
    d["a"] = b"old"
    canned_bench.trouble("CompleteMultipartUpload", Fault.DUPLICATE)
    result = d.set_item_if(
        "a", value=ONE_PART, condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a")
    )
    assert result.condition_was_satisfied
    assert result.resulting_etag == d.etag("a")


@each_unheard
def test_an_upload_created_unheard_has_no_parts(bench: Bench, fault: Fault) -> None:
    bench.trouble("CreateMultipartUpload", fault)
    bench.behind.put("a", ONE_PART)
    place: dict[str, Any] = {"Bucket": bench.bucket, "Key": bench.prefix + "a"}
    (left,) = bench.open_uploads()
    assert "Parts" not in bench.client.list_parts(**place, UploadId=left)
    assert bench.bytes_of("a") == ONE_PART


def test_an_upload_of_others_is_left_alone(bench: Bench) -> None:
    place: dict[str, Any] = {"Bucket": bench.bucket, "Key": bench.prefix + "a"}

    def begin_another() -> None:
        begun = bench.client.create_multipart_upload(**place)["UploadId"]
        bench.client.upload_part(**place, UploadId=begun, PartNumber=1, Body=b"1")

    bench.trouble("CreateMultipartUpload", Fault.PASS, meanwhile=begin_another)
    bench.behind.put("a", ONE_PART)
    (left,) = bench.open_uploads()
    assert len(bench.client.list_parts(**place, UploadId=left)["Parts"]) == 1


def test_200_megabytes_get_through_a_bad_network(canned_bench: Bench) -> None:
    store = canned_bench.behind_with_all_retries()
    data = os.urandom(200 * 1000 * 1000)
    faults = {
        **dict.fromkeys([*ACTED_UNHEARD, *NEVER_ACTED, Fault.TRUNCATED_BODY], 0.0125),
        Fault.DUPLICATE: 0.0125,
    }
    canned_bench.proxy.fail_randomly(
        faults, seed=7, matches=lambda request: request.operation != "CreateMultipartUpload"
    )
    etag = store.put("a", data, if_none_match="*")
    assert etag == canned_bench.direct.head("a").etag
    assert bytes_of(store, "a") == data
    assert canned_bench.open_uploads() == []
    assert len(canned_bench.faults()) > 1


# ---------------------------------------------------------------------- the parameter


@pytest.mark.parametrize("size", [0, -1])
def test_a_limit_below_one_byte_is_refused(server: MotoServer, size: int) -> None:
    with pytest.raises(ValueError):
        connect(server.endpoint_url, large_object_size=size)


@pytest.mark.parametrize("size", [None, "16", 1.5, True])
def test_a_limit_that_is_no_int_is_refused(server: MotoServer, size: Any) -> None:
    with pytest.raises(TypeError):
        connect(server.endpoint_url, large_object_size=size)


def test_sub_dictionaries_take_the_limit_over(server: MotoServer) -> None:
    d = connect(server.endpoint_url, large_object_size=LARGE)
    server.reset_log()
    d.get_subdict("place").raw["a"] = ONE_PART
    assert server.counts()["UploadPart"] == 1


def test_an_equal_handle_has_the_same_limit(server: MotoServer) -> None:
    d = connect(server.endpoint_url, large_object_size=LARGE)
    assert type(d)(**d.get_params()).get_params()["large_object_size"] == LARGE
