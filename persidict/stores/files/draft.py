"""A new version of a file: filled beside the old one, whose place it takes in one step."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
from collections.abc import Iterable
from typing import Final

from persidict.buffers import pieces
from persidict.exceptions import BackendError
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.files import platform
from persidict.stores.files.descriptor import opened
from persidict.stores.files.lock import DirectoryLock, Held
from persidict.stores.files.platform import IS_WINDOWS
from persidict.stores.files.tree import FileTree
from persidict.stores.files.version import (
    ABSENT_ERRORS,
    await_next_tick,
    check_version,
    etag_of,
    make_newer,
    own_etag,
    set_mtime,
)
from persidict.stores.object_store import AnyVersion, Buffer

TEMP_PREFIX: Final = "%tmp."
"""How temporary files begin: with a character that no name of an item contains."""

_count: Final = itertools.count()
_noise: str
"""No other process has it but children forked by C code, which have other numbers."""


def _renew_noise() -> None:
    global _noise
    _noise = os.urandom(8).hex()


_renew_noise()
if hasattr(os, "register_at_fork"):
    # a later child may get the number of one that was killed
    os.register_at_fork(after_in_child=_renew_noise)

_ENCODING: Final = sys.getfilesystemencoding()
_ERRORS: Final = sys.getfilesystemencodeerrors()


def temp_name() -> str:
    """Return a name for a temporary file that no other file has, or has had."""
    return f"{TEMP_PREFIX}{_noise}{os.getpid():x}.{next(_count):x}"


def _steady_name() -> str:
    """Return the name of what this process writes under the lock of a directory.

    A name that was in a large directory before costs ext4 less than one that was not.
    """
    return f"{TEMP_PREFIX}{_noise}{os.getpid():x}"


class Draft:
    """A temporary file with the next version of another one, while it is being made.

    Args:
        tree: Where the file lies.
        path: The file.
        data: Its bytes.
        if_match: Only this version may be replaced.
        if_none_match: ``"*"``: none may be.
        lock: That of the directory, if it is held: then nobody takes the temporary file for
            a dead writer's, and both files are found from the open directory, which is
            quicker and safe from what becomes of its path.
        sync: Whether to make the bytes durable.

    Raises:
        PreconditionFailed: The condition does not hold; there is no temporary file.
        FileNotFoundError, NotADirectoryError: There is no such directory, or the temporary
            file was taken for a dead writer's.
    """

    __slots__ = (
        "_at",
        "_claim",
        "_mode",
        "_name",
        "_new",
        "_old",
        "_path",
        "_temp_path",
        "descriptor",
        "outcome",
    )

    def __init__(
        self,
        tree: FileTree,
        path: str,
        data: Buffer,
        if_match: ETagValue | None,
        if_none_match: AnyVersion | None,
        lock: DirectoryLock | None,
        *,
        sync: bool,
    ) -> None:
        self._path = path
        self.outcome: ETagValue | Exception | None = None
        """What became of it, where `take_places` was to see to that."""
        cut = path.rindex(os.sep) + 1
        at = self._at = None if lock is None else lock.at
        name = self._name = path if at is None else path[cut:]
        # without the lock, this spares a doomed write its temporary file
        old = self._old = tree.status_of(path, name, at)
        if if_match is not None or if_none_match is not None:
            check_version(old, path, if_match, if_none_match)
        # nobody may read the new version who may not read the old one
        mode = self._mode = tree.mode_of(old)
        if lock is None or at is None:
            temp_path = self._temp_path = path[:cut] + temp_name()
            self._claim = Held(temp_path, platform.CREATE_FLAGS, mode | 0o600)
            self.descriptor = self._claim.descriptor
        else:
            temp_path = self._temp_path = _steady_name()
            flags = platform.CREATE_FLAGS
            try:
                self.descriptor = lock.beside = opened(temp_path, flags, mode | 0o600, at=at)
            except FileExistsError:  # that of a write of this thread, which this one interrupts
                temp_path = self._temp_path = temp_name()
                self.descriptor = lock.beside = opened(temp_path, flags, mode | 0o600, at=at)
        try:
            fd = self.descriptor.fileno()
            if lock is not None:
                lock.descriptor.fileno()  # closed in a child that was forked here: ValueError
            if at is None and not self._claim.claim():
                raise FileNotFoundError(errno.ENOENT, "taken for a dead writer's", temp_path)
            _write_whole(fd, data)
            self._new = set_mtime(fd, temp_path)
            if sync:
                os.fsync(fd)
            if IS_WINDOWS:  # it renames no open files
                self.descriptor.close()
        except BaseException:
            self.drop(tree)
            raise

    def take_place(
        self,
        tree: FileTree,
        lock: DirectoryLock,
        if_match: ETagValue | None,
        if_none_match: AnyVersion | None,
        *,
        sync: bool = False,
    ) -> ETagValue | os.stat_result:
        """Let the new file take the place of the old one, if that is as the caller requires.

        The old one is looked at again where others may have changed it.

        Args:
            tree: Where it lies.
            lock: That of the directory.
            if_match: As when it was made.
            if_none_match: As when it was made.
            sync: Whether to make the bytes durable first.

        Returns:
            The version; where that needs more than a look, what `settled` makes it of.
        """
        path, name, temp_path, at = self._path, self._name, self._temp_path, self._at
        old, new, mode = self._old, self._new, self._mode
        may_exchange = not tree.fsync
        while True:
            if lock.is_disturbed:
                lock.is_disturbed = False
                lock.descriptor.fileno()  # closed in a child that was forked here: ValueError
                old = tree.status_of(path, name, at)
                check_version(old, path, if_match, if_none_match)
                mode = tree.mode_of(old)
            if old is not None:
                if old.st_mtime_ns >= new.mtime_ns:
                    place = temp_path if IS_WINDOWS else self.descriptor.fileno()
                    new = make_newer(place, new, old)
                if mode != new.mode & 0o777 and not IS_WINDOWS:
                    os.fchmod(self.descriptor.fileno(), mode)
            if sync:
                os.fsync(self.descriptor.fileno())
                sync = False
            if old is not None and may_exchange and platform.can_exchange(old):
                here = platform.AT_FDCWD if at is None else at
                # os.fsencode does the same, and takes longer to find out how
                names = temp_path.encode(_ENCODING, _ERRORS), name.encode(_ENCODING, _ERRORS)
                swap, how = platform.renameat2, platform.RENAME_EXCHANGE
                assert swap is not None
                # no call of Python code between this look and what is done: see DirectoryLock
                if not lock.is_disturbed:
                    if swap(here, names[0], here, names[1], how) == 0:
                        try:
                            os.unlink(temp_path, dir_fd=at)
                        except FileNotFoundError:  # taken for a dead writer's
                            break
                        break
                    may_exchange = False
                    platform.note_refusal(old)
            elif IS_WINDOWS:
                platform.replace(temp_path, path)
                break
            elif not lock.is_disturbed:
                os.replace(temp_path, name, src_dir_fd=at, dst_dir_fd=at)
                break
        self._temp_path = ""  # once the lock is let go, the name may be another thread's
        # without one of its own, the time of the renaming counts
        return own_etag(new.mtime_ns, new.size, new.inode) or os.lstat(path)

    def settled(self, seen: ETagValue | os.stat_result) -> ETagValue:
        """Return the version, once a later change would show in it; the lock is not needed.

        Args:
            seen: What `take_place` has returned.
        """
        if isinstance(seen, str):
            return seen
        await_next_tick(seen)
        return etag_of(seen, self._path if IS_WINDOWS else self.descriptor.fileno())

    def drop(self, tree: FileTree) -> None:
        """Leave no trace of what has not taken its place."""
        try:
            # what can't be deleted is cleared away later: it is the first error that counts
            with contextlib.suppress(OSError):
                if IS_WINDOWS:
                    platform.unlink(self._temp_path)
                elif self._temp_path:
                    os.unlink(self._temp_path, dir_fd=self._at)
            tree.prune(tree.directory_of(self._path))
        finally:
            self.descriptor.close()


def _write_whole(fd: int, data: Buffer) -> None:
    for piece in (data,) if type(data) is bytes else pieces(data):
        written = os.write(fd, piece)
        while written < len(piece):
            written += os.write(fd, memoryview(piece)[written:])


def take_places(tree: FileTree, drafts: Iterable[Draft], if_none_match: AnyVersion | None) -> None:
    """Let many new files take their places, in order, those of a directory under one lock.

    Nothing is synced. What became of each stands in its `outcome`, None where one before it
    was taken for a dead writer's.

    Args:
        tree: Where they lie.
        drafts: The new files.
        if_none_match: As when they were made.
    """
    by_directory: dict[str, list[Draft]] = {}
    for draft in drafts:
        by_directory.setdefault(tree.directory_of(draft._path), []).append(draft)
    for directory, group in by_directory.items():
        try:
            seen = _take_places_in(tree, directory, group, if_none_match)
        except (OSError, BackendError) as error:
            for draft in group:
                draft.outcome = draft.outcome or error
        else:
            for draft, version in seen:
                draft.outcome = draft.settled(version)


def _take_places_in(
    tree: FileTree, directory: str, drafts: list[Draft], if_none_match: AnyVersion | None
) -> list[tuple[Draft, ETagValue | os.stat_result]]:
    seen = []
    lock = DirectoryLock(directory, timeout=tree.lock_timeout)
    try:
        for draft in drafts:
            lock.is_disturbed = True  # others may have been here
            try:
                seen.append((draft, draft.take_place(tree, lock, None, if_none_match)))
            except Exception as error:  # reported to the caller, item by item
                draft.outcome = error
                if getattr(error, "errno", None) in ABSENT_ERRORS:
                    break  # it may be written anew, and the later ones are to come after it
        lock.release()
    finally:
        lock.descriptor.close()
    return seen
