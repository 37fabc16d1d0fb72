"""Many processes that take and insert the same items, on servers that delete whatever is there."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from persidict import (
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    ConcurrencyConflictError,
    PersiDict,
)
from tests.concurrency import Factory, Place, do_random_histories, joined, run_workers
from tests.linearizability import assert_linearizable
from tests.s3_dicts import connect, elsewhere_or_skip, short_pauses
from tests.s3_servers.canned import CannedServer, start_canned
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import localstack_server
from tests.s3_servers.quirks import CEPH

__all__ = ["localstack_server", "short_pauses"]

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("PERSIDICT_TEST_HISTORIES", "10"))
RUNS_ELSEWHERE = int(os.environ.get("PERSIDICT_TEST_HISTORIES", "1"))
"""On real servers, of which LocalStack takes 4 s of computing for a run."""
PROCESSES = 8
ITEMS = 200

TransportError = (ClientError, BotoCoreError)
FAULTS = [
    Fault.DROP_REPLY,
    Fault.RESET_AFTER,
    Fault.ERROR_500_AFTER,
    Fault.RESET_BEFORE,
    Fault.ERROR_500,
    Fault.SLOW_DOWN,
]

Taken = tuple[list[str], int]
"""The keys that somebody was told to have taken, and how often there was an error instead."""


def on(*servers: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("connection", servers, indirect=True)


everywhere = on("ceph's conditions", "localstack", "elsewhere")


@pytest.fixture
def connection(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Endpoint and credentials of a server that knows conditions on PUT alone."""
    if request.param == "elsewhere":
        return elsewhere_or_skip()
    if request.param == "localstack":
        return (request.getfixturevalue("localstack_server").endpoint_url,)
    return (request.getfixturevalue("like_ceph").endpoint_url,)


@pytest.fixture(scope="module")
def like_ceph() -> Iterator[CannedServer]:
    """A quick server with the conditions of Ceph's."""
    with start_canned(quirks=CEPH) as server:
        yield server


@pytest.fixture
def runs(request: pytest.FixtureRequest, connection: tuple[str, ...]) -> range:
    """As many runs as there are to be on the server."""
    is_quick = request.node.callspec.params["connection"] == "ceph's conditions"
    return range(RUNS if is_quick else RUNS_ELSEWHERE)


@pytest.fixture
def factory(connection: tuple[str, ...]) -> Factory:
    return partial(connect, *connection, bucket_name=new_bucket_name())


@pytest.fixture
def troubled(connection: tuple[str, ...], short_pauses: None) -> Iterator[tuple[Factory, Factory]]:
    """The same bucket reached through a proxy that fails 10 % of the requests, and directly."""
    bucket = new_bucket_name()
    with FaultProxy(connection[0], delay=0.01) as proxy:
        endpoint, *credentials = proxy.endpoint_url, *connection[1:]
        behind = partial(connect, endpoint, *credentials, bucket_name=bucket)
        assert behind().capabilities.one_taker
        proxy.fail_randomly(dict.fromkeys(FAULTS, 0.1 / len(FAULTS)), seed=1)
        yield behind, partial(connect, *connection, bucket_name=bucket)


def filled(factory: Factory, runs: range) -> list[str]:
    """Store the items to be taken, as many for each run; return their keys."""
    keys = [f"k{number:03}" for number in range(ITEMS)]
    factory().update({(f"run{run}", key): 1 for run in runs for key in keys})
    return keys


def in_each_run(d: PersiDict[Any], place: Place, runs: range, work: Any, *arguments: Any) -> Any:
    """Do some work once for each run, in step with all others."""
    outcomes = []
    for run in runs:
        place.meet()
        outcomes.append(work(d.get_subdict(f"run{run}"), place, *arguments))
    return outcomes


