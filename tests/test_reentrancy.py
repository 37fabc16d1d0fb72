"""What runs in the middle of an operation of the same thread may use the same dictionary in RAM.

Signals are served, and finalisers run, at calls: every call that an operation makes in the
store is interrupted once, by another operation.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    NEVER_RETRIEVE,
    LocalDict,
)
from persidict.stores import memory, memory_contents

Operation = Callable[[LocalDict[Any]], Any]
STORE_FILES = {memory.__file__, memory_contents.__file__}


@pytest.fixture(autouse=True)
def _no_deadlocks() -> Iterator[None]:
    """End the process with all stacks where an operation waits for itself."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def filled() -> LocalDict[Any]:
    d: LocalDict[Any] = LocalDict()
    d["a"], d["dir", "x"] = 1, 2
    return d


def outcome(operation: Operation, d: LocalDict[Any]) -> Any:
    try:
        return operation(d)
    except KeyError as absent:
        return repr(absent)


def content(d: LocalDict[Any]) -> dict[Any, Any]:
    return {key.strings: value for key, value in d.items()}


def interrupted(
    operation: Operation, other: Operation, at: int
) -> tuple[Any, Any, dict[Any, Any]] | None:
    """Run an operation, and another one at one of its calls; None if it makes fewer of them."""
    d = filled()
    results: list[Any] = []
    calls = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        if frame.f_code.co_filename in STORE_FILES:
            if calls == at:
                sys.setprofile(None)
                results.append(outcome(other, d))
            calls += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        result = outcome(operation, d)
    finally:
        sys.setprofile(before)
    return (result, results[0], content(d)) if results else None


def one_after_the_other(
    operation: Operation, other: Operation, *, other_first: bool
) -> tuple[Any, Any, dict[Any, Any]]:
    d = filled()
    if other_first:
        second = outcome(other, d)
        return outcome(operation, d), second, content(d)
    return outcome(operation, d), outcome(other, d), content(d)


def compare_and_swap(d: LocalDict[Any]) -> Any:
    found = d.set_item_if(
        "a",
        value="swapped",
        condition=ETAG_IS_THE_SAME,
        expected_etag=d.etag("a"),
        retrieve_value=NEVER_RETRIEVE,
    )
    return found.condition_was_satisfied


def insert(d: LocalDict[Any], *key: str) -> Any:
    return d.setdefault_if(
        key,
        default_value="inserted",
        condition=ANY_ETAG,
        expected_etag=ITEM_NOT_AVAILABLE,
        retrieve_value=NEVER_RETRIEVE,
    ).value_was_mutated


def move(d: LocalDict[Any]) -> None:
    with d.transaction() as t:
        t["moved"] = 1
        t["dir", "moved"] = 2
        t.discard("b")


def increment(d: LocalDict[Any]) -> Any:
    return d.transform_item(
        "a", transformer=lambda value: 0 if value is ITEM_NOT_AVAILABLE else [value]
    ).new_value


OPERATIONS: dict[str, Operation] = {
    "overwrite": lambda d: d.__setitem__("a", "new"),
    "set new": lambda d: d.__setitem__("b", "new"),
    "set in a new directory": lambda d: d.__setitem__(("new", "x"), "new"),
    "set in a directory": lambda d: d.__setitem__(("dir", "y"), "new"),
    "insert": lambda d: insert(d, "b"),
    "insert in a new directory": lambda d: insert(d, "new", "x"),
    "do not insert": lambda d: insert(d, "a"),
    "compare and swap": compare_and_swap,
    "delete": lambda d: d.__delitem__("a"),
    "delete the last of a directory": lambda d: d.__delitem__(("dir", "x")),
    "discard what is absent": lambda d: d.discard("b"),
    "pop": lambda d: d.pop("a", None),
    "transform": increment,
    "transaction": move,
    "get": lambda d: d.get("a"),
    "list": lambda d: sorted(map(str, d)),
    "items": lambda d: sorted(map(str, d.items())),
    "bool": bool,
    "clear": lambda d: d.clear(),
}


SEVERAL = {"list", "items", "clear", "transaction"}
"""What looks more than once, or what others look into."""


