"""A small and fast S3 server for benchmarks and for tests of memory."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from .canned_storage import CannedRequest, CannedStorage, http_date
from .child_process import CONTROL, ChildProcess, Server, announce, control, watch_parent
from .http_server import Content, Reply
from .quirks import ServerQuirks
from .s3_messages import parse_s3_request

_LARGE = 65536
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = {204, 304}


@dataclass(frozen=True)
class Synthetic:
    """Many objects that share their bytes, so that they cost no memory.

    Their names are `prefix`, a number with leading zeros, and `suffix`.

    Attributes:
        count: How many.
        body: What each of them holds.
        bucket: Their bucket, which is created.
        prefix: How their names begin.
        suffix: How their names end.
        digits: How many digits the numbers have.
    """

    count: int
    body: bytes
    bucket: str = "synthetic"
    prefix: str = ""
    suffix: str = ".pkl"
    digits: int = 8

    def names(self) -> list[str]:
        """Return all names, in order."""
        return [
            f"{self.prefix}{number:0{self.digits}}{self.suffix}" for number in range(self.count)
        ]


class CannedServer(Server):
    """A running server; `start_canned` makes one.

    Attributes:
        endpoint_url: Where it listens.
        pid: The process that it is.
    """

    def __init__(self, process: ChildProcess, scheme: str = "http") -> None:
        self._process = process
        self._port = process.announced["port"]
        self.pid = process.pid
        self.endpoint_url = f"{scheme}://127.0.0.1:{self._port}"

    def counts(self) -> Counter[str]:
        """Return how often each operation was asked for since the start or `reset_counts`."""
        return Counter(control(self._port, "counts"))

    def reset_counts(self) -> None:
        """Start to count again."""
        control(self._port, "reset")

    def stop(self) -> None:
        """End the process, and forget all objects."""
        self._process.stop()


def start_canned(
    *synthetic: Synthetic, certificate: Path | None = None, quirks: ServerQuirks | None = None
) -> CannedServer:
    """Start a server in a child process, empty but for the synthetic objects.

    It speaks what boto3 needs for objects, listings and multipart uploads, enforces
    conditions as AWS does, checks no signatures, and keeps everything in memory.

    Args:
        *synthetic: What it has from the beginning.
        certificate: A certificate with its key, to speak TLS with; it is not counted then.
        quirks: Has conditions evaluated as another server does, and ETags that are digests.
    """
    items = [{**vars(item), "body": b64encode(item.body).decode()} for item in synthetic]
    arguments = {
        "synthetic": items,
        "certificate": certificate and str(certificate),
        "quirks": quirks and quirks.to_json(),
    }
    return CannedServer(ChildProcess("canned", arguments), "https" if certificate else "http")


def serve(
    synthetic: list[dict[str, Any]], certificate: str | None, quirks: dict[str, Any] | None
) -> None:
    """Be the child process."""
    watch_parent()
    storage = CannedStorage(None if quirks is None else ServerQuirks.from_json(quirks))
    for item in synthetic:
        known = Synthetic(**{**item, "body": b64decode(item["body"])})
        storage.fill(known.bucket, known.names(), known.body)
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    asyncio.run(_serve(storage, tls))


async def _serve(storage: CannedStorage, tls: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Protocol(storage), "127.0.0.1", 0, backlog=256, ssl=tls
    )
    announce(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


class _Protocol(asyncio.BufferedProtocol):
    """One connection: collects a head, then a body, answers, and starts again.

    Large bodies are received where they stay, so that they are not copied.
    """

    def __init__(self, storage: CannedStorage) -> None:
        self._storage = storage
        self._scratch = memoryview(bytearray(_LARGE))
        self._pending = bytearray()
        self._head: CannedRequest | None = None
        self._body: Content = b""
        self._missing = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._body)[-self._missing :] if self._missing else self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing:
            self._missing -= nbytes
        else:
            self._pending += self._scratch[:nbytes]
        while self._step():
            continue

    def _step(self) -> bool:
        """Go on by one head or one body; return whether that was possible."""
        if self._head is None:
            return self._take_head()
        if self._missing:
            return False
        request = _decode(self._head, self._body)
        self._head, self._body = None, b""
        self._send(request, self._answer(request))
        return True

    def _take_head(self) -> bool:
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = _parse_head(self._pending[:end].decode("latin-1"))
        del self._pending[: end + 4]
        if "expect" in head.headers and not self._continue(head):
            return False
        self._head = head
        size = int(head.headers.get("content-length", 0))
        self._body = bytes(memoryview(self._pending)[:size])
        self._missing = size - len(self._body)
        if self._missing:
            self._body = bytearray(size)
            self._body[: len(self._pending)] = self._pending
        del self._pending[:size]
        return True

    def _continue(self, head: CannedRequest) -> bool:
        refusal = self._storage.refuse_early(head)
        if refusal is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return True
        self._storage.counts[head.s3.operation] += 1
        self._send(head, refusal)
        self._transport.close()
        return False

    def _answer(self, request: CannedRequest) -> Reply:
        if request.s3.bucket != CONTROL:
            return self._storage.answer(request)
        counts = dict(self._storage.counts)
        if request.s3.key == "reset":
            self._storage.counts.clear()
        return Reply(200, [("Content-Type", "application/json")], json.dumps(counts).encode())

    def _send(self, request: CannedRequest, reply: Reply) -> None:
        lines = [
            f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}",
            f"Date: {http_date(int(time.time()))}",
        ]
        lines += [f"{name}: {value}" for name, value in reply.headers]
        has_body = request.method != "HEAD" and reply.status not in _BODILESS
        is_framed = any(name == "Content-Length" for name, _ in reply.headers)
        if not is_framed and reply.status not in _BODILESS:
            lines.append(f"Content-Length: {len(reply.body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if not has_body:
            self._transport.write(head)
        elif len(reply.body) < _LARGE:
            self._transport.write(head + reply.body)
        else:
            self._transport.write(head)
            self._transport.write(memoryview(reply.body))


def _parse_head(text: str) -> CannedRequest:
    first, *lines = text.split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return CannedRequest(method, parse_s3_request(method, target, headers), headers, b"")


def _decode(head: CannedRequest, body: Content) -> CannedRequest:
    """Give a request its body, and take the body out of the chunks of a signed stream."""
    if not head.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
        return head._replace(body=body)
    content, trailer = _decode_aws_chunks(body)
    encodings = head.headers.get("content-encoding", "").split(",")
    kept = [item for item in encodings if item.strip() not in ("", "aws-chunked")]
    headers = {name: value for name, value in head.headers.items() if name != "content-encoding"}
    if kept:
        headers["content-encoding"] = ",".join(kept)
    return head._replace(body=content, headers={**headers, **trailer})


def _decode_aws_chunks(body: Content) -> tuple[Content, dict[str, str]]:
    pieces, position = [], 0
    while True:
        end = body.index(b"\r\n", position)
        size = int(body[position:end].partition(b";")[0], 16)
        start = end + 2
        if size == 0:
            break
        pieces.append(body[start : start + size])
        position = start + size + 2
    lines = body[start:].decode("latin-1").split("\r\n")
    fields = [line.partition(":") for line in lines if line]
    return b"".join(pieces), {name.lower(): value.strip() for name, _, value in fields}
