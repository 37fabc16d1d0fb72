"""A directory and what lies below it: paths, links, and directories that come and go."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Final, NoReturn, TypeVar

from persidict.exceptions import BackendError
from persidict.stores.files import platform
from persidict.stores.files.version import ABSENT_ERRORS
from persidict.stores.shared.recent_notes import RecentNotes

SelfType = TypeVar("SelfType", bound="FileTree")

_MOST_LOST: Final = 1000

_PERHAPS_ANOTHER_FORMAT: Final = (
    " (with digest_len=0, one of these may belong to a key in another serialization_format, as"
    " 'x' in txt and 'x.txt', 'b' in pkl: any greater digest_len keeps them apart)"
)


class FileTree:
    """The files below a directory, of which no symbolic link leads to another.

    Args:
        root: The directory. It need not exist yet.
        fsync: Whether what is made is on stable storage at once.
        lock_timeout: For how many seconds a lock is waited for; None: without end.
        private_from: The directory from which on all is this user's alone; see FileStore.
    """

    def __init__(
        self,
        root: str,
        *,
        fsync: bool,
        lock_timeout: float | None,
        private_from: str | None = None,
    ) -> None:
        self.root = platform.native_path(root)
        self.fsync = fsync
        self.lock_timeout = lock_timeout
        self.private_from = None if private_from is None else platform.native_path(private_from)
        self.lost: RecentNotes[bool] = RecentNotes(_MOST_LOST)
        """The paths of files of which a version was to be replaced that was not the current one."""
        self.is_swept = True
        """Whether listings remove the temporary files of dead writers."""
        self._base = os.path.join(self.root, "")
        self.first_below_root = len(self._base)

    def below(self: SelfType, prefix: str) -> SelfType:
        """Return the same tree seen from below a prefix."""
        tree = object.__new__(type(self))
        tree.__dict__.update(self.__dict__)
        tree._base = self.path_of(prefix)
        return tree

    def unswept(self: SelfType) -> SelfType:
        """Return the same tree for who changes nothing in it."""
        tree = object.__new__(type(self))
        tree.__dict__.update(self.__dict__)
        tree.is_swept = False
        return tree

    def path_of(self, name: str) -> str:
        """Return the path of a file, or with a final slash of a directory."""
        return self._base + (name if os.sep == "/" else name.replace("/", os.sep))

    def directory_of(self, path: str) -> str:
        """Return the directory that a file is in; `os.path.dirname` takes four times as long."""
        cut = path.rfind(os.sep, self.first_below_root)
        return self.root if cut < 0 else path[:cut]

    # ------------------------------------------------------------------ what lies there

    def refuse_links(self, path: str) -> None:
        """Raise BackendError if a directory on the way to a file is a symbolic link."""
        if path.find(os.sep, self.first_below_root) < 0:
            return
        link = self.link_on_the_way(path)
        if link is not None:
            self.refuse_link(link)

    def link_on_the_way(self, path: str) -> str | None:
        """Return the first symbolic link among the directories from the root to a path."""
        cut = path.find(os.sep, self.first_below_root)
        while cut >= 0:
            try:
                status = os.lstat(path[:cut])
            except OSError as error:
                if error.errno in ABSENT_ERRORS:
                    return None
                raise
            if stat.S_ISLNK(status.st_mode):
                return path[:cut]
            cut = path.find(os.sep, cut + 1)
        return None

    def refuse_link(self, path: str) -> NoReturn:
        """Raise BackendError: there is a symbolic link at a path."""
        raise BackendError(
            f"{path!r} is a symbolic link; links below base_dir are not followed",
            backend="files",
        )

    def require_file(self, path: str, status: os.stat_result) -> None:
        """Raise if what lies at a path is not a regular file."""
        if stat.S_ISREG(status.st_mode):
            return
        if stat.S_ISLNK(status.st_mode):
            self.refuse_link(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(
                errno.EISDIR, f"a directory where a file should be{_PERHAPS_ANOTHER_FORMAT}", path
            )
        raise BackendError(f"{path!r} is not a regular file", backend="files")

    def mode_of(self, old: os.stat_result | None) -> int:
        """Return the access mode of a new file, before the umask, in the place of an old one."""
        if self.private_from is not None:
            return 0o600
        return 0o666 if old is None else old.st_mode & 0o777

    def status_of(
        self, path: str, name: str | None = None, at: int | None = None
    ) -> os.stat_result | None:
        """Look at the file at a path, None if there is none.

        Args:
            path: The path.
            name: What is left of it from an open directory on.
            at: The descriptor of that directory.
        """
        try:
            status = os.stat(name or path, dir_fd=at, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOENT or error.errno == errno.ENOTDIR:
                return None
            raise
        if not stat.S_ISREG(status.st_mode):
            self.require_file(path, status)
        return status

    # ------------------------------------------------------------------ directories

    def make_directory(self, directory: str) -> None:
        """Make a directory and those above it; others may do, or undo, the same meanwhile.

        Raises:
            FileNotFoundError: Others removed what had just been made: start anew.
        """
        missing = []
        while not os.path.isdir(directory):
            missing.append(directory)
            parent = os.path.dirname(directory)
            if parent == directory:
                break
            directory = parent
        while missing:
            directory = missing.pop()
            try:
                self._make_one(directory)
            except BaseException:
                self.prune(os.path.dirname(directory))
                raise

    def _make_one(self, directory: str) -> None:
        try:
            start = self.private_from
            is_private = start is not None and len(directory) >= len(start)
            os.mkdir(directory, 0o700 if is_private else 0o777)
        except FileExistsError:
            # a rival may have made it, and even removed it again: then the caller starts anew
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(os.stat(directory).st_mode):
                    error = NotADirectoryError(
                        errno.ENOTDIR,
                        f"a file where a directory should be{_PERHAPS_ANOTHER_FORMAT}",
                        directory,
                    )
                    self._fail_to_make(directory, error)
        except FileNotFoundError:
            raise  # a rival removed the parent, which was empty: the caller starts anew
        except OSError as error:
            self._fail_to_make(directory, error)
        else:
            if self.fsync:
                platform.sync_directory(os.path.dirname(directory))

    def _fail_to_make(self, directory: str, error: OSError) -> NoReturn:
        if len(directory) > len(self.root):
            raise error
        raise BackendError(
            f"base_dir {self.root!r} cannot be made: {error}", backend="files"
        ) from error

    def prune(self, directory: str) -> None:
        """Remove directories that have become empty, but never the base directory."""
        while len(directory) > len(self.root):
            try:
                os.rmdir(directory)
            except OSError:
                return  # not empty, or gone already: either way nothing is left to do
            directory = os.path.dirname(directory)
