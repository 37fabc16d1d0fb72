"""Large objects, read in parallel ranges of one version."""

from __future__ import annotations

from typing import Final, NamedTuple

from persidict.buffers import new_buffer
from persidict.stores.s3.requests import S3Requests
from persidict.stores.s3.stream import BodyTrouble, PinnedObject, body_of, fill
from persidict.stores.s3.transport.messages import Refusal, Reply
from persidict.stores.shared.teamwork import Teamwork

DEFAULT_LARGE_OBJECT_SIZE: Final = 16 * 1024 * 1024

_RANGE_SIZE: Final = 8 * 1024 * 1024
_TEAM_SIZE: Final = 10


def range_size(large_object_size: int) -> int:
    """Return how many bytes each range has that a large object is read in."""
    return max(1, min(_RANGE_SIZE, large_object_size // 2))


def read_large(
    requests: S3Requests, key: str, reply: Reply, *, large_object_size: int
) -> memoryview:
    """Read the body of a reply to a GET, with the help of GETs for ranges of that version.

    The reply is one to a GET for the whole object, or for its first `range_size` bytes. The
    calling thread reads on in the body that it has, from the front; threads that are
    free read ranges, from the back. Once one of them has come, the body is closed, lest the
    server sends what others read; where no thread is free, the one request does it all.
    Needs no more memory than the bytes returned. The checksum of a whole object is compared
    only where the one request has read all of it.

    Args:
        requests: The bucket.
        key: The object's key.
        reply: The reply.
        large_object_size: The size from which on objects are large.

    Raises:
        ObjectMoved: The object was replaced or deleted meanwhile.
        BodyTrouble: The end of the body does not match its checksum.
        Exception: The transport's own: a part cannot be read.
    """
    return _Download(requests, key, reply, large_object_size).run()


class _Range(NamedTuple):
    start: int
    stop: int


class _Download:
    def __init__(
        self, requests: S3Requests, key: str, reply: Reply, large_object_size: int
    ) -> None:
        assert reply.etag is not None
        assert reply.size is not None
        self._size = reply.size
        self._pinned = PinnedObject(requests, key, reply.etag, self._size)
        self._body = body_of(reply)
        self._readable = reply.content_length or 0
        self._position = 0
        self._content = new_buffer(self._size)
        length = range_size(large_object_size)
        ranges = [
            _Range(start, min(start + length, self._size)) for start in range(0, self._size, length)
        ]
        self._first = ranges.pop(0)
        self._team = Teamwork(ranges, requests.shared.pool, self._read_range, team_size=_TEAM_SIZE)

    def run(self) -> memoryview:
        try:
            with self._team:
                self._read_in_sequence(self._first)
                for part in self._team:
                    self._read_in_sequence(part)
            if self._position == self._size:
                self._read_end()  # the end, where the checksum is compared
        finally:
            self._body.close()
        return self._content

    def _read_end(self) -> None:
        try:
            self._body.read()
        except Refusal as refusal:
            raise BodyTrouble(refusal) from None

    def _read_range(self, part: _Range) -> None:
        self._pinned.read_into(part.start, self._content[part.start : part.stop])

    def _read_in_sequence(self, part: _Range) -> None:
        if self._position and self._team.is_helped:
            self._stop_reading_the_body()
        if part.stop <= self._readable:
            try:
                fill(self._content[part.start : part.stop], self._body)
            except BodyTrouble:
                self._stop_reading_the_body()
            else:
                self._position = part.stop
                return
        self._read_range(part)

    def _stop_reading_the_body(self) -> None:
        self._readable = 0
        self._body.close()
