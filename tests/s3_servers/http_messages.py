"""HTTP/1.1 messages as they are on the wire, and a connection that exchanges them."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from typing import BinaryIO
from urllib.parse import urlsplit

_TIMEOUT = 60


@dataclass(frozen=True)
class Message:
    """A request or a response.

    Attributes:
        raw_head: Everything up to and including the blank line.
        start_line: The first line, without its end.
        headers: With lower-case names.
        body: As sent: a chunked body keeps its chunks.
        is_complete: Whether the body was sent at all.
        to_head: Whether it is the response to a HEAD.
    """

    raw_head: bytes
    start_line: str
    headers: dict[str, str]
    body: bytes = b""
    is_complete: bool = True
    to_head: bool = False

    @property
    def status(self) -> int:
        return int(self.start_line.split()[1])

    @property
    def is_interim(self) -> bool:
        """Whether it is a response like ``100 Continue``."""
        return 100 <= self.status < 200

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this response."""
        return self.headers.get("connection", "").lower() == "close"

    def incomplete(self) -> Message:
        """Return the request as one whose body was never sent."""
        return replace(self, is_complete=False)

    def without(self, header: str) -> Message:
        """Return the message without one of its headers."""
        lines = self.raw_head.split(b"\r\n")
        prefix = f"{header}:".encode()
        kept = [line for line in lines if not line.lower().startswith(prefix)]
        headers = {name: value for name, value in self.headers.items() if name != header}
        return replace(self, raw_head=b"\r\n".join(kept), headers=headers)

    def having(self, header: str, value: str) -> Message:
        """Return the message with a header, in place of any of that name."""
        bare = self.without(header)
        head = bare.raw_head.removesuffix(b"\r\n") + f"{header}: {value}\r\n\r\n".encode()
        return replace(bare, raw_head=head, headers={**bare.headers, header: value})


def read_head(reader: BinaryIO) -> Message | None:
    """Read up to the blank line; None when the connection ends before."""
    lines = []
    while (line := reader.readline()).strip():
        lines.append(line)
    if not lines or not line:
        return None
    fields = [item.decode("latin-1").partition(":") for item in lines[1:]]
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    return Message(b"".join([*lines, line]), lines[0].decode("latin-1").strip(), headers)


def read_message(reader: BinaryIO, head: Message) -> Message:
    """Read the body that belongs to a head.

    Raises:
        EOFError: The connection ended before the body did.
    """
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        return replace(head, body=_read_chunks(reader))
    return replace(head, body=_read(reader, int(head.headers.get("content-length", 0))))


def _read(reader: BinaryIO, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _read_line(reader: BinaryIO) -> bytes:
    line = reader.readline()
    if not line:
        raise EOFError
    return line


def _read_chunks(reader: BinaryIO) -> bytes:
    pieces = []
    while True:
        pieces.append(_read_line(reader))
        size = int(pieces[-1].split(b";")[0], 16)
        if size == 0:
            break
        pieces.append(_read(reader, size + 2))
    while pieces[-1].strip():
        pieces.append(_read_line(reader))
    return b"".join(pieces)


class Exchange:
    """A connection to a server that sends a request and reads the reply, again and again."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")
        self.is_closed = False

    def send(self, request: Message) -> Message:
        """Send a request, as far as it has a body yet, and return the reply.

        Raises:
            EOFError: The server closed the connection instead of replying.
        """
        self._socket.sendall(request.raw_head + request.body)
        return self._read_reply(request)

    def send_body(self, request: Message) -> Message:
        """Send the body of a request whose head was sent before, and return the reply."""
        self._socket.sendall(request.body)
        return self._read_reply(request)

    def _read_reply(self, request: Message) -> Message:
        head = read_head(self._reader)
        if head is None:
            self.close()
            raise EOFError
        head = replace(head, to_head=request.start_line.startswith("HEAD "))
        if head.closes:
            self.is_closed = True
        if head.to_head or head.is_interim or head.status in (204, 304):
            return head
        return read_message(self._reader, head)

    def close(self) -> None:
        """Close the connection."""
        self.is_closed = True
        self._reader.close()
        self._socket.close()

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
