"""Exceptions thrown by a signal handler at each moment at which the interpreter lets it run."""

from __future__ import annotations

import _thread
import dis
import os
import signal
import sqlite3
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import Any

import pytest

import persidict
from persidict import (
    FileDirDict,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    PersiDict,
    SQLiteDict,
    sync_items,
)
from persidict.stores.files.lock import DirectoryLock
from persidict.stores.files.store import FileStore
from persidict.stores.sqlite.schema import FILES
from tests.faults import files_below, open_descriptors, run_in_child

pytestmark = [
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

Act = Callable[[PersiDict[Any]], object]


class Interrupted(BaseException):
    """What the handler of a signal throws."""


class _Ends:
    """Something whose end can be waited for."""


def happens_at(moment: int, act: Callable[[], object], happening: Callable[[], object]) -> bool:
    """Let something happen in a call, at the n-th moment at which a signal may be handled.

    The handler lets the signal come again whenever it ends, and so is called at every such
    moment: the signal comes of C code, when the last variable of the handler is dropped.

    Returns:
        Whether it happened before the call ended.
    """
    send = partial(next, map(_thread.interrupt_main, repeat(signal.SIGUSR1)))
    moments = count(1)
    is_under_way = True
    reference: weakref.ref[_Ends] | None = None

    def handle(number: int, frame: object) -> None:
        nonlocal reference
        if is_under_way:
            if next(moments) == moment:
                happening()
                return
            end = _Ends()
            reference = weakref.ref(end, send)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        send(None)
        act()
        return next(moments) > moment
    finally:
        is_under_way = False
        signal.signal(signal.SIGUSR1, before)
        del reference


def throw() -> None:
    raise Interrupted


def at_each_moment(
    prepare: Callable[[], object], act: Callable[[], object], check: Callable[[], None]
) -> None:
    """Interrupt a call at each moment, and look around while the exception is still held."""
    for _ in range(20):  # the interpreter has settled on how it does it
        prepare()
        act()
    for moment in count(1):
        prepare()
        error = None  # it stays so where a finaliser is interrupted: nobody hears of that
        try:
            if not happens_at(moment, act, throw):
                assert moment > 10
                return
        except Interrupted as thrown:
            error = thrown
        try:
            check()
        except BaseException as trouble:
            raise AssertionError(f"after an exception at moment {moment}") from (
                trouble.with_traceback(error.__traceback__) if error else trouble
            )


def prepare(dictionary: PersiDict[Any]) -> None:
    dictionary.clear()
    dictionary["n"] = 1
    dictionary["dir", "k"] = "old"


ONE_ITEM: LocalDict[Any] = LocalDict()
ONE_ITEM["dir", "new"] = 1

ACTS: dict[str, Act] = {
    "assign": lambda d: d.__setitem__(("dir", "k"), "new"),
    "insert": lambda d: d.__setitem__(("another", "k"), "new"),
    "discard": lambda d: d.discard(("dir", "k")),
    "transform_item": lambda d: d.transform_item("n", transformer=lambda n: n + 1),
    "popitem": lambda d: d.popitem(),
    "set_many": lambda d: d.set_many({("dir", f"{number}"): number for number in range(3)}),
    "clear": lambda d: d.clear(),
    "sync_items": lambda d: sync_items(ONE_ITEM, d, delete=True),
    "read": lambda d: [d.get("n"), d.get_with_etag("n"), *d.values(), d.newest_keys(max_n=1)],
}


def cached(place: Path) -> PersiDict[Any]:
    return MutableDictCached(
        main_dict=FileDirDict(base_dir=place / "main", fsync=False),
        data_cache=FileDirDict(base_dir=place / "data", fsync=False),
        etag_cache=LocalDict(),
    )


DICTIONARIES: dict[str, Callable[[Path], PersiDict[Any]]] = {
    "files": lambda place: FileDirDict(base_dir=place, fsync=False),
    "durable files": lambda place: FileDirDict(base_dir=place),
    "a cache": cached,
    "RAM": lambda place: LocalDict(),
    "SQLite": lambda place: SQLiteDict(path=place / "items.sqlite", fsync=False),
    "large values": lambda place: SQLiteDict(
        path=place / "items.sqlite", fsync=False, large_value_size=1
    ),
}


QUICK = {
    ("files", "insert"),
    ("files", "discard"),
    ("files", "popitem"),
    ("durable files", "insert"),
    ("durable files", "set_many"),
    ("RAM", "popitem"),
    ("large values", "assign"),
}
"""What is gone through each time; the rest in the long run."""


def abandoned_files(dictionary: PersiDict[Any]) -> set[str]:
    """Return the value files beside a database that nothing in it names."""
    assert isinstance(dictionary, SQLiteDict)
    there = {name for name in os.listdir(f"{dictionary.path}-values") if name != ".hold"}
    with closing(sqlite3.connect(dictionary.path)) as sql:
        return there - {name for (name,) in sql.execute(FILES)}


def interrupt_each(place: Path, made: str, act: str) -> None:
    place.mkdir()
    os.fsync = os.fstat  # as many calls, but no waiting for the disk
    dictionary = DICTIONARIES[made](place)
    prepare(dictionary)
    ACTS[act](dictionary)
    before = open_descriptors()

    def check() -> None:
        if made in ("RAM", "SQLite", "large values"):
            assert made != "large values" or not abandoned_files(dictionary)
            other = threading.Thread(target=dictionary.__setitem__, args=("other", 1), daemon=True)
            other.start()
            other.join(10)
            assert not other.is_alive(), "another thread waits"
            return
        still_open = open_descriptors() - before
        assert not still_open
        for directory, _, _ in os.walk(place):
            DirectoryLock(directory, timeout=0).descriptor.close()
        list(FileStore(str(place)).names())
        assert not [name for name in files_below(place) if "%" in name]

    def begin() -> None:
        dictionary.clear()
        for directory, _, _ in os.walk(place, topdown=False):
            with suppress(OSError):  # it is not empty
                os.rmdir(directory)  # an interrupted insertion has left it
        prepare(dictionary)

    at_each_moment(begin, lambda: ACTS[act](dictionary), check)


@pytest.mark.parametrize(
    ("made", "act"),
    [
        pytest.param(made, act, marks=[] if (made, act) in QUICK else [pytest.mark.slow])
        for made in DICTIONARIES
        for act in ACTS
    ],
)
def test_an_exception_at_any_moment_leaves_nothing_locked_or_open(
    made: str, act: str, tmp_path: Path
) -> None:
    assert run_in_child(interrupt_each, tmp_path / "items", made, act) == 0


def interrupt_each_reading(place: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=place, fsync=False)
    d["large"] = os.urandom(300_000)  # so much is read as a stream
    before = open_descriptors()

    def act() -> None:
        d.get("large")
        d.get_with_etag("large")

    def check() -> None:
        assert open_descriptors() <= before

    at_each_moment(lambda: None, act, check)


def test_an_exception_at_any_moment_leaves_no_file_open_that_was_read(tmp_path: Path) -> None:
    assert run_in_child(interrupt_each_reading, tmp_path) == 0


def interrupt_the_inner_transaction(place: Path, keep: bool) -> None:
    os.fsync = os.fstat  # as many calls, but no waiting for the disk
    d = DICTIONARIES["large values"](place)
    assert isinstance(d, SQLiteDict)

    def act() -> None:
        interruption = None
        with d.transaction() as outer:
            outer["n"] = 2
            try:
                with outer.transaction() as inner:
                    inner["dir", "k"] = "new"
                    if not keep:
                        inner.abort()
            except Interrupted as error:
                interruption = error
        if interruption is not None:
            raise interruption

    def check() -> None:
        if d._store._connection().block is not None:
            return  # before the first line of __exit__: it ends when the exception is let go of
        assert (d.verify(), d["dir", "k"] in ("old", "new")) == ([], True)
        assert not abandoned_files(d)

    at_each_moment(lambda: prepare(d), act, check)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_an_exception_at_the_end_of_an_inner_transaction_leaves_each_row_its_bytes(
    keep: bool, tmp_path: Path
) -> None:
    assert run_in_child(interrupt_the_inner_transaction, tmp_path, keep) == 0


def write_in_a_handler_at_each_moment(place: Path, read_only: bool) -> None:
    os.fsync = os.fstat  # as many calls, but no waiting for the disk
    d = DICTIONARIES["SQLite"](place)
    assert isinstance(d, SQLiteDict)
    d["n"] = 1

    def act() -> None:
        with d.transaction(read_only=read_only) as t:
            t["n"] if read_only else t.update(n=1)

    for moment in count(1):
        outcome = []

        def write(moment: int = moment, outcome: list[str] = outcome) -> None:
            try:
                d["handler"] = moment
            except MutationPolicyError:
                outcome.append("refused")
            else:
                outcome.append("written")

        happens_at(moment, act, write)
        if not outcome:
            assert moment > 10
            return
        if outcome == ["written"]:
            assert d["handler"] == moment, f"lost at moment {moment}"
        else:
            assert read_only


@pytest.mark.parametrize("read_only", [True, False])
def test_what_a_handler_writes_beside_a_transaction_is_not_lost(
    read_only: bool, tmp_path: Path
) -> None:
    assert run_in_child(write_in_a_handler_at_each_moment, tmp_path, read_only) == 0


# ---------------------------------------------------------------------- what is guarded


def code_below(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from code_below(constant)


def unguarded_jumps(code: types.CodeType) -> Iterator[int | None]:
    """Find where a loop goes round outside of what guards it; yield the lines."""
    bytecode = dis.Bytecode(code)
    entries = bytecode.exception_entries
    if not entries:
        return
    steps = list(bytecode)
    at = {step.offset: index for index, step in enumerate(steps)}

    def guard_of(offset: int) -> int | None:
        """Return where it goes on after an exception in ``with`` or ``try``, None: nowhere."""
        for entry in entries:
            if entry.start <= offset < entry.end:
                index = at[entry.target]
                if steps[index].opname != "PUSH_EXC_INFO":  # puts a comprehension's variable back
                    return guard_of(entry.target) if entry.target != offset else None
                guards = steps[index + 1].opname != "LOAD_GLOBAL"  # except SomeError
                return index if guards or steps[index + 1].argval == "BaseException" else None
        return None

    for index, step in enumerate(steps):
        is_of_a_loop = step.opname == "JUMP_BACKWARD" and steps[index - 1].opname != "CLEANUP_THROW"
        if is_of_a_loop and guard_of(step.offset) is None and guard_of(step.argval) is not None:
            yield step.positions.lineno if step.positions else None


def test_loops_that_are_guarded_are_so_while_they_go_round() -> None:
    """Python 3.13 leaves a jump back on a condition out of the ``with`` or ``try`` around it.

    An exception that comes just there runs no ``finally``: put the loop into a function of its
    own, or end it on no condition.
    """
    package = Path(persidict.__file__).parent
    found = []
    for module in package.rglob("*.py"):
        whole = compile(module.read_text(encoding="utf-8"), str(module), "exec")
        for code in code_below(whole):
            for line in unguarded_jumps(code):
                found.append(f"{module.relative_to(package)}:{line}")
    assert found == []
