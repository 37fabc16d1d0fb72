"""Bytes, and memory for many of them that costs little to be written to for the first time."""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes on their way between values and storages."""

BUFFERS: Final = (bytes, bytearray, memoryview)
"""The types that Buffer is made of, for `isinstance`."""

_LARGE: Final = 4 * 1024 * 1024
_IS_ADVISABLE: Final = hasattr(mmap, "MADV_HUGEPAGE") and hasattr(mmap, "MAP_ANONYMOUS")


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
