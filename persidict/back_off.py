"""Waiting before another attempt."""

from __future__ import annotations

import random
import time
from typing import Final

_LONGEST_PAUSE_SECONDS: Final = 2.0
_MOST_DOUBLINGS: Final = 16


def pause(attempt: int, unit_seconds: float) -> None:
    """Wait for a random time that grows with the attempts, so that rivals get out of step.

    Args:
        attempt: How many attempts have been made.
        unit_seconds: What an attempt takes, about.
    """
    longest = min(unit_seconds * 2 ** min(attempt, _MOST_DOUBLINGS), _LONGEST_PAUSE_SECONDS)
    time.sleep(random.uniform(0.0, longest))
