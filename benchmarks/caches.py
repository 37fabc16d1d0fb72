"""S3 dictionaries with local copies, against what a hit, a look and a miss take at least."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any, Final

from benchmarks.files import values
from benchmarks.harness import Bench, Result, Suite, timed
from benchmarks.s3 import ROUND_TRIP
from benchmarks.s3_peers import BUCKET
from benchmarks.s3_places import connection, dictionary, plain_client
from persidict.file_dir_dict import FileDirDict
from persidict.s3_dict_file_dir_cached import S3Dict
from tests.s3_servers.canned import start_canned
from tests.s3_servers.latency_proxy import start_latency_proxy


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    with (
        start_canned() as server,
        start_latency_proxy(server.endpoint_url, round_trip=ROUND_TRIP) as proxy,
        tempfile.TemporaryDirectory() as place,
    ):
        for number, (size, value) in enumerate(values().items()):
            yield from reads(
                bench, proxy.endpoint_url, os.path.join(place, str(number)), value, size
            )


def reads(bench: Bench, endpoint_url: str, place: str, value: Any, size: str) -> Iterator[Result]:
    """Read one item that is there, that has to be asked about, and that is not there."""
    far = f"{ROUND_TRIP * 1000:.0f} ms away"
    files: FileDirDict[Any] = FileDirDict(base_dir=os.path.join(place, "files"), digest_len=0)
    files["a"] = value
    basic = dictionary(endpoint_url)
    basic["a"] = value
    trusting = _cached(endpoint_url, os.path.join(place, "trusting"), append_only=True)
    asking = _cached(endpoint_url, os.path.join(place, "asking"))
    for cold in (trusting, asking):
        cold.get("a")
    client = plain_client(endpoint_url)
    data = client.get_object(Bucket=BUCKET, Key="a.pkl")["Body"].read()
    unsynced = os.path.join(place, "unsynced")

    def write_unsynced() -> None:
        with open(f"{unsynced}.new", "wb") as file:
            file.write(data)
        os.replace(f"{unsynced}.new", unsynced)

    yield bench.compare(
        f"hit, append-only, {size}",
        timed("d['a']", d=trusting),
        timed("d['a']", d=files),
        against="FileDirDict(digest_len=0) read",
        at_most=1.3,
    )
    yield bench.compare(
        f"revalidated hit, {size}, {far}",
        timed("d['a']", d=asking),
        timed("head(Bucket=b, Key='a.pkl'); d['a']", head=client.head_object, b=BUCKET, d=files),
        against="boto3 head_object + FileDirDict read",
        at_most=1.15,
    )
    yield bench.compare(
        f"miss, {size}, {far}",
        timed("forget(); d['a']", forget=asking.clear_cache, d=asking),
        timed("d['a']; write()", d=basic, write=write_unsynced),
        against="BasicS3Dict read + unsynced file write",
        at_most=1.1,
    )


def _cached(endpoint_url: str, base_dir: str, **params: Any) -> S3Dict[Any]:
    return S3Dict(bucket_name=BUCKET, base_dir=base_dir, **connection(endpoint_url), **params)


SUITE: Final = Suite(
    "Caches",
    "The server is a small one made for benchmarks, in a process of its own on this machine; a"
    " proxy adds the round trip time.",
    run,
)
