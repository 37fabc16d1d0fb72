"""The wire on a boto3 client: whatever botocore can reach, at the price of its CPU time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import botocore.parsers
from botocore.exceptions import FlexibleChecksumError
from botocore.parsers import ResponseParserError

from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.transport.errors import (
    S3Error,
    body_trouble,
    client_error,
    no_s3_reply,
    refusal_of,
    was_raised_in,
)
from persidict.stores.s3.transport.messages import (
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CopyObject,
    CreateBucket,
    CreateMultipartUpload,
    DeleteObject,
    DeleteObjects,
    GetObject,
    HeadBucket,
    HeadObject,
    ListedObject,
    ListMultipartUploads,
    ListObjectsV2,
    ListPage,
    ListParts,
    PartsPage,
    PutObject,
    Refusal,
    Reply,
    ReplyType,
    Request,
    UploadedPart,
    UploadPart,
    UploadsPage,
    http_date,
    quoted,
    status_of_code,
)
from persidict.stores.s3.transport.not_s3 import NotOfS3, check
from persidict.stores.s3.transport.options import NO_OPTIONS, RequestOptions
from persidict.stores.s3.transport.transport import Transport
from persidict.stores.shared.parallel import WorkerPool

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

_NO_CONSTRAINT_REGIONS: Final = (None, "", "us-east-1", "aws-global")
_SIGNS_OF_A_LISTING: Final = ("Contents", "CommonPrefixes", "IsTruncated", "KeyCount", "Name")

Raw = Mapping[str, Any]


class ClientHolder(Protocol):
    """What holds the client, which is another one after a fork."""

    pool: WorkerPool

    @property
    def client(self) -> S3Client:
        """The client."""


class BotocoreWire(Transport):
    """Requests through a boto3 client.

    Args:
        holder: What holds the client.
        bucket_name: The bucket.
        reason: Why it is this wire, for ``repr``.
        options: What goes with every request.
    """

    def __init__(
        self,
        holder: ClientHolder,
        bucket_name: str,
        reason: str,
        options: RequestOptions = NO_OPTIONS,
    ) -> None:
        super().__init__(bucket_name, holder.pool)
        self._holder = holder
        self._reason = reason
        self._options = options

    def __repr__(self) -> str:
        return f"<botocore wire to {self.bucket_name!r} at {self.endpoint} ({self._reason})>"

    @property
    def endpoint(self) -> str:
        return self._holder.client.meta.endpoint_url

    def send(self, request: Request[ReplyType]) -> ReplyType:
        method, describe, read = _OPERATIONS[type(request)]
        client = self._holder.client
        params = describe(request)
        if isinstance(request, CreateBucket):
            params = _location(client.meta.region_name)
        options = self._options.params(client.meta.service_model, request.operation)
        try:
            raw = getattr(client, method)(Bucket=self.bucket_name, **params, **options)
        except (*S3Error, ResponseParserError) as error:
            raise refusal_of(error, request.operation, self.endpoint) from None
        except (ValueError, RuntimeError) as error:
            if not was_raised_in(botocore.parsers, error):
                raise
            raise no_s3_reply(request.operation, 200, self.endpoint, str(error), error) from None
        headers = raw.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        try:
            answer = read(raw)
            check(request, answer, headers)
        except (KeyError, NotOfS3) as lack:
            body = raw.get("Body")
            if body is not None:
                body.close()
            what = str(lack) if isinstance(lack, NotOfS3) else f"no {lack.args[0]} in it"
            status, _ = _status_and_date(raw)
            what = f"{what} ({headers.get('content-type', 'no type')})"
            raise no_s3_reply(request.operation, status, self.endpoint, what) from None
        return cast("ReplyType", answer)


class _Body:
    """The body of a reply, with its troubles as Refusals."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        try:
            data: bytes = self._stream.read() if size < 0 else self._stream.read(size)
        except (*S3Error, FlexibleChecksumError) as error:
            raise body_trouble(error) from None
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()


# ---------------------------------------------------------------------- what is sent


def _conditions(request: Any) -> dict[str, Any]:
    found = {"IfMatch": request.if_match, "IfNoneMatch": getattr(request, "if_none_match", None)}
    return {name: etag for name, etag in found.items() if etag is not None}


