"""Writes to files are durable when they return: bytes, names and directories are synced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import FileDirDict


class Watched:
    """What is synced, renamed and made by all threads, in its order; by inode numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, int, int]] = []
        self._exact = {name: getattr(os, name) for name in ("fsync", "replace", "unlink", "mkdir")}
        for name in self._exact:
            monkeypatch.setattr(os, name, getattr(self, name))

    def fsync(self, fd: int) -> None:
        self._exact["fsync"](fd)
        self.events.append(("fsync", os.fstat(fd).st_ino, 0))

    def replace(self, source: Any, target: Any, **at: Any) -> None:
        moved = os.stat(source, dir_fd=at.get("src_dir_fd")).st_ino
        self._exact["replace"](source, target, **at)
        self.events.append(("replace", moved, directory_of(target, at.get("dst_dir_fd"))))

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        directory = directory_of(path, dir_fd)
        self._exact["unlink"](path, dir_fd=dir_fd)
        self.events.append(("unlink", 0, directory))

    def mkdir(self, path: Any, *args: Any, **at: Any) -> None:
        self._exact["mkdir"](path, *args, **at)
        self.events.append(("mkdir", 0, directory_of(path, at.get("dir_fd"))))

    def not_durable(self) -> list[tuple[str, int, int]]:
        """Return what a power failure could undo, or leave without its bytes."""
        found = []
        for number, event in enumerate(self.events):
            what, moved, directory = event
            if what == "replace" and ("fsync", moved, 0) not in self.events[:number]:
                found.append(event)
            if what != "fsync" and ("fsync", directory, 0) not in self.events[number:]:
                found.append(event)
        return found


def directory_of(path: Any, dir_fd: int | None) -> int:
    return (os.stat(os.path.dirname(path) or ".") if dir_fd is None else os.fstat(dir_fd)).st_ino


def swap_after_a_lost_race(d: FileDirDict[Any]) -> None:
    seen = []

    def transform(n: int) -> int:
        seen.append(n)
        if len(seen) == 1:
            d["a"] = n + 1
        return n + 10

    d.transform_item("a", transformer=transform)
    assert seen == [1, 2]


DURABLE: dict[str, Callable[[FileDirDict[Any]], Any]] = {
    "a new item": lambda d: d.__setitem__("new", 1),
    "a new item in new directories": lambda d: d.__setitem__(("x", "y", "z"), 1),
    "another value": lambda d: d.__setitem__("a", 2),
    "another size": lambda d: d.__setitem__("a", "x" * 100_000),
    "an insertion": lambda d: d.setdefault("new", 1),
    "a swap": lambda d: d.transform_item("a", transformer=lambda n: n + 1),
    "a swap after a lost race": swap_after_a_lost_race,
    "many": lambda d: d.update({("many", f"{n}"): n for n in range(50)}),
    "many over others": lambda d: d.update({"a": 2, "b": 3}),
    "a copy": lambda d: d.copy_item("a", "c"),
    "a stream": lambda d: d.raw.__setitem__("s", d.raw["a"]),
    "a deletion": lambda d: d.__delitem__("a"),
    "many deletions": lambda d: d.discard_many(["a", "b"]),
}


@pytest.mark.parametrize("name", DURABLE)
def test_what_has_returned_outlasts_a_power_failure(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = FileDirDict[Any](base_dir=tmp_path / "items")
    d.update({"a": 1, "b": 1, "stays": 1})
    watched = Watched(monkeypatch)
    DURABLE[name](d)
    assert watched.events
    assert watched.not_durable() == []
