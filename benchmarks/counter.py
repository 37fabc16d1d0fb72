"""Processes that count together, and whether the total is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import persidict
from benchmarks import published
from benchmarks.files import directories
from benchmarks.harness import Bench, Fact, Measure, Omission, Remark, Result, Suite
from benchmarks.peers import PeerUnavailable, load
from benchmarks.s3_peers import BUCKET
from benchmarks.s3_places import Place, connect, connection, place, start_published
from benchmarks.worker import Worker, together

_IMPORT_ROOT: Final = str(Path(persidict.__file__).resolve().parents[1])
_COUNTER: Final = """
def plus_one(number): return number + 1 if isinstance(number, int) else 1
def increment(): d.transform_item("counter", transformer=plus_one, n_retries=None)
def total(): return d["counter"]
"""
_DISKCACHE: Final = """
import diskcache
d = diskcache.Cache({directory!r})
def increment(): d.incr("counter")
def total(): return d["counter"]
"""
_TRANSACT: Final = """
import diskcache
d = diskcache.Cache({directory!r})
def increment():
    with d.transact():
        d["counter"] = d.get("counter", 0) + 1
def total(): return d["counter"]
"""
_OWN_DATABASE: Final = """
import persidict
d = persidict.SQLiteDict(path={path!r}, fsync=False)
write = d.__setitem__
"""
_OWN_HANDLER: Final = """
import sqlite3
sql = sqlite3.connect({path!r}, isolation_level=None, timeout=60)
for statement in (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "CREATE TABLE IF NOT EXISTS items(key TEXT PRIMARY KEY, value BLOB)",
):
    sql.execute(statement)
def write(key, value): sql.execute("INSERT OR REPLACE INTO items VALUES (?, ?)", (key, value))
"""
_WRITING: Final = """
import os, time
def unscheduled():
    # the second number: nanoseconds that this thread could have run, and had no CPU (Linux)
    return int(os.pread(accounts, 100, 0).split()[1]) / 1e9 if accounts else 0.0
def look():
    delay = unscheduled()
    while True:
        now, before, delay = time.monotonic(), delay, unscheduled()
        if delay == before:
            return now, delay
