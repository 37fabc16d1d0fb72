"""Bodies of replies that are in memory already, or never will be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persidict.stores.s3.transport.messages import Refusal

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class BytesBody:
    """A body that has been read from the connection already."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        start = self._position
        if size < 0 and not start:
            self._position = len(self._data)
            return self._data
        data = self._data[start:] if size < 0 else self._data[start : start + size]
        self._position += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._position = len(self._data)


class BrokenBody:
    """A body that did not arrive whole, or not as it was sent."""

    __slots__ = ("_refusal",)

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def read(self, size: int = -1, /) -> bytes:
        raise self._refusal

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        raise self._refusal

    def close(self) -> None:
        """There is nothing to close."""
