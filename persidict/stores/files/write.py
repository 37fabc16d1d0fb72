"""How one file is replaced or deleted: aside, under its directory's lock, in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from persidict.buffers import pieces
from persidict.exceptions import BackendError, PreconditionFailed
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.files import platform
from persidict.stores.files.lock import DirectoryLock, Held
from persidict.stores.files.tree import FileTree
from persidict.stores.files.version import (
    await_next_tick,
    check_version,
    etag_of,
    make_newer,
    name_too_long,
    next_mtime,
    own_etag,
)
from persidict.stores.object_store import ANY_VERSION, AnyVersion, Buffer

ResultType = TypeVar("ResultType")

TEMP_PREFIX: Final = "%tmp."
"""How temporary files begin: with a character that no name of an item contains."""

_NOISE_BYTES: Final = 8
_MAX_RACES: Final = 1000
_ENCODING: Final = sys.getfilesystemencoding()
_ERRORS: Final = sys.getfilesystemencodeerrors()
_UTIME_BY_FD: Final = os.utime in os.supports_fd


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

    The bytes are synced before the lock is taken, so that writers do not wait for each
    other's. Who has lost a race for this version syncs them under the lock next time: then
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
    tree.refuse_links(path)
    syncs_late = if_match is not None and path in tree.lost
    try:
        for _ in range(_MAX_RACES):
            # a look without the lock spares a doomed write its temporary file
            old = tree.status_of(path)
            check_version(old, path, if_match, if_none_match)
            temp_path = f"{directory}{os.sep}{TEMP_PREFIX}{os.urandom(_NOISE_BYTES).hex()}"
            try:
                temp = _create_temp(tree, directory, temp_path, old)
                try:
                    etag = _replace(
                        tree, directory, path, temp, temp_path, data, if_match, if_none_match,
                        sync_directory=sync_directory, syncs_late=syncs_late,
                    )  # fmt: skip
                    if syncs_late:
                        tree.lost.discard(path)
                    return etag
                finally:
                    temp.descriptor.close()
            except FileNotFoundError:
                # the directory went, or a cleaner came before the new file was claimed
                continue
    except PreconditionFailed:
        if if_match is not None and tree.fsync:
            tree.lost.put(path, True)
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise name_too_long(path, max(path, temp_path, key=len)) from error
        raise
    raise BackendError(f"what is written into {directory!r} vanishes at once", backend="files")


def _create_temp(
    tree: FileTree, directory: str, temp_path: str, old: os.stat_result | None
) -> Held:
    """Make a temporary file that others leave alone, and its directory if need be.

    Nobody may read it who may not read the old version.
    """
    temp = _open_temp(tree, directory, temp_path, tree.mode_of(old) | 0o600)
    try:
        if temp.claim():
            return temp
    except BaseException:
        temp.descriptor.close()
        raise
    temp.descriptor.close()
    with contextlib.suppress(FileNotFoundError):
        platform.unlink(temp_path)
    raise FileNotFoundError(errno.ENOENT, "taken for a dead writer's", temp_path)


def _open_temp(tree: FileTree, directory: str, temp_path: str, mode: int) -> Held:
    """Make a temporary file, and its directory if need be.

    An exception may come where a handler of exceptions ends, so none ends with the file open.
    """
    try:
        return Held(temp_path, platform.CREATE_FLAGS, mode)
    except (FileNotFoundError, NotADirectoryError):
        tree.make_directory(directory)
    return Held(temp_path, platform.CREATE_FLAGS, mode)


def _replace(
    tree: FileTree,
    directory: str,
    path: str,
    temp: Held,
    temp_path: str,
    data: Buffer,
    if_match: ETagValue | None,
    if_none_match: AnyVersion | None,
    *,
    sync_directory: bool,
    syncs_late: bool,
) -> ETagValue:
    """Fill a temporary file and put it in the place of the old one, or leave no trace of it."""
    try:
        fd = temp.descriptor.fileno()
        status = _fill(fd, temp_path, data, sync=tree.fsync and not syncs_late)
        if platform.IS_WINDOWS:  # it renames no open files
            temp.descriptor.close()
        lock = DirectoryLock(directory, timeout=tree.lock_timeout)
        try:
            status = _take_place(
                tree, lock, path, fd, temp_path, status, if_match, if_none_match,
                sync=tree.fsync and syncs_late,
            )  # fmt: skip
            etag = own_etag(status)
            if etag is None:  # then the time of the renaming counts
                status = os.lstat(path)
            lock.release()
            if sync_directory:
                lock.sync()
        finally:
            lock.descriptor.close()
        if etag is None:
            await_next_tick(status)
            etag = etag_of(status, path if platform.IS_WINDOWS else fd)
        return etag
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            platform.unlink(temp_path)
        tree.prune(directory)
        raise


def _fill(fd: int, temp_path: str, data: Buffer, *, sync: bool) -> os.stat_result:
    """Write the bytes and the modification time; return the status of the file."""
    for piece in (data,) if type(data) is bytes else pieces(data):
        written = os.write(fd, piece)
        while written < len(piece):
            written += os.write(fd, memoryview(piece)[written:])
    # the kernel's own clock for files ticks too slowly to tell two versions apart
    now = next_mtime(len(data), os.fstat(fd).st_ino)
    os.utime(fd if _UTIME_BY_FD else temp_path, ns=(now, now))
    if sync:
        os.fsync(fd)
    return os.fstat(fd)


def _take_place(
    tree: FileTree,
    lock: DirectoryLock,
    path: str,
    fd: int,
    temp_path: str,
    new: os.stat_result,
    if_match: ETagValue | None,
    if_none_match: AnyVersion | None,
    *,
    sync: bool,
) -> os.stat_result:
    """Let a new file take the place of the old one, if that is as the caller requires.

    Returns:
        What the new file was like just before.
    """
    may_exchange = not tree.fsync
    while True:
        lock.is_disturbed = False
        old = tree.status_of(path)
        check_version(old, path, if_match, if_none_match)
        if old is not None:
            if old.st_mtime_ns >= new.st_mtime_ns:
                new = make_newer(temp_path, new, old)
            mode = tree.mode_of(old)
            if mode != new.st_mode & 0o777 and not platform.IS_WINDOWS:
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
        elif platform.IS_WINDOWS:
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
        if platform.IS_WINDOWS:
            platform.unlink(path)
            return
        # no call of Python code between this look and what is done: see DirectoryLock
        if not lock.is_disturbed:
            os.unlink(path)
            return
