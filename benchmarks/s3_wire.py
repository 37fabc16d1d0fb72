"""What the direct wire can do: many in flight, TLS, long listings, memory; near and far."""

from __future__ import annotations

import math
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import persidict
from benchmarks.files import small_value
from benchmarks.harness import Bench, Fact, Measure, Omission, Remark, Result, Row, Suite, timed
from benchmarks.peers import PeerUnavailable, load
from benchmarks.s3_peers import BUCKET, CONCURRENCY, Obstore
from benchmarks.s3_places import BareSocket, Place, connection, dictionary, place
from benchmarks.worker import Worker
from persidict.basic_s3_dict import BasicS3Dict
from tests.s3_servers.canned import Synthetic
from tests.s3_servers.scripted import make_certificate

_FAR: Final = 0.02
_READ: Final = "d.get_many(keys)"
_WRITE: Final = "d.update(items)"
_ITERATE: Final = "for item in d.items(): pass"
_STATEMENTS: Final = {"get_many": _READ, "items()": _ITERATE, "update": _WRITE}
_BARE: Final = "round trips of a bare socket"
_MOST_MEGABYTES: Final = 150
_STATUS: Final = Path("/proc/self/status")
_ITEM: Final = b"\x93" * 10_000


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    yield from next_door(bench)
    yield from far_away(bench)
    yield from over_https(bench)
    yield from long_listing(bench)
    yield from memory(bench)


class _Bulk:
    """A dictionary and obstore with the same items, so many requests of each under way."""

    def __init__(self, bench: Bench, where: Place, in_flight: int, **params: Any) -> None:
        self._in_flight = in_flight
        self._where = where
        self.count = bench.size(1000, 20)
        self.items = {f"key{number:04}": small_value() for number in range(self.count)}
        settings: dict[str, Any] = {"prefix": "persidict", "concurrency": in_flight, **params}
        dictionary(where.direct_url, **settings).update(self.items)
        self._names = {
            "d": dictionary(where.endpoint_url, **settings),
            "items": self.items,
            "keys": list(self.items),
        }

    def own(self, work: str, clock: Callable[[], float] = time.perf_counter) -> Measure:
        """Measure the dictionary."""
        return timed(_STATEMENTS[work], clock, **self._names)

    def obstore(self) -> dict[str, Callable[[], object]]:
        """Return what obstore has to do for each kind of work."""
        peer = Obstore(self._where.endpoint_url, self._in_flight)
        peer.write(self.items)
        keys = list(self.items)
        return {
            "get_many": lambda: peer.read(keys),
            "items()": peer.read_all,
            "update": lambda: peer.write(self.items),
        }

    def round_trips(self, work: str, bare: BareSocket) -> Measure:
        """Return how long it would take if nothing took time but round trips."""
        rounds = math.ceil(self.count / self._in_flight) + (work == "items()")
        return lambda number: sum(bare.exchange() for _ in range(number * rounds))

    def title(self, work: str) -> str:
        return f"{work}, per object, {self._in_flight} in flight, {self._where.far}"


def next_door(bench: Bench) -> Iterator[Result]:
    """Move many small objects where the client's own work is what takes time."""
    with place(0.0) as where:
        bulk = _Bulk(bench, where, CONCURRENCY)
        few = dict(list(bulk.items.items())[: bench.size(100, 10)])
        before = dictionary(where.endpoint_url, prefix="botocore", transport="botocore")
        before.update(few)
        names: dict[str, Any] = {"d": before, "items": few, "keys": list(few)}
        for work, statement in _STATEMENTS.items():
            yield bench.compare(
                bulk.title(work),
                bulk.own(work),
                timed(statement, **names),
                against='transport="botocore"',
                at_least=20.0,
                items=bulk.count,
                floor_items=len(few),
            )
        try:
            others = bulk.obstore()
        except PeerUnavailable as reason:
            yield Omission(Obstore.title, str(reason))
            return
        for work, other in others.items():
            yield _beside_obstore(bench, bulk, work, other, at_least=1.0)
        for work, other in others.items():
            yield bench.compare(
                f"{bulk.title(work)}, CPU time",
                bulk.own(work, time.process_time),
                timed(other, time.process_time),
                against=Obstore.title,
                items=bulk.count,
            )


def far_away(bench: Bench) -> Iterator[Result]:
    """Move many small objects where waiting is what takes time."""
    with place(0.002 if bench.quick else _FAR) as where:
        d = dictionary(where.endpoint_url, prefix="single")
        d["a"] = small_value()
        with closing(BareSocket(where, "single/a.pkl")) as bare:
            yield from one_round_trip(bench, where, d, bare)
            yield from many_round_trips(bench, where, bare)


def many_round_trips(bench: Bench, where: Place, bare: BareSocket) -> Iterator[Result]:
    """Compare bulk work with as many round trips as it needs, and with obstore."""
    for in_flight, speed in ((32, 1.0), (64, 1.0), (256, 1.25)):
        bulk = _Bulk(bench, where, in_flight)
        for work in _STATEMENTS if in_flight < 256 else ():
            yield bench.compare(
                bulk.title(work),
                bulk.own(work),
                bulk.round_trips(work, bare),
                against=_BARE,
                at_most=1.13,
                items=bulk.count,
            )
        try:
            others = bulk.obstore()
        except PeerUnavailable:  # told above
            continue
        for work, other in others.items():
            yield _beside_obstore(bench, bulk, work, other, at_least=speed)


