"""A dictionary in one SQLite database file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Self

from persidict.checks import check_flag, check_int, check_seconds
from persidict.codecs import Codec
from persidict.contract.listing import Listing
from persidict.contract.unreadable import UnreadableItems
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import PlainNaming
from persidict.protection import Protection
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.stores.files.store import absolute_directory
from persidict.stores.sqlite.store import DEFAULT_LARGE_VALUE_SIZE, SQLiteStore
from persidict.transactional_dict import TransactionalDict
from persidict.urls import Place, path_in_url, place

_Entry = tuple[NonEmptySafeStrTuple, Any, float]


class SQLiteDict(TransactionalDict[ValueType]):
    """A persistent dictionary in one database file: for many small items.

    Every operation on one key is linearizable among the threads and processes of one machine.
    Readers wait for nobody; writers take turns, in a fair queue. Handles can be pickled: they
    travel as their parameters. A file holds any number of dictionaries: those of other
    formats and prefixes. Others may read it with ``sqlite3``; `persidict.stores.sqlite.schema`
    says how. Beside it lie ``-wal`` and ``-shm`` (SQLite's own), ``-queue`` (the writers'),
    and the directory ``-values`` with large values: a copy needs all but ``-shm`` and
    ``-queue``, made while nobody writes.

    `transaction` makes one step of any number of operations on the dictionaries of the file.

    Costs: an operation on one item is one SQL statement, with `fsync` one sync of the log; bulk
    operations put hundreds of items into one transaction; `len` is one query.

    Args:
        path: The database file; made by the first operation. A file system that machines
            share over a network is refused.
        root_prefix: What the names of all items begin with, levels ended by ``/``.
        serialization_format: See PersiDict; also the extension of the names. Items with
            another extension are left alone.
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of.
        fsync: Whether what was written survives a power failure. Without it, a power failure
            takes back the latest writes, each whole, and leaves the database sound; values in
            files of their own are synced all the same, before they replace anything.
        large_value_size: From how many stored bytes on a value is kept in a file of its own.
        timeout: How many seconds a write waits for other writers, before it raises
            BackendError.
        codec: How values become bytes, in place of what the format says; see StoredDict.
        protection: `Signed`, `Encrypted`, or None: whether stored bytes are trusted unseen.
        read_only: Whether this handle refuses to change items; see `read_only()`. It makes
            no file: one that is missing has no items. SQLite's log and its index stand
            beside the file while somebody reads, and a snapshot puts an empty ``.hold`` among
            large values, lest they be deleted meanwhile.

    Raises:
        BackendError: The file is no database, or of another application, or of a later
            version of this one, or lies on a network file system.
        ValueError: `path` is a directory or empty, or a number is out of range.
        TypeError: An argument is of a wrong type.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     d = SQLiteDict(path=f"{place}/items.db")
        ...     d["users", "ann"] = {"age": 31}
        ...     d["users", "ann"]
        {'age': 31}
    """

    _store: SQLiteStore

    path: str
    root_prefix: str
    fsync: bool
    large_value_size: int
    timeout: float

    def __init__(
        self,
        *,
        path: str | os.PathLike[str],
        root_prefix: str = "",
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        fsync: bool = True,
        large_value_size: int = DEFAULT_LARGE_VALUE_SIZE,
        timeout: float = 60.0,
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
        self.path = absolute_directory("path", path)
        if os.path.isdir(self.path):
            raise ValueError(f"path {self.path!r} is a directory; it must be a file")
        if not isinstance(root_prefix, str):
            raise TypeError(f"root_prefix must be a str, not {type(root_prefix).__name__}")
        self.root_prefix = f"{root_prefix}/" if root_prefix.strip("/") else ""
        self.root_prefix = self.root_prefix.lstrip("/").replace("//", "/")
        self.fsync = check_flag("fsync", fsync)
        self.large_value_size = check_int("large_value_size", large_value_size, at_least=1)
        self.timeout = check_seconds("timeout", timeout)
        store = SQLiteStore(
            self.path,
            fsync=self.fsync,
            large_value_size=large_value_size,
            timeout=timeout,
            for_reading=read_only,
        )
        self._attach(
            store.scoped(self.root_prefix),
            self._chosen_codec(compress=True),
            PlainNaming(serialization_format),
        )

    def _own_params(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "root_prefix": self.root_prefix,
            "fsync": self.fsync,
            "large_value_size": self.large_value_size,
            "timeout": self.timeout,
        }

    def _place(self) -> Place:
        return place("sqlite", path_in_url(self.path), "path")

    def _enter(self, prefix: SafeStrTuple) -> None:
        self.root_prefix += self._naming.prefix_of(prefix)

    # ------------------------------------------------------------------ many items

    def _count(self) -> int:
        return self._store.count(f".{self.serialization_format}")

    def _items(self) -> Iterator[_Entry]:
        return _Rows(self, self._decoded_rows())

    def _items_written(self, is_wanted: Callable[[float], bool]) -> Iterator[_Entry]:
        return self._decoded_rows(is_wanted)

    def _decoded_rows(self, is_wanted: Callable[[float], bool] | None = None) -> Iterator[_Entry]:
        unreadable = UnreadableItems()
        key_of = self._naming.key_of
        for name, data, info in self._store.rows():
            key = key_of(name)
            if key is None or (is_wanted is not None and not is_wanted(info.last_modified)):
                continue
            try:
                value = self._decode(key, data)
            except Exception as error:  # raised when all others have been read
                unreadable.add(key, error)
                continue
            yield key, value, info.last_modified
        unreadable.raise_if_any()

    def _remove_all(self) -> None:
        """Delete all items, some thousand in one transaction."""
        self._store.clear(f".{self.serialization_format}")

    # ------------------------------------------------------------------ the file

    @property
    def size_in_bytes(self) -> int:
        """How much room the whole file takes, with its log and the large values beside it."""
        return self._store.size_on_disk()

    def compact(self) -> None:
        """Give back to the file system what the file does not need.

        Rewrites the whole file, for all the dictionaries in it; writers wait as long, readers
        do not. Also deletes large values that killed writers left.

        Raises:
            BackendError: This thread has a transaction open.
            MutationPolicyError: The handle is read-only.
        """
        self._refuse_if_read_only()
        self._store.compact()

    def verify(self) -> list[str]:
        """Check the whole file, the large values beside it, and that every item can be read.

        Returns:
            What is wrong, in words; empty: nothing is.
        """
        problems = list(self._store.problems())
        for name in self._store.names():
            if name.endswith(f".{self.serialization_format}") and not self._naming.key_of(name):
                problems.append(f"{self._store.location(name)!r} is not the name of a key")
        for key in self._keys():
            try:
                self._value(key)
            except LookupError:
                continue
            except Exception as error:  # reported, like all the others
                problems.append(f"{key!r}: {error}")
        return problems


class _Rows(Listing[_Entry]):
    """Items that are counted without being read; all of them would be in memory at once."""

    _d: SQLiteDict[Any]

    def __new__(cls, d: SQLiteDict[Any], rows: Iterator[_Entry]) -> Self:
        self = super().__new__(cls, d._listed, rows)
        self._d = d
        return self

    def count(self) -> int:
        return self._d._count()
