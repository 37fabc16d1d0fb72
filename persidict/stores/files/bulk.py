"""Many files at once: written by several threads, deleted under one lock, few syncs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from persidict.exceptions import BackendError
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.files import platform
from persidict.stores.files.lock import DirectoryLock, is_held_by_this_thread
from persidict.stores.files.tree import FileTree
from persidict.stores.files.version import ABSENT_ERRORS
from persidict.stores.files.write import change_directory, delete_locked, write_file
from persidict.stores.object_store import AnyVersion, Buffer
from persidict.stores.shared.parallel import WorkerPool, map_in_order

_DELETE_BATCH: Final = 500
_PUT_BATCH: Final = 128

_Outcome = tuple[str, ETagValue | Exception]


def put_many(
    tree: FileTree,
    pool: WorkerPool,
    items: Iterable[tuple[str, Buffer]],
    if_none_match: AnyVersion | None,
) -> Iterator[_Outcome]:
    """Write many files durably; what is yielded is durable.

    They are written by several threads at once, and a batch of them shares the syncs of its
    directories.
    """

    def put(item: tuple[str, Buffer]) -> _Outcome:
        name, data = item
        try:
            path = tree.path_of(name)
            return name, write_file(tree, path, data, None, if_none_match, sync_directory=False)
        except Exception as error:  # reported to the caller, item by item
            return name, error

    remaining = iter(items)
    while batch := list(itertools.islice(remaining, _PUT_BATCH)):
        if is_held_by_this_thread():
            outcomes = list(map(put, batch))
        else:
            outcomes = list(map_in_order(put, batch, pool))
        written = [name for name, outcome in outcomes if not isinstance(outcome, Exception)]
        failed = _sync_directories_of(tree, written)
        for name, outcome in outcomes:
            yield name, failed.get(os.path.dirname(tree.path_of(name)), outcome)


def _sync_directories_of(tree: FileTree, names: Iterable[str]) -> dict[str, Exception]:
    """Sync the directories of files; return those where that failed, and why."""
    failed: dict[str, Exception] = {}
    for directory in {os.path.dirname(tree.path_of(name)) for name in names}:
        try:
            platform.sync_directory(directory)
        except FileNotFoundError:
            continue  # a rival has deleted the files again: nothing is left to keep
        except OSError as error:
            failed[directory] = error
    return failed


def delete_many(tree: FileTree, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
    """Delete many files; yield those that could not be deleted, and why."""
    for above, group in itertools.groupby(names, key=lambda name: name.rpartition("/")[0]):
        while batch := list(itertools.islice(group, _DELETE_BATCH)):
            yield from _delete_batch(tree, above, batch)


def _delete_batch(tree: FileTree, above: str, names: list[str]) -> list[tuple[str, Exception]]:
    """Delete files of one directory under one lock, with one sync."""
    directory = os.path.dirname(tree.path_of(f"{above}/" if above else ""))
    try:
        tree.refuse_links(os.path.join(directory, ""))
        failures = change_directory(tree, directory, _deletion_of(tree, names))
    except (OSError, BackendError) as error:
        if getattr(error, "errno", None) not in ABSENT_ERRORS:
            return [(name, error) for name in names]
        failures = []
    tree.prune(directory)
    return failures


def _deletion_of(
    tree: FileTree, names: list[str]
) -> Callable[[DirectoryLock], list[tuple[str, Exception]]]:
    def delete_each(lock: DirectoryLock) -> list[tuple[str, Exception]]:
        failures: list[tuple[str, Exception]] = []
        for name in names:
            try:
                delete_locked(tree, lock, tree.path_of(name), None)
            except (OSError, BackendError) as error:
                if getattr(error, "errno", None) not in ABSENT_ERRORS:
                    failures.append((name, error))
        return failures

    return delete_each
