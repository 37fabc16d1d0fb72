"""What some storages can do besides the port; whoever wants it asks whether a store can."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import BinaryIO, Protocol, cast, runtime_checkable

from persidict.buffers import BUFFERS
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.object_store import Buffer, NotModified, ObjectInfo, ObjectStore, OneOfMany
from persidict.traffic import Traffic


@runtime_checkable
class OpensLargeObjects(Protocol):
    """A store that reads a large object piecemeal at no extra cost."""

    def get_or_open(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer | BinaryIO, ObjectInfo] | NotModified:
        """Read an object, or open it if it is large; else as the port's `get`.

        The caller closes the stream.
        """


@runtime_checkable
class ReadsWithoutVersion(Protocol):
    """A store in which finding out the version of an object costs something of its own."""

    def read_or_open(self, name: str) -> Buffer | BinaryIO:
        """Read an object, or open it if it is large, whatever version it is.

        The caller closes the stream.
        """


@runtime_checkable
class ListsInGroups(Protocol):
    """A store that lists the names of one directory at once."""

    def name_groups(self, *, page_size: int | None = None) -> Iterator[tuple[str, Sequence[str]]]:
        """List all names: what those of a group begin with, and what follows of each."""


@runtime_checkable
class CopiesInside(Protocol):
    """A store that copies objects without their bytes passing through here."""

    def can_copy_from(self, source: ObjectStore) -> bool:
        """Tell whether `copy_many` takes objects of another store."""

    def copy_many(
        self, source: ObjectStore, names: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[str, ETagValue | Exception | None]]:
        """Copy many objects of another store.

        Each one is replaced atomically, whatever is there; `names` is consumed lazily.

        Args:
            source: The other store, which `can_copy_from` has accepted.
            names: The name of each object there, and the one that it gets here.

        Yields:
            Each name here with its new version, with the exception that its copying raised,
            or with None: nothing was done, and the caller has to move the bytes.
        """


@runtime_checkable
class LeavesPartsBehind(Protocol):
    """A store in which a writer that is killed leaves something that is worth clearing away."""

    def interrupted_writes(self, sizes: Mapping[str, int]) -> Callable[[Collection[str]], None]:
        """Look for writes of objects that are under way, or that killed processes left.

        Args:
            sizes: About how many bytes the objects to look for have, by name; 0: unknown.

        Returns:
            A function to be called with the names of those that have been written anew: it
            ends the writes of them that have made no progress since.
        """


@runtime_checkable
class TellsMD5(Protocol):
    """A store whose listings prove what the bytes of an object are."""

    def md5_of(self, info: ObjectInfo) -> str | None:
        """Return an MD5 that, where it is that of some bytes, proves the object to be them.

        Returns:
            32 hexadecimal digits; None where this version proves nothing of the kind. An MD5
            that differs proves nothing: some servers encrypt before they digest.
        """


@runtime_checkable
class CountsTraffic(Protocol):
    """A store that knows what has passed between it and a service."""

    def traffic(self) -> Traffic:
        """Return what has passed since it was made."""


@runtime_checkable
class ReadsManyUnlessKnown(Protocol):
    """A store that reads many objects at the same time, but for versions that one has."""

    def get_many_unless_known(
        self, wanted: Iterable[tuple[str | ObjectInfo, ETagValue | None]]
    ) -> Iterator[tuple[str, OneOfMany]]:
        """Read many objects, in the order given.

        Args:
            wanted: Names, or what `list` told, each with a version that the caller has, or
                None. Consumed lazily.

        Yields:
            Each name with what the port's `get` returns; with None where there is no object,
            and with the exception where it `concerns_one_object`.
        """


@runtime_checkable
class ShowsWrapped(Protocol):
    """A store in front of another one, which holds the very same objects."""

    shows_wrapped: bool
    """Whether names, bytes and versions are those of the store beneath."""

    @property
    def wrapped(self) -> ObjectStore:
        """The store beneath."""


def layers(store: ObjectStore) -> Iterator[ObjectStore]:
    """Yield a store, then those beneath it as far down as the objects are the very same."""
    yield store
    while isinstance(store, ShowsWrapped) and store.shows_wrapped:
        store = store.wrapped
        yield store


def traffic_of(store: ObjectStore) -> Traffic:
    """Return what is known of the traffic of a store and of those beneath it."""
    total = Traffic()
    for layer in layers(store):
        if isinstance(layer, CountsTraffic):
            total = total.plus(layer.traffic())
    return total


@cache
def _opens_large_objects(kind: type[ObjectStore]) -> bool:
    return issubclass(kind, OpensLargeObjects)


def get_or_open(
    store: ObjectStore, name: str, if_none_match: ETagValue | None
) -> tuple[Buffer | BinaryIO, ObjectInfo] | NotModified:
    """Read an object, or open it where that is a matter of its size."""
    if _opens_large_objects(type(store)):
        return cast("OpensLargeObjects", store).get_or_open(name, if_none_match=if_none_match)
    return store.get(name, if_none_match=if_none_match)


def read_whole(
    found: tuple[Buffer | BinaryIO, ObjectInfo] | NotModified,
) -> tuple[Buffer, ObjectInfo] | NotModified:
    """Return what `get_or_open` has returned as `get` does: with all bytes of a stream."""
    if isinstance(found, NotModified):
        return found
    data, info = found
    if isinstance(data, BUFFERS):
        return data, info
    with data:
        return data.read(), info


@cache
def lists_in_groups(kind: type[ObjectStore]) -> bool:
    """Tell whether the stores of a class list names in groups."""
    return issubclass(kind, ListsInGroups)


@cache
def _reads_without_version(kind: type[ObjectStore]) -> bool:
    return issubclass(kind, ReadsWithoutVersion)


def read_or_open(store: ObjectStore, name: str) -> Buffer | BinaryIO:
    """Read an object of which nobody asks which version it is; else as `get_or_open`."""
    if _reads_without_version(type(store)):
        return cast("ReadsWithoutVersion", store).read_or_open(name)
    found = get_or_open(store, name, None)
    assert not isinstance(found, NotModified)
    return found[0]
