"""The format of a cache entry: version and bytes of one object, in one file."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, Final, NamedTuple

from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.object_store import BUFFERS, Buffer

_MAGIC: Final = b"\x93pdce\r\n\x1a"
_FORMAT_VERSION: Final = 1
_CHECKSUM: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<8sHHQd")
"""Magic, format version, bytes of the ETag, bytes of the object, time of its writing."""

_ETAG_BEGIN: Final = _CHECKSUM.size + _HEAD.size


class CorruptEntry(Exception):
    """A file in the cache is no entry, not the one it should be, or a damaged one."""


class CacheEntry(NamedTuple):
    """An object as it was cached.

    Attributes:
        etag: Its version.
        last_modified: When it was written, in POSIX seconds.
        data: Its bytes.
    """

    etag: ETagValue
    last_modified: float
    data: Buffer


def pack(entry: CacheEntry, identity: int) -> bytes:
    """Return the content of an entry's file.

    The checksum is CRC-32, over the identity and over all that follows it. It finds what
    disks, crashes and mix-ups of files do, at some GB/s; against somebody who may write to
    the directory no checksum would help that is kept beside what it checks.

    Args:
        entry: The object.
        identity: A number of 32 bits that is made of the object's full name.
    """
    etag = entry.etag.encode()
    head = _HEAD.pack(_MAGIC, _FORMAT_VERSION, len(etag), len(entry.data), entry.last_modified)
    checksum = identity
    for part in (head, etag, entry.data):
        checksum = zlib.crc32(part, checksum)
    return b"".join((_CHECKSUM.pack(checksum), head, etag, entry.data))


def unpack(content: Buffer | BinaryIO, size: int, identity: int) -> CacheEntry:
    """Read an entry's file.

    Args:
        content: The content of the file, or the file, open and at its beginning.
        size: How many bytes the file has.
        identity: A number of 32 bits that is made of the object's full name.

    Raises:
        CorruptEntry: It is not, byte for byte, what `pack` made for this identity.
    """
    if isinstance(content, BUFFERS):
        head = content
        etag_size, last_modified = _parse_head(head, size)
        etag = content[_ETAG_BEGIN : _ETAG_BEGIN + etag_size]
        data: Buffer = memoryview(content)[_ETAG_BEGIN + etag_size :]
    else:
        head, etag, last_modified = _read_head(content, size)
        data = _read(content, size)
    (checksum,) = _CHECKSUM.unpack_from(head)
    found = zlib.crc32(memoryview(head)[_CHECKSUM.size : _ETAG_BEGIN], identity)
    if checksum != zlib.crc32(data, zlib.crc32(etag, found)):
        raise CorruptEntry("damaged, or another object's")
    return CacheEntry(ETagValue(str(etag, "utf-8")), last_modified, data)


def _read_head(file: BinaryIO, size: int) -> tuple[bytes, bytes, float]:
    """Return the head, the ETag, and when the object was written."""
    head = _read(file, _ETAG_BEGIN)
    etag_size, last_modified = _parse_head(head, size)
    return head, _read(file, etag_size), last_modified


def _parse_head(head: Buffer, size: int) -> tuple[int, float]:
    """Return how many bytes the ETag has, and when the object was written."""
    if len(head) < _ETAG_BEGIN:
        raise CorruptEntry("too short")
    magic, version, etag_size, data_size, last_modified = _HEAD.unpack_from(head, _CHECKSUM.size)
    if magic != _MAGIC or version != _FORMAT_VERSION:
        raise CorruptEntry("of another format")
    if size != _ETAG_BEGIN + etag_size + data_size:
        raise CorruptEntry("of another size than it should be")
    return etag_size, last_modified


def _read(file: BinaryIO, count: int) -> bytes:
    try:
        return file.read(count)
    except OSError as error:
        raise CorruptEntry("unreadable") from error
