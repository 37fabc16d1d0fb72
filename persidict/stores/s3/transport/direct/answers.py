"""Replies as they came, in types: what S3 answered, or the Refusal that says what was wrong."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)

from persidict.exceptions import without_frames
from persidict.stores.s3.transport.bodies import BrokenBody, BytesBody
from persidict.stores.s3.transport.direct.checksums import Checksum, DamagedBody, announced_checksum
from persidict.stores.s3.transport.direct.connections import CannotConnect
from persidict.stores.s3.transport.direct.exchange import BodyCut, NoReply, Stream, WireReply
from persidict.stores.s3.transport.direct.listing import MalformedListing, parse_page
from persidict.stores.s3.transport.errors import client_error, no_s3_reply
from persidict.stores.s3.transport.messages import (
    NOTHING_MORE,
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CopyObject,
    CreateMultipartUpload,
    DeleteObject,
    DeleteObjects,
    GetObject,
    HeadObject,
    ListObjectsV2,
    ListPage,
    PutObject,
    Refusal,
    Reply,
    Request,
    UploadPart,
    http_date,
    leads_elsewhere,
    quoted,
    status_of_code,
)
from persidict.stores.s3.transport.not_s3 import NotOfS3, check, check_refusal

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_METADATA: Final = "x-amz-meta-"
_CHECKSUM: Final = "x-amz-checksum-"
_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_FAILED_AFTER_ALL: Final = 500
"""The status that botocore gives, too, to an error that a reply of status 200 brings."""


def read_reply(request: Request[Any], reply: WireReply, endpoint: str) -> Any:
    """Return what a request was answered with, in its type.

    Args:
        request: The request.
        reply: What came.
        endpoint: Where it came from, for messages.

    Raises:
        Refusal: It was not answered with success, or not by S3.
    """
    try:
        if not 200 <= reply.status < 300:
            check_refusal(reply.status, reply.headers)
            raise refusal_in(request.operation, reply)
        answer = _READERS[type(request)](request, reply, endpoint)
        check(request, answer, reply.headers)
        return answer
    except NotOfS3 as lack:
        if isinstance(reply.body, Stream):
            reply.body.close()
        kind = reply.headers.get("content-type", "no type")
        raise no_s3_reply(request.operation, reply.status, endpoint, f"{lack} ({kind})") from None


def is_redirection(reply: WireReply, region: str) -> bool:
    """Tell whether a request has to go elsewhere: to another host, or signed for another region."""
    is_of_another = reply.headers.get("x-amz-bucket-region", region) != region
    return leads_elsewhere(reply.status, is_of_another_region=is_of_another)


# ---------------------------------------------------------------------- what is wrong


def refusal_in(operation: str, reply: WireReply, status: int | None = None) -> Refusal:
    """Return the Refusal that a reply is, with botocore's own exception.

    Args:
        operation: The name of the operation.
        reply: What came.
        status: What to take for its status; None: its own.
    """
    status = reply.status if status is None else status
    code, message = _code_and_message(_whole(reply), status)
    headers = reply.headers
    return Refusal(
        operation,
        status,
        code,
        lambda: client_error(operation, status, code, message, headers),
        date=_date(headers),
    )


def _code_and_message(body: bytes, status: int) -> tuple[str, str]:
    """Read the document that S3 writes; without one, take the status as botocore does."""
    root = _xml(body) if body else None
    if root is not None and _local(root.tag) == "Error":
        told = {_local(child.tag): child.text or "" for child in root}
        if told.get("Code"):
            return told["Code"], told.get("Message", "")
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return str(status), phrase


def trouble_of(
    operation: str, trouble: CannotConnect | NoReply, endpoint: str, *, is_read: bool = False
) -> Refusal:
    """Return the Refusal of a request that got no reply, with botocore's own exception.

    Args:
        operation: The name of the operation.
        trouble: What happened, chained from its reason.
        endpoint: Where the request went.
        is_read: Whether the head of a reply came, so that only its body is missing.
    """
    error = _botocore_error(trouble, endpoint, is_read=is_read)
    # the frames in which it was raised hold what was sent, signature included
    error.__cause__ = without_frames(trouble.__cause__) if trouble.__cause__ else None
    return Refusal(
        operation,
        0,
        "",
        lambda: error,
        may_have_acted=isinstance(trouble, NoReply) and not is_read,
        may_pass=True,
        is_broken_connection=isinstance(trouble, NoReply)
        and not isinstance(trouble.__cause__, TimeoutError),
    )


def _botocore_error(
    trouble: CannotConnect | NoReply, endpoint: str, *, is_read: bool
) -> BotoCoreError:
    cause = trouble.__cause__
    place: dict[str, Any] = {"endpoint_url": endpoint, "error": cause}
    if isinstance(trouble, CannotConnect):
        if isinstance(cause, TimeoutError):
            return ConnectTimeoutError(**place)
        if isinstance(cause, ssl.SSLError):
            return SSLError(**place)
        return EndpointConnectionError(**place)
    if isinstance(cause, TimeoutError):
        return ReadTimeoutError(**place)
    if isinstance(cause, DamagedBody):
        return FlexibleChecksumError(error_msg=str(cause))
    if isinstance(cause, BodyCut):
        return IncompleteReadError(
            actual_bytes=cause.received,
            expected_bytes=cause.received + 1 if cause.expected is None else cause.expected,
        )
    if is_read:
        return ResponseStreamingError(error=cause)
    return ConnectionClosedError(**place)


# ---------------------------------------------------------------------- bodies


class _StreamBody:
    """A body that is read from its connection, its troubles as Refusals."""

    __slots__ = ("_endpoint", "_stream")

    def __init__(self, stream: Stream, endpoint: str) -> None:
        self._stream = stream
        self._endpoint = endpoint

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self._read_all()
        buffer = bytearray(size)
        filled = self._fill(memoryview(buffer))
        return bytes(memoryview(buffer)[:filled])

    def _read_all(self) -> bytes:
        pieces = []
        while piece := self.read(_PIECE):
            pieces.append(piece)
        return b"".join(pieces)

    def _fill(self, target: memoryview) -> int:
        filled = 0
        while filled < len(target):
            count = self.readinto(target[filled:])
            if not count:
                break
            filled += count
        return filled

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return self._stream.readinto(buffer)
        except NoReply as trouble:
            raise trouble_of("GetObject", trouble, self._endpoint, is_read=True) from None

    def close(self) -> None:
        self._stream.close()


_PIECE: Final = 1024 * 1024


def _whole(reply: WireReply) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else b""


# ---------------------------------------------------------------------- what was asked for


def _read_head(request: HeadObject, reply: WireReply, endpoint: str) -> Reply:
    return _object(reply)


def _read_get(request: GetObject, reply: WireReply, endpoint: str) -> Reply:
    answer = _object(reply)
    body = reply.body
    checksum = announced_checksum(reply.headers)
    if isinstance(body, Stream):
        body.checksum = checksum
        answer.body = _StreamBody(body, endpoint)
        return answer
    trouble = reply.trouble
    if trouble is None and checksum is not None:
        trouble = _compare(checksum, body)
    if trouble is None:
        answer.body = BytesBody(body)
    else:
        answer.body = BrokenBody(trouble_of("GetObject", trouble, endpoint, is_read=True))
    return answer


def _compare(checksum: Checksum, body: bytes) -> NoReply | None:
    checksum.update(body)
    try:
        checksum.compare()
    except DamagedBody as damage:
        trouble = NoReply()
        trouble.__cause__ = damage
        return trouble
    return None


def _object(reply: WireReply) -> Reply:
    headers = reply.headers
    modified = headers.get("last-modified")
    content_range = headers.get("content-range")
    return Reply(
        status=reply.status,
        etag=quoted(_required(headers, "etag")),
        content_length=reply.length,
        content_range=None if content_range is None else _range(content_range),
        last_modified=None if modified is None else http_date(modified),
        metadata={
            name[len(_METADATA) :]: value
            for name, value in headers.items()
            if name.startswith(_METADATA)
        },
        date=_date(headers),
        checksums=NOTHING_MORE,
    )


def _range(text: str) -> tuple[int, int, int]:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise NotOfS3("no readable Content-Range in it")
    first, last, size = map(int, found.groups())
    return first, last + 1, size


def _read_written(request: Request[Any], reply: WireReply, endpoint: str) -> Reply:
    headers = reply.headers
    checksums = {
        f"Checksum{name[len(_CHECKSUM) :].upper()}": value
        for name, value in headers.items()
        if name.startswith(_CHECKSUM) and name != "x-amz-checksum-type"
    }
    return Reply(
        status=reply.status,
        etag=quoted(_required(headers, "etag")),
        metadata=NOTHING_MORE,
        date=_date(headers),
        checksums=checksums,
    )


def _read_done(request: Request[Any], reply: WireReply, endpoint: str) -> Reply:
    return Reply(status=reply.status, date=_date(reply.headers))


def _read_result(request: Request[Any], reply: WireReply, endpoint: str) -> Reply:
    """Read the document of a copy or a completion, which may tell of a failure after all."""
    root = _document(request, reply)
    return Reply(status=reply.status, etag=quoted(_child(root, "ETag")), date=_date(reply.headers))


def _read_upload(request: CreateMultipartUpload, reply: WireReply, endpoint: str) -> str:
    return _child(_document(request, reply), "UploadId")


def _read_page(request: ListObjectsV2, reply: WireReply, endpoint: str) -> ListPage:
    try:
        page = parse_page(_whole(reply))
    except MalformedListing as error:
        raise NotOfS3(str(error)) from None
    page.date = _date(reply.headers)
    return page


def _read_deletions(
    request: DeleteObjects, reply: WireReply, endpoint: str
) -> Sequence[tuple[str, Refusal]]:
    root = _document(request, reply)
    if _local(root.tag) != "DeleteResult":
        raise NotOfS3("no DeleteResult in it")
    failures = []
    for child in root:
        if _local(child.tag) == "Error":
            told = {_local(item.tag): item.text or "" for item in child}
            failures.append((told.get("Key", ""), _failure(told)))
    return failures


def _failure(told: Mapping[str, str]) -> Refusal:
    code, message = told.get("Code", ""), told.get("Message", "")
    status = status_of_code(code)
    return Refusal(
        "DeleteObjects",
        status,
        code,
        lambda: client_error("DeleteObjects", status, code, message),
    )


def _document(request: Request[Any], reply: WireReply) -> ElementTree.Element:
    """Return the XML of a reply of success.

    Raises:
        Refusal: S3 began to answer before it knew that it would fail, or said nothing more.
    """
    body = _whole(reply)
    root = _xml(body)
    if not body.strip() or (root is not None and _local(root.tag) == "Error"):
        raise refusal_in(request.operation, reply, status=_FAILED_AFTER_ALL)
    if root is None:
        raise NotOfS3("no XML")
    return root


def _xml(body: bytes) -> ElementTree.Element | None:
    if b"<!DOCTYPE" in body:
        return None
    try:
        return ElementTree.fromstring(body.decode().strip())
    except (UnicodeDecodeError, ElementTree.ParseError):
        return None


def _child(root: ElementTree.Element, tag: str) -> str:
    for child in root:
        if _local(child.tag) == tag and child.text:
            return child.text
    raise NotOfS3(f"no {tag} in it")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise NotOfS3(f"no {name} in it")
    return value


def _date(headers: Mapping[str, str]) -> float | None:
    text = headers.get("date")
    return None if text is None else http_date(text)


_READERS: Final[Mapping[type[Request[Any]], Callable[[Any, WireReply, str], Any]]] = {
    AbortMultipartUpload: _read_done,
    CompleteMultipartUpload: _read_result,
    CopyObject: _read_result,
    CreateMultipartUpload: _read_upload,
    DeleteObject: _read_done,
    DeleteObjects: _read_deletions,
    GetObject: _read_get,
    HeadObject: _read_head,
    ListObjectsV2: _read_page,
    PutObject: _read_written,
    UploadPart: _read_written,
}
