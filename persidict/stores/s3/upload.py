"""Large objects, written in parallel parts that one last request puts together."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Final, NoReturn

from persidict.buffers import let_go
from persidict.exceptions import BackendError, ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagIfExists, ETagValue
from persidict.stores.object_store import Buffer
from persidict.stores.s3.capabilities import Condition
from persidict.stores.s3.put import Put
from persidict.stores.s3.requests import Attempts, S3Requests
from persidict.stores.s3.transport.messages import (
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CreateMultipartUpload,
    HeadObject,
    PutObject,
    Refusal,
    Reply,
    UploadedPart,
    UploadPart,
)
from persidict.stores.s3.waiting import wait_for_deletion
from persidict.stores.shared.lineage import METADATA_KEY, token_of, versions_in
from persidict.stores.shared.teamwork import Teamwork

_MEBIBYTE: Final = 1024 * 1024
_PART_SIZE: Final = 8 * _MEBIBYTE
_MOST_PARTS: Final = 10_000
_MOST_IN_ONE_PUT: Final = 5 * 1024**3
_TEAM_SIZE: Final = 10
_MOST_UPLOADS: Final = 3
_HEADERS: Final[dict[Condition, str]] = {"if_match": "IfMatch", "if_none_match": "IfNoneMatch"}

_ENDED_BY_OTHERS: Final = (
    "persidict: the upload has ended, though not by an answer that arrived here: either it was"
    " completed by a request that was delivered twice, and has been overwritten since, or"
    " somebody aborted it"
)


def put_large(
    requests: S3Requests,
    key: str,
    data: Buffer,
    expected: ETagIfExists | None,
    *,
    content_type: str,
    prefix: str,
) -> ETagValue:
    """Write a large object in parts, whole or not at all; the port's `put`.

    The condition is checked before anything is sent, and again by the server when it puts
    the parts together. Where it does not check it then, or there is no telling, the object
    is written with a single PUT under the condition, of at most 5 GB. Costs a request for
    each part (8 MiB, more from 78 GiB on), 2 more, 1 more under a condition, and the first
    time under a condition 4 to 6 more to find out what the server does; none of them on
    AWS. Makes no copy of the data.

    Whatever goes wrong, the upload is aborted, so that no parts are left that cost money;
    only a process that is killed leaves them, for a lifecycle rule of the bucket.

    Args:
        requests: The bucket.
        key: The object's key.
        data: Its bytes.
        expected: The version to replace; ITEM_NOT_AVAILABLE: insert; None: whatever is there.
        content_type: The media type.
        prefix: Where a probe may put an object of its own.

    Raises:
        PreconditionFailed: The condition does not hold; nothing was written.
        BackendError: The server does not enforce the condition.
        Exception: The transport's own: the object could not be written.
    """
    view = memoryview(data).cast("B")
    if expected is not None:
        condition: Condition = "if_none_match" if expected is ITEM_NOT_AVAILABLE else "if_match"
        if not requests.bucket.probe.support_on_completion(condition, requests, prefix):
            if view.nbytes > _MOST_IN_ONE_PUT:
                _refuse_to_pretend(requests, key, _HEADERS[condition], view.nbytes)
            return Put(requests, key, expected).write(data, content_type, prefix)
        _refuse_early(requests, key, expected)

    def carry(request: PutObject, attempts: Attempts) -> Reply:
        uploads = 1
        while True:
            try:
                return _Upload(requests, view, request, attempts).carry_out()
            except _NothingWritten as failure:
                if not failure.is_worth_another or uploads == _MOST_UPLOADS:
                    raise
                uploads += 1

    try:
        return Put(requests, key, expected).write(view, content_type, prefix, carry)
    except _NothingWritten as failure:
        raise failure.reason from None


def part_size(size: int) -> int:
    """Return how many bytes each part of an object has, but for the last one."""
    least = math.ceil(size / _MOST_PARTS)
    return max(_PART_SIZE, math.ceil(least / _MEBIBYTE) * _MEBIBYTE)


def _refuse_to_pretend(requests: S3Requests, key: str, header: str, size: int) -> NoReturn:
    raise BackendError(
        f"the S3 server at {requests.shared.endpoint} does not enforce {header} on"
        f" CompleteMultipartUpload, and takes no more than 5 GB otherwise: {size} bytes cannot"
        f" be written there under a condition. Bucket {requests.bucket_name!r}, key {key!r}",
        backend="s3",
        operation="put",
        key=key,
    )


def _refuse_early(requests: S3Requests, key: str, expected: ETagIfExists) -> None:
    """Look at the condition before much is sent in vain."""
    try:
        reply = requests.perform(HeadObject(key))
    except Refusal as refusal:
        if refusal.is_forbidden:
            return  # these credentials may write, but not read
        try:
            requests.fail_to_read(refusal, key)
        except ObjectNotFound:
            current: ETagIfExists = ITEM_NOT_AVAILABLE
    else:
        look = requests.take_in(key, reply)
        current = look.etag
        if look.is_marker:
            current = ITEM_NOT_AVAILABLE
            if expected is ITEM_NOT_AVAILABLE:
                wait_for_deletion(requests, key, look)
    if current != expected:
        raise PreconditionFailed(key, actual_etag=current)


class _NothingWritten(Exception):
    """A request failed before the one that would have made the object.

    Attributes:
        reason: The failure.
        is_worth_another: Whether all that stands against another upload is that this one
            has ended: a collision may do that on AWS, and anybody may abort it.
    """

    def __init__(self, reason: Exception, *, is_worth_another: bool) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.is_worth_another = is_worth_another


class _Upload:
    """One multipart upload, from its creation to its completion or end.

    An upload that was created twice, because the first answer got lost, leaves one behind
    that has no parts.

    Args:
        requests: The bucket.
        data: The object's bytes.
        request: What else the object is to have, and under which condition.
        attempts: How often the completion may be sent.
    """

    def __init__(
        self, requests: S3Requests, data: memoryview, request: PutObject, attempts: Attempts
    ) -> None:
        self._requests = requests
        self._data = data
        self._request = request
        self._attempts = attempts
        self._key = request.key
        self._part_size = part_size(data.nbytes)
        self._parts: dict[int, UploadedPart] = {}
        self._team = Teamwork(
            range(1, math.ceil(data.nbytes / self._part_size) + 1),
            requests.shared.pool,
            self._send_part,
            team_size=_TEAM_SIZE,
        )
        self._upload_id = ""

    def carry_out(self) -> Reply:
        """Send everything; return what CompleteMultipartUpload was answered.

        Raises:
            _NothingWritten: It failed before the completion.
            Refusal: The completion failed.
        """
        try:
            self._create()
            with self._team:
                for number in self._team:
                    self._send_part(number)
            return self._complete()
        except BaseException as error:
            self._team.give_up()
            self._abort(error.reason if isinstance(error, _NothingWritten) else error)
            raise

    def _create(self) -> None:
        request = self._request
        try:
            self._upload_id = self._requests.perform(
                CreateMultipartUpload(self._key, request.content_type, request.metadata)
            )
        except Refusal as refusal:
            self._raise_nothing_written(refusal)

    def _send_part(self, number: int) -> None:
        start = (number - 1) * self._part_size
        body = _PartBody(self._data[start : start + self._part_size], self._team)
        request = UploadPart(self._key, self._upload_id, number, body)
        try:
            reply = self._requests.perform(request, _PartAttempts(self._requests, self._team))
        except Refusal as refusal:
            self._raise_nothing_written(refusal)
        assert reply.etag is not None
        self._parts[number] = UploadedPart(number, reply.etag, reply.checksums)
        let_go(self._data, start, self._part_size)

    def _raise_nothing_written(self, refusal: Refusal) -> NoReturn:
        error = self._requests.explain(refusal, self._key)
        raise _NothingWritten(error, is_worth_another=refusal.is_missing_upload) from None

    def _complete(self) -> Reply:
        request = CompleteMultipartUpload(
            self._key,
            self._upload_id,
            [part for _, part in sorted(self._parts.items())],
            self._request.if_match,
            self._request.if_none_match,
        )
        try:
            return self._requests.perform(request, self._attempts)
        except Refusal as refusal:
            if not refusal.is_missing_upload:
                raise
            return self._find_out(refusal)

    def _find_out(self, refusal: Refusal) -> Reply:
        """Tell whether the upload is gone because it was completed by the same request before."""
        own = token_of(self._request.metadata[METADATA_KEY])
        with suppress(Refusal):
            reply = self._requests.perform(HeadObject(self._key))
            look = self._requests.take_in(self._key, reply)
            versions = versions_in(look.lineage, look.etag)
            etag = next((etag for token, etag in versions if token == own), None)
            if etag is not None:
                return Reply(reply.status, etag)
        refusal.error.add_note(_ENDED_BY_OTHERS)
        error = self._requests.explain(refusal, self._key)
        raise _NothingWritten(error, is_worth_another=not refusal.may_have_acted)

    def _abort(self, error: BaseException) -> None:
        """End the upload and delete its parts; nobody is sending any more."""
        if not self._upload_id:
            return
        try:
            self._requests.perform(AbortMultipartUpload(self._key, self._upload_id))
        except Refusal as refusal:
            if refusal.is_not_found:
                return
            told = error.error if isinstance(error, Refusal) else error
            told.add_note(
                f"persidict: upload {self._upload_id!r} could not be aborted; the parts sent so"
                f" far are stored, and may cost money, until it is: {refusal.error}"
            )


class _PartAttempts(Attempts):
    """Attempts to send a part, none of which is made when the upload has failed."""

    def __init__(self, requests: S3Requests, team: Teamwork[int]) -> None:
        super().__init__(requests.shared.attempts, requests.traffic)
        self._team = team

    def another(self, refusal: Refusal) -> bool:
        if self._team.is_given_up:
            return False
        return super().another(refusal) and not self._team.is_given_up


class _PartBody:
    """A part of the data as a file, without a copy.

    Args:
        data: The part.
        team: Who is sending it; a request under way breaks off when its team gives up.
    """

    def __init__(self, data: memoryview, team: Teamwork[int]) -> None:
        self._data = data
        self._team = team
        self._position = 0

    def read(self, size: int | None = -1) -> memoryview:
        self._break_off_if_vain()
        start = self._position
        stop = len(self._data) if size is None or size < 0 else start + size
        piece = self._data[start:stop]
        self._position += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self._break_off_if_vain()
        origin = (0, self._position, len(self._data))[whence]
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def _break_off_if_vain(self) -> None:
        if self._team.is_given_up:
            raise InterruptedError("another part of this upload has failed")
