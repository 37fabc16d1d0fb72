"""Expanding what is compressed, up to a limit: few bytes can stand for more than fits anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final, NamedTuple

LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"

_PIECE: Final = 16 * 1024 * 1024
_SHORTEST_INPUT: Final = 1024
_LONGEST_INPUT: Final = 16 * 1024 * 1024
_ANY_WINDOW_OF_GZIP_OR_ZLIB: Final = 47
"""What zlib.h calls 32 + 15: the header tells which of the two it is."""


class _Compression(NamedTuple):
    """A way to compress.

    Attributes:
        magic: How what is compressed begins; no pickle begins so.
        module: Its module, whose `decompress` expands all at once.
        decompressor: The name in it of what expands step by step.
        most: How many bytes at most one byte stands for, None: any number.
    """

    magic: bytes
    module: str
    decompressor: str
    most: int | None


_COMPRESSIONS: Final = (
    _Compression(LZ4_MAGIC, "lz4.frame", "LZ4FrameDecompressor", 255),
    _Compression(b"\x1f\x8b", "gzip", "", 1032),
    _Compression(b"BZ", "bz2", "BZ2Decompressor", None),
    _Compression(b"\xfd7zXZ", "lzma", "LZMADecompressor", None),
    _Compression(b"\x5d\x00", "lzma", "LZMADecompressor", None),
    _Compression(b"\x78", "zlib", "", 1032),
)
MAGICS: Final = tuple(compression.magic for compression in _COMPRESSIONS)


class TooLargeError(ValueError):
    """What is compressed is larger than it may be."""


def expanded(data: bytes, at_most: int | None) -> bytes:
    """Expand what LZ4 or one of joblib's compressors has compressed.

    Args:
        data: The compressed bytes.
        at_most: How many bytes it may become, None: any number. Where there may be more, it is
            expanded step by step, and no more than one step beyond that.

    Raises:
        TooLargeError: It becomes more.
        Exception: What the decompressor raises for damaged data.
    """
    for compression in _COMPRESSIONS:
        if data.startswith(compression.magic):
            most = compression.most
            if at_most is None or (most is not None and len(data) * most <= at_most):
                return _all_at_once(compression, data)
            return _step_by_step(compression, data, at_most)
    return data


def _all_at_once(compression: _Compression, data: bytes) -> bytes:
    if compression.magic != LZ4_MAGIC:
        return _step_by_step(compression, data, None)
    module: Any = import_module(compression.module)
    pieces, consumed = [], 0
    while consumed < len(data):
        rest = memoryview(data)[consumed:] if consumed else data
        piece, length = module.decompress(rest, return_bytes_read=True)
        pieces.append(piece)
        consumed += length
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


def _step_by_step(compression: _Compression, data: bytes, at_most: int | None) -> bytes:
    steps = _steps(compression) if compression.decompressor else _steps_of_zlib
    pieces, size = [], 0
    for piece in steps(data):
        size += len(piece)
        if at_most is not None and size > at_most:
            raise TooLargeError(
                f"{len(data)} compressed bytes become more than {at_most} (max_value_size)"
            )
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _steps(compression: _Compression) -> Callable[[bytes], Iterator[bytes]]:
    new_decompressor: Any = getattr(import_module(compression.module), compression.decompressor)

    def expand(data: bytes) -> Iterator[bytes]:
        source = _Source(data)
        while source:
            decompressor = new_decompressor()
            while not decompressor.eof:
                piece = source.next() if decompressor.needs_input else b""
                yield decompressor.decompress(piece, _PIECE)
            source.put_back(len(decompressor.unused_data or b""))

    return expand


def _steps_of_zlib(data: bytes) -> Iterator[bytes]:
    import zlib

    source = _Source(data)
    while source:
        decompressor = zlib.decompressobj(_ANY_WINDOW_OF_GZIP_OR_ZLIB)
        rest = b""
        while not decompressor.eof:
            piece = decompressor.decompress(rest or source.next(), _PIECE)
            rest = decompressor.unconsumed_tail
            if piece:
                yield piece
        source.put_back(len(decompressor.unused_data))


class _Source:
    """Compressed bytes in pieces, which grow as long as no stream ends in them.

    A decompressor copies what lies behind the end of its stream; were that all the rest, a
    file of many short streams would take time by the square of its length.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._position = 0
        self._length = _SHORTEST_INPUT

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def next(self) -> memoryview:
        """Return the next piece.

        Raises:
            EOFError: There is none.
        """
        if not self:
            raise EOFError("the compressed data end too early")
        piece = self._data[self._position : self._position + self._length]
        self._position += len(piece)
        self._length = min(2 * self._length, _LONGEST_INPUT)
        return piece

    def put_back(self, count: int) -> None:
        """Take back what lies behind the end of a stream."""
        self._position -= count
        self._length = _SHORTEST_INPUT
