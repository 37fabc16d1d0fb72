"""Dictionaries whose storage can make one step of many operations."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NoReturn, Protocol, TypeVar, cast

from persidict.checks import check_flag
from persidict.contract.transactions import Block, Transaction, abort
from persidict.jokers_and_status_flags import ValueType
from persidict.stored_dict import StoredDict
from persidict.stores.object_store import ObjectStore

SelfType = TypeVar("SelfType", bound="TransactionalDict[Any]")


class TransactionalStore(Protocol):
    """What such a dictionary asks of its store."""

    @abstractmethod
    def transaction(self, *, read_only: bool) -> tuple[ObjectStore, Block]:
        """Prepare a transaction of this thread.

        Returns:
            The store as seen from inside, usable as long as the transaction is open, and the
            block that begins and ends it.
        """


class TransactionalDict(StoredDict[ValueType]):
    """A stored dictionary whose store is a TransactionalStore."""

    _block: Block | None = None
    """The transaction that this handle was made for, and dies with."""

    def transaction(self: SelfType, *, read_only: bool = False) -> Transaction[SelfType]:
        """Make one step of several operations: all of them happen for everybody, or none.

        All that this thread reads and writes inside the ``with`` statement takes part, of all
        the dictionaries and sub-dictionaries on the same file (or `backend`), through
        whatever handle. Transactions are serializable: nobody else changes anything
        meanwhile, and others see all of it or nothing. An exception undoes all of it, and goes
        on; so does `abort`, which goes nowhere. A transaction inside of another one is a part of
        it, which can be undone alone.

        Other writers wait until it ends: do not do in it what takes long.

        Args:
            read_only: Whether to see everything as it is at the beginning, and to change
                nothing. Others go on writing. It is the only kind that a read-only handle has.

        Returns:
            A context manager whose ``with`` statement gives a handle like this one, which cannot
            be used behind it.

        Raises:
            BackendError: Other writers did not make room in time.
            MutationPolicyError: Something is to be written in a read-only one.

        Examples:
            >>> from persidict import LocalDict
            >>> d = LocalDict()
            >>> d["ann"], d["bob"] = 10, 0
            >>> with d.transaction() as t:
            ...     t["ann"] -= 3
            ...     t["bob"] += 3
            >>> d["ann"], d["bob"]
            (7, 3)
        """
        for_reading = check_flag("read_only", read_only) or self._is_read_only

        def prepare() -> tuple[SelfType, Block]:
            inside, block = cast("TransactionalStore", self._store).transaction(
                read_only=for_reading
            )
            handle = self._inside(inside, block)
            if self._raw_of is not None:
                raw_of = cast("TransactionalDict[Any]", self._raw_of)
                handle._raw_of = raw_of._inside(inside, block)
            return handle, block

        return Transaction(prepare)

    def _inside(self: SelfType, store: ObjectStore, block: Block) -> SelfType:
        """Return a handle that can be used as long as a transaction is open."""
        twin = self._twin()
        twin._store = store
        twin._block = block
        return twin

    def abort(self) -> NoReturn:
        """Undo the transaction that this handle was made for, and leave its ``with`` statement.

        Raises:
            RuntimeError: This handle is not one that a ``with`` statement gave.
        """
        if self._block is None:
            raise RuntimeError("abort() needs the handle that `with d.transaction() as t:` gives")
        abort(self._block)
