"""Transactions: many operations are one step, for everybody, or none of them happens."""

from __future__ import annotations

import copy
import os
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    BackendError,
    FileDirDict,
    LocalDict,
    MutationPolicyError,
    PersiDict,
    SQLiteDict,
    WriteOnceDict,
)
from tests.concurrency import Place, StartMethod, run_workers

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

Maker = Callable[[Path], Callable[[], PersiDict[Any]]]


def in_a_database(place: Path, **params: Any) -> Callable[[], PersiDict[Any]]:
    return partial(SQLiteDict, path=str(place / "items.db"), **{"fsync": False, **params})


def in_files_beside_a_database(place: Path) -> Callable[[], PersiDict[Any]]:
    return in_a_database(place, large_value_size=1)


def in_ram(place: Path) -> Callable[[], PersiDict[Any]]:
    return partial(copy.copy, LocalDict())


MAKERS = [in_ram, in_a_database, in_files_beside_a_database]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], PersiDict[Any]]:
    maker: Callable[[], PersiDict[Any]] = request.param(tmp_path)
    return maker


@pytest.fixture
def d(make: Callable[[], PersiDict[Any]]) -> PersiDict[Any]:
    return make()


def content(d: PersiDict[Any]) -> dict[str, Any]:
    return {"/".join(key): value for key, value in d.items()}


class Oops(Exception):
    """What goes wrong in a block."""


def test_what_a_block_did_is_there_behind_it(d: PersiDict[Any]) -> None:
    d["gone"] = 0
    with d.transaction() as t:
        t["a"] = 1
        t.update({"b": 2, "c": 3})
        del t["gone"]
        t.transform_item("a", transformer=lambda n: n + 10)
    assert content(d) == {"a": 11, "b": 2, "c": 3}


def test_an_exception_undoes_all_of_a_block_and_goes_on(d: PersiDict[Any]) -> None:
    d.update({"a": 1, "b": 2})
    before = d.etag("a"), d.etag("b")

    def fail() -> None:
        with d.transaction() as t:
            t["a"] = 10
            del t["b"]
            t.update({"c": 3, "d": 4})
            t.clear()
            raise Oops

    with pytest.raises(Oops):
        fail()
    assert content(d) == {"a": 1, "b": 2}
    assert (d.etag("a"), d.etag("b")) == before


def test_a_deletion_alone_is_seen_by_nobody_and_undone(d: PersiDict[Any]) -> None:
    d.update({"a": 1, "b": 2})
    seen: list[Any] = []
    with d.transaction() as t:
        del t["a"]
        reader = threading.Thread(target=lambda: seen.append(content(d)))
        reader.start()
        reader.join()
        t.abort()
    assert [*seen, content(d)] == [{"a": 1, "b": 2}] * 2


def test_abort_undoes_all_of_a_block_and_leaves_it(d: PersiDict[Any]) -> None:
    d["a"] = 1
    with d.transaction() as t:
        t["a"] = 2
        t.abort()
    assert content(d) == {"a": 1}


def test_abort_needs_the_handle_of_a_block(d: PersiDict[Any]) -> None:
    with pytest.raises(RuntimeError, match="with"):
        d.abort()  # type: ignore[attr-defined]


def test_every_handle_of_the_thread_takes_part(
    d: PersiDict[Any], make: Callable[[], PersiDict[Any]]
) -> None:
    with d.transaction() as t:
        t["x", "a"] = 1
        make()["b"] = 2
        d.get_subdict("x")["c"] = 3
        t.get_subdict("y")["d"] = 4
        assert content(make()) == {"x/a": 1, "b": 2, "x/c": 3, "y/d": 4}
        t.abort()  # type: ignore[attr-defined]
    assert content(d) == {}


def test_a_block_sees_what_it_wrote(d: PersiDict[Any]) -> None:
    d["a"] = 1
    with d.transaction() as t:
        t["a"] = 2
        t["b"] = 3
        assert (t["a"], d["a"], len(t), list(t), content(t)) == (
            2,
            2,
            2,
            [("a",), ("b",)],
            {"a": 2, "b": 3},
        )
        del t["a"]
        assert "a" not in t
        assert t.get_many(["a", "b"]) == {("b",): 3}


