"""Writers of one database take turns: nobody is left behind."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from persidict import SQLiteDict

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
