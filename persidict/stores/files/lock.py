"""Whose turn it is to change a directory, among threads, processes, and within one thread."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterable
from typing import Final

from persidict.exceptions import BackendError
from persidict.stores.files.descriptor import Descriptor, OwnedDescriptor, opened
from persidict.stores.files.platform import DIRECTORY_FLAGS, IS_WINDOWS, sync_directory

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

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
_LOCK_FILE_FLAGS: Final = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_FIRST_PAUSE_SECONDS: Final = 0.00002
_LONGEST_PAUSE_SECONDS: Final = 0.05
_PAUSE_SHARE: Final = 0.05
"""How long a pause may be, as a share of what has been waited so far."""

_NOTHING_OPEN: Final = OwnedDescriptor(-1)

_live: Final[set[weakref.ref[Held]]] = set()
_forks = 0


class Held:
    """An open file that is locked, or about to be: no child of a fork keeps it.

    flock(2) belongs to the open file, which a child shares: a lock would outlive its holder
    as long as the child lives. So the child closes its copies.

    Args:
        path: The file.
        flags: How to open it.
        mode: The access mode if it is made.

    Raises:
        OSError: It can't be opened.
    """

    __slots__ = ("__weakref__", "_thread", "beside", "descriptor", "is_disturbed", "is_inherited")

    def __init__(self, path: str, flags: int, mode: int = 0o666, *, at: int | None = None) -> None:
        forks = _forks
        self._thread = threading.get_ident()
        self.is_disturbed = False
        """Whether an operation of the same thread has come in the middle; see DirectoryLock."""
        self.descriptor: Descriptor = opened(path, flags, mode, at=at)
        """The owner of the open file; to close it is to give up the lock."""
        self.beside: Descriptor = _NOTHING_OPEN
        """Another one, of what is written under the lock: a child closes it, too."""
        try:
            # the callback is C code, too: an exception in one written in Python would be lost
            _live.add(weakref.ref(self, _live.discard))
            self.is_inherited = forks != _forks
            """Whether a fork came too early for the child to know what to close."""
        except BaseException:
            self.descriptor.close()
            raise

    def claim(self) -> bool:
        """Lock the file if nobody holds it; without flock(2), do nothing.

        Returns:
            False where somebody else has locked it, or a child shares it.
        """
        return not self.is_inherited and claim_file(self.descriptor.fileno())


def claim_file(fd: int) -> bool:
    """Mark an open file as being worked on, until it is closed or its process dies.

    Returns:
        False where somebody else has marked it: it is about to be deleted.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # without flock, `remove_if_unclaimed` takes no file for a dead writer's
    return True


def _note_fork() -> None:
    global _forks
    _forks += 1


def _let_go_in_child() -> None:
    for reference in list(_live):
        held = reference()
        if held is not None:
            held.is_disturbed = True
            held.descriptor.close()
            held.beside.close()
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_note_fork, after_in_parent=_note_fork, after_in_child=_let_go_in_child
    )


