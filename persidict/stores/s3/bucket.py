"""What this process knows of a bucket: one object for each, whoever asks."""

from __future__ import annotations

import os
import threading
from typing import Final

from persidict.stores.s3.capabilities import CapabilityProbe
from persidict.stores.s3.marker import Stopwatch
from persidict.stores.s3.transport.etag_form import is_aws_endpoint
from persidict.stores.s3.transport.mocked import world
from persidict.stores.shared.latest_and_used import LatestAndUsed
from persidict.stores.shared.lineage import LineageMemory
from persidict.stores.shared.recent_notes import RecentNotes

_EXPRESS: Final = "--x-s3"
"""How the names of buckets of S3 Express end, which know other conditions and no order."""


class Bucket:
    """What this process has learnt of one bucket on one endpoint.

    Attributes:
        probe: What the server enforces.
        lineages: Of the versions seen last.
        markers: The keys at which markers were seen last.
        large_names: The keys of objects that were large when they were seen last.
        unswept: The keys of stale markers that could not be deleted.
        is_known_to_exist: Whether somebody has looked.
        lock: Held while somebody looks whether it exists.
    """

    def __init__(self, endpoint: str, name: str) -> None:
        is_ordinary = not name.endswith(_EXPRESS)
        self.probe = CapabilityProbe(is_aws=is_ordinary and is_aws_endpoint(endpoint))
        self.lineages = LineageMemory()
        self.markers = RecentNotes[Stopwatch](1024)
        self.large_names = RecentNotes[None](1024)
        self.unswept = RecentNotes[None](1024)
        self.is_known_to_exist = False
        self.lock = threading.Lock()

    def forget_locks(self) -> None:
        """Make the locks anew, in a child after fork: nobody is left to release them."""
        self.lock = threading.Lock()
        self.probe.lock = threading.Lock()


_BUCKETS: Final[LatestAndUsed[tuple[str, str, str], Bucket]] = LatestAndUsed(256)


def known_bucket(endpoint: str, name: str) -> Bucket:
    """Return what this process knows of a bucket on an endpoint."""
    return _BUCKETS.get((endpoint, name, world()), lambda: Bucket(endpoint, name))


def _forget_locks() -> None:
    _BUCKETS.forget_lock()
    for bucket in _BUCKETS.values():
        bucket.forget_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
