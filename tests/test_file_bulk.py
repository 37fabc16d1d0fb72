"""Many files written at once: who waits for whom, and what others may do in between."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import FileDirDict
from persidict.stores.files import bulk, draft
from persidict.stores.files.draft import TEMP_PREFIX, Draft
from persidict.stores.files.lock import DirectoryLock
from persidict.stores.files.store import FileStore
from tests.faults import SmallDisk, run_in_child

COUNT = 100
VALUES = {f"k{number}": number for number in range(COUNT)}


def dictionary_at(place: Path) -> FileDirDict[Any]:
    return FileDirDict(base_dir=str(place), fsync=True, digest_len=0)


@pytest.fixture
def before_places(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[list[Draft]], None]], None]:
    """Have something done when new files are about to take their places."""

    def arrange(act: Callable[[list[Draft]], None]) -> None:
        take_places = draft.take_places

        def act_first(tree: Any, drafts: list[Draft], if_none_match: Any) -> None:
            act(drafts)
            take_places(tree, drafts, if_none_match)

        monkeypatch.setattr(bulk, "take_places", act_first)

    return arrange


def test_of_threads_that_write_into_one_directory_none_waits_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = dictionary_at(tmp_path)
    asked: list[int] = []

    class Noted(DirectoryLock):
        def __init__(self, directory: str, *, timeout: float | None) -> None:
            asked.append(threading.get_ident())
            super().__init__(directory, timeout=timeout)

    monkeypatch.setattr(draft, "DirectoryLock", Noted)
    dictionary.set_many(VALUES)
    assert set(asked) == {threading.get_ident()}
    assert len(asked) == -(-COUNT // bulk._OPEN_AT_ONCE)
    assert dict(dictionary.items()) == {(key,): value for key, value in VALUES.items()}


def test_files_that_a_cleaner_took_for_left_overs_are_written_again(
    tmp_path: Path, before_places: Any
) -> None:
    dictionary = dictionary_at(tmp_path)

    def clean(drafts: list[Draft]) -> None:
        for left_over in tmp_path.glob(f"{TEMP_PREFIX}*"):
            left_over.unlink()

    before_places(clean)
    dictionary.set_many(VALUES)
    assert dict(dictionary.items()) == {(key,): value for key, value in VALUES.items()}


def test_what_others_insert_meanwhile_is_kept_where_nothing_may_be_replaced(
    tmp_path: Path, before_places: Any
) -> None:
    rival = dictionary_at(tmp_path)
    dictionary = FileDirDict[Any](base_dir=str(tmp_path), digest_len=0, append_only=True)
    is_done: list[bool] = []

    def insert(drafts: list[Draft]) -> None:
        if not is_done:
            is_done.append(True)
            rival["k5"] = "the rival's"

    before_places(insert)
    with pytest.raises(TypeError, match="append-only") as caught:
        dictionary.set_many(VALUES)
    assert "k5" in str(caught.value.__notes__)
    assert dictionary["k5"] == "the rival's"
    assert len(dictionary) == COUNT
    assert not list(tmp_path.glob(f"{TEMP_PREFIX}*"))


def test_an_exception_before_files_take_their_places_leaves_nothing_of_them(
    tmp_path: Path, before_places: Any
) -> None:
    dictionary = dictionary_at(tmp_path)
    dictionary["kept"] = 1
    open_before = len(os.listdir("/proc/self/fd"))

    def interrupt(drafts: list[Draft]) -> None:
        raise KeyboardInterrupt

    before_places(interrupt)
    with pytest.raises(KeyboardInterrupt):
        dictionary.set_many(VALUES)
    assert os.listdir(tmp_path) == ["kept.pkl"]
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_a_disk_that_refuses_some_files_gets_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = dictionary_at(tmp_path)
    fsync = os.fsync
    count = iter(range(10 * COUNT))

    def fsync_or_fail(fd: int) -> None:
        if next(count) % 10 == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(draft.os, "fsync", fsync_or_fail)
    with pytest.raises(ExceptionGroup, match="10 items could not be stored"):
        dictionary.set_many(VALUES)
    monkeypatch.undo()
    assert len(dictionary) == COUNT - 10
    assert all(VALUES[key[0]] == value for key, value in dictionary.items())
    assert not list(tmp_path.glob(f"{TEMP_PREFIX}*"))


def test_of_two_values_for_one_key_the_later_stays(tmp_path: Path) -> None:
    dictionary = dictionary_at(tmp_path)
    dictionary.set_many(("k", number) for number in range(COUNT))
    assert dictionary["k"] == COUNT - 1


def test_items_of_many_new_directories_are_all_written(tmp_path: Path) -> None:
    dictionary = dictionary_at(tmp_path)
    dictionary.set_many({(f"d{number % 7}", f"k{number}"): number for number in range(COUNT)})
    assert sorted(dictionary.values()) == list(range(COUNT))


def test_of_two_objects_of_one_name_in_a_new_directory_the_later_stays(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path))
    for number in range(10):
        name = f"d{number}/k"
        list(store.put_many([(name, b"x" * 1_000_000), (name, b"later")]))
        assert store.get(name)[0] == b"later"


def write_with_few_descriptors(place: Path, threads: int, limit: int) -> None:
    import resource  # which Windows does not have

    dictionary = dictionary_at(place)
    dictionary["k"] = 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    refused: list[BaseException] = []

    def write(number: int) -> None:
        try:
            dictionary.set_many({f"t{number}-{key}": value for key, value in VALUES.items()})
        except BaseException as error:
            refused.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not refused
    assert len(dictionary) == threads * COUNT + 1


@pytest.mark.parametrize(("threads", "limit"), [(1, 30), (8, 64)])
def test_where_few_files_may_be_open_all_are_written(
    threads: int, limit: int, tmp_path: Path
) -> None:
    taken = len(os.listdir("/proc/self/fd")) + 10
    assert run_in_child(write_with_few_descriptors, tmp_path, threads, limit + taken) == 0


def write_over_what_fills_a_disk(disk: SmallDisk) -> None:
    dictionary = dictionary_at(disk.place)
    for _ in range(2):
        value = os.urandom(30_000)
        dictionary.set_many(dict.fromkeys(VALUES, value))
        assert set(dictionary.values()) == {value}


def test_where_a_few_items_fit_a_second_time_all_are_overwritten(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "disk", 100 * 32_768 + 16 * 32_768)
    if not disk.run(write_over_what_fills_a_disk):
        pytest.skip("mounting is not possible here")
