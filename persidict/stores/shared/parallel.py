"""Doing many things at once, in order, within bounds: a small pool of threads and a window."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Generic, TypeVar

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
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._workers = 0
        self._idle = 0

    @property
    def workers(self) -> int:
        """How many threads there are now."""
        return self._workers

    def submit(self, work: Callable[[], ResultType]) -> Future[ResultType]:
        """Have a thread do some work; where none can be started, it is done at once, here."""
        future: Future[ResultType] = Future()
        if sys.is_finalizing():
            _run(future, work)
            return future
        with self._changed:
            self._waiting.append((future, work))
            if self._idle >= len(self._waiting) or self._workers >= self.max_workers:
                self._changed.notify()
                return future
            self._workers += 1
        try:
            threading.Thread(target=self._serve, name="persidict", daemon=True).start()
        except RuntimeError:
            self._do_without_a_new_thread()
        return future

    def _do_without_a_new_thread(self) -> None:
        """No thread can be started (limits, exit): work off here what waits."""
        with self._changed:
            self._workers -= 1
            waiting = list(self._waiting)
            self._waiting.clear()
        for future, work in waiting:
            _run(future, work)

    def _serve(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._idle += 1
                    self._changed.wait_for(lambda: bool(self._waiting), self._idle_seconds)
                    self._idle -= 1
                if not self._waiting:
                    self._workers -= 1
                    return
                future, work = self._waiting.popleft()
            _run(future, work)
            del future, work


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
) -> Iterator[ResultType]:
    """Apply a function to many items in parallel and yield the results in order, lazily.

    At most twice as many items as the pool has threads are taken ahead of the consumer.
    When the consumer stops, what has not begun is never done. In a child after fork, where
    no thread goes on, the consumer itself does again what was under way.

    Args:
        function: What to do with each item.
        items: Consumed in the calling thread, only as far as needed.
        pool: The threads that do it.

    Yields:
        One result for each item; an exception of `function` is raised in its place.
    """
    window: deque[_UnderWay[ResultType]] = deque()
    remaining = iter(items)
    first = next(remaining, _NOTHING)
    second = _NOTHING if first is _NOTHING else next(remaining, _NOTHING)
    if first is not _NOTHING and (second is _NOTHING or pool.max_workers == 1):
        yield function(first)
        if second is not _NOTHING:
            yield function(second)
        yield from map(function, remaining)
        return
    try:
        for item in (first, second):
            if item is not _NOTHING:
                window.append(_UnderWay(partial(function, item), pool))
        for item in remaining:
            window.append(_UnderWay(partial(function, item), pool))
            if len(window) >= 2 * pool.max_workers:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        for piece in window:
            piece.cancel()


_NOTHING: Final[Any] = object()


class _UnderWay(Generic[ResultType]):
    """A piece of work that a thread of this process does, or did."""

    __slots__ = ("_future", "_process", "_work")

    def __init__(self, work: Callable[[], ResultType], pool: WorkerPool) -> None:
        self._work = work
        self._process = os.getpid()
        self._future = pool.submit(work)

    def result(self) -> ResultType:
        return self._work() if self._is_orphaned else self._future.result()

    def cancel(self) -> None:
        if not self._is_orphaned:  # else its lock may be held by a thread that is no more
            self._future.cancel()

    @property
    def _is_orphaned(self) -> bool:
        return self._process != os.getpid()
