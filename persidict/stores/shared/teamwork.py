"""One piece of work in many parts, shared out among threads that happen to be free."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from persidict.stores.shared.parallel import WorkerPool

PartType = TypeVar("PartType")


class Teamwork(Generic[PartType]):
    """Parts that the calling thread works off from the front, and helpers from the back.

    Iterating claims parts for the calling thread. Helpers are threads of a pool; each claims
    a part only when it runs. So the caller never waits for a thread that has yet to begin:
    where the pool is busy, or the caller is one of its threads, it does all parts itself.

    Used as a context manager: leaving it waits until no helper is at work any more, and
    raises the first error that one of them met. After an error, also one of the caller's,
    no further part is begun.

    Args:
        parts: The parts, in the caller's order.
        pool: Where helpers come from.
        help_with: What a helper does with a part.
        team_size: How many threads there are at most, the caller included, who may have
            something else to do first.
    """

    def __init__(
        self,
        parts: Iterable[PartType],
        pool: WorkerPool,
        help_with: Callable[[PartType], object],
        *,
        team_size: int,
    ) -> None:
        self._parts = deque(parts)
        self._pool = pool
        self._help_with = help_with
        self._team_size = min(team_size, pool.max_workers, len(self._parts) + 1)
        self._changed = threading.Condition()
        self._busy_helpers = 0
        self._error: BaseException | None = None
        self.is_given_up = False
        """Whether an error has made all further work vain."""
        self.is_helped = False
        """Whether a helper has come."""

    def __enter__(self) -> Teamwork[PartType]:
        for _ in range(self._team_size - 1):
            # What waits in a busy pool must not keep the parts in memory
            self._pool.begin(partial(_help, weakref.ref(self)))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._give_up(error)
        interruption = self._wait_for_helpers()
        del self._help_with  # usually a method of the team's owner, with all of its data
        met, self._error = self._error, None
        if interruption is not None:
            raise interruption
        if met is not None and met is not error:
            raise met  # the first error is why the caller's own, if any, came about

    def give_up(self) -> None:
        """Begin no further part, and wait until no helper is at work any more."""
        self._give_up(None)
        interruption = self._wait_for_helpers()
        if interruption is not None:
            raise interruption

    def _wait_for_helpers(self) -> BaseException | None:
        """Wait, whatever interrupts it; return what did."""
        interruption = None
        while True:
            try:
                with self._changed:
                    self._changed.wait_for(lambda: not self._busy_helpers)
                return interruption
            except BaseException as error:  # raised when nobody is at work any more
                interruption = error
                self._give_up(error)

    def __iter__(self) -> Iterator[PartType]:
        while True:
            with self._changed:
                if not self._parts:
                    return
                part = self._parts.popleft()
            yield part

    def _help(self) -> None:
        while True:
            with self._changed:
                if not self._parts:
                    return
                part = self._parts.pop()
                self._busy_helpers += 1
                self.is_helped = True
            try:
                self._help_with(part)
            except BaseException as error:  # raised where the caller waits
                self._give_up(error)
            finally:
                with self._changed:
                    self._busy_helpers -= 1
                    self._changed.notify_all()

    def _give_up(self, error: BaseException | None) -> None:
        with self._changed:
            self.is_given_up = True
            self._parts.clear()
            if self._error is None:
                self._error = error


def _help(reference: weakref.ref[Teamwork[Any]]) -> None:
    team = reference()
    if team is not None:
        team._help()
