"""Transactions: several operations as one step."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Generic, NoReturn, Protocol, TypeVar

DictType = TypeVar("DictType")


class Block(Protocol):
    """What a storage does for one ``with`` statement."""

    def begin(self) -> None:
        """Begin, or raise and leave nothing behind."""

    def commit(self) -> None:
        """Keep what was done, or raise and undo it."""

    def close(self) -> None:
        """Undo what was done, unless it was kept or undone before."""


class _Aborted(BaseException):
    """On the way out of the block of a transaction that is to be undone."""

    def __init__(self, block: Block) -> None:
        super().__init__("the transaction was aborted: this exception ends its `with` statement")
        self.block = block


def abort(block: Block) -> NoReturn:
    """Leave the ``with`` statement of a block and undo what was done in it."""
    raise _Aborted(block)


class Transaction(Generic[DictType]):
    """A context manager, to be used once: what `transaction` of a dictionary returns.

    Args:
        prepare: Returns the handle that the ``with`` statement gives, and its block.
    """

    _block: Block | None = None

    def __init__(self, prepare: Callable[[], tuple[DictType, Block]]) -> None:
        self._prepare: Callable[[], tuple[DictType, Block]] | None = prepare

    def __enter__(self) -> DictType:
        if self._prepare is None:
            raise RuntimeError("a transaction can be used once; call transaction() again")
        prepare, self._prepare = self._prepare, None
        handle, self._block = prepare()
        try:
            self._block.begin()
        except BaseException:
            # whatever a signal handler raised, and when
            self._block.close()
            raise
        return handle

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        block = self._block
        assert block is not None
        try:
            if error is None:
                block.commit()
        finally:
            block.close()
        return isinstance(error, _Aborted) and error.block is block

    def __del__(self) -> None:
        # a signal handler may raise before the first line of __exit__
        if self._block is not None:
            self._block.close()
