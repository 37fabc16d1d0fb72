"""The port: named bytes with versions.

A store knows nothing of keys and values. Names are non-empty strings whose ``/`` separate
levels; data are bytes. The vocabulary is that of HTTP and S3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from typing import BinaryIO, Final, Literal, NamedTuple, TypeAlias

from persidict.buffers import BUFFERS as BUFFERS
from persidict.buffers import Buffer as Buffer
from persidict.exceptions import ObjectNotFound, PreconditionFailed, without_frames
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagIfExists, ETagValue
from persidict.traits import Traits

AnyVersion: TypeAlias = Literal["*"]
"""As `if_match`: the object must exist. As `if_none_match`: it must not."""

ANY_VERSION: Final[AnyVersion] = "*"


_TRAITS_OF_A_NETWORK: Final = Traits(reads_are_cheap=False)


class ObjectInfo(NamedTuple):
    """What a store tells of an object without its bytes.

    Attributes:
        name: The object's name, relative to the store's prefix.
        etag: The version of the object.
        size: The number of stored bytes.
        last_modified: POSIX seconds.
    """

    name: str
    etag: ETagValue
    size: int
    last_modified: float


class CommonPrefix(NamedTuple):
    """All names that share their beginning up to and including the delimiter."""

    prefix: str


class NotModified:
    """The type of NOT_MODIFIED."""

    def __repr__(self) -> str:
        return "NOT_MODIFIED"


NOT_MODIFIED: Final = NotModified()
"""What `get` returns when the object still is the version named by `if_none_match`."""

Read: TypeAlias = tuple[str, Buffer, ObjectInfo]
"""One of many objects: name, bytes, and what is known of them."""

Unread: TypeAlias = tuple[str, Exception, None]
"""One of many objects that could not be read, and why."""

Found: TypeAlias = tuple[Buffer, ObjectInfo]
OneOfMany: TypeAlias = Found | NotModified | Exception | None
"""What came of reading one of many objects; None: it does not exist."""


class ObjectStore(ABC):
    """Named bytes with versions, as an abstract port.

    Every operation on one name is atomic: a reader sees one version whole, and a condition
    is checked and acted upon in one step, as far as the storage makes that possible.
    """

    @property
    def traits(self) -> Traits:
        """What this storage tells of itself to dictionaries and wrappers."""
        return _TRAITS_OF_A_NETWORK

    @abstractmethod
    def head(self, name: str) -> ObjectInfo:
        """Look at an object without its bytes.

        Raises:
            ObjectNotFound: There is none; chained from the storage's own error.
        """

    @abstractmethod
    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        """Read an object: bytes and version of one and the same version.

        Args:
            name: The object's name.
            if_none_match: A version that the caller already has.

        Returns:
            The bytes and what is known of them, or NOT_MODIFIED when the object still is
            the version `if_none_match`.

        Raises:
            ObjectNotFound: There is none.
        """

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading: a seekable stream of the bytes of one version.

        Where a storage does not keep a version that is replaced, reading on raises OSError.

        Raises:
            ObjectNotFound: There is none.
        """
        found = self.get(name)
        assert not isinstance(found, NotModified)
        return BytesIO(found[0])

    @abstractmethod
    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        """Write an object whole, or not at all.

        Args:
            name: The object's name.
            data: Its bytes. What a read-only view shows is never changed: it may be kept.
            if_match: Write only over this version.
            if_none_match: ``"*"``: write only if there is no object. At most one of the
                two conditions is given.

        Returns:
            The new version.

        Raises:
            PreconditionFailed: The condition does not hold; nothing was written. Its
                `actual_etag` tells what was found, where the storage can tell. An absent
                object under `if_match` is a failed precondition, too.
        """

    @abstractmethod
    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        """Delete an object.

        Args:
            name: The object's name.
            if_match: Delete only this version; ``"*"``: any, but there must be one. Without
                it, deleting what does not exist does nothing.

        Raises:
            PreconditionFailed: The object is another version; nothing was deleted.
            ObjectNotFound: `if_match` was given and there is no object.
            ConcurrencyConflictError: `if_match` was ``"*"``, and others replaced the object
                during each of several attempts; nothing was deleted.
        """

    @abstractmethod
    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        """List objects, lazily.

        Args:
            prefix: Only names that begin with it; any string, not only whole levels.
            start_after: Only names greater than it; the names then come in the order of
                their UTF-8 bytes. Without it, the order is the storage's own.
            delimiter: Roll up names that have it behind the prefix, each group once, into
                a `CommonPrefix`.
            page_size: A hint: the caller will probably stop after so many.

        Yields:
            Objects that exist at some moment of the listing.
        """

    def names(
        self, prefix: str = "", *, start_after: str | None = None, page_size: int | None = None
    ) -> Iterator[str]:
        """List names alone, where that is cheaper; else as `list`."""
        for entry in self.list(prefix, start_after=start_after, page_size=page_size):
            yield entry[0]

    def get_many(self, entries: Iterable[str | ObjectInfo]) -> Iterator[Read | Unread]:
        """Read many objects, in the order given; those that do not exist are left out.

        Args:
            entries: Names, or what `list` told of the objects: a store that has a version
                at hand need not ask for it again. Consumed lazily.

        Yields:
            Name, bytes, and what is known of them; or name, the exception that reading it
            raised, and None, where that `concerns_one_object`.
        """
        for entry in entries:
            found = self._get_and_report(entry if isinstance(entry, str) else entry.name)
            if found is not None:
                yield found

    def _get_and_report(self, name: str) -> Read | Unread | None:
        """Read one of many objects; None: it does not exist."""
        found = self._outcome_of(partial(self.get, name))
        if found is None or isinstance(found, NotModified):
            return None
        return (name, found, None) if isinstance(found, Exception) else (name, *found)

    def _outcome_of(self, get: Callable[[], Found | NotModified]) -> OneOfMany:
        """Return what came of reading one of many objects."""
        try:
            return get()
        except ObjectNotFound:
            return None
        except Exception as error:
            if not self.concerns_one_object(error):
                raise
            return without_frames(error)

    def concerns_one_object(self, error: Exception) -> bool:
        """Tell whether others may be read all the same when one has raised an exception.

        Args:
            error: What `get` has raised.
        """
        return True

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        """Write many objects, each atomically; `items` is consumed lazily.

        Yields:
            Each name with its new version, or with the exception that its `put` raised; a
            refusal has been asked whether the write took place after all.
        """
        for item in items:
            yield self._put_and_report(item, if_none_match)

    def _put_and_report(
        self, item: tuple[str, Buffer], if_none_match: AnyVersion | None
    ) -> tuple[str, ETagValue | Exception]:
        name, data = item
        return name, reported(lambda: self.put(name, data, if_none_match=if_none_match))

    def delete_many(self, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
        """Delete many objects; those that do not exist are no error.

        Yields:
            The names that could not be deleted, each with the reason.
        """
        for name in names:
            try:
                self.delete(name)
            except Exception as error:  # reported to the caller, item by item
                yield name, without_frames(error)

    @abstractmethod
    def scoped(self, prefix: str) -> ObjectStore:
        """Return the same store seen from below a prefix; costs nothing, asks nothing."""

    def for_reading(self) -> ObjectStore:
        """Return the same store for who only reads: then nothing is changed in passing.

        For stores to override that make, clear away or try out something while they read.
        """
        return self

    def contains(self, name: str) -> bool:
        """Tell whether there is an object under that name."""
        try:
            self.head(name)
        except ObjectNotFound:
            return False
        return True

    def location(self, name: str) -> str:
        """Say for a person where an object lies, for messages."""
        return name


def check_version(
    actual: ETagIfExists, if_match: ETagValue | None, if_none_match: AnyVersion | None
) -> None:
    """Raise PreconditionFailed unless an object, or its absence, is as a write requires.

    For stores that cannot check and write in one step of the storage itself.
    """
    if (if_none_match is not None and actual is not ITEM_NOT_AVAILABLE) or (
        if_match is not None and actual != if_match
    ):
        raise PreconditionFailed(actual_etag=actual)


def reported(write: Callable[[], ETagValue]) -> ETagValue | Exception:
    """Return the version that a write made, or the exception that it raised.

    A refusal is asked whether the write took place after all.
    """
    try:
        try:
            return write()
        except PreconditionFailed as refused:
            made = refused.written_after_all(None)
            return without_frames(refused) if made is None else made
    except Exception as error:  # reported to the caller, item by item
        return without_frames(error)


def list_from_sorted(
    entries: Iterable[ObjectInfo],
    *,
    prefix: str,
    start_after: str | None,
    delimiter: str | None,
) -> Iterator[ObjectInfo | CommonPrefix]:
    """Apply what `ObjectStore.list` asks for to objects in the order of their names.

    For stores that cannot do it themselves; `entries` may hold more than asked for.
    """
    last_group = None
    for entry in entries:
        name = entry.name
        if not name.startswith(prefix) or (start_after is not None and name <= start_after):
            continue
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            yield entry
            continue
        group = name[: cut + 1]
        if group != last_group and (start_after is None or group > start_after):
            last_group = group
            yield CommonPrefix(group)