class DirectoryLock(Held):
    """An exclusive lock on a directory, among threads and processes of one machine.

    POSIX: flock(2) on the directory's own descriptor, so that no lock file is needed and
    nothing outlives its holder. Where that is refused (some network file systems; Windows
    cannot open directories): on a file in the system's directory for temporary files.

    A thread that holds the lock may come again, in a signal handler or a finaliser: it goes
    through, and what it interrupted finds `is_disturbed` set. Who holds a lock must clear
    that, look at what it relies on, and act only if it is still clear, without a call of
    Python code in between: then nothing can come between look and act.

    The lock is let go by ``lock.descriptor.close()``, which is to be the first call in a
    ``finally`` clause: no exception can come ahead of it.

    Args:
        directory: The directory, which must exist.
        timeout: How many seconds to wait for the lock at most; None: without end.

    Raises:
        FileNotFoundError: The directory does not exist.
        BackendError: Others held the lock all the time.
    """

    __slots__ = ("_directory", "_is_of_lock_file", "_is_through")

    def __init__(self, directory: str, *, timeout: float | None) -> None:
        self._is_through = False
        self._directory = directory
        self._is_of_lock_file = IS_WINDOWS
        self.descriptor = _NOTHING_OPEN
        try:
            self._open()
            try:
                if not _try_lock(self.descriptor.fileno()):
                    self._acquire(timeout)
            except OSError as error:
                if self._is_of_lock_file or error.errno not in _FLOCK_REFUSALS:
                    raise
                _warn_of_lock_files()
                self.descriptor.close()
                self._is_of_lock_file = True
                self._open()
                self._acquire(timeout)
        except BaseException:
            self.descriptor.close()
            raise

    def _open(self) -> None:
        while True:
            if self._is_of_lock_file:
                Held.__init__(self, *_lock_file_of(self._directory))
            else:
                Held.__init__(self, self._directory, DIRECTORY_FLAGS)
            if not self.is_inherited:
                return
            self.descriptor.close()

    @property
    def at(self) -> int | None:
        """The descriptor of the directory, None where another file is locked in its place."""
        return None if self._is_of_lock_file else self.descriptor.fileno()

    def _acquire(self, timeout: float | None) -> None:
        # what was waited is added up, as clocks can be made to stand still
        waited, pause = 0.0, _FIRST_PAUSE_SECONDS
        while not self._try_to_acquire():
            if timeout is not None:
                if waited >= timeout:
                    raise self._timed_out(timeout)
                pause = min(pause, timeout - waited)
            time.sleep(pause)
            waited += pause
            pause = min(
                2 * pause,
                max(waited * _PAUSE_SHARE, 50 * _FIRST_PAUSE_SECONDS),
                _LONGEST_PAUSE_SECONDS,
            )

    def _try_to_acquire(self) -> bool:
        if _try_lock(self.descriptor.fileno()):
            return True
        outer = self._interrupted()
        # one of them holds the lock, is about to take it, or has just let it go
        if any(_try_lock(lock.descriptor.fileno()) for lock in outer):
            for lock in outer:
                lock.is_disturbed = True
            self._is_through = True
            return True
        return False

    def _interrupted(self) -> list[Held]:
        """Return what else this thread has open of the same directory, to lock it."""
        found = []
        mine = os.fstat(self.descriptor.fileno())
        for reference in list(_live):
            lock = reference()
            if (
                lock is not None
                and lock is not self
                and lock._thread == self._thread
                and not lock.descriptor.closed
                and os.path.samestat(mine, os.fstat(lock.descriptor.fileno()))
            ):
                found.append(lock)
        return found

    def _timed_out(self, timeout: float) -> BackendError:
        holder = holder_of(os.fstat(self.descriptor.fileno()))
        return BackendError(
            f"the lock of directory {self._directory!r} was held by {holder} for all of the"
            f" {timeout:g} s that lock_timeout allows to wait",
            backend="files",
        )

    def is_of(self, directory: str, *, follow_link: bool = False) -> bool:
        """Tell whether the locked directory is the one that has this path now.

        Args:
            directory: The path.
            follow_link: Whether it may be that of a symbolic link to the directory.
        """
        if self._is_of_lock_file:
            return os.path.isdir(directory)
        try:
            there = os.stat(directory, follow_symlinks=follow_link)
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self.descriptor.fileno()), there)

    def release(self) -> None:
        """Let others in; the directory stays open for `sync`.

        Closing is not enough on its own where a child was forked without Python's knowledge.
        """
        if not self._is_through:
            _unlock(self.descriptor.fileno())

    def sync(self) -> None:
        """Make the directory's entries durable (fsync(2)); Windows does so by itself."""
        if self._is_of_lock_file:
            sync_directory(self._directory)
        else:
            os.fsync(self.descriptor.fileno())


