"""How one file is replaced or deleted: aside, under its directory's lock, in one step."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final, TypeVar

from persidict.exceptions import BackendError, PreconditionFailed
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.files import platform
from persidict.stores.files.draft import Draft, temp_name
from persidict.stores.files.lock import DirectoryLock
from persidict.stores.files.platform import IS_WINDOWS
from persidict.stores.files.tree import FileTree
from persidict.stores.files.version import check_version, name_too_long
from persidict.stores.object_store import ANY_VERSION, AnyVersion, Buffer

ResultType = TypeVar("ResultType")

_FEW: Final = 64 * 1024
"""So many bytes are written so quickly that others can wait for it."""
_SHORT: Final = 250
"""Paths of so many characters are far from any limit, also with a temporary file's name."""
_MAX_RACES: Final = 1000


def write_file(
    tree: FileTree,
    path: str,
    data: Buffer,
    if_match: ETagValue | None,
    if_none_match: AnyVersion | None,
    *,
    sync_directory: bool,
) -> ETagValue:
    """Write a file whole, or not at all; return its version.

    The bytes go into a temporary file, which takes the place of the old one under the lock
    of the directory (rename(2)). Where nothing need be durable, the two are swapped and the
    old one is deleted (renameat2(2)): ext4 and others write a file to the disk before it
    may replace another, but not before it is swapped.

    The bytes are written and synced before the lock is taken, so that writers do not wait
    for each other's; a few that are not synced are written after it, which spares a second
    look. Who has lost a race for this version syncs them under the lock next time: then
    rivals who sync first have no time to win again.

    Args:
        tree: Where the file lies.
        path: The file.
        data: Its bytes.
        if_match: Write only over this version.
        if_none_match: ``"*"``: write only if there is no file.
        sync_directory: Whether to make the file's name durable, too.

    Raises:
        PreconditionFailed: The condition does not hold; nothing was written.
        BackendError: What lies there is no file, or the lock was not to be had in time.
    """
    directory = tree.directory_of(path)
    # Windows renames no open files, and syncs no others
    syncs_late = if_match is not None and path in tree.lost and not IS_WINDOWS
    is_missing = False
    try:
        for _ in range(_MAX_RACES):
            try:
                tree.refuse_links(path)
                if is_missing:
                    tree.make_directory(directory)
                etag = _write_once(
                    tree, directory, path, data, if_match, if_none_match,
                    sync_directory=sync_directory, syncs_late=syncs_late,
                )  # fmt: skip
            except FileNotFoundError:
                # no directory, or it went, or a cleaner came before the new file was claimed
                is_missing = True
            except NotADirectoryError:
                if is_missing:
                    raise
                is_missing = True
            except BaseException:
                if is_missing:  # the directory may have been made for nothing
                    tree.prune(directory)
                raise
            else:
                if syncs_late:
                    tree.lost.discard(path)
                return etag
    except PreconditionFailed:
        if if_match is not None and tree.fsync:
            tree.lost.put(path, True)
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            temp_path = os.path.join(directory, temp_name())
            raise name_too_long(path, max(path, temp_path, key=len)) from error
        raise
    raise BackendError(f"what is written into {directory!r} vanishes at once", backend="files")


def _write_once(
    tree: FileTree,
    directory: str,
    path: str,
    data: Buffer,
    if_match: ETagValue | None,
    if_none_match: AnyVersion | None,
    *,
    sync_directory: bool,
    syncs_late: bool,
) -> ETagValue:
    """Make a draft and put it in the place of the old file, or leave no trace of it.

    Raises:
        FileNotFoundError, NotADirectoryError: As `Draft` does.
    """
    lock: DirectoryLock | None = None
    try:
        if len(data) <= _FEW and not tree.fsync and len(path) <= _SHORT and not IS_WINDOWS:
            if if_match is not None or if_none_match is not None:
                check_version(tree.status_of(path), path, if_match, if_none_match)
            lock = DirectoryLock(directory, timeout=tree.lock_timeout)
        draft = Draft(
            tree, path, data, if_match, if_none_match, lock, sync=tree.fsync and not syncs_late
        )
        try:
            if lock is None:
                lock = DirectoryLock(directory, timeout=tree.lock_timeout)
                lock.is_disturbed = True  # others may have been here
            seen = draft.take_place(
                tree, lock, if_match, if_none_match, sync=tree.fsync and syncs_late
            )
            lock.release()
            if sync_directory:
                lock.sync()
            if isinstance(seen, str):
                return seen
            lock.descriptor.close()
            return draft.settled(seen)
        except BaseException:
            draft.drop(tree)
            raise
        finally:
            draft.descriptor.close()
    finally:
        if lock is not None:
            try:
                lock.descriptor.close()
            finally:
                lock.beside.close()


def delete_file(tree: FileTree, path: str, if_match: ETagValue | AnyVersion | None) -> None:
    """Delete a file under the lock of its directory, and the directory if it is left empty.

    Raises:
        OSError: There is no such file, or it can't be deleted.
        PreconditionFailed: It is another version than `if_match`.
    """
    tree.refuse_links(path)
    directory = tree.directory_of(path)
    change_directory(tree, directory, lambda lock: delete_locked(tree, lock, path, if_match))
    tree.prune(directory)


def change_directory(
    tree: FileTree, directory: str, change: Callable[[DirectoryLock], ResultType]
) -> ResultType:
    """Make a change under the lock of a directory that exists, and make it durable if need be.

    Raises:
        FileNotFoundError: There is no such directory.
        BackendError: The lock was not to be had in time.
    """
    for _ in range(_MAX_RACES):
        lock = DirectoryLock(directory, timeout=tree.lock_timeout)
        try:
            # while we waited, the directory may have been removed and made anew
            if not lock.is_of(directory, follow_link=len(directory) <= len(tree.root)):
                continue
            result = change(lock)
            lock.release()
            if tree.fsync:
                lock.sync()
            return result
        finally:
            lock.descriptor.close()
    raise BackendError(f"{directory!r} is replaced again and again", backend="files")


def delete_locked(
    tree: FileTree, lock: DirectoryLock, path: str, if_match: ETagValue | AnyVersion | None
) -> None:
    """Delete a file of a directory whose lock is held."""
    version = None if if_match == ANY_VERSION else if_match
    while True:
        lock.is_disturbed = False
        status = os.lstat(path)
        tree.require_file(path, status)
        if version is not None:
            check_version(status, path, ETagValue(version), None)
        if IS_WINDOWS:
            platform.unlink(path)
            return
        # no call of Python code between this look and what is done: see DirectoryLock
        if not lock.is_disturbed:
            os.unlink(path)
            return
