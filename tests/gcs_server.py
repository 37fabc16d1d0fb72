"""A strict server of Google Cloud Storage's JSON API, on loopback and in memory.

Written from Google's documentation, because no emulator enforces preconditions on all changes.
What it does not know it refuses: an unknown parameter is a 400, not silence. By page, below
https://cloud.google.com/storage/docs:

- request-preconditions; json_api/v1/objects/{insert,delete,get,patch,rewrite}:
  ``ifGenerationMatch`` fails with 412 ``conditionNotMet``, and 0 stands for the absence of a live
  version; ``ifGenerationNotMatch`` fails where there is none, and with 304 on the version that it
  names; a deletion of nothing is a 404.
- metadata: a new generation with every write, never one that was there before; metageneration 1
  then, and one more with every change of metadata; ``md5Hash`` and ``crc32c`` of what is stored,
  and a 400 where those that are given are others; names of 1024 bytes without CR and LF.
- json_api/v1/objects/list: names in the order of their bytes; ``startOffset`` is inclusive,
  ``endOffset`` exclusive, both by the names of objects; ``maxResults`` counts items and
  prefixes, 1000 at most; a token resumes behind what was shown last.
- performing-resumable-uploads, resumable-uploads: parts in steps of 256 KiB but for the last, or
  all at once without ``Content-Range``; 308 with ``Range``, without it where nothing has arrived;
  ``bytes */N`` asks how far it is; bytes that have arrived before are passed over, a gap is a 503;
  an upload that is complete answers what it answered, one that was cancelled (499) is a 404;
  preconditions count when it ends, as seen in googleapis/google-cloud-java#201.
- json_api/v1/status-codes: errors as JSON with domain, reason and message, 429 and 503 for what
  may be sent again; a download answers with text.
- json_api/v1/how-tos/performance: ``fields``.

Run by hand: ``python -m tests.gcs_server`` prints its URL.
"""

from __future__ import annotations

import base64
import email
import hashlib
import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

_STEP = 256 * 1024
_LONGEST_NAME = 1024
_LARGEST_METADATA = 8 * 1024
_LARGEST_PAGE = 1000
_PRECONDITIONS = {
    "ifGenerationMatch",
    "ifGenerationNotMatch",
    "ifMetagenerationMatch",
    "ifMetagenerationNotMatch",
}
_EVERYWHERE = {"prettyPrint", "fields", "alt", "userProject", "projection", "key"}
_OF_SOURCES = {f"ifSource{name[2:]}" for name in _PRECONDITIONS}


class ApiError(Exception):
    """What is answered in place of a result."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass
class Object:
    """One version of an object, with its record."""

    data: bytes
    record: dict[str, Any]

    @property
    def generation(self) -> int:
        return int(self.record["generation"])


@dataclass
class Reply:
    """A status, headers and a body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Upload:
    """A resumable upload that has begun."""

    bucket: str
    name: str
    record: dict[str, Any]
    query: dict[str, str]
    data: bytearray = field(default_factory=bytearray)
    completed: Reply | None = None