def test_others_see_nothing_of_a_block_that_is_open(d: PersiDict[Any]) -> None:
    d["a"] = 1
    seen: list[Any] = []
    with d.transaction() as t:
        t["a"] = 2
        t["b"] = 2
        reader = threading.Thread(target=lambda: seen.append(content(d)))
        reader.start()
        reader.join()
    assert seen == [{"a": 1}]


def test_an_exception_in_an_inner_block_undoes_that_block_alone(d: PersiDict[Any]) -> None:
    with d.transaction() as outer:
        outer["a"] = 1
        try:
            with d.transaction() as inner:
                inner["a"] = 2
                inner["b"] = 2
                raise Oops
        except Oops:
            assert content(outer) == {"a": 1}
        outer["c"] = 3
    assert content(d) == {"a": 1, "c": 3}


def test_abort_leaves_and_undoes_the_block_of_its_handle(d: PersiDict[Any]) -> None:
    reached = []
    with d.transaction() as outer:
        outer["a"] = 1
        with d.transaction() as inner:
            inner["a"] = 2
            inner.abort()  # type: ignore[attr-defined]
        reached.append(outer["a"])
        with d.transaction() as inner:
            inner["a"] = 3
            outer.abort()  # type: ignore[attr-defined]
        reached.append("not here")
    assert (reached, content(d)) == ([1], {})


def test_what_an_inner_block_did_goes_with_the_outer_one(d: PersiDict[Any]) -> None:
    with d.transaction() as outer:
        with d.transaction() as inner:
            inner["a"] = 1
        outer.abort()  # type: ignore[attr-defined]
    assert content(d) == {}


@pytest.mark.parametrize("how", ["committed", "aborted", "failed"])
@pytest.mark.parametrize("of", ["itself", "its sub-dictionary", "its raw one"])
def test_the_handle_of_a_block_is_dead_behind_it(d: PersiDict[Any], how: str, of: str) -> None:
    try:
        with d.transaction() as t:
            handle = {
                "itself": t,
                "its sub-dictionary": t.get_subdict("x"),
                "its raw one": t.raw,  # type: ignore[attr-defined]
            }[of]
            if how == "aborted":
                t.abort()  # type: ignore[attr-defined]
            if how == "failed":
                raise Oops
    except Oops:
        pass
    for use in (lambda: handle.get("a"), lambda: handle.update(a=b""), lambda: list(handle)):
        with pytest.raises(RuntimeError, match="ended"):
            use()
    d["a"] = 1


def test_the_handle_of_a_block_belongs_to_its_thread(d: PersiDict[Any]) -> None:
    caught: list[BaseException] = []

    def use(t: PersiDict[Any]) -> None:
        try:
            t["a"] = 1
        except RuntimeError as error:
            caught.append(error)

    with d.transaction() as t:
        thread = threading.Thread(target=use, args=(t,))
        thread.start()
        thread.join()
    assert "another thread" in str(caught[0])


def test_a_snapshot_shows_one_moment_while_others_write(d: PersiDict[Any]) -> None:
    d.update({"a": 1, "b": 1})

    def change() -> None:
        d["a"] = 2
        d["c"] = 2
        del d["b"]
        for number in range(20):
            d["a"] = number

    with d.transaction(read_only=True) as t:
        writer = threading.Thread(target=change)
        writer.start()
        writer.join()
        assert (content(t), content(d), len(t)) == ({"a": 1, "b": 1}, {"a": 1, "b": 1}, 2)
    assert content(d) == {"a": 19, "c": 2}


@pytest.mark.parametrize(
    "write",
    [
        lambda d: d.update(a=2),
        lambda d: d.__setitem__("a", 2),
        lambda d: d.pop("a"),
        lambda d: d.clear(),
        lambda d: d.transaction().__enter__(),
    ],
    ids=["update", "assignment", "pop", "clear", "transaction"],
)
def test_a_snapshot_takes_no_writes(
    d: PersiDict[Any], write: Callable[[PersiDict[Any]], object]
) -> None:
    d["a"] = 1
    with d.transaction(read_only=True) as t:
        for handle in (t, d):
            with pytest.raises((MutationPolicyError, ExceptionGroup)):
                write(handle)
    assert content(d) == {"a": 1}