def carried_out(
    factory: Factory, direct: Factory, runs: range, *work: Any
) -> Iterator[tuple[PersiDict[Any], list[Taken]]]:
    """Let processes do some work; yield for each run what is left, and what came of it by process.

    Args:
        factory: Makes what they work on.
        direct: Makes what is to be looked at afterwards.
        runs: The runs.
        *work: What each of them does, and with which arguments.
    """
    arguments = (in_each_run, runs, *work)
    by_process = run_workers(factory, *arguments, count=PROCESSES, timeout=60 + 40 * len(runs))
    for run, *outcomes in zip(runs, *by_process, strict=True):
        yield direct().get_subdict(f"run{run}"), outcomes


# ---------------------------------------------------------------------- ways of taking


def _pop(d: PersiDict[Any], key: str) -> bool:
    return d.pop(key, None) is not None


def _discard(d: PersiDict[Any], key: str) -> bool:
    return d.discard(key)


def _discard_if(d: PersiDict[Any], key: str) -> bool:
    seen = d.get_with_etag(key).actual_etag
    if seen is ITEM_NOT_AVAILABLE:
        return False
    done = d.discard_if(key, condition=ETAG_IS_THE_SAME, expected_etag=seen)
    return done.value_was_mutated


def _set_to_nothing(d: PersiDict[Any], key: str) -> bool:
    done = d.set_item_if(
        key, value=DELETE_CURRENT, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    )
    return done.value_was_mutated


def _transform(d: PersiDict[Any], key: str) -> bool:
    seen: list[Any] = []

    def take(value: Any) -> Any:
        seen.append(value)
        return KEEP_CURRENT if value is ITEM_NOT_AVAILABLE else DELETE_CURRENT

    d.transform_item(key, transformer=take, n_retries=None)
    return seen[-1] is not ITEM_NOT_AVAILABLE


WAYS: dict[str, Callable[[PersiDict[Any], str], bool]] = {
    "pop": _pop,
    "discard": _discard,
    "discard_if": _discard_if,
    "set_item_if": _set_to_nothing,
    "transform_item": _transform,
}


def take_each(d: PersiDict[Any], place: Place, keys: list[str], way: str) -> Taken:
    """Try to take every key, in an order of one's own."""
    taken, errors = [], 0
    for key in random.Random(place.index).sample(keys, len(keys)):
        try:
            if WAYS[way](d, key):
                taken.append(key)
        except TransportError:
            errors += 1
    return taken, errors


def take_any(d: PersiDict[Any], place: Place, report: Callable[[str], Any]) -> Taken:
    """Take items until there are none."""
    taken: list[str] = []
    errors = 0
    while True:
        try:
            [key] = d.popitem()[0].strings
        except KeyError:
            return taken, errors
        except TransportError:
            errors += 1
        else:
            report(key)
            taken.append(key)


def nobody(key: str) -> None:
    """Report to nobody."""


def assert_taken_once(outcomes: list[Taken], keys: list[str], *, may_lack: int) -> None:
    counts = Counter(key for taken, _ in outcomes for key in taken)
    assert [key for key, count in counts.items() if count > 1] == []
    assert set(counts) <= set(keys)
    assert len(keys) - len(counts) <= may_lack


# ---------------------------------------------------------------------- taking


@everywhere
@pytest.mark.parametrize("way", WAYS)
def test_eight_processes_take_every_item_exactly_once(
    factory: Factory, runs: range, way: str
) -> None:
    keys = filled(factory, runs)
    for left, outcomes in carried_out(factory, factory, runs, take_each, keys, way):
        assert_taken_once(outcomes, keys, may_lack=0)
        assert list(left) == []


@everywhere
def test_eight_processes_that_take_any_item_get_each_exactly_once(
    factory: Factory, runs: range
) -> None:
    keys = filled(factory, runs)
    for _, outcomes in carried_out(factory, factory, runs, take_any, nobody):
        assert_taken_once(outcomes, keys, may_lack=0)


