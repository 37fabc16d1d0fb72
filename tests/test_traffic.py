"""What passes between a dictionary and S3 is counted: requests, retries, bytes, hits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from persidict import FileDirDict, MeasuredDict, traffic
from persidict.traffic import Traffic, TrafficCounter
from tests.s3_caches import connect_cached, credentials
from tests.s3_dicts import connect
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer

__all__ = ["credentials", "moto_aws_server"]


@pytest.fixture
def proxy(moto_aws_server: MotoServer) -> Iterator[FaultProxy]:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def d(proxy: FaultProxy) -> MeasuredDict[bytes]:
    basic = connect(proxy.endpoint_url, serialization_format="bin", base_class_for_values=bytes)
    basic["a"] = b"to know the bucket"
    return MeasuredDict(wrapped_dict=basic)


def test_nothing_has_passed_since_a_handle_was_made(d: MeasuredDict[bytes]) -> None:
    assert d.traffic == Traffic()


def test_requests_and_bytes_of_values_are_counted(d: MeasuredDict[bytes]) -> None:
    d["b"] = bytes(1000)
    assert d["b"] == bytes(1000)
    assert "c" not in d
    assert d.traffic == Traffic(requests=3, bytes_sent=1000, bytes_received=1000)


def test_those_of_many_items_are_counted(d: MeasuredDict[bytes]) -> None:
    d.update({f"k{number}": bytes(number) for number in range(50)})
    assert len(d.get_many([f"k{number}" for number in range(50)])) == 50
    total = sum(range(50))
    assert d.traffic == Traffic(requests=100, bytes_sent=total, bytes_received=total)


def test_what_is_sent_again_is_counted_as_a_retry(
    d: MeasuredDict[bytes], proxy: FaultProxy
) -> None:
    d["b"] = b""
    proxy.script(Fault.ERROR_500, operation="PutObject", key="b.bin")
    d["b"] = bytes(10)
    assert d.traffic == Traffic(requests=4, retries=1, bytes_sent=20)  # and a look between them


def test_one_of_many_that_is_sent_again_is_counted_as_a_retry(
    d: MeasuredDict[bytes], proxy: FaultProxy
) -> None:
    proxy.script(Fault.SLOW_DOWN, operation="PutObject", key="k3.bin")
    d.update({f"k{number}": bytes(10) for number in range(6)})
    assert d.traffic == Traffic(requests=7, retries=1, bytes_sent=70)


def test_the_requests_that_the_proxy_saw_are_those_that_were_counted(
    d: MeasuredDict[bytes], proxy: FaultProxy
) -> None:
    before = len(proxy.handled())
    d.update({f"k{number}": bytes(10) for number in range(30)})
    d.transform_item("k1", transformer=lambda value: bytes(20))
    d.setdefault("new", b"1")
    d.pop("k2")
    assert len(list(d)) == 31
    d.clear()
    assert d.traffic.requests == len(proxy.handled()) - before


def test_a_sub_dictionary_counts_together_with_its_parent(d: MeasuredDict[bytes]) -> None:
    d.get_subdict("sub")["b"] = bytes(10)
    assert d.traffic == Traffic(requests=1, bytes_sent=10)


def test_hits_and_misses_of_a_cache_are_counted(
    proxy: FaultProxy, credentials: None, tmp_path: Path
) -> None:
    cached = connect_cached(proxy.endpoint_url, base_dir=tmp_path)
    cached["a"] = 1
    cached.clear_cache()
    d = MeasuredDict[int](wrapped_dict=cached)
    assert [d["a"], d["a"]] == [1, 1]
    assert d.traffic[4:] == (0, 1, 1)
    assert d.traffic.requests == 2


def test_a_dictionary_on_files_has_no_traffic(tmp_path: Path) -> None:
    d = MeasuredDict[int](wrapped_dict=FileDirDict(base_dir=tmp_path))
    d["a"] = 1
    assert d.traffic == Traffic()


def test_threads_lose_no_request() -> None:
    counter = TrafficCounter()
    start = Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(2500):
            counter.count(sent=3)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.traffic() == Traffic(requests=20_000, bytes_sent=60_000)


def test_counting_in_the_middle_of_the_adding_neither_hangs_nor_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traffic, "_PATIENCE_SECONDS", 0.01)
    counter = TrafficCounter()
    counter.count()
    with counter._adding:  # as in a signal handler that interrupts it
        counter.count()
        assert counter.traffic() == Traffic()
    assert counter.traffic() == Traffic(requests=2)
