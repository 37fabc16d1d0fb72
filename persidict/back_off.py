"""Waiting before another attempt."""

from __future__ import annotations

import time
from typing import Final

_LONGEST_PAUSE_SECONDS: Final = 2.0
_MOST_DOUBLINGS: Final = 16


def seconds_to_pause(
    attempt: int, unit_seconds: float, longest_seconds: float | None = None
) -> float:
    """Return a random time that grows with the attempts, so that rivals get out of step.

    Args:
        attempt: How many attempts have been made.
        unit_seconds: What an attempt takes, about.
        longest_seconds: The longest pause, if that is not the usual one, of 2 s.
    """
    limit = _LONGEST_PAUSE_SECONDS if longest_seconds is None else longest_seconds
    longest = min(unit_seconds * 2 ** min(attempt, _MOST_DOUBLINGS), limit)
    from random import uniform  # which few need, and takes long to load

    return uniform(0.0, longest)


def pause(attempt: int, unit_seconds: float) -> None:
    """Wait as long as `seconds_to_pause` says."""
    time.sleep(seconds_to_pause(attempt, unit_seconds))
