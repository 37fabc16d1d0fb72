"""Telling whether two values are the same, whatever they are."""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import Any


def same_content(one: Any, other: Any) -> bool:
    """Compare values, also those whose == is not a truth value (arrays, data frames)."""
    if type(one) is not type(other):
        return bool(one == other) if _is_plain(one) and _is_plain(other) else False
    with suppress(ValueError, TypeError):  # of an array, whose == has no single truth value
        if bool(one == other):
            return True
    return _canonical(one) == _canonical(other)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex, str, bytes))


def _canonical(value: Any) -> bytes:
    """Pickle a freshly unpickled copy: what depends on shared identities is levelled out."""
    return pickle.dumps(pickle.loads(pickle.dumps(value)))
