"""The base of every store in front of another one: everything is forwarded, once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal, TypeVar

from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.object_store import (
    AnyVersion,
    Buffer,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
    Read,
    Unread,
)
from persidict.traits import Traits

SelfType = TypeVar("SelfType", bound="WrapperStore")


class WrapperStore(ObjectStore):
    """A store in front of another one, which holds the objects.

    A subclass overrides what it changes. One that changes `get` overrides `get_many` and
    `open` as well, and so on: nothing here follows from anything else.

    Args:
        wrapped: The store that holds the objects.
    """

    shows_wrapped: bool = False
    """Whether names, bytes and versions are those beneath: then so are its other abilities."""

    def __init__(self, wrapped: ObjectStore) -> None:
        self._wrapped = wrapped

    @property
    def wrapped(self) -> ObjectStore:
        """The store beneath this one."""
        return self._wrapped

    @property
    def traits(self) -> Traits:
        return self._wrapped.traits

    def scoped(self: SelfType, prefix: str) -> SelfType:
        scope = object.__new__(type(self))
        scope.__dict__.update(self.__dict__)
        scope._wrapped = self._wrapped.scoped(prefix)
        return scope

    def for_reading(self: SelfType) -> SelfType:
        reader = object.__new__(type(self))
        reader.__dict__.update(self.__dict__)
        reader._wrapped = self._wrapped.for_reading()
        return reader

    def location(self, name: str) -> str:
        return self._wrapped.location(name)

    # ------------------------------------------------------------------ one object

    def head(self, name: str) -> ObjectInfo:
        return self._wrapped.head(name)

    def contains(self, name: str) -> bool:
        return self._wrapped.contains(name)

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        return self._wrapped.get(name, if_none_match=if_none_match)

    def open(self, name: str) -> BinaryIO:
        return self._wrapped.open(name)

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        return self._wrapped.put(name, data, if_match=if_match, if_none_match=if_none_match)

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        self._wrapped.delete(name, if_match=if_match)

    # ------------------------------------------------------------------ many objects

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        return self._wrapped.list(
            prefix, start_after=start_after, delimiter=delimiter, page_size=page_size
        )

    def names(
        self, prefix: str = "", *, start_after: str | None = None, page_size: int | None = None
    ) -> Iterator[str]:
        return self._wrapped.names(prefix, start_after=start_after, page_size=page_size)

    def get_many(self, entries: Iterable[str | ObjectInfo]) -> Iterator[Read | Unread]:
        return self._wrapped.get_many(entries)

    def concerns_one_object(self, error: Exception) -> bool:
        return self._wrapped.concerns_one_object(error)

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        return self._wrapped.put_many(items, if_none_match=if_none_match)

    def delete_many(self, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
        return self._wrapped.delete_many(names)
