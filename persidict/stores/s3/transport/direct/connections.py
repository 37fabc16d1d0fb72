"""Connections to one host: opened without blocking, kept, checked, never shared with a child."""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import ssl
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

READABLE: Final = selectors.EVENT_READ
WRITABLE: Final = selectors.EVENT_WRITE

_LONGEST_LIFE_SECONDS: Final = 300.0
_LONGEST_IDLE_SECONDS: Final = 60.0
"""Firewalls forget quiet connections without telling either end, some after a few minutes."""

_ADDRESSES_LAST_SECONDS: Final = 5.0
_FOREVER: Final = float("inf")
_UNDER_WAY: Final = frozenset({0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY})


class CannotConnect(Exception):
    """No connection came about, so nothing was sent; chained from the reason."""


@dataclass(frozen=True)
class Timeouts:
    """How long is waited, in seconds.

    Attributes:
        connect: For a connection, TLS included.
        read: For a reply to begin, and for each further piece of it; to send each piece, too.
    """

    connect: float = 60.0
    read: float = 60.0

    @classmethod
    def of(cls, connect: float | None, read: float | None) -> Timeouts:
        """Return those of a botocore Config, where None means for ever."""
        return cls(_FOREVER if connect is None else connect, _FOREVER if read is None else read)


class Connection:
    """A connection, from the moment that its socket exists.

    Until `advance` returns 0 it is being opened.

    Args:
        pool: Where it belongs.
        addresses: What to connect to, tried one after the other.

    Attributes:
        sock: The socket; of TLS where the pool says so.
        is_used: Whether a reply has been read from it already.
        deadline: When opening it has taken too long, by `time.monotonic`.
    """

    __slots__ = (
        "__weakref__",
        "_addresses",
        "_born",
        "_idle_since",
        "_is_connected",
        "_pool",
        "_watcher",
        "deadline",
        "is_used",
        "sock",
    )

    def __init__(self, pool: ConnectionPool, addresses: list[_Address]) -> None:
        self._pool = pool
        self._addresses = addresses
        self._born = time.monotonic()
        self._idle_since = self._born
        self._is_connected = False
        self._watcher: Any = None
        self.deadline = _FOREVER
        self.is_used = False
        self.sock = self._begin()
        pool.note_open(self)

    def _begin(self) -> socket.socket:
        """Begin to connect to the next address."""
        address = self._addresses.pop(0)
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM, address.protocol)
        except OSError as error:
            raise CannotConnect from error
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.deadline = time.monotonic() + self._pool.timeouts.connect
        code = sock.connect_ex(address.sockaddr)
        if code not in _UNDER_WAY:
            sock.close()
            return self._begin_again(OSError(code, os.strerror(code)))
        return sock

    def _begin_again(self, error: OSError) -> socket.socket:
        """Try the next address, if there is one."""
        if not self._addresses:
            raise CannotConnect from error
        return self._begin()

    def advance(self) -> int:
        """Go on opening the connection as far as that is possible at once.

        The socket may be another one afterwards, where the address was not to be reached.

        Returns:
            0: it is open. READABLE or WRITABLE: call again once the socket is that.

        Raises:
            CannotConnect: It cannot be opened.
        """
        try:
            if not self._is_connected:
                code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self._give_up_address(OSError(code, os.strerror(code)))
                    return WRITABLE
                try:
                    self.sock.getpeername()
                except OSError as error:
                    if error.errno == errno.ENOTCONN:
                        return WRITABLE
                    raise
                self._is_connected = True
                if self._pool.tls is not None:
                    self.sock = self._pool.tls.wrap_socket(
                        self.sock,
                        server_hostname=self._pool.host,
                        do_handshake_on_connect=False,
                    )
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return READABLE
        except ssl.SSLWantWriteError:
            return WRITABLE
        except (OSError, ValueError) as error:
            self.close()
            raise CannotConnect from error
        return 0

    def _give_up_address(self, error: OSError) -> None:
        self.sock.close()
        self.sock = self._begin_again(error)

    def expire(self) -> None:
        """Go on to the next address because this one has taken too long.

        Raises:
            CannotConnect: There is none.
        """
        self._is_connected = False
        self._give_up_address(TimeoutError(errno.ETIMEDOUT, "connecting took too long"))

    def block(self) -> None:
        """Let the socket wait as long as the time-outs allow."""
        read = self._pool.timeouts.read
        self.sock.settimeout(None if read == _FOREVER else read)

    def close(self) -> None:
        """Close it; what is under way on it comes to nothing."""
        self.sock.close()

    def rest(self) -> float:
        """Note that it is idle from now on; return when that is, by `time.monotonic`."""
        self._idle_since = now = time.monotonic()
        self.is_used = True
        return now

    def is_worn(self, now: float) -> bool:
        """Tell whether it is too old, or has been idle for too long."""
        return (
            now - self._born > _LONGEST_LIFE_SECONDS
            or now - self._idle_since > _LONGEST_IDLE_SECONDS
        )

    def is_stale(self) -> bool:
        """Tell whether the server has closed it, or sent what nobody asked for."""
        sock = self.sock
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        if not _HAS_POLL:
            return ready(sock, READABLE, 0.0)
        if self._watcher is None:
            self._watcher = select.poll()
            self._watcher.register(sock, select.POLLIN)
        return bool(self._watcher.poll(0))