@everywhere
@pytest.mark.parametrize("way", ["pop", "discard_if", "transform_item"])
def test_while_requests_meet_faults_no_item_is_taken_twice_and_none_is_lost_unsaid(
    troubled: tuple[Factory, Factory], runs: range, way: str
) -> None:
    behind, direct = troubled
    keys = filled(direct, runs)
    for left, outcomes in carried_out(behind, direct, runs, take_each, keys, way):
        unheard = sum(errors for _, errors in outcomes)
        assert_taken_once(outcomes, keys, may_lack=len(left) + unheard)


@everywhere
def test_while_requests_meet_faults_popitem_hands_out_every_item_exactly_once(
    troubled: tuple[Factory, Factory], runs: range
) -> None:
    behind, direct = troubled
    keys = filled(direct, runs)
    for left, outcomes in carried_out(behind, direct, runs, take_any, nobody):
        assert list(left) == []
        assert_taken_once(outcomes, keys, may_lack=0)


@everywhere
def test_of_processes_that_are_killed_each_loses_at_most_the_item_in_its_hand(
    factory: Factory, runs: range, tmp_path: Path
) -> None:
    keys = filled(factory, runs)
    for run in runs:
        log = tmp_path / f"taken{run}"
        killed = _take_and_be_killed(factory().get_subdict(f"run{run}"), log, range(20, ITEMS, 40))
        taken = log.read_text().split()
        assert len(taken) == len(set(taken))
        assert len(keys) - len(taken) <= killed
        assert list(factory().get_subdict(f"run{run}")) == []


