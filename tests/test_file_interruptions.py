"""Exceptions and calls that come in the middle: of an operation, of its own thread, of a fork."""

from __future__ import annotations

import gc
import os
import queue
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    NEVER_RETRIEVE,
    FileDirDict,
    LocalDict,
    sync_items,
)
from persidict.stores.files.descriptor import OwnedDescriptor
from persidict.stores.files.lock import DirectoryLock
from tests.faults import (
    files_below,
    intercepted_system_calls,
    open_descriptors,
    run_in_child,
)

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here"),
    # what is dropped half-way is closed by its owner, which says so
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

INTERRUPTIONS = int(os.environ.get("PERSIDICT_INTERRUPTIONS", "5000"))
"""How many there are in the long run."""
MOST_SECONDS = 280 + INTERRUPTIONS // 20
KEYS = [(f"dir{number % 3}", f"k{number}") for number in range(12)]


class Interrupted(BaseException):
    """What a timer throws into the middle of whatever goes on."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Throw an exception into the body once, after so many seconds."""

    def throw(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, throw)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def assign(dictionary: FileDirDict[Any]) -> None:
    dictionary[random.choice(KEYS)] = random.randbytes(random.randrange(2000))


def discard(dictionary: FileDirDict[Any]) -> None:
    dictionary.discard(random.choice(KEYS))


def transform(dictionary: FileDirDict[Any]) -> None:
    dictionary.transform_item("n", transformer=lambda n: 1 if n is ITEM_NOT_AVAILABLE else n + 1)


def read(dictionary: FileDirDict[Any]) -> None:
    dictionary.get(random.choice(KEYS))
    dictionary.setdefault("large", b"x" * 200_000)
    with dictionary.open("large") as stream:
        stream.read(10)


def look(dictionary: FileDirDict[Any]) -> None:
    len(dictionary)
    next(iter(dictionary), None)
    dictionary.newest_keys(max_n=2)


def set_many(dictionary: FileDirDict[Any]) -> None:
    dictionary.set_many(dict.fromkeys(KEYS, random.randbytes(200)))


def clear(dictionary: FileDirDict[Any]) -> None:
    dictionary.clear()


def sync(dictionary: FileDirDict[Any]) -> None:
    source: LocalDict[Any] = LocalDict()
    source.update({key: random.randbytes(200) for key in KEYS if random.random() < 0.8})
    sync_items(source, dictionary, delete=True)
    sync_items(dictionary, LocalDict(serialization_format="json"))


class Helpers:
    """Threads that write while another one is interrupted, and can be waited for."""

    def __init__(self, dictionary: FileDirDict[Any]) -> None:
        self._dictionary = dictionary
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()  # put is a single step
        self._meeting = threading.Barrier(3, timeout=60)
        for _ in range(2):
            threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            if self._wanted.get():
                assign(self._dictionary)
            else:
                self._meeting.wait()

    def begin(self) -> None:
        for _ in range(2):
            self._wanted.put(True)

    def await_end(self) -> None:
        for _ in range(2):
            self._wanted.put(False)
        self._meeting.wait()


ACTS: list[Callable[[FileDirDict[Any]], None]] = [
    assign,
    assign,
    discard,
    transform,
    read,
    look,
    set_many,
    clear,
    sync,
]


def interrupt(place: Path, times: int, fsync: bool) -> None:
    """Interrupt operations at random moments, and look at what each has left."""
    sys.dont_write_bytecode = True  # Python leaves that file open when it is interrupted
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place, fsync=fsync)
    helpers = Helpers(dictionary)
    set_many(dictionary)  # threads and libraries are there
    before = open_descriptors()
    thrown = 0
    longest = dict.fromkeys(ACTS, 0.0005)
    kept: list[BaseException] = []
    while thrown < times:
        act = random.choice(ACTS)
        try:
            with interrupted_after(random.uniform(1e-6, longest[act])):
                if random.random() < 0.2:
                    helpers.begin()
                act(dictionary)
                longest[act] *= 0.98
                continue
        except Interrupted as error:
            thrown += 1
            longest[act] *= 1.01
            # with its traceback, and so with the frames of the operation; those that read
            # hand over what they have opened
            kept = [] if act is read else [error]
        helpers.await_end()
        still_open = open_descriptors() - before
        assert not still_open, f"{act.__name__}: {still_open}"
        for directory in [place, *(path for path in place.iterdir() if path.is_dir())]:
            DirectoryLock(str(directory), timeout=0).descriptor.close()
    kept.clear()
    gc.collect()
    len(dictionary)
    assert not [name for name in files_below(place) if "%" in name]
    assert open_descriptors() <= before


@pytest.mark.parametrize("fsync", [False, True], ids=["not synced", "synced"])
@pytest.mark.parametrize(
    "times",
    [
        500,
        pytest.param(INTERRUPTIONS, marks=[pytest.mark.slow, pytest.mark.timeout(MOST_SECONDS)]),
    ],
)
def test_an_exception_thrown_into_an_operation_leaves_no_lock_no_descriptor_and_no_file(
    times: int, fsync: bool, tmp_path: Path
) -> None:
    assert run_in_child(interrupt, tmp_path / "items", times, fsync, timeout=MOST_SECONDS) == 0


