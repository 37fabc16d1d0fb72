"""How one file is replaced or deleted: aside, under its directory's lock, in one step."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from persidict.buffers import pieces
from persidict.exceptions import BackendError, PreconditionFailed
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.files import platform
from persidict.stores.files.lock import DirectoryLock, Held
from persidict.stores.files.platform import IS_WINDOWS
from persidict.stores.files.tree import FileTree
from persidict.stores.files.version import (
    NewFile,
    await_next_tick,
    check_version,
    etag_of,
    make_newer,
    name_too_long,
    own_etag,
    set_mtime,
)
from persidict.stores.object_store import ANY_VERSION, AnyVersion, Buffer

ResultType = TypeVar("ResultType")

TEMP_PREFIX: Final = "%tmp."
"""How temporary files begin: with a character that no name of an item contains."""

_count: Final = itertools.count()
_noise: str
"""No other process has it but children forked by C code, which have other numbers."""


def _renew_noise() -> None:
    global _noise
    _noise = os.urandom(8).hex()


_renew_noise()
if hasattr(os, "register_at_fork"):
    # a later child may get the number of one that was killed
    os.register_at_fork(after_in_child=_renew_noise)

_FEW: Final = 64 * 1024
"""So many bytes are written so quickly that others can wait for it."""
_SHORT: Final = 250
"""Paths of so many characters are far from any limit, also with a temporary file's name."""
_MAX_RACES: Final = 1000
_ENCODING: Final = sys.getfilesystemencoding()
_ERRORS: Final = sys.getfilesystemencodeerrors()


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
    temp_path = ""
    syncs_late = if_match is not None and path in tree.lost
    is_missing = False
    try:
        for _ in range(_MAX_RACES):
            temp_path = f"{directory}{os.sep}{TEMP_PREFIX}{_noise}{os.getpid():x}.{next(_count):x}"
            try:
                tree.refuse_links(path)
                if is_missing:
                    tree.make_directory(directory)
                etag = _write_once(
                    tree, directory, path, temp_path, data, if_match, if_none_match,
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
            raise name_too_long(path, max(path, temp_path, key=len)) from error
        raise
    raise BackendError(f"what is written into {directory!r} vanishes at once", backend="files")


def _write_once(
    tree: FileTree,
    directory: str,
    path: str,
    temp_path: str,
    data: Buffer,
    if_match: ETagValue | None,
    if_none_match: AnyVersion | None,
    *,
    sync_directory: bool,
    syncs_late: bool,
) -> ETagValue:
    """Fill a temporary file and put it in the place of the old one, or leave no trace of it.

    Raises:
        FileNotFoundError, NotADirectoryError: There is no such directory, or the temporary
            file was taken for a dead writer's.
    """
    lock: DirectoryLock | None = None
    at: int | None = None
    try:
        if len(data) <= _FEW and not tree.fsync and len(path) <= _SHORT and not IS_WINDOWS:
            if if_match is not None or if_none_match is not None:
                check_version(tree.status_of(path), path, if_match, if_none_match)
            lock = DirectoryLock(directory, timeout=tree.lock_timeout)
            at = lock.at
        # without the lock, this spares a doomed write its temporary file
        old = tree.status_of(path)
        check_version(old, path, if_match, if_none_match)
        # nobody may read the new version who may not read the old one
        mode = tree.mode_of(old) | 0o600
        # made in the directory that is locked, which then is not removed, or not at all
        name = temp_path if at is None else temp_path[len(directory) + 1 :]
        held = Held(name, platform.CREATE_FLAGS, mode, at=at)
        temp = held.descriptor
        try:
            fd = temp.fileno()
            if held.is_inherited or (at is None and not held.claim()):
                raise FileNotFoundError(errno.ENOENT, "taken for a dead writer's", temp_path)
            new = _fill(fd, temp_path, data, sync=tree.fsync and not syncs_late)
            if lock is None:
                if IS_WINDOWS:  # it renames no open files
                    temp.close()
                lock = DirectoryLock(directory, timeout=tree.lock_timeout)
                lock.is_disturbed = True  # others may have been here
            new = _take_place(
                tree, lock, path, fd, temp_path, old, new, if_match, if_none_match,
                sync=tree.fsync and syncs_late,
            )  # fmt: skip
            etag = own_etag(new.mtime_ns, new.size, new.inode)
            if etag is None:  # then the time of the renaming counts
                status = os.lstat(path)
            lock.release()
            if sync_directory:
                lock.sync()
            if etag is None:
                lock.descriptor.close()
                await_next_tick(status)
                etag = etag_of(status, path if IS_WINDOWS else fd)
            return etag
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                platform.unlink(temp_path)
            tree.prune(directory)
            raise
        finally:
            temp.close()
    finally:
        if lock is not None:
            lock.descriptor.close()


def _fill(fd: int, temp_path: str, data: Buffer, *, sync: bool) -> NewFile:
    """Write the bytes and the modification time."""
    for piece in (data,) if type(data) is bytes else pieces(data):
        written = os.write(fd, piece)
        while written < len(piece):
            written += os.write(fd, memoryview(piece)[written:])
    new = set_mtime(fd, temp_path)
    if sync:
        os.fsync(fd)
    return new


def _take_place(
    tree: FileTree,
    lock: DirectoryLock,
    path: str,
    fd: int,
    temp_path: str,
    old: os.stat_result | None,
    new: NewFile,
    if_match: ETagValue | None,
    if_none_match: AnyVersion | None,
    *,
    sync: bool,
) -> NewFile:
    """Let a new file take the place of the old one, if that is as the caller requires.

    `old` is looked at again where others may have changed it.

    Returns:
        What the new file was like just before.
    """
    may_exchange = not tree.fsync
    while True:
        if lock.is_disturbed:
            lock.is_disturbed = False
            lock.descriptor.fileno()  # closed in a child that was forked here: ValueError
            old = tree.status_of(path)
            check_version(old, path, if_match, if_none_match)
        if old is not None:
            if old.st_mtime_ns >= new.mtime_ns:
                new = make_newer(temp_path, new, old)
            mode = tree.mode_of(old)
            if mode != new.mode & 0o777 and not IS_WINDOWS:
                os.fchmod(fd, mode)
        if sync:
            os.fsync(fd)
            sync = False
        if old is not None and may_exchange and platform.can_exchange(old):
            # os.fsencode does the same, and takes longer to find out how
            names = temp_path.encode(_ENCODING, _ERRORS), path.encode(_ENCODING, _ERRORS)
            swap, here, how = platform.renameat2, platform.AT_FDCWD, platform.RENAME_EXCHANGE
            assert swap is not None
            # no call of Python code between this look and what is done: see DirectoryLock
            if not lock.is_disturbed:
                if swap(here, names[0], here, names[1], how) == 0:
                    try:
                        os.unlink(temp_path)
                    except FileNotFoundError:  # taken for a dead writer's
                        return new
                    return new
                may_exchange = False
                platform.note_refusal(old)
        elif IS_WINDOWS:
            platform.replace(temp_path, path)
            return new
        elif not lock.is_disturbed:
            os.replace(temp_path, path)
            return new


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
