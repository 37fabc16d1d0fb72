"""One file as one version of an object: its ETag, its age, its bytes."""

from __future__ import annotations

import errno
import os
from typing import Final

from persidict.exceptions import BackendError
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagValue
from persidict.stores import object_store
from persidict.stores.files import platform
from persidict.stores.object_store import AnyVersion, ObjectInfo

ABSENT_ERRORS: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""What the system says of a path under which there can be no file."""

_MTIME_STEPS_NS: Final = (1, 100, 1_000, 1_000_000, 1_000_000_000, 2_000_000_000)
"""Resolutions of modification times that file systems have, in nanoseconds."""


def etag_of(status: os.stat_result) -> ETagValue:
    """Return the version of a file."""
    return ETagValue(f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}")


def info_of(name: str, status: os.stat_result) -> ObjectInfo:
    """Return what is known of a file that is an object."""
    return ObjectInfo(name, etag_of(status), status.st_size, status.st_mtime)


def read_whole(fd: int, size: int) -> bytes:
    """Read a file that nobody changes: versions are replaced, never written over."""
    data = os.read(fd, size)
    if len(data) == size:
        return data
    chunks = [data]
    missing = size - len(data)
    while missing > 0:
        chunk = os.read(fd, missing)
        if not chunk:
            break
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def check_version(
    status: os.stat_result | None, if_match: ETagValue | None, if_none_match: AnyVersion | None
) -> None:
    """Raise PreconditionFailed unless the file is as the caller requires."""
    actual = ITEM_NOT_AVAILABLE if status is None else etag_of(status)
    object_store.check_version(actual, if_match, if_none_match)


def make_newer(temp_path: str, old: os.stat_result) -> os.stat_result:
    """Give a file a modification time that is strictly newer than that of the old version."""
    for step in _MTIME_STEPS_NS:
        newer = old.st_mtime_ns + step
        os.utime(temp_path, ns=(newer, newer))
        status = os.stat(temp_path)
        if status.st_mtime_ns > old.st_mtime_ns:
            return status
    raise BackendError(
        f"the file system does not keep modification times: {temp_path!r}", backend="files"
    )


def name_too_long(path: str) -> OSError:
    """Return the error that names the limit of the file system."""
    directory, file_name = os.path.split(path)
    while not os.path.isdir(directory) and directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
    limit = platform.max_name_length(directory)
    return OSError(
        errno.ENAMETOOLONG,
        f"the file system allows {limit or 'fewer'} bytes in a file name; with digest and"
        f" extension this key needs {max(len(part) for part in path.split(os.sep))}",
        file_name,
    )
