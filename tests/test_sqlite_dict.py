"""What a database file adds to the contract: refusals, large values, kills, forks, time."""

from __future__ import annotations

import copyreg
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import BackendError, MutationPolicyErrorGroup, SQLiteDict
from persidict.stores.sqlite import place, schema, values
from persidict.stores.sqlite.connection import Connection, Effort
from tests.concurrency import Place, run_workers
from tests.faults import open_descriptors

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

LARGE = b"x" * 3000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "items.db"


@pytest.fixture
def d(path: Path) -> SQLiteDict[Any]:
    return open_at(path)


def open_at(path: Path, **params: Any) -> SQLiteDict[Any]:
    return SQLiteDict(path=path, **{"fsync": False, "large_value_size": 2000, **params})


def value_files(d: SQLiteDict[Any]) -> list[str]:
    directory = Path(f"{d.path}-values")
    names = os.listdir(directory) if directory.exists() else []
    return sorted(name for name in names if not name.startswith("."))


def run_in_child(work: Callable[[], object]) -> int:
    """Fork, work in the child, and return its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---------------------------------------------------------------------- the file


def test_the_file_can_be_read_with_plain_sqlite3(d: SQLiteDict[Any], path: Path) -> None:
    d["a", "b"] = 1
    d["large"] = LARGE
    with sqlite3.connect(path) as sql:
        rows = sql.execute("SELECT name, size, data IS NULL FROM objects ORDER BY name").fetchall()
        [version] = sql.execute("PRAGMA user_version").fetchone()
    sql.close()
    assert [(name, is_file) for name, _, is_file in rows] == [("a/b.pkl", 0), ("large.pkl", 1)]
    assert version == schema.SCHEMA_VERSION


def test_formats_and_prefixes_are_dictionaries_of_their_own_in_one_file(path: Path) -> None:
    pickles, texts = open_at(path), open_at(path, serialization_format="json")
    below = open_at(path, root_prefix="x/y")
    pickles["a"], texts["a"], below["a"] = 1, 2, 3
    assert (dict(texts), dict(below)) == ({("a",): 2}, {("a",): 3})
    assert dict(pickles) == {("a",): 1, ("x", "y", "a"): 3}
    pickles.clear()
    assert (len(pickles), len(texts), len(below)) == (0, 1, 0)


def test_versions_never_repeat_in_a_copy_of_the_file(d: SQLiteDict[Any], tmp_path: Path) -> None:
    d["a"] = 1
    d.compact()
    shutil.copy(d.path, tmp_path / "copy.db")
    copied = open_at(tmp_path / "copy.db")
    assert copied.etag("a") == d.etag("a")
    seen = {d.etag("a")}
    for handle in (d, copied):
        for number in range(100):
            handle["a"] = number
            seen.add(handle.etag("a"))
            if number % 10 == 0:
                del handle["a"]
                handle["a"] = number
                seen.add(handle.etag("a"))
    assert len(seen) == 1 + 2 * (100 + 10)


@pytest.mark.parametrize("content", [b"no database", b"no database" * 1000, b"\0" * 100])
def test_a_file_that_is_no_database_is_refused_by_name_and_left_alone(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"items\.db.*not a database"):
        open_at(path)
    assert path.read_bytes() == content


def test_a_database_of_another_application_is_refused_by_name_and_left_alone(path: Path) -> None:
    sql = sqlite3.connect(path)
    sql.execute("CREATE TABLE objects(name TEXT)")
    sql.close()
    before = path.read_bytes()
    with pytest.raises(BackendError, match=r"items\.db.*another application"):
        open_at(path)
    assert path.read_bytes() == before


def test_a_database_of_a_later_version_is_refused(path: Path) -> None:
    sql = sqlite3.connect(path)
    sql.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    sql.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    sql.close()
    with pytest.raises(BackendError, match=r"items\.db.*later version"):
        open_at(path)


def test_a_directory_is_no_path_of_a_database(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="directory"):
        SQLiteDict(path=tmp_path)


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    d = open_at(path)
    d["a"] = 1
    assert dict(open_at(path)) == {("a",): 1}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mounted")
def test_a_network_file_system_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw shared:1 - nfs4 server:/x rw\n"
    )
    monkeypatch.setattr(place, "_MOUNTS", mounts)
    with pytest.raises(BackendError, match=r"items\.db.*network file system \(nfs4\)"):
        open_at(path)["a"] = 1
    assert not path.exists()


def as_nobody(work: Callable[[], object]) -> int:
    """Work in a child that may not write what belongs to others."""

    def work_as_nobody() -> None:
        os.setgid(65534)
        os.setuid(65534)
        work()

    return run_in_child(work_as_nobody if os.getuid() == 0 else work)


@pytest.mark.parametrize("has_log", [False, True], ids=["at rest", "while it is open elsewhere"])
def test_a_file_that_may_only_be_read_is_read_and_not_written(
    has_log: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("shared")
    path = directory / "items.db"
    d = open_at(path)
    d["a"], d["large"] = 1, LARGE
    if not has_log:
        d.compact()
        d._store._database.close()  # type: ignore[attr-defined]
    for place_above in (directory, *directory.parents):
        if place_above.stat().st_uid == os.getuid() and place_above != Path("/"):
            place_above.chmod(place_above.stat().st_mode | 0o055)
    for entry in [*directory.rglob("*")]:
        entry.chmod(0o755 if entry.is_dir() else 0o444)
    directory.chmod(0o555)

    def read_and_try_to_write() -> None:
        reader = open_at(path)
        assert dict(reader) == {("a",): 1, ("large",): LARGE}
        with reader.transaction(read_only=True) as t:
            assert t["a"] == 1
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader["a"] = 2
        assert reader["a"] == 1

    try:
        assert as_nobody(read_and_try_to_write) == 0
    finally:
        directory.chmod(0o755)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_that_was_removed_or_replaced_is_noticed(
    how: str, d: SQLiteDict[Any], path: Path, tmp_path: Path
) -> None:
    other = open_at(tmp_path / "other.db")
    other["b"] = 2
    other.compact()
    d["a"] = 1
    assert d["a"] == 1
    if how == "removed":
        path.unlink()
    else:
        for log in ("-wal", "-shm"):
            os.unlink(f"{path}{log}")
        shutil.copy(other.path, tmp_path / "new.db")
        os.replace(tmp_path / "new.db", path)
    time.sleep(0.1)  # how long an open connection may trust what it saw
    assert dict(d) == ({} if how == "removed" else {("b",): 2})
    d["c"] = 3
    assert open_at(path)["c"] == 3


# ---------------------------------------------------------------------- large values


def test_large_values_are_in_files_that_go_with_their_items(path: Path) -> None:
    d = open_at(path, fsync=True)
    d["a"], d["b"] = LARGE, LARGE
    assert len(value_files(d)) == 2
    d["a"] = LARGE + b"y"
    assert (d["a"], len(value_files(d))) == (LARGE + b"y", 2)
    d["a"] = "small"
    assert len(value_files(d)) == 1
    del d["b"]
    assert value_files(d) == []
    d.update({"a": LARGE, "c": 1})
    d.clear()
    assert value_files(d) == []


def test_a_refused_write_leaves_no_file(path: Path) -> None:
    d = open_at(path, append_only=True)
    d["a"] = 1
    with pytest.raises(TypeError):
        d["a"] = LARGE
    with pytest.raises(MutationPolicyErrorGroup):
        d.update([("a", LARGE), ("b", LARGE), ("a", LARGE)])
    assert (d["a"], d["b"], len(value_files(d))) == (1, LARGE, 1)


def test_a_snapshot_keeps_the_files_that_it_shows(path: Path) -> None:
    d = open_at(path, fsync=True)
    d["a"] = LARGE

    def replace() -> None:
        for number in range(5):
            open_at(path, fsync=True)["a"] = LARGE + bytes([number])

    with d.transaction(read_only=True) as t:
        child = threading.Thread(target=lambda: run_in_child(replace))
        child.start()
        child.join()
        assert t["a"] == LARGE
    d["b"] = LARGE
    d["b"] = LARGE
    assert (d["a"], len(value_files(d))) == (LARGE + bytes([4]), 2)


def take_a_snapshot_while_files_go(path: Path) -> None:
    d = open_at(path, fsync=True)
    d["a"], d["b"] = LARGE, LARGE * 2
    sizes = []

    def look(number: int, frame: object) -> None:
        with d.transaction(read_only=True) as t:
            sizes.append(len(t["b"]))

    delete = os.unlink

    def interrupted_unlink(path: str) -> None:
        signal.raise_signal(signal.SIGUSR1)
        delete(path)

    signal.signal(signal.SIGUSR1, look)
    signal.alarm(20)
    os.unlink = interrupted_unlink  # type: ignore[assignment]
    d["a"] = 1
    assert sizes == [2 * len(LARGE)]
    assert len(value_files(d)) == 1


def test_a_signal_handler_gets_a_snapshot_while_value_files_are_deleted(path: Path) -> None:
    assert run_in_child(lambda: take_a_snapshot_while_files_go(path)) == 0


def test_a_sweeper_that_takes_a_new_file_for_abandoned_costs_no_value(
    d: SQLiteDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = iter([False])
    claim = values.claim_file
    monkeypatch.setattr(values, "claim_file", lambda fd: next(claims, True) and claim(fd))
    d["a"] = LARGE
    assert (d["a"], d.verify()) == (LARGE, [])


def test_a_stream_goes_on_while_its_item_is_replaced(d: SQLiteDict[Any]) -> None:
    d.raw["a"] = LARGE
    with d.open("a") as stream:
        first = stream.read(10)
        d.raw["a"] = b"y" * 5000
        d.compact()
        assert first + stream.read() == LARGE


def die_while_writing(path: Path, step: str) -> None:
    """Be killed right before one step of storing a large value."""
    d = open_at(path)

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    from persidict.stores.sqlite import store

    target, name = {
        "filling the file": (values.NewFile, "fill"),
        "writing the row": (store.SQLiteStore, "_write"),
        "closing the file": (values.NewFile, "close"),
        "collecting": (values.ValueFiles, "delete"),
    }[step]
    setattr(target, name, die)
    d["a"] = LARGE * 2
    d._store.compact()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "step", ["filling the file", "writing the row", "closing the file", "collecting"]
)
def test_what_a_killed_writer_of_a_large_value_left_is_swept(step: str, path: Path) -> None:
    d = open_at(path)
    d["a"] = LARGE
    assert run_in_child(lambda: die_while_writing(path, step)) == -signal.SIGKILL
    assert d["a"] in (LARGE, LARGE * 2)
    assert (d["a"] == LARGE) == (step in ("filling the file", "writing the row"))
    d.compact()
    assert len(value_files(d)) == 1
    assert (d.verify(), d["a"] in (LARGE, LARGE * 2)) == ([], True)


def test_a_sweep_leaves_the_files_of_living_writers(d: SQLiteDict[Any], path: Path) -> None:
    d["a"] = LARGE
    stop = threading.Event()
    failures: list[BaseException] = []

    def keep_writing(index: int) -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                d[f"k{index}"] = LARGE + bytes([number % 256])
                assert d[f"k{index}"] == LARGE + bytes([number % 256])
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=keep_writing, args=(i,)) for i in range(3)]
    for writer in writers:
        writer.start()
    connection = d._store._connection()  # type: ignore[attr-defined]
    for _ in range(100):
        d._store._database.sweep(connection, d._store._effort)  # type: ignore[attr-defined]
    stop.set()
    for writer in writers:
        writer.join()
    assert (failures, d.verify()) == ([], [])


# ---------------------------------------------------------------------- damage


def test_verify_names_what_is_wrong(d: SQLiteDict[Any], path: Path) -> None:
    d["a"], d["b"], d["c"], d["d"] = 1, LARGE, LARGE, LARGE
    assert d.verify() == []
    d.raw["a"] = b"no pickle"
    missing, short = sorted(Path(f"{path}-values").glob("[!.]*"))[:2]
    missing.unlink()
    short.write_bytes(b"short")
    problems = "\n".join(d.verify())
    assert all(word in problems for word in ("'a'", str(missing), str(short), "5 bytes"))
    del d["a"]
    with pytest.raises(BackendError, match=r"missing.*items\.db-values"):
        list(d.raw.values())


def test_a_range_looks_at_about_as_many_rows_as_it_has(
    d: SQLiteDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    d.update({f"{number:04}": number for number in range(2000)})
    seen: list[int] = []
    read = Connection.rows

    def counted(connection: Connection, statement: str, values: Any = ()) -> list[Any]:
        found = read(connection, statement, values)
        seen.append(len(found))
        return found

    monkeypatch.setattr(Connection, "rows", counted)
    some = d.keys(start="0500", stop="0510")
    assert len(some) == len(list(reversed(some))) == len(list(d.glob("050?"))) == 10
    d.discard_many(some)
    assert sum(seen) <= 5 * 64


def share_attributes(error: Exception) -> tuple[Any, ...]:
    """Reduce an error as tblib does, which dask.distributed installs: copies share attributes."""
    return vars_shared, (type(error), error.args, vars(error))


def vars_shared(cls: type[Exception], args: tuple[Any, ...], shared: dict[str, Any]) -> Exception:
    twin = cls(*args)
    twin.__dict__ = shared
    return twin


@pytest.mark.parametrize("shared", [False, True], ids=["", "copies share attributes"])
@pytest.mark.parametrize("noted", [False, True], ids=["", "noted before"])
def test_items_that_fail_together_are_each_told_of_their_own(
    d: SQLiteDict[Any], noted: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shared:
        monkeypatch.setitem(copyreg.dispatch_table, sqlite3.OperationalError, share_attributes)
    else:
        monkeypatch.delitem(copyreg.dispatch_table, sqlite3.OperationalError, raising=False)

    def fail(*args: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        if noted:
            error.add_note("persidict: the database is here")
        raise error

    monkeypatch.setattr(Connection, "transact", fail)
    with pytest.raises(ExceptionGroup) as caught:
        d.update({"x": 1, "y": 2, "z": 3})
    notes = ["".join(error.__notes__) for error in caught.value.exceptions]
    assert [key in note for key, note in zip("xyz", notes, strict=True)] == [True] * 3
    assert [note.count("item ") for note in notes] == [1] * 3


def test_verify_tells_rows_whose_names_are_no_keys(d: SQLiteDict[Any]) -> None:
    d["a"] = 1
    d._store.put("no key.pkl", b"I1\n.")
    assert list(d) == [("a",)]
    assert "no key.pkl" in "".join(d.verify())


def test_compacting_gives_space_back(d: SQLiteDict[Any]) -> None:
    d.update({str(number): b"x" * 1000 for number in range(2000)})
    large = d["large"] = random.Random(1).randbytes(100_000)
    full = d.size_in_bytes
    assert full > 2_100_000
    for number in range(2000):
        del d[str(number)]
    d.compact()
    assert 100_000 < d.size_in_bytes < full - 1_500_000
    assert dict(d) == {("large",): large}


def test_a_database_cannot_be_compacted_in_a_transaction(d: SQLiteDict[Any]) -> None:
    with pytest.raises(BackendError, match="transaction"), d.transaction() as t:
        t.compact()


# ---------------------------------------------------------------------- processes


def write_until_killed(path: Path, reports: Any, size: int) -> None:
    d = open_at(path)
    number = 0
    while True:
        number += 1
        d["counter"] = (number, b"x" * size)
        with d.transaction() as t:
            t["left"] = number
            t["right"] = number
        d.update({f"m{i}": number for i in range(5)})
        reports.send(number)


@pytest.mark.parametrize("size", [10, 3000], ids=["rows", "files"])
def test_kills_at_any_moment_lose_nothing_that_was_acknowledged(size: int, path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(15):
        receiver, sender = context.Pipe(duplex=False)
        writer = context.Process(target=write_until_killed, args=(path, sender, size))
        writer.start()
        sender.close()
        for _ in range(1 + attempt):
            acknowledged = receiver.recv()
        writer.kill()
        writer.join()
        try:
            while True:
                acknowledged = receiver.recv()
        except EOFError:
            receiver.close()
        d = open_at(path)
        assert d["counter"][0] in (acknowledged, acknowledged + 1)
        assert d["left"] == d["right"]
        assert {d[f"m{i}"] for i in range(5)} <= {acknowledged, acknowledged + 1}
        assert d.verify() == []
        d.clear()


def test_children_forked_beside_writing_threads_and_inside_transactions_can_write(
    d: SQLiteDict[Any], path: Path
) -> None:
    stop = threading.Event()

    def keep_writing(index: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with d.transaction() as t:
                t[f"w{index}"] = number
                t[f"v{index}"] = number
            d[f"x{index}"] = LARGE

    writers = [threading.Thread(target=keep_writing, args=(i,)) for i in range(3)]
    for writer in writers:
        writer.start()
    try:
        for number in range(20):
            assert run_in_child(lambda number=number: d.update({f"c{number}": LARGE})) == 0  # type: ignore[misc]
            with d.transaction() as t:
                t["inside"] = number
                assert run_in_child(lambda: d.get("inside")) == 0
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert d.verify() == []
    assert all(d[f"c{number}"] == LARGE for number in range(20))
    assert all(d[f"w{index}"] == d[f"v{index}"] for index in range(3))


def test_a_child_leaves_the_turn_of_its_parents_other_threads_to_them(
    d: SQLiteDict[Any], path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl")
    begun, may_end = threading.Event(), threading.Event()

    def change() -> None:
        with d.transaction() as t:
            t["a"] = 1
            begun.set()
            may_end.wait()

    changer = threading.Thread(target=change)
    changer.start()
    try:
        begun.wait()
        assert run_in_child(lambda: None) == 0
        with open(f"{path}-queue") as queue, pytest.raises(BlockingIOError):
            fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        may_end.set()
        changer.join()
    assert d["a"] == 1


CHILD_THAT_IS_LATE = """
import os, select, sqlite3, subprocess, sys, threading
path, writer = sys.argv[1:]
waiting, go = os.pipe()