def _take_and_be_killed(d: PersiDict[Any], log: Path, moments: range) -> int:
    """Let processes take all items, and kill some in the middle of it; return how many."""
    context = multiprocessing.get_context("fork")
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    reader, writer = os.pipe()

    def report(key: str) -> None:
        os.write(descriptor, f"{key}\n".encode())
        os.write(writer, b".")

    def work() -> None:
        os.close(reader)
        take_any(d, Place(0, 1, lambda: None), report)

    processes = [context.Process(target=work, daemon=True) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    os.close(writer)
    victims = iter(processes)
    taken = killed = 0
    while os.read(reader, 1):  # ends when all writers have
        taken += 1
        if taken in moments:
            victim = next(victims)
            if victim.is_alive() and victim.pid is not None:
                os.kill(victim.pid, signal.SIGKILL)
                killed += 1
    for process in processes:
        process.join(60)
    os.close(reader)
    os.close(descriptor)
    return killed


# ---------------------------------------------------------------------- inserting meanwhile

KEYS = ["a", "b", "c"]
TOKENS = 15
"""How many values each process inserts that does so."""


def insert_or_take(
    d: PersiDict[Any], place: Place, way: str, inserters: Any
) -> tuple[list[Any], list[Any], list[Any]]:
    """Insert values of one's own, or take out what there is until nobody inserts any more.

    Returns:
        What was inserted, what became of which is unknown, and what was taken.
    """
    insert, take = INSERTIONS[way]
    inserted: list[Any] = []
    unknown: list[Any] = []
    taken: list[Any] = []
    keys = itertools.cycle(KEYS)
    if place.index % 2:
        for number in range(TOKENS):
            token = (place.index, number)
            try:
                while (found := insert(d, next(keys), token)) is None:
                    continue
                inserted.append(found)
            except TransportError:
                unknown.append(token)
        with inserters.get_lock():
            inserters.value -= 1
        return inserted, unknown, taken
    while inserters.value or any(key in d for key in KEYS):
        try:
            found = take(d, next(keys))
        except TransportError:
            unknown.append(None)
        else:
            taken += [] if found is None else [found]
    return inserted, unknown, taken


def _by_setdefault(d: PersiDict[Any], key: str, token: Any) -> Any:
    try:
        return token if d.setdefault(key, token) == token else None
    except ConcurrencyConflictError:
        return None


def _by_transforming(d: PersiDict[Any], key: str, token: Any) -> Any:
    def insert(value: Any) -> Any:
        return token if value is ITEM_NOT_AVAILABLE else KEEP_CURRENT

    found = d.transform_item(key, transformer=insert, n_retries=None).new_value
    return token if found == token else None


def _by_version(d: PersiDict[Any], key: str, token: Any) -> Any:
    """Insert without reading; return the version, which names the content."""
    try:
        done = d.set_item_if(
            key,
            value=token,
            condition=ETAG_IS_THE_SAME,
            expected_etag=ITEM_NOT_AVAILABLE,
            retrieve_value=NEVER_RETRIEVE,
        )
    except ConcurrencyConflictError:
        return None
    return done.resulting_etag if done.value_was_mutated else None


def _take_value(d: PersiDict[Any], key: str) -> Any:
    return d.pop(key, None)


def _take_version(d: PersiDict[Any], key: str) -> Any:
    """Take an item without reading it; return its version."""
    done = d.discard_if(key, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE)
    return done.actual_etag if done.value_was_mutated else None


INSERTIONS: dict[
    str,
    tuple[
        Callable[[PersiDict[Any], str, Any], Any],
        Callable[[PersiDict[Any], str], Any],
    ],
] = {
    "setdefault and pop": (_by_setdefault, _take_value),
    "transform_item and pop": (_by_transforming, _take_value),
    "set_item_if and discard_if": (_by_version, _take_version),
}


def exchange(factory: Factory, way: str) -> list[tuple[list[Any], list[Any], list[Any]]]:
    inserters = multiprocessing.get_context("fork").Value("i", PROCESSES // 2)
    return run_workers(
        factory, insert_or_take, way, inserters, count=PROCESSES, start="fork", timeout=280
    )


def assert_none_is_lost(factory: Factory, way: str) -> None:
    outcomes = exchange(factory, way)
    inserted = sorted(token for done, _, _ in outcomes for token in done)
    assert len(inserted) == PROCESSES // 2 * TOKENS
    assert sorted(token for _, _, taken in outcomes for token in taken) == inserted


@everywhere
@pytest.mark.parametrize("way", INSERTIONS)
def test_no_insertion_is_lost_that_races_with_deletions(
    factory: Factory, runs: range, way: str
) -> None:
    for _ in runs:
        assert_none_is_lost(factory, way)


@everywhere
def test_no_insertion_is_lost_unsaid_that_races_with_deletions_while_requests_meet_faults(
    troubled: tuple[Factory, Factory], runs: range
) -> None:
    behind, _ = troubled
    for _ in runs:
        outcomes = exchange(behind, "setdefault and pop")
        taken = Counter(token for _, _, mine in outcomes for token in mine)
        inserted = {token for done, _, _ in outcomes for token in done}
        unknown = [token for _, unheard, _ in outcomes for token in unheard]
        assert [token for token, count in taken.items() if count > 1] == []
        assert set(taken) - inserted <= set(unknown)
        assert len(inserted - set(taken)) <= unknown.count(None)


# ---------------------------------------------------------------------- at random


@everywhere
def test_operations_of_all_kinds_but_blind_assignments_have_an_order(
    factory: Factory, runs: range
) -> None:
    arguments = (len(runs), 40, (), ["assign"])
    history = run_workers(
        factory, do_random_histories, *arguments, count=4, timeout=60 + 40 * len(runs)
    )
    assert_linearizable(joined(history))


@everywhere
def test_under_faults_they_have_one_in_which_only_what_was_raised_is_unknown(
    troubled: tuple[Factory, Factory], runs: range
) -> None:
    arguments = (len(runs), 40, TransportError, ["assign"])
    history = run_workers(
        troubled[0], do_random_histories, *arguments, count=3, timeout=60 + 40 * len(runs)
    )
    assert_linearizable(joined(history))
