"""Walking through the directories below a place, and what is cleared away in passing."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from persidict.stores.files.draft import TEMP_PREFIX
from persidict.stores.files.lock import remove_unclaimed
from persidict.stores.files.tree import FileTree
from persidict.stores.files.version import ABSENT_ERRORS, info_of
from persidict.stores.object_store import CommonPrefix, ObjectInfo

_TEMP_MARK: Final = f"/{TEMP_PREFIX}"


def list_names(tree: FileTree, prefix: str = "", *, page_size: int | None = None) -> Iterator[str]:
    """List the names of files, in any order; `page_size`: how many are probably wanted."""
    for above, names in list_groups(tree, prefix, page_size=page_size):
        if prefix.startswith(above):
            beginning = prefix[len(above) :]
            yield from (above + name for name in names if name.startswith(beginning))
        else:
            yield from (above + name for name in names)


def list_groups(
    tree: FileTree, prefix: str = "", *, page_size: int | None = None
) -> Iterator[tuple[str, Sequence[str]]]:
    """List files by directories: what the names of a group begin with, and what follows.

    Those of the directory that `prefix` ends in come all, also what does not begin with it.
    Links are looked for on the way to where the listing begins; below, what a directory
    tells of its entries is relied upon.

    Args:
        tree: Where to list.
        prefix: What names begin with.
        page_size: Yield the first group as soon as there are so many in it: the caller will
            probably stop.
    """
    head, _, _ = prefix.rpartition("/")
    pending = [f"{head}/" if head else ""]
    if tree.link_on_the_way(tree.path_of(pending[0])) is not None:
        return
    is_first = True
    while pending:
        above = pending.pop()
        directories: list[str] = []
        if page_size is None and not is_first:
            files, directories = read_directory(tree, above)
            if files:
                yield above, files
        else:
            # who takes the first entry may want no other
            yield from _read_some(tree, above, page_size or 1, directories)
            is_first = False
        if prefix:
            directories = [
                name for name in directories if name.startswith(prefix) or prefix.startswith(name)
            ]
        pending += directories


def _scan(tree: FileTree, above: str) -> os._ScandirIterator[str] | None:
    try:
        return os.scandir(tree.path_of(above))
    except OSError as error:
        if error.errno in ABSENT_ERRORS:
            return None
        raise


def _read_some(
    tree: FileTree, above: str, count: int, directories: list[str]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the first files of a directory, and only if need be all others.

    Takes note of its directories. Nothing is open while the caller thinks.
    """
    scan = _scan(tree, above)
    if scan is None:
        return
    with scan:
        first = _first_files(tree, above, scan, count)
    if first:
        yield above, first
    files, inside = read_directory(tree, above)
    directories += inside
    if len(first) == 1 and first[0] in files:
        files.remove(first[0])
        others = files
    else:
        seen = set(first)
        others = [name for name in files if name not in seen]
    if others:
        yield above, others


def _first_files(
    tree: FileTree, above: str, scan: os._ScandirIterator[str], count: int
) -> list[str]:
    first: list[str] = []
    for entry in scan:
        if entry.name.startswith(TEMP_PREFIX):
            if tree.is_swept:
                remove_unclaimed(tree.path_of(above), [entry.path])
        elif entry.is_file(follow_symlinks=False):
            first.append(entry.name)
            if len(first) >= count:
                break
    return first


def read_directory(tree: FileTree, above: str) -> tuple[list[str], list[str]]:
    """Return the files in a directory, and the directories by their whole names, with ``/``.

    Left-over temporary files of dead writers are removed in passing.
    """
    scan = _scan(tree, above)
    if scan is None:
        return [], []
    entries = list(scan)
    files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    directories = []
    if len(files) != len(entries):
        directories = [
            f"{above}{entry.name}/" for entry in entries if entry.is_dir(follow_symlinks=False)
        ]
    if _TEMP_MARK in f"/{'/'.join(files)}":
        if tree.is_swept:
            begins = tree.path_of(above)
            remove_unclaimed(
                begins, [begins + name for name in files if name.startswith(TEMP_PREFIX)]
            )
        files = [name for name in files if not name.startswith(TEMP_PREFIX)]
    return files, directories


def list_infos(
    tree: FileTree, prefix: str, start_after: str | None, delimiter: Literal["/"] | None
) -> Iterator[ObjectInfo | CommonPrefix]:
    """List files in the order of their names; see the port."""
    head, _, _ = prefix.rpartition("/")
    pending = [f"{head}/" if head else ""]
    if tree.link_on_the_way(tree.path_of(pending[0])) is not None:
        return
    while pending:
        name = pending.pop()
        if not name.endswith("/") and name:
            if start_after is None or name > start_after:
                info = _info_of(tree, name)
                if info is not None:
                    yield info
            continue
        if delimiter and len(name) > len(prefix):
            if (start_after is None or name > start_after) and any(
                True for _ in list_names(tree, name, page_size=1)
            ):
                yield CommonPrefix(name)
            continue
        files, directories = read_directory(tree, name)
        # "a.pkl" comes before "a/b.pkl": the order of whole names, not of directories
        inside = [
            entry
            for entry in itertools.chain((name + file for file in files), directories)
            if entry.startswith(prefix) or (entry.endswith("/") and prefix.startswith(entry))
        ]
        pending += sorted(inside, reverse=True)


def _info_of(tree: FileTree, name: str) -> ObjectInfo | None:
    """Look at a listed file; None if it has vanished, or was replaced by something else."""
    path = tree.path_of(name)
    try:
        status = os.lstat(path)
        return info_of(name, status, path) if stat.S_ISREG(status.st_mode) else None
    except FileNotFoundError:
        return None
