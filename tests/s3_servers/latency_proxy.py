"""A TCP proxy that makes loopback as far away as a data centre."""

from __future__ import annotations

import asyncio
import select
import selectors
from collections import deque
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from .child_process import ChildProcess, Server, announce, watch_parent

_MOST_BYTES_UNDER_WAY = 64_000_000


class LatencyProxy(Server):
    """A running proxy; `start_latency_proxy` makes one.

    Attributes:
        endpoint_url: Where clients connect to.
    """

    def __init__(self, process: ChildProcess) -> None:
        self._process = process
        self.endpoint_url = f"http://127.0.0.1:{process.announced['port']}"

    def stop(self) -> None:
        """End the process, with all connections."""
        self._process.stop()


def start_latency_proxy(upstream_url: str, *, round_trip: float) -> LatencyProxy:
    """Start a proxy, in a child process, that adds a round trip time to a server.

    All bytes are on their way for half of `round_trip`, in both directions, whatever they
    mean: so an exchange of ``100 Continue`` costs another round trip, as does opening a
    connection. Connections do not wait for each other, and bandwidth is not limited.

    Args:
        upstream_url: The server's endpoint.
        round_trip: Seconds.
    """
    arguments = {"upstream_url": upstream_url, "round_trip": round_trip}
    return LatencyProxy(ChildProcess("latency_proxy", arguments))


def serve(upstream_url: str, round_trip: float) -> None:
    """Be the child process."""
    watch_parent()
    loop = asyncio.SelectorEventLoop(_exact_selector())
    loop.run_until_complete(_serve(upstream_url, round_trip))


def _exact_selector() -> selectors.BaseSelector:
    """Return a selector that is exact to microseconds, and takes many connections if it can.

    epoll would round every delay up to milliseconds, and select() knows no more than 1024
    descriptors: so select() waits for epoll's own.
    """
    if not hasattr(selectors, "EpollSelector"):
        return selectors.SelectSelector()

    class ExactSelector(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is None or timeout > 0:
                select.select([self.fileno()], [], [], timeout)
            return super().select(0)

    return ExactSelector()


async def _serve(upstream_url: str, round_trip: float) -> None:
    parts = urlsplit(upstream_url)
    loop = asyncio.get_running_loop()

    def accepted() -> _ClientSide:
        return _ClientSide(round_trip, parts.hostname or "", parts.port or 80)

    server = await loop.create_server(accepted, "127.0.0.1", 0, backlog=256)
    announce(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


class Clock(Protocol):
    """What a delay line needs of an event loop."""

    def time(self) -> float:
        """Return the seconds since some moment."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> object:
        """Call a function at a time."""


class DelayLine:
    """Hands bytes over, in order, a fixed time after they were put in.

    Args:
        clock: Tells the time.
        delay: Seconds that bytes are under way.
        blocked_for: Seconds from now in which bytes wait before they set out.
    """

    def __init__(self, clock: Clock, delay: float, blocked_for: float = 0) -> None:
        self._clock = clock
        self._delay = delay
        self._opens_at = clock.time() + blocked_for
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._deliver: Callable[[bytes], object] | None = None
        self.size = 0

    def put(self, data: bytes) -> None:
        """Send bytes on their way; an empty string, as the end of the stream, too."""
        due = max(self._clock.time(), self._opens_at) + self._delay
        self._under_way.append((due, data))
        self.size += len(data)
        if len(self._under_way) == 1 and self._deliver is not None:
            self._clock.call_at(due, self._arrive)

    def connect(self, deliver: Callable[[bytes], object]) -> None:
        """Name the function that takes what arrives; until then, nothing does."""
        self._deliver = deliver
        if self._under_way:
            self._clock.call_at(self._under_way[0][0], self._arrive)

    def _arrive(self) -> None:
        assert self._deliver is not None
        now = self._clock.time()
        while self._under_way and self._under_way[0][0] <= now:
            _, data = self._under_way.popleft()
            self.size -= len(data)
            self._deliver(data)
        if self._under_way:
            self._clock.call_at(self._under_way[0][0], self._arrive)


class _Side(asyncio.Protocol):
    """One end of a connection: what it receives goes to the other end, by a delay line."""

    def __init__(self, round_trip: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._round_trip = round_trip
        self._line = DelayLine(self._loop, round_trip / 2)
        self._has_ended = False
        self.transport: asyncio.Transport
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def join(self, other: _Side) -> None:
        """Let what this side receives arrive at the other one."""
        self.other = other
        self._line.connect(self._hand_over)

    def data_received(self, data: bytes) -> None:
        self._line.put(data)
        if self._line.size > _MOST_BYTES_UNDER_WAY:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._line.put(b"")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and error is not None:
            self.other.transport.abort()

    def _hand_over(self, data: bytes) -> None:
        assert self.other is not None
        if data:
            self.other.transport.write(data)
            if self._line.size <= _MOST_BYTES_UNDER_WAY:
                self.transport.resume_reading()
            return
        self._has_ended = True
        if self.other._has_ended:
            self.other.transport.close()
            self.transport.close()
        elif not self.other.transport.is_closing():
            self.other.transport.write_eof()


class _ClientSide(_Side):
    """The end at the client, which opens the connection to the server."""

    def __init__(self, round_trip: float, host: str, port: int) -> None:
        super().__init__(round_trip)
        self._upstream = host, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # loopback opens connections at once: the round trip of the handshake comes later
        self._line = DelayLine(self._loop, self._round_trip / 2, blocked_for=self._round_trip)
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            _, server_side = await self._loop.create_connection(
                lambda: _Side(self._round_trip), *self._upstream
            )
        except OSError:
            self.transport.abort()
            return
        server_side.join(self)
        self.join(server_side)
