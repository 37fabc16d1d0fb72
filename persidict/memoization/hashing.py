"""Hashes of arguments, the same in every process."""

from __future__ import annotations

import functools
import sys
from typing import Any


def stable_hash(value: Any) -> str:
    """Do what `joblib.hash` does, with frozen sets in any order, too."""
    digest: str = _hasher_class("numpy" in sys.modules)(hash_name="sha1").hash(value)
    return digest


@functools.cache
def _hasher_class(knows_numpy: bool) -> Any:
    from joblib import hashing  # type: ignore[import-untyped]

    hasher: Any = hashing.NumpyHasher if knows_numpy else hashing.Hasher

    class StableHasher(hasher):  # type: ignore[misc]
        dispatch = hasher.dispatch.copy()

        def save_elements(self, elements: frozenset[Any] | set[Any]) -> None:
            self.save((type(elements).__name__, sorted(map(stable_hash, elements))))

        dispatch[set] = dispatch[frozenset] = save_elements

    return StableHasher
