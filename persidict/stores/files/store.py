"""A store in a directory: one file for each object, durable and atomic."""

from __future__ import annotations

import errno
import os
import re
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, Final, Literal, cast

from persidict.exceptions import BackendError, ObjectNotFound, without_frames
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.files import bulk, listing, platform
from persidict.stores.files.private import require_private
from persidict.stores.files.tree import FileTree
from persidict.stores.files.version import (
    ABSENT_ERRORS,
    info_of,
    own_etag,
    read_on,
)
from persidict.stores.files.write import delete_file, write_file
from persidict.stores.object_store import (
    NOT_MODIFIED,
    AnyVersion,
    Buffer,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
    Read,
    Unread,
)
from persidict.stores.optional import read_whole
from persidict.stores.shared.parallel import WorkerPool
from persidict.stores.site import Site, identity_of, real_path
from persidict.traits import Traits

DEFAULT_LOCK_TIMEOUT: Final = 60.0
"""For how many seconds others may keep a directory locked before that is an error."""

_OPEN_FROM: Final = None if platform.IS_WINDOWS else 128 * 1024
"""From so many bytes on, having them twice in memory takes longer than opening a stream.

Windows replaces no file that is open: there, reading must not take long.
"""


_open_stream = cast("Callable[[int, str], BinaryIO]", open)


_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)/?(.*)", re.DOTALL)
_S3_URL_MADE_A_PATH: Final = re.compile(r"s3:/(?!/)", re.IGNORECASE)
"""What pathlib makes of the beginning of ``s3://bucket``."""


def absolute_directory(name: str, directory: str | os.PathLike[str]) -> str:
    """Return a directory given as an argument as an absolute path; ``~`` is expanded.

    Raises:
        TypeError: It is not the path of anything.
        ValueError: It is empty, holds a NUL character, or is a URL.
    """
    if not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"{name} must be a str or a path, not {type(directory).__name__}")
    path = os.fspath(directory)
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path in str, not in {type(path).__name__}")
    if not path:
        raise ValueError(f"{name} must not be empty; '.' is the current directory")
    if "\0" in path:
        raise ValueError(f"{name} must not contain a NUL character: {path!r}")
    _refuse_url(name, path)
    return os.path.abspath(os.path.expanduser(path))


def _refuse_url(name: str, path: str) -> None:
    if _S3_URL_MADE_A_PATH.match(path):
        path = path.replace("/", "//", 1)
    url = _URL.fullmatch(path)
    if url is None:
        return
    scheme, bucket, prefix = url.groups()
    if scheme.lower() != "s3":
        raise ValueError(f"{name} must be a directory, not a URL: {path!r}")
    raise ValueError(
        f"{name} must be a directory, not a URL: for {path!r}, use"
        f" BasicS3Dict(bucket_name={bucket!r}, root_prefix={prefix!r}), or S3Dict with the same"
        " arguments"
    )


_pools: Final[weakref.WeakValueDictionary[tuple[str, int], WorkerPool]] = (
    weakref.WeakValueDictionary()
)


def _pool_of(root: str, max_concurrency: int) -> WorkerPool:
    """Return the threads of a place, which all handles on it share."""
    return _pools.setdefault((root, max_concurrency), WorkerPool(max_concurrency))


