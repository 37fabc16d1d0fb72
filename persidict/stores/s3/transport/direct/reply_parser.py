"""Replies of HTTP/1.1 (RFC 9112), read piece by piece and strictly, in bounded memory.

What can be read in two ways is refused: two lengths, a length beside chunks, folded or nameless
fields. Neither proxies nor servers of S3 send such things, but those do who slip in a reply.
"""

from __future__ import annotations

import re
from typing import Final

MOST_HEAD_BYTES: Final = 64 * 1024
"""What a head, and the trailers of a chunked body, may be long."""

_MOST_FIELDS: Final = 256
_MOST_INTERIM_REPLIES: Final = 16
_MOST_SIZE_LINE: Final = 1024
_HEAD_END: Final = b"\r\n\r\n"
_BEGINNING: Final = b"HTTP/1."
_SHOWN: Final = 60
_STATUS_LINE: Final = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n\0]*)?\r\n")
_FIELD: Final = re.compile(
    r"^([!#$%&'*+\-.^_`|~0-9A-Za-z]++):[ \t]*+([^\r\n\0]*+)\r\n", re.MULTILINE
)
"""Takes nothing back of what it has taken: spaces without end would take a minute."""

_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")
_SINGLE: Final = frozenset(
    {
        "content-length",
        "content-range",
        "content-type",
        "etag",
        "last-modified",
        "transfer-encoding",
    }
)
"""Fields that must not come twice: one of them would be the wrong one."""

_LENGTH_FRAMING, _CHUNK_SIZE_LINE, _CHUNK_DATA, _CHUNK_END, _TRAILERS, _UNTIL_CLOSE = range(6)


class MalformedReply(ValueError):
    """What arrived is no reply of HTTP/1.1, or one that is refused because of its size."""


class NotHTTP(MalformedReply):
    """What arrived does not begin like a reply.

    Attributes:
        beginning: How it begins.
    """

    def __init__(self, beginning: bytes) -> None:
        super().__init__("what arrived does not begin like a reply of HTTP/1.1")
        self.beginning = beginning


