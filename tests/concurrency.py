"""Workers that use one dictionary at once, and a record of what each of them saw.

`run_workers` starts threads or processes, lets each make its own handle, and releases all
of them from one barrier. The factory that makes the handles and the work are picklable, so
that the same runs serve dictionaries in RAM, on files and on S3.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, TypeAlias, TypeVar

from persidict import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    VALUE_NOT_RETRIEVED,
    ConditionalOperationResult,
    ETagConditionFlag,
    MutationPolicyError,
    OperationResult,
    PersiDict,
)
from tests.linearizability import (
    ABSENT,
    ANYTHING,
    UNCHANGED,
    UNKNOWN,
    Found,
    Left,
    Operation,
    State,
    Version,
)

Factory: TypeAlias = Callable[[], PersiDict[Any]]
StartMethod: TypeAlias = Literal["thread", "fork", "spawn"]
Answer = TypeVar("Answer")


class WorkerFailed(AssertionError):
    """A worker raised, died, or did not end in time."""


@dataclass(frozen=True)
class Place:
    """A worker's place among the others.

    Attributes:
        index: The worker's number, from 0.
        count: How many workers there are.
        meet: Returns once every worker has called it as often.
    """

    index: int
    count: int
    meet: Callable[[], Any]


def run_workers(
    factory: Factory,
    work: Callable[..., Any],
    *arguments: Any,
    count: int = 8,
    start: StartMethod = "fork",
    timeout: float = 120.0,
) -> list[Any]:
    """Run ``work(dictionary, place, *arguments)`` in several workers at once.

    Args:
        factory: Makes each worker's handle; picklable when processes are spawned.
        work: What each worker does; picklable when processes are spawned.
        *arguments: More arguments for `work`.
        count: How many workers.
        start: Threads, forked processes or spawned ones.
        timeout: Seconds after which the run has failed.

    Returns:
        What `work` returned, by worker.

    Raises:
        WorkerFailed: A worker raised (the message holds its traceback), died or hung.
    """
    run = _run_threads if start == "thread" else _run_processes
    return run(factory, work, arguments, count, start, timeout)


def _attend(
    factory: Factory, work: Callable[..., Any], arguments: Sequence[Any], place: Place
) -> Any:
    dictionary = factory()
    place.meet()
    return work(dictionary, place, *arguments)


def _run_threads(
    factory: Factory,
    work: Callable[..., Any],
    arguments: Sequence[Any],
    count: int,
    start: StartMethod,
    timeout: float,
) -> list[Any]:
    barrier = threading.Barrier(count)
    results: dict[int, Any] = {}
    failures: list[str] = []

    def attend(index: int) -> None:
        try:
            results[index] = _attend(factory, work, arguments, Place(index, count, barrier.wait))
        except BaseException:
            failures.append(traceback.format_exc())
            barrier.abort()

    threads = [threading.Thread(target=attend, args=(i,), daemon=True) for i in range(count)]
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if failures:
        raise WorkerFailed(failures[0])
    missing = sorted(set(range(count)) - set(results))
    if missing:
        raise WorkerFailed(f"workers {missing} did not end within {timeout} s")
    return [results[index] for index in range(count)]


def _attend_in_process(
    connection: Connection,
    factory: Factory,
    work: Callable[..., Any],
    arguments: Sequence[Any],
    place: Place,
    abort: Callable[[], None],
) -> None:
    try:
        connection.send((None, _attend(factory, work, arguments, place)))
    except BaseException:
        connection.send((traceback.format_exc(), None))
        abort()


def _run_processes(
    factory: Factory,
    work: Callable[..., Any],
    arguments: Sequence[Any],
    count: int,
    start: StartMethod,
    timeout: float,
) -> list[Any]:
    context: Any = multiprocessing.get_context(start)
    barrier = context.Barrier(count)
    processes, connections = [], []
    for index in range(count):
        receiver, sender = context.Pipe(duplex=False)
        place = Place(index, count, barrier.wait)
        process = context.Process(
            target=_attend_in_process,
            args=(sender, factory, work, arguments, place, barrier.abort),
            daemon=True,
        )
        with warnings.catch_warnings():
            # the workers themselves start no threads before they fork
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        sender.close()
        processes.append(process)
        connections.append(receiver)
    try:
        return _collect(connections, timeout)
    finally:
        for process, connection in zip(processes, connections, strict=True):
            connection.close()
            process.kill()
            process.join()


def _collect(connections: Sequence[Connection], timeout: float) -> list[Any]:
    """Receive one message from each worker."""
    deadline = time.monotonic() + timeout
    results: dict[int, Any] = {}
    while len(results) < len(connections):
        waiting = [c for i, c in enumerate(connections) if i not in results]
        ready = wait(waiting, max(0.0, deadline - time.monotonic()))
        if not ready:
            missing = [i for i in range(len(connections)) if i not in results]
            raise WorkerFailed(f"workers {missing} did not end within {timeout} s")
        for index, connection in enumerate(connections):
            if connection in ready:
                results[index] = _receive(index, connection)
    return [results[index] for index in range(len(connections))]


def _receive(index: int, connection: Connection) -> Any:
    try:
        failure, result = connection.recv()
    except EOFError:
        raise WorkerFailed(f"worker {index} died") from None
    if failure is not None:
        raise WorkerFailed(f"worker {index}:\n{failure}")
    return result


# ---------------------------------------------------------------------- recording


def is_satisfied(condition: ETagConditionFlag, expected: Any, actual: Any) -> bool:
    """Evaluate a condition as the contract's table does."""
    if condition is ANY_ETAG:
        return True
    return bool((expected == actual) is (condition is ETAG_IS_THE_SAME))


