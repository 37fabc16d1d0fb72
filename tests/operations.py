"""The operations on one item of a FileDirDict, and what tests ask about its files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from persidict import ANY_ETAG, ITEM_NOT_AVAILABLE, FileDirDict
from tests.faults import files_below

KEY = ("dir", "k")
ITEMS = {KEY: "old", ("dir", "sibling"): "s", ("top",): "t"}

Access = Callable[[FileDirDict[Any], Any], Any]
Write = Callable[[FileDirDict[Any], Any, Any], Any]

READS: dict[str, Access] = {
    "[]": lambda d, key: d[key],
    "get": lambda d, key: d.get(key),
    "in": lambda d, key: key in d,
    "etag": lambda d, key: d.etag(key),
    "timestamp": lambda d, key: d.timestamp(key),
    "get_with_etag": lambda d, key: d.get_with_etag(key),
}
WRITES: dict[str, Write] = {
    "assignment": lambda d, key, value: d.__setitem__(key, value),
    "setdefault": lambda d, key, value: d.setdefault(key, value),
    "transform_item": lambda d, key, value: d.transform_item(key, transformer=lambda _: value),
    "set_item_if": lambda d, key, value: d.set_item_if(
        key, value=value, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
}
DELETIONS: dict[str, Access] = {
    "del": lambda d, key: d.__delitem__(key),
    "discard": lambda d, key: d.discard(key),
    "pop": lambda d, key: d.pop(key),
    "discard_if": lambda d, key: d.discard_if(
        key, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
}


def writing(write: Write, value: Any = "new") -> Access:
    """Make a write of one value of it."""
    return lambda d, key: write(d, key, value)


ACCESSES = READS | {name: writing(write) for name, write in WRITES.items()} | DELETIONS
"""Everything that looks at or changes one item."""

CHANGES = {name: ACCESSES[name] for name in (WRITES | DELETIONS) if name != "setdefault"}
"""Everything that changes an item that exists."""


def content(dictionary: FileDirDict[Any]) -> dict[tuple[str, ...], Any]:
    return {key.strings: value for key, value in dictionary.items()}


def path_of(dictionary: FileDirDict[Any], key: Any) -> Path:
    """Find out which file an item has, by writing it elsewhere."""
    twin: FileDirDict[Any] = FileDirDict(
        **{**dictionary.get_params(), "base_dir": f"{dictionary.base_dir}-twin"}
    )
    twin[key] = ""
    [relative] = files_below(Path(twin.base_dir))
    twin.clear()
    return Path(dictionary.base_dir, relative)


def said(error: BaseException) -> str:
    """All that an error says: its message and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


def assert_names_operation_and_key(error: BaseException, key: tuple[str, ...] = KEY) -> None:
    assert "during '" in said(error)
    assert all(part in said(error) for part in key)


@contextmanager
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail whoever pauses before trying again."""

    def refuse(seconds: float) -> None:
        raise AssertionError(f"waited for {seconds} s")

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", refuse)
        yield


def state_of_files(place: Path) -> dict[str, tuple[int, bytes]]:
    return {
        name: ((place / name).lstat().st_mtime_ns, (place / name).read_bytes())
        for name in files_below(place)
    }
