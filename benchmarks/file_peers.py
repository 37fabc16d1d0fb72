"""Other ways to keep values in files, each as a mapping."""

from __future__ import annotations

import os
import pickle
import shelve
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Final, NamedTuple

from benchmarks.files import PlainFiles
from benchmarks.peers import load


class FilePeer(NamedTuple):
    """A library.

    Attributes:
        title: What it is called in the tables.
        open: Makes a mapping in an empty directory.
        is_durable: Whether what was written survives a power failure.
    """

    title: str
    open: Callable[[str], MutableMapping[str, Any]]
    is_durable: bool = False


class _PickleFiles(MutableMapping[str, Any]):
    """One plain pickle for each item, written as one writes it by hand."""

    def __init__(self, directory: str, *, fsync: bool) -> None:
        self._directory = directory
        self._files = PlainFiles(directory, fsync=fsync)

    def __getitem__(self, key: str) -> Any:
        return self._files.read(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._files.write(key, value)

    def __delitem__(self, key: str) -> None:
        os.remove(self._files.path(key))

    def __contains__(self, key: object) -> bool:
        return os.path.isfile(self._files.path(str(key)))

    def __iter__(self) -> Iterator[str]:
        return (name.removesuffix(".pkl") for name in os.listdir(self._directory))

    def __len__(self) -> int:
        return len(os.listdir(self._directory))

    def clear(self) -> None:
        for name in os.listdir(self._directory):
            os.remove(os.path.join(self._directory, name))


class _Pickled(MutableMapping[str, Any]):
    """Values in a mapping that holds bytes only."""

    def __init__(self, mapping: MutableMapping[str, bytes]) -> None:
        self._mapping = mapping

    def __getitem__(self, key: str) -> Any:
        return pickle.loads(self._mapping[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self._mapping[key] = pickle.dumps(value, 5)

    def __delitem__(self, key: str) -> None:
        del self._mapping[key]

    def __contains__(self, key: object) -> bool:
        return key in self._mapping

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self._mapping)

    def clear(self) -> None:
        for key in list(self._mapping):
            del self._mapping[key]


class _Shelf(shelve.DbfilenameShelf[Any]):
    """A shelf whose `clear` does not look for the first key again and again."""

    def clear(self) -> None:
        for key in list(self):
            del self[key]


def _open_diskcache(directory: str) -> Any:
    return load("diskcache").Index(directory)


def _open_zict(directory: str) -> Any:
    return _Pickled(load("zict").File(directory))


def _open_sqlitedict(directory: str) -> Any:
    sqlitedict = load("sqlitedict")
    return sqlitedict.SqliteDict(os.path.join(directory, "items.sqlite"), autocommit=True)


def _open_shelve(directory: str) -> Any:
    return _Shelf(os.path.join(directory, "items"), protocol=5)


FILE_PEERS: Final = (
    FilePeer("plain pickle files", lambda place: _PickleFiles(place, fsync=False)),
    FilePeer("diskcache.Index", _open_diskcache),
    FilePeer("zict.File", _open_zict),
    FilePeer("sqlitedict, autocommit", _open_sqlitedict),
    FilePeer("shelve", _open_shelve),
    FilePeer("plain pickle files, fsync", lambda place: _PickleFiles(place, fsync=True), True),
)
