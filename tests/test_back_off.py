"""Writers who lose a race: how long they pause, and how seldom they lose for good."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from persidict import ConcurrencyConflictError, FileDirDict, LocalDict, PersiDict
from tests.concurrency import Place, run_workers
from tests.faults import intercepted_system_calls


class Clock:
    """A clock that only pauses and attempts move on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Iterator[Clock]:
    """Pauses are as long as they may be, and take no time."""
    clock = Clock()
    with (
        mock.patch.object(time, "perf_counter", clock.perf_counter),
        mock.patch.object(time, "sleep", clock.sleep),
        mock.patch.object(random, "uniform", lambda low, high: high),
    ):
        yield clock


def test_pauses_grow_with_what_attempts_take_and_not_with_the_pauses_before(clock: Clock) -> None:
    d: LocalDict[int] = LocalDict()
    d["n"] = 0

    def lose(n: int) -> int:
        clock.now += 0.0001
        d["n"] = n + 1
        return n

    with pytest.raises(ConcurrencyConflictError):
        d.transform_item("n", transformer=lose)
    assert clock.pauses == pytest.approx([0.0001 * 4**attempt for attempt in range(1, 7)])


def test_who_has_lost_a_race_syncs_its_next_attempt_when_nobody_can_come_between(
    tmp_path: Path,
) -> None:
    d: FileDirDict[int] = FileDirDict(base_dir=tmp_path)
    d["n"] = 0
    calls: list[str] = []
    attempts: list[list[str]] = []

    def lose_once(n: int) -> int:
        if not attempts:
            d["n"] = n + 1
        calls.clear()
        attempts.append(calls)
        return n + 10

    with intercepted_system_calls(lambda name, arguments: calls.append(name)):
        d.transform_item("n", transformer=lose_once)
        after_loss = [name for name in calls if name in ("fsync", "flock", "replace")]
        d.transform_item("n", transformer=lose_once)
        without_loss = [name for name in calls if name in ("fsync", "flock", "replace")]
    # the temporary file is marked, synced, and takes its place under the directory's lock
    assert after_loss[:5] == ["flock", "flock", "fsync", "replace", "flock"]
    assert without_loss[:5] == ["flock", "fsync", "flock", "replace", "flock"]
    assert d["n"] == 21


def count(d: PersiDict[Any], place: Place, times: int) -> int:
    """Increment a counter; return how often that was given up."""
    failures = 0
    place.meet()
    for _ in range(times):
        try:
            d.transform_item("n", transformer=lambda n: n + 1)
        except ConcurrencyConflictError:
            failures += 1
    return failures


@pytest.mark.slow
@pytest.mark.parametrize("fsync", [True, False], ids=["synced", "not synced"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_3200_increments_of_a_counter_by_16_processes_not_one_in_200_is_given_up(
    fsync: bool, tmp_path: Path
) -> None:
    d: FileDirDict[int] = FileDirDict(base_dir=tmp_path, fsync=fsync)
    d["n"] = 0
    failures = sum(run_workers(lambda: d, count, 200, count=16, timeout=250))
    assert d["n"] == 16 * 200 - failures
    assert failures < 16
