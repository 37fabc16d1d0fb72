"""Large arrays on S3, against s3transfer and other libraries."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from boto3.s3.transfer import TransferConfig

from benchmarks import published
from benchmarks.harness import Bench, Measure, Omission, Result, Row, Suite, timed
from benchmarks.peers import PeerUnavailable
from benchmarks.s3_peers import BUCKET, CONCURRENCY, BotoLoop, optional_peers
from benchmarks.s3_places import Place, connect, dictionary, place, pool_client, start_published

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ROUND_TRIP: Final = 0.02
_AS_FAST: Final = 0.97
"""How fast it has to be beside what must not be faster, as far as that can be measured."""

_MB: Final = 1 << 20
_ARRAY: Final = "numpy.random.default_rng(0).random({count})"


class Transfer:
    """What one writes by hand: pickle, and boto3's managed transfer.

    Args:
        client: A client with as many connections as there are threads.
    """

    title = f"boto3 managed transfer, {CONCURRENCY} threads"

    def __init__(self, client: S3Client) -> None:
        self._client = client
        self._config = TransferConfig(max_concurrency=CONCURRENCY)

    def put(self, name: str, value: Any) -> None:
        self.upload(name, pickle.dumps(value, 5))

    def get(self, name: str) -> Any:
        return pickle.loads(self.download(name).getbuffer())

    def upload(self, name: str, data: bytes) -> None:
        """Send bytes that are there already."""
        self._client.upload_fileobj(io.BytesIO(data), BUCKET, name, Config=self._config)

    def download(self, name: str) -> io.BytesIO:
        """Read bytes, and do nothing with them."""
        received = io.BytesIO()
        self._client.download_fileobj(BUCKET, name, received, Config=self._config)
        return received


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    with place(0.0 if bench.quick else _ROUND_TRIP) as where:
        for megabytes in (1, bench.size(256, 2)):
            yield from arrays(bench, where, megabytes)


def arrays(bench: Bench, where: Place, megabytes: int) -> Iterator[Result]:
    """Write and read an array of random numbers."""
    count = megabytes * _MB // 8
    value = np.random.default_rng(0).random(count)
    d = dictionary(where.endpoint_url, prefix="persidict")
    put, get = timed("d['a'] = v", d=d, v=value), timed("d['a']", d=d)
    titles = [f"{work}, array of {megabytes} MB, {where.far}" for work in ("put", "get")]
    transfer = Transfer(pool_client(where.endpoint_url))
    at_least = 0.9 if megabytes > 1 else None

    def rows(
        against: str, others: tuple[Measure, Measure], at_least: float | None = None
    ) -> Iterator[Row]:
        for title, own, other in zip(titles, (put, get), others, strict=True):
            yield bench.compare(title, own, other, against=against, at_least=at_least)

    yield from rows(transfer.title, _calls(transfer.put, transfer.get, value), at_least)
    if megabytes > 1:
        data = pickle.dumps(value, 5)
        title = f"{transfer.title}, bytes without pickling"
        yield from rows(title, _calls(transfer.upload, transfer.download, data))
    if megabytes > 1:
        before = dictionary(where.endpoint_url, prefix="botocore", transport="botocore")
        names: dict[str, Any] = {"d": before, "v": value}
        statements = timed("d['a'] = v", **names), timed("d['a']", **names)
        yield from rows('transport="botocore"', statements, _AS_FAST)
    others, omissions = optional_peers(where.endpoint_url)
    client = pool_client(where.endpoint_url)
    for peer in (BotoLoop(client, "boto3, one request"), *others):
        yield from rows(peer.title, _calls(peer.put, peer.get, value))
    try:
        worker = start_published(bench)
    except PeerUnavailable as reason:
        omissions.append(Omission(published.NAME, str(reason)))
    else:
        with worker:
            connect(worker, where)
            worker.execute("import numpy; d = make('benchmark', 'published')")
            worker.execute(f"v = {_ARRAY.format(count=count)}")
            others_calls = worker.timed("d['a'] = v"), worker.timed("d['a']")
            yield from rows(published.NAME, others_calls)
    if megabytes > 1:
        yield from omissions


def _calls(
    put: Callable[[str, Any], Any], get: Callable[[str], Any], value: Any
) -> tuple[Measure, Measure]:
    return timed("put('a', v)", put=put, v=value), timed("get('a')", get=get)


SUITE: Final = Suite(
    "S3: arrays",
    "Random numbers, which no compressor makes smaller; each library pickles and unpickles them.",
    run,
)
