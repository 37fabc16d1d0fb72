"""Many items on S3 while one request in ten fails: nothing is lost, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from persidict import FileDirDict, LocalDict, TransferResult, sync_items
from persidict.basic_s3_dict import BasicS3Dict
from tests.s3_dicts import connect
from tests.s3_servers.canned import CannedServer, start_canned
from tests.s3_servers.child_process import Server
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import ServerQuirks

__all__ = ["moto_aws_server"]

# forking beside threads is what some of these tests are about
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

Dict = BasicS3Dict[Any]
ResultType = TypeVar("ResultType")

TEN_PERCENT = dict.fromkeys(
    [
        Fault.DROP_REPLY,
        Fault.DUPLICATE,
        Fault.ERROR_500,
        Fault.ERROR_500_AFTER,
        Fault.RESET_AFTER,
        Fault.RESET_BEFORE,
        Fault.SLOW_DOWN,
        Fault.TRUNCATED_BODY,
    ],
    0.1 / 8,
)
VALUES = {(f"d{number % 7}", str(number)): [number, "x" * 200] for number in range(2000)}
MIB = 1024 * 1024


class Bench:
    """Two handles on one bucket, of which one is behind a proxy that one can make fail."""

    def __init__(self, server: Server, proxy: FaultProxy, **params: Any) -> None:
        place = {"bucket_name": new_bucket_name(), "root_prefix": "some", **params}
        self.proxy = proxy
        self.direct = connect(server.endpoint_url, **place)
        self.d = connect(proxy.endpoint_url, **place)
        assert self.d.capabilities.put_if_none_match
        self.neighbour = connect(server.endpoint_url, bucket_name=place["bucket_name"])
        self.neighbour["someone"] = "else's"

    def begin_to_fail(self, seed: int = 1) -> None:
        self.proxy.fail_randomly(TEN_PERCENT, seed=seed)

    def open_uploads(self) -> list[Any]:
        client = self.direct.s3_client
        listed: Any = client.list_multipart_uploads(Bucket=self.direct.bucket_name)
        return listed.get("Uploads", [])

    def faults(self) -> int:
        injected = self.proxy.injected()
        return sum(injected.values()) - injected[Fault.PASS]


@pytest.fixture(scope="module")
def server() -> Iterator[CannedServer]:
    with start_canned() as server:
        yield server


@pytest.fixture
def bench(server: CannedServer) -> Iterator[Bench]:
    with FaultProxy(server.endpoint_url, delay=0.01) as proxy:
        yield Bench(server, proxy)


def until_done(operation: Callable[[], ResultType]) -> ResultType:
    """Repeat what fails because some request failed again and again."""
    for _ in range(10):
        try:
            return operation()
        except (ClientError, BotoCoreError, ExceptionGroup):
            continue
    raise AssertionError("it never ends")


def content(d: Any) -> dict[tuple[str, ...], Any]:
    return {key.strings: value for key, value in d.items()}


def test_an_update_of_2000_items_stores_them_all(bench: Bench) -> None:
    bench.begin_to_fail()
    until_done(lambda: bench.d.update(VALUES))
    assert content(bench.direct) == VALUES
    assert bench.faults() > 100


def test_an_append_only_update_of_2000_items_takes_no_insertion_for_refused(
    server: CannedServer, bench: Bench
) -> None:
    place = {"bucket_name": bench.d.bucket_name, "root_prefix": "appended", "append_only": True}
    d = connect(bench.proxy.endpoint_url, **place)
    bench.begin_to_fail()
    unknown: tuple[Exception, ...] = ()
    try:
        d.update(VALUES)
    except ExceptionGroup as group:
        unknown = group.exceptions
    assert all("outcome unknown" in "".join(error.__notes__) for error in unknown)
    stored = content(connect(server.endpoint_url, **place))
    assert stored.items() <= VALUES.items()
    assert len(VALUES) - len(stored) <= len(unknown) < len(VALUES) / 10


def test_all_of_2000_items_are_read(bench: Bench) -> None:
    bench.direct.update(VALUES)
    bench.begin_to_fail()
    assert until_done(lambda: content(bench.d)) == VALUES
    assert bench.faults() > 100


def test_2000_items_are_cleared_and_nothing_else(bench: Bench) -> None:
    bench.direct.update(VALUES)
    bench.proxy.script(Fault.ERROR_500, Fault.DROP_REPLY, operation="DeleteObjects")
    bench.begin_to_fail()
    until_done(bench.d.clear)
    assert content(bench.direct) == {}
    assert bench.neighbour["someone"] == "else's"


def test_an_update_that_cannot_store_some_items_names_them_and_stores_the_others(
    bench: Bench,
) -> None:
    lost = {("d0", "7"), ("d0", "14"), ("d1", "8")}
    names = {"some/" + "/".join(key) + ".pkl" for key in lost}
    bench.proxy.fail_randomly({Fault.ERROR_500: 1.0}, seed=1, matches=lambda r: r.key in names)
    with pytest.raises(ExceptionGroup) as caught:
        bench.d.update(VALUES)
    assert all(f"{key[1]!r}" in str(caught.value) for key in lost)
    assert len(caught.value.exceptions) == 3
    assert content(bench.direct) == {k: v for k, v in VALUES.items() if k not in lost}


# ---------------------------------------------------------------------- syncs that are killed


FORK: Any = multiprocessing.get_context("fork")


@pytest.fixture
def moto_bench(moto_aws_server: MotoServer) -> Iterator[Bench]:
    """A bench on a server that can list the parts of an upload."""
    with FaultProxy(moto_aws_server.endpoint_url, delay=0.01) as proxy:
        yield Bench(moto_aws_server, proxy, large_object_size=MIB)


@pytest.fixture
def source(tmp_path: Path) -> FileDirDict[Any]:
    """Small items, and one that goes to S3 in six parts."""
    source: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False)
    source.update({str(number): bytes([number]) * (1 + 97 * number) for number in range(100)})
    source["large"] = random.Random(1).randbytes(41 * MIB)
    return source


def sync_in_child_until(bench: Bench, source: Any, *, part: int) -> None:
    """Sync, and kill who does it when the server has got so many parts of the large item."""
    child = FORK.Process(target=sync_items, args=(source, bench.d), daemon=True)
    bench.proxy.script(*[Fault.PASS] * (part - 1), operation="UploadPart")
    bench.proxy.script(Fault.PASS, operation="UploadPart", meanwhile=lambda: child.kill())
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("part", [1, 4])
def test_a_sync_killed_in_mid_upload_and_restarted_leaves_no_upload_open(
    moto_bench: Bench, source: FileDirDict[Any], part: int
) -> None:
    bench = moto_bench
    bench.proxy.fail_randomly(
        TEN_PERCENT, seed=part, matches=lambda r: r.operation != "CreateMultipartUpload"
    )
    sync_in_child_until(bench, source, part=part)
    assert len(bench.open_uploads()) == 1
    until_done(lambda: no_failures(sync_items(source, bench.d)))
    bench.proxy.calm()
    assert content(bench.direct) == content(source)
    assert bench.open_uploads() == []


def no_failures(result: TransferResult) -> None:
    if result.failed:
        raise ExceptionGroup("some failed", list(result.failed.values()))


def test_a_sync_leaves_uploads_alone_that_go_on_meanwhile(
    moto_bench: Bench, source: FileDirDict[Any]
) -> None:
    bench = moto_bench
    client = bench.direct.s3_client
    place: dict[str, Any] = {"Bucket": bench.d.bucket_name, "Key": "some/large.pkl"}
    place["UploadId"] = client.create_multipart_upload(**place)["UploadId"]
    bench.proxy.script(
        Fault.PASS,
        operation="UploadPart",
        meanwhile=lambda: client.upload_part(**place, PartNumber=1, Body=b"1"),
    )
    sync_items(source, bench.d)
    (left,) = bench.open_uploads()
    assert left["UploadId"] == place["UploadId"]


def test_a_sync_leaves_uploads_alone_of_items_that_it_does_not_write(
    moto_bench: Bench, source: FileDirDict[Any]
) -> None:
    bench = moto_bench
    client = bench.direct.s3_client
    sync_items(source, bench.d)
    for name in ("large.pkl", "largest.pkl"):
        client.create_multipart_upload(Bucket=bench.d.bucket_name, Key=f"some/{name}")
    sync_items(source, bench.d)
    assert len(bench.open_uploads()) == 2


def test_a_sync_without_leave_to_list_uploads_copies_all_the_same(
    moto_aws_server: MotoServer, source: FileDirDict[Any]
) -> None:
    quirks = ServerQuirks(forbidden=frozenset({"ListMultipartUploads"}))
    target = connect(moto_aws_server.with_quirks(quirks).endpoint_url)
    no_failures(sync_items(source, target))
    assert content(target) == content(source)


def test_a_sync_of_small_items_looks_for_no_uploads(bench: Bench) -> None:
    source: LocalDict[Any] = LocalDict()
    source["small"] = 1
    sync_items(source, bench.d)
    asked = {handled.request.operation for handled in bench.proxy.handled()}
    assert "ListMultipartUploads" not in asked
