"""Many requests from one thread over many connections; replies in the order of the requests.

The thread is that of whoever asks for the next reply: while it does something else, requests
are under way, but nothing is read.
"""

from __future__ import annotations

import heapq
import itertools
import os
import ssl
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol

from persidict.stores.s3.transport.direct.connections import (
    READABLE,
    WRITABLE,
    CannotConnect,
    Connection,
    ConnectionPool,
)
from persidict.stores.s3.transport.direct.exchange import (
    MOST_BYTES_AT_ONCE,
    BodyCut,
    NoReply,
    Stream,
    WireReply,
    WireRequest,
    end_of,
    pieces_of,
    reply_of,
)
from persidict.stores.s3.transport.direct.pace import LEAST_BYTES
from persidict.stores.s3.transport.direct.poller import Poller, new_poller
from persidict.stores.s3.transport.direct.reply_parser import MalformedReply, ReplyParser
from persidict.stores.s3.transport.messages import Refusal, Request
from persidict.stores.s3.transport.transport import MOST_READ_AHEAD, Again, never

_MOST_BYTES: Final = 96 * 1024 * 1024
"""What may have been read, or be about to be, before its turn comes."""

_AHEAD: Final = 2
"""How many times as many replies as requests under way may wait for their turn."""

_WAITING_AHEAD: Final = 8
"""The same, with those that wait to be sent again."""

_SMALL: Final = 64 * 1024
_LARGE: Final = 1024 * 1024
_LONGEST_POLL_SECONDS: Final = 1.0
_SECONDS_BETWEEN_LOOKS: Final = 0.02
"""How exactly time-outs are kept while there is much to do."""

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Line(Protocol):
    """What sends requests one by one: their form on the wire and what replies mean."""

    @property
    def pool(self) -> ConnectionPool:
        """Where connections come from."""

    def prepare(self, request: Request[Any]) -> WireRequest | None:
        """Return a request as it is sent now; None: it has to go its own way."""

    def intercepted(self, request: Request[Any], wire_request: WireRequest) -> WireReply | None:
        """Offer a request to whoever answers in the place of the server."""

    def answer(self, request: Request[Any], reply: WireReply) -> Any:
        """Return what a reply says; raise Refusal."""

    def trouble(self, request: Request[Any], trouble: CannotConnect | NoReply) -> Refusal:
        """Return the Refusal of a request that got no reply."""

    def alone(self, request: Request[Any]) -> Any:
        """Send a request on its own way and return what it is answered with; raise Refusal."""


class _Job:
    """A request on its way to a result."""

    __slots__ = (
        "asks_for_new",
        "attempts",
        "charged",
        "is_done",
        "may_have_acted",
        "out",
        "parser",
        "request",
        "result",
        "started",
        "was_cut",
        "wire_request",
    )

    def __init__(self, request: Request[Any]) -> None:
        self.request = request
        self.wire_request: WireRequest | None = None
        self.parser: ReplyParser | None = None
        self.out: list[bytes | memoryview] = []
        self.result: Any = None
        self.is_done = False
        self.attempts = 0
        self.started = 0.0
        self.was_cut = False
        self.asks_for_new = False
        self.may_have_acted = False
        self.charged = 0


class _Channel:
    """A connection and the request that is under way on it."""

    __slots__ = ("arrived", "connection", "deadline", "descriptor", "events", "is_open", "job")

    def __init__(self, connection: Connection, *, is_open: bool) -> None:
        self.connection = connection
        self.descriptor = connection.sock.fileno()
        self.is_open = is_open
        self.events = 0
        self.job: _Job | None = None
        self.deadline = connection.deadline
        self.arrived = LEAST_BYTES
        """How many bytes came since the deadline was moved last; see `Pace`."""


