"""Many threads and processes on one dictionary: exact totals, and histories that have an order."""

from __future__ import annotations

import copy
import multiprocessing
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ITEM_NOT_AVAILABLE,
    FileDirDict,
    LocalDict,
    PersiDict,
    SQLiteDict,
)
from tests.concurrency import (
    Factory,
    Insertion,
    Place,
    StartMethod,
    do_random_operations,
    increment,
    joined,
    pop_each_key,
    pop_every_item,
    race_to_insert,
    run_workers,
)
from tests.linearizability import (
    UNCHANGED,
    UNKNOWN,
    Operation,
    Version,
    assert_linearizable,
    assert_versions_are_unique,
)
from tests.recording import Recorder

# forking is what these tests are about, also from a process that has threads
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

FactoryMaker = Callable[..., Factory]


def files(tmp_path: Path, **params: Any) -> Factory:
    return partial(FileDirDict, base_dir=str(tmp_path / "items"), **{"fsync": False, **params})


def ram(tmp_path: Path, **params: Any) -> Factory:
    return partial(copy.copy, LocalDict(**params))


def database(tmp_path: Path, **params: Any) -> Factory:
    return partial(SQLiteDict, path=str(tmp_path / "items.db"), **{"fsync": False, **params})


EVERYWHERE = pytest.mark.parametrize(
    ("make", "start"),
    [
        (ram, "thread"),
        (files, "thread"),
        (files, "fork"),
        (database, "thread"),
        (database, "fork"),
    ],
    ids=[
        "RAM among threads",
        "files among threads",
        "files among processes",
        "a database among threads",
        "a database among processes",
    ],
)


def assert_has_an_order(history: list[Operation]) -> None:
    assert history
    assert_versions_are_unique(history)
    assert_linearizable(history)


def assert_no_version_was_replaced_twice(history: list[Operation]) -> None:
    """No compare-and-swap went through against a version that was no longer current."""
    replaced = Counter(
        (operation.key, operation.found.etag)
        for operation in history
        if isinstance(operation.found, Version)
        and operation.found.etag is not UNKNOWN
        and operation.left is not UNCHANGED
    )
    assert [name for name, count in replaced.items() if count > 1] == []


# ---------------------------------------------------------------------- counters


@pytest.mark.parametrize(
    ("make", "params"),
    [
        (ram, {}),
        (files, {"fsync": False}),
        (files, {"fsync": True}),
        (database, {}),
        (database, {"large_value_size": 1}),
    ],
    ids=["RAM", "files", "synced files", "a database", "files beside a database"],
)
def test_eight_threads_that_increment_500_times_count_to_4000(
    make: FactoryMaker, params: dict[str, Any], tmp_path: Path
) -> None:
    factory = make(tmp_path, **params)
    history = joined(run_workers(factory, increment, "counter", 500, start="thread"))
    assert factory()["counter"] == 4000
    assert_has_an_order(history)


@pytest.mark.parametrize("make", [files, database])
@pytest.mark.parametrize(
    ("start", "fsync"),
    [("fork", False), ("fork", True), ("spawn", False)],
    ids=["forked", "forked, synced", "spawned"],
)
def test_eight_processes_that_increment_200_times_count_to_1600(
    start: StartMethod, fsync: bool, make: FactoryMaker, tmp_path: Path
) -> None:
    factory = make(tmp_path, fsync=fsync)
    history = joined(run_workers(factory, increment, "counter", 200, start=start))
    assert factory()["counter"] == 1600
    assert_has_an_order(history)


def increment_from_threads(
    dictionary: PersiDict[Any], place: Place, key: Any, times: int
) -> list[Operation]:
    return joined(run_workers(lambda: dictionary, increment, key, times, count=3, start="thread"))


