"""A moto server that is atomic, counts its requests and imitates real servers."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree

from .child_process import CONTROL, ChildProcess, Server, announce, control, exit_with_parent
from .conditions import CHANGES, evaluate, is_conditional, same_etag
from .http_server import Content, HttpRequest, HttpServer, Reply
from .moto_app import Headers, MotoApp
from .quirks import AWS, IGNORED, ServerQuirks
from .s3_messages import (
    ACCESS_DENIED,
    CONDITIONAL_REQUEST_CONFLICT,
    MALFORMED_XML,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    S3_NAMESPACE,
    S3Request,
)
from .signatures import check_signature

_CONDITION_HEADERS = {"if-match", "if-none-match"}
_LOGGED_HEADERS = (
    "content-length",
    "content-encoding",
    "expect",
    "if-match",
    "if-none-match",
    "range",
)
_OWN_IDENTITY = [
    ("Host", "127.0.0.1"),
    (
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request,"
        " SignedHeaders=host, Signature=0",
    ),
]
_PAUSE_OF_NON_ATOMIC_SERVERS = 0.002


class LoggedRequest(NamedTuple):
    """A request that the server received, and what became of it.

    Attributes:
        operation: The API operation, as ``PutObject``.
        bucket: The bucket's name.
        key: The object's name, or the empty string.
        query: The parameters behind the question mark.
        headers: Conditions, range, metadata and framing, with lower-case names.
        status: The status of the answer.
        connection: A number for each TCP connection.
    """

    operation: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    status: int
    connection: int


class MotoServer(Server):
    """A running server; `start_moto` makes one.

    Attributes:
        endpoint_url: Where it listens.
        quirks: The server that it imitates.
    """

    def __init__(self, process: ChildProcess, port: int, quirks: ServerQuirks) -> None:
        self._process = process
        self._port = port
        self.quirks = quirks
        self.endpoint_url = f"http://127.0.0.1:{port}"

    def with_quirks(self, quirks: ServerQuirks) -> MotoServer:
        """Open another endpoint of the same process: same buckets, other abilities, own log.

        It costs milliseconds, and ends with this server.
        """
        port = control(self._port, "listen", quirks.to_json())
        return MotoServer(self._process, port, quirks)

    def requests(self) -> list[LoggedRequest]:
        """Return what this endpoint was asked since it started, or since `reset_log`."""
        return [LoggedRequest(*entry) for entry in control(self._port, "requests")]

    def counts(self) -> Counter[str]:
        """Return how often each operation was asked for."""
        return Counter(request.operation for request in self.requests())

    def reset_log(self) -> None:
        """Forget the requests so far."""
        control(self._port, "reset")

    def stop(self) -> None:
        """End the process, with all of its endpoints."""
        self._process.stop()


def start_moto(quirks: ServerQuirks = AWS) -> MotoServer:
    """Start a server in a child process; it ends with this process at the latest."""
    process = ChildProcess("moto_server", {"quirks": quirks.to_json()})
    return MotoServer(process, process.announced["port"], quirks)


def serve(quirks: dict[str, Any]) -> None:
    """Be the child process."""
    storage = _Storage()
    endpoint = _Endpoint(storage, ServerQuirks.from_json(quirks))
    announce(port=HttpServer(endpoint).port)
    exit_with_parent()


class _Storage:
    """moto, one request at a time, and how often each object was changed."""

    def __init__(self) -> None:
        self.app = MotoApp()
        self.lock = threading.RLock()
        self.changes: Counter[tuple[str, str]] = Counter()

    def etag(self, s3: S3Request) -> str | None:
        """Return the current version of an object, or None when there is none."""
        target = f"/{quote(s3.bucket)}/{quote(s3.key)}"
        reply = self.app.call("HEAD", target, _OWN_IDENTITY)
        return dict(reply.headers).get("ETag") if reply.status == 200 else None

    def has_bucket(self, s3: S3Request) -> bool:
        """Tell whether the bucket of a request exists."""
        return self.app.call("HEAD", f"/{quote(s3.bucket)}", _OWN_IDENTITY).status == 200


class _Arrival(NamedTuple):
    changes: int


class _Endpoint:
    """One port of the process: its quirks and its log."""

    def __init__(self, storage: _Storage, quirks: ServerQuirks) -> None:
        self._storage = storage
        self._quirks = quirks
        self._log: list[LoggedRequest] = []
        self._conditional_requests = 0

    def arrived(self, s3: S3Request) -> _Arrival:
        return _Arrival(self._storage.changes[s3.bucket, s3.key])

    def refuse_early(self, request: HttpRequest) -> Reply | None:
        if not self._quirks.refuses_before_body:
            return None
        with self._storage.lock:
            refusal = self._refuse_unauthorized(request) or self._refuse(request)
        return None if refusal is None else self._logged(request, refusal)

    def answer(self, request: HttpRequest, body: bytes) -> Reply:
        if request.s3.bucket == CONTROL:
            return self._answer_control(request.s3.key, json.loads(body))
        return self._logged(request, self._answer(request, body))

    def _answer(self, request: HttpRequest, body: bytes) -> Reply:
        with self._storage.lock:
            refusal = (
                self._refuse_unauthorized(request)
                or self._refuse_every(request)
                or self._refuse(request)
            )
            if refusal is not None:
                return refusal
            if self._quirks.atomic or not is_conditional(request.s3.operation, request.headers):
                return self._carry_out(request, body)
        time.sleep(_PAUSE_OF_NON_ATOMIC_SERVERS)
        with self._storage.lock:
            return self._carry_out(request, body)

    def _refuse_unauthorized(self, request: HttpRequest) -> Reply | None:
        if self._quirks.credentials is not None:
            error = check_signature(request, *self._quirks.credentials)
            if error is not None:
                return Reply.of_error(error)
        if request.s3.operation in self._quirks.forbidden:
            return Reply.of_error(ACCESS_DENIED)
        return None

    def _refuse(self, request: HttpRequest) -> Reply | None:
        s3 = request.s3
        if not is_conditional(s3.operation, request.headers):
            return None
        etag = self._storage.etag(s3)
        if etag is None and not self._storage.has_bucket(s3):
            return None
        refusal = evaluate(self._quirks, s3.operation, request.headers, etag)
        has_changed = self._storage.changes[s3.bucket, s3.key] != request.arrival.changes
        if self._quirks.conflict_on_race and has_changed:
            is_known = refusal is None or refusal.status != NOT_IMPLEMENTED.status
            return Reply.of_error(CONDITIONAL_REQUEST_CONFLICT) if is_known else refusal
        return refusal

    def _refuse_every(self, request: HttpRequest) -> Reply | None:
        every = self._quirks.conflict_every
        if not every or not is_conditional(request.s3.operation, request.headers):
            return None
        self._conditional_requests += 1
        is_due = self._conditional_requests % every == 0
        return Reply.of_error(CONDITIONAL_REQUEST_CONFLICT) if is_due else None

    def _carry_out(self, request: HttpRequest, body: bytes) -> Reply:
        s3 = request.s3
        headers = [
            (name, value)
            for name, value in request.headers.items()
            if s3.operation not in CHANGES or name not in _CONDITION_HEADERS
        ]
        if s3.operation == "DeleteObjects":
            return self._delete_objects(request, headers, body)
        if s3.operation == "ListObjectsV2" and self._quirks.lists_by_directory:
            return self._list_by_directory(request, headers)
        target = self._with_page_size(request) if "List" in s3.operation else request.target
        reply = self._storage.app.call(request.method, target, headers, body)
        if s3.operation in CHANGES and reply.status < 300:
            self._storage.changes[s3.bucket, s3.key] += 1
        if reply.status == 404 and self._hides_absence(request):
            return Reply.of_error(ACCESS_DENIED)
        return reply

    def _hides_absence(self, request: HttpRequest) -> bool:
        is_read = request.s3.operation in ("GetObject", "HeadObject")
        return is_read and "ListObjectsV2" in self._quirks.forbidden

    def _with_page_size(self, request: HttpRequest) -> str:
        asked = int(request.s3.query.get("max-keys", 1000))
        query = {**request.s3.query, "max-keys": str(min(asked, self._quirks.page_size))}
        return f"{urlsplit(request.target).path}?{urlencode(query)}"

    def _list_by_directory(self, request: HttpRequest, headers: Headers) -> Reply:
        """List as a file system does: entries of a directory by name, each with what is in it."""
        query = dict(request.s3.query)
        limit = min(int(query.pop("max-keys", 1000)), self._quirks.page_size)
        start_after = query.pop("start-after", None)
        offset = int(query.pop("continuation-token", 0))
        if "delimiter" in query:
            return self._storage.app.call(request.method, request.target, headers)
        target = f"{urlsplit(request.target).path}?{urlencode({**query, 'max-keys': 100_000})}"
        reply = self._storage.app.call(request.method, target, headers)
        if reply.status != 200:
            return reply
        tree = _parse_xml(reply.body)
        entries = tree.findall("Contents")
        for entry in entries:
            tree.remove(entry)
        entries.sort(key=lambda entry: unquote(_text(entry, "Key")).split("/"))
        if start_after is not None:
            entries = [
                entry
                for entry in entries
                if (key := unquote(_text(entry, "Key"))).split("/") > start_after.split("/")
                and not key.startswith(f"{start_after}/")
            ]
        page = entries[offset : offset + limit]
        tree.extend(page)
        is_truncated = offset + limit < len(entries)
        for name in ("IsTruncated", "NextContinuationToken", "KeyCount"):
            for element in tree.findall(name):
                tree.remove(element)
        ElementTree.SubElement(tree, "KeyCount").text = str(len(page))
        ElementTree.SubElement(tree, "IsTruncated").text = str(is_truncated).lower()
        if is_truncated:
            ElementTree.SubElement(tree, "NextContinuationToken").text = str(offset + limit)
        kept = [item for item in reply.headers if item[0].lower() != "content-length"]
        return Reply(200, kept, ElementTree.tostring(tree))

    def _delete_objects(self, request: HttpRequest, headers: Headers, body: bytes) -> Reply:
        tree = _parse_xml(body)
        objects = tree.findall("Object")
        limit = self._quirks.delete_objects_max_keys
        if limit is not None and len(objects) > limit:
            return Reply.of_error(MALFORMED_XML)
        refused = []
        if self._quirks.delete_objects_etag is not IGNORED:
            refused = [item for item in objects if not self._may_delete(request, item)]
        for item in refused:
            tree.remove(item)
        for item in objects:
            self._storage.changes[request.s3.bucket, _text(item, "Key")] += 1
        reply = Reply(200, [("Content-Type", "application/xml")], _EMPTY_DELETE_RESULT)
        if len(refused) < len(objects):
            remaining = ElementTree.tostring(tree)
            reply = self._storage.app.call(request.method, request.target, headers, remaining)
        if reply.status != 200 or not refused:
            return reply
        return _with_errors(reply, [_text(item, "Key") for item in refused])

    def _may_delete(self, request: HttpRequest, item: ElementTree.Element) -> bool:
        expected = item.findtext("ETag")
        if expected is None:
            return True
        etag = self._storage.etag(request.s3._replace(key=_text(item, "Key")))
        return etag is not None and (expected == "*" or same_etag(expected, etag))

    def _logged(self, request: HttpRequest, reply: Reply) -> Reply:
        s3 = request.s3
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in _LOGGED_HEADERS or name.startswith("x-amz-")
        }
        entry = LoggedRequest(
            s3.operation, s3.bucket, s3.key, s3.query, headers, reply.status, request.connection
        )
        self._log.append(entry)
        return reply

    def _answer_control(self, command: str, argument: Any) -> Reply:
        result: Any = None
        if command == "requests":
            result = list(self._log)
        elif command == "reset":
            self._log.clear()
        elif command == "listen":
            quirks = ServerQuirks.from_json(argument)
            result = HttpServer(_Endpoint(self._storage, quirks)).port
        return Reply(200, [("Content-Type", "application/json")], json.dumps(result).encode())


_EMPTY_DELETE_RESULT = f'<DeleteResult xmlns="{S3_NAMESPACE}"></DeleteResult>'.encode()


def _with_errors(reply: Reply, keys: list[str]) -> Reply:
    tree = _parse_xml(reply.body)
    for key in keys:
        error = ElementTree.SubElement(tree, "Error")
        fields = {"Key": key, "Code": PRECONDITION_FAILED.code}
        for name, text in {**fields, "Message": PRECONDITION_FAILED.message}.items():
            ElementTree.SubElement(error, name).text = text
    headers = [item for item in reply.headers if item[0].lower() != "content-length"]
    return Reply(reply.status, headers, ElementTree.tostring(tree))


def _parse_xml(text: Content) -> ElementTree.Element:
    """Parse a document and take its names out of their namespace, as moto expects them."""
    tree = ElementTree.fromstring(text)
    for element in tree.iter():
        element.tag = element.tag.rpartition("}")[2]
    return tree


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(name) or ""