class ReplyParser:
    """The reply to one request, as it arrives.

    Interim replies (1xx) are passed over. Feeding costs time in proportion to what is fed.

    Args:
        method: The method of the request; the reply to ``HEAD`` has no body.

    Attributes:
        status: The status; 0 until the head has arrived.
        headers: The fields by lower-case name; what came several times is joined by commas.
        length: How long the body is, None while that is unknown.
        is_complete: Whether the whole reply has arrived.
        is_reusable: Whether the next reply on this connection will be that to the next request:
            not where the server closes, or sent more than it announced.
        buffered: How many bytes of the body wait for `take`.
        interim_replies: How many came before.
    """

    __slots__ = (
        "_chunk_left",
        "_is_head_request",
        "_pending",
        "_pieces",
        "_state",
        "_trailers",
        "buffered",
        "headers",
        "interim_replies",
        "is_complete",
        "is_reusable",
        "length",
        "status",
    )

    def __init__(self, method: str) -> None:
        self._is_head_request = method == "HEAD"
        self._pending: bytes | bytearray = b""
        self._pieces: list[bytes] = []
        self._chunk_left = 0
        self.interim_replies = 0
        self._trailers = 0
        self._state = _LENGTH_FRAMING
        self.status = 0
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self.is_complete = False
        self.is_reusable = True
        self.buffered = 0

    def feed(self, data: bytes) -> None:
        """Take what has arrived.

        Raises:
            MalformedReply: It is no reply, or too much of one.
        """
        if self.is_complete:
            self.is_reusable = False
            return
        if not self.status:
            rest = self._feed_head(data)
            if rest is None:
                return
            data = rest
        self._feed_body(data)

    def end(self) -> bool:
        """Take the end of the connection; return whether the reply is whole now."""
        self.is_reusable = False
        if self.status and self._state == _UNTIL_CLOSE:
            self.is_complete = True
        return self.is_complete

    def take(self) -> bytes:
        """Return what has arrived of the body and has not been taken yet."""
        pieces, self._pieces, self.buffered = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def note_taken_elsewhere(self, count: int) -> None:
        """Count bytes of a body of known length that were received where they stay."""
        self._chunk_left -= count
        self.is_complete = not self._chunk_left

    @property
    def left(self) -> int | None:
        """How many bytes of a body of known length have not arrived; None: unknown."""
        return self._chunk_left if self._state == _LENGTH_FRAMING and self.status else None

    @property
    def has_begun(self) -> bool:
        """Whether anything has arrived."""
        return bool(self.status or self._pending or self.interim_replies)

    # ------------------------------------------------------------------ the head

    def _feed_head(self, data: bytes) -> bytes | None:
        """Read heads up to that of the final reply; return what comes behind it."""
        pending = self._pending
        if pending:
            assert isinstance(pending, bytearray)
            searched = max(0, len(pending) - 3)
            pending += data
            end = pending.find(_HEAD_END, searched)
        else:
            pending = data
            end = data.find(_HEAD_END)
        while end >= 0:
            if end > MOST_HEAD_BYTES:
                raise MalformedReply("the head of a reply is too long")
            self._read_head(bytes(pending[: end + 2]).decode("latin-1"))
            rest = bytes(pending[end + 4 :])
            if self.status >= 200:
                self._pending = b""
                return rest
            self.interim_replies += 1
            if self.interim_replies > _MOST_INTERIM_REPLIES or self.status == 101:
                raise MalformedReply("a server sends interim replies without end")
            self.status = 0
            pending = rest
            end = rest.find(_HEAD_END)
        if len(pending) > MOST_HEAD_BYTES:
            raise MalformedReply("the head of a reply is too long")
        if not pending.startswith(_BEGINNING[: len(pending)]):
            raise NotHTTP(bytes(pending[:_SHOWN]))  # whose speaker may wait for an answer
        self._pending = pending if isinstance(pending, bytearray) else bytearray(pending)
        return None

    def _read_head(self, head: str) -> None:
        start = _STATUS_LINE.match(head)
        if start is None:
            raise NotHTTP(head[:_SHOWN].encode("latin-1"))
        self.status = int(start[2])
        self.headers = headers = _fields(head, start.end())
        if self.status < 200:
            return
        connection = headers.get("connection")
        if connection is not None:
            tokens = {token.strip().lower() for token in connection.split(",")}
            self.is_reusable = "close" not in tokens and (start[1] == "1" or "keep-alive" in tokens)
        elif start[1] == "0":
            self.is_reusable = False
        self._frame(headers)

    def _frame(self, headers: dict[str, str]) -> None:
        """Find out where the body ends (RFC 9112, section 6.3)."""
        length = self._length_in(headers)
        coding = headers.get("transfer-encoding")
        if coding is not None and (length is not None or coding.lower() != "chunked"):
            raise MalformedReply("a reply says in two ways, or in none known, how long it is")
        if self._is_head_request or self.status in (204, 304):
            if self.status == 204 and (length or coding is not None):
                self.is_reusable = False
            self.length = length
            self.is_complete = True
        elif coding is not None:
            self._state = _CHUNK_SIZE_LINE
        elif length is not None:
            self.length = self._chunk_left = length
            self.is_complete = length == 0
        else:
            self._state = _UNTIL_CLOSE
            self.is_reusable = False

    @staticmethod
    def _length_in(headers: dict[str, str]) -> int | None:
        text = headers.get("content-length")
        if text is None:
            return None
        if _LENGTH.fullmatch(text) is None:
            raise MalformedReply("a reply announces a length that is none")
        return int(text)

    # ------------------------------------------------------------------ the body

    def _feed_body(self, data: bytes) -> None:
        if self.is_complete:
            if data:
                self.is_reusable = False
        elif self._state == _LENGTH_FRAMING:
            extra = len(data) - self._chunk_left
            if extra >= 0:
                self.is_complete = True
                if extra:
                    self.is_reusable = False
                    data = data[: self._chunk_left]
            if data:
                self._chunk_left -= len(data)
                self._pieces.append(data)
                self.buffered += len(data)
        elif self._state == _UNTIL_CLOSE:
            self._keep(data)
        else:
            self._feed_chunks(data)

    def _keep(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self.buffered += len(data)

    def _feed_chunks(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._state == _CHUNK_DATA:
                piece = data[at : at + self._chunk_left]
                self._keep(piece)
                at += len(piece)
                self._chunk_left -= len(piece)
                if not self._chunk_left:
                    self._state = _CHUNK_END
                continue
            end = data.find(b"\n", at)
            line = data[at:] if end < 0 else data[at : end + 1]
            at += len(line)
            if self._pending:
                line = bytes(self._pending) + line
            limit = MOST_HEAD_BYTES if self._state == _TRAILERS else _MOST_SIZE_LINE
            if len(line) > limit:
                raise MalformedReply("a line between chunks is too long")
            if end < 0:
                self._pending = line
                return
            self._pending = b""
            self._read_line(line)
            if self.is_complete:
                if at < len(data):
                    self.is_reusable = False
                return

    def _read_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise MalformedReply("a line between chunks does not end as lines do")
        if self._state == _CHUNK_END:
            if line != b"\r\n":
                raise MalformedReply("a chunk is longer than announced")
            self._state = _CHUNK_SIZE_LINE
        elif self._state == _CHUNK_SIZE_LINE:
            size = _CHUNK_SIZE.fullmatch(line[:-2])
            if size is None:
                raise MalformedReply("a chunk announces a size that is none")
            self._chunk_left = int(size[1], 16)
            self._state = _CHUNK_DATA if self._chunk_left else _TRAILERS
        elif line == b"\r\n":
            self.is_complete = True
        else:
            self._read_trailer(line.decode("latin-1"))

    def _read_trailer(self, line: str) -> None:
        """Check a trailer and count it; what it says is not taken for a header."""
        _fields(line, 0)
        self._trailers += 1
        if self._trailers > _MOST_FIELDS:
            raise MalformedReply("a reply has too many trailers")


def _fields(head: str, start: int) -> dict[str, str]:
    """Read the field lines of a head, each of which must be one, and ends with CRLF."""
    found = _FIELD.findall(head, start)
    if len(found) != head.count("\n", start) or len(found) > _MOST_FIELDS:
        raise MalformedReply("a line in the head of a reply is no field")
    headers = {name.lower(): value.rstrip(" \t") for name, value in found}
    return headers if len(headers) == len(found) else _joined(found)


def _joined(found: list[tuple[str, str]]) -> dict[str, str]:
    """Return fields of which some come several times."""
    headers: dict[str, str] = {}
    for name, value in found:
        lower = name.lower()
        value = value.rstrip(" \t")
        if lower in headers:
            if lower in _SINGLE:
                raise MalformedReply(f"a reply says {lower} more than once")
            value = f"{headers[lower]}, {value}"
        headers[lower] = value
    return headers
