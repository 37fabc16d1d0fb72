"""Large objects: read in parallel ranges, written in parallel parts."""

from __future__ import annotations

import math
import uuid
import weakref
from contextlib import suppress
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final, Literal, NamedTuple, NoReturn

from botocore.exceptions import ClientError

from persidict.buffers import new_buffer
from persidict.exceptions import BackendError, ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagIfExists, ETagValue
from persidict.stores.object_store import Buffer
from persidict.stores.s3.capabilities import PROBE_NAME, Send, Support, is_aws_endpoint
from persidict.stores.s3.client import Bucket
from persidict.stores.s3.errors import (
    S3Error,
    annotate,
    code_of,
    is_absence,
    status_of,
    was_retried,
)
from persidict.stores.s3.lineage import METADATA_KEY, Outcome, find_write
from persidict.stores.s3.put import Put
from persidict.stores.s3.requests import S3Requests, canonical_etag, size_of
from persidict.stores.s3.stream import Body, BodyTrouble, PinnedObject, fill
from persidict.stores.shared.teamwork import Teamwork

DEFAULT_LARGE_OBJECT_SIZE: Final = 16 * 1024 * 1024

_MEBIBYTE: Final = 1024 * 1024
_PART_SIZE: Final = 8 * _MEBIBYTE
_MOST_PARTS: Final = 10_000
_MOST_IN_ONE_PUT: Final = 5 * 1024**3
_TEAM_SIZE: Final = 10
_MOST_UPLOADS: Final = 3
_NO_SUCH_UPLOAD: Final = "NoSuchUpload"

_ENDED_BY_OTHERS: Final = (
    "persidict: the upload has ended, though not by an answer that arrived here: either it was"
    " completed by a request that was delivered twice, and has been overwritten since, or"
    " somebody aborted it"
)


# ---------------------------------------------------------------------- reading


