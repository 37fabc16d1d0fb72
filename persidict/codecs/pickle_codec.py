"""The format ``pkl``: pickles, compressed ones, and what joblib wrote."""

from __future__ import annotations

import io
import pickle
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from persidict.buffers import new_buffer
from persidict.checks import check_int_or_none
from persidict.codecs.codec import Buffer, Codec, MissingExtraError
from persidict.codecs.expansion import MAGICS, expanded

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PROTOCOL: Final = 5

_JOBLIB_MODULE: Final = "joblib.numpy_pickle"
_LONGEST_MAGIC: Final = max(map(len, MAGICS))

_FRAMED: Final = struct.Struct("<xxBQ")
"""How a pickle begins that is one frame: PROTO, its argument, FRAME, the frame's length."""
_HEAD: Final = _FRAMED.size
_FRAME: Final = pickle.FRAME[0]

# looked up once: a small value takes as long as a few of these look-ups
_unpack_framed: Final = _FRAMED.unpack_from
_dumps: Final = pickle.dumps
_loads: Final = pickle.loads

_BUILT_IN: Final = frozenset({dict, list, tuple, set, str, bytes, int, float, bool, type(None)})

_COMPRESS_FROM: Final = 16 * 1024
"""Smaller files do not take up noticeably less space when they are compressed."""
_SAMPLE: Final = 4 * 1024
_LARGE: Final = 1024 * 1024
_HUGE: Final = 16 * 1024 * 1024
_MOST_AROUND_AN_ARRAY: Final = 16 * 1024
_READ_AHEAD: Final = 256 * 1024


MAX_VALUE_SIZE: Final = 8 * 1024**3
"""How many bytes a compressed pickle may become unless something else is said."""


class PickleCodec(Codec):
    """Pickles of protocol 5.

    Reads plain pickles of any protocol, pickles in LZ4 frames, and what ``joblib.dump``
    writes, numpy arrays and all its compressors included. What it writes can be read by
    ``joblib.load``, plain pickles also by ``pickle.load``. As with every pickle, read only
    data that you trust.

    Args:
        compress: Whether to write an LZ4 frame where a sample of the pickle shows that it
            becomes half as large or less.
        max_value_size: How many bytes a compressed pickle may become when it is read, None: any
            number. A few kilobytes can be made that become more than there is memory. A
            dictionary has the default; ``codec=PickleCodec(max_value_size=...)`` has another.

    Raises:
        TypeError, ValueError: `max_value_size` is no positive int.
    """

    def __init__(
        self, *, compress: bool = False, max_value_size: int | None = MAX_VALUE_SIZE
    ) -> None:
        self._compress = compress
        check_int_or_none("max_value_size", max_value_size, at_least=1)
        self._max_value_size = max_value_size

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's parameters: mixinforge's JSON of a dictionary keeps them."""
        return {"compress": self._compress, "max_value_size": self._max_value_size}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"PickleCodec({given})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.get_params() == self.get_params()

    def __hash__(self) -> int:
        return hash((type(self), *self.get_params().values()))

    def encode(self, value: Any) -> Buffer:
        """Pickle a value.

        Raises:
            Exception: What `pickle.dumps` raises for a value that cannot be pickled.
        """
        if type(value) in _BUILT_IN or not _is_large_array(value):
            data: Buffer = _dumps(value, _PROTOCOL)
        else:
            data = _array_pickled(value)
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
        if isinstance(data, memoryview) and len(data) >= _LARGE:
            # as bytes, it would be a copy
            return self.decode_stream(io.BufferedReader(_BytesInMemory(data), _READ_AHEAD))
        if type(data) is not bytes:
            data = bytes(data)
        size = len(data) - _HEAD
        if size > 0 and _unpack_framed(data) == (_FRAME, size):
            # joblib writes arrays outside of frames: this cannot be one of its streams
            return _loads(data)
        return self.decode_stream(io.BytesIO(data))

    def decode_stream(self, stream: BinaryIO) -> Any:
        """Unpickle a value; the bytes of a large array are read to where they stay."""
        begin = stream.tell()
        magic = stream.read(_LONGEST_MAGIC)
        stream.seek(begin)
        if magic.startswith(MAGICS):
            stream = io.BytesIO(expanded(stream.read(), self._max_value_size))
        return _unpickle(stream)


class _BytesInMemory(io.RawIOBase):
    """Somebody else's memory as a raw stream; `io.BytesIO` would copy it."""

    def __init__(self, content: memoryview) -> None:
        super().__init__()
        self._content = content.cast("B")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = (0, self._position, len(self._content))[whence] + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        piece = self._content[self._position : self._position + len(target)]
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def _is_large_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray) and value.nbytes >= _LARGE


def _array_pickled(array: Any) -> Buffer:
    """Do what `pickle.dumps` does, which reserves half as much again as large bytes need."""
    if array.nbytes >= _HUGE:
        target = _Target(array.nbytes + _MOST_AROUND_AN_ARRAY)
        with suppress(ValueError):  # there is more to this array than its bytes
            pickle.Pickler(target, _PROTOCOL).dump(array)
            return target.written()
    stream = io.BytesIO()
    pickle.Pickler(stream, _PROTOCOL).dump(array)
    return stream.getvalue()


class _Target:
    """A file for a pickler, of a size that is known before."""

    def __init__(self, size: int) -> None:
        self._content = new_buffer(size)
        self._filled = 0

    def write(self, data: Buffer) -> int:
        piece = memoryview(data).cast("B")
        start, self._filled = self._filled, self._filled + len(piece)
        self._content[start : self._filled] = piece
        return len(piece)

    def written(self) -> memoryview:
        return self._content[: self._filled].toreadonly()


def _compressed_if_it_pays(data: Buffer) -> Buffer:
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
