"""One file as one version of an object: its ETag, its age, its bytes."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any, Final, NamedTuple

from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagValue
from persidict.stores import object_store
from persidict.stores.files import platform
from persidict.stores.files.descriptor import opened
from persidict.stores.object_store import AnyVersion, ObjectInfo

if sys.platform != "win32":
    import fcntl

ABSENT_ERRORS: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
"""What the system says of a path under which there can be no file."""

_SECOND_NS: Final = 1_000_000_000
_SECOND_US: Final = 1_000_000
_MTIME_STEPS_US: Final = (1, 1_000, _SECOND_US, 2 * _SECOND_US)
"""Resolutions of modification times that file systems have, in microseconds."""

_CLOCK_OF_FILES: Final = 5
"""CLOCK_REALTIME_COARSE of Linux (clock_gettime(2)): what files get their times from."""

_LONGEST_TICK_NS: Final = 20_000_000
_MAX_LOOKS: Final = 100
_GET_GENERATION: Final = 0x80087601
"""FS_IOC_GETVERSION of Linux (ioctl_iflags(2), linux/fs.h), on machines of 64 bits."""

_UTIME_BY_FD: Final = os.utime in os.supports_fd

_new: Final = tuple.__new__
_latest_us = 0


def next_mtime(size: int, inode: int) -> int:
    """Return the modification time, in nanoseconds, that a file which is written now is to have.

    It is that of the clock to the microsecond, and greater than what was returned before in
    this process, unless the clock was set back by more than a second: so are two versions
    told apart while the clock stands still. The digits below are a mark, see `own_etag`.
    """
    global _latest_us
    now = time.time_ns() // 1000
    if _latest_us - _SECOND_US < now <= _latest_us:
        now = _latest_us + 1
    _latest_us = now
    return now * 1000 + _mark(now, size, inode)


def _mark(microseconds: int, size: int, inode: int) -> int:
    """Return the nanoseconds, of three digits, by which a file is known to be this package's."""
    return 100 + (microseconds * 7 + size * 31 + inode * 131) % 900


class NewFile(NamedTuple):
    """What is known of a file that was just filled: all that its version is made of."""

    mtime_ns: int
    size: int
    inode: int
    mode: int


_keeps_times: Final[set[int]] = set()
"""The numbers of devices that keep modification times to the nanosecond, as they are set."""


def set_mtime(fd: int, temp_path: str) -> NewFile:
    """Give a file that was just filled a modification time that no file has had.

    The kernel's own clock for files ticks too slowly to tell two versions apart. A second
    look, at what the file system has made of the time, is taken once for each device.

    Args:
        fd: The open file.
        temp_path: Its path, for systems that need one.
    """
    status = os.fstat(fd)
    size, inode = status.st_size, status.st_ino
    mtime = next_mtime(size, inode)
    os.utime(fd if _UTIME_BY_FD else temp_path, ns=(mtime, mtime))
    if status.st_dev not in _keeps_times:
        kept = os.fstat(fd).st_mtime_ns
        if kept == mtime and mtime % 10:  # else it may be kept by chance: SMB counts by 100
            _keeps_times.add(status.st_dev)
        mtime = kept
    return _new(NewFile, (mtime, size, inode, status.st_mode))


def own_etag(mtime: int, size: int, inode: int) -> ETagValue | None:
    """Return the version of a file, None if it may be another program's, or its time put back.

    So it is with extracted archives, restored backups, and file systems that keep times
    less exactly than this package writes them.

    Args:
        mtime: When it was last modified, in nanoseconds since 1970.
        size: Its length in bytes.
        inode: The number of its inode.
    """
    microseconds, mark = divmod(mtime, 1000)
    # as `_mark` says; a call is what takes longest of a look at a version
    if mark != 100 + (microseconds * 7 + size * 31 + inode * 131) % 900:
        return None
    etag: Any = f"{mtime}:{size}:{inode}"
    return etag  # type: ignore[no-any-return]


def etag_of(status: os.stat_result, place: int | str) -> ETagValue:
    """Return the version of a file: modification time, size, inode number.

    Where it may be another program's, there are also the time of the latest change of any
    kind, and what tells apart the files that have had one inode number.

    Args:
        status: What is known of the file.
        place: Its descriptor or path.
    """
    return own_etag(status.st_mtime_ns, status.st_size, status.st_ino) or ETagValue(
        f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}:{status.st_ctime_ns}"
        f":{_generation_of(place)}"
    )