class Multiplexer:
    """Sends many requests, a bounded number at a time.

    A service that asks for fewer requests gets half as many at a time, and one more after
    each round of successes. Replies that are large stay on their connection; those that
    together are more than memory should hold are read when their turn comes.

    Args:
        line: How requests travel.
        concurrency: How many may be under way.
        again: Whether and when a refused request is sent again.
    """

    def __init__(self, line: Line, concurrency: int, again: Again = never) -> None:
        self._line = line
        self._pool = line.pool
        self._concurrency = concurrency
        self._again = again
        self._window: deque[_Job] = deque()
        self._limit = float(concurrency)
        self._last_cut = 0.0
        self._bytes = 0
        self._numbers = itertools.count()
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._poller: Poller = new_poller()
        self._channels: dict[int, _Channel] = {}
        self._idle: list[_Channel] = []
        self._paused: list[_Channel] = []
        self._active = 0
        self._next_look = 0.0
        self._seen = time.monotonic()
        self._ready: deque[_Job] = deque()
        self._later: list[tuple[float, int, _Job]] = []

    def run(self, requests: Iterable[Request[Any]]) -> Iterator[Any]:
        """Send requests and yield what each is answered with, or its Refusal, in their order.

        What the source of the requests raises is raised in its place, after the replies to
        all requests before. When the consumer stops, what is under way is broken off. In a
        child after fork, what was under way is sent again, by the child.
        """
        source = iter(requests)
        has_more = True
        failure: Exception | None = None
        window = self._window
        try:
            while True:
                if self._process != os.getpid():
                    self._go_on_in_child()
                while has_more and self._has_room():
                    try:
                        request = next(source)
                    except StopIteration:
                        has_more = False
                        break
                    except Exception as error:  # raised below, in its place
                        failure = error
                        has_more = False
                        break
                    job = _Job(request)
                    window.append(job)
                    self._begin(job)
                    if time.monotonic() - self._seen > _SECONDS_BETWEEN_LOOKS:
                        self._look(0.0)  # the source takes its time: what it gave is to leave
                if not window:
                    break
                if not window[0].is_done:
                    self._turn()
                    continue
                job = window.popleft()
                self._bytes -= job.charged
                yield job.result
            if failure is not None:
                raise failure
        finally:
            self._close()

    def _has_room(self) -> bool:
        waiting = len(self._later) + len(self._ready)
        return (
            self._active < int(self._limit)
            and len(self._window) - waiting < _AHEAD * self._concurrency
            and waiting < _WAITING_AHEAD * self._concurrency
            and not self._paused
            and (self._bytes < _MOST_BYTES or not self._window)
        )

    # ------------------------------------------------------------------ a request's way

    def _begin(self, job: _Job) -> None:
        """Send a request, as far as that is possible at once."""
        job.attempts += 1
        line = self._line
        try:
            wire_request = line.prepare(job.request)
            if wire_request is None:
                self._succeed(job, line.alone(job.request))
                return
            reply = line.intercepted(job.request, wire_request)
        except Refusal as refusal:
            self._refused(job, refusal)
            return
        if reply is not None:
            self._answered(job, reply)
            return
        job.wire_request = wire_request
        job.parser = ReplyParser(wire_request.method)
        wire_request.asks_first = False
        head, body = wire_request.head(), wire_request.body
        if isinstance(body, bytes) and len(body) <= _SMALL:
            job.out = [head + body]
        else:
            job.out = [head, *pieces_of(body)]
        self._give_channel(job)

    def _give_channel(self, job: _Job) -> None:
        try:
            # a server that cuts idle connections may have cut the next one, too
            idle = None if job.asks_for_new else self._idle_channel()
            channel = idle or self._new_channel()
        except CannotConnect as trouble:
            self._refused(job, self._line.trouble(job.request, trouble))
            return
        channel.job = job
        job.started = time.monotonic()
        self._active += 1
        if channel.is_open:
            channel.deadline = job.started + self._pool.timeouts.read
            channel.arrived = LEAST_BYTES  # the head of a reply is enough
            self._send(channel)

    def _idle_channel(self) -> _Channel | None:
        while self._idle:
            channel = self._idle.pop()
            if not channel.connection.is_stale():
                return channel
            self._drop(channel)
        connection = self._pool.take_idle()
        if connection is None:
            return None
        connection.sock.setblocking(False)
        channel = _Channel(connection, is_open=True)
        self._watch(channel, READABLE)
        return channel

    def _new_channel(self) -> _Channel:
        channel = _Channel(self._pool.begin(), is_open=False)
        self._watch(channel, WRITABLE)
        return channel

    def _succeed(self, job: _Job, result: Any) -> None:
        job.result = result
        job.is_done = True
        if self._limit < self._concurrency:
            self._limit = min(float(self._concurrency), self._limit + 1.0 / self._limit)

    def _answered(self, job: _Job, reply: WireReply) -> None:
        try:
            result = self._line.answer(job.request, reply)
        except Refusal as refusal:
            self._refused(job, refusal)
        else:
            self._succeed(job, result)

    def _refused(self, job: _Job, refusal: Refusal) -> None:
        """Plan to send a request again, or let the Refusal be its result."""
        now = time.monotonic()
        if refusal.asks_for_fewer_requests and job.started >= self._last_cut:
            self._limit = max(1.0, self._limit / 2)
            self._last_cut = now
        job.may_have_acted = refusal.may_have_acted = job.may_have_acted or refusal.may_have_acted
        pause = self._again(job.request, refusal, job.attempts)
        self._bytes -= job.charged
        job.charged = 0
        if pause is None:
            job.result = refusal
            job.is_done = True
        else:
            heapq.heappush(self._later, (now + pause, next(self._numbers), job))

    # ------------------------------------------------------------------ what sockets do

    def _turn(self) -> None:
        """Wait until something happens, and see to all that has happened."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        while self._ready and self._active < int(self._limit):
            self._begin(self._ready.popleft())
        if self._window[0].is_done:
            return
        self._resume()
        timeout = _LONGEST_POLL_SECONDS
        if self._later:
            timeout = min(timeout, max(0.0, self._later[0][0] - now))
        self._look(timeout)

    def _look(self, timeout: float) -> None:
        """See to all that has happened; wait so many seconds at most until something does.

        The time that others have taken since the last look is nobody's delay.
        """
        absence = time.monotonic() - self._seen
        if absence > _SECONDS_BETWEEN_LOOKS:
            for channel in self._channels.values():
                channel.deadline += absence
                channel.connection.deadline += absence
        for descriptor, events in self._poller.poll(timeout):
            found = self._channels.get(descriptor)
            if found is not None:
                self._see_to(found, events)
        self._seen = time.monotonic()
        self._expire(self._seen)

    def _see_to(self, channel: _Channel, events: int) -> None:
        job = channel.job
        if job is None:
            self._idle.remove(channel)  # it was closed, or sent what nobody asked for
            self._drop(channel)
        elif not channel.is_open:
            self._open(channel)
        else:
            if events & WRITABLE and job.out:
                self._send(channel)
            if events & READABLE and channel.job is job:
                self._receive(channel, job)

    def _open(self, channel: _Channel, *, is_late: bool = False) -> None:
        """Go on opening a connection; its descriptor may change."""
        self._unwatch(channel)
        connection = channel.connection
        try:
            if is_late:
                connection.expire()
                waits_for = WRITABLE
            else:
                waits_for = connection.advance()
        except CannotConnect as trouble:
            connection.close()
            job = self._release(channel)
            self._refused(job, self._line.trouble(job.request, trouble))
            return
        channel.descriptor = connection.sock.fileno()
        channel.deadline = connection.deadline
        if waits_for:
            self._watch(channel, waits_for)
            return
        channel.is_open = True
        channel.deadline = time.monotonic() + self._pool.timeouts.read
        self._watch(channel, READABLE)
        self._send(channel)

    def _send(self, channel: _Channel) -> None:
        job = channel.job
        assert job is not None
        assert job.parser is not None
        out = job.out
        sock = channel.connection.sock
        try:
            while out:
                count = sock.send(out[0])
                channel.deadline = time.monotonic() + self._pool.timeouts.read
                if count < len(out[0]):
                    out[0] = memoryview(out[0])[count:]
                else:
                    del out[0]
        except _WOULD_BLOCK:
            self._want(channel, READABLE | WRITABLE)
            return
        except OSError:
            # where the server did not want all of it, its reply is there already
            out.clear()
            job.parser.is_reusable = False
        self._want(channel, READABLE)

    def _receive(self, channel: _Channel, job: _Job) -> None:
        parser = job.parser
        assert parser is not None
        sock = channel.connection.sock
        count = 0
        try:
            while True:
                is_large = parser.status and (parser.left or 0) > _SMALL
                data = sock.recv(_LARGE if is_large else _SMALL)
                count += len(data)
                if data:
                    parser.feed(data)
                elif not parser.end():
                    raise end_of(parser)
                if not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
                    break
        except _WOULD_BLOCK:
            pass
        except (OSError, EOFError, MalformedReply, BodyCut) as error:
            self._fail(channel, error)
            return
        if parser.is_complete:
            self._complete(channel, job, parser)
        elif parser.status:
            channel.arrived += count
            if channel.arrived >= LEAST_BYTES:
                channel.arrived = 0
                channel.deadline = time.monotonic() + self._pool.timeouts.read
            self._bound(channel, job, parser)

    def _complete(self, channel: _Channel, job: _Job, parser: ReplyParser) -> None:
        self._charge(job, parser.buffered)
        self._release(channel)
        if parser.is_reusable and not job.out:
            channel.connection.is_used = True
            self._idle.append(channel)
        else:
            self._drop(channel)
        self._answered(job, reply_of(parser))

    def _fail(self, channel: _Channel, error: Exception) -> None:
        """Give up a connection, and with it the request on it, or send that again."""
        job = self._release(channel)
        was_idle = channel.connection.is_used
        self._drop(channel)
        parser, wire_request = job.parser, job.wire_request
        assert parser is not None
        assert wire_request is not None
        job.asks_for_new = was_idle
        is_cut = was_idle and not parser.has_begun and not isinstance(error, TimeoutError)
        if is_cut and wire_request.is_safe and not job.was_cut:
            job.was_cut = True
            job.attempts -= 1
            self._ready.append(job)
            return
        trouble = NoReply()
        trouble.__cause__ = error
        if parser.status and wire_request.is_streamed and parser.status < 300:
            self._answered(job, reply_of(parser, trouble=trouble))
        else:
            self._refused(job, self._line.trouble(job.request, trouble))

    def _expire(self, now: float) -> None:
        """Give up what has waited for too long."""
        if now < self._next_look:
            return
        self._next_look = now + _SECONDS_BETWEEN_LOOKS
        for channel in [*self._channels.values()]:
            if channel.job is None or now <= channel.deadline or channel in self._paused:
                continue
            if channel.is_open:
                self._fail(channel, TimeoutError("timed out"))
            else:
                self._open(channel, is_late=True)

    # ------------------------------------------------------------------ bounded memory

    def _bound(self, channel: _Channel, job: _Job, parser: ReplyParser) -> None:
        """Leave a large body on its connection: for good, or until its turn comes."""
        wire_request = job.wire_request
        assert wire_request is not None
        expected = (parser.left or 0) + parser.buffered
        if wire_request.is_streamed and parser.status < 300:
            if expected > MOST_READ_AHEAD:
                self._unwatch(channel)
                self._release(channel)
                channel.connection.block()
                stream = Stream(self._pool, channel.connection, parser)
                self._answered(job, reply_of(parser, stream=stream))
                return
        elif parser.buffered > MOST_BYTES_AT_ONCE:
            self._fail(channel, MalformedReply("a reply is too long"))
            return
        if job is self._window[0] or self._bytes - job.charged + expected <= _MOST_BYTES:
            self._charge(job, expected)
        elif expected > _SMALL:
            self._paused.append(channel)
            self._want(channel, 0)

    def _charge(self, job: _Job, count: int) -> None:
        self._bytes += count - job.charged
        job.charged = count

    def _resume(self) -> None:
        """Read on where there is memory again, first of all what is waited for."""
        if not self._paused:
            return
        paused, self._paused = self._paused, []
        paused.sort(key=lambda channel: channel.job is not self._window[0])
        now = time.monotonic()
        for channel in paused:
            job = channel.job
            assert job is not None
            assert job.parser is not None
            channel.deadline = now + self._pool.timeouts.read
            self._want(channel, READABLE)
            self._bound(channel, job, job.parser)

    # ------------------------------------------------------------------ channels

    def _watch(self, channel: _Channel, events: int) -> None:
        self._channels[channel.descriptor] = channel
        self._poller.register(channel.descriptor, events)
        channel.events = events

    def _want(self, channel: _Channel, events: int) -> None:
        if channel.events != events:
            self._poller.modify(channel.descriptor, events)
            channel.events = events

    def _unwatch(self, channel: _Channel) -> None:
        self._poller.unregister(channel.descriptor)
        del self._channels[channel.descriptor]

    def _release(self, channel: _Channel) -> _Job:
        """Part a channel from the request that was under way on it."""
        job = channel.job
        assert job is not None
        channel.job = None
        self._active -= 1
        return job

    def _drop(self, channel: _Channel) -> None:
        try:
            self._unwatch(channel)
        finally:
            channel.connection.close()

    def _close(self) -> None:
        """Keep the idle connections for others, and close all others."""
        # first: where an exception came between, a channel may be known here and not there
        self._poller.close()
        if self._process == os.getpid():
            idle = set(map(id, self._idle))
            for channel in self._channels.values():
                # without a request is also one that failed a moment ago
                if id(channel) in idle:
                    channel.connection.block()
                    self._pool.give_back(channel.connection)
                else:
                    channel.connection.close()
        for job in self._window:
            body = getattr(job.result, "body", None)
            if body is not None:
                body.close()
        self._window.clear()

    def _go_on_in_child(self) -> None:
        """Begin with new connections: those of the parent have been closed here by its pool."""
        self._poller.close()
        self._start_afresh()
        for job in self._window:
            if not job.is_done:
                self._bytes -= job.charged
                job.charged = 0
                self._ready.append(job)