def test_a_snapshot_that_is_written_to_says_that_it_is_read_only(d: PersiDict[Any]) -> None:
    with d.transaction(read_only=True), pytest.raises(MutationPolicyError) as caught:
        d["a"] = 1
    assert caught.value.policy == "read-only"


def test_a_transaction_is_used_once(d: PersiDict[Any]) -> None:
    transaction = d.transaction()
    with transaction:
        pass
    with pytest.raises(RuntimeError, match="once"), transaction:
        pass


@pytest.mark.parametrize("kind", ["FileDirDict", "WriteOnceDict"])
def test_where_there_are_no_transactions_a_type_error_names_those_that_have_them(
    kind: str, tmp_path: Path
) -> None:
    files: PersiDict[Any] = FileDirDict(base_dir=tmp_path, append_only=True)
    d = files if kind == "FileDirDict" else WriteOnceDict(wrapped_dict=files)
    with pytest.raises(TypeError, match=f"{kind}.*SQLiteDict.*LocalDict"):
        d.transaction()


def test_a_raw_handle_takes_part_with_its_bytes(d: Any) -> None:
    with d.raw.transaction() as t:
        t["a"] = b"I1\n."
        t.get_subdict("x")["b"] = b"I2\n."
    assert content(d) == {"a": 1, "x/b": 2}


# ---------------------------------------------------------------------- many at once


def skip_what_processes_do_not_share(d: PersiDict[Any], start: str) -> None:
    if start == "fork" and isinstance(d, LocalDict):
        pytest.skip("RAM is not shared among processes")


def balance_of(d: PersiDict[Any]) -> int:
    return sum(d.values())


def transfer_or_audit(d: PersiDict[Any], place: Place, accounts: int, times: int) -> None:
    rng = random.Random(place.index)
    for number in range(times):
        if place.index % 4 == 3:
            with d.transaction(read_only=True) as t:
                assert balance_of(t) == 100 * accounts
                assert balance_of(d) == 100 * accounts
            continue
        payer, payee = rng.sample(range(accounts), 2)
        amount = rng.randrange(30)
        with d.transaction() as t:
            t[str(payer)] -= amount
            t[str(payee)] += amount
            if number % 7 == 0:
                assert balance_of(t) == 100 * accounts
            if t[str(payer)] < 0:
                t.abort()  # type: ignore[attr-defined]


@pytest.mark.parametrize("start", ["thread", "fork"])
def test_in_a_bank_of_a_hundred_accounts_no_money_comes_or_goes(
    make: Callable[[], PersiDict[Any]], start: StartMethod
) -> None:
    d = make()
    skip_what_processes_do_not_share(d, start)
    d.update({str(number): 100 for number in range(100)})
    run_workers(make, transfer_or_audit, 100, 40, count=8, start=start)
    assert balance_of(d) == 10_000
    assert min(d.values()) >= 0


def append_to_several(
    d: PersiDict[Any], place: Place, keys: list[str], times: int
) -> list[tuple[Any, ...]]:
    """Record what was found under several keys, and put one's own mark under all of them."""
    seen: list[tuple[Any, ...]] = []
    rng = random.Random(place.index)
    for number in range(times):
        mark = f"{place.index}.{number}"
        chosen = sorted(rng.sample(keys, 2))
        with d.transaction() as t:
            found = tuple(t.get(key, "") for key in chosen)
            for key in chosen:
                t[key] = mark
        seen.append((mark, tuple(zip(chosen, found, strict=True))))
    return seen


