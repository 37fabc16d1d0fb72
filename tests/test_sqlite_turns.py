"""Writers of one database take turns: nobody is left behind."""

from __future__ import annotations

import itertools
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from persidict import BackendError, SQLiteDict
from persidict.stores.sqlite import turn
from persidict.stores.sqlite.turn import Turn

if sys.platform != "win32":
    import fcntl

WRITERS = 4


@pytest.mark.skipif(sys.platform == "win32", reason="there is no queue on Windows")
@pytest.mark.parametrize("seed", range(5))
def test_the_next_turn_is_of_who_has_waited_longest_whoever_looks_first(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(turn, "monotonic", lambda: now)
    rng, arrivals = random.Random(seed), itertools.count(1)
    turns = [Turn(str(tmp_path / "queue")) for _ in range(WRITERS)]
    waiting_since = {number: now - 1 / next(arrivals) for number in range(WRITERS)}
    assert turns[0].reach(now, waiting_since[0])
    served = [0]
    for _ in range(50):
        # whoever has had its turn queues again, and all look while it is another one's
        waiting_since[served[-1]] = now - 1 / next(arrivals)
        for number in rng.sample(range(WRITERS), WRITERS):
            if number != served[-1]:
                assert not turns[number].reach(now, waiting_since[number])
        turns[served[-1]].release()
        looking = rng.sample(range(WRITERS), WRITERS)
        (winner,) = [n for n in looking if turns[n].reach(now, waiting_since[n])]
        served.append(winner)
    assert served == [number % WRITERS for number in range(51)]
    for each in turns:
        each.give_up()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no queue on Windows")
def test_one_that_was_killed_while_it_waited_longest_holds_nobody_up(tmp_path: Path) -> None:
    now = 1000.0
    holder, killed, other = (Turn(str(tmp_path / "queue")) for _ in range(3))
    assert holder.reach(now, now)
    assert not killed.reach(now, now)
    killed.give_up()
    holder.release()
    assert not other.reach(now + 0.001, now + 0.001)
    assert other.reach(now + 1, now + 0.001)
    holder.give_up()
    other.give_up()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no queue on Windows")
def test_a_turn_lasts_as_long_as_it_is_used_and_no_longer_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(turn, "monotonic", lambda: now)
    first, other = (Turn(str(tmp_path / "queue")) for _ in range(2))
    assert first.reach(now, now)
    first.release()
    arrived = now
    for _ in range(9):
        now += 0.0002
        first.take(0.0)
        first.release()
        assert not other.reach(now + 0.0001, arrived), "between two writes of one turn"
    now += 0.0003
    with pytest.raises(BackendError, match="timed out"):
        first.take(-1.0)
    assert other.reach(now, arrived)
    first.give_up()
    other.give_up()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no queue on Windows")
def test_a_turn_that_is_not_used_is_taken(tmp_path: Path) -> None:
    now = 1000.0
    first, other = (Turn(str(tmp_path / "queue")) for _ in range(2))
    assert first.reach(now, now)
    first.release()
    assert other.reach(now + 0.001, now)
    first.give_up()
    other.give_up()


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


def test_a_transformer_that_was_refused_is_called_again_at_once(tmp_path: Path) -> None:
    d: SQLiteDict[int] = SQLiteDict(path=tmp_path / "items.db", fsync=False)
    pauses: list[float] = []

    def overtaken(number: Any) -> int:
        if len(pauses) < 3:
            pauses.append(d._seconds_to_pause(1 + len(pauses), 0.1))
            d["counter"] = len(pauses)
        return int(number) + 1

    d["counter"] = 0
    assert d.transform_item("counter", transformer=overtaken).new_value == 4
    assert pauses == [0.0] * 3
