"""Caches shared by processes that write, read, delete and damage files, evict, and die.

The long runs take PERSIDICT_STRESS_SECONDS each (10 unless it is set).
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from persidict import DELETE_CURRENT, FileDirDict, MutableDictCached, PersiDict, S3Dict
from persidict.exceptions import ObjectNotFound
from persidict.stores.cached.store import CachedStore
from persidict.stores.files.store import FileStore
from tests.concurrency import Place, joined, run_workers
from tests.faults import files_below, intercepted_system_calls, run_in_child
from tests.linearizability import UNCHANGED, UNKNOWN, Operation, Version, assert_linearizable
from tests.recording import Recorder
from tests.s3_caches import connect_cached, credentials
from tests.s3_servers.canned import start_canned
from tests.s3_servers.clients import new_bucket_name

__all__ = ["credentials"]

SECONDS = float(os.environ.get("PERSIDICT_STRESS_SECONDS", "10"))
KEYS = [("k", str(n)) for n in range(4)] + [("lone",)]

AnyDict = PersiDict[Any]
Meddle = Callable[[AnyDict, random.Random], None]


# ---------------------------------------------------------------------- six processes


def write(recorder: Recorder, rng: random.Random, number: int) -> None:
    """Change an item in one of the ways in which items change."""
    key, value = rng.choice(KEYS), f"{recorder.who}.{number} " + "x" * rng.randrange(300)
    match rng.randrange(8):
        case 0:
            recorder.discard(key)
        case 1:
            recorder.pop(key)
        case 2:
            recorder.setdefault_if(key, value)
        case 3:
            recorder.transform(key, lambda old: DELETE_CURRENT if len(str(old)) % 9 == 0 else value)
        case _:
            recorder.assign(key, value)


def read(recorder: Recorder, rng: random.Random, number: int) -> None:
    """Look at an item, or at all of them, in one of the ways in which items are looked at."""
    key = rng.choice(KEYS)
    match rng.randrange(8):
        case 0:
            recorder.contains(key)
        case 1:
            read_all(recorder)
        case 2 | 3 | 4:
            recorder.get(key)
        case _:
            recorder.read(key)


def read_all(recorder: Recorder) -> None:
    """Iterate over the items; each was current at some moment of the iteration."""
    invoked = time.monotonic_ns()
    items = [(key.strings, value) for key, value in recorder.dictionary.items()]
    returned = time.monotonic_ns()
    recorder.operations.extend(
        Operation(key, Version(UNKNOWN, value), UNCHANGED, invoked, returned, "items()")
        for key, value in items
    )


def work(
    dictionary: AnyDict, place: Place, seconds: float, meddlers: list[Meddle]
) -> list[Operation]:
    """Write (2 workers), read (2), or do to the caches what a meddler does (the others)."""
    rng = random.Random(place.index)
    recorder = Recorder(dictionary, f"worker {place.index}")
    end = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() > end:
            return recorder.operations
        if place.index < 4:
            (write if place.index < 2 else read)(recorder, rng, number)
        else:
            meddlers[place.index - 4](dictionary, rng)
    raise AssertionError("unreachable")


def run_six(factory: Callable[[], AnyDict], meddlers: list[Meddle]) -> None:
    history = joined(run_workers(factory, work, SECONDS, meddlers, count=6, timeout=SECONDS + 120))
    assert len(history) > 100
    assert_linearizable(history)


def damage_a_file(directories: list[str], rng: random.Random, *, only_delete: bool) -> None:
    """Delete a random file, cut it, or write junk into it; sometimes delete everything."""
    base_dir = Path(rng.choice(directories))
    if rng.random() < 0.001:
        shutil.rmtree(base_dir, ignore_errors=True)
        return
    files = sorted(files_below(base_dir))
    if not files:
        return
    path = base_dir / rng.choice(files)
    with suppress(OSError):
        match 0 if only_delete else rng.randrange(4):
            case 0 | 1:
                path.unlink()
            case 2:
                os.truncate(path, rng.randrange(100))
            case _:
                with path.open("r+b") as file:
                    file.seek(rng.randrange(100))
                    file.write(rng.randbytes(3))


def damage_copies(d: Any, rng: random.Random) -> None:
    damage_a_file([d.base_dir], rng, only_delete=False)


def evict_copies(d: Any, rng: random.Random) -> None:
    """Read through a handle of its own, whose limit leaves room for a few items."""
    small = S3Dict(**{**d.get_params(), "cache_size_limit": 1_000})
    for _ in range(200):
        small.get(rng.choice(KEYS))


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS + 240)
@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("size_limit", [None, 2_000], ids=["unlimited", "limited"])
def test_six_processes_on_one_cache_of_s3_see_only_values_that_are_current(
    tmp_path: Path, size_limit: int | None
) -> None:
    with start_canned() as server:
        factory = partial(
            connect_cached,
            server.endpoint_url,
            base_dir=tmp_path / "cache",
            bucket_name=new_bucket_name(),
            cache_size_limit=size_limit,
        )
        run_six(factory, [damage_copies, evict_copies])


def dictionaries_in(tmp_path: str) -> MutableDictCached[Any]:
    main, data, records = (
        FileDirDict(base_dir=os.path.join(tmp_path, name), fsync=False)
        for name in ("main", "data", "etags")
    )
    return MutableDictCached(main_dict=main, data_cache=data, etag_cache=records)


def delete_from_caches(d: Any, rng: random.Random) -> None:
    directories = [d.data_cache.base_dir, d.etag_cache.base_dir]
    damage_a_file(directories, rng, only_delete=True)


def evict_from_caches(d: Any, rng: random.Random) -> None:
    cache = rng.choice([d.data_cache, d.etag_cache])
    for key in cache.oldest_keys(max_n=max(0, len(cache) - 2)):
        cache.discard(key)


@pytest.mark.slow
@pytest.mark.timeout(3 * SECONDS + 240)
def test_six_processes_on_caches_of_dictionaries_see_only_values_that_are_current(
    tmp_path: Path,
) -> None:
    factory = partial(dictionaries_in, str(tmp_path))
    run_six(factory, [delete_from_caches, evict_from_caches])


# ---------------------------------------------------------------------- deaths


def store_in(place: Path, size_limit: int | None) -> CachedStore:
    main = FileStore(str(place / "main"), fsync=False)
    return CachedStore(main, str(place / "cache"), identity="main", size_limit=size_limit)


def cache_files(place: Path) -> list[str]:
    return sorted(name for name in files_below(place / "cache") if "entries" in name)


def assert_reads_are_right(store: CachedStore, names: list[str]) -> None:
    for name in names:
        for _ in range(2):
            try:
                truth = bytes(store.wrapped.get(name)[0])  # type: ignore[index]
            except ObjectNotFound:
                with pytest.raises(ObjectNotFound):
                    store.get(name)
            else:
                assert store.get(name)[0] == truth  # type: ignore[index]


ACTS: dict[str, Callable[[CachedStore], Any]] = {
    "writes": lambda store: store.put("a", b"new" * 5_000),
    "reads what is not cached": lambda store: store.get("uncached"),
    "reads what is cached": lambda store: store.get("a"),
    "deletes": lambda store: store.delete("a"),
    "clears the cache": lambda store: store.clear_cache(),
}


def die_at(step: int, act: Callable[[CachedStore], Any], store: CachedStore) -> None:
    """Act, but be killed ahead of the n-th system call, or halfway through a write."""
    calls = itertools.count(1)

    def die_if_due(name: str, arguments: tuple[Any, ...]) -> None:
        if next(calls) == step:
            if name == "write":
                os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    with intercepted_system_calls(die_if_due):
        act(store)


@pytest.mark.parametrize("size_limit", [None, 40_000], ids=["unlimited", "limited"])
@pytest.mark.parametrize("name", ACTS)
def test_wherever_a_process_is_killed_reads_are_right_and_its_files_go_with_the_next_write(
    name: str, size_limit: int | None, tmp_path: Path
) -> None:
    for step in itertools.count(1):
        place = tmp_path / str(step)
        store = store_in(place, size_limit)
        store.put("a", b"old" * 5_000)
        store.put("b", b"beside" * 2_000)
        store.wrapped.put("uncached", b"uncached" * 1_000)
        exit_code = run_in_child(die_at, step, ACTS[name], store_in(place, size_limit))
        survivor = store_in(place, size_limit)
        assert_reads_are_right(survivor, ["a", "b", "uncached"])
        survivor.put("c", b"next")
        assert [file for file in cache_files(place) if not file.endswith(".entry")] == []
        if size_limit is not None:
            assert survivor.info().bytes <= size_limit
        if exit_code == 0:
            break
        assert exit_code == -signal.SIGKILL
    assert step > 1


def write_for_ever(place: Path, size_limit: int | None, started: Any) -> None:
    store = store_in(place, size_limit)
    rng = random.Random(os.getpid())
    for number in itertools.count():
        store.put(f"k{rng.randrange(8)}", b"%d " % number * rng.randrange(20_000))
        with suppress(ObjectNotFound):
            store.get(f"k{rng.randrange(8)}")
        if number == 3:
            started.set()


@pytest.mark.parametrize("size_limit", [None, 200_000], ids=["unlimited", "limited"])
def test_writers_killed_at_random_moments_leave_no_wrong_copy_and_no_heap_of_files(
    size_limit: int | None, tmp_path: Path
) -> None:
    fork = multiprocessing.get_context("fork")
    rng = random.Random(0)
    for _ in range(20):
        started = fork.Event()
        writer = fork.Process(target=write_for_ever, args=(tmp_path, size_limit, started))
        writer.start()
        assert started.wait(60)
        writer.join(rng.uniform(0, 0.05))
        writer.kill()
        writer.join()
        assert_reads_are_right(store_in(tmp_path, size_limit), [f"k{n}" for n in range(8)])
    assert len(cache_files(tmp_path)) <= 8 + 1
