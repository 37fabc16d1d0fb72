"""ETags of files: two versions of one item never share one, whatever the clock does."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    ITEM_NOT_AVAILABLE,
    VALUE_NOT_RETRIEVED,
    ETagIfExists,
    FileDirDict,
)
from persidict.stores.files import version

NANOSECONDS = 1_000_000_000


@pytest.fixture
def dictionary(tmp_path: Path) -> FileDirDict[Any]:
    return FileDirDict(base_dir=tmp_path / "items", fsync=False)


def overwrite(dictionary: FileDirDict[Any], times: int) -> Iterator[ETagIfExists]:
    """Write values of equal size, and tell the ETag of each version."""
    for number in range(times):
        yield dictionary.set_item_if(
            "k",
            value=f"{number:08}",
            condition=ANY_ETAG,
            expected_etag=ITEM_NOT_AVAILABLE,
        ).resulting_etag


def delete_and_insert(dictionary: FileDirDict[Any], times: int) -> Iterator[ETagIfExists]:
    for etag in overwrite(dictionary, times):
        yield etag
        del dictionary["k"]


def assert_all_differ(etags: Iterator[ETagIfExists], times: int) -> None:
    assert len(set(etags)) == times


@pytest.mark.slow
def test_20000_overwrites_with_values_of_equal_size_have_20000_etags(
    dictionary: FileDirDict[Any],
) -> None:
    assert_all_differ(overwrite(dictionary, 20_000), 20_000)


def test_5000_deletions_and_insertions_of_one_item_have_5000_etags(
    dictionary: FileDirDict[Any],
) -> None:
    assert_all_differ(delete_and_insert(dictionary, 5_000), 5_000)


def test_the_etag_that_a_write_returns_is_the_one_that_readers_see(
    dictionary: FileDirDict[Any],
) -> None:
    for etag in overwrite(dictionary, 100):
        assert dictionary.etag("k") == etag
        assert dictionary.get_with_etag("k").actual_etag == etag


def test_a_refused_write_leaves_the_etag_as_it_was(dictionary: FileDirDict[Any]) -> None:
    dictionary["k"] = 1
    etag = dictionary.etag("k")
    with pytest.raises((TypeError, AttributeError)):
        dictionary["k"] = lambda: None
    dictionary.setdefault("k", 2)
    assert dictionary.etag("k") == etag


CLOCKS: dict[str, Callable[[], Callable[[], int]]] = {
    "runs backwards": lambda: itertools.count(1_700_000_000 * NANOSECONDS, -1).__next__,
    "stands still": lambda: lambda: 1_700_000_000 * NANOSECONDS,
    "jumps to and fro": lambda: (
        itertools.cycle([1_700_000_000 * NANOSECONDS, 1_600_000_000 * NANOSECONDS]).__next__
    ),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_overwrites_differ_in_their_etags_while_the_clock_misbehaves(
    clock: str, dictionary: FileDirDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", CLOCKS[clock]())
    assert_all_differ(overwrite(dictionary, 500), 500)


def test_insertions_after_deletions_differ_in_their_etags_while_the_clock_runs_backwards(
    dictionary: FileDirDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", CLOCKS["runs backwards"]())
    assert_all_differ(delete_and_insert(dictionary, 500), 500)


def keep_times_in_steps(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the file system keep modification times in steps of so many nanoseconds."""
    exact = os.utime

    def utime(path: Any, *, ns: tuple[int, int]) -> None:
        accessed, modified = ns
        exact(path, ns=(accessed // step * step, modified // step * step))

    monkeypatch.setattr(os, "utime", utime)
    monkeypatch.setattr(version, "_keeps_times", set())


@pytest.fixture(params=[10, 100, 1_000, 1_000_000, NANOSECONDS, 2 * NANOSECONDS])
def coarse_times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_times_in_steps(monkeypatch, request.param)


@pytest.mark.usefixtures("coarse_times")
def test_overwrites_differ_in_their_etags_where_the_file_system_keeps_coarse_times(
    dictionary: FileDirDict[Any],
) -> None:
    assert_all_differ(overwrite(dictionary, 500), 500)


@pytest.mark.parametrize("step", [10, 100, 1_000])
def test_a_write_returns_the_etag_of_readers_where_the_file_system_keeps_coarse_times(
    step: int, dictionary: FileDirDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_times_in_steps(monkeypatch, step)
    for etag in overwrite(dictionary, 600 if step < 1_000 else 20):
        assert dictionary.etag("k") == etag


def test_a_file_copied_over_an_item_by_other_means_is_another_version(
    dictionary: FileDirDict[Any], tmp_path: Path
) -> None:
    dictionary["k"] = 1
    dictionary["l"] = 2
    before = dictionary.etag("k")
    files = sorted((tmp_path / "items").iterdir())
    files[0].write_bytes(files[1].read_bytes())
    assert dictionary.etag("k") != before
    assert dictionary["k"] == 2


def test_a_timestamp_is_the_time_of_the_write(dictionary: FileDirDict[Any]) -> None:
    before = time.time()
    dictionary["k"] = 1
    assert before - 0.001 <= dictionary.timestamp("k") <= time.time() + 0.001


# ---------------------------------------------------------------------- not by the clock alone


@pytest.fixture(params=[NANOSECONDS, 2 * NANOSECONDS])
def whole_seconds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_times_in_steps(monkeypatch, request.param)


@pytest.mark.usefixtures("whole_seconds")
def test_insertions_after_deletions_differ_where_times_are_kept_in_whole_seconds(
    dictionary: FileDirDict[Any],
) -> None:
    assert_all_differ(delete_and_insert(dictionary, 50), 50)


@pytest.mark.parametrize("mtime_ns", [1_600_000_000 * NANOSECONDS, 1_600_000_000_123_456_789])
@pytest.mark.parametrize("in_place", [False, True], ids=["made anew", "written over"])
def test_archives_with_fixed_times_extracted_over_each_other_are_versions(
    dictionary: FileDirDict[Any], tmp_path: Path, mtime_ns: int, in_place: bool
) -> None:
    dictionary["k"] = 0
    (path,) = (tmp_path / "items").iterdir()
    contents = [path.read_bytes()]
    dictionary["k"] = 1
    contents.append(path.read_bytes())
    etags = set()
    for number in range(20):
        if not in_place:
            path.unlink()
        path.write_bytes(contents[number % 2])
        os.utime(path, ns=(mtime_ns, mtime_ns))
        found = dictionary.get_with_etag("k")
        assert found.new_value == number % 2
        assert dictionary.etag("k") == found.actual_etag
        etags.add(found.actual_etag)
    assert len(etags) == 20


def test_all_versions_differ_while_the_clock_stands_still(
    dictionary: FileDirDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000 * NANOSECONDS)
    assert_all_differ(delete_and_insert(dictionary, 50), 50)


def test_an_item_with_the_latest_time_that_the_file_system_knows_can_be_replaced(
    dictionary: FileDirDict[Any], tmp_path: Path
) -> None:
    dictionary["k"] = 1
    (path,) = (tmp_path / "items").iterdir()
    os.utime(path, (2**40, 2**40))
    before = dictionary.etag("k")
    dictionary["k"] = 2
    assert dictionary["k"] == 2
    assert dictionary.etag("k") != before


@pytest.mark.skipif(os.name != "posix", reason="access modes are POSIX's")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
@pytest.mark.parametrize("fsync", [False, True])
def test_a_file_that_is_replaced_keeps_its_access_mode(
    tmp_path: Path, mode: int, fsync: bool
) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / "items", fsync=fsync)
    dictionary["k"] = 1
    (path,) = (tmp_path / "items").iterdir()
    path.chmod(mode)
    dictionary["k"] = 2
    assert path.stat().st_mode & 0o777 == mode
    assert dictionary["k"] == 2


def test_a_look_is_enough_to_see_that_a_version_is_still_there(
    dictionary: FileDirDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary["a"] = 1
    etag = dictionary.etag("a")
    opened: list[Any] = []
    monkeypatch.setattr(os, "open", lambda *arguments: opened.append(arguments))
    result = dictionary.get_item_if("a", condition=ANY_ETAG, expected_etag=etag)
    monkeypatch.undo()
    assert (result.new_value, result.actual_etag) == (VALUE_NOT_RETRIEVED, etag)
    assert opened == []
