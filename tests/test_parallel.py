"""Work in a window over a pool of threads: in order, within bounds, and gone when it is done."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from persidict.stores.shared.parallel import Piece, WorkerPool, map_in_order
from persidict.stores.shared.teamwork import Teamwork


@pytest.fixture
def pool() -> WorkerPool:
    return WorkerPool(4, idle_seconds=0.05)


def double(number: int) -> int:
    return 2 * number


class Gate:
    """A function that waits until it is let through, and knows who waits."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = threading.Semaphore(0)
        self.seen: list[int] = []

    def __call__(self, number: int) -> int:
        self.seen.append(number)
        self.begun.release()
        assert self.opened.wait(30)
        return number


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_results_come_in_the_order_of_the_items(pool: WorkerPool, count: int) -> None:
    assert list(map_in_order(double, range(count), pool)) == [2 * n for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_pool_of_one_works_too(count: int) -> None:
    assert list(map_in_order(double, range(count), WorkerPool(1))) == [2 * n for n in range(count)]


def test_as_many_are_under_way_at_once_as_there_are_threads(pool: WorkerPool) -> None:
    meet = threading.Barrier(4, timeout=30)
    assert sorted(map_in_order(lambda number: meet.wait(), range(4), pool)) == [0, 1, 2, 3]


def test_no_more_items_are_taken_than_fit_into_the_window(pool: WorkerPool) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_in_order(double, items(), pool)
    next(results)
    assert len(taken) <= 2 * pool.max_workers
    results.close()


def test_what_has_not_begun_when_the_consumer_stops_is_never_done(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    wait = Piece.wait

    def open_gate_and_wait(piece: Piece[int]) -> None:
        gate.opened.set()
        wait(piece)

    results = map_in_order(lambda n: n if n == 0 else gate(n), range(1000), pool)
    assert next(results) == 0
    for _ in range(pool.max_workers):
        assert gate.begun.acquire(timeout=30)
    monkeypatch.setattr(Piece, "wait", open_gate_and_wait)
    results.close()
    assert list(map_in_order(double, range(20), pool)) == [2 * n for n in range(20)]
    assert len(gate.seen) == pool.max_workers


def test_an_exception_is_raised_in_the_place_of_its_result(pool: WorkerPool) -> None:
    def invert(number: int) -> float:
        return 1 / number

    results = map_in_order(invert, [2, 1, 0, 1], pool)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_idle_threads_go_away(pool: WorkerPool) -> None:
    list(map_in_order(double, range(20), pool))
    threads = [thread for thread in threading.enumerate() if thread.name == "persidict"]
    for thread in threads:
        thread.join(30)
    assert pool.workers == 0


def test_where_no_thread_can_be_started_the_caller_does_the_work(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert list(map_in_order(double, range(20), pool)) == [2 * n for n in range(20)]


def work_in_child(pool: WorkerPool, answers: Any) -> None:
    answers.put(list(map_in_order(double, range(20), pool)))


def test_after_a_fork_the_pool_has_threads_again(pool: WorkerPool) -> None:
    list(map_in_order(double, range(20), pool))
    context: Any = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=work_in_child, args=(pool, answers))
    child.start()
    assert answers.get(timeout=30) == [2 * n for n in range(20)]
    child.join(30)


def finish_in_child(results: Iterator[int], answers: Any) -> None:
    answers.put(list(results))


def test_an_iteration_begun_before_a_fork_goes_on_in_the_child(pool: WorkerPool) -> None:
    gate, parent = Gate(), os.getpid()
    results = map_in_order(
        lambda n: n if n == 0 or os.getpid() != parent else gate(n), range(100), pool
    )
    assert next(results) == 0
    assert gate.begun.acquire(timeout=30)
    context: Any = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=finish_in_child, args=(results, answers), daemon=True)
    child.start()
    assert answers.get(timeout=30) == list(range(1, 100))
    child.join(30)
    gate.opened.set()
    assert list(results) == list(range(1, 100))


def test_a_child_of_a_fork_can_drop_an_iteration_begun_before(pool: WorkerPool) -> None:
    gate, parent = Gate(), os.getpid()
    results = map_in_order(
        lambda n: n if n == 0 or os.getpid() != parent else gate(n), range(100), pool
    )
    assert next(results) == 0
    context: Any = multiprocessing.get_context("fork")
    child = context.Process(target=results.close, daemon=True)
    child.start()
    child.join(30)
    gate.opened.set()
    assert child.exitcode == 0


def test_several_callers_share_the_threads(pool: WorkerPool) -> None:
    results: dict[int, list[int]] = {}

    def call(who: int) -> None:
        results[who] = list(map_in_order(double, range(50), pool))

    callers = [threading.Thread(target=call, args=(who,)) for who in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert list(results.values()) == [[2 * n for n in range(50)]] * 8
    assert pool.workers <= pool.max_workers


_CONTINUED_AT_EXIT = """
import os, time
from persidict.stores.shared.parallel import Piece, WorkerPool, map_in_order

class Holder:
    def __init__(self):
        self.results = map_in_order(time.sleep, [0.05] * 20, WorkerPool(4))
        next(self.results)

    def __del__(self):
        os.write(1, b"%d" % len(list(self.results)))

holder = Holder()
"""


def test_an_iterator_that_is_continued_when_the_interpreter_exits_comes_to_its_end() -> None:
    command = [sys.executable, "-c", _CONTINUED_AT_EXIT]
    child = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert child.stdout == b"19"


def test_what_a_helper_meets_is_raised_where_the_caller_leaves_and_ends_the_work(
    pool: WorkerPool,
) -> None:
    has_begun = threading.Event()

    def fail(part: int) -> None:
        has_begun.set()
        raise LookupError(part)

    with pytest.raises(LookupError), Teamwork(range(9), pool, fail, team_size=2) as team:
        assert has_begun.wait(30)
    assert (team.is_given_up, list(team)) == (True, [])


def test_an_error_of_the_caller_ends_the_work_and_is_raised_as_it_is(pool: WorkerPool) -> None:
    error = LookupError()
    team = Teamwork(range(9), pool, double, team_size=1)
    with pytest.raises(LookupError) as caught, team:
        raise error
    assert caught.value is error
    assert (team.is_given_up, list(team)) == (True, [])