def _describe_get(request: GetObject) -> dict[str, Any]:
    params = {"Key": request.key, **_conditions(request)}
    if request.byte_range is not None:
        start, stop = request.byte_range
        params["Range"] = f"bytes={start}-{stop - 1}"
    return params


def _describe_put(request: PutObject) -> dict[str, Any]:
    body = request.body
    return {
        "Key": request.key,
        "Body": body if isinstance(body, bytes) else bytes(body),
        "ContentType": request.content_type,
        "Metadata": dict(request.metadata),
        **_conditions(request),
    }


def _describe_deletions(request: DeleteObjects) -> dict[str, Any]:
    return {"Delete": {"Objects": [{"Key": key} for key in request.keys], "Quiet": True}}


def _describe_listing(request: ListObjectsV2) -> dict[str, Any]:
    params = {
        "Prefix": request.prefix,
        "StartAfter": request.start_after,
        "Delimiter": request.delimiter,
        "MaxKeys": request.max_keys,
        "ContinuationToken": request.continuation_token,
    }
    return {name: value for name, value in params.items() if value is not None}


def _describe_copy(request: CopyObject) -> dict[str, Any]:
    return {
        "Key": request.key,
        "CopySource": {"Bucket": request.source_bucket, "Key": request.source_key},
        **({"ExpectedSourceBucketOwner": request.source_owner} if request.source_owner else {}),
        "ContentType": request.content_type,
        "Metadata": dict(request.metadata),
        "MetadataDirective": "REPLACE",
    }


def _describe_creation(request: CreateMultipartUpload) -> dict[str, Any]:
    return {
        "Key": request.key,
        "ContentType": request.content_type,
        "Metadata": dict(request.metadata),
    }


def _describe_part(request: UploadPart) -> dict[str, Any]:
    return {
        "Key": request.key,
        "UploadId": request.upload_id,
        "PartNumber": request.number,
        "Body": request.body,
    }


def _describe_completion(request: CompleteMultipartUpload) -> dict[str, Any]:
    parts = [
        {"PartNumber": part.number, "ETag": part.etag, **part.checksums} for part in request.parts
    ]
    return {
        "Key": request.key,
        "UploadId": request.upload_id,
        "MultipartUpload": {"Parts": parts},
        **_conditions(request),
    }


def _describe_uploads(request: ListMultipartUploads) -> dict[str, Any]:
    params: dict[str, Any] = {"Prefix": request.prefix}
    if request.markers is not None:
        params["KeyMarker"], params["UploadIdMarker"] = request.markers
    return params


def _describe_parts(request: ListParts) -> dict[str, Any]:
    params: dict[str, Any] = {"Key": request.key, "UploadId": request.upload_id}
    if request.marker is not None:
        params["PartNumberMarker"] = request.marker
    return params


def _describe_key(request: Any) -> dict[str, Any]:
    return {"Key": request.key}


def _describe_upload(request: AbortMultipartUpload) -> dict[str, Any]:
    return {"Key": request.key, "UploadId": request.upload_id}


def _describe_nothing(request: Any) -> dict[str, Any]:
    return {}


def _describe_deletion(request: DeleteObject) -> dict[str, Any]:
    return {"Key": request.key, **_conditions(request)}


def _location(region: str | None) -> dict[str, Any]:
    if region in _NO_CONSTRAINT_REGIONS:
        return {}
    return {"CreateBucketConfiguration": {"LocationConstraint": region}}


# ---------------------------------------------------------------------- what is answered


def _status_and_date(raw: Raw) -> tuple[int, float | None]:
    metadata = raw.get("ResponseMetadata", {})
    date = metadata.get("HTTPHeaders", {}).get("date")
    return int(metadata.get("HTTPStatusCode", 0)), None if date is None else http_date(date)


def _read_object(raw: Raw) -> Reply:
    status, date = _status_and_date(raw)
    modified: datetime | None = raw.get("LastModified")
    stream = raw.get("Body")
    return Reply(
        status=status,
        etag=quoted(raw["ETag"]),
        content_length=raw.get("ContentLength"),
        content_range=_range(raw.get("ContentRange")),
        last_modified=None if modified is None else modified.timestamp(),
        metadata={name.lower(): text for name, text in (raw.get("Metadata") or {}).items()},
        date=date,
        body=None if stream is None else _Body(stream),
    )


