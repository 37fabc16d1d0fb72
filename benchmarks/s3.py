"""Dictionaries on S3, against boto3 itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from benchmarks.files import small_value
from benchmarks.harness import Bench, Measure, Result, Row, Suite, timed
from benchmarks.s3_peers import BUCKET
from benchmarks.s3_places import dictionary, plain_client
from tests.s3_servers.canned import Synthetic, start_canned
from tests.s3_servers.latency_proxy import start_latency_proxy

ROUND_TRIP: Final = 0.02


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    keys = bench.size(1000, 10)
    with start_canned(Synthetic(keys, b"", bucket="many")) as server:
        with start_latency_proxy(server.endpoint_url, round_trip=ROUND_TRIP) as proxy:
            yield from single_operations(bench, proxy.endpoint_url)
        yield from processor_time(bench, server.endpoint_url)
        yield listing(bench, server.endpoint_url, keys)


def single_operations(bench: Bench, endpoint_url: str) -> Iterator[Row]:
    """Read and write one small item from far away."""
    d, client = dictionary(endpoint_url), plain_client(endpoint_url)
    value = small_value()
    d["a"] = value
    data = d.s3_client.get_object(Bucket=BUCKET, Key="a.pkl")["Body"].read()
    far = f"{ROUND_TRIP * 1000:.0f} ms away"
    getting = _getting(client.get_object)
    yield bench.compare(
        f"get, 200 B, {far}",
        timed("d['a']", d=d),
        getting,
        against="boto3 get_object",
        at_most=1.15,
    )
    yield bench.compare(
        f"put, 200 B, {far}",
        timed("d['a'] = v", d=d, v=value),
        getting,
        against="boto3 get_object",
        at_most=1.15,
    )
    yield bench.compare(
        f"put, 200 B, {far}",
        timed("d['a'] = v", d=d, v=value),
        timed("put(Bucket=b, Key='b.pkl', Body=data)", put=client.put_object, b=BUCKET, data=data),
        against="boto3 put_object",
    )


def processor_time(bench: Bench, endpoint_url: str) -> Iterator[Row]:
    """Do the same with a server next door, and count the CPU time of this process alone.

    boto3 sends the very requests that the dictionary sends, with the dictionary's client.
    """
    d = dictionary(endpoint_url)
    value = small_value()
    d["a"] = value
    stored = d.s3_client.get_object(Bucket=BUCKET, Key="a.pkl")
    request = {
        "Bucket": BUCKET,
        "Key": "b.pkl",
        "Body": stored["Body"].read(),
        "ContentType": stored["ContentType"],
        "Metadata": stored["Metadata"],
    }
    clock = time.process_time
    yield bench.compare(
        "get, 200 B, CPU",
        timed("d['a']", clock, d=d),
        _getting(d.s3_client.get_object, clock),
        against="boto3 get_object, same client",
        at_most=1.15,
    )
    yield bench.compare(
        "put, 200 B, CPU",
        timed("d['a'] = v", clock, d=d, v=value),
        timed("put(**request)", clock, put=d.s3_client.put_object, request=request),
        against="boto3 put_object, same client",
        at_most=1.15,
    )


def listing(bench: Bench, endpoint_url: str, keys: int) -> Row:
    """List keys, as many as come in one reply, and count CPU time."""
    d = dictionary(endpoint_url, bucket="many")
    client = plain_client(endpoint_url)
    return bench.compare(
        f"list(d), {keys} keys, CPU",
        timed("list(d)", time.process_time, d=d),
        timed("page(Bucket='many')", time.process_time, page=client.list_objects_v2),
        against="boto3 list_objects_v2",
        at_most=0.5,
    )


def _getting(get: Any, clock: Callable[[], float] = time.perf_counter) -> Measure:
    return timed("get(Bucket=b, Key='a.pkl')['Body'].read()", clock, get=get, b=BUCKET)


SUITE: Final = Suite(
    "S3",
    "The server is a small one made for benchmarks, in a process of its own on this machine; a"
    " proxy adds the round trip time where one is named. CPU is that of the client's process.",
    run,
)
