"""What differs between operating systems: directory syncs, long paths, sharing, exchanges.

Everything else in this package is the same everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final

from persidict.stores.files.descriptor import opened

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

DIRECTORY_FLAGS: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_SHARING_PATIENCE_SECONDS: Final = 5.0
_ERROR_ACCESS_DENIED: Final = 5
_ERROR_SHARING_VIOLATION: Final = 32


def sync_directory(directory: str) -> None:
    """Make a directory's entries durable (fsync(2)); Windows does so by itself."""
    if IS_WINDOWS:
        return
    there = opened(directory, DIRECTORY_FLAGS)
    try:
        os.fsync(there.fileno())
    finally:
        there.close()


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


AT_FDCWD: Final = -100
RENAME_EXCHANGE: Final = 2

renameat2: Callable[[int, bytes, int, bytes, int], int] | None = None
"""renameat2(2), None until `load_renameat2` has found it: 0 or -1, and no exception."""

_CANNOT_EXCHANGE: Final = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP}
)
_RENAMES_AT_ONCE: Final = frozenset({"tmpfs", "ramfs"})
"""File systems on which rename(2) over a file writes nothing early: there, it is quicker."""

_exchange_pays_on: Final[dict[int, bool]] = {}
"""By the numbers of devices, what `can_exchange` has found out."""


def load_renameat2() -> bool:
    """Look for a system call that can swap two files; tell whether there is one."""
    global renameat2
    if renameat2 is None and sys.platform == "linux":
        import ctypes  # takes long to load, and is needed for this only

        try:
            found = ctypes.CDLL(None, use_errno=True).renameat2
        except (OSError, AttributeError):  # musl before 1.2.6, glibc before 2.28
            return False
        found.argtypes = [
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_uint,
        ]
        renameat2 = found
    return renameat2 is not None


def can_exchange(status: os.stat_result) -> bool:
    """Tell whether files may be swapped, and should, on the file system of one of them."""
    device = status.st_dev
    if device not in _exchange_pays_on:
        is_quicker = _file_system_of(device) not in _RENAMES_AT_ONCE
        _exchange_pays_on[device] = is_quicker and load_renameat2()
    return _exchange_pays_on[device]


def _file_system_of(device: int) -> str:
    """Return the type of the file system with a number, "" where the system does not tell."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", errors="replace") as table:
        return _type_mounted(table, number)
    return ""


def _type_mounted(table: Iterable[str], number: str) -> str:
    """Return the type of the file system with a number in a table of mounts, or ""."""
    for line in table:
        # "36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda rw"
        fields, _, rest = line.partition(" - ")
        if fields.split()[2:3] == [number]:
            return rest.partition(" ")[0]
    return ""


def note_refusal(status: os.stat_result) -> None:
    """Take note, after `renameat2` has failed, if the file system of a file swaps none at all."""
    import ctypes

    if ctypes.get_errno() in _CANNOT_EXCHANGE:
        _exchange_pays_on[status.st_dev] = False


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
    return 255 if IS_WINDOWS else _limit(directory, "PC_NAME_MAX")


def max_path_length(directory: str) -> int | None:
    """Return how many bytes a path may have (pathconf PATH_MAX, less the final NUL)."""
    limit = 32767 if IS_WINDOWS else _limit(directory, "PC_PATH_MAX")
    return None if limit is None else limit - 1


def _limit(directory: str, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return os.pathconf(directory, name)
    return None
