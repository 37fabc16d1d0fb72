"""Many items on S3: in little memory, and with nobody at work when nobody wants more."""

from __future__ import annotations

import itertools
import math
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persidict.basic_s3_dict import BasicS3Dict
from tests.concurrency import Place, run_workers
from tests.s3_dicts import connect
from tests.s3_servers.canned import CannedServer, Synthetic, start_canned
from tests.s3_servers.clients import CREDENTIALS
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.scripted import Arrived, HangUp, reply, scripted

MANY = "PERSIDICT_TEST_ITEMS"
"""The environment variable that lets the test of the memory read more items than it must."""

ITEMS = Synthetic(int(os.environ.get(MANY, 6000)), pickle.dumps(b"x" * 10_000))
MOST_KILOBYTES = 100_000
"""Reading no more than one item takes 55 MB, and all items together as much on top of it."""

COUNTS = [1, 1000, 1001]
"""How many small items there are in further buckets."""

Dict = BasicS3Dict[Any]


@pytest.fixture(scope="module")
def server() -> Iterator[CannedServer]:
    small = [Synthetic(count, pickle.dumps(1), bucket=f"{count}-items") for count in COUNTS]
    with start_canned(ITEMS, *small) as server:
        yield server


@pytest.fixture
def d(server: CannedServer) -> Dict:
    return connect(server.endpoint_url, bucket_name=ITEMS.bucket)