def _state(etag: Any, value: Any = UNKNOWN) -> State:
    if etag is ITEM_NOT_AVAILABLE or value is ITEM_NOT_AVAILABLE:
        return ABSENT
    return Version(etag, UNKNOWN if value is VALUE_NOT_RETRIEVED else value)


def _seen_in(result: ConditionalOperationResult) -> tuple[Found, Left]:
    """Read off a result what the operation found and left."""
    if result.value_was_mutated:
        return _state(result.actual_etag), _state(result.resulting_etag, result.new_value)
    return _state(result.actual_etag, result.new_value), UNCHANGED


class Recorder:
    """Calls the operations of a dictionary and writes down what each found and left.

    Args:
        dictionary: The dictionary; its values must be hashable.
        who: Who calls, for messages.

    Attributes:
        operations: What was recorded. An operation that raised stands there as one that may
            or may not have taken effect; the exception goes on to the caller.
    """

    def __init__(self, dictionary: PersiDict[Any], who: str = "") -> None:
        self.dictionary = dictionary
        self.who = who
        self.operations: list[Operation] = []

    def _record(
        self,
        name: str,
        key: Any,
        call: Callable[[], Answer],
        seen: Callable[[Answer], tuple[Found, Left]],
        if_unknown: tuple[Found, Left] = (ANYTHING, UNCHANGED),
    ) -> Answer:
        what = f"{self.who}: {name}" if self.who else name
        invoked = time.monotonic_ns()
        try:
            answer = call()
        except BaseException:
            self.operations.append(Operation(_plain(key), *if_unknown, invoked, None, what))
            raise
        returned = time.monotonic_ns()
        self.operations.append(Operation(_plain(key), *seen(answer), invoked, returned, what))
        return answer

    def read(self, key: Any) -> ConditionalOperationResult:
        """Read value and ETag."""
        return self._record("read", key, lambda: self.dictionary.get_with_etag(key), _seen_in)

    def get(self, key: Any) -> Any:
        """Read the value alone; ITEM_NOT_AVAILABLE for an absent item."""
        return self._record(
            "get",
            key,
            lambda: self.dictionary.get(key, ITEM_NOT_AVAILABLE),
            lambda value: (_state(UNKNOWN, value), UNCHANGED),
        )

    def contains(self, key: Any) -> bool:
        """Ask whether there is an item."""
        return self._record(
            "in",
            key,
            lambda: key in self.dictionary,
            lambda present: (Version() if present else ABSENT, UNCHANGED),
        )

    def assign(self, key: Any, value: Any) -> None:
        """Store a value, whatever was there."""
        written: tuple[Found, Left] = ANYTHING, Version(UNKNOWN, value)
        self._record(
            "assign",
            key,
            lambda: self.dictionary.__setitem__(key, value),
            lambda _: written,
            written,
        )

    def insert_append_only(self, key: Any, value: Any) -> bool:
        """Store a value in an append-only dictionary; tell whether it was accepted."""

        def insert() -> bool:
            try:
                self.dictionary[key] = value
            except MutationPolicyError:
                return False
            return True

        inserted: tuple[Found, Left] = ABSENT, Version(UNKNOWN, value)
        return self._record(
            "append-only insertion",
            key,
            insert,
            lambda accepted: inserted if accepted else (Version(), UNCHANGED),
            inserted,
        )

    def set_item_if(
        self, key: Any, value: Any, condition: ETagConditionFlag, expected: Any
    ) -> ConditionalOperationResult:
        """Store a value under a condition."""
        result = self._record(
            f"set_item_if({condition!r}, {expected!r})",
            key,
            lambda: self.dictionary.set_item_if(
                key,
                value=value,
                condition=condition,
                expected_etag=expected,
                retrieve_value=ALWAYS_RETRIEVE,
            ),
            _seen_in,
            (
                _state(expected) if condition is ETAG_IS_THE_SAME else ANYTHING,
                ABSENT if value is DELETE_CURRENT else Version(UNKNOWN, value),
            ),
        )
        self._check_verdict(result, condition, expected)
        return result

    def discard_if(
        self, key: Any, condition: ETagConditionFlag, expected: Any
    ) -> ConditionalOperationResult:
        """Delete an item under a condition."""
        result = self._record(
            f"discard_if({condition!r}, {expected!r})",
            key,
            lambda: self.dictionary.discard_if(key, condition=condition, expected_etag=expected),
            _seen_in,
            (_state(expected) if condition is ETAG_IS_THE_SAME else ANYTHING, ABSENT),
        )
        self._check_verdict(result, condition, expected)
        return result

    def setdefault_if(self, key: Any, value: Any) -> ConditionalOperationResult:
        """Insert a value if there is none, by setdefault_if."""
        result = self._record(
            "setdefault_if",
            key,
            lambda: self.dictionary.setdefault_if(
                key,
                default_value=value,
                condition=ETAG_IS_THE_SAME,
                expected_etag=ITEM_NOT_AVAILABLE,
            ),
            _seen_in,
            (ABSENT, Version(UNKNOWN, value)),
        )
        self._check_verdict(result, ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE)
        return result

    def setdefault(self, key: Any, value: Any) -> Any:
        """Insert a value, which must be unique, if there is none."""
        inserted: tuple[Found, Left] = ABSENT, Version(UNKNOWN, value)
        return self._record(
            "setdefault",
            key,
            lambda: self.dictionary.setdefault(key, value),
            lambda held: inserted if held == value else (Version(UNKNOWN, held), UNCHANGED),
            inserted,
        )

    def discard(self, key: Any) -> bool:
        """Delete an item if there is one."""
        deleted: tuple[Found, Left] = Version(), ABSENT
        return self._record(
            "discard",
            key,
            lambda: self.dictionary.discard(key),
            lambda found: deleted if found else (ABSENT, UNCHANGED),
            deleted,
        )

    def pop(self, key: Any) -> Any:
        """Take an item out; ITEM_NOT_AVAILABLE if there is none."""
        return self._record(
            "pop",
            key,
            lambda: self.dictionary.pop(key, ITEM_NOT_AVAILABLE),
            lambda value: (
                (ABSENT, UNCHANGED)
                if value is ITEM_NOT_AVAILABLE
                else (Version(UNKNOWN, value), ABSENT)
            ),
            (Version(), ABSENT),
        )

    def transform(self, key: Any, transformer: Callable[[Any], Any]) -> OperationResult:
        """Transform an item, however many attempts it takes."""
        attempts: list[tuple[Any, Any]] = []

        def transform(current: Any) -> Any:
            attempts.append((current, transformer(current)))
            return attempts[-1][1]

        def seen(result: OperationResult) -> tuple[Found, Left]:
            current, wanted = attempts[-1]
            if wanted is KEEP_CURRENT:
                return _state(result.resulting_etag, current), UNCHANGED
            return _state(UNKNOWN, current), _state(result.resulting_etag, result.new_value)

        return self._record(
            "transform_item",
            key,
            lambda: self.dictionary.transform_item(key, transformer=transform, n_retries=None),
            seen,
        )

    @staticmethod
    def _check_verdict(
        result: ConditionalOperationResult, condition: ETagConditionFlag, expected: Any
    ) -> None:
        verdict = is_satisfied(condition, expected, result.actual_etag)
        assert result.condition_was_satisfied is verdict, (result, condition, expected)