@dataclass(frozen=True)
class _Address:
    family: int
    protocol: int
    sockaddr: Any


class ConnectionPool:
    """Open connections to one host and port, shared by all threads.

    Args:
        host: The host's name, or an address of IPv4 or IPv6.
        port: The port.
        tls: How TLS is spoken; None: not at all.
        timeouts: How long is waited.
        most_idle: How many idle connections are kept.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        timeouts: Timeouts,
        most_idle: int,
    ) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self.timeouts = timeouts
        self._most_idle = most_idle
        self._known: tuple[float, list[_Address]] = (0.0, [])
        self._start_afresh()
        _POOLS.add(self)

    def _start_afresh(self) -> None:
        self._idle: deque[Connection] = deque()
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()

    def forget_connections(self) -> None:
        """Close all connections, in a child after fork: they are the parent's, busy or not.

        Whoever uses one in the child fails, instead of taking the parent's replies.
        """
        for connection in list(self._open):
            connection.close()
        self._start_afresh()

    def note_open(self, connection: Connection) -> None:
        """Take note of a connection, so that a child after fork can close it."""
        self._open.add(connection)

    def take_idle(self) -> Connection | None:
        """Return an idle connection that is fit for use, None if there is none."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if connection.is_worn(time.monotonic()) or connection.is_stale():
                connection.close()
                continue
            return connection

    def open(self) -> Connection:
        """Return a new connection, which waits when it is read or written.

        Raises:
            CannotConnect: None can be opened.
        """
        connection = self.begin()
        try:
            _await_open(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def begin(self) -> Connection:
        """Begin to open a connection; `Connection.advance` goes on.

        Looking up the host's addresses waits, but what was found is kept for seconds.

        Raises:
            CannotConnect: The host has no address, or there is no socket to be had.
        """
        return Connection(self, self._addresses())

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for others, on which nothing is under way and which waits."""
        now = connection.rest()
        idle = self._idle
        idle.append(connection)
        if len(idle) > self._most_idle or idle[0].is_worn(now):
            try:
                oldest = idle.popleft()
            except IndexError:  # others have taken them
                return
            oldest.close()

    def _addresses(self) -> list[_Address]:
        """Look up the host; the first address is another one each time, to spread the load."""
        now = time.monotonic()
        known_until, found = self._known
        if now >= known_until:
            try:
                infos = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise CannotConnect from error
            found = [_Address(family, proto, at) for family, _, proto, _, at in infos]
            known_until = now + _ADDRESSES_LAST_SECONDS
        rest = [address for address in found[1:] if address.family == found[0].family]
        others = [address for address in found if address.family != found[0].family]
        self._known = known_until, [*rest, found[0], *others]
        return list(found)


def _await_open(connection: Connection) -> None:
    """Go on until a connection is open; it then waits when it is read or written."""
    while waits_for := connection.advance():
        timeout = connection.deadline - time.monotonic()
        if timeout <= 0 or not ready(connection.sock, waits_for, timeout):
            connection.expire()
    connection.block()


def ready(sock: socket.socket, events: int, timeout: float) -> bool:
    """Wait until a socket is readable or writable; return whether it is within the time.

    Peeking with `recv` would not do: on a socket with a time-out it waits.

    Args:
        sock: The socket.
        events: READABLE, WRITABLE, or both.
        timeout: In seconds.
    """
    if _HAS_POLL:
        poll = select.poll()
        wanted = (select.POLLIN if events & READABLE else 0) | (
            select.POLLOUT if events & WRITABLE else 0
        )
        poll.register(sock, wanted)
        return bool(poll.poll(None if timeout == _FOREVER else timeout * 1000))
    readers = [sock] if events & READABLE else []
    writers = [sock] if events & WRITABLE else []
    found = select.select(readers, writers, writers, None if timeout == _FOREVER else timeout)
    return any(found)


_HAS_POLL: Final = hasattr(select, "poll")
_POOLS: Final[weakref.WeakSet[ConnectionPool]] = weakref.WeakSet()


def _forget_connections() -> None:
    for pool in list(_POOLS):
        pool.forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)
