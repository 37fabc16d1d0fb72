"""The checker itself, on histories whose verdict is known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linearizability import (
    ABSENT,
    ANYTHING,
    UNCHANGED,
    UNKNOWN,
    Found,
    Left,
    NotLinearizable,
    Operation,
    State,
    Version,
    assert_linearizable,
    assert_versions_are_unique,
    find_violation,
)

V1, V2, V3 = Version("e1", 1), Version("e2", 2), Version("e3", 3)


def read(found: Found, invoked: int, returned: int | None) -> Operation:
    return Operation("k", found, UNCHANGED, invoked, returned, "read")


def write(left: Left, invoked: int, returned: int | None) -> Operation:
    return Operation("k", ANYTHING, left, invoked, returned, "write")


def change(found: Found, left: Left, invoked: int, returned: int | None) -> Operation:
    """A compare-and-swap, an insertion or a deletion that went through."""
    return Operation("k", found, left, invoked, returned, "change")


LINEARIZABLE = {
    "nothing happened": [],
    "a sequential run": [
        change(ABSENT, V1, 0, 1),
        read(V1, 2, 3),
        change(V1, V2, 4, 5),
        change(V2, ABSENT, 6, 7),
        read(ABSENT, 8, 9),
    ],
    "a read beside a write finds the old state": [write(V1, 0, 10), read(ABSENT, 1, 2)],
    "a read beside a write finds the new state": [write(V1, 0, 10), read(V1, 1, 2)],
    "reads beside a write find the old state, then the new": [
        write(V1, 0, 10),
        read(ABSENT, 1, 2),
        read(V1, 3, 4),
    ],
    "two insertions at once, one of which met an item": [
        change(ABSENT, V1, 0, 10),
        read(V1, 0, 10),
        read(V1, 11, 12),
    ],
    "swaps that were called in the reverse of the order of their versions": [
        change(V2, V3, 0, 9),
        change(V1, V2, 1, 9),
        change(ABSENT, V1, 2, 9),
    ],
    "a read of an older version that overlaps the write of the newer": [
        write(V1, 0, 1),
        write(V2, 2, 9),
        read(V1, 3, 8),
    ],
    "a write of unknown outcome that is seen": [write(V1, 0, None), read(V1, 5, 6)],
    "a write of unknown outcome that is never seen": [write(V1, 0, None), read(ABSENT, 5, 6)],
    "a write of unknown outcome that takes effect late": [
        write(V1, 0, None),
        read(ABSENT, 5, 6),
        read(V1, 7, 8),
    ],
    "a deletion of unknown outcome between two insertions": [
        change(ABSENT, V1, 0, 1),
        change(Version(), ABSENT, 2, None),
        change(ABSENT, V2, 3, 4),
    ],
    "an ETag that nobody told is learnt from a read": [
        write(Version(UNKNOWN, 1), 0, 1),
        read(V1, 2, 3),
        change(Version("e1"), V2, 4, 5),
    ],
    "operations that touch in one instant overlap": [write(V1, 0, 5), read(ABSENT, 5, 6)],
}

NOT_LINEARIZABLE = {
    "a lost update: two swaps replaced one version": [
        change(ABSENT, V1, 0, 1),
        change(V1, V2, 2, 9),
        change(V1, V3, 2, 9),
    ],
    "a lost update: two increments found one value": [
        change(ABSENT, Version(UNKNOWN, 1), 0, 9),
        change(ABSENT, Version(UNKNOWN, 1), 0, 9),
    ],
    "a stale read after a write": [write(V1, 0, 1), write(V2, 2, 3), read(V1, 4, 5)],
    "absence after a write": [write(V1, 0, 1), read(ABSENT, 2, 3)],
    "two winners of an insertion": [change(ABSENT, V1, 0, 9), change(ABSENT, V2, 0, 9)],
    "the old state is read after the new": [
        write(V1, 0, 20),
        read(V1, 1, 2),
        read(ABSENT, 3, 4),
    ],
    "an item that nobody wrote": [read(V1, 0, 1)],
    "an item handed out twice": [
        write(V1, 0, 1),
        change(Version(UNKNOWN, 1), ABSENT, 2, 9),
        change(Version(UNKNOWN, 1), ABSENT, 2, 9),
    ],
    "the value of one version beside the ETag of another": [
        write(V1, 0, 1),
        write(V2, 2, 9),
        read(Version("e1", 2), 3, 8),
    ],
    "an item that comes back after its deletion was seen": [
        write(V1, 0, 1),
        change(V1, ABSENT, 2, 9),
        read(ABSENT, 3, 4),
        read(V1, 5, 6),
    ],
    "a write of unknown outcome that is seen, then gone": [
        write(V1, 0, None),
        read(V1, 5, 6),
        read(ABSENT, 7, 8),
    ],
    "a write of unknown outcome that is seen before it was called": [
        read(V1, 0, 1),
        write(V1, 2, None),
    ],
    "an ETag that was learnt differs from one told later": [
        write(Version(UNKNOWN, 1), 0, 1),
        read(V1, 2, 3),
        read(Version("e2", 1), 4, 5),
    ],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_a_linearizable_history_is_accepted(name: str) -> None:
    assert find_violation(LINEARIZABLE[name]) is None


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_a_history_without_an_explanation_is_refused(name: str) -> None:
    assert find_violation(NOT_LINEARIZABLE[name]) is not None


def test_the_report_names_the_operation_the_state_and_what_ran_beside_it() -> None:
    history = [write(V1, 0, 1), write(V2, 2, 9), read(V3, 3, 4)]
    with pytest.raises(NotLinearizable) as caught:
        assert_linearizable(history)
    report = str(caught.value)
    assert "read on 'k': found Version(etag='e3', value=3)" in report
    assert "Version(etag='e1', value=1)" in report
    assert "write on 'k': found ANYTHING, left Version(etag='e2', value=2)" in report


def test_keys_are_checked_one_by_one() -> None:
    mine, yours = change(ABSENT, V1, 0, 1), change(ABSENT, V1, 2, 3)
    assert_linearizable([mine, replace(yours, key="other")])


def test_the_state_at_the_beginning_can_be_given() -> None:
    assert_linearizable([change(V1, V2, 0, 1)], initial={"k": V1})


def test_one_etag_for_two_versions_is_refused() -> None:
    with pytest.raises(AssertionError, match="same ETag"):
        assert_versions_are_unique([write(V1, 0, 1), write(Version("e1", 1), 2, 3)])


def test_one_etag_with_two_values_is_refused() -> None:
    with pytest.raises(AssertionError, match="same ETag"):
        assert_versions_are_unique([write(V1, 0, 1), read(Version("e1", 7), 2, 3)])


def test_versions_that_differ_in_their_etags_are_unique() -> None:
    assert_versions_are_unique([write(V1, 0, 1), read(V1, 2, 3), write(V2, 4, 5)])


def _is_possible(order: Iterable[Operation], initial: State) -> bool:
    """Replay an order of operations, all of whose findings are fully known."""
    state = initial
    for operation in order:
        if operation.found is not ANYTHING and operation.found != state:
            return False
        state = state if operation.left is UNCHANGED else operation.left
    return True


def _orders(history: list[Operation]) -> Iterable[tuple[Operation, ...]]:
    """All orders that respect real time, with and without what never returned."""
    returned = [operation for operation in history if operation.returned is not None]
    pending = [operation for operation in history if operation.returned is None]
    for size in range(len(pending) + 1):
        for chosen in itertools.combinations(pending, size):
            for order in itertools.permutations(returned + list(chosen)):
                if not any(
                    later.returned is not None and later.returned < earlier.invoked
                    for earlier, later in itertools.combinations(order, 2)
                ):
                    yield order


small_states = st.sampled_from([ABSENT, V1, V2])
small_operations = st.builds(
    lambda found, left, invoked, duration: Operation(
        "k", found, left, invoked, None if duration is None else invoked + duration
    ),
    small_states | st.just(ANYTHING),
    small_states | st.just(UNCHANGED),
    st.integers(0, 8),
    st.integers(0, 6) | st.none(),
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(small_operations, max_size=5))
def test_the_verdict_is_that_of_trying_every_order(history: list[Operation]) -> None:
    by_force = any(_is_possible(order, ABSENT) for order in _orders(history))
    assert (find_violation(history) is None) == by_force


def sequential_run(rng: random.Random, length: int) -> list[Operation]:
    """Operations as a register under a lock would answer them, at times 100, 200, 300 ..."""
    state: State = ABSENT
    history = []
    for number in range(1, length + 1):
        new = Version(f"etag {number}", number)
        kind = rng.choice(["read", "assign", "swap", "insert", "delete"])
        found: Found = state
        left: Left = UNCHANGED
        if kind == "assign":
            found, left = ANYTHING, rng.choice([new, Version(UNKNOWN, number)])
        elif kind == ("insert" if state is ABSENT else "swap"):
            left = new
        elif kind == "delete" and state is not ABSENT:
            left = ABSENT
        history.append(Operation("k", found, left, 100 * number, 100 * number, kind))
        state = state if left is UNCHANGED else left
    return history


def stretched(rng: random.Random, history: list[Operation], overlap: int) -> list[Operation]:
    """Let each operation begin earlier and end later, and forget some of the answers."""

    def forget(found: Found) -> Found:
        if isinstance(found, Version) and rng.random() < 0.3:
            return rng.choice([Version(), found._replace(etag=UNKNOWN), ANYTHING])
        return found

    stretched_history = [
        replace(
            operation,
            found=forget(operation.found),
            invoked=operation.invoked - rng.randrange(100 * overlap),
            returned=None
            if rng.random() < 0.05
            else operation.invoked + rng.randrange(100 * overlap),
        )
        for operation in history
    ]
    rng.shuffle(stretched_history)
    return stretched_history


seeds = st.integers(0, 2**32).map(random.Random)


@settings(max_examples=300, deadline=None)
@given(seeds, st.integers(0, 60), st.integers(1, 4))
def test_what_a_lock_would_answer_is_accepted_however_calls_overlap(
    rng: random.Random, length: int, overlap: int
) -> None:
    assert find_violation(stretched(rng, sequential_run(rng, length), overlap)) is None


def increments(length: int) -> list[Operation]:
    """Increments of one counter, four of which always overlap."""
    states: list[State] = [ABSENT, *(Version(f"etag {n}", n) for n in range(1, length + 1))]
    return [
        change(before, after, 100 * n, 100 * n + 350)
        for n, (before, after) in enumerate(itertools.pairwise(states))
    ]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_increments_of_which_one_was_lost_are_refused(data: st.DataObject) -> None:
    history = increments(30)
    lost = data.draw(st.integers(0, 28))
    history[lost + 1] = replace(history[lost + 1], found=history[lost].found)
    assert find_violation(history) is not None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_findings_swapped_between_calls_that_do_not_overlap_are_refused(
    data: st.DataObject,
) -> None:
    history = increments(30)
    first = data.draw(st.integers(0, 25))
    second = data.draw(st.integers(first + 4, 29))
    early, late = history[first], history[second]
    history[first] = replace(early, found=late.found)
    history[second] = replace(late, found=early.found)
    assert find_violation(history) is not None


def test_a_long_history_of_increments_with_readers_is_accepted() -> None:
    history = increments(4000)
    readings = [
        read(operation.left, operation.invoked + 10, operation.invoked + 400)
        for operation in history
        if operation.left is not UNCHANGED
    ]
    assert find_violation(history + readings) is None


def test_a_long_history_of_overlapping_unconditional_writes_is_accepted() -> None:
    rng = random.Random(1)
    history = [
        replace(operation, returned=operation.invoked + rng.randrange(400))
        for operation in sequential_run(rng, 4000)
        if operation.what in ("read", "assign")
    ]
    writes = [operation for operation in history if operation.what == "assign"]
    assert find_violation(writes) is None


def test_many_writes_of_unknown_outcome_do_not_slow_the_search() -> None:
    history = [write(Version(UNKNOWN, n), 100 * n, None) for n in range(200)]
    history += [read(Version(UNKNOWN, n), 100 * n + 50, 100 * n + 60) for n in range(0, 200, 2)]
    assert find_violation(history) is None