# ---------------------------------------------------------------------- the same thread, inside


NESTED: dict[str, Callable[[FileDirDict[Any]], Any]] = {
    "assigns": lambda d: d.__setitem__(("dir", "k"), "nested"),
    "assigns a sibling": lambda d: d.__setitem__(("dir", "sibling"), "nested"),
    "transforms": lambda d: d.transform_item(("dir", "k"), transformer=lambda _: "nested"),
    "discards": lambda d: d.discard(("dir", "k")),
    "sets many": lambda d: d.set_many({("dir", f"n{i}"): "nested" for i in range(3)}),
    "clears": lambda d: d.clear(),
}
OUTER: dict[str, Callable[[FileDirDict[Any]], Any]] = {
    "assigns": lambda d: d.__setitem__(("dir", "k"), "outer"),
    "swaps": lambda d: d.set_item_if(
        ("dir", "k"),
        value="outer",
        condition=ETAG_IS_THE_SAME,
        expected_etag=d.etag(("dir", "k")),
    ),
    "counts": lambda d: d.transform_item(("dir", "k"), transformer=lambda v: f"outer on {v}"),
    "discards": lambda d: d.discard(("dir", "k")),
    "clears": lambda d: d.clear(),
}


def run_inside(place: Path, fsync: bool, outer: str, nested: str) -> None:
    """Run an operation ahead of each system call of another, in the same thread."""
    for step in range(1, 1000):
        dictionary: FileDirDict[Any] = FileDirDict(
            base_dir=place / f"{step}", fsync=fsync, lock_timeout=10
        )
        dictionary["dir", "k"] = "before"
        if not comes_between(dictionary, step, outer, nested):
            return
        assert str(dictionary.get(("dir", "k"))).split()[0] in ("before", "outer", "nested", "None")
        assert not [name for name in files_below(place) if "%" in name]
    raise AssertionError("the operation never ended")


def comes_between(dictionary: FileDirDict[Any], step: int, outer: str, nested: str) -> bool:
    """Run the nested operation ahead of the n-th system call; tell whether there are so many."""
    calls = 0

    def come_between(name: str, arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            NESTED[nested](dictionary)

    with intercepted_system_calls(come_between), suppress(KeyError):
        OUTER[outer](dictionary)
    return calls >= step


@pytest.mark.parametrize("fsync", [False, True], ids=["not synced", "synced"])
@pytest.mark.parametrize("nested", NESTED)
@pytest.mark.parametrize("outer", OUTER)
def test_an_operation_in_the_middle_of_another_of_the_same_thread_goes_through(
    outer: str, nested: str, fsync: bool, tmp_path: Path
) -> None:
    assert run_in_child(run_inside, tmp_path, fsync, outer, nested, timeout=120) == 0


def run_inside_clearing_away(place: Path, fsync: bool, nested: str) -> None:
    """Run an operation ahead of each system call of a listing that finds what a dead writer left.

    In the same thread.
    """
    calls = step = 0

    def come_between(name: str, arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            NESTED[nested](dictionary)

    while calls >= step:
        step, calls = step + 1, 0
        base_dir = place / f"{step}"
        dictionary: FileDirDict[Any] = FileDirDict(base_dir=base_dir, fsync=fsync, lock_timeout=0.2)
        dictionary["dir", "k"] = "before"
        (base_dir / "dir_onqa" / "%tmp.dead").touch()
        with intercepted_system_calls(come_between):
            list(dictionary)
        assert not [name for name in files_below(base_dir) if "%" in name]
    assert step > 5


@pytest.mark.parametrize("fsync", [False, True], ids=["not synced", "synced"])
@pytest.mark.parametrize("nested", NESTED)
def test_an_operation_goes_through_while_its_thread_clears_away_what_a_dead_writer_left(
    nested: str, fsync: bool, tmp_path: Path
) -> None:
    assert run_in_child(run_inside_clearing_away, tmp_path, fsync, nested) == 0


def save_when_told(place: Path, ready: int) -> None:
    """Write without pause; a handler of SIGTERM saves something beside it, and ends."""
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place, fsync=False)

    def save(number: int, frame: object) -> None:
        dictionary["state", f"{os.getpid()}"] = "saved"
        dictionary["counter"] = "saved"
        os._exit(0)

    signal.signal(signal.SIGTERM, save)
    os.write(ready, b"r")
    while True:
        dictionary["counter"] = 1
        dictionary.discard("counter")
        dictionary["state", f"{os.getpid()}"] = 2


def test_workers_save_their_state_in_handlers_of_sigterm(tmp_path: Path) -> None:
    rng = random.Random(1)
    reading, writing = os.pipe()
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            save_when_told(tmp_path, writing)
        os.read(reading, 1)
        threading.Event().wait(rng.uniform(0, 0.003))  # picks the moment
        os.kill(pid, signal.SIGTERM)
        guard = threading.Timer(30, os.kill, (pid, signal.SIGKILL))
        guard.start()
        status = os.waitpid(pid, 0)[1]
        guard.cancel()
        assert os.waitstatus_to_exitcode(status) == 0
        assert FileDirDict(base_dir=tmp_path)["state", f"{pid}"] == "saved"
    os.close(reading)
    os.close(writing)


class Logged:
    """An object that stores an item when it dies."""

    def __init__(self, dictionary: FileDirDict[Any]) -> None:
        self._dictionary = dictionary
        self.itself = self  # a cycle, so that the collector finds it at any moment

    def __del__(self) -> None:
        self._dictionary["dir", "deaths"] = 1


def die_in_the_middle(place: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place, fsync=False)
    threshold = gc.get_threshold()
    gc.set_threshold(20)
    try:
        for number in range(500):
            Logged(dictionary)
            dictionary["dir", "k"] = number
            dictionary.discard(("dir", "k"))
    finally:
        gc.set_threshold(*threshold)


def test_finalisers_may_use_the_dictionary(tmp_path: Path) -> None:
    assert run_in_child(die_in_the_middle, tmp_path, timeout=60) == 0


# ---------------------------------------------------------------------- forks


def test_a_child_forked_while_its_parent_holds_a_lock_does_not_keep_it(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path), timeout=0)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent is done with it
        os._exit(0)
    os.close(reading)
    # as if the parent died: its own descriptor goes, without being unlocked first
    lock.descriptor.close()
    try:
        DirectoryLock(str(tmp_path), timeout=10).descriptor.close()
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def clear_and_die(place: Path, step: int, done: int, born: int) -> None:
    """Begin to clear; at the n-th system call, fork and be killed."""
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place, fsync=False)
    calls = 0

    def fork_if_due(name: str, arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls != step:
            return
        if os.fork() == 0:
            os.write(born, b"b")
            os.read(done, 1)  # until the lock has been had
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    with intercepted_system_calls(fork_if_due):
        dictionary.clear()
    os._exit(0)


def test_a_child_forked_in_the_middle_of_clearing_keeps_no_lock_of_its_killed_parent(
    tmp_path: Path,
) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False)
    for step in range(1, 1000):
        dictionary.update(dict.fromkeys([("dir", "a"), ("dir", "b"), "c", "d"], 1))
        done_reading, done_writing = os.pipe()
        born_reading, born_writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            clear_and_die(tmp_path, step, done_reading, born_writing)
        try:
            if os.waitpid(pid, 0)[1] == 0:
                break
            assert os.read(born_reading, 1) == b"b"
            for directory in [tmp_path, tmp_path / "dir_onqa"]:
                if directory.exists():
                    DirectoryLock(str(directory), timeout=5).descriptor.close()
        finally:
            os.write(done_writing, b"d")
            for descriptor in (done_reading, done_writing, born_reading, born_writing):
                os.close(descriptor)
    assert step > 10


