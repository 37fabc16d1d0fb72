"""Work under a lock that leaves the lock free, whatever interrupts it and whoever comes again."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock


def do_if_free(lock: Lock, patience: float, work: Callable[[], object]) -> None:
    """Do something under a lock, unless somebody else keeps it for too long.

    Args:
        lock: The lock.
        patience: For how many seconds to wait for somebody else; who is himself what
            interrupted the work, in a signal handler, waits in vain, and goes on.
        work: What is done.
    """
    for is_mine in map(lock.acquire, (True,), (patience,)):  # taken and noted in one step
        if is_mine:
            try:
                work()
            finally:
                lock.release()
