"""Deleting objects: under a condition, as far as the server knows any, and in bulk."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final, NoReturn

from botocore.exceptions import ClientError

from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.object_store import ANY_VERSION
from persidict.stores.s3.capabilities import Support
from persidict.stores.s3.errors import (
    S3Error,
    annotate,
    is_absence,
    status_of,
    was_retried,
)
from persidict.stores.s3.lineage import descends_from
from persidict.stores.s3.requests import S3Requests, pause
from persidict.stores.shared.parallel import map_in_order

_BATCH: Final = 1000
_NO_BULK: Final = (400, 405, 501)

_WHO_DELETED: Final = (
    "persidict: the request was sent more than once, and the object is gone: nobody can tell"
    " whether this request or another one deleted it"
)


class Deletion:
    """One deletion of one object, however many requests it takes.

    Args:
        requests: The bucket.
        key: The object's key.
        prefix: Where a probe may put an object of its own.
    """

    def __init__(self, requests: S3Requests, key: str, prefix: str) -> None:
        self._requests = requests
        self._key = key
        self._prefix = prefix
        self._begun = time.monotonic()

    def unconditionally(self) -> None:
        """Delete whatever is there."""
        try:
            self._requests.send("delete_object", Key=self._key)
        except S3Error as error:
            if not is_absence(error):
                self._requests.fail(error, "delete_object", self._key)

    def of_any(self) -> None:
        """Delete what is there; raise ObjectNotFound if there is nothing."""
        if self._can("delete_if_match_any") and self._by_asterisk():
            return
        for attempt in itertools.count(1):
            current = self._requests.head(self._key).etag
            try:
                return self._version_or_any(current)
            except PreconditionFailed:
                pause(attempt)

    def _version_or_any(self, etag: ETagValue) -> None:
        if self._can("delete_if_match"):
            self._by_etag(etag)
        else:
            self.unconditionally()

    def of_version(self, etag: ETagValue) -> None:
        """Delete one version; without the server's help: look, compare, delete."""
        if self._can("delete_if_match"):
            return self._by_etag(etag)
        self._require_current(etag)
        return self.unconditionally()

    def _can(self, ability: str) -> bool:
        try:
            return self._requests.support(ability, self._prefix) is Support.ENFORCED
        except S3Error as error:
            self._requests.fail(error, "delete_object", self._key)

    def _by_asterisk(self) -> bool:
        """Delete under ``If-Match: *``; False: the server takes the asterisk for an ETag."""
        probe = self._requests.bucket.probe
        for _ in range(2):
            refusal = self._refusal_of(ANY_VERSION)
            if refusal is None:
                return True
            if is_absence(refusal) or probe.any_means_absent:
                raise ObjectNotFound(self._key) from refusal
            try:
                self._requests.head(self._key)
            except ObjectNotFound:
                probe.any_means_absent = True
                raise
        probe.note_misread("delete_if_match_any")
        return False

    def _by_etag(self, etag: ETagValue) -> None:
        form = self._requests.bucket.etag_form
        written = form.write(etag)
        refusal = self._refusal_of(written)
        if refusal is not None and not form.is_proven and not is_absence(refusal):
            self._require_current(etag)  # then the refusal must be for the form
            refusal = self._refusal_of(form.other(written))
            if refusal is not None:
                self._requests.bucket.probe.note_misread("delete_if_match")
                return self.of_version(etag)
        if refusal is None:
            return
        if is_absence(refusal):
            raise ObjectNotFound(self._key) from refusal
        current = self._requests.head(self._key).etag  # or there is none, as 412 may mean, too
        raise PreconditionFailed(self._key, actual_etag=current) from refusal

    def _require_current(self, etag: ETagValue) -> None:
        current = self._requests.head(self._key).etag
        if current != etag:
            raise PreconditionFailed(self._key, actual_etag=current)

    def _refusal_of(self, if_match: str) -> ClientError | None:
        """Delete under a condition; return the answer that says that it does not hold."""
        try:
            self._requests.send("delete_object", Key=self._key, IfMatch=if_match)
        except S3Error as error:
            if isinstance(error, ClientError) and (status_of(error) == 412 or is_absence(error)):
                if was_retried(error):
                    self._rule_out_own_deletion(error, if_match)
                return error
            self._requests.fail(error, "delete_object", self._key)
        return None

    def _rule_out_own_deletion(self, error: ClientError, if_match: str) -> None:
        """Raise the error unless what is there now descends from what was to be deleted."""
        version = ETagValue(f'"{if_match.strip(chr(34))}"')
        try:
            look, is_older = self._requests.head_since(self._key, self._begun)
        except ObjectNotFound:
            self._raise_unknown(error)
        if not is_older and not descends_from(version, look.lineage, look.etag):
            self._raise_unknown(error)

    def _raise_unknown(self, error: ClientError) -> NoReturn:
        error.add_note(_WHO_DELETED)
        annotate(error, "DeleteObject", self._requests.bucket_name, self._key)
        raise error


def delete_many(requests: S3Requests, keys: Iterable[str]) -> Iterator[tuple[str, Exception]]:
    """Delete objects, a thousand with a request; yield those that could not be, and why."""
    remaining = iter(keys)
    batches = iter(lambda: list(itertools.islice(remaining, _BATCH)), [])
    delete = partial(_delete_batch, requests)
    for failures in map_in_order(delete, batches, requests.shared.pool):
        yield from failures


def _delete_batch(requests: S3Requests, keys: list[str]) -> list[tuple[str, Exception]]:
    listed: Any = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
    try:
        reply = requests.send("delete_objects", Delete=listed)
    except S3Error as error:
        if status_of(error) in _NO_BULK:
            return _delete_singly(requests, keys)
        annotate(error, "DeleteObjects", requests.bucket_name)
        return [(key, error) for key in keys]
    return [(failure["Key"], _as_error(requests, failure)) for failure in reply.get("Errors", ())]


def _as_error(requests: S3Requests, failure: dict[str, Any]) -> ClientError:
    """Return the reason that DeleteObjects gave for one object as botocore's own exception."""
    reason: Any = {"Error": {name: failure.get(name, "") for name in ("Code", "Message")}}
    error = ClientError(reason, "DeleteObjects")
    annotate(error, "DeleteObjects", requests.bucket_name, failure["Key"])
    return error


def _delete_singly(requests: S3Requests, keys: list[str]) -> list[tuple[str, Exception]]:
    """Delete one by one, on a server that does not know how to delete many."""
    failures: list[tuple[str, Exception]] = []
    for key in keys:
        try:
            Deletion(requests, key, "").unconditionally()
        except S3Error as error:
            failures.append((key, error))
    return failures
