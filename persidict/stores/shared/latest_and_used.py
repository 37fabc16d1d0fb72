"""What a process shares: made once, kept while it is used, forgotten in the end."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

KeyType = TypeVar("KeyType")
SharedType = TypeVar("SharedType")


class LatestAndUsed(Generic[KeyType, SharedType]):
    """One object for each key: those that somebody holds, and those asked for last.

    So what is shared is not made again for each short use of it, and a process that goes on
    to ever new keys does not grow.

    Args:
        kept: How many are kept although nobody may hold them.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._used: weakref.WeakValueDictionary[KeyType, SharedType] = weakref.WeakValueDictionary()
        self._latest: OrderedDict[KeyType, SharedType] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: KeyType, make: Callable[[], SharedType]) -> SharedType:
        """Return the object of a key, the same one for all threads that ask at once."""
        with self._lock:
            shared = self._used.get(key)
            if shared is None:
                shared = self._used[key] = make()
            self._latest[key] = shared
            self._latest.move_to_end(key)
            forgotten = self._latest.popitem(last=False) if len(self._latest) > self._kept else None
        del forgotten  # what it has to clean up, it does without the lock
        return shared

    def values(self) -> list[SharedType]:
        """Return all objects that there are."""
        return list(self._used.values())

    def forget_lock(self) -> None:
        """Make the lock anew, in a child after fork: nobody is left to release it."""
        self._lock = threading.Lock()
