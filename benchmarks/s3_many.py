"""Many small objects on S3, with every library that can, near and far."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from benchmarks import published
from benchmarks.files import small_value
from benchmarks.harness import Bench, Omission, Result, Row, Suite, after, timed
from benchmarks.peers import PeerUnavailable
from benchmarks.s3_peers import (
    BUCKET,
    CONCURRENCY,
    BotoPool,
    ObjectPeer,
    optional_peers,
)
from benchmarks.s3_places import (
    Place,
    connect,
    dictionary,
    place,
    pool_client,
    round_trips,
    server_speed,
    start_published,
)
from benchmarks.worker import Worker
from tests.s3_servers.canned import Synthetic

_GROUPS: Final = 10
_WITH_TARGETS: Final = 0.02
_ITERATE: Final = "for item in d.items(): pass"
_COLLECT: Final = "found = {key: d[key] for key in keys}"


class _Objects:
    """The dictionary and what is written to it.

    Args:
        bench: Says how many objects.
        where: The server.
    """

    def __init__(self, bench: Bench, where: Place) -> None:
        self.where = where
        self.count = bench.size(1000 if where.round_trip == _WITH_TARGETS else 250, 20)
        self.few = min(self.count, 50)
        value = small_value()
        self.items = {f"key{number:04}": value for number in range(self.count)}
        self.few_items = dict(list(self.items.items())[: self.few])
        self.dictionary = dictionary(where.endpoint_url, prefix="persidict")
        self._near = dictionary(where.direct_url, prefix="persidict")
        self._near_client = pool_client(where.direct_url)

    def fill(self) -> None:
        """Write all items, without the proxy's delay."""
        self._near.update(self.items)

    def fill_raw(self, prefix: str, count: int) -> None:
        """Put objects that only need to be there below a prefix."""

        def put(number: int) -> None:
            key = f"{prefix}/key{number:04}.pkl"
            self._near_client.put_object(Bucket=BUCKET, Key=key, Body=b"x")

        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(put, range(count)))

    def title(self, work: str) -> str:
        return f"{work}, per object, {self.where.far}"


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    for number, round_trip in enumerate(round_trips(bench)[:2]):
        with place(round_trip) as where:
            peers, omissions = optional_peers(where.endpoint_url)
            if number == 0:
                yield server_speed(bench, where)
                yield from omissions
            yield from from_afar(bench, where, peers)
    yield from many_keys(bench)


def from_afar(bench: Bench, where: Place, peers: list[ObjectPeer]) -> Iterator[Result]:
    """Compare with every library at one distance; with all operations where there are targets."""
    with_all = bench.quick or where.round_trip == _WITH_TARGETS
    objects = _Objects(bench, where)
    objects.fill()
    client = pool_client(where.endpoint_url)
    pool = BotoPool(client)
    yield from beside_pool(bench, objects, pool)
    for peer in peers:
        yield from beside_peer(bench, objects, peer)
    if with_all:
        for peer in (pool, *peers):
            yield from lists_and_deletions(bench, objects, peer)
    try:
        worker = start_published(bench)
    except PeerUnavailable as reason:
        yield Omission(f"{published.NAME}, {where.far}", str(reason))
        return
    with worker:
        connect(worker, where)
        yield from beside_published(bench, objects, worker, with_all=with_all)


def beside_pool(bench: Bench, objects: _Objects, pool: BotoPool) -> Iterator[Row]:
    """Compare with boto3 in as many threads, whose speed is the target."""
    d, items = objects.dictionary, objects.items
    names: dict[str, Any] = {"d": d, "pool": pool, "items": items, "keys": list(items)}
    pool.write(items)
    at_least = 0.9 if objects.where.round_trip == _WITH_TARGETS else None
    for work, statement, other in (
        ("items()", _ITERATE, "pool.read_all()"),
        ("get_many", "d.get_many(keys)", "pool.read(keys)"),
        ("update", "d.update(items)", "pool.write(items)"),
    ):
        yield bench.compare(
            objects.title(work),
            timed(statement, **names),
            timed(other, **names),
            against=pool.title,
            at_least=at_least,
            items=objects.count,
        )


