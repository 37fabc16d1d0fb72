"""Operations on files at once, interleaved at every system call of the first.

The first thread stops ahead of its n-th system call; a rival then runs until it is done or
waits for a lock that the first holds; then the first goes on. What both saw, and what is
there afterwards, must have an order, whatever n is.
"""

from __future__ import annotations

import fcntl
import itertools
import queue
import threading
from collections.abc import Callable, Iterable
from functools import partial
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
    recorder.clear(KEY)


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


class Actor:
    """An operation in a thread of its own, which can be stopped ahead of a system call.

    Args:
        dictionary: What it works on.
        who: Who it is, for messages.
        act: What it does.
        stop: Told the number and name of each system call, says where to stop.
    """

    def __init__(
        self,
        dictionary: FileDirDict[Any],
        who: str,
        act: Act,
        stop: Callable[[int, str], bool] = lambda number, name: False,
    ) -> None:
        self._recorder = Recorder(dictionary, who)
        self._act = act
        self._stop = stop
        self._calls = itertools.count(1)
        self._news: queue.Queue[str] = queue.Queue()
        self._may_stop = True
        self._waits = False
        self._go_on = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=who, daemon=True)

    def start(self) -> str:
        """Run until it is "stopped", "waiting" for a lock, or "done"; tell which."""
        self._thread.start()
        return self._news.get(timeout=PATIENCE_SECONDS)

    def resume(self) -> str:
        """Go on until it is "stopped" again, "waiting" for a lock, or "done"; tell which."""
        self._go_on.release()
        return self._news.get(timeout=PATIENCE_SECONDS)

    def finish(self) -> list[Operation]:
        """Let it go on until it is done; return what it recorded."""
        self._may_stop = False
        self._go_on.release()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), f"{self._thread.name} waits forever"
        news = [self._news.get() for _ in range(self._news.qsize())]
        assert [line for line in news if line.startswith("failed")] == []
        return self._recorder.operations

    def _run(self) -> None:
        try:
            with intercepted_system_calls(self._stop_or_tell):
                self._act(self._recorder)
        except BaseException as error:
            self._news.put(f"failed: {error!r}")
        else:
            self._news.put("done")

    def _stop_or_tell(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self._stop(next(self._calls), name) and self._may_stop:
            self._news.put("stopped")
            self._go_on.acquire(timeout=PATIENCE_SECONDS)
        if name == "flock" and arguments[1] & fcntl.LOCK_EX and not self._waits:
            try:  # a lock that is taken twice on one descriptor is taken once
                fcntl.flock(arguments[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._waits = True  # and tries again and again
                self._news.put("waiting")


def is_one_of(steps: tuple[int, ...], number: int, name: str) -> bool:
    return number in steps


def assert_all_promises_kept(
    dictionary: FileDirDict[Any], history: list[Operation], keys: Iterable[Any]
) -> None:
    """Check the history, with what is there afterwards."""
    after = Recorder(dictionary, "afterwards")
    listed = set(dictionary)
    for key in keys:
        assert (after.read(key).actual_etag is not ITEM_NOT_AVAILABLE) is (key in listed)
    history = history + after.operations
    assert_versions_are_unique(history)
    assert_linearizable(history)
    assert not [name for name in files_below(Path(dictionary.base_dir)) if "%" in name]


@pytest.mark.parametrize("beforehand", ["absent", "alone", "beside a sibling"])
@pytest.mark.parametrize("rival", RIVAL)
@pytest.mark.parametrize("first", FIRST)
def test_an_operation_interrupted_at_any_step_by_a_rival_keeps_its_promise(
    first: str, rival: str, beforehand: str, tmp_path: Path
) -> None:
    for step in itertools.count(1):
        dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / str(step), fsync=False)
        setup = Recorder(dictionary, "before")
        if beforehand != "absent":
            setup.assign(KEY, "before")
        if beforehand == "beside a sibling":
            setup.assign(SIBLING, "before")
        interrupted = Actor(dictionary, "first", FIRST[first], stop=partial(is_one_of, (step,)))
        interrupting = Actor(dictionary, "rival", RIVAL[rival])
        state = interrupted.start()
        interrupting.start()
        history = setup.operations + interrupted.finish() + interrupting.finish()
        keys = [KEY] if rival == "lists and clears" else [KEY, SIBLING]
        assert_all_promises_kept(dictionary, history, keys)
        if state != "stopped":
            break


@pytest.mark.parametrize("first", ["assigns", "inserts if absent", "transforms"])
def test_a_directory_may_come_and_go_between_any_two_steps_of_a_write(
    first: str, tmp_path: Path
) -> None:
    steps_of_a_write = 25
    for number, steps in enumerate(itertools.combinations(range(1, steps_of_a_write), 2)):
        dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / str(number), fsync=False)
        writing = Actor(dictionary, "first", FIRST[first], stop=partial(is_one_of, steps))
        coming = Actor(dictionary, "coming", lambda recorder: recorder.assign(SIBLING, "rival"))
        going = Actor(dictionary, "going", lambda recorder: recorder.discard(SIBLING))
        state = writing.start()
        coming.start()
        if state == "stopped":
            writing.resume()
        going.start()
        history = writing.finish() + coming.finish() + going.finish()
        assert_all_promises_kept(dictionary, history, [KEY, SIBLING])


@pytest.mark.parametrize("late", ["deletes", "pops", "assigns", "swaps"])
def test_who_waited_for_the_lock_of_a_removed_directory_takes_that_of_the_new_one(
    late: str, tmp_path: Path
) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / "items", fsync=False)
    main = Recorder(dictionary, "main")
    main.assign(KEY, "in the old directory")
    latecomer = Actor(dictionary, "latecomer", FIRST[late], stop=lambda _, name: name == "flock")
    assert latecomer.start() == "stopped"
    main.pop(KEY)
    main.assign(KEY, "in the new directory")
    swapping = Actor(
        dictionary,
        "swapping",
        lambda recorder: swap(recorder, "swapped"),
        stop=lambda _, name: name in ("renameat2", "replace"),
    )
    assert swapping.start() == "stopped"
    latecomer.resume()
    history = main.operations + swapping.finish() + latecomer.finish()
    assert_all_promises_kept(dictionary, history, [KEY])
