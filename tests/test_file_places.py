"""Where files lie: many to a directory, deep down, beside other formats, locked by others."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from persidict import BackendError, FileDirDict
from persidict.stores.files.draft import Draft
from persidict.stores.files.lock import DirectoryLock
from persidict.stores.files.tree import FileTree
from tests.faults import SmallDisk, intercepted_system_calls, run_in_child

FORK: Any = multiprocessing.get_context("fork")


def test_a_key_of_a_thousand_parts_is_an_item(tmp_path: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, digest_len=0, fsync=False)
    key = ("d",) * 1000
    dictionary[key] = 1
    assert dictionary[key] == 1
    assert list(dictionary) == [key]
    assert len(dictionary.get_subdict(key[:999])) == 1
    del dictionary[key]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_key_that_is_too_deep_is_refused_by_the_limit_that_is_met(tmp_path: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False)
    key = ("d",) * 1000
    limit = os.pathconf(tmp_path, "PC_PATH_MAX") - 1
    with pytest.raises(OSError, match=f"{limit} bytes in a path; .* levels"):
        dictionary[key] = 1
    assert key not in dictionary
    assert list(tmp_path.iterdir()) == []


def test_looks_at_directories_grow_with_the_depth_and_not_with_its_square(tmp_path: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False)
    dictionary[("d",) * 200] = 1
    with mock.patch.object(os, "lstat", wraps=os.lstat) as lstat:
        assert len(dictionary) == 1
    assert lstat.call_count < 400


@pytest.mark.parametrize("act", [bool, lambda d: next(iter(d))], ids=["bool", "next(iter)"])
def test_one_entry_is_looked_at_where_one_is_enough(act: Any, tmp_path: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False)
    dictionary.set_many({f"k{number}": number for number in range(200)})
    entries = itertools.count()
    scan = os.scandir

    def counted(path: Any) -> Any:
        class Scan:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None:
                inner.close()

            def __iter__(self) -> Any:
                for entry in inner:
                    next(entries)
                    yield entry

        inner = scan(path)
        return Scan()

    with mock.patch.object(os, "scandir", counted):
        assert act(dictionary)
    assert next(entries) <= 2


def test_handles_on_one_place_share_their_threads(tmp_path: Path) -> None:
    handles: list[FileDirDict[Any]] = [FileDirDict(base_dir=tmp_path) for _ in range(50)]
    before = threading.active_count()
    for number, handle in enumerate(handles):
        handle.set_many({f"k{number}": 1, f"l{number}": 2})
    assert threading.active_count() - before <= handles[0].max_concurrency
    assert len(handles[0]) == 100


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("pkl", "x"), ("json", ("x.pkl", "b"))),
        (("json", "x"), ("pkl", ("x.json", "b"))),
        (("gz", "a.tar"), ("tar.gz", "a")),
        (("gz", ("d", "a.tar")), ("tar.gz", ("d", "a"))),
    ],
)
@pytest.mark.parametrize("digest_len", [0, 4])
def test_formats_share_no_file(one: Any, other: Any, digest_len: int, tmp_path: Path) -> None:
    def dictionary(serialization_format: str) -> FileDirDict[Any]:
        value_class = None if serialization_format in ("pkl", "json") else str
        return FileDirDict(
            base_dir=tmp_path,
            digest_len=digest_len,
            serialization_format=serialization_format,
            base_class_for_values=value_class,
            fsync=False,
        )

    for (format_1, key_1), (format_2, key_2) in ((one, other), (other, one)):
        first, second = dictionary(format_1), dictionary(format_2)
        first[key_1] = "first"
        assert key_2 not in second
        second[key_2] = "second"
        assert [*first] == [key_1 if isinstance(key_1, tuple) else (key_1,)]
        assert [*second] == [key_2 if isinstance(key_2, tuple) else (key_2,)]
        second.clear()
        assert first[key_1] == "first"
        first.clear()


def test_a_file_of_one_text_format_in_the_way_of_a_directory_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    texts: FileDirDict[str] = FileDirDict(
        base_dir=tmp_path,
        digest_len=0,
        serialization_format="txt",
        base_class_for_values=str,
        fsync=False,
    )
    others: FileDirDict[int] = FileDirDict(base_dir=tmp_path, digest_len=0, fsync=False)
    texts["x"] = "first"
    with pytest.raises(NotADirectoryError, match="any greater digest_len keeps them apart"):
        others["x.txt", "b"] = 2
    assert ("x.txt", "b") not in others
    del texts["x"]
    others["x.txt", "b"] = 2
    with pytest.raises(IsADirectoryError, match="any greater digest_len keeps them apart"):
        texts["x"] = "first"
    texts.clear()
    assert (dict(texts), dict(others)) == ({}, {("x.txt", "b"): 2})


@pytest.mark.parametrize("key", ["a", ("a", "b"), "a.b", ("example.com", "b"), ("v1.2", "b.c")])
def test_ordinary_keys_keep_their_file_names(key: Any, tmp_path: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, digest_len=0, fsync=False)
    dictionary[key] = 1
    parts = (key,) if isinstance(key, str) else key
    assert tmp_path.joinpath(*parts[:-1], f"{parts[-1]}.pkl").is_file()


def hold(place: str, ready: Any, done: Any) -> None:
    lock = DirectoryLock(place, timeout=10)
    ready.set()
    done.wait(60)
    lock.descriptor.close()


def test_who_waits_too_long_for_a_lock_is_told_whose_it_is(tmp_path: Path) -> None:
    ready, done = FORK.Event(), FORK.Event()
    holder = FORK.Process(target=hold, args=(str(tmp_path), ready, done), daemon=True)
    holder.start()
    try:
        assert ready.wait(30)
        dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, lock_timeout=0.05)
        with pytest.raises(BackendError, match="lock_timeout") as caught:
            dictionary["k"] = 1
        assert str(tmp_path) in str(caught.value)
        if os.path.exists("/proc/locks"):
            assert f"process {holder.pid}" in str(caught.value)
        assert "k" not in dictionary
        assert list(tmp_path.iterdir()) == []
    finally:
        done.set()
        holder.join()


def overwrite_on(disk: SmallDisk) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=disk.place, fsync=False)
    dictionary["k"] = 1
    calls = []
    with intercepted_system_calls(lambda name, _: calls.append(name)):
        dictionary["k"] = 2
    assert dictionary["k"] == 2
    assert "renameat2" not in calls
    assert "replace" in calls


# forking is what this is about, also from a process that has threads
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_files_are_not_exchanged_where_renaming_is_quicker(tmp_path: Path) -> None:
    if not SmallDisk(tmp_path / "disk", 200_000).run(overwrite_on):
        pytest.skip("this system lets tests mount no tmpfs of their own")


# ---------------------------------------------------------------------- numbers of processes


def die_before_writing(dictionary: FileDirDict[Any]) -> None:
    def die(name: str, _: tuple[Any, ...]) -> None:
        if name == "write":
            os._exit(0)

    with mock.patch.object(os, "getpid", return_value=7), intercepted_system_calls(die):
        dictionary["a"] = 1


def write(dictionary: FileDirDict[Any]) -> None:
    with mock.patch.object(os, "getpid", return_value=7):
        dictionary["a"] = 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_with_the_number_of_one_that_died_can_write(tmp_path: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False)
    run_in_child(die_before_writing, dictionary)
    assert [path.name[:4] for path in tmp_path.iterdir()] == ["%tmp"]
    run_in_child(write, dictionary)
    assert dictionary["a"] == 2


def test_what_has_taken_its_place_leaves_the_file_alone_that_has_its_name_next(
    tmp_path: Path,
) -> None:
    tree = FileTree(str(tmp_path), fsync=False, lock_timeout=5, private_from=None)
    names: list[str] = []
    lock = DirectoryLock(str(tmp_path), timeout=5)
    placed = Draft(tree, str(tmp_path / "a"), b"1", None, None, lock, sync=False)
    names += os.listdir(tmp_path)
    placed.take_place(tree, lock, None, None)
    following = Draft(tree, str(tmp_path / "b"), b"2", None, None, lock, sync=False)
    assert set(os.listdir(tmp_path)) == {"a", *names}
    placed.drop(tree)
    following.take_place(tree, lock, None, None)
    lock.descriptor.close()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_write_that_comes_in_the_middle_of_another_has_a_file_of_its_own(tmp_path: Path) -> None:
    tree = FileTree(str(tmp_path), fsync=False, lock_timeout=5, private_from=None)
    outer = DirectoryLock(str(tmp_path), timeout=5)
    interrupted = Draft(tree, str(tmp_path / "a"), b"1", None, None, outer, sync=False)
    inner = DirectoryLock(str(tmp_path), timeout=5)
    between = Draft(tree, str(tmp_path / "b"), b"2", None, None, inner, sync=False)
    between.take_place(tree, inner, None, None)
    inner.descriptor.close()
    interrupted.take_place(tree, outer, None, None)
    outer.descriptor.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1", "b": b"2"}
