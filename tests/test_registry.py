"""What a process shares is made once, kept while it is used, and forgotten in the end."""

from __future__ import annotations

import gc
import threading
import weakref

from persidict.stores.shared.latest_and_used import LatestAndUsed


class Thing:
    pass


def test_what_is_held_stays_the_same_however_many_others_are_asked_for() -> None:
    things = LatestAndUsed[int, Thing](2)
    held = things.get(0, Thing)
    for number in range(1, 10):
        things.get(number, Thing)
    assert things.get(0, Thing) is held


def test_the_latest_stay_although_nobody_holds_them() -> None:
    things = LatestAndUsed[int, Thing](2)
    made = [weakref.ref(things.get(number, Thing)) for number in (1, 2, 1, 3)]
    gc.collect()
    assert [one() is not None for one in made] == [True, False, True, True]


def test_what_nobody_holds_is_forgotten() -> None:
    things = LatestAndUsed[int, Thing](2)
    for number in range(100):
        things.get(number, Thing)
    gc.collect()
    assert len(things.values()) == 2


def test_threads_that_ask_at_once_get_the_same() -> None:
    things = LatestAndUsed[int, Thing](0)
    barrier = threading.Barrier(8)
    found: list[Thing] = []

    def ask() -> None:
        barrier.wait(30)
        found.append(things.get(0, Thing))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1
