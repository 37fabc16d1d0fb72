"""A dictionary on any object store, such as one of your own."""

from __future__ import annotations

from typing import Any

from persidict.codecs import Codec
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import PlainNaming
from persidict.protection import Protection
from persidict.safe_str_tuple import SafeStrTuple
from persidict.stored_dict import StoredDict
from persidict.stores.object_store import ObjectStore


class StoreDict(StoredDict[ValueType]):
    """A dictionary whose items are the objects of a store that is handed to it.

    An item is the object named ``"/".join(key) + "." + serialization_format``. Other objects
    of the store are other dictionaries' business: never listed, changed or removed.

    Handles are equal that have equal parameters, and so equal stores. They can be pickled if
    the store can.

    Args:
        store: Where the items live.
        serialization_format: See PersiDict.
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of.
        codec: See StoredDict.
        protection: See StoredDict.
        read_only: Whether this handle refuses to change items; see `read_only()`.

    Raises:
        TypeError: `store` is no ObjectStore.

    Examples:
        >>> from persidict.stores.memory import MemoryStore
        >>> d = StoreDict(store=MemoryStore(), serialization_format="json")
        >>> d["a", "b"] = [1, 2]
        >>> list(d.store.names())
        ['a/b.json']
        >>> d.get_subdict("a")["b"]
        [1, 2]
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        codec: Codec | None = None,
        protection: Protection | None = None,
        read_only: bool = False,
    ) -> None:
        super().__init__(
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            codec=codec,
            protection=protection,
            read_only=read_only,
        )
        if not isinstance(store, ObjectStore):
            raise TypeError(f"store must be an ObjectStore, not {type(store).__name__}")
        self._given = store
        self._attach(store, self._chosen_codec(compress=True), PlainNaming(serialization_format))

    @property
    def store(self) -> ObjectStore:
        """The store of the items, as seen from this dictionary's prefix."""
        return self._store

    def _own_params(self) -> dict[str, Any]:
        return {"store": self._given}

    def _enter(self, prefix: SafeStrTuple) -> None:
        self._given = self._given.scoped(self._naming.prefix_of(prefix))
