"""The contract: what every persistent dictionary does, on a handful of primitives."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar, cast

from mixinforge import ParameterizableMixin, sort_dict_by_keys

from persidict._views import ItemsView, KeysView, ValuesView
from persidict.exceptions import (
    ConcurrencyConflictError,
    MutationPolicyError,
    ObjectNotFound,
    PreconditionFailed,
)
from persidict.jokers_and_status_flags import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    VALUE_NOT_RETRIEVED,
    ConditionalOperationResult,
    ETagConditionFlag,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
    Joker,
    OperationResult,
    RetrieveValueFlag,
    TransformingFunction,
    ValueNotRetrievedFlag,
    ValueType,
)
from persidict.safe_str_tuple import (
    NonEmptyPersiDictKey,
    NonEmptySafeStrTuple,
    PersiDictKey,
    SafeStrTuple,
    as_key,
)

OBJECT_FORMATS = frozenset({"pkl", "json"})
"""The formats that hold any value; all others hold text."""

_ORDINARY_TYPES = frozenset({dict, list, tuple, set, str, bytes, int, float, bool, type(None)})
"""Types whose instances need no closer look before they are stored."""

_MAX_PAUSE_SECONDS = 2.0
_POPITEM_PAGE = 16
_NO_DEFAULT: Any = object()

SelfType = TypeVar("SelfType", bound="PersiDict[Any]")
Change = Callable[[ETagIfExists], tuple[ETagIfExists, Any]]


class Version(Protocol):
    """What is known of one version of an item."""

    @property
    def etag(self) -> ETagValue:
        """The opaque name of the version."""

    @property
    def last_modified(self) -> float:
        """When it was written, in POSIX seconds."""


def is_satisfied(
    condition: ETagConditionFlag, expected_etag: Any, actual_etag: ETagIfExists
) -> bool:
    """Evaluate a condition: the decision table of all conditional operations."""
    if condition is ETAG_IS_THE_SAME:
        return bool(expected_etag == actual_etag)
    if condition is ETAG_HAS_CHANGED:
        return bool(expected_etag != actual_etag)
    return True


def _is_value_wanted(retrieve: RetrieveValueFlag, expected: Any, actual: ETagIfExists) -> bool:
    if actual is ITEM_NOT_AVAILABLE or retrieve is NEVER_RETRIEVE:
        return False
    return retrieve is ALWAYS_RETRIEVE or expected != actual


def _check_condition(condition: Any, expected_etag: Any) -> None:
    if condition not in (ANY_ETAG, ETAG_IS_THE_SAME, ETAG_HAS_CHANGED):
        raise ValueError(
            "condition must be ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED,"
            f" not {condition!r:.80}"
        )
    if condition is not ANY_ETAG and not isinstance(expected_etag, (str, ItemNotAvailableFlag)):
        raise TypeError(
            f"expected_etag must be an ETag or ITEM_NOT_AVAILABLE, not {expected_etag!r:.80}"
        )


def _check_retrieve(retrieve_value: Any) -> None:
    if not isinstance(retrieve_value, RetrieveValueFlag):
        raise TypeError(
            "retrieve_value must be ALWAYS_RETRIEVE, NEVER_RETRIEVE or IF_ETAG_CHANGED,"
            f" not {retrieve_value!r:.80}"
        )


def check_count(name: str, count: Any) -> None:
    """Raise TypeError unless an argument is an int or None."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise TypeError(f"{name} must be an int or None, not {type(count).__name__}")


def _raise_key_error(key: NonEmptySafeStrTuple, absent: ObjectNotFound) -> NoReturn:
    """Turn a storage's absence into the dict's, chained from the storage's own error."""
    raise KeyError(key) from (absent.__cause__ or absent)


def _rebuild(cls: type[PersiDict[Any]], params: dict[str, Any]) -> PersiDict[Any]:
    return cls(**params)


