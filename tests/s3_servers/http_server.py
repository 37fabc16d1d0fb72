"""A threaded HTTP/1.1 server with connections that stay open, for handlers of requests."""

from __future__ import annotations

import itertools
import socket
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Protocol, TypeAlias

from .s3_messages import S3Error, S3Request, parse_s3_request

_BODILESS = {204, 304}

Content: TypeAlias = bytes | bytearray


class Reply(NamedTuple):
    """A response; the body of a HEAD is left out when it is sent."""

    status: int
    headers: list[tuple[str, str]]
    body: Content = b""

    @classmethod
    def of_error(cls, error: S3Error, **details: str) -> Reply:
        """Report an error as S3 does."""
        return cls(error.status, [("Content-Type", "application/xml")], error.to_xml(**details))


class HttpRequest(NamedTuple):
    """A request as it came over the wire.

    Attributes:
        method: The HTTP method.
        target: Path and query, as sent.
        headers: With lower-case names.
        s3: What it asks for.
        connection: A number for each TCP connection.
        arrival: What the service's `arrived` returned for this request.
    """

    method: str
    target: str
    headers: dict[str, str]
    s3: S3Request
    connection: int
    arrival: Any


class Service(Protocol):
    """What answers the requests of a server."""

    def arrived(self, s3: S3Request) -> Any:
        """Note a request whose head was read; the result travels with it."""

    def refuse_early(self, request: HttpRequest) -> Reply | None:
        """Answer a request that waits for ``100 Continue`` before it sends its body."""

    def answer(self, request: HttpRequest, body: bytes) -> Reply:
        """Answer a request."""


class HttpServer(ThreadingHTTPServer):
    """Serves on a free port of the loopback interface, a thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.service = service
        self.connection_numbers = itertools.count(1)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors of the service, but not clients that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpServer
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._connection_number = next(self.server.connection_numbers)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the service keeps its own log."""

    def handle_expect_100(self) -> bool:
        self._request = self._read_head()
        refusal = self.server.service.refuse_early(self._request)
        if refusal is not None:
            self.close_connection = True
            self._send(refusal)
            return False
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()
        return True

    def _read_head(self) -> HttpRequest:
        headers = {name.lower(): value for name, value in self.headers.items()}
        s3 = parse_s3_request(self.command, self.path, headers)
        return HttpRequest(
            self.command,
            self.path,
            headers,
            s3,
            self._connection_number,
            self.server.service.arrived(s3),
        )

    def _handle(self) -> None:
        expected = self.headers.get("Expect", "").lower() == "100-continue"
        request = self._request if expected else self._read_head()
        body = b"".join(self._read_body())
        self._send(self.server.service.answer(request, body))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _read_body(self) -> Iterable[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                continue
        else:
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, reply: Reply) -> None:
        self.send_response_only(reply.status)
        names = set()
        for name, value in reply.headers:
            names.add(name.lower())
            self.send_header(name, value)
        if "date" not in names:
            self.send_header("Date", self.date_time_string())
        if reply.status not in _BODILESS and "content-length" not in names:
            self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and reply.status not in _BODILESS:
            self.wfile.write(reply.body)
        self.wfile.flush()
        if self.close_connection:
            self.connection.shutdown(socket.SHUT_WR)
