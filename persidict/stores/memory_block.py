"""Transactions on objects in RAM: a thread works on a view of its own, put in place at once."""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from persidict.exceptions import MutationPolicyError

if TYPE_CHECKING:
    from persidict.stores.memory import Memory

Directories: TypeAlias = dict[str, dict[str, Any]]

TIMEOUT_SECONDS: Final = 60.0
"""How long a writer waits for another thread's transaction."""


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

    def files_to_change(self, directory: str) -> dict[str, Any]:
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
