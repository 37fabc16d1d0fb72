"""A dictionary in RAM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, BinaryIO, Final, cast

from persidict.buffers import Buffer
from persidict.checks import check_int_or_none
from persidict.codecs import Codec
from persidict.contract.primitives import KeyRange
from persidict.jokers_and_status_flags import ETagIfExists, ETagValue, ValueType
from persidict.naming import PlainNaming, Stretch
from persidict.protection import Protection
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.stores.memory import MemoryStore
from persidict.stores.unencoded import Unencoded
from persidict.transactional_dict import TransactionalDict
from persidict.urls import Place, place

_HOLD_ANYTHING: Final = frozenset({"pkl", "json"})
"""The formats in which RAM holds what can be copied alone; the others are for values of a kind."""


class NamingInRam(PlainNaming):
    """As PlainNaming, but apart for formats of which one ends like the other: gz and tar.gz.

    Examples:
        >>> NamingInRam("tar.gz").name_of(NonEmptySafeStrTuple("a"))
        'a%tar.gz'
    """

    def __init__(self, serialization_format: str) -> None:
        super().__init__(serialization_format)
        self._is_dotted = "." in serialization_format
        if self._is_dotted:
            # no key has this character in it
            self._extension = f"%{serialization_format}"  # as long as with a full stop

    def stretches(self, key_range: KeyRange) -> list[Stretch]:
        """Return where to look for the keys in a range; see KeyNaming."""
        return [Stretch(None, None)] if self._is_dotted else super().stretches(key_range)


class LocalDict(TransactionalDict[ValueType]):
    """A dictionary with the whole contract, in the memory of this process.

    Values are kept in their stored form, so that what is held outside never changes what
    is inside. Those that have none (instances of local classes, lambdas) are kept as deep
    copies; where their bytes are asked for, TypeError says so. Every operation on one key is
    linearizable among threads; `transaction` makes one step of any number of them. Signal
    handlers and `__del__` may use what they interrupt. A copy of a handle, also a deep one, is
    a second handle on the same items. Handles cannot be pickled: another process could not see
    the items.

    Args:
        backend: The memory that holds the items, from another dictionary's `backend`; handles
            that share it share the content. None: a new one. Each serialization format has a
            namespace of its own in it.
        serialization_format: See PersiDict.
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of.
        prune_interval: How many deletions an emptied branch may outlive. Kept for code that
            passes it: branches are removed at once when they become empty.
        codec: How values become bytes, in place of what the format says; see StoredDict.
        protection: `Signed`, `Encrypted`, or None: whether stored bytes are trusted unseen.
        read_only: Whether this handle refuses to change items; see `read_only()`.

    Raises:
        TypeError: `backend` is no backend, or `prune_interval` neither an int nor None.

    Examples:
        >>> d = LocalDict()
        >>> d["a", "b"] = 1
        >>> d.get_subdict("a")["b"]
        1
    """

    _store: MemoryStore
    prune_interval: int | None

    def __init__(
        self,
        *,
        backend: MemoryStore | None = None,
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        prune_interval: int | None = 64,
        codec: Codec | None = None,
        protection: Protection | None = None,
        read_only: bool = False,
    ) -> None:
        super().__init__(
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            codec=codec,
            protection=protection,
            read_only=read_only,
        )
        if backend is not None and not isinstance(backend, MemoryStore):
            raise TypeError(
                f"backend must be another LocalDict's backend or None, not {type(backend).__name__}"
            )
        check_int_or_none("prune_interval", prune_interval)
        self.prune_interval = prune_interval
        self._attach(
            MemoryStore() if backend is None else backend,
            self._chosen_codec(compress=False),
            NamingInRam(serialization_format),
        )

    @property
    def backend(self) -> MemoryStore:
        """The memory that holds the items, as seen from this dictionary's prefix."""
        return self._store

    def _place(self) -> Place | None:
        path = self._store.path
        return None if path is None else place("mem", path, "backend")

    # ------------------------------------------------------------------ items

    def _value(self, key: NonEmptySafeStrTuple) -> Any:
        data = self._store.find(self._naming.name_of(key))[0]
        if type(data) is bytes and self.base_class_for_values is None and self.protection is None:
            try:
                return self._codec.decode(data)
            except Exception:
                return self._decode(key, data)  # says what is wrong
        return self._decode(key, data)

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagValue:
        if expected is not None or self.protection is not None or self.codec is not None:
            return super()._write(key, value, expected)
        try:
            data = self._codec.encode(value)
        except Exception:
            data = self._encode(key, value)  # copies it, or says what is wrong
        return self._store.put(self._naming.name_of(key), data)

    def _encode(self, key: NonEmptySafeStrTuple, value: Any) -> Buffer:
        try:
            return super()._encode(key, value)
        except Exception as error:
            if self._raw_of is not None or self.protection is not None:
                raise
            if self.serialization_format not in _HOLD_ANYTHING:
                raise  # a format for values of some kinds refuses those of others
            with suppress(Exception):  # told below: it can be neither encoded nor copied
                return cast("Buffer", Unencoded(value, error))
            raise

    def _decode(self, key: NonEmptySafeStrTuple, data: Buffer | BinaryIO | Unencoded) -> Any:
        if not isinstance(data, Unencoded):
            return super()._decode(key, data)
        if self._raw_of is not None:
            return bytes(data)  # says that there are none
        value = data.value()
        self._check_is_instance(value)
        return value

    def _open(self, key: NonEmptySafeStrTuple) -> BinaryIO:
        data = self._store.find(self._naming.name_of(key))[0]
        return BytesIO(bytes(data) if isinstance(data, Unencoded) else data)

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        key_of = self._naming.key_of
        for name in self._store.names(page_size=page_size):
            key = key_of(name)
            if key is not None:
                yield key

    def _own_params(self) -> dict[str, Any]:
        return {"backend": self.backend, "prune_interval": self.prune_interval}