def _plain(key: Any) -> Hashable:
    """Return a key as a tuple of strings, so that all spellings of it are one."""
    return (key,) if isinstance(key, str) else tuple(key)


def joined(histories: Iterable[list[Operation]]) -> list[Operation]:
    """Put the histories of all workers together."""
    return [operation for history in histories for operation in history]


# ---------------------------------------------------------------------- work


def increment(dictionary: PersiDict[Any], place: Place, key: Any, times: int) -> list[Operation]:
    """Add 1 to a counter again and again; its absence counts as 0."""
    recorder = Recorder(dictionary, f"worker {place.index}")
    for _ in range(times):
        recorder.transform(key, lambda n: 1 if n is ITEM_NOT_AVAILABLE else n + 1)
    return recorder.operations


def do_random_operations(
    dictionary: PersiDict[Any], place: Place, keys: Sequence[Any], times: int
) -> list[Operation]:
    """Read, write, swap, insert and delete a few contested items at random."""
    rng = random.Random(place.index)
    recorder = Recorder(dictionary, f"worker {place.index}")
    latest: dict[Any, Any] = {}
    for number in range(times):
        key = rng.choice(keys)
        value = f"{place.index}.{number}"
        act = rng.choice(_RANDOM_OPERATIONS)
        latest[key] = act(recorder, key, value, latest.get(key, ITEM_NOT_AVAILABLE))
    return recorder.operations


