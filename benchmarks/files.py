"""Dictionaries on files and in RAM, against the least that the same work takes."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from benchmarks.harness import Bench, Fact, Measure, Omission, Result, Row, Suite, timed
from benchmarks.peers import PeerUnavailable, load
from persidict import FileDirDict, LocalDict, MeasuredDict, PersiDict
from persidict.stores.files import platform

_HEAVY: Final = ("boto3", "numpy", "pandas", "joblib", "jsonpickle")


def small_value() -> dict[str, Any]:
    """Return a dict whose pickle has about 200 bytes."""
    return {"name": "x" * 60, **{f"key{i}": i for i in range(12)}}


def medium_value() -> dict[str, Any]:
    """Return a dict whose pickle has about 10 KB."""
    return {f"field{i}": {"value": i * 0.37, "name": f"name-{i}"} for i in range(270)}


def large_value() -> Any:
    """Return an array of 1 MB that no compressor makes smaller."""
    return np.random.default_rng(0).normal(size=1 << 17)


def values() -> dict[str, Any]:
    """Return the values to store, by what they are called in the table."""
    return {
        "200 B": small_value(),
        "10 KB dict": medium_value(),
        "1 MB array": large_value(),
    }


class PlainFiles:
    """The floor: pickle, a temporary file and `os.replace`, as one writes it by hand.

    Args:
        directory: Where the files are.
        fsync: Whether to sync each file and then the directory.
    """

    def __init__(self, directory: str, *, fsync: bool) -> None:
        self._directory = directory
        self._fsync = fsync

    def path(self, name: str) -> str:
        """Return where a file is."""
        return os.path.join(self._directory, f"{name}.pkl")

    def write(self, name: str, value: Any) -> None:
        """Replace a file's content in one step."""
        path = self.path(name)
        with open(f"{path}.tmp", "wb") as file:
            pickle.dump(value, file, protocol=5)
            if self._fsync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(f"{path}.tmp", path)
        if self._fsync:
            directory_fd = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory_fd)
            finally:
                os.close(directory_fd)

    def read(self, name: str) -> Any:
        """Read a file."""
        with open(self.path(name), "rb") as file:
            return pickle.load(file)


@contextmanager
def directories(*names: str) -> Iterator[list[str]]:
    """Make some empty directories beside each other, for as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="persidict-benchmark-") as place:
        made = [os.path.join(place, name) for name in names]
        for path in made:
            os.mkdir(path)
        yield made


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module."""
    yield from writes_beside_diskcache(bench)
    yield from writes(bench)
    yield from reads(bench)
    yield from listings(bench)
    yield from local_dict(bench)
    yield from imports(bench)


def writes(bench: Bench) -> Iterator[Row]:
    """Overwrite one item."""
    for fsync, title, limit in ((True, "durable write", 1.3), (False, "write, fsync=False", 2.0)):
        for kind, value in values().items():
            with directories("subject", "floor") as (subject, floor):
                yield bench.compare(
                    f"{title}, {kind}",
                    _setting(FileDirDict(base_dir=subject, fsync=fsync), value),
                    timed("write('a', v)", write=PlainFiles(floor, fsync=fsync).write, v=value),
                    against="pickle + temporary file + os.replace" + (" + fsync" if fsync else ""),
                    at_most=limit,
                )


