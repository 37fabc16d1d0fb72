"""The proxy that adds a round trip time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import BotoCoreError, ReadTimeoutError

from tests.s3_servers.clients import new_bucket, s3_client
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.latency_proxy import DelayLine, start_latency_proxy
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS

__all__ = ["moto_aws_server"]


class VirtualClock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self._calls: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> None:
        heapq.heappush(self._calls, (when, next(self._order), callback))

    def turn_to(self, moment: float) -> None:
        while self._calls and self._calls[0][0] <= moment:
            when, _, callback = heapq.heappop(self._calls)
            self.now = max(self.now, when)
            callback()
        self.now = moment


class Arrivals:
    """What comes out of a line, and when."""

    def __init__(self, clock: VirtualClock, line: DelayLine) -> None:
        self.seen: list[tuple[float, bytes]] = []
        line.connect(lambda data: self.seen.append((clock.now, data)))


def test_bytes_arrive_after_the_delay_of_the_line() -> None:
    clock = VirtualClock()
    line = DelayLine(clock, 10)
    arrivals = Arrivals(clock, line)
    line.put(b"a")
    clock.turn_to(104)
    line.put(b"b")
    clock.turn_to(200)
    assert arrivals.seen == [(110, b"a"), (114, b"b")]


def test_bytes_that_follow_each_other_are_under_way_together() -> None:
    clock = VirtualClock()
    line = DelayLine(clock, 10)
    arrivals = Arrivals(clock, line)
    line.put(b"a")
    line.put(b"b")
    clock.turn_to(200)
    assert arrivals.seen == [(110, b"a"), (110, b"b")]


def test_bytes_on_a_new_connection_set_out_when_it_is_open() -> None:
    clock = VirtualClock()
    line = DelayLine(clock, 10, blocked_for=20)
    arrivals = Arrivals(clock, line)
    line.put(b"a")
    clock.turn_to(125)
    line.put(b"b")
    clock.turn_to(200)
    assert arrivals.seen == [(130, b"a"), (135, b"b")]


def test_bytes_wait_for_someone_to_take_them() -> None:
    clock = VirtualClock()
    line = DelayLine(clock, 10)
    line.put(b"a")
    clock.turn_to(150)
    arrivals = Arrivals(clock, line)
    clock.turn_to(200)
    assert arrivals.seen == [(150, b"a")]


def test_requests_pass_unchanged(moto_aws_server: MotoServer) -> None:
    body = bytes(range(256)) * 20_000
    with start_latency_proxy(moto_aws_server.endpoint_url, round_trip=0.01) as proxy:
        client = s3_client(proxy.endpoint_url)
        bucket = new_bucket(client)
        client.put_object(Bucket=bucket, Key="key", Body=body)
        assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == body


def test_many_connections_share_the_proxy(moto_aws_server: MotoServer) -> None:
    with start_latency_proxy(moto_aws_server.endpoint_url, round_trip=0.01) as proxy:
        client = s3_client(proxy.endpoint_url)
        bucket = new_bucket(client)

        def echo(number: int) -> bool:
            body = b"%d" % number * 1000
            client.put_object(Bucket=bucket, Key=f"{number}", Body=body)
            return client.get_object(Bucket=bucket, Key=f"{number}")["Body"].read() == body

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(echo, range(100)))


def test_a_distant_server_has_not_seen_what_was_just_sent(moto_aws_server: MotoServer) -> None:
    server = moto_aws_server.with_quirks(AWS)
    with start_latency_proxy(server.endpoint_url, round_trip=3600) as proxy:
        with pytest.raises(ReadTimeoutError):
            s3_client(proxy.endpoint_url, read_timeout=0.2).list_buckets()
        assert server.requests() == []


def test_a_server_that_is_down_is_down_behind_the_proxy(moto_aws_server: MotoServer) -> None:
    url = moto_aws_server.endpoint_url.rpartition(":")[0] + ":1"
    with start_latency_proxy(url, round_trip=0.001) as proxy, pytest.raises(BotoCoreError):
        s3_client(proxy.endpoint_url).list_buckets()
