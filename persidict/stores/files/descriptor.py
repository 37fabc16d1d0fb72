"""Descriptors that are closed whatever happens: each has an owner from the moment it exists.

An exception can be thrown between any two steps of a program (signal handlers do so), and
``fd = os.open(...)`` are two steps: opening, and taking note of what was opened. A call of
C code by C code is one step. So `opened` opens and hands over in one call, and nothing is
left open when the owner is dropped.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Protocol

if sys.platform == "linux":
    import select


class Descriptor(Protocol):
    """The owner of an open file: closes it when told to, and at the latest when it is dropped."""

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""

    def fileno(self) -> int:
        """Return the descriptor; raise ValueError once it is closed."""

    def close(self) -> None:
        """Close it, unless it is closed."""


class OwnedDescriptor:
    """An owner in Python, for systems where the standard library has none in C for any file.

    Args:
        fd: The descriptor.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._fd < 0

    def fileno(self) -> int:
        """Return the descriptor."""
        if self._fd < 0:
            raise ValueError("the descriptor is closed")
        return self._fd

    def close(self) -> None:
        """Close it, unless it is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


if sys.platform == "linux":
    # an epoll object made of an existing descriptor asks nothing of it, and is all C
    _own = select.epoll.fromfd
else:
    _own = OwnedDescriptor


def opened(path: str, flags: int, mode: int = 0o666, *, at: int | None = None) -> Descriptor:
    """Open a file (open(2)) and return the owner of its descriptor.

    Args:
        path: The file.
        flags: As for `os.open`.
        mode: The access mode of a file that is made, before the umask.
        at: The descriptor of the directory that a relative path begins at.

    Raises:
        OSError: What `os.open` raises.
    """
    open_file = os.open if at is None else partial(os.open, dir_fd=at)
    return next(map(_own, map(open_file, (path,), (flags,), (mode,))))