def writes_beside_diskcache(bench: Bench) -> Iterator[Result]:
    """Insert and overwrite items, compared with a library that does not sync either.

    First of all come the insertions, and nothing is removed before the end: ext4 without a
    journal is slow to make files for some seconds after others were deleted.
    """
    try:
        diskcache = load("diskcache")
    except PeerUnavailable as reason:
        yield Omission("diskcache.Cache", str(reason))
        return
    new = (f"key{i}" for i in itertools.count())
    limits: dict[str, float | None] = {"200 B": None, "10 KB dict": 1.0}
    inserts = [("insert", new, kind, limit) for kind, limit in limits.items()]
    limits = {"200 B": 1.3, "10 KB dict": 1.3, "1 MB array": 0.3}
    overwrites = [("overwrite", itertools.repeat("a"), *limit) for limit in limits.items()]
    with directories("subject", "peer") as (subject, peer), diskcache.Cache(peer) as cache:
        d: PersiDict[Any] = FileDirDict(base_dir=subject, fsync=False)
        for title, keys, kind, limit in inserts + overwrites:
            yield bench.compare(
                f"{title}, fsync=False, {kind}",
                timed("d[next(keys)] = v", d=d, keys=keys, v=values()[kind]),
                timed("cache[next(keys)] = v", cache=cache, keys=keys, v=values()[kind]),
                against="diskcache.Cache",
                at_most=limit,
            )
        if not platform.load_renameat2():
            return
        for kind in ("200 B", "10 KB dict"):
            value = values()[kind]
            yield bench.compare(
                f"the system calls alone of overwriting, fsync=False, {kind}",
                timed(
                    "overwrite(path, data)",
                    overwrite=system_calls_of_overwriting,
                    path=os.path.join(subject, os.listdir(subject)[0]),
                    data=pickle.dumps(value, 5),
                ),
                timed("cache['a'] = v", cache=cache, v=value),
                against="diskcache.Cache",
            )


def system_calls_of_overwriting(path: str, data: bytes) -> None:
    """Replace a file by the system calls that a `FileDirDict` without syncs makes, and no others.

    Linux only, and only where files can be swapped.
    """
    import fcntl

    directory = os.path.dirname(path)
    swap, lock = platform.renameat2, fcntl.LOCK_EX | fcntl.LOCK_NB
    assert swap is not None, "platform.load_renameat2() comes first"
    temp_name = f"%tmp.{os.getpid():x}.{time.monotonic_ns():x}"
    temp_path = f"{directory}/{temp_name}"
    directory_fd = os.open(directory, platform.DIRECTORY_FLAGS)
    fcntl.flock(directory_fd, lock)
    mode = os.lstat(path).st_mode
    fd = os.open(temp_name, platform.CREATE_FLAGS, mode & 0o777, dir_fd=directory_fd)
    os.write(fd, data)
    os.fstat(fd)
    now = time.time_ns()
    os.utime(fd, ns=(now, now))
    here = platform.AT_FDCWD
    swap(here, temp_path.encode(), here, path.encode(), platform.RENAME_EXCHANGE)
    os.unlink(temp_path)
    fcntl.flock(directory_fd, fcntl.LOCK_UN)
    os.close(fd)
    os.close(directory_fd)


def reads(bench: Bench) -> Iterator[Row]:
    """Read one item, and look whether it is there."""
    limits = {"200 B": 2.0}
    for kind, value in values().items():
        with directories("subject", "floor") as (subject, floor):
            d: PersiDict[Any] = FileDirDict(base_dir=subject, fsync=False)
            d["a"] = value
            files = PlainFiles(floor, fsync=False)
            files.write("a", value)
            yield bench.compare(
                f"read, {kind}",
                timed("d['a']", d=d),
                timed("read('a')", read=files.read),
                against="pickle.load(file)",
                at_most=limits.get(kind, 1.3),
            )
    with directories("subject", "floor") as (subject, floor):
        d = FileDirDict(base_dir=subject, fsync=False)
        d["a"] = None
        files = PlainFiles(floor, fsync=False)
        files.write("a", None)
        yield bench.compare(
            "key in d",
            timed("'a' in d", d=d),
            timed("isfile(path)", isfile=os.path.isfile, path=files.path("a")),
            against="os.path.isfile(ready-made path)",
            at_most=2.5,
        )


