"""The base of every dictionary in front of another one: everything is forwarded, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, ClassVar, TypeVar

from persidict.buffers import Buffer, settled
from persidict.checks import check_flag
from persidict.contract.inspecting import HttpMethod
from persidict.contract.primitives import KeyRange, Version
from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import ETagIfExists, ETagValue, ValueType
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.traffic import Traffic
from persidict.traits import Traits

SelfType = TypeVar("SelfType", bound="WrapperDict[Any]")


class WrapperDict(PersiDict[ValueType]):
    """A dictionary in front of another one, which holds the items.

    All primitives are forwarded here, and every operation of a dictionary, the conditional
    ones included, is written on primitives: a subclass overrides those that it changes, and
    all operations follow. Costs, policies, traits, stored bytes and sub-dictionaries are
    those of what lies beneath, and an operation takes exactly its requests.

    `_load`, `_head`, `_write`, `_remove` and `_keys` are what matters. The others follow from
    them, one item at a time, if a subclass has changed those: it overrides `_write_many`
    beside `_write`, and so on, to work on many items side by side.

    A subclass with more parameters returns them in `_own_params`, under the names that its
    constructor has for them; one that wraps more than one dictionary overrides `_subdict`, too.

    Args:
        wrapped_dict: The dictionary that holds the items.
        read_only: Whether `wrapped_dict` is taken as a read-only handle; one that is makes this
            one read-only anyway.

    Raises:
        TypeError: `wrapped_dict` is no PersiDict.

    Examples:
        >>> from persidict import LocalDict
        >>> class Counting(WrapperDict):
        ...     writes = 0
        ...
        ...     def _write(self, key, value, expected):
        ...         self.writes += 1
        ...         return super()._write(key, value, expected)
        >>> d = Counting(wrapped_dict=LocalDict())
        >>> d["a"] = 1
        >>> d.transform_item("a", transformer=lambda value: value + 1).new_value
        2
        >>> d.writes
        2
    """

    _wrapped_name: ClassVar[str] = "wrapped_dict"
    """What the constructor calls the dictionary that holds the items."""

    _is_transparent: ClassVar[bool] = False
    """Whether a subclass shows the items as they are, whatever primitives it overrides.

    As a cache does, or one that counts: what follows from those primitives is forwarded then,
    and copying from one dictionary to another goes to what lies beneath.
    """

    _wrapped: PersiDict[Any]

    def __init__(self, *, wrapped_dict: PersiDict[Any], read_only: bool = False) -> None:
        if not isinstance(wrapped_dict, PersiDict):
            raise TypeError(
                f"{self._wrapped_name} must be a PersiDict, not {type(wrapped_dict).__name__}"
            )
        self._wrapped = (
            wrapped_dict.read_only() if check_flag("read_only", read_only) else wrapped_dict
        )
        self._connect()
        super().__init__(
            append_only=wrapped_dict.append_only,
            base_class_for_values=wrapped_dict.base_class_for_values,
            serialization_format=wrapped_dict.serialization_format,
            read_only=self._wrapped._is_read_only,
        )

    def _holds_objects(self, serialization_format: str) -> bool:
        return True  # what lies beneath has checked its format

    def _connect(self) -> None:
        """Take note of what lies beneath; called whenever that is another dictionary."""
        self._has_bytes = self._wrapped._byte_form is not None
        # what lies beneath with its values as they are stored: as bytes, if they are
        self._stored: PersiDict[Any] = self._wrapped.raw if self._has_bytes else self._wrapped

    # ------------------------------------------------------------------ parameters

    def _all_params(self) -> dict[str, Any]:
        return {self._wrapped_name: self._wrapped} | self._own_params()

    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        sub = self._twin()
        sub._wrapped = self._wrapped.get_subdict(prefix)
        sub._connect()
        return sub

    def _rights(self) -> dict[str, Any]:
        return {}  # the wrapped dictionary is read-only, if this one is

    def _become_read_only(self) -> None:
        super()._become_read_only()
        self._wrapped = self._wrapped.read_only()
        self._connect()

    # ------------------------------------------------------------------ the storage

    @property
    def _traits(self) -> Traits:
        return self._wrapped._traits

    # ------------------------------------------------------------------ stored bytes

    @property
    def raw(self) -> PersiDict[bytes]:
        """The stored bytes, as they lie beneath: `raw` of what holds them; see PersiDict."""
        return self._wrapped.raw

    @property
    def _shows_all(self) -> bool:
        """Whether the items are those of what lies beneath, as they are."""
        return self._forwards("_load", "_head", "_write", "_remove", "_keys")

    @property
    def _byte_form(self) -> object:
        return self._wrapped._byte_form if self._shows_all else None

    def _encode(self, key: NonEmptySafeStrTuple, value: Any) -> Buffer:
        return self._wrapped._encode(key, value)

    def _decode(self, key: NonEmptySafeStrTuple, data: Buffer) -> Any:
        return self._wrapped._decode(key, data)

    def _open(self, key: NonEmptySafeStrTuple) -> BinaryIO:
        return self._wrapped._open(key)

    # ------------------------------------------------------------------ from outside

    def _traffic(self) -> Traffic:
        return self._wrapped._traffic()

    def _location(self, key: NonEmptySafeStrTuple) -> str:
        return self._wrapped._location(key)

    def _presign(self, key: NonEmptySafeStrTuple, method: HttpMethod, expires: int) -> str:
        return self._wrapped._presign(key, method, expires)

    def _copy(self, source: NonEmptySafeStrTuple, target: NonEmptySafeStrTuple) -> ETagIfExists:
        if self._forwards("_load", "_write"):
            return self._wrapped._copy(source, target)
        return super()._copy(source, target)

    # ------------------------------------------------------------------ encoding once

    def _encode_once(self, key: NonEmptySafeStrTuple, value: Any) -> Any:
        """Return the form of a value that goes to `_stored`, for wrappers that need it, too."""
        return settled(self._wrapped._encode(key, value)) if self._has_bytes else value

    def _value_of(self, key: NonEmptySafeStrTuple, stored: Any) -> Any:
        """Return the value that something read from `_stored`, or written to it, stands for."""
        return self._wrapped._decode(key, stored) if self._has_bytes else stored

    def _encode_each_once(
        self,
        items: Iterable[tuple[NonEmptySafeStrTuple, Any]],
        note: Callable[[NonEmptySafeStrTuple, Any], None],
        failed: list[tuple[NonEmptySafeStrTuple, Exception]],
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        """Encode items on their way to `_stored`, lazily.

        Args:
            items: Keys and values.
            note: Called with each key and what is on its way.
            failed: Gets the keys of values that cannot be encoded, and why.
        """
        for key, value in items:
            try:
                stored = self._encode_once(key, value)
            except Exception as error:  # reported to the caller, item by item
                failed.append((key, error))
                continue
            note(key, stored)
            yield key, stored

    # ------------------------------------------------------------------ one item

    def _forwards(self, *primitives: str) -> bool:
        """Tell whether primitives are those of what lies beneath.

        Those that follow from them are forwarded, too, because it may know a shorter way. If
        a subclass has changed them, these follow from what it made of them.
        """
        cls = type(self)
        return self._is_transparent or all(
            getattr(cls, name) is getattr(WrapperDict, name) for name in primitives
        )

    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        return self._wrapped._load(key, if_none_match=if_none_match)

    def _load_version(self, key: NonEmptySafeStrTuple) -> tuple[Any, Version]:
        if self._forwards("_load", "_head"):
            return self._wrapped._load_version(key)
        return super()._load_version(key)

    def _value(self, key: NonEmptySafeStrTuple) -> Any:
        return self._wrapped._value(key) if self._forwards("_load") else super()._value(key)

    def _head(self, key: NonEmptySafeStrTuple) -> Version:
        return self._wrapped._head(key)

    def _contains(self, key: NonEmptySafeStrTuple) -> bool:
        return self._wrapped._contains(key) if self._forwards("_head") else super()._contains(key)

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagIfExists:
        return self._wrapped._write(key, value, expected)

    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> None:
        self._wrapped._remove(key, expected)

    # ------------------------------------------------------------------ many items

    @property
    def _listed(self) -> object:
        return self._wrapped._listed if self._forwards("_keys", "_items") else self

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        return self._wrapped._keys(page_size=page_size)

    def _keys_in(self, key_range: KeyRange) -> list[NonEmptySafeStrTuple]:
        if self._forwards("_keys"):
            return self._wrapped._keys_in(key_range)
        return super()._keys_in(key_range)

    def _count(self) -> int:
        return self._wrapped._count() if self._forwards("_keys") else super()._count()

    def _remove_all(self) -> None:
        if self._forwards("_keys", "_remove"):
            self._wrapped._remove_all()
        else:
            super()._remove_all()

    def _first_parts(self) -> set[str]:
        return self._wrapped._first_parts() if self._forwards("_keys") else super()._first_parts()

    def _versions(
        self, key_range: KeyRange | None = None
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Version]]:
        if self._forwards("_keys", "_head"):
            return self._wrapped._versions(key_range)
        return super()._versions(key_range)

    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        if self._forwards("_keys", "_head", "_load"):
            return self._wrapped._items()
        return self._items_one_by_one()

    def _items_written(
        self, is_wanted: Callable[[float], bool]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        if self._forwards("_keys", "_head", "_load", "_items"):
            return self._wrapped._items_written(is_wanted)
        return super()._items_written(is_wanted)

    def _items_one_by_one(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        for key in self._keys():
            try:
                version = self._head(key)
                value, etag = self._load(key)
                while etag != version.etag:
                    version = self._head(key)
                    value, etag = self._load(key)
            except ObjectNotFound:
                continue
            yield key, value, version.last_modified

    def _load_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        if self._forwards("_load"):
            return self._wrapped._load_many(keys)
        return super()._load_many(keys)

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        if self._forwards("_write"):
            return self._wrapped._write_many(items, only_new=only_new)
        return super()._write_many(items, only_new=only_new)

    def _remove_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception]]:
        if self._forwards("_remove"):
            return self._wrapped._remove_many(keys)
        return super()._remove_many(keys)


def innermost(dictionary: PersiDict[Any]) -> PersiDict[Any]:
    """Return the dictionary that holds the items as they are shown here.

    What lies beneath wrappers, up to one that makes something else of the items.
    """
    while isinstance(dictionary, WrapperDict) and dictionary._shows_all:
        dictionary = dictionary._wrapped
    return dictionary
