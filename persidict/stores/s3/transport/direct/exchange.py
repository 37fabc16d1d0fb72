"""One request and its reply on a connection that waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from persidict.buffers import BUFFERS, Buffer
from persidict.stores.s3.transport.direct.checksums import Checksum, DamagedBody
from persidict.stores.s3.transport.direct.connections import (
    READABLE,
    Connection,
    ConnectionPool,
    ready,
)
from persidict.stores.s3.transport.direct.pace import Pace
from persidict.stores.s3.transport.direct.reply_parser import MalformedReply, ReplyParser
from persidict.stores.s3.transport.messages import PartBody

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STREAMED_FROM: Final = 1024 * 1024
"""Bodies of more bytes stay on the connection until they are read."""

MOST_BYTES_AT_ONCE: Final = 64 * 1024 * 1024
"""What a body may have that is no object's: a page of a listing, an error."""

_PIECE: Final = 256 * 1024
_SMALL: Final = 64 * 1024
_WAIT_FOR_CONTINUE_SECONDS: Final = 1.0
_WAIT_AFTER_BROKEN_SEND_SECONDS: Final = 1.0


class NoReply(Exception):
    """A request was sent, or begun to be, and no whole reply came; chained from the reason."""


class BodyCut(Exception):
    """A body ended before it was whole.

    Attributes:
        received: How many bytes came.
        expected: How many were announced, None if that was left open.
    """

    def __init__(self, received: int, expected: int | None) -> None:
        super().__init__(received, expected)
        self.received = received
        self.expected = expected