def write_for(seconds):
    waits, in_turn = [], []
    start, delay = look()
    end = start + seconds
    while start <= end:
        write({name!r}, 1)
        (then, before), (start, delay) = (start, delay), look()
        waits.append(start - then)
        in_turn.append(start - then - (delay - before))
    waits.sort()
    return len(waits), waits[len(waits) // 2], waits[-1], max(in_turn)
try:
    accounts = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
except FileNotFoundError:
    accounts = None
write({name!r}, 1)
"""
_BOTO: Final = """
import boto3
from botocore.exceptions import ClientError
client = boto3.client("s3", endpoint_url={endpoint_url!r}, region_name={region!r},
    aws_access_key_id={aws_access_key_id!r}, aws_secret_access_key={aws_secret_access_key!r})
client.put_object(Bucket={bucket!r}, Key="by-hand", Body=b"0")
def total(): return int(client.get_object(Bucket={bucket!r}, Key="by-hand")["Body"].read())
def increment():
    while True:
        reply = client.get_object(Bucket={bucket!r}, Key="by-hand")
        body = str(int(reply["Body"].read()) + 1).encode()
        try:
            client.put_object(Bucket={bucket!r}, Key="by-hand", Body=body, IfMatch=reply["ETag"])
            return
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
                raise
"""


_WRITING_SECONDS: Final = 10.0
_LONGEST_WAIT: Final = 0.1


class Counting:
    """Processes that increment one counter, each of them several times in each operation.

    Args:
        workers: The processes, which have functions `increment` and `total`.
        times: How often each increments in one operation.

    Attributes:
        increments: How many there are in one operation.
        expected: How many there have been.
    """

    def __init__(self, workers: Sequence[Worker], times: int) -> None:
        self._workers = workers
        self.expected = 0
        self._measure = together(workers, f"for _ in range({times}): increment()")
        self.increments = times * len(workers)

    def measured(self, number: int) -> float:
        """Measure how long it takes until every process has done its share."""
        self.expected += number * self.increments
        return self._measure(number)

    def lost(self) -> int:
        """Return how many increments had no effect."""
        return self.expected - int(self._workers[0].evaluate("total()"))


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    yield from on_files(bench)
    yield from on_database(bench)
    yield from waiting(bench)
    yield from on_s3(bench)


def on_files(bench: Bench) -> Iterator[Result]:
    """Count in a file."""
    with directories("synced", "unsynced", "diskcache", "published") as made:
        synced, unsynced, cache, old = made
        yield from compared(
            bench,
            "FileDirDict, fsync=False",
            _persidict(f"persidict.FileDirDict(base_dir={unsynced!r}, fsync=False)"),
            "diskcache.Cache.incr",
            lambda: _diskcache(cache),
        )
        yield from compared(
            bench,
            "FileDirDict, durable",
            _persidict(f"persidict.FileDirDict(base_dir={synced!r})"),
            published.NAME,
            lambda: _published_files(bench, old),
        )


def on_database(bench: Bench) -> Iterator[Result]:
    """Count in a row."""
    with directories("own", "incr", "transact") as (own, incr, transact):
        made = f"persidict.SQLiteDict(path={own + '/items.db'!r}, fsync=False)"
        for against, other, limit in (
            ("diskcache.Cache.incr", lambda: _diskcache(incr), 1.2),
            ("diskcache.Cache.transact, get and set", lambda: _diskcache_transact(transact), 1.0),
        ):
            yield from compared(
                bench, "SQLiteDict, fsync=False", _persidict(made), against, other, at_most=limit
            )


def waiting(bench: Bench) -> Iterator[Result]:
    """Write without a rest, in several processes, and tell how long one write takes."""
    processes, seconds = bench.size(4, 2), 0.1 if bench.quick else _WRITING_SECONDS
    title = f"{processes} processes that write for {seconds:g} s"
    with directories("shared", "by_hand", "apart") as (shared, by_hand, apart):
        own, told = _waits([_OWN_DATABASE.format(path=f"{shared}/x.db")] * processes, seconds)
        yield Remark(f"{title} into one SQLiteDict", told)
        other, told = _waits([_OWN_HANDLER.format(path=f"{by_hand}/x.db")] * processes, seconds)
        yield Remark(f"{title} with sqlite3 by hand, and SQLite's own way of waiting", told)
        alone = [_OWN_DATABASE.format(path=f"{apart}/{number}.db") for number in range(processes)]
        _, told = _waits(alone, seconds)
        yield Remark(f"{title} into a SQLiteDict each: what disk and scheduler do alone", told)
        yield Fact(f"{title} into one SQLiteDict: no turn took 100 ms to come", own < _LONGEST_WAIT)
        yield Fact(f"{title} into one SQLiteDict: turns come sooner than SQLite's own", own < other)


def _waits(made: Sequence[str], seconds: float) -> tuple[float, str]:
    with ExitStack() as stack:
        workers = []
        for number, code in enumerate(made):
            worker = stack.enter_context(_worker(code))
            worker.execute(_WRITING.format(name=f"item{number}"))
            workers.append(worker)
        for worker in workers:
            worker.send("evaluate", f"write_for({seconds})")
        answers = [worker.receive() for worker in workers]
    counts, medians, longest, in_turn = zip(*answers, strict=True)
    return max(in_turn), (
        f"{sum(counts):,} writes, the least busy {min(counts) / max(counts):.0%} of what the"
        f" busiest did; half of them within {max(medians) * 1e6:.0f} µs, all within"
        f" {max(longest) * 1e3:.0f} ms, {max(in_turn) * 1e3:.0f} ms but for the time without a CPU"
    )


def on_s3(bench: Bench) -> Iterator[Result]:
    """Count in an object, with a server next door."""
    with place(0.0) as where:
        near = where.direct_url
        own = f"persidict.BasicS3Dict(bucket_name={BUCKET!r}, **{connection(near)!r})"
        by_hand = _BOTO.format(bucket=BUCKET, **connection(near))
        yield from compared(
            bench,
            "BasicS3Dict, server next door",
            _persidict(own),
            "boto3, If-Match in a loop",
            lambda: _worker(by_hand),
            at_most=1.0,
        )
        yield from compared(
            bench,
            "BasicS3Dict, server next door",
            _persidict(own),
            published.NAME,
            lambda: _published_s3(bench, where),
        )


def compared(
    bench: Bench,
    title: str,
    own: Callable[[], Worker],
    against: str,
    other: Callable[[], Worker],
    *,
    at_most: float | None = None,
) -> Iterator[Result]:
    """Compare how fast they count, and tell who lost something."""
    processes, times = bench.size(4, 2), bench.size(25, 2)
    with ExitStack() as stack:

        def started(start: Callable[[], Worker]) -> Counting:
            return Counting([stack.enter_context(start()) for _ in range(processes)], times)

        try:
            others = started(other)
        except PeerUnavailable as reason:
            yield Omission(f"{title}: {against}", str(reason))
            return
        ours = started(own)
        counters: tuple[Measure, Measure] = ours.measured, others.measured
        yield bench.compare(
            f"{processes} processes increment, {title}",
            *counters,
            against=against,
            at_most=at_most,
            items=ours.increments,
        )
        yield Fact(f"{title}, beside {against}: no increment was lost", ours.lost() == 0)
        lost = f"{others.lost()} of {others.expected:,} increments were lost"
        yield Remark(f"{against}, beside {title}", lost)


def _worker(code: str) -> Worker:
    worker = Worker(environment={"PYTHONPATH": _IMPORT_ROOT})
    worker.execute(code)
    return worker


def _persidict(expression: str) -> Callable[[], Worker]:
    before = "d.discard('counter')"
    return lambda: _worker(f"import persidict\nd = {expression}\n{before}\n{_COUNTER}")


def _diskcache(directory: str) -> Worker:
    load("diskcache")
    return _worker(_DISKCACHE.format(directory=directory))


def _diskcache_transact(directory: str) -> Worker:
    load("diskcache")
    return _worker(_TRANSACT.format(directory=directory))


def _published_files(bench: Bench, directory: str) -> Worker:
    worker = published.start(bench)
    worker.execute(f"d = persidict.FileDirDict(base_dir={directory!r})\n{_COUNTER}")
    return worker


def _published_s3(bench: Bench, where: Place) -> Worker:
    worker = start_published(bench)
    connect(worker, where)
    worker.execute(f"d = make_near({BUCKET!r}, 'published')\n{_COUNTER}")
    return worker


SUITE: Final = Suite(
    "One counter, four processes",
    "Each process adds 1, again and again, with `transform_item` where there is one; at the end"
    " the total is compared with what it has to be. Times are per increment of all together.",
    run,
)
