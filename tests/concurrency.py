"""Workers that use one dictionary at once, and the work that they do.

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
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, TypeAlias

from persidict import (
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    PersiDict,
)
from tests.linearizability import Operation
from tests.recording import Recorder, plain

Factory: TypeAlias = Callable[[], PersiDict[Any]]
StartMethod: TypeAlias = Literal["thread", "fork", "spawn"]


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
            # Python 3.12 warns of forking beside threads; here that is part of the test
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
    """Receive what each worker returned, or raise what the first of them to fail raised."""
    deadline = time.monotonic() + timeout
    pending = dict(enumerate(connections))
    results: dict[int, Any] = {}
    while pending:
        ready = wait(list(pending.values()), max(0.0, deadline - time.monotonic()))
        if not ready:
            raise WorkerFailed(f"workers {list(pending)} did not end within {timeout} s")
        for index in [i for i, connection in pending.items() if connection in ready]:
            failure, results[index] = _receive(index, pending.pop(index))
            if failure is not None and "BrokenBarrierError" not in failure:
                raise WorkerFailed(f"worker {index}:\n{failure}")
    return [results[index] for index in range(len(connections))]


def _receive(index: int, connection: Connection) -> tuple[str | None, Any]:
    try:
        message: tuple[str | None, Any] = connection.recv()
    except EOFError:
        raise WorkerFailed(f"worker {index} died") from None
    return message


# ---------------------------------------------------------------------- work


def joined(histories: Iterable[list[Operation]]) -> list[Operation]:
    """Put the histories of all workers together."""
    return [operation for history in histories for operation in history]


def increment(dictionary: PersiDict[Any], place: Place, key: Any, times: int) -> list[Operation]:
    """Add 1 to a counter again and again; its absence counts as 0."""
    recorder = Recorder(dictionary, f"worker {place.index}")
    for _ in range(times):
        recorder.transform(key, lambda n: 1 if n is ITEM_NOT_AVAILABLE else n + 1)
    return recorder.operations


def do_random_operations(
    dictionary: PersiDict[Any],
    place: Place,
    keys: Sequence[Any],
    times: int,
    tolerated: tuple[type[Exception], ...] = (),
    seed: int = 0,
    without: Sequence[str] = (),
) -> list[Operation]:
    """Read, write, swap, insert and delete a few contested items at random.

    Args:
        dictionary: The dictionary.
        place: Which worker it is.
        keys: The items' keys.
        times: How many operations.
        tolerated: Errors after which an operation may or may not have taken effect.
        seed: Repeats the sequence of draws.
        without: The names of operations that are left out.
    """
    rng = random.Random(1000 * seed + place.index)
    recorder = Recorder(dictionary, f"worker {place.index}")
    latest: dict[Any, Any] = {}
    acts = [act for act in _RANDOM_OPERATIONS if act.__name__.strip("_") not in without]
    for number in range(times):
        key = rng.choice(keys)
        value = f"{place.index}.{number}"
        act = rng.choice(acts)
        with suppress(*tolerated):
            latest[key] = act(recorder, key, value, latest.get(key, ITEM_NOT_AVAILABLE))
    return recorder.operations


def do_random_histories(
    dictionary: PersiDict[Any],
    place: Place,
    count: int,
    times: int,
    tolerated: tuple[type[Exception], ...] = (),
    without: Sequence[str] = (),
) -> list[Operation]:
    """Do random operations again and again, each time in step with the others on two new items.

    Args:
        dictionary: The dictionary.
        place: Which worker it is.
        count: How many histories.
        times: How many operations each of them has.
        tolerated: Errors after which an operation may or may not have taken effect.
        without: The names of operations that are left out.
    """
    operations: list[Operation] = []
    for number in range(count):
        place.meet()
        keys = [f"x{number}", f"y{number}"]
        operations += do_random_operations(
            dictionary, place, keys, times, tolerated, number, without
        )
    return operations


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
    handed_out: list[tuple[Any, Any]] = []
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
    popped = [(plain(key), dictionary.pop(key, missing)) for key in shuffled]
    return [(key, value) for key, value in popped if value is not missing]
