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
from tests.concurrency import Factory, Place, do_random_operations, joined, run_workers
from tests.linearizability import assert_linearizable
from tests.s3_dicts import connect, elsewhere_or_skip
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import localstack_server, moto_aws_server, moto_like
from tests.s3_servers.quirks import CEPH

__all__ = ["localstack_server", "moto_aws_server", "moto_like"]

pytestmark = pytest.mark.slow

RUNS = int(os.environ.get("PERSIDICT_TEST_HISTORIES", "1"))
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
    return (request.getfixturevalue("moto_like")(CEPH).endpoint_url,)


@pytest.fixture
def factory(connection: tuple[str, ...]) -> Factory:
    return partial(connect, *connection, bucket_name=new_bucket_name())


@pytest.fixture
def troubled(connection: tuple[str, ...]) -> Iterator[tuple[Factory, Factory]]:
    """The same bucket reached through a proxy that fails 10 % of the requests, and directly."""
    bucket = new_bucket_name()
    with FaultProxy(connection[0], delay=0.01) as proxy:
        endpoint, *credentials = proxy.endpoint_url, *connection[1:]
        behind = partial(connect, endpoint, *credentials, bucket_name=bucket)
        assert behind().capabilities.one_taker
        proxy.fail_randomly(dict.fromkeys(FAULTS, 0.1 / len(FAULTS)), seed=1)
        yield behind, partial(connect, *connection, bucket_name=bucket)


def filled(factory: Factory) -> list[str]:
    """Store the items to be taken; return their keys."""
    keys = [f"k{number:03}" for number in range(ITEMS)]
    factory().update(dict.fromkeys(keys, 1))
    return keys


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
def test_eight_processes_take_every_item_exactly_once(factory: Factory, way: str) -> None:
    for _ in range(RUNS):
        keys = filled(factory)
        outcomes = run_workers(factory, take_each, keys, way, count=PROCESSES, timeout=250)
        assert_taken_once(outcomes, keys, may_lack=0)
        assert list(factory()) == []


@everywhere
def test_eight_processes_that_take_any_item_get_each_exactly_once(factory: Factory) -> None:
    for _ in range(RUNS):
        keys = filled(factory)
        outcomes = run_workers(factory, take_any, nobody, count=PROCESSES, timeout=250)
        assert_taken_once(outcomes, keys, may_lack=0)


@everywhere
@pytest.mark.parametrize("way", ["pop", "discard_if", "transform_item"])
def test_while_requests_meet_faults_no_item_is_taken_twice_and_none_is_lost_unsaid(
    troubled: tuple[Factory, Factory], way: str
) -> None:
    behind, direct = troubled
    for _ in range(RUNS):
        keys = filled(direct)
        outcomes = run_workers(behind, take_each, keys, way, count=PROCESSES, timeout=280)
        left = list(direct())
        assert_taken_once(outcomes, keys, may_lack=len(left) + sum(e for _, e in outcomes))
        direct().clear()


@everywhere
def test_while_requests_meet_faults_popitem_hands_out_every_item_exactly_once(
    troubled: tuple[Factory, Factory],
) -> None:
    behind, direct = troubled
    for _ in range(RUNS):
        keys = filled(direct)
        outcomes = run_workers(behind, take_any, nobody, count=PROCESSES, timeout=280)
        assert list(direct()) == []
        assert_taken_once(outcomes, keys, may_lack=0)


@everywhere
def test_of_processes_that_are_killed_each_loses_at_most_the_item_in_its_hand(
    factory: Factory, tmp_path: Path
) -> None:
    for run in range(RUNS):
        keys = filled(factory)
        log = tmp_path / f"taken{run}"
        killed = _take_and_be_killed(factory, log, range(20, ITEMS, 40))
        taken = log.read_text().split()
        assert len(taken) == len(set(taken))
        assert len(keys) - len(taken) <= killed
        assert list(factory()) == []


def _take_and_be_killed(factory: Factory, log: Path, moments: range) -> int:
    """Let processes take all items, and kill some in the middle of it; return how many."""
    context = multiprocessing.get_context("fork")
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    reader, writer = os.pipe()

    def report(key: str) -> None:
        os.write(descriptor, f"{key}\n".encode())
        os.write(writer, b".")

    def work() -> None:
        os.close(reader)
        take_any(factory(), Place(0, 1, lambda: None), report)

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

WITHOUT_READING = "set_item_if and discard_if"
"""LocalStack, whatever the client, stops answering where one object is read and replaced a lot."""


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


@on("ceph's conditions", "elsewhere")
@pytest.mark.parametrize("way", INSERTIONS)
def test_no_insertion_is_lost_that_races_with_deletions(factory: Factory, way: str) -> None:
    for _ in range(RUNS):
        assert_none_is_lost(factory, way)


@on("localstack")
def test_on_localstack_no_insertion_is_lost_that_races_with_deletions(factory: Factory) -> None:
    for _ in range(RUNS):
        assert_none_is_lost(factory, WITHOUT_READING)


@on("ceph's conditions", "elsewhere")
def test_no_insertion_is_lost_unsaid_that_races_with_deletions_while_requests_meet_faults(
    troubled: tuple[Factory, Factory],
) -> None:
    behind, _ = troubled
    for _ in range(RUNS):
        outcomes = exchange(behind, "setdefault and pop")
        taken = Counter(token for _, _, mine in outcomes for token in mine)
        inserted = {token for done, _, _ in outcomes for token in done}
        unknown = [token for _, unheard, _ in outcomes for token in unheard]
        assert [token for token, count in taken.items() if count > 1] == []
        assert set(taken) - inserted <= set(unknown)
        assert len(inserted - set(taken)) <= unknown.count(None)


# ---------------------------------------------------------------------- at random


@on("ceph's conditions", "elsewhere")
@pytest.mark.parametrize("run", range(2 * RUNS))
def test_operations_of_all_kinds_but_blind_assignments_have_an_order(
    factory: Factory, run: int
) -> None:
    arguments = (["x", "y"], 40, (), run, ["assign"])
    history = joined(run_workers(factory, do_random_operations, *arguments, count=4, timeout=200))
    assert_linearizable(history)


@on("ceph's conditions", "elsewhere")
@pytest.mark.parametrize("run", range(2 * RUNS))
def test_under_faults_they_have_one_in_which_only_what_was_raised_is_unknown(
    troubled: tuple[Factory, Factory], run: int
) -> None:
    arguments = (["x", "y"], 40, TransportError, run, ["assign"])
    history = joined(
        run_workers(troubled[0], do_random_operations, *arguments, count=3, timeout=250)
    )
    assert_linearizable(history)
