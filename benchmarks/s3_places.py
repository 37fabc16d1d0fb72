"""The servers that S3 benchmarks run on, and clients for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from benchmarks import published
from benchmarks.harness import Bench, Remark
from benchmarks.s3_peers import ANY_CREDENTIAL, BUCKET, CONCURRENCY, REGION
from benchmarks.worker import Worker
from persidict.basic_s3_dict import BasicS3Dict
from tests.s3_servers.canned import Synthetic, start_canned
from tests.s3_servers.latency_proxy import start_latency_proxy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROUND_TRIPS: Final = (0.0, 0.02, 0.08)
_PIPELINED: Final = 100


class Place(NamedTuple):
    """A server, near by and from afar.

    Attributes:
        direct_url: The server itself.
        endpoint_url: A proxy in front of it; next door there is none.
        round_trip: Seconds that the proxy adds.
    """

    direct_url: str
    endpoint_url: str
    round_trip: float

    @property
    def far(self) -> str:
        """How far away it is, in words."""
        return f"{self.round_trip * 1000:.0f} ms away"


def round_trips(bench: Bench) -> tuple[float, ...]:
    """Return how far away servers are in this run."""
    return (0.0,) if bench.quick else ROUND_TRIPS


@contextmanager
def place(
    round_trip: float, *synthetic: Synthetic, certificate: Path | None = None
) -> Iterator[Place]:
    """Start a server with an empty bucket, and a proxy if it is to be far away.

    A proxy takes more time for each request than the server does: next door it would be
    what is measured.
    """
    with ExitStack() as stack:
        server = stack.enter_context(start_canned(*synthetic, certificate=certificate))
        near = far = server.endpoint_url
        if round_trip:
            far = stack.enter_context(start_latency_proxy(near, round_trip=round_trip)).endpoint_url
        plain_client(near).create_bucket(Bucket=BUCKET)
        yield Place(near, far, round_trip)


class BareSocket:
    """What a round trip takes where nothing is done but to send bytes and to receive some.

    Args:
        where: The server, which has an object.
        name: The object, which has to be small.
    """

    def __init__(self, where: Place, name: str) -> None:
        there = urlsplit(where.endpoint_url)
        assert there.hostname is not None
        self._socket = socket.create_connection((there.hostname, there.port or 80), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = f"GET /{BUCKET}/{name} HTTP/1.1\r\nHost: {there.netloc}\r\n\r\n".encode()

    def exchange(self) -> float:
        """Ask for the object once; return how many seconds that took."""
        start = time.perf_counter()
        self._socket.sendall(self._request)
        answer = self._socket.recv(65536)
        seconds = time.perf_counter() - start
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"the server answered {answer[:100]!r}")
        return seconds

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def connection(endpoint_url: str) -> dict[str, Any]:
    """Return what an S3 dictionary needs to reach one of the servers here."""
    return {
        "endpoint_url": endpoint_url,
        "region": REGION,
        "aws_access_key_id": ANY_CREDENTIAL,
        "aws_secret_access_key": ANY_CREDENTIAL,
    }


def dictionary(
    endpoint_url: str,
    *,
    bucket: str = BUCKET,
    prefix: str = "",
    concurrency: int = CONCURRENCY,
    transport: str = "auto",
) -> BasicS3Dict[Any]:
    """Return a dictionary on one of the servers here."""
    return BasicS3Dict(
        bucket_name=bucket,
        root_prefix=prefix,
        max_concurrency=concurrency,
        transport=transport,
        **connection(endpoint_url),
    )


def plain_client(endpoint_url: str) -> S3Client:
    """Return a client as boto3 makes it when nothing is said about its configuration."""
    return _client(endpoint_url, None)


def pool_client(endpoint_url: str) -> S3Client:
    """Return a client that keeps a connection for each thread, and is plain otherwise."""
    return _client(endpoint_url, Config(max_pool_connections=CONCURRENCY))


def start_published(bench: Bench) -> Worker:
    """Start 0.309 in a process that knows the credentials of the servers here.

    Raises:
        PeerUnavailable: It cannot be installed or used.
    """
    return published.start(
        bench,
        {
            "AWS_ACCESS_KEY_ID": ANY_CREDENTIAL,
            "AWS_SECRET_ACCESS_KEY": ANY_CREDENTIAL,
            "AWS_DEFAULT_REGION": REGION,
        },
    )


def connect(worker: Worker, where: Place) -> None:
    """Give 0.309 a function `make(bucket, prefix)`, and `make_near`, which leaves the proxy out."""
    worker.execute(
        "import os\n"
        "def make_at(url, bucket, prefix):\n"
        "    os.environ['AWS_ENDPOINT_URL'] = url\n"
        "    return persidict.BasicS3Dict(bucket_name=bucket, root_prefix=prefix)\n"
        f"def make(*where): return make_at({where.endpoint_url!r}, *where)\n"
        f"def make_near(*where): return make_at({where.direct_url!r}, *where)\n"
    )


def server_speed(bench: Bench, where: Place) -> Remark:
    """Find out how many small objects the server can send, asked by a client that does nothing.

    The client is a socket: it sends many requests at once and counts what comes back.
    """
    plain_client(where.direct_url).put_object(Bucket=BUCKET, Key="small", Body=b"x" * 200)
    rounds = bench.size(100, 2)
    speed = _pipelined(where.direct_url, rounds)
    return Remark(
        "what the server can do",
        f"{speed:,.0f} objects of 200 B per second on one connection;"
        f" {_PIPELINED} requests at a time from a bare socket",
    )


def _pipelined(endpoint_url: str, rounds: int) -> float:
    url = urlsplit(endpoint_url)
    request = f"GET /{BUCKET}/small HTTP/1.1\r\nHost: benchmark\r\n\r\n".encode() * _PIPELINED
    with socket.create_connection((url.hostname, url.port)) as connected:
        received = connected.makefile("rb")
        connected.sendall(request)
        size = _reply_size(received) * _PIPELINED
        received.read(size - size // _PIPELINED)
        start = time.perf_counter()
        for _ in range(rounds):
            connected.sendall(request)
            received.read(size)
        return rounds * _PIPELINED / (time.perf_counter() - start)


def _reply_size(received: Any) -> int:
    """Read one reply and return how many bytes it has."""
    lines = list(iter(received.readline, b"\r\n"))
    fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
    body = received.read(int(fields[b"content-length"]))
    return sum(map(len, lines)) + len(b"\r\n") + len(body)


def _client(endpoint_url: str, config: Config | None) -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id=ANY_CREDENTIAL,
        aws_secret_access_key=ANY_CREDENTIAL,
        config=config,
    )