@dataclass(slots=True)
class WireRequest:
    """A request as it is sent.

    Attributes:
        method: The HTTP method.
        target: Path and query.
        headers: By lower-case name.
        body: What follows the head.
        asks_first: Whether the server is asked whether it wants the body.
        is_streamed: Whether a large body of the reply may stay on the connection.
        is_safe: Whether the request changes nothing, so that it may be sent again where an
            idle connection turns out to have been cut.
    """

    method: str
    target: str
    headers: dict[str, str] = field(repr=False)  # they hold signatures and session tokens
    body: Buffer | PartBody = field(default=b"", repr=False)
    asks_first: bool = False
    is_streamed: bool = False
    is_safe: bool = False

    def head(self) -> bytes:
        """Return everything up to and including the blank line."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        asks = "expect: 100-continue\r\n" if self.asks_first else ""
        text = f"{self.method} {self.target} HTTP/1.1\r\n{lines}{asks}\r\n"
        return text.encode("latin-1")


@dataclass(slots=True)
class WireReply:
    """A reply as it came.

    Attributes:
        status: The HTTP status.
        headers: By lower-case name.
        body: The body, or where to read it.
        length: How many bytes were announced; for HEAD, too.
        trouble: Why only the head and not all of the body came, for replies to a request
            whose body may stay on the connection.
    """

    status: int
    headers: dict[str, str]
    body: bytes | Stream
    length: int | None
    trouble: NoReply | None = None


def reply_of(
    parser: ReplyParser, *, stream: Stream | None = None, trouble: NoReply | None = None
) -> WireReply:
    """Return the reply that has been read, as far as it came."""
    body = parser.take() if stream is None else stream
    return WireReply(parser.status, parser.headers, body, parser.length, trouble)


def exchange(pool: ConnectionPool, request: WireRequest) -> WireReply:
    """Send a request once and read the reply.

    A request that changes nothing is sent again, on a new connection, if the server had cut
    the idle one that it was sent on.

    Raises:
        CannotConnect: Nothing was sent.
        NoReply: No whole and valid reply came.
    """
    connection = pool.take_idle() or pool.open()
    was_idle = connection.is_used
    parser = ReplyParser(request.method)
    try:
        return _exchange_on(pool, connection, request, parser)
    except NoReply as trouble:
        if not (was_idle and request.is_safe and not parser.has_begun):
            raise
        if isinstance(trouble.__cause__, TimeoutError):
            raise
    connection = pool.open()
    return _exchange_on(pool, connection, request, ReplyParser(request.method))


def _exchange_on(
    pool: ConnectionPool, connection: Connection, request: WireRequest, parser: ReplyParser
) -> WireReply:
    is_streamed = False
    try:
        _send(connection, request, parser)
        if not parser.status:
            _receive_head(connection, parser, time.monotonic() + pool.timeouts.read)
        is_streamed = request.is_streamed and parser.status < 300
        pace: Pace | None = None
        while True:  # with no condition at its end, see tests/test_house.py
            if parser.is_complete:
                break
            if is_streamed and (parser.left or 0) + parser.buffered > STREAMED_FROM:
                return reply_of(parser, stream=Stream(pool, connection, parser))
            if parser.buffered > MOST_BYTES_AT_ONCE:
                raise MalformedReply("a reply is too long")
            if pace is None:
                pace = Pace(pool.timeouts.read)
            pace.begin()
            pace.note(_receive(connection, parser))
    except (OSError, EOFError, MalformedReply, BodyCut) as error:
        connection.close()
        trouble = NoReply()
        trouble.__cause__ = error
        if is_streamed:
            return reply_of(parser, trouble=trouble)
        raise trouble from error
    except BaseException:
        connection.close()
        raise
    release(pool, connection, parser)
    return reply_of(parser)


def release(pool: ConnectionPool, connection: Connection, parser: ReplyParser) -> None:
    """Keep a connection whose reply is whole, or close it if it is of no use any more."""
    if parser.is_reusable:
        pool.give_back(connection)
    else:
        connection.close()


def _receive(connection: Connection, parser: ReplyParser) -> int:
    is_large = parser.status and (parser.left or 0) > _SMALL
    data = connection.sock.recv(_PIECE if is_large else _SMALL)
    if data:
        parser.feed(data)
    elif not parser.end():
        raise end_of(parser)
    return len(data)


def _receive_head(connection: Connection, parser: ReplyParser, deadline: float) -> None:
    while True:
        _receive(connection, parser)
        if parser.status:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the head of a reply does not end")


def end_of(parser: ReplyParser) -> Exception:
    """Return what is wrong where a connection ends before a reply is whole."""
    if parser.status:
        return BodyCut(parser.buffered, parser.length)
    return ConnectionResetError("the connection ended before a reply")


# ---------------------------------------------------------------------- sending


def _send(connection: Connection, request: WireRequest, parser: ReplyParser) -> None:
    """Send a request; reading its body may raise, to break it off."""
    body = request.body
    head = request.head()
    if isinstance(body, bytes) and len(body) <= _SMALL and not request.asks_first:
        _send_piece(connection, head + body, parser)
        return
    if not _send_piece(connection, head, parser):
        return
    if request.asks_first and not _may_go_on(connection, parser):
        return
    for piece in pieces_of(body):
        if not _send_piece(connection, piece, parser):
            return


def _send_piece(connection: Connection, piece: bytes | memoryview, parser: ReplyParser) -> bool:
    """Send a piece; return False where the server lets that not happen, but has replied."""
    try:
        connection.sock.sendall(piece)
    except TimeoutError:
        raise
    except OSError:
        parser.is_reusable = False
        if not ready(connection.sock, READABLE, _WAIT_AFTER_BROKEN_SEND_SECONDS):
            raise
        return False
    return True


def _may_go_on(connection: Connection, parser: ReplyParser) -> bool:
    """Wait until the server asks for the body, or answers; old servers do neither."""
    deadline = time.monotonic() + _WAIT_FOR_CONTINUE_SECONDS
    while not parser.interim_replies:
        timeout = deadline - time.monotonic()
        if timeout <= 0 or not ready(connection.sock, READABLE, timeout):
            return True
        _receive(connection, parser)
        if parser.status:
            parser.is_reusable = False  # the server may still wait for the body
            return False
    return True


def pieces_of(body: Buffer | PartBody) -> Iterator[bytes | memoryview]:
    """Cut a body into pieces, because a time-out holds for each one that is sent."""
    if isinstance(body, BUFFERS):
        view = memoryview(body).cast("B")
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]
        return
    while piece := body.read(_PIECE):
        yield piece


# ---------------------------------------------------------------------- large bodies


class Stream:
    """The body of a large reply, read from the connection, which is given back at the end.

    Attributes:
        checksum: What the bytes must have, compared when the last one has been read.
    """

    def __init__(self, pool: ConnectionPool, connection: Connection, parser: ReplyParser) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self._parser = parser
        self._at_hand = memoryview(parser.take())
        self._received = 0
        self._pace = Pace(pool.timeouts.read)
        self.checksum: Checksum | None = None

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as the bytes at hand go; 0 at the end.

        Raises:
            NoReply: The body breaks off, or the checksum differs.
        """
        target = memoryview(buffer).cast("B")
        if not len(target):
            return 0
        try:
            count = self._fill(target)
        except (OSError, EOFError, MalformedReply, BodyCut, DamagedBody) as error:
            self.close()
            raise NoReply from error
        except BaseException:
            self.close()
            raise
        return count

    def _fill(self, target: memoryview) -> int:
        if self._at_hand:
            count = min(len(target), len(self._at_hand))
            target[:count] = self._at_hand[:count]
            self._at_hand = self._at_hand[count:]
        elif self._parser.is_complete:
            return 0
        else:
            count = self._receive_into(target)
        self._received += count
        if self.checksum is not None:
            self.checksum.update(target[:count])
        if self._parser.is_complete and not self._at_hand:
            self._finish()
        return count

    def _receive_into(self, target: memoryview) -> int:
        connection = self._connection
        if connection is None:
            raise BodyCut(self._received, self._parser.length)
        left = self._parser.left
        self._pace.begin()
        if left is not None:
            count = connection.sock.recv_into(target[: min(len(target), left)])
            if not count:
                raise BodyCut(self._received, self._parser.length)
            self._parser.note_taken_elsewhere(count)
            if not self._parser.is_complete:
                self._pace.note(count)
            return count
        while not self._parser.buffered and not self._parser.is_complete:
            data = connection.sock.recv(_PIECE)
            self._pace.note(len(data))
            self._pace.begin()
            if data:
                self._parser.feed(data)
            elif not self._parser.end():
                raise BodyCut(self._received, None)
        if not self._parser.buffered:
            return 0
        self._at_hand = memoryview(self._parser.take())
        count = min(len(target), len(self._at_hand))
        target[:count] = self._at_hand[:count]
        self._at_hand = self._at_hand[count:]
        return count

    def _finish(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            release(self._pool, connection, self._parser)
        checksum, self.checksum = self.checksum, None
        if checksum is not None:
            checksum.compare()

    def close(self) -> None:
        """Give up the rest, and the connection with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.close()