def listings(bench: Bench) -> Iterator[Row]:
    """List many keys and read many items, in one directory and in many."""
    groups, members = bench.size(100, 3), bench.size(200, 5)
    together = groups * members
    shapes: dict[str, list[Any]] = {
        f"{together} keys": [f"key{i}" for i in range(together)],
        f"{groups} x {members} keys": [
            (f"group{i}", f"key{j}") for i in range(groups) for j in range(members)
        ],
    }
    for shape, keys in shapes.items():
        with directories("subject") as (place,):
            d: PersiDict[Any] = FileDirDict(base_dir=place, fsync=False)
            for key in keys:
                d[key] = small_value()
            yield bench.compare(
                f"for key in d, {shape}",
                timed("for key in d: pass", d=d),
                timed("count_files(place)", count_files=count_files, place=place),
                against="os.scandir walk",
                at_most=7.0,
            )
            yield bench.compare(
                f"for item in d.items(), {shape}",
                timed("for item in d.items(): pass", d=d),
                timed("for value in read_all(place): pass", read_all=read_all, place=place),
                against="os.scandir walk + pickle.load(file)",
                at_most=2.0,
            )


def count_files(directory: str) -> int:
    """Walk through all directories, and do nothing with what is found there but count it."""
    count = 0
    pending = [directory]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    count += 1
    return count


def read_all(directory: str) -> Iterator[Any]:
    """Walk through all directories and read what is found there."""
    pending = [directory]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                with open(entry.path, "rb") as file:
                    yield pickle.load(file)


def local_dict(bench: Bench) -> Iterator[Row]:
    """Read and write one item in RAM."""
    value = small_value()
    d: PersiDict[Any] = LocalDict()
    d["a"] = value
    names: dict[str, Any] = {"d": d, "v": value, "data": pickle.dumps(value, 5), "pickle": pickle}
    yield bench.compare(
        "LocalDict, get, 200 B",
        timed("d['a']", **names),
        timed("pickle.loads(data)", **names),
        against="pickle.loads",
        at_most=4.0,
    )
    yield bench.compare(
        "LocalDict, set, 200 B",
        timed("d['a'] = v", **names),
        timed("pickle.dumps(v)", **names),
        against="pickle.dumps",
        at_most=4.0,
    )
    measured: PersiDict[Any] = MeasuredDict(wrapped_dict=d)
    for title, statement in (("get", "d['a']"), ("set", "d['a'] = v")):
        yield bench.compare(
            f"LocalDict, {title}, measured",
            timed(statement, **{**names, "d": measured}),
            timed(statement, **names),
            against="LocalDict, not measured",
        )


def imports(bench: Bench) -> Iterator[Result]:
    """Import the package in fresh processes."""
    with directories("bytecode") as (bytecode,):
        yield bench.compare(
            "import persidict",
            _importing("persidict", bytecode),
            _importing("mixinforge", bytecode),
            against="import mixinforge",
            at_most=1.4,
        )
        code = "import sys, persidict; print(*sys.modules)"
        loaded = set(_in_fresh_process(code, bytecode).split())
    yield Fact(f"import persidict loads none of {', '.join(_HEAVY)}", loaded.isdisjoint(_HEAVY))


def _setting(d: PersiDict[Any], value: Any) -> Measure:
    return timed("d['a'] = v", d=d, v=value)


def _importing(module: str, bytecode: str) -> Measure:
    """Measure the import alone: the interpreter's own start would hide differences."""
    code = (
        "import time; start = time.perf_counter()\n"
        f"import {module}\n"
        "print(time.perf_counter() - start)"
    )

    def measure(number: int) -> float:
        return sum(float(_in_fresh_process(code, bytecode)) for _ in range(number))

    return measure


def _in_fresh_process(code: str, bytecode: str) -> str:
    """Run code and return what it prints; compile modules only once, into `bytecode`."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPYCACHEPREFIX": bytecode},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


SUITE: Final = Suite(
    "Files and RAM",
    "The floor is what one writes by hand; temporary file and syncs are the same.",
    run,
)