def begin_late():
    # nobody says so where the parent waits, as it has to
    poll = select.poll()
    poll.register(waiting, select.POLLIN)
    poll.poll(500)

os.register_at_fork(after_in_child=begin_late)  # comes before what is registered by an import
from persidict import SQLiteDict
d = SQLiteDict(path=path, fsync=False)
d["a"] = 1
begun, may_end = threading.Event(), threading.Event()

def change():
    with d.transaction() as t:
        t["a"] = 2
        begun.set()
        may_end.wait()

changer = threading.Thread(target=change)
changer.start()
begun.wait()
child = os.fork()
if not child:
    os._exit(0)
may_end.set()
changer.join()
pipe = subprocess.PIPE
other = subprocess.Popen([sys.executable, "-c", writer, path], stdin=pipe, stdout=pipe)
other.stdout.readline()
os.write(go, b"!")
os.waitpid(child, 0)
other.communicate(b"commit")
"""

WRITER_WHOSE_CACHE_IS_FULL = """
import sqlite3, sys
sql = sqlite3.connect(sys.argv[1], isolation_level=None)
sql.execute("PRAGMA cache_size = 5")
sql.execute("BEGIN IMMEDIATE")
for number in range(300):
    row = f"{number}.pkl", str(number), b"x" * 3000
    sql.execute("INSERT INTO objects(name, etag, modified, size, data) VALUES (?, ?, 0, 9, ?)", row)
