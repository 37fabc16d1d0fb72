"""Reading one version of an object in ranges, and as a stream."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from botocore.exceptions import ClientError, FlexibleChecksumError, IncompleteReadError

from persidict.buffers import new_buffer
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.capabilities import ETagForm
from persidict.stores.s3.errors import ConnectionTrouble, S3Error, is_absence, status_of
from persidict.stores.s3.requests import S3Requests, canonical_etag, pause

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_ATTEMPTS: Final = 6
BodyTrouble: Final = (*ConnectionTrouble, FlexibleChecksumError)
"""What is raised where a body breaks off, is too short or does not match its checksum."""

_CHUNK: Final = 1024 * 1024
_READ_AHEAD: Final = 1024 * 1024
_UNMET: Final = 412
_NOT_SATISFIABLE: Final = 416


class ObjectMoved(Exception):
    """The object is not the version any more that is being read."""


class Body(Protocol):
    """The body of a reply."""

    def read(self, amt: int | None = None) -> bytes: ...

    def close(self) -> None: ...


def fill(target: memoryview, body: Body) -> None:
    """Read from a body until a buffer is full, without a second copy of what was read.

    Raises:
        botocore.exceptions.BotoCoreError: One of `BodyTrouble`: the body broke off.
    """
    filled = 0
    while filled < len(target):
        chunk = body.read(min(_CHUNK, len(target) - filled))
        if not chunk:
            raise IncompleteReadError(actual_bytes=filled, expected_bytes=len(target))
        target[filled : filled + len(chunk)] = chunk
        filled += len(chunk)


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
        self._if_match: str = etag

    def read_into(self, start: int, target: memoryview) -> None:
        """Fill a buffer with the bytes from `start` on, in one request.

        A body that breaks off is read again, a bounded number of times.

        Raises:
            ObjectMoved: The object is another version, or does not exist any more.
            botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: The range
                cannot be read.
        """
        attempt = 0
        while True:
            attempt += 1
            body = self._open(start, start + len(target))
            try:
                return fill(target, body)
            except BodyTrouble as error:
                if attempt >= READ_ATTEMPTS:
                    self._requests.fail(error, "get_object", self._key)
                pause(attempt)
            finally:
                body.close()

    def _open(self, start: int, stop: int) -> Body:
        asked_for = f"bytes {start}-{stop - 1}/{self.size}"
        try:
            reply = self._send(start, stop)
        except S3Error as error:
            if is_absence(error) or status_of(error) in (_UNMET, _NOT_SATISFIABLE):
                raise ObjectMoved(self._key) from error
            self._requests.fail(error, "get_object", self._key)
        body: Body = reply["Body"]
        if canonical_etag(reply["ETag"]) != self.etag or reply.get("ContentRange") != asked_for:
            body.close()
            raise ObjectMoved(self._key)
        return body

    def _send(self, start: int, stop: int) -> dict[str, Any]:
        if_match = self._if_match
        request = {"Key": self._key, "Range": f"bytes={start}-{stop - 1}"}
        try:
            return self._requests.send("get_object", IfMatch=if_match, **request)
        except ClientError as error:
            if status_of(error) != _UNMET:
                raise
        # Either the version has changed, or the server wants the ETag without its quotes
        if_match = ETagForm.other(if_match)
        reply = self._requests.send("get_object", IfMatch=if_match, **request)
        self._if_match = if_match
        return reply


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
    request = {"Key": key, "Range": f"bytes=0-{_READ_AHEAD - 1}"}
    attempt = 0
    while True:
        attempt += 1
        try:
            reply = requests.send("get_object", **request)
        except S3Error as error:
            if status_of(error) == _NOT_SATISFIABLE and "Range" in request:
                del request["Range"]  # there is no range of an empty object
                continue
            requests.fail(error, "get_object", key)
        try:
            beginning: bytes = reply["Body"].read()
        except BodyTrouble as error:
            if attempt >= READ_ATTEMPTS:
                requests.fail(error, "get_object", key)
            pause(attempt)
            continue
        look = requests.read(key, reply)
        return PinnedObject(requests, key, look.etag, look.size), beginning
