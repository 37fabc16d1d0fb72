"""A zarr store on any dictionary of bytes; needs the extra ``zarr``."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

from persidict.checks import check_flag
from persidict.codecs.codec import check_installed
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple

try:
    from zarr.abc.store import (
        ByteRequest,
        OffsetByteRequest,
        RangeByteRequest,
        Store,
        SuffixByteRequest,
    )
    from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
except ModuleNotFoundError:
    check_installed("zarr", needed_by="persidict.adapters.zarr", extra="zarr")
    raise

Answer = TypeVar("Answer")


class ZarrStore(Store):
    """A zarr v3 store whose keys and chunks are the items of a dictionary of bytes.

    The zarr key ``"group/c/0/1"`` is the item under ``("group", "c", "0", "1")``. Each chunk
    is written atomically. The dictionary's own settings hold: an append-only one refuses
    to change chunks, a cached one keeps copies of them.

    Args:
        items: The dictionary; its values are bytes (`base_class_for_values=bytes`).
        read_only: Whether zarr must not write; a read-only dictionary makes it so anyway.

    Raises:
        TypeError: `items` is no PersiDict, or its values are not bytes.

    Examples:
        >>> import zarr
        >>> from persidict import LocalDict
        >>> d = LocalDict(serialization_format="bin", base_class_for_values=bytes)
        >>> array = zarr.create_array(ZarrStore(d), shape=4, chunks=2, dtype="i4")
        >>> array[:] = [1, 2, 3, 4]
        >>> sorted(d)[0].strings
        ('c', '0')
    """

    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(self, items: PersiDict[bytes], *, read_only: bool = False) -> None:
        if not isinstance(items, PersiDict):
            raise TypeError(f"items must be a PersiDict, not {type(items).__name__}")
        super().__init__(read_only=check_flag("read_only", read_only) or items.is_read_only)
        if items.base_class_for_values is not bytes:
            raise TypeError(
                "items must be a dictionary of bytes: give it a format of its own and"
                " base_class_for_values=bytes"
            )
        self.items = items

    def with_read_only(self, read_only: bool = False) -> ZarrStore:
        """Return the same store with other rights."""
        return type(self)(self.items, read_only=read_only)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.items!r})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, type(self))
            and repr(self.items) == repr(other.items)
            and self.read_only == other.read_only
        )

    __hash__ = None  # type: ignore[assignment]

    async def _ask(self, question: Callable[[], Answer]) -> Answer:
        await self._ensure_open()
        return await asyncio.to_thread(question)

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a chunk, or a part of it; a part of one on files or S3 is read alone."""
        data = await self._ask(lambda: self._read(_item_key(key), byte_range))
        if data is None:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    def _read(self, key: NonEmptySafeStrTuple, byte_range: ByteRequest | None) -> bytes | None:
        if byte_range is None:
            found: bytes | None = self.items.get(key)
            return found
        try:
            stream = self.items.open(key)
        except KeyError:
            return None
        with stream:
            size = stream.seek(0, io.SEEK_END)
            match byte_range:
                case RangeByteRequest(start, end):
                    begin, length = start, end - start
                case OffsetByteRequest(offset):
                    begin, length = offset, size
                case SuffixByteRequest(suffix):
                    begin, length = max(0, size - suffix), suffix
                case _:
                    raise ValueError(f"Unexpected byte_range, got {byte_range!r}.")
            stream.seek(begin)
            return stream.read(length)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of several chunks."""
        return list(
            await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))
        )

    async def exists(self, key: str) -> bool:
        """Tell whether there is a chunk."""
        return await self._ask(lambda: _item_key(key) in self.items)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a chunk, atomically."""
        self._check_writable()
        data = _bytes_of(value)
        await self._ask(lambda: self.items.__setitem__(_item_key(key), data))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a chunk unless there is one, in one atomic step."""
        self._check_writable()
        data = _bytes_of(value)
        await self._ask(lambda: self.items.setdefault(_item_key(key), data))

    async def delete(self, key: str) -> None:
        """Delete a chunk if there is one."""
        self._check_writable()
        await self._ask(lambda: self.items.discard(_item_key(key)))

    async def clear(self) -> None:
        """Delete everything."""
        self._check_writable()
        await self._ask(self.items.clear)

    async def delete_dir(self, prefix: str) -> None:
        """Delete everything below a prefix."""
        self._check_writable()
        await self._ask(lambda: self.items.get_subdict(_parts(prefix)).clear())

    async def getsize(self, key: str) -> int:
        """Return the size of a chunk in bytes."""
        try:
            found = await self._ask(lambda: self.items.info(_item_key(key)))
        except KeyError:
            raise FileNotFoundError(key) from None
        return int(found.size)

    async def list(self) -> AsyncIterator[str]:
        """List all keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """List the keys that begin with a text."""
        above = _parts(prefix.rpartition("/")[0])
        for key in await self._ask(lambda: list(self.items.keys(prefix=above))):
            name = "/".join(key.strings)
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List what is directly below a prefix."""
        below = self.items.get_subdict(_parts(prefix))
        for part in await self._ask(lambda: sorted(below._first_parts())):
            yield part


def _parts(path: str) -> tuple[str, ...]:
    return tuple(filter(None, path.split("/")))


def _item_key(key: str) -> NonEmptySafeStrTuple:
    return NonEmptySafeStrTuple(*_parts(key))


def _bytes_of(value: Any) -> bytes:
    if not isinstance(value, Buffer):
        raise TypeError(f"`value` must be a Buffer instance, not {type(value).__name__}")
    return value.to_bytes()
