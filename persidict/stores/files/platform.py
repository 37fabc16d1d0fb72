"""What differs between operating systems: locks, directory syncs, long paths, sharing.

Everything else in this package is the same everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Final

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

IS_WINDOWS: Final = sys.platform == "win32"

READ_FLAGS: Final = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
"""For reading an item: never through a symbolic link, never waiting for a pipe's writer."""

CREATE_FLAGS: Final = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_EXCL
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)
"""For making a temporary file."""

_LOCK_FILE_FLAGS: Final = (
    os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
)
_DIRECTORY_FLAGS: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_FLOCK_REFUSALS: Final = frozenset(
    {
        errno.EBADF,
        errno.EINVAL,
        errno.ENOLCK,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
    }
)
_SHARING_PATIENCE_SECONDS: Final = 5.0
_ERROR_ACCESS_DENIED: Final = 5
_ERROR_SHARING_VIOLATION: Final = 32


class DirectoryLock:
    """An exclusive lock on a directory, among threads and processes of one machine.

    POSIX: flock(2) on the directory's own descriptor, so that no lock file is needed and
    nothing outlives its holder. Where that is refused (some network file systems; Windows
    cannot open directories): on a file in the system's directory for temporary files.

    Args:
        directory: The directory, which must exist.

    Raises:
        FileNotFoundError: It does not exist.
    """

    __slots__ = ("_lock_fd", "directory_fd")

    def __init__(self, directory: str) -> None:
        self.directory_fd = -1 if IS_WINDOWS else os.open(directory, _DIRECTORY_FLAGS)
        self._lock_fd = self.directory_fd
        try:
            if IS_WINDOWS or not _flock_exclusive(self.directory_fd):
                self._lock_fd = _acquire_lock_file(directory)
        except BaseException:
            if self.directory_fd >= 0:
                os.close(self.directory_fd)
            raise

    def is_of(self, directory: str) -> bool:
        """Tell whether the locked directory is the one that has this path now."""
        if self.directory_fd < 0:
            return os.path.isdir(directory)
        held = os.fstat(self.directory_fd)
        try:
            there = os.lstat(directory)
        except FileNotFoundError:
            return False
        return held.st_ino == there.st_ino and held.st_dev == there.st_dev

    def release(self) -> None:
        """Let others in; the directory's descriptor stays open for `sync`."""
        if self._lock_fd >= 0:
            _unlock(self._lock_fd)
            if self._lock_fd != self.directory_fd:
                os.close(self._lock_fd)
            self._lock_fd = -1

    def sync(self) -> None:
        """Make the directory's entries durable (fsync(2)); Windows does so by itself."""
        if self.directory_fd >= 0:
            os.fsync(self.directory_fd)

    def close(self) -> None:
        """Release and close."""
        self.release()
        if self.directory_fd >= 0:
            os.close(self.directory_fd)
            self.directory_fd = -1


def _flock_exclusive(fd: int) -> bool:
    """Wait for flock(2); False where the file system refuses it on such a descriptor."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _FLOCK_REFUSALS:
            raise
        warnings.warn(
            "this file system refuses flock() on directories; conditional operations are"
            " atomic among the processes of this machine only, by lock files in"
            f" {_lock_file_directory()}",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def _unlock(fd: int) -> None:
    """Unlock explicitly: closing is not enough while a forked child holds a copy of `fd`."""
    if sys.platform == "win32":
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _lock_file_directory() -> str:
    return os.path.join(tempfile.gettempdir(), "persidict-locks")


def _acquire_lock_file(directory: str) -> int:
    """Lock the file that stands for a directory; return its descriptor."""
    place = _lock_file_directory()
    with contextlib.suppress(FileExistsError):
        os.mkdir(place)
        os.chmod(place, 0o1777)
    identity = os.path.normcase(os.path.realpath(directory))
    digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()
    fd = os.open(os.path.join(place, f"{digest}.lock"), _LOCK_FILE_FLAGS, 0o666)
    try:
        if sys.platform == "win32":
            while True:
                try:
                    msvcrt.locking(fd, msvcrt.LK_LOCK, 1)
                except OSError as error:
                    # LK_LOCK gives up after ten tries, a second each
                    if error.errno != errno.EDEADLK:
                        raise
                else:
                    break
        else:
            fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def claim_file(fd: int) -> None:
    """Mark an open file as being worked on, until it is closed or its process dies."""
    if sys.platform != "win32":
        # without flock, `is_claimed` answers True for every file: none is taken for dead
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)


def remove_if_unclaimed(path: str) -> bool:
    """Delete a file unless somebody alive works on it; tell whether it was deleted."""
    if sys.platform == "win32":
        try:
            os.unlink(path)  # Windows refuses while the file is open elsewhere
        except OSError:
            return False
        return True
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def sync_directory(directory: str) -> None:
    """Make a directory's entries durable (fsync(2)); Windows does so by itself."""
    if IS_WINDOWS:
        return
    fd = os.open(directory, _DIRECTORY_FLAGS)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_sharing_violation(error: OSError) -> bool:
    """Tell whether Windows refused because somebody else, for a moment, has the file open."""
    code = getattr(error, "winerror", None)
    return code in (_ERROR_ACCESS_DENIED, _ERROR_SHARING_VIOLATION)


def _patiently(action: Callable[..., None], *paths: str) -> None:
    """Act, trying again for some seconds while Windows reports a sharing violation."""
    deadline = time.monotonic() + _SHARING_PATIENCE_SECONDS
    pause = 0.001
    while True:
        try:
            return action(*paths)
        except OSError as error:
            if not _is_sharing_violation(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def replace(source: str, target: str) -> None:
    """Rename a file over another, atomically (rename(2), MoveFileEx)."""
    _patiently(os.replace, source, target)


def unlink(path: str) -> None:
    """Delete a file."""
    _patiently(os.unlink, path)


def native_path(path: str) -> str:
    r"""Return an absolute path in the form that allows for long paths (Windows: ``\\?\``)."""
    path = os.path.abspath(path)
    if not IS_WINDOWS or path.startswith("\\\\?\\"):
        return path
    if path.startswith("\\\\"):
        return "\\\\?\\UNC" + path[1:]
    return "\\\\?\\" + path


def max_name_length(directory: str) -> int | None:
    """Return how many bytes a file name may have there (pathconf NAME_MAX), None if unknown."""
    if IS_WINDOWS:
        return 255
    with contextlib.suppress(OSError, ValueError):
        return os.pathconf(directory, "PC_NAME_MAX")
    return None
