"""An HTTP proxy between a client and an S3 server that injects what networks do."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from enum import Enum
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import NamedTuple
from weakref import WeakSet

from .child_process import Server
from .http_messages import Exchange, Message, read_head, read_message
from .s3_messages import INTERNAL_ERROR, SLOW_DOWN, S3Error, S3Request, parse_s3_request

_STEPS_OF_SLOW_BODIES = 8


class Fault(Enum):
    """What becomes of one request."""

    PASS = "pass"
    DELAY = "delay"
    """Forwarded after a pause."""
    RESET_BEFORE = "reset before"
    """The connection is reset, and the server never sees the request."""
    RESET_AFTER = "reset after"
    """The connection is reset when the server has acted."""
    DROP_REPLY = "drop reply"
    """The connection is closed, without a reply, when the server has acted."""
    ERROR_500 = "error 500"
    """InternalError, and the server never sees the request."""
    ERROR_500_AFTER = "error 500 after"
    """InternalError in place of the reply, when the server has acted."""
    SLOW_DOWN = "slow down"
    """503 SlowDown, and the server never sees the request."""
    SLOW_BODY = "slow body"
    """The body of the reply comes in pieces with pauses between them."""
    TRUNCATED_BODY = "truncated body"
    """Half of the reply's body under its right Content-Length, then the end."""
    DUPLICATE = "duplicate"
    """The server gets the request twice; the client gets the second reply."""
    DUPLICATE_FIRST = "duplicate first"
    """The server gets the request twice; the client gets the first reply."""
    STALL = "stall"
    """No reply, ever; the server never sees the request."""


_NOT_FORWARDED = {
    Fault.RESET_BEFORE,
    Fault.ERROR_500,
    Fault.SLOW_DOWN,
    Fault.STALL,
}
_NEEDS_A_BODY = {Fault.SLOW_BODY, Fault.TRUNCATED_BODY}

Predicate = Callable[[S3Request], bool]
Rewrite = Callable[[S3Request, Message], Message]


def _any_request(request: S3Request) -> bool:
    return bool(request.operation)


class Handled(NamedTuple):
    """A request that the proxy received, and the fault that it met."""

    request: S3Request
    fault: Fault


class _Rule:
    def __init__(
        self, faults: tuple[Fault, ...], matches: Predicate, meanwhile: Callable[[], object] | None
    ) -> None:
        self.faults = deque(faults)
        self.matches = matches
        self.meanwhile = meanwhile


class _Plan(NamedTuple):
    fault: Fault
    meanwhile: Callable[[], object] | None = None


