"""A dictionary in RAM."""

from __future__ import annotations

from typing import Any

from persidict.checks import check_int_or_none
from persidict.codecs import Codec
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import PlainNaming
from persidict.protection import Protection
from persidict.stores.memory import MemoryStore
from persidict.transactional_dict import TransactionalDict
from persidict.urls import Place, place


class LocalDict(TransactionalDict[ValueType]):
    """A dictionary with the whole contract, in the memory of this process.

    Values are kept in their stored form, so that what is held outside never changes what
    is inside. Every operation on one key is linearizable among threads; `transaction` makes one
    step of any number of them. Handles cannot be pickled: another process could not see the
    items.

    Args:
        backend: The memory that holds the items, from another dictionary's `backend`; handles
            that share it share the content. None: a new one. Each serialization format has a
            namespace of its own in it.
        serialization_format: See PersiDict.
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of.
        prune_interval: How many deletions an emptied branch may outlive. Kept for code that
            passes it: branches are removed at once when they become empty.
        codec: How values become bytes, in place of what the format says; see StoredDict.
        protection: `Signed`, `Encrypted`, or None: whether stored bytes are trusted unseen.

    Raises:
        TypeError: `backend` is no backend, or `prune_interval` neither an int nor None.

    Example:
        >>> d = LocalDict()
        >>> d["a", "b"] = 1
        >>> d.get_subdict("a")["b"]
        1
    """

    _store: MemoryStore
    prune_interval: int | None

    def __init__(
        self,
        *,
        backend: MemoryStore | None = None,
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        prune_interval: int | None = 64,
        codec: Codec | None = None,
        protection: Protection | None = None,
    ) -> None:
        super().__init__(
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            codec=codec,
            protection=protection,
        )
        if backend is not None and not isinstance(backend, MemoryStore):
            raise TypeError(
                f"backend must be another LocalDict's backend or None, not {type(backend).__name__}"
            )
        check_int_or_none("prune_interval", prune_interval)
        self.prune_interval = prune_interval
        self._attach(
            MemoryStore() if backend is None else backend,
            self._chosen_codec(compress=False),
            PlainNaming(serialization_format),
        )

    @property
    def backend(self) -> MemoryStore:
        """The memory that holds the items, as seen from this dictionary's prefix."""
        return self._store

    def _place(self) -> Place | None:
        path = self._store.path
        return None if path is None else place("mem", path, "backend")

    def _own_params(self) -> dict[str, Any]:
        return {"backend": self.backend, "prune_interval": self.prune_interval}
