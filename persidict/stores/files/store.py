"""A store in a directory: one file for each object, durable and atomic."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final, Literal, NoReturn

from persidict.exceptions import BackendError, ObjectNotFound
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.files import platform
from persidict.stores.files.version import (
    ABSENT_ERRORS,
    check_version,
    etag_of,
    info_of,
    make_newer,
    name_too_long,
    read_whole,
)
from persidict.stores.object_store import (
    ANY_VERSION,
    NOT_MODIFIED,
    AnyVersion,
    Buffer,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
)
from persidict.stores.place import Place, identity_of, real_path
from persidict.stores.shared.parallel import WorkerPool, map_in_order
from persidict.traits import Traits

TEMP_PREFIX: Final = "%tmp."
"""How temporary files begin: with a character that no name of an item contains."""

_MAX_RACES: Final = 1000

_LARGE: Final = 128 * 1024
"""From so many bytes on, having them twice in memory takes longer than opening a stream."""

_DELETE_BATCH: Final = 500
_PUT_BATCH: Final = 128
_UTIME_BY_FD: Final = os.utime in os.supports_fd


def absolute_directory(name: str, directory: str | os.PathLike[str]) -> str:
    """Return a directory given as an argument as an absolute path.

    Raises:
        TypeError: It is not the path of anything.
        ValueError: It is empty.
    """
    if not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or a path, not {type(directory).__name__}")
    path = os.fspath(directory)
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path in str, not in {type(path).__name__}")
    if not path:
        raise ValueError(f"{name} must not be empty; '.' is the current directory")
    return os.path.abspath(path)


class FileStore(ObjectStore):
    """Named bytes in files below a directory.

    Reads see one version whole: files are written aside and renamed into place (rename(2)).
    Changes of one directory take turns under a lock that threads and processes of this
    machine respect, so that conditions are checked and acted upon in one step.

    An ETag is ``mtime_ns:size:inode``; a write makes its modification time strictly newer
    than that of the version it replaces. Symbolic links below the directory are not
    followed. Directories are made when needed and removed when the last file in them goes.

    Args:
        base_dir: The directory. It need not exist yet.
        fsync: Whether a write is on stable storage when it returns (fsync(2) of the file
            and its directory).
        max_concurrency: How many threads `put_many` writes durable files with.

    Raises:
        ValueError: `base_dir` is a file.
    """

    traits = Traits(reads_are_cheap=True, back_off_seconds=0.001)

    def __init__(self, base_dir: str, *, fsync: bool = True, max_concurrency: int = 4) -> None:
        self._root = platform.native_path(base_dir)
        if os.path.lexists(self._root) and not os.path.isdir(self._root):
            raise ValueError(f"base_dir {base_dir!r} is not a directory")
        self._fsync = fsync
        self._pool = WorkerPool(max_concurrency)
        self._base = os.path.join(self._root, "")
        self._first_below_root = len(self._base)

    def location(self, name: str) -> str:
        return self._path(name)

    @property
    def place(self) -> Place:
        """Where the files lie; costs some system calls."""
        path = os.path.join(real_path(self._base), "")
        return Place("files", path.replace(os.sep, "/"), identity_of(path))

    def scoped(self, prefix: str) -> FileStore:
        scope = FileStore.__new__(FileStore)
        scope._root = self._root
        scope._fsync = self._fsync
        scope._pool = self._pool
        scope._base = self._path(prefix)
        scope._first_below_root = self._first_below_root
        return scope

    # ------------------------------------------------------------------ paths

    def _path(self, name: str) -> str:
        return self._base + (name if os.sep == "/" else name.replace("/", os.sep))

    def _refuse_links(self, path: str) -> None:
        """Raise BackendError if a directory on the way to a file is a symbolic link."""
        link = self._link_on_the_way(path)
        if link is not None:
            self._refuse_link(link)

    def _link_on_the_way(self, path: str) -> str | None:
        """Return the first symbolic link among the directories from the root to a path."""
        cut = path.find(os.sep, self._first_below_root)
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

    def _refuse_link(self, path: str) -> None:
        raise BackendError(
            f"{path!r} is a symbolic link; links below base_dir are not followed",
            backend="files",
        )

    def _require_file(self, path: str, status: os.stat_result) -> None:
        """Raise if what lies at a path is not a regular file."""
        if stat.S_ISREG(status.st_mode):
            return
        if stat.S_ISLNK(status.st_mode):
            self._refuse_link(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory where a file should be", path)
        raise BackendError(f"{path!r} is not a regular file", backend="files")

    def _status(self, path: str) -> os.stat_result | None:
        """Look at the file at a path, None if there is none."""
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno == errno.ENOENT or error.errno == errno.ENOTDIR:
                return None
            raise
        self._require_file(path, status)
        return status

    # ------------------------------------------------------------------ reading

    def head(self, name: str) -> ObjectInfo:
        return info_of(name, self._status_of(name))

    def contains(self, name: str) -> bool:
        try:
            self._status_of(name)
        except ObjectNotFound:
            return False
        return True

    def _status_of(self, name: str) -> os.stat_result:
        path = self._path(name)
        if path.find(os.sep, self._first_below_root) >= 0:
            self._refuse_links(path)
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno in ABSENT_ERRORS:
                raise ObjectNotFound(name) from error
            raise
        if not stat.S_ISREG(status.st_mode):
            self._require_file(path, status)
        return status

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        found = self.get_or_open(name, if_none_match=if_none_match)
        if isinstance(found, NotModified):
            return found
        data, info = found
        if isinstance(data, bytes):
            return data, info
        with data:
            return data.read(), info

    def get_or_open(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[bytes | BinaryIO, ObjectInfo] | NotModified:
        fd, status = self._open(name)
        stream = None
        try:
            info = info_of(name, status)
            if if_none_match is not None and if_none_match == info.etag:
                return NOT_MODIFIED
            # Windows replaces no file that is open: there, reading must not take long
            if info.size < _LARGE or platform.IS_WINDOWS:
                return read_whole(fd, info.size), info
            stream = os.fdopen(fd, "rb")
            return stream, info
        finally:
            if stream is None:
                os.close(fd)

    def get_many(
        self, entries: Iterable[str | ObjectInfo]
    ) -> Iterator[tuple[str, Buffer, ObjectInfo]]:
        """Read many files, in the order given; see the port.

        Of files in one directory that come one after the other, only the first has the
        directories above it looked at for links.
        """
        looked_at = None
        for entry in entries:
            name = entry if isinstance(entry, str) else entry.name
            path = self._path(name)
            directory = os.path.dirname(name)
            try:
                if directory != looked_at:
                    self._refuse_links(path)
                    looked_at = directory
                fd, status = self._open_file(name, path)
            except ObjectNotFound:
                continue
            try:
                data = read_whole(fd, status.st_size)
            finally:
                os.close(fd)
            yield name, data, info_of(name, status)

    def open(self, name: str) -> BinaryIO:
        """Open the file itself; Windows replaces and deletes no file that is open."""
        return os.fdopen(self._open(name)[0], "rb")

    def _open(self, name: str) -> tuple[int, os.stat_result]:
        """Open a regular file that no link leads to; return its descriptor and status."""
        path = self._path(name)
        if path.find(os.sep, self._first_below_root) >= 0:
            self._refuse_links(path)
        return self._open_file(name, path)

    def _open_file(self, name: str, path: str) -> tuple[int, os.stat_result]:
        try:
            fd = os.open(path, platform.READ_FLAGS)
        except OSError as error:
            if error.errno in ABSENT_ERRORS:
                raise ObjectNotFound(name) from error
            if error.errno == errno.ELOOP:
                self._refuse_link(path)
            raise
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                self._require_file(path, status)
        except BaseException:
            os.close(fd)
            raise
        return fd, status

    # ------------------------------------------------------------------ writing

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        path = self._path(name)
        return self._put(path, data, if_match, if_none_match, sync_directory=self._fsync)

    def _put(
        self,
        path: str,
        data: Buffer,
        if_match: ETagValue | None,
        if_none_match: AnyVersion | None,
        *,
        sync_directory: bool,
    ) -> ETagValue:
        if path.find(os.sep, self._first_below_root) >= 0:
            self._refuse_links(path)
        try:
            if if_match is not None or if_none_match is not None:
                # a look without the lock spares a doomed write its temporary file
                check_version(self._status(path), if_match, if_none_match)
            for _ in range(_MAX_RACES):
                try:
                    return self._write_aside(
                        path, data, if_match, if_none_match, sync_directory=sync_directory
                    )
                except FileNotFoundError:
                    # the directory went, or a cleaner came before the new file was claimed
                    continue
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise name_too_long(path) from error
            raise
        raise BackendError(
            f"what is written into {os.path.dirname(path)!r} vanishes at once", backend="files"
        )

    def _write_aside(
        self,
        path: str,
        data: Buffer,
        if_match: ETagValue | None,
        if_none_match: AnyVersion | None,
        *,
        sync_directory: bool,
    ) -> ETagValue:
        """Write a temporary file and rename it over the old one, or leave no trace of it."""
        directory = os.path.dirname(path)
        fd, temp_path = self._create_temp(directory)
        try:
            try:
                status = self._fill(fd, temp_path, data)
                if platform.IS_WINDOWS:  # it renames no open files
                    os.close(fd)
                    fd = -1
                lock = platform.DirectoryLock(directory)
                try:
                    old = self._status(path)
                    if if_match is not None or if_none_match is not None:
                        check_version(old, if_match, if_none_match)
                    if old is not None and old.st_mtime_ns >= status.st_mtime_ns:
                        status = make_newer(temp_path, old)
                    platform.replace(temp_path, path)
                    lock.release()
                    if sync_directory:
                        lock.sync()
                finally:
                    lock.close()
            finally:
                if fd >= 0:
                    os.close(fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                platform.unlink(temp_path)
            self._prune(directory)
            raise
        return etag_of(status)

    def _create_temp(self, directory: str) -> tuple[int, str]:
        """Make a temporary file, and its directory if need be; return descriptor and path."""
        temp_path = f"{directory}{os.sep}{TEMP_PREFIX}{os.urandom(8).hex()}"
        try:
            fd = os.open(temp_path, platform.CREATE_FLAGS, 0o666)
        except (FileNotFoundError, NotADirectoryError):
            self._make_directory(directory)
            fd = os.open(temp_path, platform.CREATE_FLAGS, 0o666)
        platform.claim_file(fd)
        return fd, temp_path

    def _fill(self, fd: int, temp_path: str, data: Buffer) -> os.stat_result:
        """Write the bytes and the modification time; return the status of the file."""
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, memoryview(data)[written:])
        # the kernel's own clock for files ticks too slowly to tell two versions apart
        now = time.time_ns()
        os.utime(fd if _UTIME_BY_FD else temp_path, ns=(now, now))
        if self._fsync:
            os.fsync(fd)
        return os.fstat(fd)

    def _make_directory(self, directory: str) -> None:
        """Make a directory and those above it, durably; others may do, or undo, the same."""
        if os.path.isdir(directory):
            return
        parent = os.path.dirname(directory)
        if parent != directory:
            self._make_directory(parent)
        try:
            os.mkdir(directory)
        except FileExistsError:
            # a rival may have made it, and even removed it again: then the caller starts anew
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(os.stat(directory).st_mode):
                    error = NotADirectoryError(
                        errno.ENOTDIR, "a file where a directory should be", directory
                    )
                    self._fail_to_make(directory, error)
        except FileNotFoundError:
            raise  # a rival removed the parent, which was empty: the caller starts anew
        except OSError as error:
            self._fail_to_make(directory, error)
        else:
            if self._fsync:
                platform.sync_directory(parent)

    def _fail_to_make(self, directory: str, error: OSError) -> NoReturn:
        if len(directory) > len(self._root):
            raise error
        raise BackendError(
            f"base_dir {self._root!r} cannot be made: {error}", backend="files"
        ) from error

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        """Write many objects, each atomically; see the port.

        Durable files are written by several threads at once, and a batch of them shares the
        syncs of its directories. What is yielded is durable.
        """
        if not self._fsync:
            yield from super().put_many(items, if_none_match=if_none_match)
            return

        def put(item: tuple[str, Buffer]) -> tuple[str, ETagValue | Exception]:
            name, data = item
            try:
                path = self._path(name)
                return name, self._put(path, data, None, if_none_match, sync_directory=False)
            except Exception as error:  # reported to the caller, item by item
                return name, error

        remaining = iter(items)
        while batch := list(itertools.islice(remaining, _PUT_BATCH)):
            outcomes = list(map_in_order(put, batch, self._pool))
            written = [name for name, outcome in outcomes if not isinstance(outcome, Exception)]
            failed = self._sync_directories_of(written)
            for name, outcome in outcomes:
                yield name, failed.get(os.path.dirname(self._path(name)), outcome)

    def _sync_directories_of(self, names: Iterable[str]) -> dict[str, Exception]:
        """Sync the directories of files; return those where that failed, and why."""
        failed: dict[str, Exception] = {}
        for directory in {os.path.dirname(self._path(name)) for name in names}:
            try:
                platform.sync_directory(directory)
            except FileNotFoundError:
                continue  # a rival has deleted the files again: nothing is left to keep
            except OSError as error:
                failed[directory] = error
        return failed

    # ------------------------------------------------------------------ deleting

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        path = self._path(name)
        if path.find(os.sep, self._first_below_root) >= 0:
            self._refuse_links(path)
        directory = os.path.dirname(path)
        try:
            with self._changing(directory):
                self._delete_locked(path, if_match)
        except OSError as error:
            if error.errno not in ABSENT_ERRORS:
                raise
            if if_match is not None:
                raise ObjectNotFound(name) from error
            return
        self._prune(directory)

    def delete_many(self, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
        for above, group in itertools.groupby(names, key=lambda name: name.rpartition("/")[0]):
            while batch := list(itertools.islice(group, _DELETE_BATCH)):
                yield from self._delete_batch(above, batch)

    def _delete_batch(self, above: str, names: Iterable[str]) -> list[tuple[str, Exception]]:
        """Delete files of one directory under one lock, with one sync."""
        failures: list[tuple[str, Exception]] = []
        directory = os.path.dirname(self._path(f"{above}/" if above else ""))
        try:
            self._refuse_links(os.path.join(directory, ""))
            with self._changing(directory):
                for name in names:
                    try:
                        self._delete_locked(self._path(name), None)
                    except (OSError, BackendError) as error:
                        if getattr(error, "errno", None) not in ABSENT_ERRORS:
                            failures.append((name, error))
        except (OSError, BackendError) as error:
            if getattr(error, "errno", None) not in ABSENT_ERRORS:
                return [(name, error) for name in names]
        self._prune(directory)
        return failures

    @contextlib.contextmanager
    def _changing(self, directory: str) -> Iterator[None]:
        """Hold the lock of a directory that exists, and sync it afterwards."""
        while True:
            lock = platform.DirectoryLock(directory)
            try:
                # while we waited, the directory may have been removed and made anew
                if not lock.is_of(directory):
                    continue
                yield
                lock.release()
                if self._fsync:
                    lock.sync()
                return
            finally:
                lock.close()

    def _delete_locked(self, path: str, if_match: ETagValue | AnyVersion | None) -> None:
        status = os.lstat(path)
        self._require_file(path, status)
        if if_match is not None and if_match != ANY_VERSION:
            check_version(status, if_match, None)
        platform.unlink(path)

    def _prune(self, directory: str) -> None:
        """Remove directories that have become empty, but never the base directory."""
        while len(directory) > len(self._root):
            try:
                os.rmdir(directory)
            except OSError:
                return  # not empty, or gone already: either way nothing is left to do
            directory = os.path.dirname(directory)

    # ------------------------------------------------------------------ listing

    def names(
        self, prefix: str = "", *, start_after: str | None = None, page_size: int | None = None
    ) -> Iterator[str]:
        if start_after is not None:
            for info in self.list(prefix, start_after=start_after):
                yield info[0]
            return
        head, _, _ = prefix.rpartition("/")
        pending = [f"{head}/" if head else ""]
        while pending:
            above = pending.pop()
            files, directories = self._read_directory(above)
            yield from (name for name in files if name.startswith(prefix)) if prefix else files
            pending += [
                name for name in directories if name.startswith(prefix) or prefix.startswith(name)
            ]

    def _read_directory(self, above: str) -> tuple[list[str], list[str]]:
        """Return the files and the directories (these with ``/``) in a directory.

        Left-over temporary files of dead writers are removed in passing.
        """
        files: list[str] = []
        directories: list[str] = []
        path = self._path(above)
        if self._link_on_the_way(path) is not None:
            return files, directories
        try:
            entries = os.scandir(path)
        except OSError as error:
            if error.errno in ABSENT_ERRORS:
                return files, directories
            raise
        with entries:
            for entry in entries:
                name = entry.name
                if name.startswith(TEMP_PREFIX):
                    platform.remove_if_unclaimed(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    files.append(above + name)
                elif entry.is_dir(follow_symlinks=False):
                    directories.append(f"{above}{name}/")
        return files, directories

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        head, _, _ = prefix.rpartition("/")
        pending = [f"{head}/" if head else ""]
        while pending:
            name = pending.pop()
            if not name.endswith("/") and name:
                if start_after is None or name > start_after:
                    info = self._info_of(name)
                    if info is not None:
                        yield info
                continue
            if delimiter and len(name) > len(prefix):
                if (start_after is None or name > start_after) and any(
                    True for _ in self.names(name)
                ):
                    yield CommonPrefix(name)
                continue
            files, directories = self._read_directory(name)
            # "a.pkl" comes before "a/b.pkl": the order of whole names, not of directories
            inside = [
                entry
                for entry in itertools.chain(files, directories)
                if entry.startswith(prefix) or (entry.endswith("/") and prefix.startswith(entry))
            ]
            pending += sorted(inside, reverse=True)

    def _info_of(self, name: str) -> ObjectInfo | None:
        """Look at a listed file; None if it has vanished, or was replaced by something else."""
        try:
            status = os.lstat(self._path(name))
        except FileNotFoundError:
            return None
        return info_of(name, status) if stat.S_ISREG(status.st_mode) else None
