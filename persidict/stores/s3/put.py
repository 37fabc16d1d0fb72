"""Writing an object under a condition, also when replies get lost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, NoReturn

from persidict.exceptions import BackendError, ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import (
    ITEM_NOT_AVAILABLE,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
)
from persidict.stores.object_store import Buffer
from persidict.stores.s3.capabilities import Support
from persidict.stores.s3.readback import OUTCOME_UNKNOWN, Readback, WriteRefused
from persidict.stores.s3.requests import Attempts, Look, S3Requests
from persidict.stores.s3.transport.messages import NOTHING_MORE, PutObject, Refusal, Reply
from persidict.stores.s3.waiting import may_hold_markers, wait_for_deletion
from persidict.stores.shared.lineage import METADATA_KEY, extend, first

Carry = Callable[[PutObject, Attempts], Reply]
"""Carries a write out, in one request or in more; raises Refusal as one request would."""

_HEADERS: Final = {"put_if_match": "If-Match", "put_if_none_match": "If-None-Match"}


class Put:
    """One write of one object, however many requests it takes.

    It is repeated only when it is seen not to have acted: what is not there may have been
    deleted since.

    Args:
        requests: The bucket.
        key: The object's key.
        expected: The version to replace; ITEM_NOT_AVAILABLE: insert; None: whatever is there.
        metadata: What is said of the object beside its lineage.
    """

    def __init__(
        self,
        requests: S3Requests,
        key: str,
        expected: ETagIfExists | None,
        *,
        metadata: Mapping[str, str] = NOTHING_MORE,
    ) -> None:
        self._requests = requests
        self._key = key
        self._expected = expected
        self._metadata = metadata
        self._lineages = requests.bucket.lineages
        self._prefix = ""
        self._stale_marker: ETagValue | None = None
        """The version that an insertion is to replace, because nobody will delete it."""

    @property
    def token(self) -> str:
        """What the lineage of the object will begin with; known once this has been planned."""
        return self._readback.token

    def write(
        self, data: Buffer, content_type: str, prefix: str, carry: Carry | None = None
    ) -> ETagValue:
        """Write the object; the port's `put`.

        Args:
            data: The bytes.
            content_type: The media type.
            prefix: Where a probe may put an object of its own.
            carry: Carries the write out; None: in one request.
        """
        return self.settle(self.plan(data, content_type, prefix), None, carry)

    def plan(self, data: Buffer, content_type: str, prefix: str) -> PutObject:
        """Return the request that writes the object; once for each Put.

        Args:
            data: The bytes.
            content_type: The media type.
            prefix: Where a probe may put an object of its own.
        """
        self._prefix = prefix
        expected = self._expected
        if expected is None or isinstance(expected, ItemNotAvailableFlag):
            before = self._lineages.latest(self._key)
        else:
            before = self._lineages.recall(self._key, expected)
        self._readback = readback = Readback(self._requests, self._key, before)
        if expected is None or isinstance(expected, ItemNotAvailableFlag):
            lineage = first(readback.token, expected)
        else:
            lineage = extend(readback.token, expected, before)
        return PutObject(
            self._key,
            data,
            content_type,
            {METADATA_KEY: lineage, **self._metadata},
            if_match=self._if_match(prefix),
            if_none_match=self._if_none_match(prefix),
        )

    def settle(
        self, request: PutObject, answer: Reply | Refusal | None, carry: Carry | None = None
    ) -> ETagValue:
        """Bring a write to its end, and return the version that it made.

        Args:
            request: What `plan` returned.
            answer: What it has been answered with; None: it has not been sent.
            carry: Carries the write out; None: in one request.
        """
        etag = self._carry_out(request, answer, carry or self._requests.perform)
        self._lineages.remember(self._key, etag, request.metadata[METADATA_KEY])
        return etag

    def _carry_out(
        self, request: PutObject, answer: Reply | Refusal | None, carry: Carry
    ) -> ETagValue:
        attempts = self._requests.attempts()
        while True:
            try:
                if answer is None or (isinstance(answer, Refusal) and answer.is_missing_bucket):
                    answer = self._send(request, attempts, carry)
                if isinstance(answer, Refusal):
                    raise answer
                etag = answer.etag
            except Refusal as refusal:
                etag = self._settle(refusal, request, self._readback, attempts)
            if etag is not None:
                return etag
            answer = None

    def _send(self, request: PutObject, attempts: Attempts, carry: Carry) -> Reply:
        if self._stale_marker is None:
            return carry(request, attempts)
        over_marker = replace(request, if_none_match=None, if_match=self._stale_marker)
        return self._requests.perform(over_marker, attempts)

    # ------------------------------------------------------------------ conditions

    def _if_none_match(self, prefix: str) -> str | None:
        if not isinstance(self._expected, ItemNotAvailableFlag):
            return None
        self._require("put_if_none_match", prefix)
        return "*"

    def _if_match(self, prefix: str) -> str | None:
        if self._expected is None or isinstance(self._expected, ItemNotAvailableFlag):
            return None
        self._require("put_if_match", prefix)
        return self._expected

    def _require(self, ability: str, prefix: str) -> None:
        requests = self._requests
        try:
            support = requests.support(ability, prefix)
        except Refusal as refusal:
            requests.fail(refusal, self._key)
        if support is Support.ENFORCED:
            return
        header = _HEADERS[ability]
        probe = requests.bucket.probe
        status = probe.status(ability)
        server = f"the S3 server at {requests.transport.endpoint}"
        if probe.is_forbidden(ability):
            finding = (
                f"{server} does not let these credentials find out whether it enforces {header}"
                f" on PUT ({status})"
            )
        else:
            answer = "ignores it and answers" if support is Support.IGNORED else "answers"
            finding = f"{server} does not enforce {header} on PUT (it {answer} {status})"
        raise BackendError(
            f"{finding}, so that nothing is written under a condition."
            f" Bucket {requests.bucket_name!r}, key {self._key!r}",
            backend="s3",
            operation="put",
            key=self._key,
        )

    # ------------------------------------------------------------------ what became of it

    def _settle(
        self, refusal: Refusal, request: PutObject, readback: Readback, attempts: Attempts
    ) -> ETagValue | None:
        """Find out what became of a write that was not answered with success.

        Returns:
            The version that the write made after all; None: try again.
        """
        is_refused = self._expected is not None and (refusal.is_unmet or refusal.is_absence)
        if not refusal.may_have_acted:
            if refusal.is_misread:
                self._requests.bucket.probe.note_misread("put_if_match")
                self._require("put_if_match", "")
            if is_refused:
                return self._settle_refused(refusal, readback)
            self._requests.fail(refusal, self._key)
        finding = readback.find(_md5_etag(request.body))
        if finding.was_written:
            return finding.etag
        if finding.was_written is None:
            self._requests.fail(refusal, self._key, OUTCOME_UNKNOWN)
        is_swap = self._expected is not None and not self._is_insertion
        if finding.marker is not None and not is_swap:
            self._pass(finding.marker)
            if is_refused:
                return None
        if is_refused:
            raise PreconditionFailed(self._key) from refusal.error
        if not attempts.another(refusal):
            self._requests.fail(refusal, self._key)
        return None

    def _settle_refused(self, refusal: Refusal, readback: Readback) -> ETagValue | None:
        """Tell whether it is but the marker of a taken item that stands against an insertion.

        Costs a look, where there may be markers.

        Returns:
            As `_settle`.

        Raises:
            WriteRefused: It is an item, or the write is no insertion.
        """
        if self._stale_marker is not None:
            self._stale_marker = None
            return None
        if not self._is_insertion or not may_hold_markers(self._requests, self._prefix):
            self._refuse(refusal, readback)
        since = self._lineages.now()
        try:
            look = readback.look()
        except (ObjectNotFound, Refusal):
            self._refuse(refusal, readback)
        if not look.is_marker:
            self._refuse(refusal, readback, look.etag, since)
        found = readback.judge(look)
        if found.was_written:
            return found.etag
        self._pass(look)
        return None

    def _pass(self, look: Look) -> None:
        """Wait until a marker is deleted, or may be replaced."""
        stale = wait_for_deletion(self._requests, self._key, look)
        if self._is_insertion:
            self._stale_marker = None if stale is None else stale.etag

    @property
    def _is_insertion(self) -> bool:
        return isinstance(self._expected, ItemNotAvailableFlag)

    def _refuse(
        self,
        refusal: Refusal,
        readback: Readback,
        actual: ETagIfExists | None = None,
        since: int | None = None,
    ) -> NoReturn:
        raise WriteRefused(
            self._requests,
            self._key,
            readback,
            actual_etag=ITEM_NOT_AVAILABLE if refusal.is_absence else actual,
            since=since,
        ) from refusal.error


def _md5_etag(data: Buffer) -> ETagValue:
    """Return the ETag that S3 gives to such bytes, written in one piece and not encrypted."""
    return ETagValue(f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"')
