"""Deleting one version exactly once, on a server that deletes whatever is there."""

from __future__ import annotations

from typing import Final

from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.capabilities import Support
from persidict.stores.s3.marker import (
    CONTENT_TYPE,
    MARKER_KEY,
    SECONDS_TO_DELETE,
    Stopwatch,
    new_marker,
)
from persidict.stores.s3.put import Put
from persidict.stores.s3.requests import S3Requests
from persidict.stores.s3.transport.messages import DeleteObject, Refusal
from persidict.stores.shared.lineage import token_of

_IS_MARKER: Final = {MARKER_KEY: "1"}


def can_take(requests: S3Requests, prefix: str) -> bool:
    """Tell whether versions are to be taken here; asks the server the first time.

    They are where PUT compares and swaps, DELETE does not, and these credentials may delete.

    Raises:
        Refusal: The server could not be asked.
    """
    if requests.support("delete_if_match", prefix) is Support.ENFORCED:
        return False
    if requests.bucket.probe.is_forbidden("delete_if_match"):
        return False
    return requests.support("put_if_match", prefix) is Support.ENFORCED


def take(requests: S3Requests, key: str, etag: ETagValue, prefix: str) -> None:
    """Delete one version, in two requests: replace it by a marker, delete the marker.

    The item is gone once the first one has been carried out: what becomes of the second one
    is no matter of the caller's.

    Args:
        requests: The bucket, of which `can_take` holds.
        key: The object's key.
        etag: The version.
        prefix: Where a probe may put an object of its own.

    Raises:
        ObjectNotFound: There is nothing, or it has been taken by others.
        PreconditionFailed: It is another version.
        Exception: The transport's own, with a note where the outcome is unknown.
    """
    since = Stopwatch()
    requests.bucket.markers.put(key, since)  # for other threads that write without a condition
    put = Put(requests, key, etag, metadata=_IS_MARKER)
    try:
        put.write(new_marker(etag), CONTENT_TYPE, prefix)
    except PreconditionFailed as refused:
        look = requests.look(key)
        if refused.written_after_all(look.etag) is None:
            if look.is_marker:
                raise ObjectNotFound(key) from refused
            raise PreconditionFailed(key, actual_etag=look.etag) from refused
    delete_marker(requests, key, put.token, since)


def delete_marker(requests: S3Requests, key: str, token: str, since: Stopwatch) -> None:
    """Delete an own marker, unless so much time has passed that others may replace it.

    Args:
        requests: The bucket.
        key: The marker's key.
        token: What its lineage begins with.
        since: Begun before the marker was written.
    """
    attempts = requests.attempts()
    while since.seconds() < SECONDS_TO_DELETE:
        try:
            requests.transport.send(DeleteObject(key))
            requests.bucket.markers.discard(key)
            return
        except Refusal as refusal:
            if refusal.may_have_acted and not _is_own(requests, key, token):
                return
            if not attempts.another(refusal):
                return


def _is_own(requests: S3Requests, key: str, token: str) -> bool:
    """Tell whether an own marker is still there, for certain."""
    try:
        return token_of(requests.look(key).lineage) == token
    except Exception:  # it stays for whoever comes after its time
        return False


def sweep(requests: S3Requests, key: str, etag: ETagValue, prefix: str) -> None:
    """Delete a marker that nobody will delete any more, if that can be done, and say nothing.

    It is taken as an item is: of several who sweep, one does. Once it could not be done, this
    process does not try again.

    Args:
        requests: The bucket.
        key: The marker's key.
        etag: Its version.
        prefix: Where a probe may put an object of its own.
    """
    unswept = requests.bucket.unswept
    if key in unswept:
        return
    try:
        if can_take(requests, prefix):
            take(requests, key, etag, prefix)
    except (ObjectNotFound, PreconditionFailed):
        return  # somebody else has come first
    except Exception:  # whoever reads a listing has not asked for this
        unswept.put(key, None)