def fork_and_both_go_on(place: Path, child_is_first: bool) -> None:
    """Fork ahead of each system call of a write, which both processes go on with."""
    calls = step = 0
    ended_reading, ended_writing = os.pipe()
    children: list[int] = []

    def fork_if_due(name: str, arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls != step:
            return
        pid = os.fork()
        if pid == 0:
            children.clear()
            if not child_is_first:
                os.read(ended_reading, 1)
            return
        children.append(pid)
        if child_is_first:
            os.waitpid(pid, 0)

    while calls >= step:
        step, calls = step + 1, 0
        dictionary: FileDirDict[Any] = FileDirDict(base_dir=place / f"{step}", fsync=False)
        dictionary["n"] = 1
        etag = dictionary.etag("n")
        me = os.getpid()
        try:
            with intercepted_system_calls(fork_if_due):
                dictionary.set_item_if(
                    "n",
                    value=2,
                    condition=ETAG_IS_THE_SAME,
                    expected_etag=etag,
                    retrieve_value=NEVER_RETRIEVE,
                )
        finally:
            if os.getpid() != me:
                os._exit(0)  # what a child is told does not matter here
        os.write(ended_writing, b"e")
        if not child_is_first and children:
            os.waitpid(children.pop(), 0)
        assert dictionary["n"] == 2
        assert not [name for name in files_below(place) if "%" in name]
    assert step > 10


@pytest.mark.parametrize("child_is_first", [True, False], ids=["child first", "parent first"])
def test_a_fork_in_the_middle_of_a_write_that_both_go_on_with_tears_no_item(
    child_is_first: bool, tmp_path: Path
) -> None:
    assert run_in_child(fork_and_both_go_on, tmp_path, child_is_first) == 0


# ---------------------------------------------------------------------- owners


def test_an_owner_in_python_closes_when_it_is_dropped(tmp_path: Path) -> None:
    before = open_descriptors(tmp_path)
    owner = OwnedDescriptor(os.open(tmp_path, os.O_RDONLY))
    assert os.fstat(owner.fileno())
    assert not owner.closed
    del owner
    assert open_descriptors(tmp_path) == before