@pytest.mark.parametrize("other", list(OPERATIONS))
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_an_operation_interrupted_by_another_is_as_if_one_came_after_the_other(
    name: str, other: str
) -> None:
    pair = OPERATIONS[name], OPERATIONS[other]
    possible = [one_after_the_other(*pair, other_first=first) for first in (True, False)]
    at = 0
    while (found := interrupted(*pair, at)) is not None:
        result, other_result, left = found
        if "clear" in (name, other) and SEVERAL & {name, other}:
            assert left.items() <= {**possible[0][2], **possible[1][2]}.items(), at
        elif name in SEVERAL or other in SEVERAL:
            assert left in [content for *_, content in possible], at
        elif name == "compare and swap" and result is False:
            # it had looked at the version before
            assert left == one_after_the_other(pair[1], lambda d: None, other_first=False)[2]
        else:
            assert (result, other_result, left) in possible, at
        at += 1
    assert at > 0


class Witness:
    """A value whose end is noticed, by an operation on the same dictionary."""

    def __init__(self, d: LocalDict[Any], ended: list[int]) -> None:
        self.d = d
        self.ended = ended

    def __deepcopy__(self, memo: Any) -> Witness:
        return Witness(self.d, self.ended)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("has no bytes")

    def __del__(self) -> None:
        self.ended.append(1)
        self.d["ends"] = len(self.ended)
        self.d["dir", "ends"] = len(self.ended)
        self.d.discard(("dir", "x"))


@pytest.mark.parametrize(
    "end",
    [
        lambda d: d.__setitem__(("dir", "w"), 1),
        lambda d: d.__delitem__(("dir", "w")),
        lambda d: d.pop(("dir", "w")),
        lambda d: d.set_item_if(
            ("dir", "w"),
            value=1,
            condition=ETAG_IS_THE_SAME,
            expected_etag=d.etag(("dir", "w")),
        ),
        lambda d: d.clear(),
    ],
    ids=["overwritten", "deleted", "popped", "swapped", "cleared"],
)
def test_the_end_of_a_value_may_use_the_dictionary_that_drops_it(end: Operation) -> None:
    d = filled()
    ended: list[int] = []
    d["dir", "w"] = Witness(d, ended)
    end(d)
    assert ended
    assert ("dir", "x") not in d
    d["dir", "z"] = 1
    assert d["dir", "z"] == 1
    assert {*d} >= {("dir", "z"), ("a",)} or end(d) is None


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that send signals")
def test_signal_handlers_and_threads_count_exactly_beside_what_they_interrupt() -> None:
    d: LocalDict[int] = LocalDict()
    d["n"] = 0
    handled = depth = 0
    is_over = False

    def call_soon() -> None:
        if not is_over:
            signal.setitimer(signal.ITIMER_REAL, 0.0003)

    def count() -> None:
        d.transform_item("n", transformer=lambda n: n + 1, n_retries=None)

    def handler(*_: Any) -> None:
        nonlocal handled, depth
        handled += 1
        depth += 1
        if depth < 4:  # a handler is interrupted, too, but not without end on a slow machine
            call_soon()
        count()
        d["moment", str(handled)] = handled
        d.discard(("moment", str(handled)))
        sum(1 for _ in d)
        depth -= 1
        call_soon()

    def count_often() -> None:
        for _ in range(2000):
            count()

    before = signal.signal(signal.SIGALRM, handler)
    threads = [threading.Thread(target=count_often) for _ in range(2)]
    call_soon()
    try:
        for thread in threads:
            thread.start()
        count_often()
        for thread in threads:
            thread.join()
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled > 0
    assert d["n"] == 6000 + handled


@pytest.mark.skipif(not hasattr(os, "kill"), reason="needs signals")
def test_a_handler_that_saves_state_goes_through_under_an_iteration() -> None:
    d: LocalDict[int] = LocalDict()
    d.update({str(number): number for number in range(100)})

    def save(*_: Any) -> None:
        d["saved"] = len(d)

    before = signal.signal(signal.SIGTERM, save)
    try:
        seen = []
        for key in d:
            if not seen:
                os.kill(os.getpid(), signal.SIGTERM)
            seen.append(key)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert d["saved"] == 100
    assert len({*seen} - {("saved",)}) == 100
