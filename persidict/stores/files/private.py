"""What belongs to this user alone: nobody else has put it there, or can."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from persidict.exceptions import BackendError
from persidict.stores.files.descriptor import opened
from persidict.stores.files.platform import DIRECTORY_FLAGS

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def require_private(path: str, status: os.stat_result) -> None:
    """Raise BackendError if a file or directory is another user's, or others may write to it.

    Windows has no such modes: there, nothing is refused.

    Args:
        path: What to call it.
        status: What the system tells of it.
    """
    if sys.platform == "win32":
        return
    if status.st_uid != os.geteuid():
        raise BackendError(
            f"{path!r} is not used: it belongs to user {status.st_uid}, not to user"
            f" {os.geteuid()}, who runs this; choose a place of your own",
            backend="files",
        )
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise BackendError(
            f"{path!r} is not used: others may write to it (mode"
            f" {stat.S_IMODE(status.st_mode):04o}); choose another place, or delete it",
            backend="files",
        )


def secure_directory(directory: str, *, may_be_link: bool = False) -> bool:
    """See to it that a directory is this user's alone; costs one system call if it is.

    One that others may only read is closed to them. Windows: nothing is looked at but
    whether it is a directory.

    Args:
        directory: The path.
        may_be_link: Whether it may be a symbolic link, of this user's or root's, to it.

    Returns:
        Whether there is such a directory.

    Raises:
        BackendError: It is another user's, or others may write to it, or it is a link or no
            directory; the message names it and says why.
        OSError: It cannot be looked at.
    """
    try:
        status = os.lstat(directory)
        if stat.S_ISLNK(status.st_mode):
            _require_own_link(directory, status, may_be_link=may_be_link)
            status = os.stat(directory)
        if not stat.S_ISDIR(status.st_mode):
            raise BackendError(f"{directory!r} is no directory", backend="files")
        require_private(directory, status)
        if status.st_mode & _OPEN_TO_OTHERS and sys.platform != "win32":
            _close_to_others(directory)
    except FileNotFoundError:
        return False
    return True


def _require_own_link(directory: str, status: os.stat_result, *, may_be_link: bool) -> None:
    if not may_be_link:
        raise BackendError(
            f"{directory!r} is a symbolic link; links in there are not followed", backend="files"
        )
    if sys.platform != "win32" and status.st_uid not in (0, os.geteuid()):
        raise BackendError(
            f"{directory!r} is not used: it is a symbolic link that belongs to user"
            f" {status.st_uid}",
            backend="files",
        )


def _close_to_others(directory: str) -> None:
    """Take all rights on a directory from others, if it still is one to be trusted when open."""
    there = opened(directory, DIRECTORY_FLAGS)
    try:
        status = os.fstat(there.fileno())
        require_private(directory, status)
        # a disk that is read-only, or knows no modes, can be read from all the same
        with contextlib.suppress(OSError):
            os.fchmod(there.fileno(), stat.S_IMODE(status.st_mode) & ~_OPEN_TO_OTHERS)
    finally:
        there.close()