def beside_peer(bench: Bench, objects: _Objects, peer: ObjectPeer) -> Iterator[Row]:
    """Compare with one library; one that does one thing after the other gets fewer objects."""
    d = objects.dictionary
    items = objects.few_items if peer.is_sequential else objects.items
    names: dict[str, Any] = {"d": d, "peer": peer, "items": items}
    peer.write(items)
    own: dict[str, Any] = {"d": d, "items": objects.items}
    for work, statement, other in (
        ("items()", _ITERATE, "peer.read_all()"),
        ("update", "d.update(items)", "peer.write(items)"),
    ):
        yield bench.compare(
            objects.title(work),
            timed(statement, **own),
            timed(other, **names),
            against=peer.title,
            items=objects.count,
            floor_items=len(items),
        )


def lists_and_deletions(bench: Bench, objects: _Objects, peer: ObjectPeer) -> Iterator[Row]:
    """Compare listing all keys, and deleting all objects, with one library."""
    d = objects.dictionary
    for work, own, other in (
        ("list(d)", timed("list(d)", d=d), timed(peer.names)),
        (
            "clear()",
            after(objects.fill, timed(d.clear)),
            after(lambda: peer.write(objects.items), timed(peer.clear)),
        ),
    ):
        yield bench.compare(
            objects.title(work), own, other, against=peer.title, items=objects.count
        )
    objects.fill()


def beside_published(
    bench: Bench, objects: _Objects, worker: Worker, *, with_all: bool
) -> Iterator[Row]:
    """Compare with 0.309, which gets fewer objects."""
    d = objects.dictionary
    worker.execute("d, near = make('benchmark', 'published'), make_near('benchmark', 'published')")
    worker.execute(f"items = {objects.few_items!r}; keys = list(items); near.update(items)")
    own: dict[str, Any] = {"d": d, "items": objects.items, "keys": list(objects.items)}
    rows = [("items()", _ITERATE, _ITERATE), ("update", "d.update(items)", "d.update(items)")]
    if with_all:
        rows.append(("get_many", "d.get_many(keys)", _COLLECT))
    targets = {"items()": 12.0, "get_many": 12.0, "update": 12.0}
    has_targets = objects.where.round_trip == _WITH_TARGETS
    for work, statement, other in rows:
        yield bench.compare(
            objects.title(work),
            timed(statement, **own),
            worker.timed(other),
            against=published.NAME,
            at_least=targets.get(work) if has_targets else None,
            items=objects.count,
            floor_items=objects.few,
        )
    if with_all:
        yield bench.compare(
            objects.title("clear()"),
            after(objects.fill, timed(d.clear)),
            after(lambda: objects.fill_raw("published", objects.few), worker.timed("d.clear()")),
            against=published.NAME,
            at_least=60.0 if has_targets else None,
            items=objects.count,
            floor_items=objects.few,
        )


def many_keys(bench: Bench) -> Iterator[Result]:
    """List, group and sort many keys; the server makes the objects up."""
    for members, with_target in ((bench.size(100, 3), True), (bench.size(2000, 6), False)):
        body = pickle.dumps(small_value(), 5)
        groups = [
            Synthetic(members, body, bucket="many", prefix=f"group{number}/")
            for number in range(_GROUPS)
        ]
        try:
            worker = start_published(bench)
        except PeerUnavailable as reason:
            yield Omission(f"{published.NAME}, {_GROUPS * members} keys", str(reason))
            continue
        with worker, place(0.0 if bench.quick else _WITH_TARGETS, *groups) as where:
            connect(worker, where)
            worker.execute("d = make('many', '')")
            yield from beside_published_keys(
                bench, where, worker, members=members, with_target=with_target
            )


def beside_published_keys(
    bench: Bench, where: Place, worker: Worker, *, members: int, with_target: bool
) -> Iterator[Row]:
    """Compare operations on keys alone with 0.309."""
    d = dictionary(where.endpoint_url, bucket="many")
    for statement, target in (
        ("list(d)", None),
        ("d.subdicts()", 10.0),
        ("d.newest_keys(max_n=10)", None),
    ):
        yield bench.compare(
            f"{statement}, {_GROUPS} groups of {members} keys, {where.far}",
            timed(statement, d=d),
            worker.timed(statement),
            against=published.NAME,
            at_least=target if with_target and where.round_trip == _WITH_TARGETS else None,
        )


SUITE = Suite(
    "S3: many small objects",
    f"1 000 values of 200 B, pickled and unpickled by each, {CONCURRENCY} at a time where a library"
    " can. Next door, 0 ms away, there are 250. Whatever does one after the other gets 50 of them."
    " Times are per object.",
    run,
)