def range_size(large_object_size: int) -> int:
    """Return how many bytes each range has that a large object is read in."""
    return max(1, min(_PART_SIZE, large_object_size // 2))


def read_large(
    requests: S3Requests, key: str, reply: dict[str, Any], *, large_object_size: int
) -> memoryview:
    """Read the body of a reply to a GET, with the help of GETs for ranges of that version.

    The reply is one to a GET for the whole object, or for its first `range_size` bytes. The
    calling thread reads on in the body that it has, from the front; threads that are
    free read ranges, from the back. Once one of them has come, the body is closed, lest the
    server sends what others read; where no thread is free, the one request does it all.
    Needs no more memory than the bytes returned. The checksum of a whole object is compared
    only where the one request has read all of it.

    Args:
        requests: The bucket.
        key: The object's key.
        reply: The reply.
        large_object_size: The size from which on objects are large.

    Raises:
        ObjectMoved: The object was replaced or deleted meanwhile.
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: A part cannot
            be read.
    """
    return _Download(requests, key, reply, large_object_size).run()


class _Range(NamedTuple):
    start: int
    stop: int


class _Download:
    def __init__(
        self, requests: S3Requests, key: str, reply: dict[str, Any], large_object_size: int
    ) -> None:
        self._size = size_of(reply)
        self._pinned = PinnedObject(requests, key, canonical_etag(reply["ETag"]), self._size)
        self._body: Body = reply["Body"]
        self._readable: int = reply["ContentLength"]
        self._position = 0
        self._content = new_buffer(self._size)
        length = range_size(large_object_size)
        ranges = [
            _Range(start, min(start + length, self._size)) for start in range(0, self._size, length)
        ]
        self._first = ranges.pop(0)
        self._team = Teamwork(ranges, requests.shared.pool, self._read_range, team_size=_TEAM_SIZE)

    def run(self) -> memoryview:
        try:
            with self._team:
                self._read_in_sequence(self._first)
                for part in self._team:
                    self._read_in_sequence(part)
            if self._position == self._size:
                self._body.read(1)  # the end, where the checksum is compared
        finally:
            self._body.close()
        return self._content

    def _read_range(self, part: _Range) -> None:
        self._pinned.read_into(part.start, self._content[part.start : part.stop])

    def _read_in_sequence(self, part: _Range) -> None:
        if self._position and self._team.is_helped:
            self._stop_reading_the_body()
        if part.stop <= self._readable:
            try:
                fill(self._content[part.start : part.stop], self._body)
            except BodyTrouble:
                self._stop_reading_the_body()
            else:
                self._position = part.stop
                return
        self._read_range(part)

    def _stop_reading_the_body(self) -> None:
        self._readable = 0
        self._body.close()


# ---------------------------------------------------------------------- writing


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
        botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: The object
            could not be written.
    """
    view = memoryview(data).cast("B")
    if expected is not None:
        header: _Condition = "IfNoneMatch" if expected is ITEM_NOT_AVAILABLE else "IfMatch"
        if not _is_enforced(requests, header, prefix):
            if view.nbytes > _MOST_IN_ONE_PUT:
                _refuse_to_pretend(requests, key, header, view.nbytes)
            return Put(requests, key, expected).send(data, content_type, prefix)
        _refuse_early(requests, key, expected)
    try:
        return Put(_RequestsInParts(requests, view), key, expected).send(b"", content_type, prefix)
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
    current: ETagIfExists = ITEM_NOT_AVAILABLE
    try:
        current = requests.head(key).etag
    except ObjectNotFound:
        pass
    except S3Error as error:
        if status_of(error) != 403:
            raise
        return  # these credentials may write, but not read
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


class _RequestsInParts(S3Requests):
    """Requests among which a PUT of an object is carried out in parts.

    What `Put` knows of lost replies, of conflicts and of the forms of ETags holds for
    CompleteMultipartUpload, too.
    """

    def __init__(self, requests: S3Requests, data: memoryview) -> None:
        super().__init__(requests.shared, requests.bucket_name, create_bucket=False)
        self._requests = requests
        self._data = data

    @property
    def plain(self) -> S3Requests:
        return self._requests

    def send(self, operation: str, /, **params: Any) -> dict[str, Any]:
        if operation != "put_object":
            return self._requests.send(operation, **params)
        params.pop("Body")
        condition: dict[str, Any] = {n: params.pop(n) for n in _CONDITIONS if n in params}
        uploads = 1
        while True:
            try:
                return _Upload(self._requests, self._data, params).carry_out(condition)
            except _NothingWritten as failure:
                if not failure.is_worth_another or uploads == _MOST_UPLOADS:
                    raise
                uploads += 1

    def support(self, ability: str, prefix: str) -> Support:
        return self._requests.support(ability, prefix)

    def fail(self, error: BaseException, operation: str, key: str = "", note: str = "") -> NoReturn:
        completes = operation == "put_object"
        super().fail(error, "complete_multipart_upload" if completes else operation, key, note)


class _Upload:
    """One multipart upload, from its creation to its completion or end.

    Args:
        requests: The bucket.
        data: The object's bytes.
        description: What else the object is to have: key, content type, metadata.
    """

    def __init__(self, requests: S3Requests, data: memoryview, description: dict[str, Any]) -> None:
        self._requests = requests
        self._data = data
        self._description = description
        self._key: str = description["Key"]
        self._part_size = part_size(data.nbytes)
        self._parts: dict[int, dict[str, Any]] = {}
        self._team = Teamwork(
            range(1, math.ceil(data.nbytes / self._part_size) + 1),
            requests.shared.pool,
            self._send_part,
            team_size=_TEAM_SIZE,
        )
        self._identity: dict[str, str] = {}
        self._seconds_to_create = 0.0
        self._may_have_a_twin = False

    def carry_out(self, condition: dict[str, Any]) -> dict[str, Any]:
        """Send everything; return what CompleteMultipartUpload was answered.

        Raises:
            _NothingWritten: It failed before the completion.
            botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: The
                completion failed.
        """
        self._create()
        try:
            with self._team:
                for number in self._team:
                    self._send_part(number)
            self._abort_twins()
            return self._complete(condition)
        except BaseException as error:
            self._abort(error.reason if isinstance(error, _NothingWritten) else error)
            raise

    def _send(self, operation: str, **params: Any) -> dict[str, Any]:
        """Send one of the requests that do not make the object yet."""
        try:
            return self._requests.send(operation, **params)
        except S3Error as error:
            name = self._requests.client.meta.method_to_api_mapping[operation]
            annotate(error, name, self._requests.bucket_name, self._key)
            has_ended = code_of(error) == _NO_SUCH_UPLOAD
            raise _NothingWritten(error, is_worth_another=has_ended) from error

    def _create(self) -> None:
        asked = monotonic()
        reply = self._send("create_multipart_upload", **self._description)
        self._seconds_to_create = monotonic() - asked
        self._identity = {"Key": self._key, "UploadId": reply["UploadId"]}
        self._may_have_a_twin = reply["ResponseMetadata"].get("RetryAttempts", 0) > 0

    def _send_part(self, number: int) -> None:
        start = (number - 1) * self._part_size
        body = _PartBody(self._data[start : start + self._part_size], self._team)
        reply = self._send("upload_part", PartNumber=number, Body=body, **self._identity)
        checksums = {name: text for name, text in reply.items() if name.startswith("Checksum")}
        self._parts[number] = {"PartNumber": number, "ETag": reply["ETag"], **checksums}

    def _complete(self, condition: dict[str, Any]) -> dict[str, Any]:
        parts = {"Parts": [part for _, part in sorted(self._parts.items())]}
        try:
            return self._requests.send(
                "complete_multipart_upload", MultipartUpload=parts, **self._identity, **condition
            )
        except ClientError as error:
            if code_of(error) != _NO_SUCH_UPLOAD:
                raise
            return self._find_out(error)

    def _find_out(self, error: ClientError) -> dict[str, Any]:
        """Tell whether the upload is gone because it was completed by the same request before."""
        token = self._description["Metadata"][METADATA_KEY].partition(";")[0]
        with suppress(ObjectNotFound, *S3Error):
            look = self._requests.head(self._key)
            finding = find_write(token, None, look.lineage, look.etag)
            if finding.outcome is Outcome.WRITTEN:
                return {"ETag": finding.etag}
        error.add_note(_ENDED_BY_OTHERS)
        annotate(error, "CompleteMultipartUpload", self._requests.bucket_name, self._key)
        raise _NothingWritten(error, is_worth_another=not was_retried(error))

    def _abort(self, error: BaseException) -> None:
        """End the upload and delete its parts; nobody is sending any more."""
        try:
            self._abort_twins()
        finally:
            failure = self._abort_one(self._identity)
            if failure is not None:
                error.add_note(
                    f"persidict: upload {self._identity['UploadId']!r} could not be aborted; the"
                    f" parts sent so far are stored, and may cost money, until it is: {failure}"
                )

    def _abort_one(self, identity: dict[str, str]) -> Exception | None:
        try:
            self._requests.send("abort_multipart_upload", **identity)
        except S3Error as failure:
            return None if is_absence(failure) else failure
        return None

    def _abort_twins(self) -> None:
        """Abort uploads that were created, unheard, by the same request before.

        They cannot be told from an upload that somebody else created for the same key in the
        same moments, but by its parts: an upload that has none yet when this one has all of
        them is taken for a twin.
        """
        if not self._may_have_a_twin:
            return
        self._may_have_a_twin = False
        with suppress(*S3Error):  # a twin has no parts: it costs nothing but its looks
            listed = self._requests.send("list_multipart_uploads", Prefix=self._key)
            begun = {
                upload["UploadId"]: upload["Initiated"]
                for upload in listed.get("Uploads", ())
                if upload["Key"] == self._key
            }
            own = begun.pop(self._identity["UploadId"], None)
            for upload_id in self._begun_just_before(own, begun):
                identity = {"Key": self._key, "UploadId": upload_id}
                if not self._requests.send("list_parts", MaxParts=1, **identity).get("Parts"):
                    self._abort_one(identity)

    def _begun_just_before(self, own: datetime | None, begun: dict[str, datetime]) -> list[str]:
        if own is None:
            return []
        earliest = own - timedelta(seconds=self._seconds_to_create + 1)
        return [upload_id for upload_id, moment in begun.items() if earliest <= moment <= own]


class _PartBody:
    """A part of the data as a file for botocore, without a copy.

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


# ---------------------------------------------------------------------- what the server enforces

_Condition = Literal["IfMatch", "IfNoneMatch"]
_CONDITIONS: Final[tuple[_Condition, ...]] = ("IfMatch", "IfNoneMatch")
_UNMET: Final[dict[_Condition, str]] = {
    "IfMatch": '"00000000000000000000000000000000"',
    "IfNoneMatch": "*",
}
_REFUSALS: Final = (405, 501)

_known: Final[weakref.WeakKeyDictionary[Bucket, dict[_Condition, Support]]] = (
    weakref.WeakKeyDictionary()
)


def _is_enforced(requests: S3Requests, condition: _Condition, prefix: str) -> bool:
    """Tell whether a server checks a condition on CompleteMultipartUpload.

    It is asked once for each bucket. What cannot be found out, for want of permission, say,
    is not taken for enforcement, and asked again the next time.
    """
    if is_aws_endpoint(requests.shared.endpoint):
        return True
    bucket = requests.bucket
    with bucket.probe.lock:
        known = _known.setdefault(bucket, {})
        if condition not in known:
            name = f"{prefix}{PROBE_NAME}{uuid.uuid4().hex}"
            try:
                known[condition] = _probe(requests.send, name, condition)
            except S3Error:
                return False
        return known[condition] is Support.ENFORCED


def _probe(send: Send, name: str, condition: _Condition) -> Support:
    """Try to complete an upload under a condition that does not hold, and clean up."""
    upload = ""
    try:
        if condition == "IfNoneMatch":
            send("put_object", Key=name, Body=b"")
        upload = send("create_multipart_upload", Key=name)["UploadId"]
        part = send("upload_part", Key=name, UploadId=upload, PartNumber=1, Body=b"?")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        return _complete_under(send, {"Key": name, "UploadId": upload}, parts, condition)
    except ClientError as error:
        if status_of(error) not in _REFUSALS:
            raise
        return Support.REFUSED
    finally:
        with suppress(*S3Error):
            if upload:
                send("abort_multipart_upload", Key=name, UploadId=upload)
        with suppress(*S3Error):
            send("delete_object", Key=name)


def _complete_under(
    send: Send, upload: dict[str, str], parts: dict[str, Any], condition: _Condition
) -> Support:
    unmet = {condition: _UNMET[condition]}
    try:
        send("complete_multipart_upload", MultipartUpload=parts, **upload, **unmet)
    except ClientError as error:
        # An upload that is gone may have been completed by this request, delivered twice
        is_unmet = status_of(error) == 412 or is_absence(error)
        if not is_unmet or code_of(error) == _NO_SUCH_UPLOAD:
            raise
        return Support.ENFORCED
    return Support.IGNORED
