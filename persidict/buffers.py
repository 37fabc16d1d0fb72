"""Bytes, and memory for many of them that costs little to be written to for the first time."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes on their way between values and storages."""

BUFFERS: Final = (bytes, bytearray, memoryview)
"""The types that Buffer is made of, for `isinstance`."""

_LARGE: Final = 4 * 1024 * 1024
_IS_ADVISABLE: Final = hasattr(mmap, "MADV_HUGEPAGE") and hasattr(mmap, "MAP_ANONYMOUS")


_PIECE: Final = 8 * 1024 * 1024


class MappedFile(mmap.mmap):
    """A file in memory, whose pages can be let go and come again when they are asked for."""


def pieces(data: Buffer) -> Iterator[Buffer]:
    """Yield bytes in the parts that they are best written in, one after another.

    Those are all of them, but for a mapped file, whose pages would add up: it comes in parts
    of 8 MiB, and the pages of each one are let go when the next one is asked for.
    """
    if not (isinstance(data, memoryview) and isinstance(data.obj, MappedFile)):
        yield data
        return
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]
        let_go(data, start, _PIECE)


def let_go(data: Buffer, start: int, size: int) -> None:
    """Let go of the pages of a part of a mapped file; of other bytes, nothing.

    Args:
        data: The bytes; of a mapped file, all of it.
        start: Where the part begins, in whole pages.
        size: How long it is; what would be behind the end is not there.
    """
    pages = data.obj if isinstance(data, memoryview) else None
    if isinstance(pages, MappedFile) and hasattr(pages, "madvise") and len(pages) == len(data):
        pages.madvise(mmap.MADV_DONTNEED, start, min(size, len(pages) - start))


def settled(data: Buffer) -> Buffer:
    """Return bytes that stay as they are; the same object where nobody can change them."""
    can_change = isinstance(data, bytearray) or (isinstance(data, memoryview) and not data.readonly)
    return bytes(data) if can_change else data


def new_buffer(size: int) -> memoryview:
    """Return that many bytes of zeros, to be written to.

    Python touches all of what it allocates, page by page, which takes longer than to fill it.
    Where the system has huge pages, a large buffer is made of them, as numpy's arrays are.
    """
    if size >= _LARGE and _IS_ADVISABLE:
        with suppress(OSError):  # no such pages, or no leave to map any: as everywhere else
            pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            pages.madvise(mmap.MADV_HUGEPAGE)
            return memoryview(pages)
    return memoryview(bytearray(size))
