"""A million items in one place, beside ten thousand: what one of them takes must be the same."""

from __future__ import annotations

import itertools
import os
import pickle
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from benchmarks.files import directories, small_value
from benchmarks.harness import Bench, Fact, Result, Suite, after, timed
from benchmarks.s3_places import dictionary, place
from persidict.file_dir_dict import FileDirDict
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import key_of_safe_string
from persidict.sqlite_dict import SQLiteDict
from tests.s3_servers.canned import Synthetic

MANY: Final = 1_000_000
FEW: Final = 10_000

_LIMIT: Final = 1.25
_DIGITS: Final = 8
_REMEMBERED: Final = 1 << 15
"""How many keys a process remembers at most."""


class Sized(NamedTuple):
    """A dictionary, and how many items are in it."""

    items: PersiDict[Any]
    size: int

    @property
    def new_keys(self) -> Iterator[str]:
        """Keys that are not there, each one once."""
        return (f"new{number}" for number in itertools.count())


def run(bench: Bench, many: int = MANY, few: int = FEW) -> Iterator[Result]:
    """Measure everything in this module.

    Args:
        bench: How to measure.
        many: The size that is looked at.
        few: The size that it is compared with.
    """
    counts = bench.size(few, 20), bench.size(many, 60)
    with directories("few", "many") as places:
        for path, count in zip(places, counts, strict=True):
            _fill_directory(path, count)
        yield from beside_few(
            bench,
            "directory",
            *(
                Sized(FileDirDict(base_dir=path, digest_len=0, fsync=False), count)
                for path, count in zip(places, counts, strict=True)
            ),
        )
    with directories("few", "many") as places:
        databases = [
            SQLiteDict[Any](path=os.path.join(path, "items.db"), fsync=False) for path in places
        ]
        for database, count in zip(databases, counts, strict=True):
            value = small_value()
            database.set_many((f"{number:0{_DIGITS}}", value) for number in range(count))
        yield from beside_few(bench, "database", *map(Sized, databases, counts))
    body = pickle.dumps(small_value(), 5)
    buckets = [Synthetic(n, body, bucket=f"of-{n}", digits=_DIGITS) for n in counts]
    with place(0.0, *buckets) as where:
        yield from beside_few(
            bench,
            "bucket",
            *(Sized(dictionary(where.endpoint_url, bucket=f"of-{n}"), n) for n in counts),
        )


def _fill_directory(path: str, count: int) -> None:
    """Put the files of items there; by hand, as it is not what is measured."""
    body = pickle.dumps(small_value(), 5)
    for number in range(count):
        with open(os.path.join(path, f"{number:0{_DIGITS}}.pkl"), "xb", buffering=0) as file:
            file.write(body)


def beside_few(bench: Bench, where: str, few: Sized, many: Sized) -> Iterator[Result]:
    """Compare what one item takes among many with what it takes among few."""
    middle = f"{few.size // 2:0{_DIGITS}}"
    stop = f"{few.size // 2 + 10:0{_DIGITS}}"
    names: dict[str, Any] = {"middle": middle, "stop": stop, "v": small_value()}
    against = f"the same among {few.size}"
    for title, statement, is_for_all in (
        ("for key in d, per key", "for key in d: pass", True),
        ("len, per key", "len(d)", True),
        ("get", "d[middle]", False),
        ("in", "middle in d", False),
        ("insert", "d[next(new)] = v", False),
        ("overwrite", "d[middle] = v", False),
        ("bool", "bool(d)", False),
        ("range of 10", "list(d.keys(start=middle, stop=stop))", False),
    ):
        if where == "directory" and title == "range of 10":
            continue  # the system lists a directory whole
        measures = [
            timed(statement, time.process_time, d=sized.items, new=sized.new_keys, **names)
            for sized in (many, few)
        ]
        if is_for_all:
            measures = [after(_forget_keys, measure) for measure in measures]
        yield bench.compare(
            f"{title}, {where} of {many.size}",
            *measures,
            against=against,
            at_most=_LIMIT,
            items=many.size if is_for_all else 1,
            floor_items=few.size if is_for_all else 1,
        )
    yield from memory(where, few, many)


def memory(where: str, few: Sized, many: Sized) -> Iterator[Result]:
    """Compare the peak of what Python holds while keys are iterated over, and listed."""
    for title, statement in (("iterating", "for key in d: pass"), ("list(d)", "list(d)")):
        of_few, of_many = (_peak(sized, statement) / sized.size for sized in (few, many))
        yield Fact(
            f"memory at the peak for each key, {title}, {where} of {many.size}: not a quarter"
            f" more than of {few.size} ({of_many:.0f} and {of_few:.0f} bytes)",
            of_many <= of_few * _LIMIT,
        )


def _peak(sized: Sized, statement: str) -> int:
    timed(statement, d=sized.items)(1)  # what is made once is there
    _forget_keys()
    tracemalloc.start()
    try:
        timed(statement, d=sized.items)(1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _forget_keys() -> None:
    """Fill what is remembered of keys with others, so that few have no advantage."""
    for number in range(_REMEMBERED):
        key_of_safe_string(f"other{number}")


SUITE: Final = Suite(
    "A million items",
    "One item among a million beside one among ten thousand, in one directory, one database"
    " file and one bucket (whose objects the server makes up). Times are CPU time of the process.",
    run,
)
