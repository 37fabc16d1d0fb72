"""What a write does that meets the marker of somebody who is deleting the item."""

from __future__ import annotations

import itertools
from typing import Final

from persidict.exceptions import BackendError, ObjectNotFound
from persidict.stores.s3.capabilities import Support
from persidict.stores.s3.marker import SECONDS_TO_WATCH, Stopwatch, is_stale
from persidict.stores.s3.requests import Look, S3Requests, pause
from persidict.stores.s3.transport.messages import Refusal

_LONGEST_WAIT_SECONDS: Final = 120.0
_MOST_DOUBLINGS: Final = 5
"""Of the pause between two looks: 0.6 s at most."""


def may_hold_markers(requests: S3Requests, prefix: str) -> bool:
    """Tell whether somebody deletes by means of markers here; asks the server the first time."""
    try:
        return requests.support("delete_if_match", prefix) is not Support.ENFORCED
    except Refusal:
        return True


def wait_for_deletion(requests: S3Requests, key: str, look: Look) -> Look | None:
    """Wait until a marker has been deleted, or nobody will do that any more.

    Takes a request for each look, with growing pauses in between.

    Args:
        requests: The bucket.
        key: The object's key.
        look: At a marker.

    Returns:
        The look at a marker that nobody will delete; None: there is none any more.

    Raises:
        BackendError: There was another marker again and again.
    """
    whole, watch = Stopwatch(), Stopwatch()
    for attempt in itertools.count(1):
        if is_stale(look.last_modified, look.date) or watch.seconds() > SECONDS_TO_WATCH:
            return look
        pause(min(attempt, _MOST_DOUBLINGS))
        try:
            again = requests.look(key)
        except ObjectNotFound:
            return None
        if not again.is_marker:
            return None
        if whole.seconds() > _LONGEST_WAIT_SECONDS:
            break
        if again[:4] != look[:4]:
            watch = Stopwatch()
        look = again
    raise BackendError(
        f"the item was deleted again and again for {_LONGEST_WAIT_SECONDS:.0f} seconds, each time"
        f" before it could be written. Bucket {requests.bucket_name!r}, key {key!r}",
        backend="s3",
        operation="put",
        key=key,
    )