def one_round_trip(
    bench: Bench, where: Place, d: BasicS3Dict[Any], bare: BareSocket
) -> Iterator[Row]:
    """Compare single operations with one round trip."""
    names: dict[str, Any] = {"d": d, "v": small_value()}
    for operation, statement in (("get", "d['a']"), ("put", "d['a'] = v")):
        yield bench.compare(
            f"{operation}, {where.far}",
            timed(statement, **names),
            lambda number: sum(bare.exchange() for _ in range(number)),
            against=_BARE,
            at_most=1.07,
        )


def _beside_obstore(
    bench: Bench, bulk: _Bulk, work: str, other: Callable[[], object], *, at_least: float
) -> Row:
    return bench.compare(
        bulk.title(work),
        bulk.own(work),
        timed(other),
        against=Obstore.title,
        at_least=at_least,
        items=bulk.count,
    )


def over_https(bench: Bench) -> Iterator[Result]:
    """Compare requests through TLS with plain ones, both next door."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            load("cryptography")
        except PeerUnavailable as reason:
            yield Omission("https", str(reason))
            return
        certificate = make_certificate(Path(directory), "server")
        with (
            _trusted(certificate),
            place(0.0) as plain,
            place(0.0, certificate=certificate) as secure,
        ):
            names: list[dict[str, Any]] = []
            for where in (secure, plain):
                d = dictionary(where.endpoint_url, prefix="persidict")
                items = {f"key{n:04}": small_value() for n in range(bench.size(1000, 20))}
                d.update(items)
                names.append({"d": d, "items": items, "keys": list(items), "v": small_value()})
            for title, statement, count in (
                ("get", "d['key0001']", 1),
                ("put", "d['key0001'] = v", 1),
                ("get_many, per object", _READ, len(items)),
                ("update, per object", _WRITE, len(items)),
            ):
                yield bench.compare(
                    f"{title}, https, 0 ms away",
                    timed(statement, **names[0]),
                    timed(statement, **names[1]),
                    against="the same over http",
                    at_most=1.5,
                    items=count,
                )


@contextmanager
def _trusted(certificate: Path) -> Iterator[None]:
    """Have every client that is made meanwhile trust a certificate."""
    before = os.environ.get("AWS_CA_BUNDLE")
    os.environ["AWS_CA_BUNDLE"] = str(certificate)
    try:
        yield
    finally:
        if before is None:
            del os.environ["AWS_CA_BUNDLE"]
        else:
            os.environ["AWS_CA_BUNDLE"] = before


def long_listing(bench: Bench) -> Iterator[Result]:
    """List many keys, a thousand with each request."""
    count = bench.size(20_000, 20)
    objects = Synthetic(count, b"", bucket=BUCKET, prefix="obstore/")
    with place(0.0, objects) as where:
        d, before = (
            dictionary(where.endpoint_url, prefix="obstore", transport=transport)
            for transport in ("auto", "botocore")
        )
        title = f"list(d), {count} keys, {where.far}"
        own = timed("list(d)", d=d)
        yield bench.compare(
            title, own, timed("list(d)", d=before), against='transport="botocore"', at_least=3.5
        )
        try:
            peer = Obstore(where.endpoint_url)
        except PeerUnavailable:  # told above
            return
        yield bench.compare(title, own, timed(peer.names), against=Obstore.title, at_most=1.3)


def memory(bench: Bench) -> Iterator[Result]:
    """Read more than memory should hold, in a process of its own, and tell its peak."""
    count = bench.size(200_000, 200)
    title = f"reading {count:,} items of 10 KB stays below {_MOST_MEGABYTES} MB, all in all"
    if not _STATUS.exists():
        yield Omission(title, "because only Linux's /proc tells the peak of a process")
        return
    body = pickle.dumps(_ITEM, 5)
    with place(0.0, Synthetic(count, body, bucket="many")) as where:
        path = str(Path(persidict.__file__).resolve().parents[1])
        with Worker(environment={"PYTHONPATH": path}) as worker:
            settings = connection(where.endpoint_url)
            worker.execute(
                f"import persidict; d = persidict.BasicS3Dict(bucket_name='many', **{settings!r})"
            )
            worker.execute("import collections; collections.deque(d.items(), maxlen=0)")
            status = worker.evaluate(f"open({str(_STATUS)!r}).read()")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    yield Fact(title, peak < _MOST_MEGABYTES)
    yield Remark("peak of that process", f"{peak:.0f} MB, Python and boto3 included")


SUITE: Final = Suite(
    "S3: the direct wire",
    "What is asked of the wire, and where it ends: 1 000 values of 200 B, more and fewer of them"
    " under way, beside obstore's coroutines, beside the same dictionary with"
    ' `transport="botocore"`, and beside as many round trips, one after the other, of a socket'
    " that sends and receives bytes and does nothing else. Next door, 0 ms away, the server is"
    " reached without a proxy.",
    run,
)
