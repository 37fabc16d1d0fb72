"""What the canned server knows: buckets, objects and uploads in memory."""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from .conditions import CHANGES, evaluate, same_etag, unmet
from .http_server import Content, Reply
from .quirks import AWS, ServerQuirks
from .s3_messages import (
    INVALID_RANGE,
    MALFORMED_XML,
    NO_SUCH_BUCKET,
    NO_SUCH_KEY,
    NO_SUCH_UPLOAD,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    S3_NAMESPACE,
    S3Request,
)

_BEHIND_EVERY_NAME = "\U0010ffff"
_XML = [("Content-Type", "application/xml")]
_STORED_HEADERS = ("content-type", "content-encoding", "cache-control", "content-disposition")
_MOST_KEYS_TO_DELETE = 1000


class CannedRequest(NamedTuple):
    """A request with its body as the client meant it, without framing.

    Attributes:
        method: The HTTP method.
        s3: What it asks for.
        headers: With lower-case names.
        body: The content.
    """

    method: str
    s3: S3Request
    headers: dict[str, str]
    body: Content


class StoredObject(NamedTuple):
    """One version of an object."""

    body: Content
    etag: str
    modified: int
    headers: list[tuple[str, str]]
    checksums: list[tuple[str, str]]


@dataclass
class _Upload:
    key: str
    headers: dict[str, str]
    parts: dict[int, tuple[str, Content]] = field(default_factory=dict)


class _Bucket:
    """Objects by name, in order."""

    def __init__(self) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.names: list[str] = []
        self.uploads: dict[str, _Upload] = {}

    def fill(self, names: Iterable[str], stored: StoredObject) -> None:
        self.objects.update(dict.fromkeys(names, stored))
        self.names = sorted(self.objects)

    def put(self, name: str, stored: StoredObject) -> None:
        if name not in self.objects:
            insort(self.names, name)
        self.objects[name] = stored

    def delete(self, name: str) -> None:
        if self.objects.pop(name, None) is not None:
            del self.names[bisect_left(self.names, name)]


