"""Faults on purpose: at any system call of a store, in a child process, on a small disk."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from persidict.stores.files import platform

Hook = Callable[[str, tuple[Any, ...]], None]

_INTERCEPTED = {
    os: (
        "close",
        "fstat",
        "fsync",
        "link",
        "lstat",
        "mkdir",
        "open",
        "read",
        "rename",
        "replace",
        "rmdir",
        "scandir",
        "stat",
        "unlink",
        "utime",
        "write",
    ),
    fcntl: ("flock",),
    platform: ("renameat2",) if platform.load_renameat2() else (),
}
CHANGING = frozenset(
    {"fsync", "link", "mkdir", "open", "rename", "renameat2", "replace", "utime", "write"}
)
"""The calls that can fail for want of space or permission."""


class _Interception:
    """Wrappers around system calls, in place while any thread has a hook."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._patches: list[Any] = []
        self._mine = threading.local()

    @contextmanager
    def by(self, hook: Hook) -> Iterator[None]:
        """Let the calls of this thread go through a hook."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._install()
        self._mine.hook = hook
        try:
            yield
        finally:
            self._mine.hook = None
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._remove()

    def _install(self) -> None:
        self._patches = [
            mock.patch.object(module, name, self._wrap(name, getattr(module, name)))
            for module, names in _INTERCEPTED.items()
            for name in names
        ]
        for patch in self._patches:
            patch.start()

    def _remove(self) -> None:
        for patch in self._patches:
            patch.stop()

    def _wrap(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            hook = getattr(self._mine, "hook", None)
            if hook is not None:
                self._mine.hook = None  # what a hook calls is its own business
                try:
                    hook(name, args)
                finally:
                    self._mine.hook = hook
            return original(*args, **kwargs)

        return call


_interception = _Interception()


def intercepted_system_calls(before: Hook) -> AbstractContextManager[None]:
    """Call ``before(name, arguments)`` ahead of each system call that this thread makes.

    What `before` itself calls is not intercepted.
    """
    return _interception.by(before)


def run_in_child(work: Callable[..., Any], *arguments: Any, timeout: float = 60.0) -> int:
    """Run a function in a forked process; return its exit code, negative for a signal.

    Raises:
        AssertionError: It raised, with its traceback, or it did not end in time.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def attend() -> None:
        try:
            work(*arguments)
        except BaseException:
            sender.send(traceback.format_exc())

    child = context.Process(target=attend, daemon=True)
    child.start()
    sender.close()
    child.join(timeout)
    try:
        assert child.exitcode is not None, f"the child did not end within {timeout} s"
        try:
            raise AssertionError(f"in the child:\n{receiver.recv()}")
        except EOFError:
            return child.exitcode
    finally:
        receiver.close()
        child.kill()
        child.join()


_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY = 1
_MS_REMOUNT = 32
_NOT_POSSIBLE = 77


class SmallDisk:
    """A tmpfs of one's own, visible to a child process only.

    Args:
        place: The directory to mount it on.
        size: How many bytes it has.
    """

    def __init__(self, place: Path, size: int) -> None:
        self.place = place
        self.size = size
        self._libc = ctypes.CDLL(None, use_errno=True)

    def run(self, work: Callable[..., Any], *arguments: Any) -> bool:
        """Run ``work(disk, *arguments)`` in a child; False if mounting is not possible here."""
        self.place.mkdir(exist_ok=True)
        return run_in_child(self._attend, work, arguments) != _NOT_POSSIBLE

    def make_read_only(self) -> None:
        """Remount the disk read-only, as an administrator or a failing disk would."""
        self._mount(_MS_RDONLY | _MS_REMOUNT)

    def _attend(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._enter_namespace()
            self._mount(0)
        except (OSError, AttributeError):
            os._exit(_NOT_POSSIBLE)
        work(self, *arguments)

    def _enter_namespace(self) -> None:
        user, group = os.getuid(), os.getgid()
        if self._libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")

    def _mount(self, flags: int) -> None:
        options = f"size={self.size}".encode()
        if self._libc.mount(b"tmpfs", os.fsencode(self.place), b"tmpfs", flags, options):
            raise OSError(ctypes.get_errno(), "mount")


class CaseInsensitiveDisk:
    """Makes the paths below a directory case-insensitive and case-preserving.

    Args:
        root: The directory.
    """

    _TAKE_A_PATH = ("lstat", "mkdir", "open", "rmdir", "scandir", "stat", "unlink", "utime")
    _TAKE_TWO_PATHS = ("link", "rename", "replace")

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._listdir = os.listdir

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Let the functions of `os` treat names below the root so."""
        patches = [
            mock.patch.object(os, name, self._wrap(getattr(os, name), count))
            for count, names in ((1, self._TAKE_A_PATH), (2, self._TAKE_TWO_PATHS))
            for name in names
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in reversed(patches):
                patch.stop()

    def _wrap(self, original: Callable[..., Any], count: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            paths = [self._existing(path) for path in args[:count]]
            return original(*paths, *args[count:], **kwargs)

        return call

    def _existing(self, path: Any) -> Any:
        """Spell a path as what exists there is spelt."""
        if isinstance(path, os.PathLike):
            path = os.fspath(path)
        if not isinstance(path, str) or not path.startswith(self._root + os.sep):
            return path
        found = self._root
        for name in path[len(self._root) + 1 :].split(os.sep):
            found = os.path.join(found, self._spelling(found, name))
        return found

    def _spelling(self, directory: str, name: str) -> str:
        try:
            names = self._listdir(directory)
        except (FileNotFoundError, NotADirectoryError):
            return name
        return next((there for there in names if there.lower() == name.lower()), name)


def files_below(place: Path) -> set[str]:
    """Return the paths of all files below a directory, relative to it."""
    return {
        os.path.relpath(os.path.join(directory, name), place)
        for directory, _, names in os.walk(place)
        for name in names
    }


def open_descriptors(below: Path | str = "") -> set[str]:
    """Return what this process has open, by descriptor; on Linux alone.

    Args:
        below: A directory in which only the test works: what other tests left open may be
            closed at any moment.
    """
    if not os.path.isdir("/proc/self/fd"):
        return set()
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{number}")
            if target.startswith(str(below)) and "/proc/" not in target:
                found.add(f"{number} {target}")
    return found


def failing_at(step: int, error_number: int, among: frozenset[str] = CHANGING) -> Hook:
    """Make a hook that raises an OSError ahead of the n-th of some system calls."""
    calls = 0

    def fail(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        calls += name in among
        if name in among and calls == step:
            raise OSError(error_number, os.strerror(error_number))

    return fail


NO_SPACE, READ_ONLY, NO_PERMISSION = errno.ENOSPC, errno.EROFS, errno.EACCES
