"""Expanding what is compressed, up to a limit: few bytes can stand for more than fits anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final, NamedTuple

LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"

_PIECE: Final = 16 * 1024 * 1024
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
    module: Any = import_module(compression.module)
    if compression.magic != LZ4_MAGIC:
        return bytes(module.decompress(data))
    pieces, consumed = [], 0
    while consumed < len(data):
        rest = memoryview(data)[consumed:] if consumed else data
        piece, length = module.decompress(rest, return_bytes_read=True)
        pieces.append(piece)
        consumed += length
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


def _step_by_step(compression: _Compression, data: bytes, at_most: int) -> bytes:
    steps = _steps(compression) if compression.decompressor else _steps_of_zlib
    pieces, size = [], 0
    for piece in steps(data):
        size += len(piece)
        if size > at_most:
            raise TooLargeError(
                f"{len(data)} compressed bytes become more than {at_most} (max_value_size)"
            )
        pieces.append(piece)
    return b"".join(pieces)


def _steps(compression: _Compression) -> Callable[[bytes], Iterator[bytes]]:
    new_decompressor: Any = getattr(import_module(compression.module), compression.decompressor)

    def expand(data: bytes) -> Iterator[bytes]:
        while data:
            decompressor = new_decompressor()
            yield decompressor.decompress(data, _PIECE)
            while not decompressor.eof:
                if decompressor.needs_input:
                    raise EOFError("the compressed data end too early")
                yield decompressor.decompress(b"", _PIECE)
            data = decompressor.unused_data or b""

    return expand


def _steps_of_zlib(data: bytes) -> Iterator[bytes]:
    import zlib

    while data:
        decompressor = zlib.decompressobj(_ANY_WINDOW_OF_GZIP_OR_ZLIB)
        while not decompressor.eof:
            piece = decompressor.decompress(data, _PIECE)
            data = decompressor.unconsumed_tail
            if piece:
                yield piece
            elif not data and not decompressor.eof:
                raise EOFError("the compressed data end too early")
        data = decompressor.unused_data
