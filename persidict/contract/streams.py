"""Items as streams of their stored bytes."""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Generic, Literal, Self, cast, overload

from persidict.buffers import Buffer, MappedFile
from persidict.contract.conditional import check_condition
from persidict.contract.primitives import DictPrimitives, raise_key_error
from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import (
    ANY_ETAG,
    ITEM_NOT_AVAILABLE,
    NEVER_RETRIEVE,
    VALUE_NOT_RETRIEVED,
    ConditionalOperationResult,
    ETagConditionFlag,
    ETagIfExists,
    ValueType,
)
from persidict.safe_str_tuple import NonEmptyPersiDictKey, as_key

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_IN_MEMORY: Final = 4 * 1024 * 1024
"""Up to so many bytes are not worth a file."""


class ItemWriter(io.BufferedIOBase):
    """A stream that becomes an item when it is closed, atomically; from `open(key, "wb")`.

    It can be read and sought in meanwhile, as formats need that go back to their beginning.
    When a ``with`` block around it ends with an exception, or it is not closed at all, nothing
    is stored.

    Attributes:
        result: After closing, what `set_item_if` returned, without the value; None before.
    """

    def __init__(self, store: Callable[[Buffer], ConditionalOperationResult[Any]]) -> None:
        super().__init__()
        self.result: ConditionalOperationResult[Any] | None = None
        self._store = store
        import tempfile  # slow to load, and rarely needed

        self._file = cast("BinaryIO", tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115

    def readable(self) -> bool:
        """Return True: what was written can be read back."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes at the current position."""
        return self._file.write(data)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read what was written, from the current position."""
        return self._file.read(-1 if size is None else size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read what was written into a buffer."""
        target = memoryview(buffer).cast("B")
        data = self._file.read(len(target))
        target[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to another position."""
        self._file.seek(offset, whence)
        return self._file.tell()

    def tell(self) -> int:
        """Return the current position."""
        return self._file.tell()

    def truncate(self, size: int | None = None, /) -> int:
        """Change the size; None: to the current position."""
        wanted = self._file.tell() if size is None else size
        self._file.truncate(wanted)
        return wanted

    def abort(self) -> None:
        """Close the stream and store nothing."""
        self._file.close()
        super().close()

    def close(self) -> None:
        """Store what was written, if the condition holds; `result` tells.

        Raises:
            Exception: What `set_item_if` raises; nothing was stored.
        """
        if self.closed:
            return
        try:
            from dataclasses import replace  # slow to load, and rarely needed

            self.result = replace(self._store(self._content()), new_value=VALUE_NOT_RETRIEVED)
        finally:
            self.abort()

    def _content(self) -> Buffer:
        size = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        if size <= _IN_MEMORY:
            return self._file.read()
        self._file.flush()
        # whoever keeps the view keeps the mapping, and that the file, which has no name
        return memoryview(MappedFile(self._file.fileno(), size, access=mmap.ACCESS_READ))

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self.close()
        else:
            self.abort()

    def __enter__(self) -> Self:
        return self

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.abort()


class StreamOperations(DictPrimitives, Generic[ValueType]):
    """Opening items, written once on the primitives."""

    @overload
    def open(self, key: NonEmptyPersiDictKey, mode: Literal["rb"] = "rb") -> BinaryIO: ...

    @overload
    def open(
        self,
        key: NonEmptyPersiDictKey,
        mode: Literal["wb"],
        *,
        condition: ETagConditionFlag = ANY_ETAG,
        expected_etag: ETagIfExists = ITEM_NOT_AVAILABLE,
    ) -> ItemWriter: ...

    def open(
        self,
        key: NonEmptyPersiDictKey,
        mode: str = "rb",
        *,
        condition: ETagConditionFlag = ANY_ETAG,
        expected_etag: ETagIfExists = ITEM_NOT_AVAILABLE,
    ) -> BinaryIO | ItemWriter:
        """Open the stored bytes of an item, see `raw`, for reading or for writing it anew.

        What is read is all of one version. Where the storage keeps none that is replaced or
        deleted meanwhile (S3), reading on raises OSError. Close the stream, or use it in a
        ``with`` statement. Costs: a FileDirDict opens the file itself, and reads what is
        asked for; a BasicS3Dict sends a request for each MB; others read the whole item.

        What is written goes to a temporary file, and becomes the item when the stream is
        closed, atomically, if the condition holds then. An exception inside the ``with``
        leaves what was there before.

        Args:
            key: The key.
            mode: ``"rb"`` or ``"wb"``.
            condition: For writing: what must hold between `expected_etag` and the version
                that is replaced; see `set_item_if`.
            expected_etag: See `condition`.

        Returns:
            A seekable binary stream; for writing an `ItemWriter`, whose `result` tells
            whether the condition held.

        Raises:
            KeyError: There is no such item to be read.
            ValueError: The mode is another one, or the condition is none, or for reading, or
                there is an ETag that no condition looks at.
            TypeError: `expected_etag` is no ETag, or this kind of dictionary does not keep its
                values as bytes.
            MutationPolicyError: The handle is read-only and the mode ``"wb"``.
        """
        checked = as_key(key)
        if mode == "wb":
            self._refuse_if_read_only()
            check_condition(condition, expected_etag)
            if condition is ANY_ETAG and expected_etag is not ITEM_NOT_AVAILABLE:
                raise ValueError(
                    "expected_etag has no effect under ANY_ETAG: give condition=ETAG_IS_THE_SAME"
                )
            raw = cast("Any", self).raw._twin()
            raw.base_class_for_values = None  # a view of bytes will do

            def store(data: Buffer) -> ConditionalOperationResult[Any]:
                result: ConditionalOperationResult[Any] = raw.set_item_if(
                    checked,
                    value=data,
                    condition=condition,
                    expected_etag=expected_etag,
                    retrieve_value=NEVER_RETRIEVE,
                )
                return result

            return ItemWriter(store)
        if mode != "rb":
            raise ValueError(f"mode must be 'rb' or 'wb', not {mode!r:.80}")
        if condition is not ANY_ETAG or expected_etag is not ITEM_NOT_AVAILABLE:
            raise ValueError("condition and expected_etag are for the mode 'wb'")
        try:
            return self._open(checked)
        except ObjectNotFound as absent:
            raise_key_error(checked, absent)
