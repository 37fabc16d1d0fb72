"""Many files at once: written by several threads, deleted under one lock, few syncs."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from persidict.exceptions import BackendError
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.files import platform
from persidict.stores.files.draft import Draft, take_places
from persidict.stores.files.lock import DirectoryLock, is_held_by_this_thread
from persidict.stores.files.tree import FileTree
from persidict.stores.files.version import ABSENT_ERRORS
from persidict.stores.files.write import change_directory, delete_locked, write_file
from persidict.stores.object_store import AnyVersion, Buffer
from persidict.stores.shared.parallel import WorkerPool, map_in_order

_DELETE_BATCH: Final = 500
_PUT_BATCH: Final = 128
_OPEN_AT_ONCE: Final = 32
"""So many new files, each of them open, are collected to take their places."""

_TOO_MANY_OPEN: Final = (errno.EMFILE, errno.ENFILE)
_OF_OTHERS: Final = (*ABSENT_ERRORS, *_TOO_MANY_OPEN, errno.ENOSPC, errno.EDQUOT)
"""What fails because of other files: those that cleaners delete, or that are being made."""

_PAUSE_SECONDS: Final = 0.01
_PATIENCE_SECONDS: Final = 1.0
"""So long a batch waits for files that other threads have open, each for a moment."""

_Outcome = tuple[str, ETagValue | Exception]


def put_many(
    tree: FileTree,
    pool: WorkerPool,
    items: Iterable[tuple[str, Buffer]],
    if_none_match: AnyVersion | None,
) -> Iterator[_Outcome]:
    """Write many files durably; what is yielded is durable.

    They are written and synced by several threads at once. This thread lets many at a time
    take their places: it alone asks for the lock of their directory, and once. A batch of
    them shares the syncs of its directories.
    """
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, _PUT_BATCH)):
        if is_held_by_this_thread():
            outcomes = [_put_alone(tree, item, if_none_match) for item in batch]
        else:
            outcomes = _put_together(tree, pool, batch, if_none_match)
        written = [name for name, outcome in outcomes if not isinstance(outcome, Exception)]
        failed = _sync_directories_of(tree, written)
        for name, outcome in outcomes:
            yield name, failed.get(os.path.dirname(tree.path_of(name)), outcome)


def _put_alone(
    tree: FileTree, item: tuple[str, Buffer], if_none_match: AnyVersion | None
) -> _Outcome:
    name, data = item
    path = tree.path_of(name)
    try:
        return name, write_file(tree, path, data, None, if_none_match, sync_directory=False)
    except Exception as error:  # reported to the caller, item by item
        return name, error


def _put_together(
    tree: FileTree,
    pool: WorkerPool,
    batch: list[tuple[str, Buffer]],
    if_none_match: AnyVersion | None,
) -> list[_Outcome]:
    """Write files, each of which takes its place in turn.

    What another attempt may mend is written alone, and so is what comes after it: of two
    values for one name the later stays, and nothing of the batch is open any more.
    """
    drafts: list[Draft] = []

    def prepare(item: tuple[str, Buffer]) -> Draft | Exception:
        try:
            draft = _draft_of(tree, tree.path_of(item[0]), item[1], if_none_match)
            drafts.append(draft)
            return draft
        except Exception as error:  # reported to the caller, item by item
            return error

    results: list[ETagValue | Exception | None] = []
    try:
        with contextlib.closing(map_in_order(prepare, batch, pool)) as prepared:
            _take_in_turn(tree, prepared, results, if_none_match)
    finally:
        for draft in drafts:
            if isinstance(draft.outcome, str):
                draft.descriptor.close()
            else:
                draft.drop(tree)
    return _put_rest(tree, batch, results, if_none_match)


def _take_in_turn(
    tree: FileTree,
    prepared: Iterator[Draft | Exception],
    results: list[ETagValue | Exception | None],
    if_none_match: AnyVersion | None,
) -> None:
    """Let new files take their places, and add what becomes of each, up to one that is None."""
    while None not in results and (group := list(itertools.islice(prepared, _OPEN_AT_ONCE))):
        ready = itertools.takewhile(lambda made: not _may_be_mended(made), group)
        take_places(tree, [made for made in ready if isinstance(made, Draft)], if_none_match)
        for made in group:
            result = made.outcome if isinstance(made, Draft) else made
            results.append(None if _may_be_mended(result) else result)
            if isinstance(made, Draft):
                made.descriptor.close()


def _put_rest(
    tree: FileTree,
    batch: list[tuple[str, Buffer]],
    results: list[ETagValue | Exception | None],
    if_none_match: AnyVersion | None,
) -> list[_Outcome]:
    """Write what has no result yet, one after the other."""
    outcomes: list[_Outcome] = []
    waited = 0.0
    for item, result in itertools.zip_longest(batch, results):
        while result is None:
            result = _put_alone(tree, item, if_none_match)[1]
            if getattr(result, "errno", None) in _TOO_MANY_OPEN and waited < _PATIENCE_SECONDS:
                time.sleep(_PAUSE_SECONDS)
                waited += _PAUSE_SECONDS
                result = None
        outcomes.append((item[0], result))
    return outcomes


def _draft_of(tree: FileTree, path: str, data: Buffer, if_none_match: AnyVersion | None) -> Draft:
    """Make the new version of a file, and its directory if need be."""
    tree.refuse_links(path)
    try:
        return Draft(tree, path, data, None, if_none_match, None, sync=True)
    except OSError as error:
        if error.errno not in ABSENT_ERRORS:
            raise
    directory = tree.directory_of(path)
    tree.make_directory(directory)
    try:
        return Draft(tree, path, data, None, if_none_match, None, sync=True)
    except BaseException:
        tree.prune(directory)  # it may have been made for nothing
        raise


def _may_be_mended(made: object) -> bool:
    """Tell whether what became of a file may be better when it is written alone."""
    return getattr(made, "errno", None) in _OF_OTHERS


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