def _read_then_swap(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    etag = recorder.read(key).actual_etag
    return recorder.set_item_if(key, value, ETAG_IS_THE_SAME, etag).resulting_etag


def _read_then_discard(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    etag = recorder.read(key).actual_etag
    return recorder.discard_if(key, ETAG_IS_THE_SAME, etag).resulting_etag


def _swap_blindly(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    return recorder.set_item_if(key, value, ETAG_IS_THE_SAME, latest).resulting_etag


def _write_if_changed(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    return recorder.set_item_if(key, value, ETAG_HAS_CHANGED, latest).resulting_etag


def _write_under_any_etag(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    return recorder.set_item_if(key, value, ANY_ETAG, latest).resulting_etag


def _assign(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    recorder.assign(key, value)
    return latest


def _setdefault(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    recorder.setdefault(key, value)
    return latest


def _setdefault_if(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    return recorder.setdefault_if(key, value).resulting_etag


def _transform(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    def transformer(current: Any) -> Any:
        return DELETE_CURRENT if str(current).endswith("7") else value

    return recorder.transform(key, transformer).resulting_etag


def _get(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    recorder.get(key)
    return latest


def _ask(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    recorder.contains(key)
    return latest


def _pop(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    recorder.pop(key)
    return latest


def _discard(recorder: Recorder, key: Any, value: Any, latest: Any) -> Any:
    recorder.discard(key)
    return latest


_RANDOM_OPERATIONS = (
    _ask,
    _assign,
    _discard,
    _get,
    _pop,
    _read_then_discard,
    _read_then_swap,
    _setdefault,
    _setdefault_if,
    _swap_blindly,
    _transform,
    _write_if_changed,
    _write_under_any_etag,
)

Insertion: TypeAlias = Literal["assignment", "setdefault", "setdefault_if", "set_item_if"]


def race_to_insert(
    dictionary: PersiDict[Any], place: Place, keys: Sequence[Any], how: Insertion
) -> list[Operation]:
    """Insert each of the keys in step with all other workers, then read who won."""
    recorder = Recorder(dictionary, f"worker {place.index}")
    value = f"from worker {place.index}"
    insert: dict[Insertion, Callable[[Any], Any]] = {
        "assignment": lambda key: recorder.insert_append_only(key, value),
        "setdefault": lambda key: recorder.setdefault(key, value),
        "setdefault_if": lambda key: recorder.setdefault_if(key, value),
        "set_item_if": lambda key: recorder.set_item_if(
            key, value, ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE
        ),
    }
    for key in keys:
        place.meet()
        insert[how](key)
        recorder.read(key)
    return recorder.operations


def pop_every_item(dictionary: PersiDict[Any], place: Place) -> list[tuple[Any, Any]]:
    """Take items out until there are none; return what was handed out."""
    handed_out = []
    while True:
        try:
            key, value = dictionary.popitem()
        except KeyError:
            return handed_out
        handed_out.append((key.strings, value))


def pop_each_key(
    dictionary: PersiDict[Any], place: Place, keys: Sequence[Any]
) -> list[tuple[Any, Any]]:
    """Pop every key, in an order of one's own; return what was handed out."""
    missing = object()
    shuffled = random.Random(place.index).sample(keys, len(keys))
    popped = [(_plain(key), dictionary.pop(key, missing)) for key in shuffled]
    return [(key, value) for key, value in popped if value is not missing]