class FileStore(ObjectStore):
    """Named bytes in files below a directory.

    Reads see one version whole: files are written aside and renamed into place (rename(2)).
    Changes of one directory take turns under a lock that threads and processes of this
    machine respect, so that conditions are checked and acted upon in one step.

    An ETag is made of the file's modification time, size, inode number and the time of its
    latest change by any means; see `version` for what tells two versions apart where clocks
    are coarse or stand still. Symbolic links below the directory are not followed.
    Directories are made when needed and removed when the last file in them goes.

    Args:
        base_dir: The directory. It need not exist yet.
        fsync: Whether a write is on stable storage when it returns (fsync(2) of the file
            and its directory).
        max_concurrency: How many threads `put_many` writes durable files with.
        lock_timeout: For how many seconds the lock of a directory is waited for; None:
            without end.
        private_from: A directory, `base_dir` or one above it. It and all below is made with
            mode 0700, files with 0600, and a file that is another user's, or that others
            may write to, is not read but a BackendError. None: the umask decides, and every
            file is read. Windows has no modes.

    Raises:
        ValueError: `base_dir` is a file.
    """

    _DURABLE = Traits(reads_are_cheap=True, back_off_seconds=0.002)
    _FAST = Traits(reads_are_cheap=True, back_off_seconds=0.00005)

    def __init__(
        self,
        base_dir: str,
        *,
        fsync: bool = True,
        max_concurrency: int = 4,
        lock_timeout: float | None = DEFAULT_LOCK_TIMEOUT,
        private_from: str | None = None,
    ) -> None:
        self._tree = FileTree(
            base_dir, fsync=fsync, lock_timeout=lock_timeout, private_from=private_from
        )
        root = self._tree.root
        if os.path.lexists(root) and not os.path.isdir(root):
            raise ValueError(f"base_dir {base_dir!r} is not a directory")
        self._pool = _pool_of(root, max_concurrency)

    @property
    def traits(self) -> Traits:
        return self._DURABLE if self._tree.fsync else self._FAST

    def location(self, name: str) -> str:
        return self._tree.path_of(name)

    @property
    def site(self) -> Site:
        """Where the files lie; costs some system calls."""
        path = os.path.join(real_path(self._tree.path_of("")), "")
        return Site("files", path.replace(os.sep, "/"), identity_of(path))

    def scoped(self, prefix: str) -> FileStore:
        scope = FileStore.__new__(FileStore)
        scope._tree = self._tree.below(prefix)
        scope._pool = self._pool
        return scope

    def for_reading(self) -> FileStore:
        reader = FileStore.__new__(FileStore)
        reader._tree = self._tree.unswept()
        reader._pool = self._pool
        return reader

    # ------------------------------------------------------------------ reading

    def head(self, name: str) -> ObjectInfo:
        path = self._tree.path_of(name)
        try:
            return info_of(name, self._status_of(name, path), path)
        except FileNotFoundError as error:
            raise ObjectNotFound(name) from error

    def contains(self, name: str) -> bool:
        try:
            self._status_of(name, self._tree.path_of(name))
        except ObjectNotFound:
            return False
        return True

    def _status_of(self, name: str, path: str) -> os.stat_result:
        self._tree.refuse_links(path)
        try:
            status = os.lstat(path)
        except OSError as error:
            if error.errno in ABSENT_ERRORS:
                raise ObjectNotFound(name) from error
            raise
        if not stat.S_ISREG(status.st_mode):
            self._tree.require_file(path, status)
        return status

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        return read_whole(self.get_or_open(name, if_none_match=if_none_match))

    def get_or_open(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[bytes | BinaryIO, ObjectInfo] | NotModified:
        path = self._tree.path_of(name)
        self._tree.refuse_links(path)
        if if_none_match is not None and self._is_plainly(path, if_none_match):
            return NOT_MODIFIED
        data, info, _ = self._read(name, path, _OPEN_FROM, if_none_match=if_none_match)
        assert info is not None
        return NOT_MODIFIED if data is None else (data, info)

    def _is_plainly(self, path: str, etag: ETagValue) -> bool:
        """Tell whether a look is enough to see a version, which takes less than to open it."""
        try:
            status = os.lstat(path)
        except OSError:
            return False  # what is wrong is told by whoever opens it
        if not stat.S_ISREG(status.st_mode) or self._tree.private_from is not None:
            return False
        return own_etag(status.st_mtime_ns, status.st_size, status.st_ino) == etag

    def read_with_status(self, name: str) -> tuple[bytes | BinaryIO, os.stat_result]:
        """Read a small file, or open a large one; also return what the system tells of it."""
        path = self._tree.path_of(name)
        self._tree.refuse_links(path)
        data, _, status = self._read(name, path, _OPEN_FROM, with_version=False)
        assert data is not None
        return data, status

    def read_or_open(self, name: str) -> bytes | BinaryIO:
        path = self._tree.path_of(name)
        self._tree.refuse_links(path)
        data, _, _ = self._read(name, path, _OPEN_FROM, with_version=False)
        assert data is not None
        return data

    def get_many(self, entries: Iterable[str | ObjectInfo]) -> Iterator[Read | Unread]:
        """Read many files, in the order given; see the port.

        Of files in one directory that come one after the other, only the first has the
        directories above it looked at for links.
        """
        looked_at = None
        path_of, read = self._tree.path_of, self._read
        for entry in entries:
            name = entry if isinstance(entry, str) else entry.name
            path = path_of(name)
            directory = name.rpartition("/")[0]
            try:
                if directory != looked_at:
                    self._tree.refuse_links(path)
                    looked_at = directory
                data, info, _ = read(name, path, None)
            except ObjectNotFound:
                continue
            except (OSError, BackendError) as error:
                yield name, without_frames(error), None
                continue
            assert isinstance(data, bytes)
            assert info is not None
            yield name, data, info

    def open(self, name: str) -> BinaryIO:
        """Open the file itself; Windows replaces and deletes no file that is open."""
        path = self._tree.path_of(name)
        self._tree.refuse_links(path)
        stream, _, _ = self._read(name, path, 0, with_version=False)
        assert stream is not None
        assert not isinstance(stream, bytes)
        return stream

    def _read(
        self,
        name: str,
        path: str,
        open_from: int | None,
        *,
        with_version: bool = True,
        if_none_match: ETagValue | None = None,
    ) -> tuple[bytes | BinaryIO | None, ObjectInfo | None, os.stat_result]:
        """Read a regular file whole, or open it if it has at least `open_from` bytes.

        ``for fd in map(os.open, ...)`` opens and takes note of it in one step of the
        interpreter: no exception of a signal handler finds a descriptor that nobody closes.

        Returns:
            The bytes or the stream, None if the file is the version `if_none_match`; what
            is known of the object, None without `with_version`; and of the file.
        """
        try:
            for fd in map(os.open, (path,), (platform.READ_FLAGS,)):
                stream: BinaryIO | None = None
                try:
                    status = os.fstat(fd)
                    if not stat.S_ISREG(status.st_mode):
                        self._tree.require_file(path, status)
                    if self._tree.private_from is not None:
                        require_private(path, status)
                    info = info_of(name, status, fd) if with_version else None
                    if if_none_match is not None and info and if_none_match == info.etag:
                        return None, info, status
                    size = status.st_size
                    if open_from is None or size < open_from:
                        data = os.read(fd, size)
                        return data if len(data) == size else read_on(fd, data, size), info, status
                    for stream in map(_open_stream, (fd,), ("rb",)):
                        return stream, info, status
                finally:
                    if stream is None:
                        os.close(fd)
        except OSError as error:
            if error.errno in ABSENT_ERRORS:
                raise ObjectNotFound(name) from error
            if error.errno == errno.ELOOP:
                self._tree.refuse_link(path)
            raise
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------ writing

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        tree = self._tree
        path = tree.path_of(name)
        return write_file(tree, path, data, if_match, if_none_match, sync_directory=tree.fsync)

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        """Write many objects, each atomically; see the port and `bulk.put_many`."""
        if not self._tree.fsync:
            return super().put_many(items, if_none_match=if_none_match)
        return bulk.put_many(self._tree, self._pool, items, if_none_match)

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        try:
            delete_file(self._tree, self._tree.path_of(name), if_match)
        except OSError as error:
            if error.errno not in ABSENT_ERRORS:
                raise
            if if_match is not None:
                raise ObjectNotFound(name) from error

    def delete_many(self, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
        return bulk.delete_many(self._tree, names)

    # ------------------------------------------------------------------ listing

    def names(
        self, prefix: str = "", *, start_after: str | None = None, page_size: int | None = None
    ) -> Iterator[str]:
        if start_after is None:
            return listing.list_names(self._tree, prefix, page_size=page_size)
        return (info[0] for info in self.list(prefix, start_after=start_after))

    def name_groups(self, *, page_size: int | None = None) -> Iterator[tuple[str, Sequence[str]]]:
        """List all names by their directories: what the names of each begin with, and the rest."""
        return listing.list_groups(self._tree, page_size=page_size)

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        return listing.list_infos(self._tree, prefix, start_after, delimiter)