class FaultProxy(Server):
    """A proxy on a free port of the loopback interface; its threads live in this process.

    Without a script and without probabilities, every request passes.

    Args:
        upstream_url: The server's endpoint.
        delay: Seconds that DELAY waits, and that SLOW_BODY takes in all.

    Attributes:
        endpoint_url: Where clients connect to.
    """

    def __init__(self, upstream_url: str, *, delay: float = 0.2) -> None:
        self.upstream_url = upstream_url
        self.delay = delay
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._probabilities: dict[Fault, float] = {}
        self._random = random.Random()
        self._matches: Predicate = _any_request
        self._handled: list[Handled] = []
        self._rewrite: Rewrite | None = None
        self._stopped = threading.Event()
        self._server = _Server(self)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def script(
        self,
        *faults: Fault,
        operation: str | None = None,
        key: str | None = None,
        matches: Predicate = _any_request,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        """Let the next matching requests meet these faults, in this order, once each.

        Args:
            faults: What they meet; PASS lets one request through.
            operation: Only requests for this API operation, as ``PutObject``.
            key: Only requests for the object of this name.
            matches: Only requests for which this function returns True.
            meanwhile: Called when the server has acted, before the client learns of it.
        """

        def is_meant(request: S3Request) -> bool:
            return (
                operation in (None, request.operation)
                and key in (None, request.key)
                and matches(request)
            )

        with self._lock:
            self._rules.append(_Rule(faults, is_meant, meanwhile))

    def fail_randomly(
        self,
        probabilities: Mapping[Fault, float],
        *,
        seed: int,
        matches: Predicate = _any_request,
    ) -> None:
        """Let each request that no script is waiting for meet at most one fault, by chance.

        Args:
            probabilities: The chance of each fault; at most 1 in sum.
            seed: Repeats the sequence of draws.
            matches: Only requests for which this function returns True.
        """
        with self._lock:
            self._probabilities = dict(probabilities)
            self._random = random.Random(seed)
            self._matches = matches

    def rewrite(self, rewrite: Rewrite | None) -> None:
        """Change every reply from now on; see `rewrites`."""
        self._rewrite = rewrite

    def refuse_connections(self) -> None:
        """Accept no connection any more; those that are open stay so."""
        self._server.shutdown()
        self._server.socket.close()

    def calm(self) -> None:
        """Let everything pass from now on."""
        with self._lock:
            self._rewrite = None
            self._rules.clear()
            self._probabilities = {}

    def handled(self) -> list[Handled]:
        """Return the requests so far, with what each of them met."""
        with self._lock:
            return list(self._handled)

    def injected(self) -> Counter[Fault]:
        """Return how often each fault was injected; PASS counts the others."""
        return Counter(entry.fault for entry in self.handled())

    def stop(self) -> None:
        """Close the port and all connections."""
        self._stopped.set()
        self._server.stop()

    def _plan(self, request: S3Request) -> _Plan:
        with self._lock:
            for rule in self._rules:
                if rule.faults and rule.matches(request):
                    return _Plan(rule.faults.popleft(), rule.meanwhile)
            if self._matches(request):
                draw = self._random.random()
                for fault, probability in self._probabilities.items():
                    draw -= probability
                    if draw < 0:
                        return _Plan(fault)
        return _Plan(Fault.PASS)

    def _note(self, request: S3Request, fault: Fault) -> None:
        with self._lock:
            self._handled.append(Handled(request, fault))


_open_servers: WeakSet[_Server] = WeakSet()


def _close_in_child() -> None:
    """Let go of connections that would stay open as long as a forked child has them, too."""
    for server in list(_open_servers):
        for open_socket in server.sockets:
            os.close(open_socket.detach())
        server.sockets.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


class _Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, proxy: FaultProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.proxy = proxy
        self.sockets: set[socket.socket] = set()
        _open_servers.add(self)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for open_socket in list(self.sockets):
            _shut_down(open_socket)


class _Connection(BaseRequestHandler):
    """One connection of a client, and its own connection to the server."""

    server: _Server
    request: socket.socket

    def setup(self) -> None:
        self.proxy = self.server.proxy
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.sockets.add(self.request)
        self.reader = self.request.makefile("rb")
        self.upstream: Exchange | None = None

    def finish(self) -> None:
        self.server.sockets.discard(self.request)
        self.reader.close()
        if self.upstream is not None:
            self.upstream.close()

    def handle(self) -> None:
        try:
            while self._handle_request():
                continue
        except (OSError, EOFError):
            return

    def _handle_request(self) -> bool:
        """Serve one request; return whether the connection stays open."""
        head = read_head(self.reader)
        if head is None:
            return False
        method, target = head.start_line.split()[:2]
        request = parse_s3_request(method, target, head.headers)
        plan = self.proxy._plan(request)
        if plan.fault in _NOT_FORWARDED:
            self.proxy._note(request, plan.fault)
            return self._fail(head, plan.fault)
        if plan.fault is Fault.DELAY:
            time.sleep(self.proxy.delay)
        full_request, reply = self._forward(head)
        if plan.fault in (Fault.DUPLICATE, Fault.DUPLICATE_FIRST) and full_request.is_complete:
            with Exchange(self.proxy.upstream_url) as second:
                second_reply = second.send(full_request.without("expect"))
            reply = second_reply if plan.fault is Fault.DUPLICATE else reply
        if plan.meanwhile is not None:
            plan.meanwhile()
        if self.proxy._rewrite is not None:
            reply = self.proxy._rewrite(request, reply)
        fault = plan.fault
        if fault in _NEEDS_A_BODY and len(reply.body) < 2:
            fault = Fault.PASS
        self.proxy._note(request, fault)
        return self._reply(fault, reply) and full_request.is_complete

    def _fail(self, head: Message, fault: Fault) -> bool:
        if fault is Fault.RESET_BEFORE:
            return self._reset()
        if fault is Fault.STALL:
            while self.request.recv(65536):
                continue
            return False
        expects = "expect" in head.headers
        if not expects:
            read_message(self.reader, head)
        error = INTERNAL_ERROR if fault is Fault.ERROR_500 else SLOW_DOWN
        self.request.sendall(_error_reply(error, closes=expects, to_head=_is_head(head)))
        return not expects

    def _forward(self, head: Message) -> tuple[Message, Message]:
        """Send a request on; return it with its body, and the reply."""
        if self.upstream is None or self.upstream.is_closed:
            self.upstream = Exchange(self.proxy.upstream_url)
        if "expect" not in head.headers:
            request = read_message(self.reader, head)
            return request, self.upstream.send(request)
        interim = self.upstream.send(head)
        if not interim.is_interim:
            return head.incomplete(), interim
        self.request.sendall(interim.raw_head)
        request = read_message(self.reader, head)
        return request, self.upstream.send_body(request)

    def _reply(self, fault: Fault, reply: Message) -> bool:
        if fault is Fault.RESET_AFTER:
            return self._reset()
        if fault is Fault.DROP_REPLY:
            return False
        if fault is Fault.ERROR_500_AFTER:
            self.request.sendall(_error_reply(INTERNAL_ERROR, closes=True, to_head=reply.to_head))
            return False
        if fault is Fault.TRUNCATED_BODY:
            self.request.sendall(reply.raw_head + reply.body[: len(reply.body) // 2])
            return False
        if fault is Fault.SLOW_BODY:
            self._send_slowly(reply)
        else:
            self.request.sendall(reply.raw_head + reply.body)
        return not reply.closes

    def _send_slowly(self, reply: Message) -> None:
        self.request.sendall(reply.raw_head)
        size = -(-len(reply.body) // _STEPS_OF_SLOW_BODIES)
        for start in range(0, len(reply.body), size):
            self.proxy._stopped.wait(self.proxy.delay / _STEPS_OF_SLOW_BODIES)
            self.request.sendall(reply.body[start : start + size])

    def _reset(self) -> bool:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.reader.close()
        self.request.close()
        return False


def _is_head(head: Message) -> bool:
    return head.start_line.startswith("HEAD ")


def _error_reply(error: S3Error, *, closes: bool, to_head: bool) -> bytes:
    body = error.to_xml()
    lines = [
        f"HTTP/1.1 {error.status} {error.code}",
        "Content-Type: application/xml",
        f"Content-Length: {len(body)}",
        f"Connection: {'close' if closes else 'keep-alive'}",
        "\r\n",
    ]
    return "\r\n".join(lines).encode() + (b"" if to_head else body)


def _shut_down(open_socket: socket.socket) -> None:
    try:
        open_socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
