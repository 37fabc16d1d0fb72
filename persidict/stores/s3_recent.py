"""The names seen last, of what was worth remembering."""

from __future__ import annotations

from typing import Final

_CAPACITY: Final = 1024


class RecentNames:
    """A bounded set of names, of which the latest stay; safe to share among threads."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._names: dict[str, None] = {}

    def add(self, name: str) -> None:
        """Remember a name, and forget some of the oldest ones when there are too many."""
        names = self._names
        if len(names) >= self._capacity and name not in names:
            for oldest in list(names)[: max(1, self._capacity // 4)]:
                names.pop(oldest, None)
        names[name] = None

    def discard(self, name: str) -> None:
        """Forget a name."""
        self._names.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._names
