"""What was noted last of named things."""

from __future__ import annotations

from typing import Generic, TypeVar

NotedType = TypeVar("NotedType")


class RecentNotes(Generic[NotedType]):
    """A bounded mapping from names, of which the latest stay; safe to share among threads.

    Args:
        capacity: How many names there are at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._notes: dict[str, NotedType] = {}

    def put(self, name: str, note: NotedType) -> None:
        """Note something of a name, and forget some of the oldest when there are too many."""
        notes = self._notes
        if len(notes) >= self._capacity and name not in notes:
            for oldest in list(notes)[: max(1, self._capacity // 4)]:
                notes.pop(oldest, None)
        notes[name] = note

    def get(self, name: str) -> NotedType | None:
        """Return what was noted, None if nothing is known."""
        return self._notes.get(name)

    def discard(self, name: str) -> None:
        """Forget a name."""
        self._notes.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._notes
