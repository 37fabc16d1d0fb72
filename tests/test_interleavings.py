"""Two operations on files at once, interleaved at every system call of the first.

The first thread stops ahead of its n-th system call; a rival then runs until it is done or
waits for a lock that the first holds; then the first goes on. What both and the listing
saw must have an order, whatever n is.
"""

from __future__ import annotations

import fcntl
import itertools
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    FileDirDict,
)
from tests.faults import files_below, intercepted_system_calls
from tests.linearizability import Operation, assert_linearizable, assert_versions_are_unique
from tests.recording import Recorder

KEY, SIBLING = ("dir", "sub", "k"), ("dir", "sub", "sibling")
PATIENCE_SECONDS = 60.0

Act = Callable[[Recorder], Any]


def swap(recorder: Recorder, value: str) -> None:
    etag = recorder.read(KEY).actual_etag
    recorder.set_item_if(KEY, value, ETAG_IS_THE_SAME, etag)


def come_and_go(recorder: Recorder) -> None:
    """Delete what there is, write the item again, and delete it again."""
    recorder.discard(KEY)
    recorder.assign(KEY, "rival 1")
    recorder.pop(KEY)


def list_and_clear(recorder: Recorder) -> None:
    list(recorder.dictionary.items())
    recorder.discard(KEY)
    recorder.dictionary.clear()


FIRST: dict[str, Act] = {
    "assigns": lambda r: r.assign(KEY, "first"),
    "swaps": lambda r: swap(r, "first"),
    "inserts if absent": lambda r: r.setdefault_if(KEY, "first"),
    "transforms": lambda r: r.transform(KEY, lambda value: f"first after {value}"),
    "deletes": lambda r: r.discard(KEY),
    "pops": lambda r: r.pop(KEY),
    "reads": lambda r: r.read(KEY),
}

RIVAL: dict[str, Act] = {
    "assigns": lambda r: r.assign(KEY, "rival"),
    "transforms": lambda r: r.transform(KEY, lambda value: f"rival after {value}"),
    "comes and goes": come_and_go,
    "deletes a sibling": lambda r: r.discard(SIBLING),
    "adds a sibling": lambda r: r.assign(SIBLING, "rival"),
    "lists and clears": list_and_clear,
}


class Interleaving:
    """One run of both threads, the first of which is stopped at one step."""

    def __init__(self, dictionary: FileDirDict[Any], step: int) -> None:
        self._first = Recorder(dictionary, "first")
        self._rival = Recorder(dictionary, "rival")
        self._step = step
        self._calls = itertools.count(1)
        self._news: queue.Queue[str] = queue.Queue()
        self._go_on = threading.Event()
        self.was_stopped = False

    def run(self, first: Act, rival: Act) -> list[Operation]:
        """Interleave the two; return what both recorded."""
        threads = [
            self._start(lambda: self._attend(first, self._first, self._stop_if_due), "first"),
        ]
        news = [self._news.get(timeout=PATIENCE_SECONDS)]
        self.was_stopped = news == ["stopped"]
        threads.append(
            self._start(lambda: self._attend(rival, self._rival, self._tell_if_waiting), "rival")
        )
        news.append(self._news.get(timeout=PATIENCE_SECONDS))
        self._go_on.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), f"{thread.name} waits forever"
        while not self._news.empty():
            news.append(self._news.get())
        assert [line for line in news if line.startswith("failed")] == []
        return self._first.operations + self._rival.operations

    @staticmethod
    def _start(work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread

    def _attend(self, act: Act, recorder: Recorder, before: Any) -> None:
        try:
            with intercepted_system_calls(before):
                act(recorder)
        except BaseException as error:
            self._news.put(f"failed: {error!r}")
        else:
            self._news.put("done")

    def _stop_if_due(self, name: str, arguments: tuple[Any, ...]) -> None:
        if next(self._calls) == self._step:
            self._news.put("stopped")
            self._go_on.wait(PATIENCE_SECONDS)

    def _tell_if_waiting(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Try a lock that would be waited for; it is taken twice, which changes nothing."""
        if name == "flock" and arguments[1] == fcntl.LOCK_EX:
            try:
                fcntl.flock(arguments[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._news.put("waiting")


@pytest.mark.parametrize("beforehand", ["absent", "alone", "beside a sibling"])
@pytest.mark.parametrize("rival", RIVAL)
@pytest.mark.parametrize("first", FIRST)
def test_an_operation_interrupted_at_any_step_by_a_rival_keeps_its_promise(
    first: str, rival: str, beforehand: str, tmp_path: Path
) -> None:
    for step in itertools.count(1):
        place = tmp_path / str(step)
        dictionary: FileDirDict[Any] = FileDirDict(base_dir=place, fsync=False)
        setup = Recorder(dictionary, "before")
        if beforehand != "absent":
            setup.assign(KEY, "before")
        if beforehand == "beside a sibling":
            setup.assign(SIBLING, "before")
        interleaving = Interleaving(dictionary, step)
        history = setup.operations + interleaving.run(FIRST[first], RIVAL[rival])
        after = Recorder(dictionary, "after")
        assert (after.read(KEY).actual_etag is ITEM_NOT_AVAILABLE) is (KEY not in set(dictionary))
        if rival != "lists and clears":
            after.read(SIBLING)
        history += after.operations
        assert_versions_are_unique(history)
        assert_linearizable(history)
        assert not [name for name in files_below(place) if "%" in name]
        if not interleaving.was_stopped:
            break
