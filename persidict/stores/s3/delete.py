"""Deleting objects: under a condition, as far as the server knows any, and in bulk."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NoReturn

from persidict import log
from persidict.exceptions import ConcurrencyConflictError, ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.object_store import ANY_VERSION
from persidict.stores.s3.capabilities import Support
from persidict.stores.s3.readback import OUTCOME_UNKNOWN, Readback
from persidict.stores.s3.requests import Attempts, Look, S3Requests, pause
from persidict.stores.s3.taking import can_take, take
from persidict.stores.s3.transport.messages import DeleteObject, DeleteObjects, Refusal
from persidict.stores.shared.parallel import map_in_order

_BATCH: Final = 1000
_MISREAD_ATTEMPTS: Final = 5
"""How often the current version is refused before the server is known not to know it."""

_VERSION_ATTEMPTS: Final = 20
"""How often another version is tried at most, where it is the current one that is to go."""

_WHO_DELETED: Final = (
    f"{OUTCOME_UNKNOWN}; the object is gone, or another one has been written: nobody can tell"
    " whether this request or another one deleted it"
)


class Deletion:
    """One deletion of one object, however many requests it takes.

    A deletion that may have acted is never repeated blindly: what is there now may be
    somebody else's.

    Args:
        requests: The bucket.
        key: The object's key.
        prefix: Where a probe may put an object of its own.
    """

    def __init__(self, requests: S3Requests, key: str, prefix: str) -> None:
        self._requests = requests
        self._key = key
        self._prefix = prefix
        self._attempts: Attempts = requests.attempts()
        self._readback = Readback(requests, key, requests.bucket.lineages.latest(key))

    def unconditionally(self) -> None:
        """Delete whatever is there."""
        refusal = self._refusal_of(DeleteObject(self._key))
        if refusal is not None and not refusal.is_absence:
            self._requests.fail(refusal, self._key)

    def of_any(self) -> None:
        """Delete what is there; raise ObjectNotFound if there is nothing.

        Raises:
            ConcurrencyConflictError: It was another version each time, or is said to be.
        """
        if self._knows_asterisk() and self._by_asterisk():
            return
        attempt = 0
        while True:
            attempt += 1
            current = self._requests.head(self._key).etag
            try:
                return self._version_or_any(current)
            except PreconditionFailed as refused:
                if attempt == _VERSION_ATTEMPTS:
                    raise ConcurrencyConflictError(self._key, attempt) from refused
            pause(attempt)

    def _version_or_any(self, etag: ETagValue) -> None:
        if self._can("delete_if_match"):
            self._by_etag(etag)
        elif self._can_take():
            take(self._requests, self._key, etag, self._prefix)
        else:
            self.unconditionally()

    def of_version(self, etag: ETagValue) -> None:
        """Delete one version; without any help of the server's: look, compare, delete."""
        if self._can("delete_if_match"):
            return self._by_etag(etag)
        if self._can_take():
            return take(self._requests, self._key, etag, self._prefix)
        self._require_current(etag)
        return self.unconditionally()

    def _can_take(self) -> bool:
        try:
            return can_take(self._requests, self._prefix)
        except Refusal as refusal:
            self._requests.fail(refusal, self._key)

    def _knows_asterisk(self) -> bool:
        """Tell whether ``If-Match: *`` says if there is an item: not where markers may be."""
        by_etag = self._requests.bucket.probe.known("delete_if_match")
        return by_etag in (Support.ENFORCED, Support.UNKNOWN) and self._can("delete_if_match_any")

    def _can(self, ability: str) -> bool:
        try:
            return self._requests.support(ability, self._prefix) is Support.ENFORCED
        except Refusal as refusal:
            self._requests.fail(refusal, self._key)

    def _by_asterisk(self) -> bool:
        """Delete under ``If-Match: *``; False: the server takes the asterisk for an ETag."""
        probe = self._requests.bucket.probe
        for _ in range(2):
            refusal = self._refusal_of(DeleteObject(self._key, ANY_VERSION))
            if refusal is None:
                return True
            if refusal.is_absence or probe.any_means_absent:
                raise ObjectNotFound(self._key) from refusal.error
            try:
                self._requests.head(self._key)
            except ObjectNotFound:
                probe.any_means_absent = True
                raise
        probe.note_misread("delete_if_match_any")
        return False

    def _by_etag(self, etag: ETagValue) -> None:
        for attempt in range(1, _MISREAD_ATTEMPTS + 1):
            refusal = self._refusal_of(DeleteObject(self._key, etag))
            if refusal is None:
                return
            if refusal.is_misread:
                break
            if refusal.is_absence:
                raise ObjectNotFound(self._key) from refusal.error
            current = self._requests.head(self._key).etag  # or there is none: 412 may mean that
            if current != etag:
                raise PreconditionFailed(self._key, actual_etag=current) from refusal.error
            pause(attempt)  # others may have brought the same bytes back just now
        self._requests.bucket.probe.note_misread("delete_if_match")
        self.of_version(etag)

    def _require_current(self, etag: ETagValue) -> None:
        current = self._requests.head(self._key).etag
        if current != etag:
            raise PreconditionFailed(self._key, actual_etag=current)

    # ------------------------------------------------------------------ what became of it

    def _refusal_of(self, request: DeleteObject) -> Refusal | None:
        """Delete; return the answer that says that a condition does not hold, None if done."""
        while True:
            try:
                self._requests.perform(request, self._attempts)
                return None
            except Refusal as refusal:
                is_refused = refusal.is_unmet or refusal.is_absence
                if not refusal.may_have_acted:
                    if is_refused:
                        return refusal
                    self._requests.fail(refusal, self._key)
                is_done = self._is_done(request, refusal)
                if is_done:
                    log.info("a deletion of %r was carried out, though no reply said so", self._key)
                    return None
                if is_refused:
                    return refusal
                if not self._attempts.another(refusal):
                    self._requests.fail(refusal, self._key)

    def _is_done(self, request: DeleteObject, refusal: Refusal) -> bool:
        """Tell whether a deletion that may have acted is over; False: it has not acted.

        Raises:
            PreconditionFailed: It has not, and never will: it is another version now.
            Exception: The transport's, when nobody can tell.
        """
        wants_one_version = request.if_match not in (None, ANY_VERSION)
        try:
            look = self._readback.look()
        except ObjectNotFound:
            if wants_one_version:
                self._raise_unknown(refusal, _WHO_DELETED)
            return True
        except Refusal:
            self._raise_unknown(refusal, OUTCOME_UNKNOWN)
        if wants_one_version:
            return self._is_version_deleted(look, request.if_match or "", refusal)
        if self._readback.judge(look).was_written is False:
            return False
        if self._readback.is_written_since(look):
            return True
        self._raise_unknown(refusal, OUTCOME_UNKNOWN)

    def _is_version_deleted(self, look: Look, etag: str, refusal: Refusal) -> bool:
        if self._readback.judge(look).was_written is not False:
            self._raise_unknown(refusal, _WHO_DELETED)
        if look.etag != etag:
            raise PreconditionFailed(self._key, actual_etag=look.etag) from refusal.error
        return False

    def _raise_unknown(self, refusal: Refusal, note: str) -> NoReturn:
        self._requests.fail(refusal, self._key, note)


