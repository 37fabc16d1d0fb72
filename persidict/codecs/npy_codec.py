"""The format ``npy``: numpy's own, for arrays."""

from __future__ import annotations

import io
import math
from typing import Any, BinaryIO, Final

from persidict.codecs.codec import Buffer, Codec, check_installed

_MOST_HEADER_BYTES: Final = 1_000_000
"""Numpy's own limit is that of a structured array of some 400 fields."""


class NpyCodec(Codec):
    """numpy arrays as `numpy.save` writes them: what numpy and many other programs read.

    Reading runs no code. In files, an item can be mapped into memory instead of being read:
    ``numpy.load(d.location(key), mmap_mode="r")``.

    Raises:
        MissingExtraError: numpy is not installed.
    """

    def __init__(self) -> None:
        check_installed("numpy", needed_by="the format 'npy'", extra="numpy")

    def encode(self, value: Any) -> Buffer:
        """Turn an array into bytes.

        Raises:
            TypeError: It is no array, one of a subclass that is more than its numbers, or
                it holds Python objects.
            ValueError: It has more fields than are read.
        """
        import numpy as np

        if type(value) not in (np.ndarray, np.memmap):
            raise TypeError(f"npy holds numpy arrays, not {type(value).__name__}")
        if value.dtype.hasobject:
            raise TypeError("npy cannot hold arrays of Python objects: use 'pkl'")
        if value.dtype.metadata is not None:
            raise TypeError("npy cannot hold the metadata of a dtype: use 'pkl'")
        stream = io.BytesIO()
        np.save(stream, value, allow_pickle=False)
        if stream.tell() - value.nbytes > _MOST_HEADER_BYTES:
            raise ValueError(f"npy cannot hold an array of so many fields: {len(value.dtype)}")
        return stream.getbuffer().toreadonly()

    def decode(self, data: Buffer) -> Any:
        """Turn bytes into an array.

        Raises:
            ValueError: The bytes are damaged, or hold Python objects.
        """
        return self.decode_stream(io.BytesIO(data))

    def decode_stream(self, stream: BinaryIO) -> Any:
        """Turn bytes into an array, reading them to where they stay."""
        import numpy as np

        if stream.seekable():
            begin = stream.tell()
            _check_size(stream)
            stream.seek(begin)
        array = np.lib.format.read_array(
            stream, allow_pickle=False, max_header_size=_MOST_HEADER_BYTES
        )
        if stream.read(1):
            raise ValueError("bytes follow the end of the array")
        return array


def _check_size(stream: BinaryIO) -> None:
    """Refuse a header that announces more than there is, before memory is taken for that."""
    import numpy as np

    version = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    if version > (2, 0):  # numpy reads the header of version 3 in private only
        return
    shape, _, dtype = read_header(stream, max_header_size=_MOST_HEADER_BYTES)
    announced = math.prod(shape) * dtype.itemsize
    begin = stream.tell()
    there = stream.seek(0, io.SEEK_END) - begin
    if not dtype.hasobject and announced > there:
        raise ValueError(f"an array of {announced} bytes is announced, and {there} are there")