class GCSServer:
    """A running server; it ends with `stop`.

    Attributes:
        url: Where it is.

    Args:
        is_lax: Ignore preconditions, as the emulators do.
        is_terse: Do not tell in the headers of a download which generation it is.
    """

    def __init__(self, *, is_lax: bool = False, is_terse: bool = False) -> None:
        self._is_lax = is_lax
        self._is_terse = is_terse
        self._buckets: dict[str, dict[str, Object]] = {}
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.RLock()
        self._last_generation = 0
        self._httpd = _HTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        self._thread = threading.Thread(
            target=self._httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._httpd.shutdown()
        self._httpd.server_close()

    # ------------------------------------------------------------------ requests

    def respond(self, method: str, target: str, headers: Message, body: bytes) -> Reply:
        """Carry out a request."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        routed = _routed(method, parts.path)
        if routed is None:
            return _refusal(ApiError(404, "notFound", f"no {method} {parts.path}"))
        operation, known, names = routed
        try:
            unknown = query.keys() - known - _EVERYWHERE
            if unknown:
                raise ApiError(400, "invalidParameter", f"unknown {sorted(unknown)}")
            with self._lock:
                reply: Reply = getattr(self, f"_{operation}")(names, query, headers, body)
                return reply
        except ApiError as error:
            return _refusal(error, is_media=query.get("alt") == "media")

    # ------------------------------------------------------------------ buckets

    def _objects(self, bucket: str) -> dict[str, Object]:
        try:
            return self._buckets[bucket]
        except KeyError:
            raise ApiError(404, "notFound", "The specified bucket does not exist.") from None

    def _get_bucket(self, names: list[str], query: dict[str, str], *_: Any) -> Reply:
        self._objects(names[0])
        return _json({"kind": "storage#bucket", "name": names[0], "id": names[0]}, query)

    def _insert_bucket(
        self, names: list[str], query: dict[str, str], headers: Message, body: bytes
    ) -> Reply:
        name = json.loads(body)["name"]
        if "project" not in query:
            raise ApiError(400, "required", "Required parameter: project")
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", name):
            raise ApiError(400, "invalid", f"Invalid bucket name: '{name}'")
        if name in self._buckets:
            raise ApiError(409, "conflict", "Your previous request to create it succeeded.")
        self._buckets[name] = {}
        return _json({"kind": "storage#bucket", "name": name, "id": name}, query)

    # ------------------------------------------------------------------ objects

    def _check(self, current: Object | None, query: dict[str, str], infix: str = "") -> None:
        """Apply the preconditions of a request to what is live; absence is generation 0."""
        if self._is_lax:
            return
        found = {
            "Generation": 0 if current is None else current.generation,
            "Metageneration": None if current is None else int(current.record["metageneration"]),
        }
        for kind, actual in found.items():
            wanted = query.get(f"if{infix}{kind}Match")
            if wanted is not None and int(wanted) != actual:
                raise _unmet()
            unwanted = query.get(f"if{infix}{kind}NotMatch")
            if unwanted is None:
                continue
            if int(unwanted) == actual:
                raise ApiError(304, "notModified", "")
            if current is None:
                raise _unmet()

    def _live(self, names: list[str], query: dict[str, str]) -> Object:
        objects = self._objects(names[0])
        current = objects.get(names[1])
        if "generation" in query and (
            current is None or current.generation != int(query["generation"])
        ):
            current = None
        if current is None:
            raise ApiError(404, "notFound", f"No such object: {names[0]}/{names[1]}")
        self._check(current, query)
        return current

    def _get(self, names: list[str], query: dict[str, str], headers: Message, body: bytes) -> Reply:
        found = self._live(names, query)
        if query.get("alt") != "media":
            return _json(found.record, query)
        record = found.record
        told = {
            "Content-Type": record["contentType"],
            "ETag": record["etag"],
            "X-Goog-Generation": record["generation"],
            "X-Goog-Metageneration": record["metageneration"],
            "X-Goog-Storage-Class": "STANDARD",
            "X-Goog-Hash": f"crc32c={record['crc32c']},md5={record['md5Hash']}",
        }
        if self._is_terse:
            told = {name: text for name, text in told.items() if "eneration" not in name}
        wanted = headers.get("Range")
        if wanted is None:
            return Reply(200, found.data, told)
        begin, end = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()  # type: ignore[union-attr]
        if int(begin) >= len(found.data):
            raise ApiError(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        part = found.data[int(begin) : int(end) + 1 if end else None]
        whole = len(found.data)
        told["Content-Range"] = f"bytes {begin}-{int(begin) + len(part) - 1}/{whole}"
        return Reply(206, part, told)

    def _delete(self, names: list[str], query: dict[str, str], *_: Any) -> Reply:
        self._live(names, query)
        del self._objects(names[0])[names[1]]
        return Reply(204)

    def _patch(
        self, names: list[str], query: dict[str, str], headers: Message, body: bytes
    ) -> Reply:
        found = self._live(names, query)
        changes = json.loads(body)
        metadata = found.record.get("metadata", {}) | (changes.pop("metadata", None) or {})
        found.record.update(changes)
        found.record["metadata"] = {k: v for k, v in metadata.items() if v is not None}
        found.record["metageneration"] = str(int(found.record["metageneration"]) + 1)
        found.record["updated"] = _moment(time.time_ns() // 1000)
        return _json(found.record, query)

    def _store(
        self, bucket: str, name: str, data: bytes, given: dict[str, Any], query: dict[str, str]
    ) -> Object:
        objects = self._objects(bucket)
        if not name or len(name.encode()) > _LONGEST_NAME or re.search("[\r\n]", name):
            raise ApiError(400, "invalid", f"Invalid object name: {name!r:.80}")
        self._check(objects.get(name), query)
        metadata = given.get("metadata") or {}
        if sum(len(f"{k}{v}".encode()) for k, v in metadata.items()) > _LARGEST_METADATA:
            raise ApiError(400, "metadataTooLarge", "The metadata is too large.")
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        crc32c = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        for kind, made in (("md5Hash", md5), ("crc32c", crc32c)):
            if given.get(kind, made) != made:
                raise ApiError(400, "invalid", f"Provided {kind} doesn't match calculated {kind}")
        generation = self._last_generation = max(self._last_generation + 1, time.time_ns() // 1000)
        created = _moment(generation - 700)  # the two are close, and not the same
        record = {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "name": name,
            "bucket": bucket,
            "generation": str(generation),
            "metageneration": "1",
            "contentType": given.get("contentType", "application/octet-stream"),
            "storageClass": "STANDARD",
            "size": str(len(data)),
            "md5Hash": md5,
            "crc32c": crc32c,
            "etag": base64.b64encode(generation.to_bytes(8)).decode(),
            "timeCreated": created,
            "updated": created,
        }
        if metadata:
            record["metadata"] = metadata
        stored = objects[name] = Object(data, record)
        return stored

    # ------------------------------------------------------------------ uploads

    def _insert(
        self, names: list[str], query: dict[str, str], headers: Message, body: bytes
    ) -> Reply:
        kind = query.get("uploadType")
        if kind == "multipart":
            given, media_type, data = _two_parts(headers, body)
            given.setdefault("contentType", media_type)
        elif kind == "media":
            given, data = {"contentType": headers["Content-Type"]}, body
        elif kind == "resumable":
            return self._begin(names[0], query, headers, body)
        else:
            raise ApiError(400, "required", "Required parameter: uploadType")
        name = query.get("name") or given.get("name", "")
        return _json(self._store(names[0], name, data, given, query).record, query)

    def _begin(self, bucket: str, query: dict[str, str], headers: Message, body: bytes) -> Reply:
        try:
            given = json.loads(body) if body else {}
        except ValueError:
            raise ApiError(400, "parseError", "Parse Error") from None
        name = query.get("name") or given.get("name", "")
        if "X-Upload-Content-Type" in headers:
            given.setdefault("contentType", headers["X-Upload-Content-Type"])
        self._objects(bucket)
        upload_id = uuid.uuid4().hex
        self._uploads[upload_id] = Upload(bucket, name, given, query)
        place = f"{self.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable"
        return Reply(200, b"", {"Location": f"{place}&upload_id={upload_id}"})

    def _upload(self, query: dict[str, str]) -> Upload:
        try:
            return self._uploads[query["upload_id"]]
        except KeyError:
            raise ApiError(404, "notFound", "no such upload") from None

    def _cancel(self, names: list[str], query: dict[str, str], *_: Any) -> Reply:
        self._upload(query)
        del self._uploads[query["upload_id"]]
        return Reply(499)

    def _resume(
        self, names: list[str], query: dict[str, str], headers: Message, body: bytes
    ) -> Reply:
        upload = self._upload(query)
        if upload.completed is not None:
            return upload.completed
        all_at_once = f"bytes 0-{len(body) - 1}/{len(body)}" if body else "bytes */0"
        told = headers.get("Content-Range", all_at_once)
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", told)
        if found is None or (found[2] and int(found[2]) - int(found[1]) + 1 != len(body)):
            raise ApiError(400, "badRequest", "Content-Range does not fit")
        begin, _, whole = found.groups()
        known = len(upload.data) - int(begin or 0)
        if begin is not None and known < 0:
            raise ApiError(503, "backendError", "the offset exceeds the already uploaded size")
        upload.data += body[known:]
        if whole == "*" or len(upload.data) != int(whole):
            if len(body) % _STEP:
                raise ApiError(400, "badRequest", "a part must be a multiple of 256 KiB")
            last = len(upload.data) - 1
            return Reply(308, b"", {"Range": f"bytes=0-{last}"} if upload.data else {})
        del self._uploads[query["upload_id"]]
        stored = self._store(
            upload.bucket, upload.name, bytes(upload.data), upload.record, upload.query
        )
        upload.completed = _json(stored.record, upload.query)
        self._uploads[query["upload_id"]] = upload
        upload.data.clear()
        return upload.completed

    def _rewrite(
        self, names: list[str], query: dict[str, str], headers: Message, body: bytes
    ) -> Reply:
        found = self._objects(names[0]).get(names[1])
        if found is None:
            raise ApiError(404, "notFound", f"No such object: {names[0]}/{names[1]}")
        self._check(found, query, infix="Source")
        given = json.loads(body) if body else {}
        if not given:  # without a resource, that of the source is copied
            given = {k: found.record[k] for k in ("contentType", "metadata") if k in found.record}
        given = {k: v for k, v in given.items() if k not in ("md5Hash", "crc32c")}
        stored = self._store(names[2], names[3], found.data, given, query)
        size = str(len(found.data))
        done = {"kind": "storage#rewriteResponse", "done": True, "resource": stored.record}
        return _json({**done, "totalBytesRewritten": size, "objectSize": size}, query)

    # ------------------------------------------------------------------ listing

    def _list(self, names: list[str], query: dict[str, str], *_: Any) -> Reply:
        objects = self._objects(names[0])
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        begin, end = query.get("startOffset", ""), query.get("endOffset")
        behind = base64.b64decode(query.get("pageToken", "")).decode()
        page_size = min(int(query.get("maxResults", _LARGEST_PAGE)), _LARGEST_PAGE)
        answer: dict[str, Any] = {"kind": "storage#objects"}
        last = ""
        for name in sorted(objects, key=str.encode):
            if not name.startswith(prefix) or name < begin or (end and name >= end):
                continue
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            shown = name if cut < 0 else name[: cut + 1]
            if shown <= behind or shown == last:
                continue
            if page_size == 0:
                answer["nextPageToken"] = base64.b64encode(last.encode()).decode()
                break
            page_size -= 1
            last = shown
            if cut < 0:
                answer.setdefault("items", []).append(objects[name].record)
            else:
                answer.setdefault("prefixes", []).append(shown)
        return _json(answer, query)


_BUCKET, _OBJECT = r"/b/([^/]+)", r"/o/([^/]+)"
_V1 = "/storage/v1"
_UPLOAD = {"uploadType", "name", "upload_id", "predefinedAcl", "kmsKeyName"}
_LISTING = {"prefix", "delimiter", "startOffset", "endOffset", "pageToken", "maxResults"}
_ROUTES = [
    (f"{_V1}{_BUCKET}", "GET", "get_bucket", _PRECONDITIONS),
    (f"{_V1}/b", "POST", "insert_bucket", {"project"}),
    (f"{_V1}{_BUCKET}/o", "GET", "list", _LISTING),
    (f"{_V1}{_BUCKET}{_OBJECT}", "GET", "get", _PRECONDITIONS | {"generation"}),
    (f"/download{_V1}{_BUCKET}{_OBJECT}", "GET", "get", _PRECONDITIONS | {"generation"}),
    (f"{_V1}{_BUCKET}{_OBJECT}", "DELETE", "delete", _PRECONDITIONS | {"generation"}),
    (f"{_V1}{_BUCKET}{_OBJECT}", "PATCH", "patch", _PRECONDITIONS | {"generation"}),
    (f"/upload{_V1}{_BUCKET}/o", "POST", "insert", _PRECONDITIONS | _UPLOAD),
    (f"/upload{_V1}{_BUCKET}/o", "PUT", "resume", _PRECONDITIONS | _UPLOAD),
    (f"/upload{_V1}{_BUCKET}/o", "DELETE", "cancel", _UPLOAD),
    (
        f"{_V1}{_BUCKET}{_OBJECT}/rewriteTo{_BUCKET}{_OBJECT}",
        "POST",
        "rewrite",
        _PRECONDITIONS | _OF_SOURCES | {"rewriteToken", "maxBytesRewrittenPerCall"},
    ),
]


def _routed(method: str, path: str) -> tuple[str, set[str], list[str]] | None:
    """Return the operation, the parameters that it takes, and the names in its path."""
    for pattern, verb, operation, known in _ROUTES:
        found = re.fullmatch(pattern, path) if verb == method else None
        if found is not None:
            return operation, known, [unquote(name) for name in found.groups()]
    return None


def _moment(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _unmet() -> ApiError:
    message = "At least one of the pre-conditions you specified did not hold."
    return ApiError(412, "conditionNotMet", message)


def _refusal(error: ApiError, *, is_media: bool = False) -> Reply:
    if error.status == 304:
        return Reply(304)
    if is_media:
        return Reply(error.status, str(error).encode(), {"Content-Type": "text/html"})
    detail = {"message": str(error), "domain": "global", "reason": error.reason}
    body = {"error": {"code": error.status, "message": str(error), "errors": [detail]}}
    return Reply(error.status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _json(answer: dict[str, Any], query: dict[str, str]) -> Reply:
    if "fields" in query:
        answer = _masked(answer, _mask_of(query["fields"]))
    body = json.dumps(answer).encode()
    return Reply(200, body, {"Content-Type": "application/json; charset=UTF-8"})


def _mask_of(text: str) -> dict[str, Any]:
    """Read ``a,b(c,d)`` as ``{"a": {}, "b": {"c": {}, "d": {}}}``."""
    tokens = iter(re.findall(r"[^,()]+|[()]", text))

    def read(tokens: Iterator[str]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        name = ""
        for token in tokens:
            if token == "(":
                fields[name] = read(tokens)
            elif token == ")":
                break
            else:
                name = token
                fields[name] = {}
        return fields

    return read(tokens)


def _masked(answer: Any, mask: dict[str, Any]) -> Any:
    if not mask:
        return answer
    if isinstance(answer, list):
        return [_masked(entry, mask) for entry in answer]
    return {name: _masked(answer[name], below) for name, below in mask.items() if name in answer}


def _two_parts(headers: Message, body: bytes) -> tuple[dict[str, Any], str, bytes]:
    """Split a ``multipart/related`` body into the record, the media type and the bytes."""
    media_type = headers.get("Content-Type", "")
    if not media_type.startswith("multipart/related"):
        raise ApiError(400, "badRequest", f"not multipart/related: {media_type}")
    boundary = email.message_from_string(f"Content-Type: {media_type}\n\n").get_boundary()
    assert boundary is not None
    mark = b"--" + boundary.encode()
    begin, record, media, end = (b"\r\n" + body).split(b"\r\n" + mark)
    if begin.strip() or end.strip() != b"--":
        raise ApiError(400, "badRequest", "malformed multipart body")
    _, _, given = record.lstrip(b"\r\n").partition(b"\r\n\r\n")
    head, _, data = media.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    described = email.message_from_bytes(head)
    return json.loads(given), described.get("content-type", ""), data


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 128  # as many may connect at the same moment


def _handler_for(server: GCSServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def _serve(self) -> None:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                body = b"".join(self._chunks())
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = server.respond(self.command, self.path, self.headers, body)
            self.send_response(reply.status)
            for name, text in reply.headers.items():
                self.send_header(name, text)
            if reply.status not in (204, 304):
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if reply.status not in (204, 304):
                self.wfile.write(reply.body)
            self.wfile.flush()

        def _chunks(self) -> Iterator[bytes]:
            for _ in itertools.count():
                size = int(self.rfile.readline().split(b";")[0], 16)
                yield self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    return

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


if __name__ == "__main__":
    running = GCSServer()
    print(running.url)
    threading.Event().wait()
