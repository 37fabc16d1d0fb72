"""Hashes of arguments, the same in every process."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any, Final

_LEAVES: Final = frozenset(
    (str, bytes, int, float, bool, NoneType, type, FunctionType, BuiltinFunctionType)
)
"""What holds nothing else, and is hashed where it stands."""

_ORDERED: Final = frozenset((str, bytes, int))
"""Keys that have one order; that of frozensets is not total."""

_NO_OPCODE: Final = b"\0"
"""What no part of a pickle begins with."""


def stable_hash(value: Any) -> str:
    """Do what `joblib.hash` does, with what is equal hashed alike where that differs.

    That is, dicts and sets, frozen ones too, in any order, and whether an object occurs
    several times or several equal ones do: each is hashed by itself, and once.
    """
    return _hash(value, {})


def _hash(value: Any, known: dict[int, tuple[Any, str]]) -> str:
    digest: str = _hasher_class("numpy" in sys.modules)(value, known).hash(value)
    return digest


@functools.cache
def _hasher_class(knows_numpy: bool) -> Any:
    from joblib import hashing  # type: ignore[import-untyped]

    hasher: Any = hashing.NumpyHasher if knows_numpy else hashing.Hasher

    class StableHasher(hasher):  # type: ignore[misc]
        dispatch = hasher.dispatch.copy()

        def __init__(self, root: Any, known: dict[int, tuple[Any, str]]) -> None:
            super().__init__(hash_name="sha1")
            self._root = root
            self._known = known

        def save(self, obj: Any, *args: Any, **kwargs: Any) -> None:
            if type(obj) in _LEAVES:
                super().save(obj)
            elif obj is self._root:
                self._root = _NO_OPCODE
                super().save(obj)
            else:
                self.write(_NO_OPCODE + self._digest_of(obj).encode())

        def _digest_of(self, obj: Any) -> str:
            found = self._known.get(id(obj))
            if found is None:
                # what is met again while it is hashed contains itself
                self._known[id(obj)] = obj, f"around {len(self._known)}"
                found = self._known[id(obj)] = obj, _hash(obj, self._known)
            return found[1]

        def save_elements(self, elements: frozenset[Any] | set[Any]) -> None:
            self.save((type(elements).__name__, sorted(map(stable_hash, elements))))

        dispatch[set] = dispatch[frozenset] = save_elements

        def _batch_setitems(self, items: Iterable[tuple[Any, Any]], *args: Any) -> None:
            pairs = list(items)
            classes = {type(key) for key, _ in pairs}
            is_ordered = len(classes) == 1 and classes <= _ORDERED
            by = (lambda pair: pair[0]) if is_ordered else (lambda pair: stable_hash(pair[0]))
            for key, value in sorted(pairs, key=by):
                self.save(key)
                self.save(value)

    return StableHasher
