"""The mark of an item that has been taken, where a server deletes whatever is there.

Some servers enforce conditions on PUT and ignore or refuse them on DELETE. There, whoever
wants to delete a version replaces it, under that version, with a marker, and then deletes the
marker. So a version has one taker, and what others see in between is absence.

A deletion that comes late would delete what has been inserted since. So its sender has a limit:
after it, the marker is left alone. Nobody replaces a marker before that limit is over, with a
reserve for clocks and for requests that were under way.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from persidict.jokers_and_status_flags import ETagValue

MARKER_KEY: Final = "persidict-marker"
"""The metadata of a marker has this key, for where ETags do not name the content."""

CONTENT_TYPE: Final = "text/plain"

SECONDS_TO_DELETE: Final = 10.0
"""How long after it was sent a marker may be deleted by its sender."""

SECONDS_UNTIL_STALE: Final = 45.0
"""How old a marker is, by the server's clock, when nobody will delete it any more."""

SECONDS_TO_WATCH: Final = 20.0
"""After so long, measured here, nobody will delete a marker that has been seen."""

_VARIANTS: Final = 1024


def _body(variant: int) -> bytes:
    return b"persidict: this item was taken, and is about to be deleted (%04d)\n" % variant


MARKER_SIZE: Final = len(_body(0))


@lru_cache(maxsize=1)
def _etags() -> Mapping[str, int]:
    """Return the ETags of all markers, where ETags are MD5s, and which one it is."""
    digests = (hashlib.md5(_body(n), usedforsecurity=False).hexdigest() for n in range(_VARIANTS))
    return {f'"{digest}"': variant for variant, digest in enumerate(digests)}


def is_marker(
    etag: str | None, size: int | None, metadata: Mapping[str, str] | None = None
) -> bool:
    """Tell whether an object is a marker, by what is known of it without its bytes.

    Args:
        etag: Its version.
        size: How many bytes it has; None if not told.
        metadata: What its writer said of it, where a reply tells.
    """
    if size != MARKER_SIZE and size is not None:
        return False
    return etag in _etags() or (metadata is not None and MARKER_KEY in metadata)


def is_marker_etag(etag: str) -> bool:
    """Tell whether a version is that of a marker, where ETags are MD5s."""
    return etag in _etags()


def new_marker(replaced: ETagValue) -> bytes:
    """Return the bytes of a marker: one of a few that are always the same.

    So listings, which tell ETag and size, can leave markers out. There is more than one
    because ETags name the content: whoever replaces a stale marker by another one, under its
    version, must not hit a fresh one instead.

    Args:
        replaced: The version that it is to replace; never its own.
    """
    variant = int.from_bytes(os.urandom(4)) % _VARIANTS
    if _etags().get(replaced) == variant:
        variant = (variant + 1) % _VARIANTS
    return _body(variant)


class Stopwatch:
    """How much time has passed, also while the machine was asleep or the process stopped."""

    def __init__(self) -> None:
        self._monotonic = time.monotonic()
        self._wall = time.time()

    def seconds(self) -> float:
        """Return the seconds since this was made: what the clock says that went further."""
        return max(time.monotonic() - self._monotonic, time.time() - self._wall)


def is_stale(last_modified: float, date: float | None) -> bool:
    """Tell whether nobody will delete a marker any more, by the server's clock.

    Args:
        last_modified: When the marker was written, by the server; may be no number.
        date: What the server's clock says now; None if not told.
    """
    return date is not None and date - last_modified > SECONDS_UNTIL_STALE