@pytest.mark.parametrize("make", [files, database])
def test_threads_of_several_processes_that_increment_lose_nothing(
    make: FactoryMaker, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    history = joined(run_workers(factory, increment_from_threads, ("a", "b"), 100, count=3))
    assert factory()["a", "b"] == 900
    assert_has_an_order(history)


def increment_through_a_view(dictionary: PersiDict[Any], place: Place, times: int) -> None:
    part, key = [
        (dictionary, ("a", "b", "n")),
        (dictionary.get_subdict("a"), ("b", "n")),
        (dictionary.get_subdict(("a", "b")), ("n",)),
    ][place.index % 3]
    for _ in range(times):
        part.transform_item(
            key, transformer=lambda n: 1 if n is ITEM_NOT_AVAILABLE else n + 1, n_retries=None
        )


@EVERYWHERE
def test_a_dictionary_and_its_subdictionaries_count_together(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    run_workers(factory, increment_through_a_view, 50, count=6, start=start)
    assert factory()["a", "b", "n"] == 300


# ---------------------------------------------------------------------- everything at once


@EVERYWHERE
def test_operations_of_all_kinds_on_few_items_have_an_order(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    history = joined(run_workers(factory, do_random_operations, ["x", "y"], 200, start=start))
    assert_no_version_was_replaced_twice(history)
    assert_has_an_order(history)


@EVERYWHERE
def test_operations_in_directories_that_empty_and_come_back_have_an_order(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    keys = [("dir", "sub", "x"), ("dir", "y")]
    history = joined(run_workers(factory, do_random_operations, keys, 150, start=start))
    assert_no_version_was_replaced_twice(history)
    assert_has_an_order(history)


def replace_by(value: Any, _: Any) -> Any:
    return value


def swap_or_write(
    dictionary: PersiDict[Any], place: Place, key: str, times: int
) -> list[Operation]:
    """Half of the workers compare and swap, the others write without looking."""
    recorder = Recorder(dictionary, f"worker {place.index}")
    for number in range(times):
        value = f"{place.index}.{number}"
        if place.index % 2:
            recorder.assign(key, value)
        else:
            recorder.transform(key, partial(replace_by, value))
    return recorder.operations


@EVERYWHERE
def test_no_swap_goes_through_against_a_version_that_a_plain_assignment_replaced(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    history = joined(run_workers(make(tmp_path), swap_or_write, "item", 150, start=start))
    assert_no_version_was_replaced_twice(history)
    assert_has_an_order(history)


def come_and_go(dictionary: PersiDict[Any], place: Place, times: int) -> None:
    """Keep an item of one's own in a directory that others fill and empty as well."""
    key = ("dir", "sub", f"of-worker-{place.index}")
    for number in range(times):
        dictionary[key] = number
        assert dictionary[key] == number
        assert dictionary.pop(key) == number
        assert key not in dictionary


@EVERYWHERE
def test_items_written_while_their_directory_empties_and_comes_back_stay(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    run_workers(factory, come_and_go, 150, start=start)
    assert list(factory()) == []


# ---------------------------------------------------------------------- one winner


@EVERYWHERE
@pytest.mark.parametrize("how", ["assignment", "setdefault", "setdefault_if", "set_item_if"])
def test_of_eight_that_insert_one_wins_and_all_see_its_value(
    make: FactoryMaker, start: StartMethod, how: Insertion, tmp_path: Path
) -> None:
    factory = make(tmp_path, append_only=how == "assignment")
    keys = [("dir", f"k{number}") for number in range(200)]
    history = joined(run_workers(factory, race_to_insert, keys, how, start=start))
    for key in keys:
        operations = [operation for operation in history if operation.key == key]
        [winner] = [o.left.value for o in operations if isinstance(o.left, Version)]
        seen = {o.found.value for o in operations if isinstance(o.found, Version)}
        assert seen - {UNKNOWN} == {winner}
    assert_has_an_order(history)


@EVERYWHERE
def test_popitem_hands_out_every_item_exactly_once(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    items = {(f"dir{number % 7}", f"k{number}"): number for number in range(300)}
    factory().update(items)
    handed_out = [
        pair for pairs in run_workers(factory, pop_every_item, start=start) for pair in pairs
    ]
    assert sorted(handed_out) == sorted(items.items())


@pytest.mark.slow
def test_a_queue_of_20000_files_drained_by_four_processes_gives_each_item_once(
    tmp_path: Path,
) -> None:
    factory = files(tmp_path)
    factory().update({f"k{number}": number for number in range(20_000)})
    handed_out = run_workers(factory, pop_every_item, count=4, timeout=280)
    assert sorted(value for pairs in handed_out for _, value in pairs) == list(range(20_000))


@EVERYWHERE
def test_pop_hands_out_every_item_exactly_once(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    items = {(f"dir{number % 7}", f"k{number}"): number for number in range(100)}
    factory().update(items)
    popped = run_workers(factory, pop_each_key, list(items), start=start)
    assert sorted(pair for pairs in popped for pair in pairs) == sorted(items.items())


def pop_while_others_add(dictionary: PersiDict[Any], place: Place, times: int) -> Counter[str]:
    """Add items and take as many out, whoever added them."""
    balance: Counter[str] = Counter()
    for number in range(times):
        value = f"{place.index}.{number}"
        dictionary[f"dir{number % 3}", value] = value
        balance[value] += 1
        try:
            balance[dictionary.popitem()[1]] -= 1
        except KeyError:
            continue
    return balance


@EVERYWHERE
def test_items_added_and_popped_at_once_are_each_handed_out_or_left(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    balances = run_workers(factory, pop_while_others_add, 60, count=6, start=start)
    total: Counter[str] = Counter()
    for balance in balances:
        total.update(balance)
    assert {value: n for value, n in total.items() if n} == dict.fromkeys(factory().values(), 1)


# ---------------------------------------------------------------------- whole values


def blob(stamp: int) -> bytes:
    """A value that shows whether it is whole: one byte many times, as many as the byte says."""
    return bytes([stamp]) * (stamp * 1000)


def write_or_read_blobs(dictionary: PersiDict[Any], place: Place, times: int) -> None:
    rng = random.Random(place.index)
    for _ in range(times):
        if place.index < 2:
            dictionary["blob"] = blob(rng.randrange(1, 256))
            continue
        readings = [
            dictionary["blob"],
            dictionary.get_with_etag("blob").new_value,
            *dictionary.values(),
        ]
        assert all(reading == blob(reading[0]) for reading in readings)


@EVERYWHERE
def test_readers_beside_writers_see_whole_values_only(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    factory()["blob"] = blob(1)
    run_workers(factory, write_or_read_blobs, 200, count=4, start=start)


def observe_everything(dictionary: PersiDict[Any]) -> None:
    """Use every operation that looks at several items."""
    len(dictionary)
    bool(dictionary)
    assert all(value[0] == "v" for value in dictionary.values())
    assert all(key[0].startswith("dir") for key in dictionary)
    assert all(value == f"v{key[1]}" for key, value in dictionary.items())
    assert all(stamp > 0 for _, _, stamp in dictionary.items_and_timestamps())
    dictionary.newest_keys(max_n=3)
    dictionary.oldest_values(max_n=3)
    dictionary.random_key()
    assert all(name.startswith("dir") for name in dictionary.subdicts())
    list(dictionary.get_subdict("dir1"))


def write_clear_or_observe(dictionary: PersiDict[Any], place: Place, times: int) -> None:
    rng = random.Random(place.index)
    for number in range(times):
        key = (f"dir{rng.randrange(4)}", f"{rng.randrange(10)}")
        if place.index < 3:
            dictionary[key] = f"v{key[1]}"
            dictionary.discard((f"dir{rng.randrange(4)}", f"{rng.randrange(10)}"))
        elif place.index == 3:
            if number % 5 == 0:
                dictionary.clear()
        elif number % 5 == 0:
            observe_everything(dictionary)


@EVERYWHERE
def test_clearing_and_listing_beside_writers_never_raise(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    run_workers(make(tmp_path), write_clear_or_observe, 200, count=6, start=start)


@EVERYWHERE
def test_an_item_that_nobody_touches_is_in_every_listing(
    make: FactoryMaker, start: StartMethod, tmp_path: Path
) -> None:
    factory = make(tmp_path)
    factory()["dir0", "untouched"] = "still here"
    run_workers(factory, list_beside_writers, 150, count=4, start=start)


def list_beside_writers(dictionary: PersiDict[Any], place: Place, times: int) -> None:
    for number in range(times):
        if place.index < 2:
            dictionary["dir0", f"{place.index}.{number % 5}"] = number
            dictionary.discard(("dir0", f"{place.index}.{(number + 2) % 5}"))
        else:
            listed = {key.strings: value for key, value in dictionary.items()}
            assert listed["dir0", "untouched"] == "still here"


# ---------------------------------------------------------------------- forks


def write_once(dictionary: PersiDict[Any], key: str) -> None:
    dictionary[key] = 1
    assert dictionary[key] == 1


@pytest.mark.parametrize("make", [ram, files, database])
def test_a_child_forked_beside_writing_threads_can_write(
    make: FactoryMaker, tmp_path: Path
) -> None:
    dictionary = make(tmp_path)()
    stop = threading.Event()

    def keep_writing(index: int) -> None:
        while not stop.is_set():
            dictionary["dir", f"w{index}"] = "x" * 1000

    writers = [threading.Thread(target=keep_writing, args=(i,)) for i in range(4)]
    for writer in writers:
        writer.start()
    try:
        for number in range(30):
            child = multiprocessing.get_context("fork").Process(
                target=write_once, args=(dictionary, f"c{number}"), daemon=True
            )
            child.start()
            child.join(30)
            exit_code = child.exitcode
            child.kill()
            assert exit_code == 0
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_a_child_forked_in_the_middle_of_a_write_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = files(tmp_path)()
    idle, let_go = os.pipe()
    children = []

    def fork_then_replace(source: str, target: str, **directories: Any) -> None:
        pid = os.fork()
        if pid == 0:
            os.close(let_go)
            os.read(idle, 1)
            os._exit(0)
        children.append(pid)
        replace(source, target, **directories)

    replace = os.replace
    monkeypatch.setattr(os, "replace", fork_then_replace)
    try:
        dictionary["dir", "k"] = 1
        monkeypatch.undo()
        run_workers(files(tmp_path), increment, ("dir", "k"), 1, count=2, timeout=30)
    finally:
        os.close(let_go)
        for pid in children:
            os.waitpid(pid, 0)
        os.close(idle)
    assert children
    assert dictionary["dir", "k"] == 3