def _settled(status: os.stat_result, place: int | str) -> os.stat_result:
    """Look at a file until a later change of it would show in its times.

    The clock that files get their times from ticks every few milliseconds: a file that
    another program changes twice within a tick may look the same afterwards.

    Args:
        status: What has just been seen.
        place: The descriptor or path of the file.

    Returns:
        What the file is like now.
    """
    for _ in range(_MAX_LOOKS):
        if not await_next_tick(status):
            break
        status = os.fstat(place) if isinstance(place, int) else os.lstat(place)
    return status


def await_next_tick(status: os.stat_result) -> bool:
    """Wait until the clock of files has passed the change of a file; tell whether it took time."""
    if sys.platform != "linux" or status.st_ctime_ns % _SECOND_NS == 0:
        return False  # whole seconds are not waited for
    has_waited = False
    for _ in range(_MAX_LOOKS):
        ahead = status.st_ctime_ns - time.clock_gettime_ns(_CLOCK_OF_FILES)
        if not 0 <= ahead < _LONGEST_TICK_NS:
            break  # passed, or of another machine's clock
        time.sleep(0.0005)
        has_waited = True
    return has_waited


def _generation_of(place: int | str) -> str:
    """Return what tells apart the files that have had one inode number, "" where nothing does."""
    if sys.platform != "linux":
        return ""
    generation = bytearray(8)
    try:
        if isinstance(place, int):
            fcntl.ioctl(place, _GET_GENERATION, generation, True)
        else:
            there = opened(place, platform.READ_FLAGS)
            try:
                fcntl.ioctl(there.fileno(), _GET_GENERATION, generation, True)
            finally:
                there.close()
    except OSError:
        return ""
    return generation[:4].hex()


def info_of(name: str, status: os.stat_result, place: int | str) -> ObjectInfo:
    """Return what is known of a file that is an object; the arguments are as of `etag_of`.

    One that may be another program's is looked at until a later change of it would show.
    """
    etag = own_etag(status.st_mtime_ns, status.st_size, status.st_ino)
    if etag is None:
        status = _settled(status, place)
        etag = etag_of(status, place)
    # calling the class takes twice as long
    return _new(ObjectInfo, (name, etag, status.st_size, status.st_mtime))


def read_on(fd: int, data: bytes, size: int) -> bytes:
    """Read the rest of a file of which the system gave less than was asked for."""
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
    status: os.stat_result | None,
    path: str,
    if_match: ETagValue | None,
    if_none_match: AnyVersion | None,
) -> None:
    """Raise PreconditionFailed unless the file at a path is as the caller requires."""
    if if_match is None and if_none_match is None:
        return
    actual = ITEM_NOT_AVAILABLE if status is None else etag_of(status, path)
    object_store.check_version(actual, if_match, if_none_match)


def make_newer(place: int | str, new: NewFile, old: os.stat_result) -> NewFile:
    """Give a file a modification time that is strictly newer than that of the old version.

    Where the old one has the latest time that the file system knows, there is none: the two
    then differ in the rest of their ETags.

    Args:
        place: The descriptor or path of the file.
        new: What it is like.
        old: What the old version is like.

    Returns:
        What the new file is like now.
    """
    for step in _MTIME_STEPS_US:
        newer = old.st_mtime_ns // 1000 + step
        mtime = newer * 1000 + _mark(newer, new.size, new.inode)
        try:
            os.utime(place, ns=(mtime, mtime))
        except OverflowError:
            break
        except OSError as error:
            if error.errno in ABSENT_ERRORS:
                raise
            break
        kept = os.stat(place).st_mtime_ns
        if kept > old.st_mtime_ns:
            return new._replace(mtime_ns=kept)
    mtime = next_mtime(new.size, new.inode)
    os.utime(place, ns=(mtime, mtime))
    return new._replace(mtime_ns=os.stat(place).st_mtime_ns)


def name_too_long(path: str, needed: str) -> OSError:
    """Return the error that names the limit of the system that a key is beyond.

    Args:
        path: The file of the item.
        needed: The longest path that writing it needs.
    """
    directory, file_name = os.path.split(path)
    while not os.path.isdir(directory) and directory != os.path.dirname(directory):
        directory = os.path.dirname(directory)
    longest_name = max(len(os.fsencode(part)) for part in path.split(os.sep))
    name_limit = platform.max_name_length(directory)
    if name_limit is not None and longest_name <= name_limit:
        path_limit = platform.max_path_length(directory)
        return OSError(
            errno.ENAMETOOLONG,
            f"the system allows {path_limit or 'fewer'} bytes in a path; this key, of"
            f" {path.count(os.sep)} levels, needs {len(os.fsencode(needed))}",
            file_name,
        )
    return OSError(
        errno.ENAMETOOLONG,
        f"the file system allows {name_limit or 'fewer'} bytes in a file name; with digest and"
        f" extension this key needs {longest_name}",
        file_name,
    )
