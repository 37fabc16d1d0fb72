"""What all scopes of a store in RAM share: objects, and transactions on them.

In a transaction, a thread works on a view of its own, which is put in place at once.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Iterator
from threading import get_ident
from typing import Final, TypeAlias, cast

from persidict.buffers import Buffer
from persidict.exceptions import BackendError, MutationPolicyError
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.unencoded import Unencoded

Stored: TypeAlias = tuple[Buffer | Unencoded, ETagValue, float]
"""Bytes, version and time of writing; a plain tuple, which is fastest to make."""

Directories: TypeAlias = dict[str, dict[str, Stored]]

TIMEOUT_SECONDS: Final = 60.0
"""How long a writer waits for another thread's transaction."""

_FEW_HOLES: Final = 64
_HOLES: Final = 8


class Memory:
    """What all scopes of one store share: objects by directory and file name.

    The thread that holds the lock may be called away at any moment, by a signal or by the
    `__del__` of something, and find itself here again. So a change is prepared, and made only
    if no other was made meanwhile, by statements that call nothing: the interpreter turns to
    signals, and to other threads, at calls and at the beginnings of loops. So what replaces an
    object whatever it is needs no lock.

    Attributes:
        directories: The objects that are there for everybody.
        changes: How many changes have been made.
        is_copied: Whether all of it is being copied: then every change waits for the lock, as
            there would be no end to it. Left set by an interruption, it costs time alone.
        lock: Held while something changes, and while all of it is looked at.
        writer: The transaction that all other writers wait for.
        writer_left: Tells them, under the lock.
        blocks: The innermost transaction of each thread that has one open.
    """

    def __init__(self) -> None:
        self.directories: Directories = {}
        self.changes = 0
        self._holes: dict[str | None, int] = {}
        self.start_afresh()
        _memories.add(self)

    def start_afresh(self) -> None:
        """Begin without locks and transactions; those there were are somebody else's.

        Versions begin anywhere, so that a cache that outlives this memory mistakes no other
        for it.
        """
        self.lock = threading.RLock()
        self.is_copied = False
        self.writer: MemoryBlock | None = None
        self.writer_left = threading.Condition(self.lock)
        self.blocks: dict[int, MemoryBlock] = {}
        numbers = itertools.count(int.from_bytes(os.urandom(8)) >> 2)
        self.new_etags = cast("Iterator[ETagValue]", map(str, numbers))

    def seen(self) -> Directories:
        """Return what this thread sees."""
        blocks = self.blocks
        if not blocks:
            return self.directories
        block = blocks.get(get_ident())
        return self.directories if block is None else block.view

    def block_to_change(self) -> MemoryBlock | None:
        """Return this thread's transaction, or wait for those of others; under the lock.

        Raises:
            MutationPolicyError: It is read-only.
        """
        if not self.blocks:
            return None
        block = self.blocks.get(get_ident())
        if block is None:
            self.wait_for_writer()
        elif block.read_only:
            raise MutationPolicyError("read-only", "the transaction is read-only")
        return block

    def wait_for_writer(self) -> None:
        """Wait, under the lock, until no transaction is open that writes.

        Raises:
            BackendError: One stays open for a minute.
        """
        if not self.writer_left.wait_for(self._may_write, TIMEOUT_SECONDS):
            raise BackendError(
                f"timed out after {TIMEOUT_SECONDS:.0f} s: another thread's transaction is open",
                backend="memory",
            )

    def _may_write(self) -> bool:
        # this thread's own block has come to its end, where a signal handler writes on
        return self.writer is None or self.writer.is_of_this_thread

    def without_holes(
        self, table: Directories, directory: str, files: dict[str, Stored]
    ) -> tuple[Directories, dict[str, Stored]]:
        """Return the table of directories and one of them, from which an entry is to be deleted.

        A dict keeps a hole for every entry that was deleted, and looks through those at its
        beginning for the first that is there: they must not become too many. So either of the
        two is a copy now and then, to be put in its place.
        """
        if len(files) == 1:
            self._holes.pop(directory, None)
            if self._is_full_of_holes(None, len(table)):
                table = {**table}
        elif self._is_full_of_holes(directory, len(files)):
            files = {**files}
        return table, files

    def _is_full_of_holes(self, where: str | None, n_entries: int) -> bool:
        holes = self._holes.get(where, 0) + 1
        is_full = holes > _FEW_HOLES and holes * holes > _HOLES * n_entries
        self._holes[where] = 0 if is_full else holes
        return is_full