print("written", flush=True)
sys.stdin.read()
sql.execute("COMMIT")
"""


def test_a_child_gives_up_the_transactions_of_other_threads_before_these_go_on(path: Path) -> None:
    quiet = "-Wignore::DeprecationWarning"  # of Python 3.12: to fork beside threads is risky
    command = [sys.executable, quiet, "-c", CHILD_THAT_IS_LATE, path, WRITER_WHOSE_CACHE_IS_FULL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    with sqlite3.connect(path) as sql:
        assert sql.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert sql.execute("SELECT count(*) FROM objects").fetchone() == (301,)


def test_what_an_interrupted_bulk_has_done_is_committed_where_no_fork_comes_between(
    d: SQLiteDict[Any],
) -> None:
    d["a"] = 1
    connection = d._store._database.connection(1.0)  # type: ignore[attr-defined]
    could_fork = []

    def try_to_fork() -> None:
        could_fork.append(connection.lock.acquire(blocking=False))
        if could_fork[-1]:
            connection.lock.release()

    def look(statement: str) -> None:
        if statement == "COMMIT":
            thread = threading.Thread(target=try_to_fork)
            thread.start()
            thread.join()

    def change_and_be_interrupted() -> None:
        del d["a"]
        raise KeyboardInterrupt

    connection.sql.set_trace_callback(look)
    with pytest.raises(KeyboardInterrupt):
        connection.transact(Effort(fsync=False, timeout=1.0), change_and_be_interrupted)
    assert (could_fork, "a" in d) == ([False], False)


def write_and_measure(d: SQLiteDict[Any], place: Place, seconds: float) -> tuple[int, float]:
    count, longest = 0, 0.0
    now = time.monotonic()
    end = now + seconds
    while now < end:
        d[f"k{place.index}"] = count
        then, now = now, time.monotonic()
        longest = max(longest, now - then)
        count += 1
    return count, longest


def test_writers_get_about_equal_shares(path: Path) -> None:
    open_at(path)["a"] = 1
    results = run_workers(lambda: open_at(path), write_and_measure, 2.0, count=4)
    counts = [count for count, _ in results]
    assert min(counts) * 5 > max(counts)


def test_the_log_stays_short_beside_readers_that_overlap(
    d: SQLiteDict[Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persidict.stores.sqlite import connection

    monkeypatch.setattr(connection, "_LONGEST_LOG", 1 << 20)
    monkeypatch.setattr(connection, "_BETWEEN_RESTARTS_SECONDS", 0.0)
    d = open_at(path, large_value_size=1 << 20)
    d.update({str(number): b"x" * 1000 for number in range(100)})
    stop = threading.Event()

    def keep_reading() -> None:
        while not stop.is_set():
            assert len(list(d.values())) == 100

    readers = [threading.Thread(target=keep_reading) for _ in range(3)]
    for reader in readers:
        reader.start()
    longest = 0
    for number in range(2000):
        d[str(number % 100)] = bytes([number % 256]) * 5000
        longest = max(longest, os.stat(f"{path}-wal").st_size)
    stop.set()
    for reader in readers:
        reader.join()
    assert longest < 8 << 20


def test_the_log_is_shortened_once_a_snapshot_has_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persidict.stores.sqlite import connection

    monkeypatch.setattr(connection, "_LONGEST_LOG", 1 << 20)
    monkeypatch.setattr(connection, "_BETWEEN_RESTARTS_SECONDS", 0.0)
    d = open_at(path, large_value_size=1 << 20)
    d["a"] = 0

    def write() -> None:
        for number in range(500):
            d["a"] = bytes([number % 256]) * 10_000

    with d.transaction(read_only=True):
        writer = threading.Thread(target=write)
        writer.start()
        writer.join()
        assert os.stat(f"{path}-wal").st_size > 2 << 20
    write()
    assert os.stat(f"{path}-wal").st_size < 2 << 20


def test_connections_go_with_their_threads(d: SQLiteDict[Any], path: Path) -> None:
    d["a"] = 1
    before = len(open_descriptors(path.parent))
    for _ in range(50):
        thread = threading.Thread(target=lambda: d["a"])
        thread.start()
        thread.join()
    assert len(open_descriptors(path.parent)) <= before + 2


def test_no_warning_of_an_open_connection_at_exit(path: Path) -> None:
    script = (
        "from persidict import SQLiteDict; import threading\n"
        f"d = SQLiteDict(path={str(path)!r}, fsync=False)\n"
        "d['a'] = 1\n"
        "t = threading.Thread(target=lambda: d['a']); t.start(); t.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.exists(f"{path}-wal")