@pytest.mark.parametrize("start", ["thread", "fork"])
def test_transactions_on_several_keys_have_one_order(
    make: Callable[[], PersiDict[Any]], start: StartMethod
) -> None:
    """Each found what the one before it left under each of its keys: follow the marks."""
    skip_what_processes_do_not_share(make(), start)
    keys = ["x", "y", "z"]
    histories = run_workers(make, append_to_several, keys, 40, count=6, start=start)
    transactions = {mark: dict(found) for history in histories for mark, found in history}
    state = dict.fromkeys(keys, "")
    remaining = dict(transactions)
    for _ in transactions:
        fitting = [
            mark
            for mark, found in remaining.items()
            if all(state[key] == value for key, value in found.items())
        ]
        assert len(fitting) == 1, (state, fitting)
        [mark] = fitting
        state.update(dict.fromkeys(remaining.pop(mark), mark))
    assert state == {key: make()[key] for key in keys}


# ---------------------------------------------------------------------- what interrupts


def test_a_child_forked_inside_of_a_block_has_no_part_in_it(
    make: Callable[[], PersiDict[Any]],
) -> None:
    d = make()
    d["a"] = 1
    with d.transaction() as t:
        t["a"] = 2
        pid = os.fork()
        if pid == 0:
            try:
                try:
                    t["a"] = 3
                except RuntimeError:
                    os._exit(0 if make()["a"] == 1 else 2)
                os._exit(3)
            finally:
                os._exit(4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        t["b"] = 2
    assert content(make()) == {"a": 2, "b": 2}


def test_a_child_can_write_once_the_block_that_it_was_forked_in_has_ended(
    make: Callable[[], PersiDict[Any]],
) -> None:
    d = make()
    skip_what_processes_do_not_share(d, "fork")
    ended, tell = os.pipe()
    with d.transaction() as t:
        t["a"] = 1
        pid = os.fork()
        if pid == 0:
            try:
                os.read(ended, 1)
                d["b"] = d["a"] + 1
                os._exit(0)
            finally:
                os._exit(1)
    os.write(tell, b".")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(ended)
    os.close(tell)
    assert content(d) == {"a": 1, "b": 2}


def test_a_generator_that_was_left_inside_of_a_block_ends_with_it(d: PersiDict[Any]) -> None:
    def left_alone() -> Any:
        with d.transaction() as t:
            t["inner"] = 1
            yield

    with d.transaction() as outer:
        outer["outer"] = 1
        generator = left_alone()
        next(generator)
    generator.close()
    d["after"] = 1
    assert content(d) == {"outer": 1, "after": 1}


def test_the_handle_of_a_block_that_was_left_alone_is_dead(d: PersiDict[Any]) -> None:
    handles = []

    def left_alone() -> Any:
        with d.transaction() as t:
            handles.append(t)
            yield

    with d.transaction():
        generator = left_alone()
        next(generator)
    with d.transaction(), pytest.raises(RuntimeError):
        handles[0]["a"] = 1
    generator.close()


def test_a_killed_process_undoes_its_transaction(make: Callable[[], PersiDict[Any]]) -> None:
    d = make()
    skip_what_processes_do_not_share(d, "fork")
    d["a"] = 1
    pid = os.fork()
    if pid == 0:
        try:
            with make().transaction() as t:
                t["a"] = 2
                t["b"] = 2
                os.kill(os.getpid(), 9)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    assert content(make()) == {"a": 1}
    make()["c"] = 3


def test_conditions_and_transformers_work_inside(d: PersiDict[Any]) -> None:
    d["a"] = 1
    with d.transaction() as t:
        stale = t.etag("a")
        t["a"] = 2
        refused = t.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=stale)
        assert not refused.value_was_mutated
        t.transform_item("a", transformer=lambda _: DELETE_CURRENT)
        assert "a" not in t
    assert content(d) == {}


def test_a_writer_that_waits_too_long_is_told_so(tmp_path: Path) -> None:
    d = in_a_database(tmp_path)()
    hasty = in_a_database(tmp_path, timeout=0.05)()
    caught: list[BaseException] = []

    def write() -> None:
        try:
            hasty["a"] = 1
        except BackendError as error:
            caught.append(error)

    with d.transaction() as t:
        t["b"] = 1
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert "timed out after 0.05 s" in str(caught[0])
    assert content(d) == {"b": 1}