_memories: weakref.WeakSet[Memory] = weakref.WeakSet()


def _part_from_parent() -> None:
    """In a forked child: lock holders do not exist here, and writes are no longer shared."""
    for memory in _memories:
        memory.start_afresh()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_part_from_parent)


class MemoryBlock:
    """A transaction, or a part of one that can be undone alone.

    The thread sees a copy of the table of directories, and copies a directory before it first
    changes it; everybody else sees what was there. Committing exchanges the table, which is
    one step. A snapshot copies everything at its beginning.

    Args:
        memory: The objects.
        read_only: Whether to see one moment, and to write nothing.

    Attributes:
        view: What its thread sees.
        copied: The directories in it that nobody else sees.
    """

    __slots__ = ("_memory", "_parent", "_thread", "copied", "is_open", "read_only", "view")

    def __init__(self, memory: Memory, *, read_only: bool) -> None:
        self.read_only = read_only
        self.is_open = False
        self.view: Directories = {}
        self._memory = memory
        self._thread = get_ident()
        self._parent: MemoryBlock | None = memory.blocks.get(self._thread)
        self.copied: dict[str, bool] = {}

    def begin(self) -> None:
        """Begin, when the transactions of other threads have ended.

        Raises:
            BackendError: They did not end within a minute.
            MutationPolicyError: It is to write, in one that is read-only.
        """
        memory, parent = self._memory, self._parent
        if parent is not None and parent.read_only and not self.read_only:
            raise MutationPolicyError("read-only", "the transaction around it is read-only")
        with memory.lock:
            self._begin_locked(parent)

    def _begin_locked(self, parent: MemoryBlock | None) -> None:
        memory = self._memory
        memory.is_copied = self.read_only
        while not self.is_open:
            changes = memory.changes
            if parent is not None:
                view = parent.view.copy()
            elif self.read_only:
                view = {name: files.copy() for name, files in memory.directories.copy().items()}
            else:
                memory.wait_for_writer()
                view = memory.directories.copy()
            if memory.changes == changes:
                # no calls from here on: nothing comes between; and in this order: `close`
                # finds what there is to undo wherever an interruption comes
                self.view = view
                self.is_open = True
                memory.blocks[self._thread] = self
                if parent is None and not self.read_only:
                    memory.writer = self
        memory.is_copied = False

    def check(self) -> None:
        """Raise RuntimeError unless the block is open and this is its thread."""
        if not self.is_open:
            raise RuntimeError("the transaction has ended: this handle was part of it")
        if get_ident() != self._thread or self._thread not in self._memory.blocks:
            raise RuntimeError("the transaction belongs to another thread or process")

    def files_to_change(self, directory: str) -> dict[str, Stored]:
        """Return a directory that nobody else sees, to be put into the view and `copied`."""
        files = self.view.get(directory, {})
        return files if directory in self.copied else files.copy()

    @property
    def is_of_this_thread(self) -> bool:
        """Whether the thread that asks is the one that the block was made by."""
        return get_ident() == self._thread

    def commit(self) -> None:
        """Keep what was done: for everybody, or as part of the transaction around it."""
        self.check()
        parent = self._parent
        with self._memory.lock:
            if parent is not None:
                parent.view = self.view
                parent.copied |= self.copied
            elif not self.read_only:
                self._memory.directories = self.view
            self._memory.changes += 1
        self.close()

    def close(self) -> None:
        """Undo what was done, unless it was kept; does nothing in a forked child."""
        if not self.is_open:
            return
        with self._memory.lock:
            self._close_locked()

    def _close_locked(self) -> None:
        memory = self._memory
        innermost = memory.blocks.get(self._thread)
        while innermost is not None and innermost is not self:
            # a generator that was left alone inside of this block
            innermost.is_open = False
            innermost = innermost._parent
        if innermost is not None and self._parent is not None:
            memory.blocks[self._thread] = self._parent
        elif innermost is not None:
            del memory.blocks[self._thread]
        if memory.writer is self:
            memory.writer = None
            memory.writer_left.notify_all()
        # last, so that an interrupted call can be repeated
        self.is_open = False