def _range(text: str | None) -> tuple[int, int, int] | None:
    """Read ``bytes FIRST-LAST/SIZE``."""
    if text is None:
        return None
    span, _, size = text.removeprefix("bytes").strip().partition("/")
    first, _, last = span.partition("-")
    try:
        return int(first), int(last) + 1, int(size)
    except ValueError:
        raise NotOfS3("no readable Content-Range in it") from None


def _read_written(raw: Raw) -> Reply:
    status, date = _status_and_date(raw)
    checksums = {name: text for name, text in raw.items() if name.startswith("Checksum")}
    return Reply(status=status, etag=quoted(raw["ETag"]), date=date, checksums=checksums)


def _read_copied(raw: Raw) -> Reply:
    status, date = _status_and_date(raw)
    return Reply(status=status, etag=quoted(raw["CopyObjectResult"]["ETag"]), date=date)


def _read_done(raw: Raw) -> Reply:
    status, date = _status_and_date(raw)
    return Reply(status=status, date=date)


def _read_deletions(raw: Raw) -> Sequence[tuple[str, Refusal]]:
    return [(failure["Key"], _failure(failure)) for failure in raw.get("Errors", ())]


def _failure(failure: Raw) -> Refusal:
    """Return the reason that DeleteObjects gave for one object."""
    code, message = str(failure.get("Code", "")), str(failure.get("Message", ""))
    status = status_of_code(code)
    return Refusal(
        "DeleteObjects",
        status,
        code,
        lambda: client_error("DeleteObjects", status, code, message),
    )


def _read_page(raw: Raw) -> ListPage:
    if not any(sign in raw for sign in _SIGNS_OF_A_LISTING):
        raise NotOfS3("no listing in it")
    objects = [
        ListedObject(
            item["Key"],
            quoted(item["ETag"]),
            item["Size"],
            item["LastModified"].timestamp(),
        )
        for item in raw.get("Contents", ())
    ]
    return ListPage(
        objects,
        [group["Prefix"] for group in raw.get("CommonPrefixes", ())],
        raw["NextContinuationToken"] if raw.get("IsTruncated") else None,
        _status_and_date(raw)[1],
    )


def _read_upload(raw: Raw) -> str:
    return str(raw["UploadId"])


def _read_uploads(raw: Raw) -> UploadsPage:
    uploads = [(upload["Key"], upload["UploadId"]) for upload in raw.get("Uploads", ())]
    if not raw.get("IsTruncated"):
        return UploadsPage(uploads)
    return UploadsPage(uploads, (raw.get("NextKeyMarker", ""), raw.get("NextUploadIdMarker", "")))


def _read_parts(raw: Raw) -> PartsPage:
    parts = [
        UploadedPart(part["PartNumber"], ETagValue(part["ETag"])) for part in raw.get("Parts", ())
    ]
    return PartsPage(parts, raw["NextPartNumberMarker"] if raw.get("IsTruncated") else None)


_Operation = tuple[str, Callable[[Any], dict[str, Any]], Callable[[Raw], Any]]
"""The client's method, what describes the request to it, and what reads its answer."""

_OPERATIONS: Final[Mapping[type, _Operation]] = {
    AbortMultipartUpload: ("abort_multipart_upload", _describe_upload, _read_done),
    CompleteMultipartUpload: ("complete_multipart_upload", _describe_completion, _read_written),
    CopyObject: ("copy_object", _describe_copy, _read_copied),
    CreateBucket: ("create_bucket", _describe_nothing, _read_done),
    CreateMultipartUpload: ("create_multipart_upload", _describe_creation, _read_upload),
    DeleteObject: ("delete_object", _describe_deletion, _read_done),
    DeleteObjects: ("delete_objects", _describe_deletions, _read_deletions),
    GetObject: ("get_object", _describe_get, _read_object),
    HeadBucket: ("head_bucket", _describe_nothing, _read_done),
    HeadObject: ("head_object", _describe_key, _read_object),
    ListMultipartUploads: ("list_multipart_uploads", _describe_uploads, _read_uploads),
    ListObjectsV2: ("list_objects_v2", _describe_listing, _read_page),
    ListParts: ("list_parts", _describe_parts, _read_parts),
    PutObject: ("put_object", _describe_put, _read_written),
    UploadPart: ("upload_part", _describe_part, _read_written),
}
