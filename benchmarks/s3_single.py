"""Single operations on S3, with every library that has them, near and far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from benchmarks import published
from benchmarks.files import small_value
from benchmarks.harness import Bench, Measure, Omission, Result, Row, Suite, timed
from benchmarks.peers import PeerUnavailable
from benchmarks.s3_peers import BotoLoop, ObjectPeer, optional_peers
from benchmarks.s3_places import (
    Place,
    connect,
    dictionary,
    place,
    plain_client,
    round_trips,
    start_published,
)
from persidict import ANY_ETAG, ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE

_CPU_TARGETS: Final = {"boto3": 1 / 8, "obstore": 1.2}
"""What an operation may take of this process's CPU time, all threads, beside another library."""

_FASTER_THAN_BOTO3: Final = {"get": 5.0, "put": 5.0}
"""How many times as fast an operation has to be next door."""

_READ = "d['a']"
_WRITE = "d['a'] = v"
_LOOK = "'a' in d"
_SWAP = """
r = d.set_item_if("swapped", value=v, condition=same, expected_etag=r.resulting_etag)
"""
_FIRST_SWAP = """
r = d.set_item_if("swapped", value=v, condition=any_etag, expected_etag=absent)
"""


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    for number, round_trip in enumerate(round_trips(bench)):
        with place(round_trip) as where:
            peers, omissions = optional_peers(where.endpoint_url)
            if number == 0:
                yield from omissions
            for peer in (BotoLoop(plain_client(where.endpoint_url), "boto3"), *peers):
                yield from beside_peer(bench, where, peer)
            try:
                worker = start_published(bench)
            except PeerUnavailable as reason:
                yield Omission(f"{published.NAME}, {where.far}", str(reason))
                continue
            with worker:
                connect(worker, where)
                worker.execute("d = make('benchmark', 'published')")
                worker.execute(
                    f"v = {small_value()!r}; d['a'] = v; same = persidict.ETAG_IS_THE_SAME;"
                    "any_etag = persidict.ANY_ETAG; absent = persidict.ITEM_NOT_AVAILABLE"
                )
                worker.execute(_FIRST_SWAP)
                others = {
                    "get": worker.timed(_READ),
                    "put": worker.timed(_WRITE),
                    "in": worker.timed(_LOOK),
                    "compare-and-swap": worker.timed(f"global r; {_SWAP.strip()}"),
                }
                yield from rows(bench, where, others, published.NAME)


def beside_peer(bench: Bench, where: Place, peer: ObjectPeer) -> Iterator[Row]:
    """Compare with one library."""
    value = small_value()
    peer.put("a", value)
    others = _single(peer, time.perf_counter)
    if not where.round_trip:
        yield from cpu_rows(bench, where, peer)
    swap = peer.swap("swapped", value)
    if swap is not None:
        others["compare-and-swap"] = timed(swap)
    yield from rows(bench, where, others, peer.title)


def rows(bench: Bench, where: Place, others: dict[str, Measure], against: str) -> Iterator[Row]:
    """Do the same with a dictionary."""
    own = _own(where)
    has_targets = against == "boto3" and not where.round_trip
    for operation, other in others.items():
        yield bench.compare(
            f"{operation}, {where.far}",
            own[operation],
            other,
            against=against,
            at_least=_FASTER_THAN_BOTO3.get(operation) if has_targets else None,
        )


def _single(peer: ObjectPeer, clock: Callable[[], float]) -> dict[str, Measure]:
    names: dict[str, Any] = {"peer": peer, "v": small_value()}
    return {
        "get": timed("peer.get('a')", clock, **names),
        "put": timed("peer.put('a', v)", clock, **names),
        "in": timed("peer.contains('a')", clock, **names),
    }


def cpu_rows(bench: Bench, where: Place, peer: ObjectPeer) -> Iterator[Row]:
    """Compare the CPU time of this process, whatever threads it is spent in."""
    d = dictionary(where.endpoint_url, prefix="persidict")
    names: dict[str, Any] = {"d": d, "v": small_value()}
    d["a"] = names["v"]
    others = _single(peer, time.process_time)
    for operation, statement in (("get", _READ), ("put", _WRITE), ("in", _LOOK)):
        yield bench.compare(
            f"{operation}, CPU time",
            timed(statement, time.process_time, **names),
            others[operation],
            against=peer.title,
            at_most=_CPU_TARGETS.get(peer.title),
        )


def _own(where: Place) -> dict[str, Measure]:
    d = dictionary(where.endpoint_url, prefix="persidict")
    value = small_value()
    d["a"] = value
    etag: Any = d.set_item_if(
        "swapped", value=value, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ).resulting_etag

    def overwrite() -> None:
        nonlocal etag
        etag = d.set_item_if(
            "swapped", value=value, condition=ETAG_IS_THE_SAME, expected_etag=etag
        ).resulting_etag

    return {
        "get": timed(_READ, d=d),
        "put": timed(_WRITE, d=d, v=value),
        "in": timed(_LOOK, d=d),
        "compare-and-swap": timed(overwrite),
    }


SUITE = Suite(
    "S3: single operations",
    "A value of 200 B, pickled and unpickled by each. A proxy adds the round trip time.",
    run,
)