class PersiDict(MutableMapping[NonEmptySafeStrTuple, ValueType], ParameterizableMixin):
    """A persistent dictionary: the contract, independent of where the items live.

    A subclass supplies the primitives at the end of this class; everything else is written
    here once. All operations on one key are linearizable as far as the primitives are.

    Args:
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of, checked
            on writing and on reading. None: any.
        serialization_format: How values are stored, and the extension of their names:
            ``"pkl"`` and ``"json"`` hold any value that pickle or jsonpickle can hold; any
            other format holds text and needs `base_class_for_values` to be `str` or a
            subclass of it.

    Raises:
        TypeError: `base_class_for_values` is not a type or `serialization_format` not a str.
        ValueError: `serialization_format` is empty or has unsafe characters, or it is a text
            format and `base_class_for_values` is not a kind of `str`.
    """

    append_only: bool
    base_class_for_values: type | None
    serialization_format: str

    _policy: ClassVar[str] = "append-only"
    """The policy that a refused change is reported under."""

    _reads_are_cheap: ClassVar[bool] = True
    """Whether to look before inserting, or to insert and see."""

    _back_off_seconds: ClassVar[float] = 0.001
    """What an attempt costs, about: the unit of the pause after a conflict."""

    def __init__(
        self,
        *,
        append_only: bool = False,
        base_class_for_values: type | None = None,
        serialization_format: str = "pkl",
    ) -> None:
        if base_class_for_values is not None and not isinstance(base_class_for_values, type):
            raise TypeError(
                "base_class_for_values must be a class or None,"
                f" not {type(base_class_for_values).__name__}"
            )
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
        is_text = base_class_for_values is not None and issubclass(base_class_for_values, str)
        if not is_text and not self._holds_objects(serialization_format):
            raise ValueError(
                f"serialization_format {serialization_format!r} holds text:"
                " base_class_for_values must be str or a subclass of it"
            )
        self.append_only = bool(append_only)
        self.base_class_for_values = base_class_for_values
        self.serialization_format = serialization_format

    @classmethod
    def _holds_objects(cls, serialization_format: str) -> bool:
        """Tell whether a format holds any value, not only text."""
        return serialization_format in OBJECT_FORMATS

    # ------------------------------------------------------------------ parameters

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's parameters, sorted by name.

        Returns:
            Enough to build an equal handle: ``type(d)(**d.get_params())``.
        """
        return sort_dict_by_keys(
            {
                "append_only": self.append_only,
                "base_class_for_values": self.base_class_for_values,
                "serialization_format": self.serialization_format,
            }
            | self._own_params()
        )

    def _own_params(self) -> dict[str, Any]:
        """Return the parameters that a subclass adds to those of every dictionary."""
        return {}

    def _handle_params(self) -> dict[str, Any]:
        """Return the parameters that a copy or a pickle of this handle is made from."""
        return self.get_params()

    def __repr__(self) -> str:
        params = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({params})"

    def __str__(self) -> str:
        return str({key.strings: value for key, value in self.items()})

    def __copy__(self: SelfType) -> SelfType:
        return type(self)(**self._handle_params())

    def __deepcopy__(self: SelfType, memo: dict[int, Any]) -> SelfType:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._handle_params())

    # ------------------------------------------------------------------ checks

    def _check_is_instance(self, value: Any) -> None:
        expected = self.base_class_for_values
        if expected is not None and not isinstance(value, expected):
            raise TypeError(
                f"value must be an instance of {expected.__name__}"
                f" (base_class_for_values), not {type(value).__name__}"
            )

    def _check_value(self, value: Any, name: str = "value") -> None:
        """Refuse what can never be a value of this dictionary."""
        if type(value) not in _ORDINARY_TYPES:
            if isinstance(value, PersiDict):
                raise TypeError(f"{name}: a persistent dictionary cannot be stored as a value")
            if isinstance(value, (Joker, ItemNotAvailableFlag, ValueNotRetrievedFlag)):
                raise TypeError(f"{name}: {value!r} cannot be stored as a value")
        if self.base_class_for_values is not None:
            self._check_is_instance(value)

    def _refuse_deletion(self) -> None:
        """Raise MutationPolicyError if this dictionary's policy forbids deleting."""
        if self.append_only:
            raise MutationPolicyError(self._policy, "items cannot be deleted")

    def _refuse_change(self, key: NonEmptySafeStrTuple) -> NoReturn:
        raise MutationPolicyError(self._policy, f"item {key!r} exists and cannot be changed")

    def _pause(self, attempt: int) -> None:
        """Wait for a random time that grows with the attempts, so that rivals get out of step."""
        longest = min(self._back_off_seconds * 2 ** min(attempt, 16), _MAX_PAUSE_SECONDS)
        time.sleep(random.uniform(0.0, longest))

    # ------------------------------------------------------------------ dict: one item

    def __getitem__(self, key: NonEmptyPersiDictKey) -> ValueType:
        """Return the value under a key.

        Raises:
            KeyError: There is none.
            BackendError: What is stored cannot be decoded.
        """
        checked = as_key(key)
        try:
            return cast("ValueType", self._load(checked)[0])
        except ObjectNotFound as absent:
            _raise_key_error(checked, absent)

    def __setitem__(self, key: NonEmptyPersiDictKey, value: ValueType | Joker) -> None:
        """Store a value under a key, atomically; jokers do what their names say.

        Raises:
            TypeError: The value is not of the class that the dictionary holds.
            MutationPolicyError: The dictionary is append-only and the item exists.
        """
        checked = as_key(key)
        if value is KEEP_CURRENT:
            return
        if value is DELETE_CURRENT:
            self.discard(checked)
            return
        self._check_value(value)
        if not self.append_only:
            self._write(checked, value, None)
            return
        try:
            self._write(checked, value, ITEM_NOT_AVAILABLE)
        except PreconditionFailed:
            self._refuse_change(checked)

    def __delitem__(self, key: NonEmptyPersiDictKey) -> None:
        """Delete an item, atomically.

        Raises:
            KeyError: There is none.
            MutationPolicyError: The dictionary is append-only.
        """
        checked = as_key(key)
        self._refuse_deletion()
        try:
            self._remove(checked, None)
        except ObjectNotFound as absent:
            _raise_key_error(checked, absent)

    def __contains__(self, key: object) -> bool:
        return self._contains(as_key(key))

    def get(self, key: NonEmptyPersiDictKey, default: Any = None) -> Any:
        """Return the value under a key, or `default` if there is none."""
        checked = as_key(key)
        try:
            return self._load(checked)[0]
        except ObjectNotFound:
            return default

    def discard(self, key: NonEmptyPersiDictKey) -> bool:
        """Delete an item if there is one, atomically.

        Returns:
            Whether this call deleted it.

        Raises:
            MutationPolicyError: The dictionary is append-only.
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
                _raise_key_error(checked, absent)
            return default

    def _take(self, key: NonEmptySafeStrTuple) -> Any:
        """Read an item and delete that very version; start again if it moved."""
        for attempt in itertools.count(1):
            value, etag = self._load(key)
            try:
                self._remove(key, etag)
            except PreconditionFailed:
                self._pause(attempt)
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
            _raise_key_error(checked, absent)

    # ------------------------------------------------------------------ dict: many items

    def __iter__(self) -> Iterator[NonEmptySafeStrTuple]:
        return self._keys()

    def __len__(self) -> int:
        return sum(1 for _ in self._keys())

    def __bool__(self) -> bool:
        return any(True for _ in self._keys(page_size=1))

    def keys(self) -> KeysView:
        """Return a set-like view of the keys, read lazily."""
        return KeysView(self)

    def values(self) -> ValuesView[ValueType]:
        """Return a view of the values, read lazily."""
        return ValuesView(self)

    def items(self) -> ItemsView[ValueType]:
        """Return a view of the items, read lazily."""
        return ItemsView(self)

    def __eq__(self, other: object) -> bool:
        """Compare: equal parameters and type, or equal content with any Mapping."""
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        if type(self) is type(other) and self.get_params() == other.get_params():
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
        """Store many items, each atomically; jokers do what their names say.

        Args:
            other: A Mapping, something with `keys()`, or pairs of key and value.
            **kwargs: More items, under keys of one string.

        Raises:
            As `__setitem__`; what came before the refused item has been stored.
        """
        super().update(other, **kwargs)

    def __ior__(self: SelfType, other: object) -> SelfType:
        if not isinstance(other, Mapping):
            return NotImplemented
        self.update(other)
        return self

    def clear(self) -> None:
        """Delete all items; each deletion is atomic, the whole is not.

        Raises:
            MutationPolicyError: The dictionary is append-only.
        """
        self._refuse_deletion()
        self._clear()

    def random_key(self) -> NonEmptySafeStrTuple | None:
        """Return a key drawn uniformly from all, or None if there is none. Lists all keys."""
        drawn = None
        for count, key in enumerate(self._keys(), start=1):
            if random.randrange(count) == 0:
                drawn = key
        return drawn

    def keys_and_timestamps(self) -> Iterator[tuple[NonEmptySafeStrTuple, float]]:
        """Iterate over keys and the times of their last writing, in POSIX seconds."""
        return self._dated_keys()

    def values_and_timestamps(self) -> Iterator[tuple[ValueType, float]]:
        """Iterate over values and the times of their last writing, in POSIX seconds."""
        for _, value, last_modified in self._items():
            yield value, last_modified

    def items_and_timestamps(self) -> Iterator[tuple[NonEmptySafeStrTuple, ValueType, float]]:
        """Iterate over (key, value, time of last writing in POSIX seconds)."""
        return self._items()

    def oldest_keys(self, *, max_n: int | None = None) -> list[NonEmptySafeStrTuple]:
        """Return keys, the longest unwritten first.

        Args:
            max_n: How many at most; None: all; zero or less: none.
        """
        return self._keys_by_age(max_n, newest_first=False)

    def newest_keys(self, *, max_n: int | None = None) -> list[NonEmptySafeStrTuple]:
        """Return keys, the last written first.

        Args:
            max_n: How many at most; None: all; zero or less: none.
        """
        return self._keys_by_age(max_n, newest_first=True)

    def oldest_values(self, *, max_n: int | None = None) -> list[ValueType]:
        """Return the values of `oldest_keys`; items that vanish meanwhile are left out."""
        return self._values_of(self.oldest_keys(max_n=max_n))

    def newest_values(self, *, max_n: int | None = None) -> list[ValueType]:
        """Return the values of `newest_keys`; items that vanish meanwhile are left out."""
        return self._values_of(self.newest_keys(max_n=max_n))

    def _keys_by_age(self, max_n: int | None, *, newest_first: bool) -> list[NonEmptySafeStrTuple]:
        check_count("max_n", max_n)
        if max_n is not None and max_n <= 0:
            return []

        def age(dated: tuple[NonEmptySafeStrTuple, float]) -> float:
            return dated[1]

        if max_n is None:
            dated_keys = sorted(self._dated_keys(), key=age, reverse=newest_first)
        else:
            pick = heapq.nlargest if newest_first else heapq.nsmallest
            dated_keys = pick(max_n, self._dated_keys(), key=age)
        return [key for key, _ in dated_keys]

    def _values_of(self, keys: list[NonEmptySafeStrTuple]) -> list[ValueType]:
        values = []
        for key in keys:
            try:
                values.append(self._load(key)[0])
            except ObjectNotFound:
                continue
        return values

    # ------------------------------------------------------------------ sub-dictionaries

    def get_subdict(self: SelfType, prefix_key: PersiDictKey) -> SelfType:
        """Return the items whose keys begin with a prefix, as a dictionary of its own.

        Writes on either side are seen on the other. Costs nothing: nothing is looked at.

        Args:
            prefix_key: The beginning of the keys, stripped from them. Empty: everything.

        Returns:
            A dictionary of the same class with the same settings; empty if no key begins so.
        """
        prefix = prefix_key if isinstance(prefix_key, SafeStrTuple) else SafeStrTuple(prefix_key)
        return self._subdict(prefix) if prefix.strings else self.__copy__()

    def subdicts(self: SelfType) -> dict[str, SelfType]:
        """Map the first string of every key to its sub-dictionary; a one-string key counts."""
        return {part: self.get_subdict(part) for part in sorted(self._first_parts())}

    # ------------------------------------------------------------------ conditional operations

    def get_with_etag(self, key: NonEmptyPersiDictKey) -> ConditionalOperationResult:
        """Read an item together with its version.

        Returns:
            As `get_item_if` under ANY_ETAG with ALWAYS_RETRIEVE.
        """
        return self.get_item_if(
            key,
            condition=ANY_ETAG,
            expected_etag=ITEM_NOT_AVAILABLE,
            retrieve_value=ALWAYS_RETRIEVE,
        )

    def get_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """Look at an item and evaluate a condition on its version, in one step.

        Args:
            key: The key.
            condition: ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED.
            expected_etag: The version to compare with; ITEM_NOT_AVAILABLE for absence.
            retrieve_value: Whether to fetch the value of an existing item.

        Returns:
            What was found; nothing changes. The value and the ETag are of one version.

        Raises:
            ValueError: The condition is none of the three.
            TypeError: `retrieve_value` is no RetrieveValueFlag.
        """
        checked = as_key(key)
        _check_condition(condition, expected_etag)
        _check_retrieve(retrieve_value)
        return self._report_unchanged(checked, condition, expected_etag, retrieve_value)

    def set_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        value: ValueType | Joker,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """Store a value if a condition on the item's version holds, in one atomic step.

        Args:
            key: The key.
            value: The value; KEEP_CURRENT writes nothing, DELETE_CURRENT deletes.
            condition: ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED.
            expected_etag: The version to compare with; ITEM_NOT_AVAILABLE for absence, so
                that ETAG_IS_THE_SAME with it means: insert if absent.
            retrieve_value: Whether to fetch the stored value where nothing is written.

        Returns:
            What was found and what was left behind. An unmet condition is a result.

        Raises:
            ValueError: The condition is none of the three.
            TypeError: The value, or `retrieve_value`, is of a wrong type.
            MutationPolicyError: The dictionary is append-only, and the condition holds for
                an existing item, or the value is DELETE_CURRENT.
        """
        checked = as_key(key)
        _check_condition(condition, expected_etag)
        _check_retrieve(retrieve_value)
        if value is KEEP_CURRENT:
            return self._report_unchanged(checked, condition, expected_etag, retrieve_value)
        if value is DELETE_CURRENT:
            self._refuse_deletion()
            return self._delete_if(checked, condition, expected_etag, retrieve_value)
        self._check_value(value)

        def write(actual: ETagIfExists) -> tuple[ETagIfExists, Any]:
            if self.append_only and actual is not ITEM_NOT_AVAILABLE:
                self._refuse_change(checked)
            return self._write(checked, value, actual), value

        is_insert = expected_etag is ITEM_NOT_AVAILABLE
        return self._change_if(
            checked,
            condition,
            expected_etag,
            retrieve_value,
            change=write,
            presume=is_insert or not self.append_only,
        )

    def setdefault_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        default_value: ValueType,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """Insert a value if the key is absent and a condition holds, in one atomic step.

        An existing item is never touched, whatever the condition.

        Args:
            key: The key.
            default_value: What to insert.
            condition: ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED.
            expected_etag: The version to compare with; ITEM_NOT_AVAILABLE for absence.
            retrieve_value: Whether to fetch the value of an existing item.

        Returns:
            What was found and what was left behind.

        Raises:
            ValueError: The condition is none of the three.
            TypeError: The value is a joker or of a wrong type, or `retrieve_value` is.
        """
        checked = as_key(key)
        _check_condition(condition, expected_etag)
        _check_retrieve(retrieve_value)
        self._check_value(default_value, "default_value")
        may_insert = is_satisfied(condition, expected_etag, ITEM_NOT_AVAILABLE)
        look = self._reads_are_cheap or not may_insert
        while True:
            if look:
                found = self._report_unchanged(checked, condition, expected_etag, retrieve_value)
                if found.actual_etag is not ITEM_NOT_AVAILABLE or not may_insert:
                    return found
            try:
                etag = self._write(checked, default_value, ITEM_NOT_AVAILABLE)
            except PreconditionFailed:
                look = True
            else:
                return ConditionalOperationResult(True, ITEM_NOT_AVAILABLE, etag, default_value)

    def discard_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
    ) -> ConditionalOperationResult:
        """Delete an item if a condition on its version holds, in one atomic step.

        Args:
            key: The key.
            condition: ANY_ETAG, ETAG_IS_THE_SAME or ETAG_HAS_CHANGED.
            expected_etag: The version to compare with; ITEM_NOT_AVAILABLE for absence.

        Returns:
            What was found and what was left behind; the value is never fetched.

        Raises:
            ValueError: The condition is none of the three.
            MutationPolicyError: The dictionary is append-only and the condition holds for
                an existing item.
        """
        checked = as_key(key)
        _check_condition(condition, expected_etag)
        return self._delete_if(checked, condition, expected_etag, NEVER_RETRIEVE)

    def transform_item(
        self,
        key: NonEmptyPersiDictKey,
        *,
        transformer: TransformingFunction,
        n_retries: int | None = 6,
    ) -> OperationResult:
        """Read an item, compute a new value from it and write it back; nobody's update is lost.

        Args:
            key: The key.
            transformer: Called with the current value, or ITEM_NOT_AVAILABLE. Returns the
                new value, KEEP_CURRENT or DELETE_CURRENT. May be called more than once.
            n_retries: How often to start again when the item was changed meanwhile; None:
                never give up.

        Returns:
            The version and the value left behind.

        Raises:
            ConcurrencyConflictError: The item was changed by others in every attempt.
            ValueError: `n_retries` is negative.
            TypeError: `n_retries` is no int, or the new value is of a wrong type.
            MutationPolicyError: The dictionary is append-only and the transformer wants to
                change an existing item, or to delete.
        """
        checked = as_key(key)
        self._check_n_retries(n_retries)
        for attempt in itertools.count(1):
            current, etag = self._look_up(checked, None)
            try:
                return self._apply_transformer(checked, transformer, current, etag)
            except PreconditionFailed:
                if n_retries is not None and attempt > n_retries:
                    raise ConcurrencyConflictError(checked, attempt) from None
                self._pause(attempt)
        raise AssertionError("unreachable")

    @staticmethod
    def _check_n_retries(n_retries: int | None) -> None:
        check_count("n_retries", n_retries)
        if n_retries is not None and n_retries < 0:
            raise ValueError(f"n_retries must not be negative, it is {n_retries}")

    def _apply_transformer(
        self,
        key: NonEmptySafeStrTuple,
        transformer: TransformingFunction,
        current: Any,
        etag: ETagIfExists,
    ) -> OperationResult:
        new_value = transformer(current)
        if new_value is KEEP_CURRENT:
            return OperationResult(etag, current)
        if new_value is DELETE_CURRENT:
            self._refuse_deletion()
            self._remove_version(key, etag)
            return OperationResult(ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)
        self._check_value(new_value, "the transformer's result")
        if self.append_only and etag is not ITEM_NOT_AVAILABLE:
            self._refuse_change(key)
        return OperationResult(self._write(key, new_value, etag), new_value)

    # ------------------------------------------------------------------ how conditions work

    def _look_up(
        self, key: NonEmptySafeStrTuple, if_none_match: ETagValue | None
    ) -> tuple[Any, ETagIfExists]:
        """Load, with absence as ITEM_NOT_AVAILABLE."""
        try:
            return self._load(key, if_none_match=if_none_match)
        except ObjectNotFound:
            return ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE

    def _current_etag(self, key: NonEmptySafeStrTuple) -> ETagIfExists:
        try:
            return self._head(key).etag
        except ObjectNotFound:
            return ITEM_NOT_AVAILABLE

    def _observe(
        self, key: NonEmptySafeStrTuple, expected: Any, retrieve: RetrieveValueFlag
    ) -> tuple[Any, ETagIfExists]:
        """Return value and version in one look, the value only as far as it is wanted."""
        if retrieve is NEVER_RETRIEVE:
            actual = self._current_etag(key)
            return _stand_in(actual), actual
        if retrieve is ALWAYS_RETRIEVE or not isinstance(expected, str):
            return self._look_up(key, None)
        return self._look_up(key, cast("ETagValue", expected))

    def _report_unchanged(
        self,
        key: NonEmptySafeStrTuple,
        condition: ETagConditionFlag,
        expected: ETagIfExists,
        retrieve: RetrieveValueFlag,
    ) -> ConditionalOperationResult:
        value, actual = self._observe(key, expected, retrieve)
        satisfied = is_satisfied(condition, expected, actual)
        return ConditionalOperationResult(satisfied, actual, actual, value)

    def _report_unmet(
        self,
        key: NonEmptySafeStrTuple,
        condition: ETagConditionFlag,
        expected: ETagIfExists,
        retrieve: RetrieveValueFlag,
        actual: ETagIfExists | None,
    ) -> ConditionalOperationResult | None:
        """Report an unmet condition; None if a fresh look shows that it holds after all."""
        if actual is None or _is_value_wanted(retrieve, expected, actual):
            found = self._report_unchanged(key, condition, expected, retrieve)
            return None if found.condition_was_satisfied else found
        return ConditionalOperationResult(False, actual, actual, _stand_in(actual))

    def _change_if(
        self,
        key: NonEmptySafeStrTuple,
        condition: ETagConditionFlag,
        expected: ETagIfExists,
        retrieve: RetrieveValueFlag,
        *,
        change: Change,
        presume: bool,
    ) -> ConditionalOperationResult:
        """Make a change to the version that satisfies a condition; start again if it moves.

        `change` gets that version and raises PreconditionFailed if it is not the current one
        any more. `presume`: under ETAG_IS_THE_SAME, try at once instead of looking first.
        """
        presume = presume and condition is ETAG_IS_THE_SAME
        known: ETagIfExists | None = None
        for attempt in itertools.count(1):
            if presume:
                known = expected
            elif known is None:
                known = self._current_etag(key)
            if is_satisfied(condition, expected, known):
                try:
                    return ConditionalOperationResult(True, known, *change(known))
                except PreconditionFailed as failed:
                    known = failed.actual_etag
            seems_unmet = presume if known is None else not is_satisfied(condition, expected, known)
            if seems_unmet:
                unmet = self._report_unmet(key, condition, expected, retrieve, known)
                if unmet is not None:
                    return unmet
                known = None
            self._pause(attempt)
        raise AssertionError("unreachable")

    def _delete_if(
        self,
        key: NonEmptySafeStrTuple,
        condition: ETagConditionFlag,
        expected: ETagIfExists,
        retrieve: RetrieveValueFlag,
    ) -> ConditionalOperationResult:
        def delete(actual: ETagIfExists) -> tuple[ETagIfExists, Any]:
            if actual is not ITEM_NOT_AVAILABLE:
                self._refuse_deletion()
            self._remove_version(key, actual)
            return ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE

        return self._change_if(
            key,
            condition,
            expected,
            retrieve,
            change=delete,
            presume=expected is not ITEM_NOT_AVAILABLE and not self.append_only,
        )

    def _remove_version(self, key: NonEmptySafeStrTuple, etag: ETagIfExists) -> None:
        """Delete one version; raise PreconditionFailed if it is not the current one."""
        if isinstance(etag, ItemNotAvailableFlag):
            return
        try:
            self._remove(key, etag)
        except ObjectNotFound:
            raise PreconditionFailed(actual_etag=ITEM_NOT_AVAILABLE) from None

    # ------------------------------------------------------------------ primitives

    @abstractmethod
    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        """Return a value and its version, both of one moment.

        Where the item still is the version `if_none_match`, the value is
        VALUE_NOT_RETRIEVED. Raises ObjectNotFound for absence.
        """

    @abstractmethod
    def _head(self, key: NonEmptySafeStrTuple) -> Version:
        """Return the version of an item without its value, or raise ObjectNotFound."""

    @abstractmethod
    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagValue:
        """Store a value in one atomic step if the item is the version `expected`.

        None: whatever it is; ITEM_NOT_AVAILABLE: only if there is none. Returns the new
        version. Raises PreconditionFailed, having changed nothing.
        """

    @abstractmethod
    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> None:
        """Delete an item in one atomic step if it is the version `expected` (None: any).

        Raises ObjectNotFound if there is none and PreconditionFailed if it is another one.
        """

    @abstractmethod
    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        """Iterate over all keys; `page_size` hints how many the caller will look at."""

    @abstractmethod
    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        """Return the dictionary below a prefix that is not empty."""

    # ------------------------------------------------------------------ primitives with defaults

    def _contains(self, key: NonEmptySafeStrTuple) -> bool:
        try:
            self._head(key)
        except ObjectNotFound:
            return False
        return True

    def _dated_keys(self) -> Iterator[tuple[NonEmptySafeStrTuple, float]]:
        """Iterate over keys and times of last writing."""
        for key in self._keys():
            try:
                yield key, self._head(key).last_modified
            except ObjectNotFound:
                continue

    @abstractmethod
    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        """Iterate over keys, values and times of last writing, each of one version."""

    def _first_parts(self) -> set[str]:
        """Return the first string of every key."""
        return {key.strings[0] for key in self._keys()}

    def _clear(self) -> None:
        """Delete all items."""
        for key in list(self._keys()):
            self.discard(key)


def _stand_in(actual: ETagIfExists) -> Any:
    """Return what stands for a value that was not fetched."""
    return ITEM_NOT_AVAILABLE if actual is ITEM_NOT_AVAILABLE else VALUE_NOT_RETRIEVED
