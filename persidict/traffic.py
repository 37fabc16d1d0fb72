"""What passes between a dictionary and a service, counted."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Final, NamedTuple

from persidict.locking import do_if_free

_MOST_UNADDED: Final = 1000
_PATIENCE_SECONDS: Final = 1.0


class Traffic(NamedTuple):
    """What has passed between a dictionary and the service that holds its items.

    Attributes:
        requests: What was sent, as often as it was sent.
        retries: How many of them were sent again.
        bytes_sent: Bytes of values in requests.
        bytes_received: Bytes of values in answers.
        hits: Values that a cache had, and served without asking.
        revalidations: Values that a cache had, and the service said to be the current ones.
        misses: Values that a cache had to fetch.
    """

    requests: int = 0
    retries: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    hits: int = 0
    revalidations: int = 0
    misses: int = 0

    def plus(self, other: Traffic) -> Traffic:
        """Return the sum of both."""
        return Traffic(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def minus(self, other: Traffic) -> Traffic:
        """Return what has come to it since it was `other`."""
        return Traffic(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class TrafficCounter:
    """Counts exactly among threads, and waits for no lock on the way of a request."""

    def __init__(self) -> None:
        self._unadded: deque[tuple[int, int, int, int]] = deque()
        self._adding = Lock()
        self._total = (0, 0, 0, 0)

    def count(
        self, *, requests: int = 1, retries: int = 0, sent: int = 0, received: int = 0
    ) -> None:
        """Count requests, and how many of them are sent again."""
        self._unadded.append((requests, retries, sent, received))
        if len(self._unadded) > _MOST_UNADDED:
            self._add(0.0)

    def traffic(self) -> Traffic:
        """Return what has been counted."""
        self._add(_PATIENCE_SECONDS)
        return Traffic(*self._total)

    def _add(self, patience: float) -> None:
        do_if_free(self._adding, patience, self._add_up)

    def _add_up(self) -> None:
        new = [self._unadded.popleft() for _ in range(len(self._unadded))]
        columns = zip(self._total, *new, strict=True)
        one, two, three, four = (sum(column) for column in columns)
        self._total = one, two, three, four
