"""The format ``pkl``: pickles, compressed ones, and what joblib wrote."""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import sys
from typing import Any, BinaryIO, Final

from persidict.codecs.codec import Buffer, Codec, MissingExtraError

_PROTOCOL: Final = 5

_LZ4_MAGIC: Final = b"\x04\x22\x4d\x18"
_JOBLIB_MODULE: Final = "joblib.numpy_pickle"
_JOBLIB_COMPRESSORS: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"BZ", "bz2"),
    (b"\xfd7zXZ", "lzma"),
    (b"\x5d\x00", "lzma"),
    (b"\x78", "zlib"),
)
"""How a compressed stream of joblib's begins, and the module that expands it; no pickle
begins so."""
_COMPRESSED: Final = (_LZ4_MAGIC, *(magic for magic, _ in _JOBLIB_COMPRESSORS))
_LONGEST_MAGIC: Final = max(map(len, _COMPRESSED))

_FRAMED: Final = struct.Struct("<xxBQ")
"""How a pickle begins that is one frame: PROTO, its argument, FRAME, the frame's length."""
_FRAME: Final = pickle.FRAME[0]

_COMPRESS_FROM: Final = 16 * 1024
"""Smaller files do not take up noticeably less space when they are compressed."""
_SAMPLE: Final = 4 * 1024
_LARGE: Final = 1024 * 1024


class PickleCodec(Codec):
    """Pickles of protocol 5.

    Reads plain pickles of any protocol, pickles in LZ4 frames, and what ``joblib.dump``
    writes, numpy arrays and all its compressors included. What it writes can be read by
    ``joblib.load``, plain pickles also by ``pickle.load``. As with every pickle, read only
    data that you trust.

    Args:
        compress: Whether to write an LZ4 frame where a sample of the pickle shows that it
            becomes half as large or less.
    """

    def __init__(self, *, compress: bool = False) -> None:
        self._compress = compress

    def encode(self, value: Any) -> bytes:
        """Pickle a value.

        Raises:
            Exception: What `pickle.dumps` raises for a value that cannot be pickled.
        """
        data = _array_pickled(value) if _is_large_array(value) else pickle.dumps(value, _PROTOCOL)
        if self._compress and len(data) >= _COMPRESS_FROM:
            return _compressed_if_it_pays(data)
        return data

    def decode(self, data: Buffer) -> Any:
        """Unpickle a value; costs about what `pickle.loads` does.

        Raises:
            MissingExtraError: joblib wrote the data and is not installed.
            Exception: What the unpickler or decompressor raises for damaged data, of which
                every truncation and every byte too many is recognised.
        """
        if isinstance(data, bytearray) and _is_plain(data):
            return pickle.loads(data)  # as bytes, or as a stream, it would be a copy
        data = bytes(data)
        if len(data) > _FRAMED.size:
            opcode, frame_length = _FRAMED.unpack_from(data)
            if opcode == _FRAME and frame_length == len(data) - _FRAMED.size:
                # joblib writes arrays outside of frames: this cannot be one of its streams
                return pickle.loads(data)
        return self.decode_stream(io.BytesIO(data))

    def decode_stream(self, stream: BinaryIO) -> Any:
        """Unpickle a value; the bytes of a large array are read to where they stay."""
        begin = stream.tell()
        magic = stream.read(_LONGEST_MAGIC)
        stream.seek(begin)
        if magic.startswith(_COMPRESSED):
            stream = io.BytesIO(_expanded(stream.read()))
        return _unpickle(stream)


def _is_plain(data: bytearray) -> bool:
    """Tell whether bytes are neither compressed nor joblib's nor followed by others."""
    return (
        not data.startswith(_COMPRESSED)
        and data.endswith(pickle.STOP)
        and _JOBLIB_MODULE.encode() not in data
    )


def _is_large_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.nbytes >= _LARGE


def _array_pickled(array: Any) -> bytes:
    """Do what `pickle.dumps` does, which reserves half as much again as large bytes need."""
    stream = io.BytesIO()
    pickle.Pickler(stream, _PROTOCOL).dump(array)
    return stream.getvalue()


def _compressed_if_it_pays(data: bytes) -> bytes:
    import lz4.frame  # type: ignore[import-untyped]

    view = memoryview(data)
    middle = len(view) // 2
    samples = (view[:_SAMPLE], view[middle : middle + _SAMPLE], view[-_SAMPLE:])
    sampled = sum(len(lz4.frame.compress(sample)) for sample in samples)
    if sampled * 2 > _SAMPLE * len(samples):
        return data
    compressed: bytes = lz4.frame.compress(view)
    # Samples can mislead, and reading a frame costs more than it saves when little is saved
    return compressed if len(compressed) * 8 <= len(data) * 7 else data


def _expanded(data: bytes) -> bytes:
    if data.startswith(_LZ4_MAGIC):
        return _expanded_lz4(data)
    for magic, module in _JOBLIB_COMPRESSORS:
        if data.startswith(magic):
            expanded: bytes = importlib.import_module(module).decompress(data)
            return expanded
    return data


def _expanded_lz4(data: bytes) -> bytes:
    import lz4.frame

    expanded, consumed = lz4.frame.decompress(data, return_bytes_read=True)
    if consumed == len(data):
        return bytes(expanded)
    frames = [expanded]
    while consumed < len(data):
        expanded, length = lz4.frame.decompress(memoryview(data)[consumed:], return_bytes_read=True)
        frames.append(expanded)
        consumed += length
    return b"".join(frames)


class _WrittenByJoblib(Exception):
    """The stream names joblib's stand-in for an array, whose bytes are not pickle."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == _JOBLIB_MODULE:
            raise _WrittenByJoblib
        return super().find_class(module, name)


def _unpickle(stream: BinaryIO) -> Any:
    begin = stream.tell()
    try:
        value = _Unpickler(stream).load()
    except _WrittenByJoblib:
        stream.seek(begin)
        value = _load_with_joblib(stream)
    trailing = len(stream.read())
    if trailing:
        # Only a foreign writer leaves them, by overwriting a longer item in place, say
        raise pickle.UnpicklingError(f"{trailing} bytes follow the end of the pickle")
    return value


def _load_with_joblib(stream: BinaryIO) -> Any:
    try:
        import joblib  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError(
            "joblib wrote this item and is needed to read it: pip install 'persidict[joblib]'",
            name="joblib",
        ) from error
    return joblib.load(stream)
