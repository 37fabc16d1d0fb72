"""Views of a dictionary: `collections.abc` views that read lazily and see every change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from collections.abc import ItemsView as _ItemsView
from collections.abc import KeysView as _KeysView
from collections.abc import ValuesView as _ValuesView
from operator import itemgetter
from typing import Any, Protocol, TypeVar, cast

from persidict.contract.display import entries_text, keys_text
from persidict.contract.listing import Listing
from persidict.contract.primitives import DictPrimitives, KeyRange
from persidict.safe_str_tuple import NonEmptySafeStrTuple, as_key

ValueType = TypeVar("ValueType")

_PAIR = itemgetter(0, 1)
_VALUE = itemgetter(1)


def _as_keys(elements: Iterable[Any]) -> set[Any]:
    """Bring elements into the form of keys, so that sets compare; others stay as they are."""
    keys = set()
    for element in elements:
        try:
            keys.add(as_key(element))
        except (TypeError, ValueError):
            keys.add(element)
    return keys


class Viewable(Protocol):
    """What a view needs of the dictionary that it shows."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NonEmptySafeStrTuple]: ...

    def __contains__(self, key: object) -> bool: ...

    def __getitem__(self, key: NonEmptySafeStrTuple) -> Any: ...

    def _keys_in(self, key_range: KeyRange) -> list[NonEmptySafeStrTuple]: ...

    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]: ...

    def _load_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]: ...


class _Ranged:
    """What a view of some of the keys adds to one of all."""

    _mapping: Viewable
    _key_range: KeyRange | None

    def __init__(self, mapping: Viewable, key_range: KeyRange | None = None) -> None:
        super().__init__(mapping)  # type: ignore[call-arg]
        self._key_range = key_range

    def __len__(self) -> int:
        if self._key_range is None:
            return len(self._mapping)
        listing = Listing.about_to_be_read(self)
        return sum(1 for _ in self._keys_of_range()) if listing is None else listing.count()

    def _keys_of_range(self) -> Iterator[NonEmptySafeStrTuple]:
        assert self._key_range is not None
        yield from self._mapping._keys_in(self._key_range)

    def _has_room_for(self, key: NonEmptySafeStrTuple) -> bool:
        return self._key_range is None or self._key_range.contains(key)

    def _keys_backwards(self) -> Iterator[NonEmptySafeStrTuple]:
        if self._key_range is None:
            raise TypeError(
                "all keys come in the order of the storage, which has no reverse: make a range of"
                " them, with start=()"
            )
        return self._range_backwards(self._key_range)

    def _range_backwards(self, key_range: KeyRange) -> Iterator[NonEmptySafeStrTuple]:
        yield from reversed(self._mapping._keys_in(key_range))

    def _pairs_backwards(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        return self._mapping._load_many(self._keys_backwards())

    def _pairs(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        if self._key_range is None:
            return map(_PAIR, self._mapping._items())
        return self._mapping._load_many(Listing(self, self._keys_of_range()))

    def _text(self, show: Callable[[NonEmptySafeStrTuple, str], str]) -> str:
        d = cast("DictPrimitives", self._mapping)
        return entries_text(type(self).__name__, d, show, self._key_range)


class KeysView(_Ranged, _KeysView[NonEmptySafeStrTuple]):
    """The keys of a dictionary, as a set: strings and tuples stand for the keys they make."""

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> set[Any]:
        return set(it)

    def __iter__(self) -> Iterator[NonEmptySafeStrTuple]:
        if self._key_range is None:
            return iter(self._mapping)
        return Listing(self, self._keys_of_range())

    def __repr__(self) -> str:
        return keys_text(type(self).__name__, self)

    def __reversed__(self) -> Iterator[NonEmptySafeStrTuple]:
        """Iterate over the keys of a range from the last one to the first."""
        return self._keys_backwards()

    def __contains__(self, key: object) -> bool:
        checked = as_key(key)
        return self._has_room_for(checked) and checked in self._mapping

    def __and__(self, other: Iterable[Any]) -> set[Any]:
        """Return those of the others that are keys here, as they are, like `Set` does.

        So they can be looked up on both sides, which pytest does to show a difference.
        """
        own = set(self)
        return {element for element in other if _as_keys((element,)) <= own}

    __rand__ = __and__

    def __or__(self, other: Iterable[Any]) -> set[Any]:
        return set(self) | _as_keys(other)

    __ror__ = __or__

    def __sub__(self, other: Iterable[Any]) -> set[NonEmptySafeStrTuple]:
        return set(self) - _as_keys(other)

    def __rsub__(self, other: Iterable[Any]) -> set[Any]:
        return _as_keys(other) - set(self)

    def __xor__(self, other: Iterable[Any]) -> set[Any]:
        return set(self) ^ _as_keys(other)

    __rxor__ = __xor__

    def isdisjoint(self, other: Iterable[Any]) -> bool:
        """Tell whether no key is among some others."""
        return set(self).isdisjoint(_as_keys(other))

    def __eq__(self, other: object) -> bool:
        return set(self) == _as_keys(other) if isinstance(other, Set) else NotImplemented

    def __le__(self, other: object) -> bool:
        return set(self) <= _as_keys(other) if isinstance(other, Set) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return set(self) < _as_keys(other) if isinstance(other, Set) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return set(self) >= _as_keys(other) if isinstance(other, Set) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return set(self) > _as_keys(other) if isinstance(other, Set) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class ItemsView(_Ranged, _ItemsView[NonEmptySafeStrTuple, ValueType]):
    """The items of a dictionary; one that vanishes while being read is skipped."""

    def __iter__(self) -> Iterator[tuple[NonEmptySafeStrTuple, ValueType]]:
        return self._pairs()

    def __repr__(self) -> str:
        return self._text(lambda key, value: f"({key!r}, {value})")

    def __reversed__(self) -> Iterator[tuple[NonEmptySafeStrTuple, ValueType]]:
        """Iterate over the items of a range from the last key to the first."""
        return self._pairs_backwards()

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        key, value = as_key(item[0]), item[1]
        try:
            found = self._mapping[key]
        except KeyError:
            return False
        if not self._has_room_for(key):
            return False
        return found is value or bool(found == value)


class ValuesView(_Ranged, _ValuesView[ValueType]):
    """The values of a dictionary; one that vanishes while being read is skipped."""

    def __iter__(self) -> Iterator[ValueType]:
        return map(_VALUE, self._pairs())

    def __repr__(self) -> str:
        return self._text(lambda _, value: value)

    def __reversed__(self) -> Iterator[ValueType]:
        """Iterate over the values of a range from that of the last key to the first."""
        return map(_VALUE, self._pairs_backwards())

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)
