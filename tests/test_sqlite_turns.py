"""Writers of one database take turns: nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from persidict import BackendError, SQLiteDict

if sys.platform != "win32":
    import fcntl

WRITERS = 4
WRITES = 20_000


def write_until_all_have_written_enough(
    path: Path, number: int, counts: Any, start: Barrier
) -> None:
    d: SQLiteDict[int] = SQLiteDict(path=path, fsync=False)
    start.wait()
    while sum(counts) < WRITES:
        d["item"] = number
        counts[number] += 1


@pytest.mark.slow
def test_of_four_writers_that_never_rest_each_gets_a_fair_share(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, counts = context.Barrier(WRITERS), context.Array("l", WRITERS, lock=False)
    workers = [
        context.Process(
            target=write_until_all_have_written_enough,
            args=(tmp_path / "items.db", number, counts, start),
        )
        for number in range(WRITERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert min(counts) > sum(counts) / WRITERS / 5, list(counts)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell who holds a lock")
def test_a_writer_whose_turn_does_not_come_says_who_has_it(tmp_path: Path) -> None:
    d: SQLiteDict[int] = SQLiteDict(path=tmp_path / "items.db", timeout=0.05)
    d["item"] = 1
    with (tmp_path / "items.db-queue").open("rb") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        with pytest.raises(BackendError, match=f"held by process {os.getpid()} "):
            d["item"] = 2
    d["item"] = 3
    assert d["item"] == 3


@pytest.mark.skipif(sys.platform == "win32", reason="there is no queue on Windows")
def test_a_queue_behind_a_link_is_refused_and_its_target_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    (tmp_path / "items.db-queue").symlink_to(other)
    d: SQLiteDict[int] = SQLiteDict(path=tmp_path / "items.db")
    with pytest.raises(BackendError, match="db-queue"):
        d["item"] = 1
    assert other.read_bytes() == b"something else"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no queue on Windows")
def test_a_queue_that_is_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "items.db-queue")
    d: SQLiteDict[int] = SQLiteDict(path=tmp_path / "items.db")
    with pytest.raises(BackendError, match="db-queue"):
        d["item"] = 1
