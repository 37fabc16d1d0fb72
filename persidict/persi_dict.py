"""The contract: what every persistent dictionary does, on a handful of primitives."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeVar, cast, overload

from persidict.checks import check_flag
from persidict.construction import RawToo
from persidict.contract.bulk import BulkOperations
from persidict.contract.conditional import ConditionalOperations
from persidict.contract.display import ShownToPeople
from persidict.contract.globbing import GlobOperations
from persidict.contract.handles import HandleOperations
from persidict.contract.inspecting import InspectingOperations
from persidict.contract.listing import Listing
from persidict.contract.plain import PlainMapping
from persidict.contract.primitives import (
    ORDINARY_TYPES,
    Version,
    key_range_of,
    raise_key_error,
)
from persidict.contract.streams import StreamOperations
from persidict.contract.timed import TimedOperations
from persidict.contract.transactions import Transaction
from persidict.contract.views import ItemsView, KeysView, ValuesView
from persidict.exceptions import (
    ObjectNotFound,
    PreconditionFailed,
)
from persidict.jokers_and_status_flags import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    ETagValue,
    Joker,
    ValueType,
)
from persidict.parameters import Parameterizable
from persidict.safe_str_tuple import (
    NonEmptyPersiDictKey,
    NonEmptySafeStrTuple,
    PersiDictKey,
    SafeStrTuple,
    as_key,
    as_prefix,
)

OBJECT_FORMATS = frozenset({"pkl", "json", "plainjson", "npy", "parquet", "h5"})
"""The formats that hold values of many classes; all others hold texts or bytes."""

_MEANT = {
    "pickle": "pkl", "pck": "pkl", "pkl.gz": "pkl", "pkl.lz4": "pkl", "joblib": "pkl",
    "jsonpickle": "json", "jsn": "json", "json5": "json", "plain_json": "plainjson",
    "numpy": "npy", "npz": "npy", "array": "npy",
    "pq": "parquet", "pqt": "parquet", "feather": "parquet", "arrow": "parquet",
    "hdf5": "h5", "hdf": "h5", "he5": "h5",
}  # fmt: skip
"""What people write who mean one of the formats that hold objects."""

_POPITEM_PAGE = 16
_NO_DEFAULT: Any = object()

SelfType = TypeVar("SelfType", bound="PersiDict[Any]")
Default = TypeVar("Default")


class PersiDict(
    BulkOperations[ValueType],
    ConditionalOperations[ValueType],
    TimedOperations[ValueType],
    InspectingOperations[ValueType],
    GlobOperations,
    StreamOperations[ValueType],
    ShownToPeople,
    HandleOperations,
    MutableMapping[NonEmptySafeStrTuple, ValueType],
    Parameterizable,
    metaclass=RawToo,
):
    """A persistent dictionary: the contract, independent of where the items live.

    A subclass supplies the primitives of DictPrimitives; everything else is written once. All
    operations on one key are linearizable as far as the primitives are. The operations are
    written on the primitives and not on each other: a subclass that overrides `__setitem__` or
    `__getitem__` changes that one alone, not `update`, `get` or `values`; to change all of them,
    override `_write` and `_load`, best in a WrapperDict.

    Args:
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of, checked
            on writing and on reading. None: any.
        serialization_format: How values are stored, and the extension of their names:
            ``"pkl"`` and ``"json"`` hold any value that pickle or jsonpickle can hold,
            ``"plainjson"`` what JSON has, dataclasses, TypedDicts and pydantic models,
            ``"npy"``, ``"parquet"`` and ``"h5"`` arrays and tables; any other format holds
            texts or bytes and needs `base_class_for_values` to be `str`, a subclass of it,
            or `bytes`.
        read_only: Whether this handle refuses to change items; see `read_only()`.

    Raises:
        TypeError: `base_class_for_values` is not a type or `serialization_format` not a str.
        ValueError: `serialization_format` is empty or has unsafe characters, or it is a format
            of texts or bytes and `base_class_for_values` is neither a kind of `str` nor `bytes`.
    """

    _raw_of: PersiDict[Any] | None = None

    def __init__(
        self,
        *,
        append_only: bool = False,
        base_class_for_values: type | None = None,
        serialization_format: str = "pkl",
        read_only: bool = False,
    ) -> None:
        if base_class_for_values is not None and not isinstance(base_class_for_values, type):
            raise TypeError(
                "base_class_for_values must be a class or None,"
                f" not {type(base_class_for_values).__name__}"
            )
        if base_class_for_values is Any:
            raise TypeError("base_class_for_values must be a class or None: for any value, None")
        if not isinstance(serialization_format, str):
            raise TypeError(
                f"serialization_format must be a str, not {type(serialization_format).__name__}"
            )
        try:
            as_key(serialization_format)
        except ValueError as error:
            raise ValueError(
                f"serialization_format must be a non-empty string of safe characters,"
                f" not {serialization_format!r}"
            ) from error
        holds_texts_or_bytes = base_class_for_values is bytes or (
            base_class_for_values is not None and issubclass(base_class_for_values, str)
        )
        if not holds_texts_or_bytes and not self._holds_objects(serialization_format):
            normalised = serialization_format.strip(".").lower()
            from difflib import get_close_matches  # which takes long to load

            close = get_close_matches(normalised, sorted(OBJECT_FORMATS), n=1, cutoff=0.8)
            meant = _MEANT.get(normalised, *close) if close or normalised in _MEANT else None
            hint = f" (or did you mean {meant!r}?)" if meant else ""
            raise ValueError(
                f"serialization_format {serialization_format!r} holds texts or bytes:"
                f" base_class_for_values must be str or a subclass of it, or bytes{hint}"
            )
        self.append_only = check_flag("append_only", append_only)
        self._is_read_only = check_flag("read_only", read_only)
        self.base_class_for_values = base_class_for_values
        self.serialization_format = serialization_format

    def _holds_objects(self, serialization_format: str) -> bool:
        """Tell whether a format holds objects, not only texts or bytes."""
        return serialization_format in OBJECT_FORMATS

    # ------------------------------------------------------------------ stored bytes

    @property
    def raw(self) -> PersiDict[bytes]:
        """The same dictionary with the stored bytes as its values, as they are.

        Nothing is encoded or decoded, and nothing checks on writing whether the bytes are
        such as this dictionary can read. Everything else is as here: keys, policies,
        conditions, ETags, costs. Copies, pickles and sub-dictionaries of it are raw, too;
        its `get_params` are those of this dictionary and ``raw=True``, which every
        constructor takes.

        Raises:
            TypeError: This kind of dictionary does not keep its values as bytes.

        Examples:
            >>> from persidict import LocalDict
            >>> d = LocalDict(serialization_format="json")
            >>> d["a"] = 1
            >>> d.raw["a"]
            b'1'
        """
        if self._raw_of is not None:
            return cast("PersiDict[bytes]", self)
        raw = cast("PersiDict[bytes]", self._twin())
        raw._raw_of = self
        raw.base_class_for_values = bytes
        raw._become_raw()
        return raw

    # ------------------------------------------------------------------ dict: one item

    def __getitem__(self, key: NonEmptyPersiDictKey) -> ValueType:
        """Return the value under a key.

        Raises:
            KeyError: There is none.
            BackendError: What is stored cannot be decoded.
        """
        checked = as_key(key)
        try:
            value: ValueType = self._value(checked)
            return value
        except ObjectNotFound as absent:
            raise_key_error(checked, absent)

    def __setitem__(self, key: NonEmptyPersiDictKey, value: ValueType | Joker) -> None:
        """Store a value under a key, atomically; jokers do what their names say.

        Raises:
            TypeError: The value is not of the class that the dictionary holds.
            MutationPolicyError: The dictionary is append-only and the item exists.
        """
        checked = as_key(key)
        if self._is_read_only:
            self._refuse_if_read_only()
        if value is KEEP_CURRENT:
            return
        if value is DELETE_CURRENT:
            self.discard(checked)
            return
        if self.base_class_for_values is not None or type(value) not in ORDINARY_TYPES:
            self._check_value(value)
        if not self.append_only:
            self._write(checked, value, None)
            return
        try:
            self._insert(checked, value)
        except PreconditionFailed:
            self._refuse_change(checked)

    def __delitem__(self, key: NonEmptyPersiDictKey) -> None:
        """Delete an item, atomically.

        Raises:
            KeyError: There is none.
            MutationPolicyError: The dictionary is append-only.
            ConcurrencyConflictError: Others replaced it during each of several attempts.
        """
        checked = as_key(key)
        self._refuse_deletion()
        try:
            self._remove(checked, None)
        except ObjectNotFound as absent:
            raise_key_error(checked, absent)

    def __contains__(self, key: object) -> bool:
        return self._contains(as_key(key))

    @overload
    def get(self, key: NonEmptyPersiDictKey, default: None = None) -> ValueType | None: ...
    @overload
    def get(self, key: NonEmptyPersiDictKey, default: Default) -> ValueType | Default: ...
    def get(self, key: NonEmptyPersiDictKey, default: Any = None) -> Any:
        """Return the value under a key, or `default` if there is none."""
        checked = as_key(key)
        try:
            return self._value(checked)
        except ObjectNotFound:
            return default

    def discard(self, key: NonEmptyPersiDictKey) -> bool:
        """Delete an item if there is one, atomically.

        Returns:
            Whether this call deleted it.

        Raises:
            MutationPolicyError: The dictionary is append-only.
            ConcurrencyConflictError: Others replaced it during each of several attempts.
        """
        checked = as_key(key)
        self._refuse_deletion()
        try:
            self._remove(checked, None)
        except ObjectNotFound:
            return False
        return True

    def delete_if_exists(self, key: NonEmptyPersiDictKey) -> bool:
        """Do what `discard` does, under its old name."""
        return self.discard(key)

    @overload
    def pop(self, key: NonEmptyPersiDictKey) -> ValueType: ...
    @overload
    def pop(self, key: NonEmptyPersiDictKey, default: Default) -> ValueType | Default: ...
    def pop(self, key: NonEmptyPersiDictKey, default: Any = _NO_DEFAULT) -> Any:
        """Take an item out and return its value; of several callers at once, one gets it.

        Args:
            key: The key.
            default: What to return when there is no such item.

        Raises:
            KeyError: There is no such item and no default.
            MutationPolicyError: The dictionary is append-only.
        """
        checked = as_key(key)
        self._refuse_deletion()
        try:
            return self._take(checked)
        except ObjectNotFound as absent:
            if default is _NO_DEFAULT:
                raise_key_error(checked, absent)
            return default

    def _take(self, key: NonEmptySafeStrTuple) -> Any:
        """Read an item and delete that very version; start again if it moved."""
        began = time.perf_counter()
        for attempt in itertools.count(1):
            value, etag = self._load(key)
            try:
                self._remove(key, etag)
            except PreconditionFailed:
                began = self._pause(attempt, began)
            else:
                return value
        raise AssertionError("unreachable")

    def popitem(self) -> tuple[NonEmptySafeStrTuple, ValueType]:
        """Take some item out and return it; of several callers at once, each gets another one.

        Raises:
            KeyError: The dictionary is empty.
            MutationPolicyError: The dictionary is append-only.
        """
        self._refuse_deletion()
        for key in self._keys(page_size=_POPITEM_PAGE):
            try:
                return key, self._take(key)
            except ObjectNotFound:
                continue
        raise KeyError("popitem(): the dictionary is empty")

    @overload
    def setdefault(self, key: NonEmptyPersiDictKey, default: None = None) -> ValueType | None: ...
    @overload
    def setdefault(self, key: NonEmptyPersiDictKey, default: ValueType) -> ValueType: ...
    def setdefault(self, key: NonEmptyPersiDictKey, default: Any = None) -> Any:
        """Return the value under a key, after inserting `default` if there was none, atomically.

        Raises:
            TypeError: The default is a joker, or not of the class that the dictionary holds.
        """
        return self.setdefault_if(
            key,
            default_value=default,
            condition=ANY_ETAG,
            expected_etag=ITEM_NOT_AVAILABLE,
            retrieve_value=ALWAYS_RETRIEVE,
        ).new_value

    def timestamp(self, key: NonEmptyPersiDictKey) -> float:
        """Return when an item was last written, in POSIX seconds.

        Raises:
            KeyError: There is no such item.
        """
        return self._version_of(key).last_modified

    def etag(self, key: NonEmptyPersiDictKey) -> ETagValue:
        """Return the version of an item.

        Raises:
            KeyError: There is no such item.
        """
        return self._version_of(key).etag

    def _version_of(self, key: NonEmptyPersiDictKey) -> Version:
        checked = as_key(key)
        try:
            return self._head(checked)
        except ObjectNotFound as absent:
            raise_key_error(checked, absent)

    # ------------------------------------------------------------------ dict: many items

    def __iter__(self) -> Iterator[NonEmptySafeStrTuple]:
        return Listing(self._listed, self._keys())

    def __len__(self) -> int:
        listing = Listing.about_to_be_read(self._listed)
        return self._count() if listing is None else listing.count()

    def __bool__(self) -> bool:
        return any(True for _ in self._keys(page_size=1))

    def keys(
        self,
        prefix: PersiDictKey = (),
        start: PersiDictKey | None = None,
        stop: PersiDictKey | None = None,
    ) -> KeysView:
        """Return a set-like view of the keys, read lazily.

        Without arguments, of all keys, in the order of the storage. With any of them, of
        the keys in a range, in the order of tuples of strings, or, `reversed`, from the last
        one on: iterating holds the keys of the range in memory, and costs, like `len` and
        `discard_many` of it, what the range does, as far as the names in the storage tell.

        Args:
            prefix: Only keys that begin with it.
            start: Only keys that are not less.
            stop: Only keys that are less.

        Raises:
            TypeError, ValueError: An argument is no sequence of safe strings.
        """
        return KeysView(self, key_range_of(prefix, start, stop))

    def values(
        self,
        prefix: PersiDictKey = (),
        start: PersiDictKey | None = None,
        stop: PersiDictKey | None = None,
    ) -> ValuesView[ValueType]:
        """Return a view of the values, read lazily, of all keys or those in a range.

        Args:
            prefix: See `keys`.
            start: See `keys`.
            stop: See `keys`.
        """
        return ValuesView(self, key_range_of(prefix, start, stop))

    def items(
        self,
        prefix: PersiDictKey = (),
        start: PersiDictKey | None = None,
        stop: PersiDictKey | None = None,
    ) -> ItemsView[ValueType]:
        """Return a view of the items, read lazily, of all keys or those in a range.

        Args:
            prefix: See `keys`.
            start: See `keys`.
            stop: See `keys`.
        """
        return ItemsView(self, key_range_of(prefix, start, stop))

    def plain(self) -> PlainMapping[ValueType]:
        """Return the same dictionary as a mapping whose keys are strings and tuples of strings.

        A key of this dictionary equals ``"a"`` and ``("a",)``, and can hash like one of them
        only: like the tuple. In `plain` it is ``"a"``, so that ``dict(d.plain())`` equals the dict
        that one would write. Costs nothing; reads and writes go through.

        Examples:
            >>> from persidict import LocalDict
            >>> d = LocalDict()
            >>> d["a"] = 1
            >>> dict(d) == {"a": 1}, dict(d.plain()) == {"a": 1}
            (False, True)
        """
        return PlainMapping(self)

    def __eq__(self, other: object) -> bool:
        """Compare: equal parameters and type, or equal content with any Mapping."""
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        if (
            isinstance(other, PersiDict)
            and type(self) is type(other)
            and self.get_params() == other.get_params()
        ):
            return True
        try:
            theirs = {as_key(key): value for key, value in other.items()}
        except (TypeError, ValueError):
            return False
        found = 0
        for key, value in self.items():
            if key not in theirs or not (value is theirs[key] or value == theirs[key]):
                return False
            found += 1
        return found == len(theirs)

    __hash__ = None  # type: ignore[assignment]

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Store many items: what `set_many` does, under the dict's own name."""
        self.set_many(other, **kwargs)

    def __ior__(self: SelfType, other: object) -> SelfType:
        if not isinstance(other, Mapping):
            return NotImplemented
        self.update(other)
        return self

    def random_key(self) -> NonEmptySafeStrTuple | None:
        """Return a key drawn uniformly from all, or None if there is none. Lists all keys."""
        from random import randrange  # which few need, and takes long to load

        drawn = None
        for count, key in enumerate(self._keys(), start=1):
            if randrange(count) == 0:
                drawn = key
        return drawn

    # ------------------------------------------------------------------ transactions

    def transaction(self: SelfType, *, read_only: bool = False) -> Transaction[SelfType]:
        """Make one step of several operations, where the storage can; see TransactionalDict.

        Raises:
            TypeError: It cannot: transactions have SQLiteDict and LocalDict.
        """
        raise TypeError(
            f"a {type(self).__name__} has no transactions: a SQLiteDict and a LocalDict have"
        )

    # ------------------------------------------------------------------ sub-dictionaries

    def get_subdict(self: SelfType, prefix_key: PersiDictKey) -> SelfType:
        """Return the items whose keys begin with a prefix, as a dictionary of its own.

        Writes on either side are seen on the other. Costs nothing: nothing is looked at.

        Args:
            prefix_key: The beginning of the keys, stripped from them. Empty: everything.

        Returns:
            A dictionary of the same class with the same settings; empty if no key begins so.
        """
        prefix = (
            prefix_key
            if isinstance(prefix_key, SafeStrTuple)
            else as_prefix("prefix_key", prefix_key)
        )
        if self._raw_of is not None:
            return cast("SelfType", self._raw_of.get_subdict(prefix).raw)
        return self._subdict(prefix) if prefix.strings else self.__copy__()

    def subdicts(self: SelfType) -> dict[str, SelfType]:
        """Map the first string of every key to its sub-dictionary; a one-string key counts."""
        return {part: self.get_subdict(part) for part in sorted(self._first_parts())}
