"""Reading one version of an object in ranges, and as a stream."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO, Final

from persidict.buffers import new_buffer
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.requests import S3Requests, pause
from persidict.stores.s3.transport.errors import cut_short, no_s3_reply
from persidict.stores.s3.transport.messages import Body, GetObject, Refusal, Reply

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_ATTEMPTS: Final = 6

_CHUNK: Final = 1024 * 1024
_READ_AHEAD: Final = 1024 * 1024
_MOST_UNANNOUNCED: Final = 16 * 1024 * 1024
"""How long a body may be whose length was not announced, as S3 always does."""


class BodyTrouble(Exception):
    """A body broke off, was too short, or did not match its checksum; caused by a Refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal


class ObjectMoved(Exception):
    """The object is not the version any more that is being read."""


class Boundless(Exception):
    """A body of which nobody said how long it is goes on and on."""


def read_all(reply: Reply) -> bytes:
    """Read the whole body of a reply, and close it.

    Raises:
        BodyTrouble: It broke off or is damaged.
        Boundless: Its length was not announced, and there are more than 16 MiB of it.
    """
    body = body_of(reply)
    try:
        return body.read() if reply.content_length is not None else _read_unannounced(body)
    except Refusal as refusal:
        raise BodyTrouble(refusal) from None
    finally:
        body.close()


def _read_unannounced(body: Body) -> bytes:
    pieces, size = [], 0
    while piece := body.read(_CHUNK):
        size += len(piece)
        if size > _MOST_UNANNOUNCED:
            raise Boundless
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def boundless(requests: S3Requests) -> Refusal:
    """Return what a body without end is reported as."""
    what = f"more than {_MOST_UNANNOUNCED} bytes, without saying how many"
    return no_s3_reply("GetObject", 200, requests.transport.endpoint, what)


def fill(target: memoryview, body: Body) -> None:
    """Read from a body until a buffer is full, without a second copy of what was read.

    Raises:
        BodyTrouble: It broke off or is damaged.
    """
    filled = 0
    while filled < len(target):
        try:
            count = body.readinto(target[filled : filled + _CHUNK])
            if not count:
                raise cut_short(filled, len(target))
        except Refusal as refusal:
            raise BodyTrouble(refusal) from None
        filled += count


class PinnedObject:
    """One version of an object, read in ranges; safe to share among threads.

    Every range is asked for under ``If-Match``, and the version and the range that the
    server answers with are compared with those asked for: bytes of two versions never mix.

    Args:
        requests: The bucket.
        key: The object's key.
        etag: The version.
        size: How many bytes it has.
    """

    def __init__(self, requests: S3Requests, key: str, etag: ETagValue, size: int) -> None:
        self._requests = requests
        self._key = key
        self.etag = etag
        self.size = size

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill a buffer with the bytes from `start` on, in one request.

        A body that breaks off is read again, a bounded number of times.

        Raises:
            ObjectMoved: The object is another version, or does not exist any more.
            Exception: The transport's own: the range cannot be read.
        """
        attempt = 0
        while True:
            attempt += 1
            body = self._open(start, start + len(target))
            try:
                return fill(target, body)
            except BodyTrouble as trouble:
                if attempt >= READ_ATTEMPTS:
                    self._requests.fail(trouble.refusal, self._key)
                pause(attempt)
            finally:
                body.close()

    def _open(self, start: int, stop: int) -> Body:
        request = GetObject(self._key, (start, stop), if_match=self.etag)
        try:
            reply = self._requests.perform(request)
        except Refusal as refusal:
            if refusal.is_absence or refusal.is_unmet or refusal.is_unsatisfiable:
                raise ObjectMoved(self._key) from refusal.error
            self._requests.fail(refusal, self._key)
        body = body_of(reply)
        if reply.etag != self.etag or reply.content_range != (start, stop, self.size):
            body.close()
            raise ObjectMoved(self._key)
        return body


class _RangedReader(io.RawIOBase):
    """A version of an object as a raw stream: each read is one request for a range.

    Args:
        pinned: The version.
        beginning: Its first bytes.
        name: What the object is called in messages.
    """

    mode = "rb"

    def __init__(self, pinned: PinnedObject, beginning: bytes, name: str) -> None:
        super().__init__()
        self._pinned = pinned
        self._beginning = beginning
        self._position = 0
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._pinned.size}
        if whence not in origins:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence!r}")
        position = origins[whence] + offset
        if position < 0:
            raise ValueError(f"cannot seek to {position}, before the beginning")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        return self._read_into(memoryview(buffer).cast("B"))

    def _read_into(self, wanted: memoryview) -> int:
        known = self._beginning[self._position : self._position + len(wanted)]
        if known:
            wanted[: len(known)] = known
            self._position += len(known)
            return len(known)
        left = max(0, self._pinned.size - self._position)
        target = wanted[: min(len(wanted), left)]
        if target:
            self._fill(target)
            self._position += len(target)
        return len(target)

    def readall(self) -> bytes:
        rest = new_buffer(max(0, self._pinned.size - self._position))
        filled = 0
        while filled < len(rest):
            filled += self._read_into(rest[filled:])
        return bytes(rest)

    def _fill(self, target: memoryview) -> None:
        try:
            self._pinned.read_into(self._position, target)
        except ObjectMoved as moved:
            raise OSError(
                f"{self.name} was changed or deleted while it was being read: its version"
                f" {self._pinned.etag} is gone; open it again to read what is there now"
            ) from moved


def open_stream(requests: S3Requests, key: str, name: str) -> BinaryIO:
    """Open the current version of an object for reading.

    Takes one request, which also reads the first 1 MiB; then one for each further MiB that
    is read in sequence, for each jump out of what has been read ahead, and for each larger
    read at once.

    Args:
        requests: The bucket.
        key: The object's key.
        name: What the stream is called, and its object in messages.

    Returns:
        A buffered, seekable stream. When the object changes, the first MiB and what has been
        read ahead can still be read, and everything else raises OSError.

    Raises:
        ObjectNotFound: There is no such object.
    """
    pinned, beginning = _read_beginning(requests, key)
    return io.BufferedReader(_RangedReader(pinned, beginning, name), _READ_AHEAD)


def _read_beginning(requests: S3Requests, key: str) -> tuple[PinnedObject, bytes]:
    request = GetObject(key, (0, _READ_AHEAD))
    attempt = 0
    while True:
        attempt += 1
        try:
            reply = requests.perform(request)
        except Refusal as refusal:
            if refusal.is_unsatisfiable and request.byte_range is not None:
                request = GetObject(key)  # there is no range of an empty object
                continue
            requests.fail_to_read(refusal, key)
        requests.rule_out_marker(key, reply)
        try:
            beginning = read_all(reply)
        except Boundless:
            requests.fail(boundless(requests), key)
        except BodyTrouble as trouble:
            if attempt >= READ_ATTEMPTS:
                requests.fail(trouble.refusal, key)
            pause(attempt)
            continue
        look = requests.take_in(key, reply)
        size = len(beginning) if reply.size is None else reply.size
        return PinnedObject(requests, key, look.etag, size), beginning


def body_of(reply: Reply) -> Body:
    """Return the body of a reply to a GET."""
    assert reply.body is not None
    return reply.body
