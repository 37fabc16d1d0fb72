"""Writers that die: every item is its old or its new value, and nothing else is left."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from persidict import DELETE_CURRENT, ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE, FileDirDict
from persidict.stores.files import platform
from tests.faults import files_below, intercepted_system_calls, run_in_child

# forking is what these tests are about, also from a process that has threads
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

FORK: Any = multiprocessing.get_context("fork")
OLD, NEW = b"old" * 2_000, b"new" * 60_000
OTHERS = {("dir", "sibling"): 1, ("other",): 2}


def dict_in(place: Path, **params: Any) -> FileDirDict[Any]:
    return FileDirDict(base_dir=place / "items", **params)


def content(dictionary: FileDirDict[Any]) -> dict[tuple[str, ...], Any]:
    return {key.strings: value for key, value in dictionary.items()}


def temporary_files(place: Path) -> set[str]:
    return {name for name in files_below(place / "items") if "%" in name}


# ---------------------------------------------------------------------- at each step


@dataclass(frozen=True)
class Change:
    """One operation that makes an old item (None: none) a new one."""

    key: tuple[str, ...]
    old: Any
    new: Any
    make: Callable[[FileDirDict[Any], Any], Any]

    def items(self, value: Any) -> dict[tuple[str, ...], Any]:
        return OTHERS if value is None else {**OTHERS, self.key: value}


def assign(dictionary: FileDirDict[Any], key: Any) -> None:
    dictionary[key] = NEW


def transform(dictionary: FileDirDict[Any], key: Any) -> None:
    dictionary.transform_item(key, transformer=lambda _: NEW)


def transform_away(dictionary: FileDirDict[Any], key: Any) -> None:
    dictionary.transform_item(key, transformer=lambda _: DELETE_CURRENT)


def swap(dictionary: FileDirDict[Any], key: Any) -> None:
    etag = dictionary.etag(key)
    dictionary.set_item_if(key, value=NEW, condition=ETAG_IS_THE_SAME, expected_etag=etag)


def assign_little(dictionary: FileDirDict[Any], key: Any) -> None:
    dictionary[key] = "little"


def insert(dictionary: FileDirDict[Any], key: Any) -> None:
    dictionary.setdefault(key, NEW)


def pop(dictionary: FileDirDict[Any], key: Any) -> None:
    dictionary.pop(key)


BESIDE, ALONE = ("dir", "k"), ("lone", "deep", "k")

CHANGES = {
    "overwriting": Change(BESIDE, OLD, NEW, assign),
    "transforming": Change(BESIDE, OLD, NEW, transform),
    "swapping": Change(BESIDE, OLD, NEW, swap),
    "adding": Change(BESIDE, None, NEW, assign),
    "adding in new directories": Change(ALONE, None, NEW, assign),
    "overwriting a little": Change(BESIDE, OLD, "little", assign_little),
    "adding a little in new directories": Change(ALONE, None, "little", assign_little),
    "inserting if absent": Change(ALONE, None, NEW, insert),
    "popping": Change(BESIDE, OLD, None, pop),
    "popping the last of its directories": Change(ALONE, OLD, None, pop),
    "deleting by a transformer": Change(BESIDE, OLD, None, transform_away),
}


def die_at(step: int, change: Change, dictionary: FileDirDict[Any]) -> None:
    """Make a change, but be killed ahead of the n-th system call, or halfway through a write."""
    calls = itertools.count(1)

    def die_if_due(name: str, arguments: tuple[Any, ...]) -> None:
        if next(calls) == step:
            if name == "write":
                descriptor, data = arguments
                os.write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    with intercepted_system_calls(die_if_due):
        change.make(dictionary, change.key)


@pytest.mark.parametrize(
    ("name", "fsync"),
    [
        *((name, "a little" not in name) for name in CHANGES),
        ("overwriting", False),
        ("swapping", False),
    ],
)
def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_item_and_nothing_else(
    name: str, fsync: bool, tmp_path: Path
) -> None:
    change = CHANGES[name]
    outcomes = []
    for step in itertools.count(1):
        place = tmp_path / str(step)
        dictionary = dict_in(place, fsync=fsync)
        dictionary.update(change.items(change.old))
        exit_code = run_in_child(die_at, step, change, dictionary)
        outcomes.append(content(dict_in(place)))
        assert outcomes[-1] in (change.items(change.old), change.items(change.new))
        assert temporary_files(place) == set()
        dictionary[change.key] = "next"
        assert content(dictionary) == change.items("next")
        if exit_code == 0:
            break
        assert exit_code == -signal.SIGKILL
    assert outcomes[0] == change.items(change.old)
    assert outcomes[-1] == change.items(change.new)


def die_between_exchange_and_unlink(dictionary: FileDirDict[Any]) -> None:
    has_exchanged = False

    def die_if_due(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal has_exchanged
        if name == "unlink" and has_exchanged:
            os.kill(os.getpid(), signal.SIGKILL)
        has_exchanged = has_exchanged or name == "renameat2"

    with intercepted_system_calls(die_if_due):
        dictionary[BESIDE] = NEW


@pytest.mark.skipif(not platform.load_renameat2(), reason="files cannot be exchanged here")
def test_a_writer_killed_between_exchange_and_unlink_loses_nothing_and_the_old_file_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "can_exchange", lambda status: True)  # also on tmpfs
    dictionary = dict_in(tmp_path, fsync=False)
    dictionary.update({**OTHERS, BESIDE: OLD})
    assert run_in_child(die_between_exchange_and_unlink, dictionary) == -signal.SIGKILL
    assert len(temporary_files(tmp_path)) == 1
    assert dictionary[BESIDE] == NEW
    assert content(dictionary) == {**OTHERS, BESIDE: NEW}
    assert temporary_files(tmp_path) == set()


# ---------------------------------------------------------------------- at random moments


def value_number(number: int) -> bytes:
    return b"%d " % number * (1 + number * 7919 % 50_000)


def write_200_times(dictionary: FileDirDict[Any], first: int, reports: Connection) -> None:
    """Write, transform and delete items, telling when each change begins and is done."""
    for number in range(first, first + 200):
        reports.send(("begin", number))
        key, value = effect_of(number)
        if value is None:
            dictionary.discard(key)
        elif number % 3:
            dictionary[key] = value
        else:
            dictionary.transform_item(key, transformer=partial(replace_by, value))
        reports.send(("done", number))


def replace_by(value: Any, _: Any) -> Any:
    return value


def effect_of(number: int) -> tuple[tuple[str, ...], bytes | None]:
    key = (f"dir{number % 3}", f"k{number % 5}")
    return key, None if number % 7 == 0 else value_number(number)


@contextmanager
def reporting_child(work: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Connection]]:
    """Run ``work(*arguments, reports)`` in a child; give the child and what it reports."""
    reports, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=work, args=(*arguments, sender), daemon=True)
    child.start()
    sender.close()
    try:
        yield child, reports
    finally:
        child.kill()
        child.join()
        reports.close()


def remaining(reports: Connection) -> Iterator[Any]:
    """Iterate over what a dead child still had reported."""
    while True:
        try:
            yield reports.recv()
        except EOFError:
            return


@pytest.mark.parametrize("fsync", [True, False], ids=["synced", "not synced"])
def test_what_was_acknowledged_before_a_kill_is_there_and_what_was_not_is_old_or_new(
    fsync: bool, tmp_path: Path
) -> None:
    rng = random.Random(20)
    dictionary = dict_in(tmp_path, fsync=fsync)
    expected: dict[tuple[str, ...], Any] = {}
    for first in range(0, 2000, 200):
        with reporting_child(write_200_times, dictionary, first) as (child, reports):
            received = [reports.recv() for _ in range(rng.randrange(1, 300))]
            time.sleep(rng.uniform(0, 0.003))  # picks the moment; there is nothing to wait for
            child.kill()
            received += remaining(reports)
        possible = [apply(expected, received, "done"), apply(expected, received, "begin")]
        found = content(dictionary)
        assert found in possible
        assert temporary_files(tmp_path) == set()
        expected = found


def apply(
    items: dict[tuple[str, ...], Any], reports: list[tuple[str, int]], event: str
) -> dict[tuple[str, ...], Any]:
    """Return what the items are after all changes that got as far as an event."""
    items = dict(items)
    for reported, number in reports:
        if reported == event:
            key, value = effect_of(number)
            items[key] = value
    return {key: value for key, value in items.items() if value is not None}


def update_all(
    dictionary: FileDirDict[Any], keys: list[tuple[str, str]], value: int, reports: Connection
) -> None:
    reports.send("begin")
    dictionary.update(dict.fromkeys(keys, value))


def test_an_update_killed_halfway_leaves_each_item_old_or_new(tmp_path: Path) -> None:
    rng = random.Random(22)
    dictionary = dict_in(tmp_path)
    keys = [(f"dir{number % 3}", f"k{number}") for number in range(60)]
    dictionary.update(dict.fromkeys(keys, 0))
    found: dict[tuple[str, ...], Any] = content(dictionary)
    for value in range(1, 15):
        with reporting_child(update_all, dictionary, keys, value) as (child, reports):
            assert reports.recv() == "begin"
            time.sleep(rng.uniform(0, 0.03))  # picks the moment; there is nothing to wait for
            child.kill()
        before, found = found, content(dictionary)
        assert all(found[key] in (before[key], value) for key in keys)
        assert set(found) == set(keys)
        assert temporary_files(tmp_path) == set()


def count_up(dictionary: FileDirDict[Any], reports: Connection) -> None:
    while True:
        dictionary.transform_item(
            "n", transformer=lambda n: 1 if n is ITEM_NOT_AVAILABLE else n + 1, n_retries=None
        )
        reports.send(1)


def test_a_killed_writer_keeps_no_lock_and_loses_no_acknowledged_increment(
    tmp_path: Path,
) -> None:
    rng = random.Random(21)
    dictionary = dict_in(tmp_path, fsync=False)
    acknowledged = killed = 0
    with reporting_child(count_up, dictionary) as (survivor, survivor_reports):
        for _ in range(25):
            with reporting_child(count_up, dictionary) as (victim, reports):
                received = [reports.recv() for _ in range(rng.randrange(1, 20))]
                victim.kill()
                received += remaining(reports)
                acknowledged += sum(received)
                killed += 1
            assert survivor_reports.poll(30), "the survivor waits for a dead writer"
            acknowledged += survivor_reports.recv()
        survivor.kill()
        acknowledged += sum(remaining(survivor_reports))
        killed += 1
    assert acknowledged <= dictionary["n"] <= acknowledged + killed


# ---------------------------------------------------------------------- living writers


def pause_at(
    call: str,
    times: int,
    dictionary: FileDirDict[Any],
    key: Any,
    value: Any,
    orders: Connection,
    reports: Connection,
) -> None:
    """Assign an item, but stop ahead of the first calls of one kind until told to go on."""
    remaining_pauses = times

    def pause(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal remaining_pauses
        if name == call and remaining_pauses:
            remaining_pauses -= 1
            reports.send("paused")
            orders.recv()

    with intercepted_system_calls(pause):
        dictionary[key] = value
    reports.send("written")


@pytest.mark.parametrize(
    ("call", "fsync", "value"),
    [("fsync", True, NEW), ("replace", True, NEW), ("utime", False, NEW), ("utime", False, 1)],
)
def test_the_temporary_file_of_a_living_writer_is_left_alone(
    call: str, fsync: bool, value: Any, tmp_path: Path
) -> None:
    dictionary = dict_in(tmp_path, fsync=fsync)
    dictionary["dir", "sibling"] = 1
    received, orders = FORK.Pipe(duplex=False)
    with reporting_child(pause_at, call, 1, dictionary, BESIDE, value, received) as (_, reports):
        assert reports.recv() == "paused"
        before = temporary_files(tmp_path)
        assert list(dictionary) == [("dir", "sibling")]
        after = temporary_files(tmp_path)
        orders.send("go on")
        assert reports.recv() == "written"
    assert len(before) == 1
    assert after == before
    assert content(dictionary) == {("dir", "sibling"): 1, BESIDE: value}


def test_a_writer_whose_new_file_was_taken_for_a_dead_ones_writes_all_the_same(
    tmp_path: Path,
) -> None:
    dictionary = dict_in(tmp_path)
    received, orders = FORK.Pipe(duplex=False)
    with reporting_child(pause_at, "flock", 1, dictionary, ALONE, NEW, received) as (_, reports):
        assert reports.recv() == "paused"
        assert len(temporary_files(tmp_path)) == 1
        assert list(dictionary) == []
        assert temporary_files(tmp_path) == set()
        orders.send("go on")
        assert reports.recv() == "written"
    assert content(dictionary) == {ALONE: NEW}
    assert temporary_files(tmp_path) == set()


def test_a_writer_whose_directory_is_removed_and_made_anew_writes_into_the_new_one(
    tmp_path: Path,
) -> None:
    dictionary = dict_in(tmp_path, fsync=False)
    dictionary["lone", "other"] = 1
    received, orders = FORK.Pipe(duplex=False)
    with reporting_child(pause_at, "flock", 1, dictionary, ("lone", "k"), 2, received) as (
        _,
        reports,
    ):
        assert reports.recv() == "paused"
        del dictionary["lone", "other"]
        dictionary["lone", "other"] = 3
        orders.send("go on")
        assert reports.recv() == "written"
    assert content(dictionary) == {("lone", "k"): 2, ("lone", "other"): 3}
    assert temporary_files(tmp_path) == set()
