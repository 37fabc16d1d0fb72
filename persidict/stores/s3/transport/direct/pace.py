"""How slowly a body may come: silence has a time-out, and so has a byte now and then."""

from __future__ import annotations

import time
from typing import Final

LEAST_BYTES: Final = 1024
"""What has to arrive of an unfinished body within each time-out for reading."""


class Pace:
    """Counts what arrives of a body, and the time that was spent waiting for it.

    Args:
        limit: The time-out for reading, in seconds.
    """

    __slots__ = ("_begun", "_bytes", "_limit", "_waited")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._begun = self._waited = 0.0
        self._bytes = 0

    def begin(self) -> None:
        """Note that the wait for a piece begins."""
        self._begun = time.monotonic()

    def note(self, count: int) -> None:
        """Note that a piece has come.

        Args:
            count: Its size, in bytes.

        Raises:
            TimeoutError: `LEAST_BYTES` did not arrive within the limit.
        """
        self._bytes += count
        self._waited += time.monotonic() - self._begun
        if self._bytes >= LEAST_BYTES:
            self._bytes, self._waited = 0, 0.0
        elif self._waited > self._limit:
            raise TimeoutError(
                f"a body comes too slowly: {self._bytes} bytes in {self._waited:.1f} s"
            )
