"""A dictionary under plain keys: strings, and tuples of strings."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any, Generic, TypeAlias, TypeVar, cast

from persidict.contract.display import entries_text
from persidict.contract.primitives import DictPrimitives
from persidict.jokers_and_status_flags import ValueType
from persidict.safe_str_tuple import NonEmptySafeStrTuple

PlainKey: TypeAlias = str | tuple[str, ...]
"""A key of one string as that string, one of several as a tuple of them."""

Default = TypeVar("Default")

_NO_DEFAULT: Any = object()


def plain_key(key: NonEmptySafeStrTuple) -> PlainKey:
    """Return a key in its plain form."""
    strings = key.strings
    return strings[0] if len(strings) == 1 else strings


class PlainMapping(MutableMapping[PlainKey, ValueType], Generic[ValueType]):
    """A dictionary as a mapping whose keys are plain, and equal to what a dict would have.

    A key that comes out of it is a string, or a tuple of two strings or more, and so it hashes
    and compares as dicts and sets need it. Everything else is as on the dictionary, which
    reads and writes: what it costs, what it refuses, which keys it takes.

    Args:
        d: The dictionary, a PersiDict.

    Examples:
        >>> from persidict import LocalDict
        >>> d = LocalDict()
        >>> d["a"], d["b", "c"] = 1, 2
        >>> dict(d.plain()) == {"a": 1, ("b", "c"): 2}
        True
    """

    def __init__(self, d: MutableMapping[NonEmptySafeStrTuple, ValueType]) -> None:
        self._wrapped = cast("Any", d)

    def __repr__(self) -> str:
        def entry(key: NonEmptySafeStrTuple, value: str) -> str:
            return f"{plain_key(key)!r}: {value}"

        return entries_text(type(self).__name__, self._wrapped, entry, brackets="{}")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DictPrimitives):
            return bool(other == self)  # which knows the forms of keys
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, key: PlainKey) -> ValueType:
        return cast("ValueType", self._wrapped[key])

    def __setitem__(self, key: PlainKey, value: ValueType) -> None:
        self._wrapped[key] = value

    def __delitem__(self, key: PlainKey) -> None:
        del self._wrapped[key]

    def __contains__(self, key: object) -> bool:
        return key in self._wrapped

    def __len__(self) -> int:
        return len(self._wrapped)

    def __bool__(self) -> bool:
        return bool(self._wrapped)

    def __iter__(self) -> Iterator[PlainKey]:
        return map(plain_key, self._wrapped)

    def get(self, key: PlainKey, default: Any = None) -> Any:
        """Return the value under a key, or `default` if there is none."""
        return self._wrapped.get(key, default)

    def pop(self, key: PlainKey, default: Any = _NO_DEFAULT) -> Any:
        """Take an item out and return its value; see `PersiDict.pop`."""
        return self._wrapped.pop(key) if default is _NO_DEFAULT else self._wrapped.pop(key, default)

    def popitem(self) -> tuple[PlainKey, ValueType]:
        """Take some item out and return it; see `PersiDict.popitem`."""
        key, value = self._wrapped.popitem()
        return plain_key(key), value

    def setdefault(self, key: PlainKey, default: Any = None) -> Any:
        """Return the value under a key, after inserting `default` if there was none."""
        return self._wrapped.setdefault(key, default)

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Store many items; see `PersiDict.set_many`."""
        self._wrapped.update(other, **kwargs)

    def clear(self) -> None:
        """Delete all items; see `PersiDict.clear`."""
        self._wrapped.clear()

    def items(self) -> ItemsView[PlainKey, ValueType]:
        """Return a view of the items, read lazily, as the dictionary reads them."""
        return _Items(self)

    def values(self) -> ValuesView[ValueType]:
        """Return a view of the values, read lazily, as the dictionary reads them."""
        return cast("ValuesView[ValueType]", self._wrapped.values())


class _Items(ItemsView[PlainKey, ValueType]):
    """The items, read side by side where the storage gains from it."""

    _mapping: PlainMapping[ValueType]

    def __iter__(self) -> Iterator[tuple[PlainKey, ValueType]]:
        return ((plain_key(key), value) for key, value in self._mapping._wrapped.items())
