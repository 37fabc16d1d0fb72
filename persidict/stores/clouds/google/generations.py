"""Generations of objects: ETags here, and on Google the times at which they were written."""

from __future__ import annotations

import time
from typing import Final

from google.cloud.storage import Blob

from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.object_store import ObjectInfo

LARGEST: Final = (1 << 63) - 1
_MICROSECONDS: Final = 1_000_000
_EARLIEST: Final = 1_262_304_000
"""When the service began, as far as a generation that tells a time is concerned: 2010."""


def generation(expected: ETagIfExists | None) -> int | None:
    """Return the number that a condition names: 0 for absence, None where there is none."""
    if expected is None:
        return None
    return min(int(expected), LARGEST) if isinstance(expected, str) else 0


def time_of(number: int) -> float | None:
    """Return the time that a generation tells, in POSIX seconds.

    On Google it counts microseconds. That is not promised anywhere, so that one which
    cannot be such a number is not taken for one.
    """
    seconds = number / _MICROSECONDS
    return seconds if _EARLIEST < seconds < time.time() + 86400 else None


def info_of(name: str, blob: Blob) -> ObjectInfo:
    """Tell what a metadata record says; a generation that tells the time does so everywhere."""
    created = blob.time_created.timestamp()
    told = time_of(blob.generation)
    written = told if told is not None and abs(told - created) < 2 else created
    return ObjectInfo(name, ETagValue(str(blob.generation)), int(blob.size or 0), written)