class CannedStorage:
    """Answers requests from memory.

    Args:
        quirks: What becomes of conditions. ETags are digests of the content then; without it,
            conditions are AWS's, and an ETag is a number that no other version has.
    """

    def __init__(self, quirks: ServerQuirks | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._quirks = quirks or AWS
        self._has_digests = quirks is not None
        self._buckets: dict[str, _Bucket] = {}
        self._numbers = itertools.count(1)
        self._operations: dict[str, Callable[[_Bucket, CannedRequest], Reply]] = {
            "AbortMultipartUpload": self._abort_upload,
            "CompleteMultipartUpload": self._complete_upload,
            "CopyObject": self._copy,
            "CreateMultipartUpload": self._create_upload,
            "DeleteObject": self._delete,
            "DeleteObjects": self._delete_many,
            "GetBucketLocation": self._locate,
            "GetObject": self._read,
            "HeadBucket": self._head_bucket,
            "HeadObject": self._read,
            "ListMultipartUploads": self._list_uploads,
            "ListObjectsV2": self._list,
            "PutObject": self._put,
            "UploadPart": self._upload_part,
        }

    def fill(self, bucket: str, names: Iterable[str], body: bytes) -> None:
        """Put the same bytes under many names; they are held once."""
        self._buckets.setdefault(bucket, _Bucket()).fill(names, self._new(body, {}))

    def refuse_early(self, request: CannedRequest) -> Reply | None:
        """Return the refusal of a request whose body is not there yet, or None."""
        s3 = request.s3
        bucket = self._buckets.get(s3.bucket)
        if bucket is None or s3.operation not in CHANGES:
            return None
        stored = bucket.objects.get(s3.key)
        return evaluate(self._quirks, s3.operation, request.headers, stored and stored.etag)

    def answer(self, request: CannedRequest) -> Reply:
        """Answer a request."""
        s3 = request.s3
        self.counts[s3.operation] += 1
        if s3.operation == "CreateBucket":
            self._buckets.setdefault(s3.bucket, _Bucket())
            return Reply(200, [("Location", f"/{s3.bucket}")])
        bucket = self._buckets.get(s3.bucket)
        if bucket is None:
            return Reply.of_error(NO_SUCH_BUCKET)
        operation = self._operations.get(s3.operation)
        if operation is None:
            return Reply.of_error(NOT_IMPLEMENTED)
        return self.refuse_early(request) or operation(bucket, request)

    def _new(self, body: Content, headers: dict[str, str], parts: int = 0) -> StoredObject:
        suffix = f"-{parts}" if parts else ""
        kept = [
            (name, value)
            for name, value in headers.items()
            if name.startswith("x-amz-meta-") or name in _STORED_HEADERS
        ]
        if "content-type" not in headers:
            kept.append(("content-type", "binary/octet-stream"))
        checksums = [item for item in headers.items() if item[0].startswith("x-amz-checksum-")]
        name = f"{next(self._numbers):032x}"
        if self._has_digests:
            name = hashlib.md5(body, usedforsecurity=False).hexdigest()
        etag = f'"{name}{suffix}"'
        return StoredObject(body, etag, int(time.time()), kept, checksums)

    def _put(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        stored = self._new(request.body, request.headers)
        bucket.put(request.s3.key, stored)
        return Reply(200, [("ETag", stored.etag), *stored.checksums])

    def _copy(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        source = unquote(request.headers["x-amz-copy-source"]).removeprefix("/")
        source_bucket, _, key = source.partition("/")
        found = self._buckets.get(source_bucket, _Bucket()).objects.get(key)
        if found is None:
            return Reply.of_error(NO_SUCH_KEY, Key=key)
        replaces = request.headers.get("x-amz-metadata-directive") == "REPLACE"
        stored = self._new(found.body, request.headers if replaces else dict(found.headers))
        bucket.put(request.s3.key, stored)
        fields = _element("LastModified", _iso(stored.modified)) + _element("ETag", stored.etag)
        return _xml("CopyObjectResult", fields)

    def _read(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        stored = bucket.objects.get(request.s3.key)
        if stored is None:
            return Reply.of_error(NO_SUCH_KEY, Key=request.s3.key)
        headers = [
            ("ETag", stored.etag),
            ("Last-Modified", http_date(stored.modified)),
            ("Accept-Ranges", "bytes"),
            *stored.headers,
        ]
        conditions = request.headers
        if "if-match" in conditions and not same_etag(conditions["if-match"], stored.etag):
            return unmet("If-Match")
        if "if-none-match" in conditions and same_etag(conditions["if-none-match"], stored.etag):
            return Reply(304, headers)
        size = len(stored.body)
        if "range" in conditions:
            span = _span(conditions["range"], size)
            if span is None:
                return Reply.of_error(INVALID_RANGE)
            start, stop = span
            headers += [
                ("Content-Range", f"bytes {start}-{stop - 1}/{size}"),
                ("Content-Length", str(stop - start)),
            ]
            return Reply(206, headers, stored.body[start:stop])
        if conditions.get("x-amz-checksum-mode") == "ENABLED":
            headers += stored.checksums
        headers.append(("Content-Length", str(size)))
        return Reply(200, headers, stored.body)

    def _delete(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        bucket.delete(request.s3.key)
        return Reply(204, [])

    def _delete_many(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        tree = ElementTree.fromstring(request.body)
        items = tree.findall("{*}Object")
        if len(items) > _MOST_KEYS_TO_DELETE:
            return Reply.of_error(MALFORMED_XML)
        quiet = tree.findtext("{*}Quiet") == "true"
        lines = []
        for item in items:
            name = item.findtext("{*}Key") or ""
            expected = item.findtext("{*}ETag")
            stored = bucket.objects.get(name)
            if expected and (stored is None or not same_etag(expected, stored.etag)):
                fields = _element("Key", name) + _element("Code", PRECONDITION_FAILED.code)
                lines.append(f"<Error>{fields}{_element('Message', 'unmet')}</Error>")
                continue
            bucket.delete(name)
            if not quiet:
                lines.append(f"<Deleted>{_element('Key', name)}</Deleted>")
        return _xml("DeleteResult", "".join(lines))

    def _create_upload(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        identity = f"upload-{next(self._numbers)}"
        bucket.uploads[identity] = _Upload(request.s3.key, request.headers)
        fields = _element("Bucket", request.s3.bucket) + _element("Key", request.s3.key)
        fields += _element("UploadId", identity)
        return _xml("InitiateMultipartUploadResult", fields)

    def _upload_part(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        upload = bucket.uploads.get(request.s3.query["uploadId"])
        if upload is None:
            return Reply.of_error(NO_SUCH_UPLOAD)
        etag = f'"{next(self._numbers):032x}"'
        upload.parts[int(request.s3.query["partNumber"])] = etag, request.body
        return Reply(200, [("ETag", etag)])

    def _complete_upload(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        upload = bucket.uploads.get(request.s3.query["uploadId"])
        if upload is None:
            return Reply.of_error(NO_SUCH_UPLOAD)
        numbers = [
            int(item.text or 0)
            for item in ElementTree.fromstring(request.body).findall("{*}Part/{*}PartNumber")
        ]
        body = b"".join(upload.parts[number][1] for number in numbers)
        del bucket.uploads[request.s3.query["uploadId"]]
        stored = self._new(body, upload.headers, len(numbers))
        bucket.put(upload.key, stored)
        fields = _element("Bucket", request.s3.bucket) + _element("Key", upload.key)
        return _xml("CompleteMultipartUploadResult", fields + _element("ETag", stored.etag))

    def _abort_upload(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        found = bucket.uploads.pop(request.s3.query["uploadId"], None)
        return Reply.of_error(NO_SUCH_UPLOAD) if found is None else Reply(204, [])

    def _list_uploads(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        fields = _element("Bucket", request.s3.bucket) + _element("IsTruncated", "false")
        uploads = [
            f"<Upload>{_element('Key', upload.key)}{_element('UploadId', identity)}</Upload>"
            for identity, upload in bucket.uploads.items()
        ]
        return _xml("ListMultipartUploadsResult", fields + "".join(uploads))

    def _head_bucket(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        return Reply(200, [("x-amz-bucket-region", "us-east-1")])

    def _locate(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        return _xml("LocationConstraint", "")

    def _list(self, bucket: _Bucket, request: CannedRequest) -> Reply:
        query = request.s3.query
        encode = quote if query.get("encoding-type") == "url" else escape
        limit = min(int(query.get("max-keys", 1000)), 1000)
        entries = list(itertools.islice(_entries(bucket, query), limit + 1))
        page, is_truncated = entries[:limit], len(entries) > limit
        fields = [
            _element("Name", request.s3.bucket),
            f"<Prefix>{encode(query.get('prefix', ''))}</Prefix>",
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{limit}</MaxKeys>",
            f"<IsTruncated>{str(is_truncated).lower()}</IsTruncated>",
        ]
        if "encoding-type" in query:
            fields.append(_element("EncodingType", query["encoding-type"]))
        if is_truncated and page:
            fields.append(_element("NextContinuationToken", page[-1].token))
        fields += [entry.to_xml(encode) for entry in page]
        return _xml("ListBucketResult", "".join(fields))


class _Entry(NamedTuple):
    name: str
    stored: StoredObject | None

    @property
    def token(self) -> str:
        """Where the listing goes on behind this entry."""
        return quote(self.name if self.stored else self.name + _BEHIND_EVERY_NAME)

    def to_xml(self, encode: Callable[[str], str]) -> str:
        if self.stored is None:
            return f"<CommonPrefixes><Prefix>{encode(self.name)}</Prefix></CommonPrefixes>"
        return (
            f"<Contents><Key>{encode(self.name)}</Key>"
            f"<LastModified>{_iso(self.stored.modified)}</LastModified>"
            f"<ETag>&quot;{self.stored.etag[1:-1]}&quot;</ETag>"
            f"<Size>{len(self.stored.body)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


def _entries(bucket: _Bucket, query: dict[str, str]) -> Iterator[_Entry]:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    start_after = query.get("start-after", "")
    if "continuation-token" in query:
        start_after = unquote(query["continuation-token"])
    names = bucket.names
    position = max(bisect_left(names, prefix), bisect_right(names, start_after))
    while position < len(names) and names[position].startswith(prefix):
        name = names[position]
        end = name.find(delimiter, len(prefix)) if delimiter else -1
        if end < 0:
            yield _Entry(name, bucket.objects[name])
            position += 1
            continue
        group = name[: end + len(delimiter)]
        yield _Entry(group, None)
        position = bisect_right(names, group + _BEHIND_EVERY_NAME)


def _span(header: str, size: int) -> tuple[int, int] | None:
    """Return start and stop of ``bytes=a-b``, or None when that is outside."""
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
    return (start, stop) if start < stop else None


def _element(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _xml(root: str, content: str) -> Reply:
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="{S3_NAMESPACE}">{content}'
    return Reply(200, _XML, f"{document}</{root}>".encode())


@functools.lru_cache(maxsize=1024)
def _iso(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(moment))


@functools.lru_cache(maxsize=1024)
def http_date(moment: int) -> str:
    """Return POSIX seconds as headers tell them."""
    return formatdate(moment, usegmt=True)
