"""Waiting for many sockets: epoll where there is one, `selectors` elsewhere."""

from __future__ import annotations

import select
import selectors
from typing import Any, Final, Protocol

from persidict.stores.s3.transport.direct.connections import READABLE, WRITABLE


class Poller(Protocol):
    """What tells which sockets can be read or written."""

    def register(self, descriptor: int, events: int) -> None:
        """Watch a descriptor."""

    def modify(self, descriptor: int, events: int) -> None:
        """Watch it for other events."""

    def unregister(self, descriptor: int) -> None:
        """Watch it no more."""

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait so many seconds at most; return descriptors with READABLE, WRITABLE or both."""

    def close(self) -> None:
        """Give up its own descriptor; watch nothing any more."""


class EpollPoller:
    """Linux's own; in a third of the time of `selectors`."""

    def __init__(self) -> None:
        self._epoll: Any = select.epoll()  # type: ignore[attr-defined,unused-ignore]
        in_ = int(select.EPOLLIN)  # type: ignore[attr-defined,unused-ignore]
        out = int(select.EPOLLOUT)  # type: ignore[attr-defined,unused-ignore]
        self._masks = {READABLE: in_, WRITABLE: out, READABLE | WRITABLE: in_ | out, 0: 0}
        self._events = {in_: READABLE, out: WRITABLE}

    def register(self, descriptor: int, events: int) -> None:
        self._epoll.register(descriptor, self._masks[events])

    def modify(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, self._masks[events])

    def unregister(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        # what is neither, an error or a hang-up, shows when the socket is read and written
        known = self._events
        return [
            (descriptor, known.get(mask, READABLE | WRITABLE))
            for descriptor, mask in self._epoll.poll(timeout)
        ]

    def close(self) -> None:
        self._epoll.close()


class SelectorPoller:
    """What `selectors` chooses: kqueue, poll or select."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, descriptor: int, events: int) -> None:
        self._selector.register(descriptor, events)

    def modify(self, descriptor: int, events: int) -> None:
        self._selector.modify(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        return [(key.fd, events) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        self._selector.close()


_HAS_EPOLL: Final = hasattr(select, "epoll")


def new_poller() -> Poller:
    """Return the quickest poller of this platform."""
    return EpollPoller() if _HAS_EPOLL else SelectorPoller()