def delete_many(requests: S3Requests, keys: Iterable[str]) -> Iterator[tuple[str, Exception]]:
    """Delete objects, a thousand with a request; yield those that could not be, and why."""
    remaining = iter(keys)
    batches = iter(lambda: list(itertools.islice(remaining, _BATCH)), [])
    delete = partial(_delete_batch, requests)
    for failures in map_in_order(delete, batches, requests.shared.pool):
        yield from failures


def _delete_batch(requests: S3Requests, keys: list[str]) -> list[tuple[str, Exception]]:
    """Delete up to a thousand objects; those that fail in passing are tried again."""
    attempts = requests.attempts()
    failed: list[tuple[str, Refusal]] = []
    while True:
        try:
            failures = requests.perform(DeleteObjects(keys), attempts)
        except Refusal as refusal:
            if refusal.is_unsupported and not refusal.is_credential_trouble:
                return [*_explained(requests, failed), *_delete_singly(requests, keys)]
            error = requests.explain(refusal)
            return [*_explained(requests, failed), *((key, error) for key in keys)]
        passing = [entry for entry in failures if entry[1].is_passing]
        failed += [entry for entry in failures if not entry[1].is_passing]
        if not passing or not attempts.another(passing[0][1]):
            return _explained(requests, [*failed, *passing])
        keys = [key for key, _ in passing]


def _explained(
    requests: S3Requests, failures: Iterable[tuple[str, Refusal]]
) -> list[tuple[str, Exception]]:
    return [(key, requests.explain(refusal, key)) for key, refusal in failures]


def _delete_singly(requests: S3Requests, keys: list[str]) -> list[tuple[str, Exception]]:
    """Delete one by one, on a server that does not know how to delete many."""
    failures: list[tuple[str, Exception]] = []
    for key in keys:
        try:
            Deletion(requests, key, "").unconditionally()
        except Exception as error:  # reported to the caller, item by item
            failures.append((key, error))
    return failures