def run_alone(program: str, endpoint_url: str) -> subprocess.CompletedProcess[str]:
    """Run a program in which `d` is a dictionary of many items, in a process of its own."""
    preamble = f"""
import persidict, threading
d = persidict.BasicS3Dict(
    bucket_name={ITEMS.bucket!r},
    endpoint_url={endpoint_url!r},
    region="us-east-1",
    aws_access_key_id={CREDENTIALS[0]!r},
    aws_secret_access_key={CREDENTIALS[1]!r},
)
"""
    return subprocess.run(
        [sys.executable, "-c", preamble + program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=None if MANY in os.environ else 120,
    )


# ---------------------------------------------------------------------- memory


@pytest.mark.slow
@pytest.mark.timeout(0 if MANY in os.environ else 300)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_slow_iteration_over_many_items_takes_little_memory(
    server: CannedServer,
) -> None:
    program = f"""
items = iter(d.items())
next(items)
pool = d._s3_store.shared.pool
all_is_read_ahead = threading.Barrier(pool.max_workers + 1)
for _ in range(pool.max_workers):
    pool.submit(all_is_read_ahead.wait)
all_is_read_ahead.wait()
assert sum(len(value) == 10_000 for _, value in items) == {ITEMS.count} - 1
print(open("/proc/self/status").read())
"""
    ended = run_alone(program, server.endpoint_url)
    assert (ended.returncode, ended.stderr) == (0, "")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", ended.stdout)
    assert int(kilobytes) < MOST_KILOBYTES


# ---------------------------------------------------------------------- requests


@pytest.fixture(scope="module")
def hundred_thousand() -> Iterator[CannedServer]:
    with start_canned(Synthetic(100_000, pickle.dumps(1))) as server:
        yield server


RANGES: dict[str, tuple[dict[str, Any], int]] = {
    "10 in the middle": ({"start": "00050000", "stop": "00050010"}, 10),
    "the first 10": ({"stop": "00000010"}, 10),
    "the last 10": ({"start": "00099990"}, 10),
    "none": ({"start": "00050000x", "stop": "00050000y"}, 0),
}


@pytest.mark.parametrize("which", RANGES)
def test_a_few_keys_among_very_many_are_listed_in_one_request(
    hundred_thousand: CannedServer, which: str
) -> None:
    bounds, count = RANGES[which]
    d = connect(hundred_thousand.endpoint_url, bucket_name=ITEMS.bucket)
    list(d.keys(stop="0"))  # whether a server lists in order is asked once
    hundred_thousand.reset_counts()
    assert len(list(d.keys(**bounds))) == count
    assert hundred_thousand.counts() == {"ListObjectsV2": 1}


def test_a_few_items_among_very_many_are_read_in_one_request_more_than_they_are(
    hundred_thousand: CannedServer,
) -> None:
    d = connect(hundred_thousand.endpoint_url, bucket_name=ITEMS.bucket)
    list(d.keys(stop="0"))
    hundred_thousand.reset_counts()
    assert len(dict(d.items(start="00050000", stop="00050010"))) == 10
    assert hundred_thousand.counts() == {"ListObjectsV2": 1, "GetObject": 10}


EACH_ITEM: dict[str, Callable[[Dict], Any]] = {
    "items": lambda d: list(d.items()),
    "values": lambda d: list(d.values()),
    "dict": dict,
    "items_and_timestamps": lambda d: list(d.items_and_timestamps()),
}


@pytest.mark.parametrize("how", EACH_ITEM)
@pytest.mark.parametrize("count", COUNTS)
def test_reading_everything_takes_a_request_for_each_item_and_for_each_thousand(
    server: CannedServer, how: str, count: int
) -> None:
    d = connect(server.endpoint_url, bucket_name=f"{count}-items")
    server.reset_counts()
    EACH_ITEM[how](d)
    assert server.counts() == {"ListObjectsV2": math.ceil(count / 1000), "GetObject": count}


# ---------------------------------------------------------------------- consumers that stop


def wait_until_nobody_works(d: Dict) -> None:
    """Let all threads of a dictionary meet, which none can do that is at anything else."""
    pool = d._s3_store.shared.pool
    meeting = threading.Barrier(pool.max_workers + 1, timeout=60)
    for _ in range(pool.max_workers):
        pool.submit(meeting.wait)
    meeting.wait()


class Stop(Exception):
    """What an interrupted consumer or producer raises."""


def some_then_stop(count: int, element: Callable[[int], Any]) -> Iterator[Any]:
    for number in range(count):
        yield element(number)
    raise Stop


def key_of(number: int) -> str:
    return ITEMS.names()[number].removesuffix(ITEMS.suffix)


def stop_after_one(elements: Iterator[Any]) -> None:
    for _ in elements:
        raise Stop


INTERRUPTED: dict[str, tuple[Callable[[Dict], Any], str]] = {
    "items": (lambda d: stop_after_one(d.items()), "GetObject"),
    "values": (lambda d: stop_after_one(d.values()), "GetObject"),
    "items_and_timestamps": (lambda d: stop_after_one(d.items_and_timestamps()), "GetObject"),
    "a range": (lambda d: stop_after_one(d.items(start=("0",))), "GetObject"),
    "get_many": (lambda d: d.get_many(some_then_stop(200, key_of)), "GetObject"),
    "set_many": (
        lambda d: d.set_many(some_then_stop(200, lambda n: (f"new{n}", n))),
        "PutObject",
    ),
}


@pytest.mark.parametrize("how", INTERRUPTED)
def test_after_an_interruption_no_thread_is_at_work(
    d: Dict, server: CannedServer, how: str
) -> None:
    operation, request = INTERRUPTED[how]
    server.reset_counts()
    with pytest.raises(Stop):
        operation(d)
    wait_until_nobody_works(d)
    sent = server.counts()[request]
    wait_until_nobody_works(d)
    assert server.counts()[request] == sent
    taken = 200 if "many" in how else 1
    assert 0 < sent <= taken + 2 * d._s3_store.shared.pool.max_workers


def test_a_stopped_deletion_deletes_no_further(server: CannedServer) -> None:
    d = connect(server.endpoint_url)
    d.update({str(number): number for number in range(3000)})
    with pytest.raises(Stop):
        d.discard_many(some_then_stop(2500, str))
    wait_until_nobody_works(d)
    assert len(d) >= 500


def test_threads_of_an_abandoned_iteration_go_away(d: Dict) -> None:
    iterator = iter(d.items())
    next(iterator)
    del iterator
    pool = d._s3_store.shared.pool
    for thread in threading.enumerate():
        if thread.name == "persidict":
            thread.join(60)
    assert pool.workers == 0


# ---------------------------------------------------------------------- threads and processes


def test_a_daemon_thread_reads_and_writes_many_items(server: CannedServer) -> None:
    d = connect(server.endpoint_url)
    found: list[Any] = []

    def work() -> None:
        d.update({str(number): number for number in range(300)})
        found.append(dict(d.items()))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert found == [{(str(number),): number for number in range(300)}]


def read_some_keys(d: Dict, place: Place) -> int:
    return len(d.get_many(map(key_of, range(100))))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_forked_in_the_middle_of_an_iteration_read_many_items(d: Dict) -> None:
    iterator = iter(d.items())
    next(iterator)
    assert run_workers(lambda: d, read_some_keys, count=2, start="fork") == [100, 100]
    next(iterator)


AT_EXIT = {
    "an iterator held": "items = iter(d.items()); next(items)",
    "an iterator dropped": "next(iter(d.items()))",
    "an iterator in a daemon thread": """
begun = threading.Event()
def work():
    for _ in d.items():
        begun.set()
threading.Thread(target=work, daemon=True).start()
begun.wait()
""",
    "idle threads": "len(d.get_many(['00000001', '00000002', '00000003']))",
    "bulk in an exit handler": """
import atexit
atexit.register(lambda: print(len(d.get_many(['00000001', '00000002', '00000003']))))
""",
}


@pytest.mark.parametrize("left", AT_EXIT)
def test_a_program_that_ends_with_bulk_under_way_ends_in_peace(
    server: CannedServer, left: str
) -> None:
    ended = run_alone(AT_EXIT[left], server.endpoint_url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == ("3\n" if left.startswith("bulk") else "")


def test_a_program_does_not_wait_at_its_end_for_replies_that_nobody_wants(
    server: CannedServer,
) -> None:
    with FaultProxy(server.endpoint_url) as proxy:
        proxy.script(Fault.PASS, operation="GetObject", key="00000000.pkl")
        proxy.script(*[Fault.STALL] * 1000, operation="GetObject")
        ended = run_alone("next(iter(d.items()))", proxy.endpoint_url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert proxy.injected()[Fault.STALL] > 0


# ---------------------------------------------------------------------- in doubt


class Silent:
    """A server that breaks off instead of answering writes, and says what it has when asked.

    Whoever asks what there is waits until others do, but once in vain.

    Attributes:
        most: How many requests there were at the same time, at most.
        have_met: Whether several have asked at the same time.
    """

    def __init__(self) -> None:
        self.have_met = threading.Event()
        self.most = self._now = self._looks = 0
        self._has_waited = False
        self._lock = threading.Lock()

    def answer(self, request: Arrived) -> bytes:
        is_look = request.method != "PUT"
        with self._lock:
            self._now += 1
            self._looks += is_look
            self.most = max(self.most, self._now)
            if self._looks == 4:
                self.have_met.set()
        try:
            if not is_look:
                raise HangUp
            if not self._has_waited:
                self._has_waited = not self.have_met.wait(5)
            return reply()
        finally:
            with self._lock:
                self._now -= 1
                self._looks -= is_look


@pytest.fixture(params=["auto", "botocore"])
def silent(request: pytest.FixtureRequest) -> Iterator[tuple[Silent, Dict]]:
    behaviour = Silent()
    with scripted(behaviour.answer) as server:
        settings = {"create_bucket": False, "transport": request.param, "max_concurrency": 4}
        yield behaviour, connect(server.endpoint_url, **settings)


def copied(d: Dict, count: int) -> list[tuple[str, object]]:
    store = d._s3_store
    return list(store.copy_many(store, ((f"from{n}", f"to{n}") for n in range(count))))


@pytest.mark.parametrize("count", [4, 8, 40])
@pytest.mark.parametrize("way", ["written", "copied"])
def test_what_became_of_changes_without_an_answer_is_looked_for_at_the_same_time(
    way: str, count: int, silent: tuple[Silent, Dict]
) -> None:
    behaviour, d = silent
    if way == "written":
        outcomes = list(d._s3_store.put_many((str(n), b"") for n in range(count)))
    else:
        outcomes = copied(d, count)
    assert len({name for name, _ in outcomes}) == len(outcomes) == count
    assert all("outcome unknown" in error.__notes__[0] for _, error in outcomes)
    assert behaviour.have_met.is_set()
    assert behaviour.most <= 4


def test_who_stops_while_changes_are_in_doubt_is_not_read_ahead_for(
    silent: tuple[Silent, Dict],
) -> None:
    _, d = silent
    taken = itertools.count()
    outcomes: Any = d._s3_store.put_many((str(n), b"") for n in taken)
    next(outcomes)
    outcomes.close()
    assert next(taken) <= 3 * 4
    wait_until_nobody_works(d)
