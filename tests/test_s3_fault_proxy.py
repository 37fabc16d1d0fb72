"""The fault-injecting proxy: every fault does what it says, and everything else passes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from tests.s3_servers.clients import SlowPut, new_bucket, s3_client
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.http_messages import read_head, read_message
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS

__all__ = ["moto_aws_server"]

HARMFUL = [fault for fault in Fault if fault not in (Fault.PASS, Fault.STALL)]
BODY = bytes(range(256)) * 40


class Bench:
    """A server, a proxy in front of it, and clients on both sides of the proxy."""

    def __init__(self, server: MotoServer, proxy: FaultProxy) -> None:
        self.server = server
        self.proxy = proxy
        self.direct = s3_client(server.endpoint_url)
        self.client = s3_client(proxy.endpoint_url)
        self.bucket = new_bucket(self.direct)
        server.reset_log()

    def put(self, key: str = "key", body: bytes = BODY, **arguments: Any) -> int:
        reply = self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **arguments)
        return reply["ResponseMetadata"]["HTTPStatusCode"]

    def put_directly(self, key: str = "key", body: bytes = BODY) -> None:
        self.direct.put_object(Bucket=self.bucket, Key=key, Body=body)
        self.server.reset_log()

    def get(self, key: str = "key") -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def stored(self) -> list[str]:
        listing = self.direct.list_objects_v2(Bucket=self.bucket)
        return [item["Key"] for item in listing.get("Contents", [])]


@pytest.fixture
def bench(moto_aws_server: MotoServer) -> Iterator[Bench]:
    server = moto_aws_server.with_quirks(AWS)
    with FaultProxy(server.endpoint_url) as proxy:
        yield Bench(server, proxy)


def status_of(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def test_bytes_pass_unchanged(bench: Bench) -> None:
    body = BODY * 500
    bench.put(body=body)
    assert bench.get() == body


def test_replies_without_a_body_pass(bench: Bench) -> None:
    bench.put()
    where: Any = {"Bucket": bench.bucket, "Key": "key"}
    head = bench.client.head_object(**where)
    with pytest.raises(ClientError) as not_modified:
        bench.client.get_object(**where, IfNoneMatch=head["ETag"])
    deleted = bench.client.delete_object(**where)["ResponseMetadata"]["HTTPStatusCode"]
    assert (head["ContentLength"], status_of(not_modified.value), deleted) == (len(BODY), 304, 204)


def test_a_client_keeps_its_connection_through_the_proxy(bench: Bench) -> None:
    for number in range(5):
        bench.put(f"{number}")
        bench.get(f"{number}")
    assert len({request.connection for request in bench.server.requests()}) == 1


def test_a_doomed_upload_is_still_refused_before_its_body(bench: Bench) -> None:
    bench.put_directly()
    arguments = bench.proxy.endpoint_url, bench.bucket, "key"
    with SlowPut(*arguments, **{"If-None-Match": "*"}) as slow:
        assert slow.status() == 412


def test_the_body_is_asked_for_through_the_proxy(bench: Bench) -> None:
    with SlowPut(bench.proxy.endpoint_url, bench.bucket, "key") as slow:
        interim = slow.status()
        slow.send_body()
        assert (interim, slow.status()) == (100, 200)


def test_chunks_are_read_up_to_the_end_of_their_message() -> None:
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"HTTP/1.1"
    reader = io.BytesIO(wire)
    head = read_head(reader)
    assert head is not None
    assert (read_message(reader, head).body, reader.read()) == (chunks, b"HTTP/1.1")


@pytest.mark.parametrize("fault", [Fault.DROP_REPLY, Fault.RESET_AFTER])
def test_the_server_acted_when_the_connection_breaks_instead_of_a_reply(
    bench: Bench, fault: Fault
) -> None:
    bench.proxy.script(fault)
    with pytest.raises(ConnectionClosedError):
        bench.put()
    assert bench.stored() == ["key"]


def test_a_connection_that_is_reset_before_the_server_acts_leaves_no_trace(bench: Bench) -> None:
    bench.proxy.script(Fault.RESET_BEFORE)
    with pytest.raises(ConnectionClosedError):
        bench.put()
    assert bench.server.requests() == []


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(Fault.ERROR_500, 500, "InternalError"), (Fault.SLOW_DOWN, 503, "SlowDown")],
)
def test_an_error_of_the_proxy_is_told_without_asking_the_server(
    bench: Bench, fault: Fault, status: int, code: str
) -> None:
    bench.proxy.script(fault)
    with pytest.raises(ClientError) as raised:
        bench.put()
    told = status_of(raised.value), raised.value.response["Error"]["Code"]
    assert (told, bench.server.requests()) == ((status, code), [])


@pytest.mark.parametrize("method", ["get_object", "head_object", "list_objects_v2"])
def test_an_error_of_the_proxy_keeps_the_connection_usable(bench: Bench, method: str) -> None:
    bench.put_directly()
    arguments = {"Bucket": bench.bucket} | ({} if "list" in method else {"Key": "key"})
    bench.proxy.script(Fault.SLOW_DOWN)
    with pytest.raises(ClientError) as raised:
        getattr(bench.client, method)(**arguments)
    getattr(bench.client, method)(**arguments)
    assert status_of(raised.value) == 503


def test_the_server_acted_when_its_reply_is_replaced_by_an_error(bench: Bench) -> None:
    bench.proxy.script(Fault.ERROR_500_AFTER)
    with pytest.raises(ClientError) as raised:
        bench.put()
    assert (status_of(raised.value), bench.stored()) == (500, ["key"])


def test_a_truncated_body_ends_before_the_length_that_was_announced(bench: Bench) -> None:
    bench.put_directly()
    bench.proxy.script(Fault.TRUNCATED_BODY)
    reply = bench.client.get_object(Bucket=bench.bucket, Key="key")
    with pytest.raises(ResponseStreamingError):
        reply["Body"].read()
    assert reply["ContentLength"] == len(BODY)


def test_a_slow_body_arrives_whole(bench: Bench) -> None:
    bench.put_directly()
    bench.proxy.script(Fault.SLOW_BODY)
    assert bench.get() == BODY


def test_a_slow_body_is_too_slow_for_a_client_in_a_hurry(moto_aws_server: MotoServer) -> None:
    with FaultProxy(moto_aws_server.endpoint_url, delay=60) as proxy:
        bench = Bench(moto_aws_server.with_quirks(AWS), proxy)
        bench.put_directly()
        proxy.script(Fault.SLOW_BODY)
        hurried = s3_client(proxy.endpoint_url, read_timeout=0.2)
        reply = hurried.get_object(Bucket=bench.bucket, Key="key")
        with pytest.raises(ReadTimeoutError):
            reply["Body"].read()


@pytest.mark.parametrize("fault", [Fault.SLOW_BODY, Fault.TRUNCATED_BODY])
def test_a_reply_without_a_body_passes_where_its_body_would_be_harmed(
    bench: Bench, fault: Fault
) -> None:
    bench.proxy.script(fault)
    assert (bench.put(), bench.proxy.injected()) == (200, {Fault.PASS: 1})


def test_a_request_that_is_delivered_twice_is_answered_as_the_second_one(bench: Bench) -> None:
    bench.proxy.script(Fault.DUPLICATE)
    with pytest.raises(ClientError) as raised:
        bench.put(IfNoneMatch="*")
    seen = [request.status for request in bench.server.requests()]
    assert (status_of(raised.value), seen) == (412, [200, 412])


def test_a_request_that_is_delivered_twice_can_be_answered_as_the_first_one(bench: Bench) -> None:
    bench.proxy.script(Fault.DUPLICATE_FIRST)
    answer = bench.put(IfNoneMatch="*")
    seen = [request.status for request in bench.server.requests()]
    assert (answer, seen) == (200, [200, 412])


def test_a_stalled_request_is_never_answered_and_never_seen(bench: Bench) -> None:
    bench.proxy.script(Fault.STALL)
    hurried = s3_client(bench.proxy.endpoint_url, read_timeout=0.2)
    with pytest.raises(ReadTimeoutError):
        hurried.head_bucket(Bucket=bench.bucket)
    assert bench.server.requests() == []


def test_a_delayed_request_is_answered(bench: Bench) -> None:
    bench.proxy.script(Fault.DELAY)
    assert bench.put() == 200


def test_a_delayed_request_is_too_late_for_a_client_in_a_hurry(bench: Bench) -> None:
    bench.proxy.script(Fault.DELAY)
    hurried = s3_client(bench.proxy.endpoint_url, read_timeout=0.05)
    with pytest.raises(ReadTimeoutError):
        hurried.head_bucket(Bucket=bench.bucket)


def test_botocore_sends_a_put_again_whose_reply_was_lost(bench: Bench) -> None:
    bench.proxy.script(Fault.DROP_REPLY)
    retrying = s3_client(bench.proxy.endpoint_url, attempts=3)
    with pytest.raises(ClientError) as raised:
        retrying.put_object(Bucket=bench.bucket, Key="key", Body=b"", IfNoneMatch="*")
    seen = [request.status for request in bench.server.requests()]
    assert (status_of(raised.value), seen) == (412, [200, 412])


def test_a_script_is_followed_in_order_and_then_everything_passes(bench: Bench) -> None:
    bench.proxy.script(Fault.SLOW_DOWN, Fault.PASS, Fault.ERROR_500)
    answers = []
    for number in range(4):
        try:
            answers.append(bench.put(f"{number}"))
        except ClientError as error:
            answers.append(status_of(error))
    assert answers == [503, 200, 500, 200]


@pytest.mark.parametrize(
    "selection",
    [
        {"operation": "PutObject"},
        {"key": "second"},
        {"matches": lambda request: request.operation == "PutObject"},
    ],
)
def test_a_script_waits_for_the_requests_that_it_is_meant_for(
    bench: Bench, selection: dict[str, Any]
) -> None:
    bench.put_directly("first")
    bench.proxy.script(Fault.SLOW_DOWN, **selection)
    bench.get("first")
    with pytest.raises(ClientError):
        bench.put("second")
    assert [entry.fault for entry in bench.proxy.handled()] == [Fault.PASS, Fault.SLOW_DOWN]


def test_something_can_happen_between_the_servers_act_and_its_reply(bench: Bench) -> None:
    found = []
    bench.proxy.script(Fault.PASS, meanwhile=lambda: found.extend(bench.stored()))
    bench.put()
    assert found == ["key"]


def outcomes(bench: Bench, seed: int) -> list[Fault]:
    """What forty requests meet when every fault has the same chance."""
    bench.proxy.fail_randomly(dict.fromkeys(HARMFUL, 0.08), seed=seed)
    before = len(bench.proxy.handled())
    for _ in range(40):
        try:
            bench.get()
        except (ClientError, BotoCoreError):
            continue
    bench.proxy.calm()
    return [entry.fault for entry in bench.proxy.handled()[before:]]


def test_the_same_seed_injects_the_same_faults(bench: Bench) -> None:
    bench.proxy.delay = 0.001
    bench.put()
    assert outcomes(bench, seed=7) == outcomes(bench, seed=7)


def test_chance_injects_every_fault_that_has_a_chance(bench: Bench) -> None:
    bench.proxy.delay = 0.001
    bench.put()
    faults = [outcomes(bench, seed=seed) for seed in range(3)]
    assert {fault for sequence in faults for fault in sequence} == set(Fault) - {Fault.STALL}


def test_many_clients_survive_random_faults_by_trying_again(bench: Bench) -> None:
    bench.proxy.delay = 0.001
    bench.proxy.fail_randomly(dict.fromkeys(HARMFUL, 0.03), seed=1)

    def write_and_read(number: int) -> bool:
        def insist(operation: Any) -> Any:
            while True:
                try:
                    return operation()
                except (ClientError, BotoCoreError):
                    continue

        key, body = f"{number}", b"%d" % number * 100
        insist(lambda: bench.put(key, body))
        return bool(insist(lambda: bench.get(key)) == body)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(write_and_read, range(100)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.DROP_REPLY])
def test_a_forked_child_does_not_hold_connections_that_the_proxy_closes(
    bench: Bench, fault: Fault
) -> None:
    bench.put()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    bench.proxy.script(fault)
    try:
        with pytest.raises(ConnectionClosedError):
            bench.put()
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def test_a_stopped_proxy_closes_the_connections_of_its_clients(bench: Bench) -> None:
    bench.put()
    bench.proxy.stop()
    with pytest.raises(BotoCoreError):
        bench.put()
