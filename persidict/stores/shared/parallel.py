"""Doing many things at once, in order, within bounds: a small pool of threads and a window.

All of it can be interrupted between any two steps by an exception of a signal handler, which
may itself use the same pool: what threads tell each other goes through queues and locks of
the interpreter, which are taken and given in one step.
"""

from __future__ import annotations

import _thread
import itertools
import os
import queue
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

ItemType = TypeVar("ItemType")
ResultType = TypeVar("ResultType")

_IDLE_SECONDS: Final = 2.0


class WorkerPool:
    """Daemon threads that are made when there is work and go away when there is none.

    Unlike `concurrent.futures.ThreadPoolExecutor` it keeps no idle threads, works in a
    child after fork, and never holds up the interpreter's exit.

    Args:
        max_workers: How many threads there are at most.
        idle_seconds: How long a thread waits for more work before it ends.
    """

    def __init__(self, max_workers: int, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        self.max_workers = max_workers
        self._idle_seconds = idle_seconds
        self._start_afresh()
        _POOLS.add(self)

    def _start_afresh(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._workers: set[object] = set()
        # entering and leaving it are single steps, and a signal handler may enter it again
        self._counting = threading.RLock()

    @property
    def workers(self) -> int:
        """How many threads there are now."""
        return len(self._workers)

    def submit(self, work: Callable[[], ResultType]) -> Future[ResultType]:
        """Have a thread do some work, as `concurrent.futures.Executor.submit` does.

        Waiting for such a future is not safe from exceptions of signal handlers.
        """
        from concurrent.futures import Future  # which loads logging

        future: Future[ResultType] = Future()
        self.begin(partial(_run, future, work))
        return future

    def begin(self, work: Callable[[], object]) -> None:
        """Have a thread do some work; where none can be started, it is done at once, here.

        Args:
            work: Raises nothing.
        """
        if sys.is_finalizing():  # a thread may be started, but never runs
            work()
            return
        self._waiting.put(work)
        worker = object()
        is_started = _thread.allocate_lock()
        is_started.acquire()
        try:
            with self._counting:
                if len(self._workers) >= self.max_workers or self._waiting.empty():
                    return
                self._workers.add(worker)
            # from another thread, as no signal handler interrupts `Thread.start` there
            _thread.start_new_thread(self._start, (worker, is_started))
            is_started.acquire()
        except RuntimeError:  # limits, or the interpreter's exit
            self._do_without_a_new_thread(worker)
        except BaseException:
            self._workers.discard(worker)  # one too many is better than one too few
            raise

    def _start(self, worker: object, is_started: _thread.LockType) -> None:
        try:
            thread = threading.Thread(
                target=self._serve, args=(worker,), name="persidict", daemon=True
            )
            thread.start()
            is_started.release()
        except RuntimeError:
            is_started.release()
            self._do_without_a_new_thread(worker)

    def _do_without_a_new_thread(self, worker: object) -> None:
        """No thread can be started: work off here what waits."""
        self._workers.discard(worker)
        while True:
            try:
                work = self._waiting.get_nowait()
            except queue.Empty:
                return
            work()

    def _serve(self, worker: object) -> None:
        waiting = self._waiting
        while True:
            try:
                work = waiting.get(timeout=self._idle_seconds)
            except queue.Empty:
                with self._counting:
                    # who submits adds work first, and counts then
                    if not waiting.empty():
                        continue
                    self._workers.discard(worker)
                    return
            work()
            del work


def _run(future: Future[ResultType], work: Callable[[], ResultType]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # handed to whoever waits for the result
        future.set_exception(error)
    else:
        future.set_result(result)


_POOLS: Final[weakref.WeakSet[WorkerPool]] = weakref.WeakSet()


def _forget_threads() -> None:
    """In a child after fork there are no threads: start without them."""
    for pool in list(_POOLS):
        pool._start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def map_in_order(
    function: Callable[[ItemType], ResultType],
    items: Iterable[ItemType],
    pool: WorkerPool,
) -> Generator[ResultType, None, None]:
    """Apply a function to many items in parallel and yield the results in order, lazily.

    At most twice as many items as the pool has threads are taken ahead of the consumer.
    When the consumer stops, or an exception is thrown into it, what has not begun is never
    done, and what has begun has ended. In a child after fork, and when the interpreter exits,
    no thread goes on: the consumer itself does again what was under way.

    Args:
        function: What to do with each item.
        items: Consumed in the calling thread, only as far as needed.
        pool: The threads that do it.

    Yields:
        One result for each item; an exception of `function` is raised in its place.
    """
    window: deque[Piece[ResultType]] = deque()
    remaining = iter(items)
    first = next(remaining, _NOTHING)
    second = _NOTHING if first is _NOTHING else next(remaining, _NOTHING)
    if first is _NOTHING:
        return
    if second is _NOTHING or pool.max_workers == 1:
        yield function(first)
        if second is not _NOTHING:
            yield function(second)
        yield from map(function, remaining)
        return
    try:
        yield from _map_in(window, function, itertools.chain((first, second), remaining), pool)
    finally:
        _end(window)


_NOTHING: Final[Any] = object()


def _map_in(
    window: deque[Piece[ResultType]],
    function: Callable[[ItemType], ResultType],
    items: Iterable[ItemType],
    pool: WorkerPool,
) -> Iterator[ResultType]:
    for item in items:
        _begin(window, partial(function, item), pool)
        if len(window) >= 2 * pool.max_workers:
            yield _take_first(window)
    while window:
        yield _take_first(window)


def _end(window: deque[Piece[ResultType]]) -> None:
    """Cancel what has not begun, and wait for what has."""
    # first all, so that nothing begins while one is waited for
    for piece in [piece for piece in window if not piece.cancel()]:
        piece.wait()


def _begin(
    window: deque[Piece[ResultType]], work: Callable[[], ResultType], pool: WorkerPool
) -> None:
    piece = Piece(work)
    window.append(piece)  # first, so that nothing is under way that nobody knows of
    pool.begin(piece.do)


def _take_first(window: deque[Piece[ResultType]]) -> ResultType:
    window[0].wait()
    return window.popleft().result()


class Piece(Generic[ResultType]):
    """A piece of work that a thread of this process does, or did."""

    __slots__ = ("_claimed", "_error", "_finished", "_is_done", "_process", "_result", "_work")

    def __init__(self, work: Callable[[], ResultType]) -> None:
        self._work = work
        self._process = os.getpid()
        self._claimed = _thread.allocate_lock()
        self._finished = _thread.allocate_lock()
        self._finished.acquire()
        self._is_done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def do(self) -> None:
        """Do the work, unless it has been cancelled; called by one thread."""
        for is_mine in map(self._claimed.acquire, (False,)):  # taken and noted in one step
            if is_mine:
                try:
                    self._result = self._work()
                except BaseException as error:  # raised where the result is taken
                    self._error = error
                finally:
                    self._is_done = True
                    self._finished.release()

    def cancel(self) -> bool:
        """Prevent the work from being begun; tell whether it is not under way."""
        return self._is_orphaned or self._claimed.acquire(blocking=False)

    def wait(self) -> None:
        """Wait until the work has been done."""
        if not self._is_orphaned and not self._is_done:
            self._finished.acquire()

    def result(self) -> ResultType:
        """Return what came of the work, or raise it."""
        if self._is_orphaned:
            return self._work()
        try:
            if self._error is not None:
                raise self._error
            result: ResultType = self._result
            return result
        finally:
            del self  # an error and the frame that raises it must not keep each other

    @property
    def _is_orphaned(self) -> bool:
        is_cut_off = sys.is_finalizing() and not self._is_done
        return is_cut_off or self._process != os.getpid()