if sys.platform == "win32":

    def _try_lock(fd: int) -> bool:
        """Lock an open file if nobody else has done so."""
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def _try_lock(fd: int) -> bool:
        """Lock an open file if nobody else has done so."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _warn_of_lock_files() -> None:
    warnings.warn(
        "this file system refuses flock() on directories; conditional operations are"
        " atomic among the processes of this machine only, by lock files in"
        f" {_lock_file_directory()}",
        RuntimeWarning,
        stacklevel=2,
    )


def is_held_by_this_thread() -> bool:
    """Tell whether this thread may have a lock on a directory, in what it was interrupted in.

    Then other threads can't work for it: they would wait for it.
    """
    me = threading.get_ident()
    return any(
        lock is not None and lock._thread == me and not lock.descriptor.closed
        for lock in [reference() for reference in list(_live)]
    )


def _lock_file_directory() -> str:
    import tempfile  # which few need, and takes long to load

    return os.path.join(tempfile.gettempdir(), "persidict-locks")


def _lock_file_of(directory: str) -> tuple[str, int]:
    """Make the file that stands for a directory; return its path and how to open it.

    Any user may lock it: the directory may be shared. None of it is made, or looked for,
    behind a symbolic link that somebody has put there.
    """
    place = _lock_file_directory()
    with contextlib.suppress(FileExistsError):
        os.mkdir(place)
        os.chmod(place, 0o1777)
    if not stat.S_ISDIR(os.lstat(place).st_mode):
        raise BackendError(f"{place!r}, where lock files belong, is no directory", backend="files")
    identity = os.path.normcase(os.path.realpath(directory))
    from hashlib import sha256  # which few need, and takes long to load

    digest = sha256(identity.encode(errors="surrogateescape")).hexdigest()
    path = os.path.join(place, f"{digest}.lock")
    # Linux lets nobody open another user's file there with O_CREAT (fs.protected_regular)
    with contextlib.suppress(FileExistsError):
        made = opened(path, _LOCK_FILE_FLAGS | os.O_CREAT | os.O_EXCL)
        try:
            if not IS_WINDOWS:
                os.fchmod(made.fileno(), 0o666)
        finally:
            made.close()
    return path, _LOCK_FILE_FLAGS


def holder_of(status: os.stat_result) -> str:
    """Say who holds the lock of a file, where the system tells (Linux: /proc/locks)."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    wanted = f"{device}:{status.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as table:
            lines = [line.split() for line in table]
    except OSError:
        lines = []
    # "1: FLOCK  ADVISORY  WRITE 1234 fd:00:5678 0 EOF"; who waits has "->" in front
    holders = [line[4] for line in lines if len(line) > 5 and line[5] == wanted]
    if not holders:
        return "others"
    pid = holders[0]
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
            return f"process {pid} ({name.read().strip()})"
    except OSError:
        return f"process {pid}"


def remove_if_unclaimed(path: str) -> bool:
    """Delete a file unless somebody alive works on it; tell whether it was deleted."""
    if sys.platform == "win32":
        try:
            os.unlink(path)  # Windows refuses while the file is open elsewhere
        except OSError:
            return False
        return True
    try:
        found = opened(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(found.fileno()).st_mode):
            return False
        fcntl.flock(found.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return False
    finally:
        found.close()
    return True


def remove_unclaimed(directory: str, paths: Iterable[str]) -> None:
    """Delete files of a directory on which nobody alive works; who has it locked may do so."""
    if IS_WINDOWS:
        for path in paths:
            remove_if_unclaimed(path)
        return
    try:
        there = Held(directory, DIRECTORY_FLAGS)
    except OSError:
        return
    try:
        if there.claim():
            for path in paths:
                remove_if_unclaimed(path)
            with contextlib.suppress(OSError):  # there may be no flock, see `claim_file`
                _unlock(there.descriptor.fileno())
    finally:
        there.descriptor.close()
