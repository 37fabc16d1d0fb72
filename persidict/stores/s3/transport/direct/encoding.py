"""Typed requests as they are sent: method, path, query, headers and body, signed."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from persidict.buffers import BUFFERS, Buffer
from persidict.stores.s3.transport.direct.checksums import crc32
from persidict.stores.s3.transport.direct.destination import Destination
from persidict.stores.s3.transport.direct.exchange import WireRequest
from persidict.stores.s3.transport.direct.signing import EMPTY_SHA256, Signer
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
    PartBody,
    PutObject,
    Request,
    UploadPart,
)

_ASKS_FIRST_ABOVE: Final = 1024 * 1024
_NAMESPACE: Final = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_UNSENDABLE: Final = re.compile(r"[^\t\x20-\x7e\x80-\xff]")
_AS_IT_IS: Final = re.compile(r"[A-Za-z0-9_.~/-]*")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PIECE: Final = 1024 * 1024
_HTTP_METHOD: Final = {
    GetObject: "GET",
    HeadObject: "HEAD",
    PutObject: "PUT",
    DeleteObject: "DELETE",
    ListObjectsV2: "GET",
    DeleteObjects: "POST",
    CreateMultipartUpload: "POST",
    UploadPart: "PUT",
    CompleteMultipartUpload: "POST",
    AbortMultipartUpload: "DELETE",
    CopyObject: "PUT",
}
"""The requests that the direct wire can send."""


class CannotEncode(Exception):
    """A request has something unusual that is left to botocore."""


@dataclass(slots=True)
class _Draft:
    """A request before it is signed.

    Attributes:
        key: The object's key; None: it is about the bucket.
        headers: What is sent and signed, with lower-case names.
        query: As it is signed.
        body: What is sent behind the head.
    """

    key: str | None
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""
    body: Buffer | PartBody = b""


@dataclass(frozen=True)
class Encoder:
    """Writes requests about one bucket as they are sent to its service.

    Attributes:
        destination: Where they go.
        signer: Signs them.
        asks_for_checksums: Whether the checksums of objects are asked for.
        sends_checksums: Whether what is written bears a CRC32, beside its signed SHA-256.
    """

    destination: Destination
    signer: Signer
    asks_for_checksums: bool
    sends_checksums: bool

    def encode(
        self, request: Request[Any], more_headers: Mapping[str, str] = NOTHING_MORE
    ) -> WireRequest:
        """Return a request as it is sent, signed for this moment.

        Args:
            request: The request.
            more_headers: What goes with it, with lower-case names.

        Raises:
            CannotEncode: It has something unusual.
            ValueError: It has what cannot be sent, such as a line break in a header.
            botocore.exceptions.BotoCoreError: There are no credentials.
        """
        kind = type(request)
        method = _HTTP_METHOD.get(kind)
        if method is None:
            raise CannotEncode("this kind of request is not known here")
        draft: _Draft = _DRAFTS[kind](self, request)
        headers, body = draft.headers, draft.body
        if more_headers:
            headers.update(more_headers)
        if _UNSENDABLE.search("".join(headers.values())):
            value = next(filter(_UNSENDABLE.search, headers.values()))
            raise ValueError(f"{value!r} cannot be sent to S3 as the value of a header")
        digest = EMPTY_SHA256
        length = 0
        if isinstance(body, BUFFERS):
            if body:
                digest = hashlib.sha256(body).hexdigest()
                length = memoryview(body).nbytes
        else:
            digest, length = self._measure(body)
        if method in ("PUT", "POST"):
            headers["content-length"] = str(length)
        destination = self.destination
        if draft.key is None:
            path = destination.bucket_path
        else:
            path = destination.base + _path_of(draft.key)
        headers["host"] = destination.host
        self.signer.sign(method, path, draft.query, headers, digest)
        headers["accept-encoding"] = "identity"
        headers["user-agent"] = destination.user_agent
        asks_first = length > _ASKS_FIRST_ABOVE and (
            "if-match" in headers or "if-none-match" in headers
        )
        target = f"{path}?{draft.query}" if draft.query else path
        return WireRequest(
            method,
            target,
            headers,
            body,
            asks_first=asks_first,
            is_streamed=kind is GetObject,
            is_safe=method in ("GET", "HEAD"),
        )

    @staticmethod
    def _measure(body: PartBody) -> tuple[str, int]:
        """Read a body for its digest and its length, from its beginning, and go back there.

        An earlier attempt may have left it anywhere.
        """
        body.seek(0)
        digest = hashlib.sha256()
        length = 0
        while piece := body.read(_PIECE):
            digest.update(piece)
            length += len(piece)
        body.seek(0)
        return digest.hexdigest(), length

    # ------------------------------------------------------------------ one object

    def _get(self, request: GetObject) -> _Draft:
        headers: dict[str, str] = {}
        if self.asks_for_checksums:
            headers["x-amz-checksum-mode"] = "ENABLED"
        if request.byte_range is not None:
            start, stop = request.byte_range
            headers["range"] = f"bytes={start}-{stop - 1}"
        _add_conditions(headers, request.if_match, request.if_none_match)
        return _Draft(request.key, headers)

    def _head(self, request: HeadObject) -> _Draft:
        return _Draft(request.key)

    def _put(self, request: PutObject) -> _Draft:
        headers = self._description(request)
        _add_conditions(headers, request.if_match, request.if_none_match)
        self._add_checksum(headers, request.body)
        return _Draft(request.key, headers, body=request.body)

    def _delete(self, request: DeleteObject) -> _Draft:
        headers: dict[str, str] = {}
        _add_conditions(headers, request.if_match, None)
        return _Draft(request.key, headers)

    def _copy(self, request: CopyObject) -> _Draft:
        if request.source_bucket.startswith("arn:"):
            raise CannotEncode("the source is an access point")
        headers = self._description(request)
        headers["x-amz-copy-source"] = quote(
            f"{request.source_bucket}/{request.source_key}", safe="/~"
        )
        headers["x-amz-metadata-directive"] = "REPLACE"
        if request.source_owner:
            headers["x-amz-source-expected-bucket-owner"] = request.source_owner
        return _Draft(request.key, headers)

    def _description(
        self, request: PutObject | CopyObject | CreateMultipartUpload
    ) -> dict[str, str]:
        """Return the headers that say what is written, beside its bytes."""
        headers = {"content-type": request.content_type}
        for name, value in request.metadata.items():
            if _TOKEN.fullmatch(name) is None or not value.isascii():
                raise ValueError(f"metadata must be ASCII, these are not: {name!r}: {value!r}")
            headers[f"x-amz-meta-{name.lower()}"] = value
        return headers

    def _add_checksum(self, headers: dict[str, str], body: Buffer | PartBody) -> None:
        if self.sends_checksums:
            if not isinstance(body, BUFFERS):
                raise CannotEncode("botocore sums up bodies that are read piece by piece")
            headers["x-amz-sdk-checksum-algorithm"] = "CRC32"
            headers["x-amz-checksum-crc32"] = crc32(body)

    # ------------------------------------------------------------------ many objects

    def _list(self, request: ListObjectsV2) -> _Draft:
        fields = {
            "continuation-token": request.continuation_token,
            "delimiter": request.delimiter,
            "encoding-type": "url",
            "list-type": "2",
            "max-keys": None if request.max_keys is None else str(request.max_keys),
            "prefix": request.prefix,
            "start-after": request.start_after,
        }
        query = [f"{name}={_quoted(value)}" for name, value in fields.items() if value is not None]
        return _Draft(None, query="&".join(query))

    def _delete_many(self, request: DeleteObjects) -> _Draft:
        objects = "".join([f"<Object><Key>{_in_xml(key)}</Key></Object>" for key in request.keys])
        body = f"<Delete {_NAMESPACE}>{objects}<Quiet>true</Quiet></Delete>".encode()
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        headers = {"content-md5": b64encode(md5).decode(), "content-type": "application/xml"}
        return _Draft(None, headers, "delete=", body)

    # ------------------------------------------------------------------ uploads in parts

    def _create_upload(self, request: CreateMultipartUpload) -> _Draft:
        headers = self._description(request)
        if self.sends_checksums:
            headers["x-amz-checksum-algorithm"] = "CRC32"
        return _Draft(request.key, headers, "uploads=")

    def _upload_part(self, request: UploadPart) -> _Draft:
        headers: dict[str, str] = {}
        self._add_checksum(headers, request.body)
        query = f"partNumber={request.number}&uploadId={_quoted(request.upload_id)}"
        return _Draft(request.key, headers, query, request.body)

    def _complete_upload(self, request: CompleteMultipartUpload) -> _Draft:
        parts = []
        for number, etag, checksums in request.parts:
            told = "".join(f"<{name}>{_in_xml(text)}</{name}>" for name, text in checksums.items())
            parts.append(
                f"<Part><ETag>{_in_xml(etag)}</ETag>{told}<PartNumber>{number}</PartNumber></Part>"
            )
        body = (
            f"<CompleteMultipartUpload {_NAMESPACE}>{''.join(parts)}</CompleteMultipartUpload>"
        ).encode()
        headers = {"content-type": "application/xml"}
        _add_conditions(headers, request.if_match, request.if_none_match)
        return _Draft(request.key, headers, f"uploadId={_quoted(request.upload_id)}", body)

    def _abort_upload(self, request: AbortMultipartUpload) -> _Draft:
        return _Draft(request.key, query=f"uploadId={_quoted(request.upload_id)}")


_DRAFTS: Final[Mapping[type[Request[Any]], Callable[[Encoder, Any], _Draft]]] = {
    GetObject: Encoder._get,
    HeadObject: Encoder._head,
    PutObject: Encoder._put,
    DeleteObject: Encoder._delete,
    ListObjectsV2: Encoder._list,
    DeleteObjects: Encoder._delete_many,
    CreateMultipartUpload: Encoder._create_upload,
    UploadPart: Encoder._upload_part,
    CompleteMultipartUpload: Encoder._complete_upload,
    AbortMultipartUpload: Encoder._abort_upload,
    CopyObject: Encoder._copy,
}


def _add_conditions(
    headers: dict[str, str], if_match: str | None, if_none_match: str | None
) -> None:
    if if_match is not None:
        headers["if-match"] = if_match
    if if_none_match is not None:
        headers["if-none-match"] = if_none_match


def _path_of(key: str) -> str:
    """Return a key as it stands in a path; most need not be looked at character by character."""
    return key if _AS_IT_IS.fullmatch(key) else quote(key, safe="/~")


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


def _in_xml(text: str) -> str:
    return escape(text, {"\r": "&#13;"})
