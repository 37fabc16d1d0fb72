"""Writes that are refused: keys too long, values that cannot be stored, disks that are full."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from persidict import ITEM_NOT_AVAILABLE, BackendError, FileDirDict
from tests.faults import (
    NO_SPACE,
    READ_ONLY,
    Hook,
    SmallDisk,
    failing_at,
    files_below,
    intercepted_system_calls,
    open_descriptors,
)
from tests.operations import (
    ACCESSES,
    CHANGES,
    ITEMS,
    KEY,
    WRITES,
    Access,
    assert_names_operation_and_key,
    content,
    nobody_waits,
    path_of,
    said,
    state_of_files,
)

# forking is what these tests are about, also from a process that has threads
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "items"


@pytest.fixture
def dictionary(place: Path) -> FileDirDict[Any]:
    filled: FileDirDict[Any] = FileDirDict(base_dir=place)
    filled.update(ITEMS)
    return filled


# ---------------------------------------------------------------------- names that are too long


@pytest.fixture(params=[4, 0], ids=["with digests", "without digests"])
def empty(request: pytest.FixtureRequest, place: Path) -> FileDirDict[Any]:
    return FileDirDict(base_dir=place, digest_len=request.param)


TOO_LONG = {"alone": ("k" * 253,), "last": ("a", "k" * 253)}


@pytest.mark.parametrize("where", TOO_LONG)
def test_writing_under_a_key_too_long_for_the_file_system_names_the_limit(
    where: str, empty: FileDirDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, write in WRITES.items():
        with nobody_waits(monkeypatch), pytest.raises(OSError) as caught:
            write(empty, TOO_LONG[where], "new")
        assert caught.value.errno == errno.ENAMETOOLONG, name
        assert "255" in said(caught.value)
        assert_names_operation_and_key(caught.value, TOO_LONG[where])
    assert list(empty) == []


@pytest.mark.parametrize("where", TOO_LONG)
def test_a_key_too_long_for_the_file_system_is_absent(where: str, empty: FileDirDict[Any]) -> None:
    key = TOO_LONG[where]
    assert key not in empty
    assert empty.get(key, "default") == "default"
    assert empty.discard(key) is False
    assert empty.get_with_etag(key).actual_etag is ITEM_NOT_AVAILABLE
    for name in ("[]", "etag", "timestamp", "del", "pop"):
        with pytest.raises(KeyError):
            ACCESSES[name](empty, key)


def test_a_first_part_too_long_for_the_file_system_names_the_limit(place: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place)
    key = ("k" * 253, "b")
    with pytest.raises(OSError) as caught:
        dictionary[key] = 1
    assert caught.value.errno == errno.ENAMETOOLONG
    assert "255" in said(caught.value)
    assert key not in dictionary
    assert list(dictionary.get_subdict(key[0])) == []


def test_the_longest_name_that_fits_is_kept(place: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place)
    longest = "k" * (255 - len("_abcd.pkl"))
    dictionary[longest] = 1
    assert dict(dictionary.items()) == {(longest,): 1}


def test_a_path_too_long_for_the_system_is_an_error_and_such_a_key_is_absent(
    place: Path,
) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place)
    deep = ["part" * 50] * 30
    assert deep not in dictionary
    with pytest.raises(OSError) as caught:
        dictionary[deep] = 1
    assert caught.value.errno == errno.ENAMETOOLONG
    assert list(dictionary) == []


# ---------------------------------------------------------------------- unstorable values


UNSTORABLE = {
    "a lock": ("pkl", None, threading.Lock()),
    "a local function": ("pkl", None, lambda: None),
    "half a surrogate pair": ("txt", str, "\ud800"),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("what", UNSTORABLE)
def test_a_value_that_cannot_be_stored_is_an_error_at_once_and_leaves_no_trace(
    what: str, name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extension, base_class, value = UNSTORABLE[what]
    dictionary: FileDirDict[Any] = FileDirDict(
        base_dir=place, serialization_format=extension, base_class_for_values=base_class
    )
    dictionary.update(ITEMS)
    key = ("new", "k") if name == "setdefault" else KEY
    before = state_of_files(place)
    with nobody_waits(monkeypatch), pytest.raises(Exception) as caught:
        WRITES[name](dictionary, key, value)
    assert not isinstance(caught.value, AssertionError)
    assert all(part in said(caught.value) for part in key)
    assert state_of_files(place) == before
    assert not (place / "new").exists()


# ---------------------------------------------------------------------- file modes


@pytest.mark.parametrize(
    ("umask", "file_mode", "directory_mode"),
    [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)],
)
def test_modes_of_files_and_directories_follow_the_umask(
    umask: int, file_mode: int, directory_mode: int, place: Path
) -> None:
    before = os.umask(umask)
    try:
        dictionary: FileDirDict[Any] = FileDirDict(base_dir=place)
        dictionary[KEY] = 1
        dictionary[KEY] = 2
    finally:
        os.umask(before)
    file = path_of(dictionary, KEY)
    assert stat.S_IMODE(file.stat().st_mode) == file_mode
    assert stat.S_IMODE(file.parent.stat().st_mode) == directory_mode
    assert stat.S_IMODE(place.stat().st_mode) == directory_mode


# ---------------------------------------------------------------------- disks that refuse


def refused(change: Access, dictionary: FileDirDict[Any], before: Hook) -> OSError | None:
    """Make a change while system calls fail; return the error that it raised."""
    try:
        with intercepted_system_calls(before):
            change(dictionary, KEY)
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize("error_number", [NO_SPACE, READ_ONLY, errno.EIO])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_refused_at_any_step_is_an_error_that_names_it_and_loses_nothing(
    name: str, error_number: int, dictionary: FileDirDict[Any], place: Path
) -> None:
    among = frozenset({"fsync", "mkdir", "open", "replace", "unlink", "utime", "write"})
    others = {key: value for key, value in ITEMS.items() if key != KEY}
    for step in itertools.count(1):
        dictionary[KEY] = "old"
        descriptors = open_descriptors(place)
        refusal = refused(CHANGES[name], dictionary, failing_at(step, error_number, among))
        if refusal is None:
            break
        assert refusal.errno == error_number
        assert_names_operation_and_key(refusal)
        assert open_descriptors(place) == descriptors
        assert content(dictionary) in (ITEMS, others, {**others, KEY: "new"})
        assert not [name for name in files_below(place) if "%" in name]
    assert step > 1


@pytest.mark.parametrize("fsync", [False, True], ids=["not synced", "synced"])
def test_a_directory_that_becomes_a_link_in_the_middle_of_a_write_is_not_followed(
    fsync: bool, tmp_path: Path, place: Path
) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place, fsync=fsync)
    dictionary["dir", "a"] = 1
    (directory,) = place.iterdir()
    outside, elsewhere = tmp_path / "outside", tmp_path / "elsewhere"
    outside.mkdir()

    def make_it_a_link(name: str, arguments: Any) -> None:
        if name == "replace" and not directory.is_symlink():
            directory.rename(elsewhere)
            directory.symlink_to(outside)

    refusal = pytest.raises(BackendError, match="symbolic link") if fsync else nullcontext()
    with intercepted_system_calls(make_it_a_link), refusal:
        dictionary["dir", "b"] = 1
    assert not list(outside.iterdir())
    # what is written in the open directory goes with it, as if that was moved afterwards
    assert len(list(elsewhere.glob("*.pkl"))) == (1 if fsync else 2)


def fill_up(disk: SmallDisk) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=disk.place / "items")
    dictionary.update(ITEMS)
    for name, write in WRITES.items():
        key = ("new", "k") if name == "setdefault" else KEY
        with pytest.raises(OSError) as caught:
            write(dictionary, key, os.urandom(2 * disk.size))
        assert caught.value.errno == errno.ENOSPC
        assert_names_operation_and_key(caught.value, key)
        assert content(dictionary) == ITEMS
        assert not [name for name in files_below(disk.place) if "%" in name]
    dictionary[KEY] = "small enough"
    assert content(dictionary) == {**ITEMS, KEY: "small enough"}
    dictionary.clear()
    assert not dictionary


@pytest.mark.parametrize("fsync", [False, True], ids=["not synced", "synced"])
def test_a_file_that_cannot_be_made_leaves_no_directory_made_for_it(
    fsync: bool, place: Path
) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place, fsync=fsync)
    dictionary["a"] = 1
    before = set(place.iterdir())

    def without_inodes(name: str, arguments: Any) -> None:
        if name == "open" and "%tmp" in str(arguments[0]) and set(place.iterdir()) != before:
            raise OSError(errno.ENOSPC, "no inode is left")

    with intercepted_system_calls(without_inodes), pytest.raises(OSError, match="no inode"):
        dictionary["new", "dir", "b"] = 1
    assert set(place.iterdir()) == before


def test_a_full_disk_is_an_error_and_the_old_values_stay(tmp_path: Path) -> None:
    if not SmallDisk(tmp_path / "disk", 200_000).run(fill_up):
        pytest.skip("this system lets tests mount no tmpfs of their own")


def use_read_only(disk: SmallDisk) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=disk.place / "items")
    dictionary.update(ITEMS)
    (disk.place / "items" / "%tmp.0123456789abcdef").write_bytes(b"left over")
    disk.make_read_only()
    assert content(dictionary) == ITEMS
    assert dictionary.setdefault(KEY, "new") == "old"
    assert dictionary.discard("absent") is False
    for act in CHANGES.values():
        with pytest.raises(OSError) as caught:
            act(dictionary, KEY)
        assert caught.value.errno == errno.EROFS
        assert_names_operation_and_key(caught.value)
    with pytest.raises(OSError) as caught:
        dictionary["new", "k"] = 1
    assert_names_operation_and_key(caught.value, ("new", "k"))
    assert content(dictionary) == ITEMS


def test_a_read_only_disk_can_be_read_and_each_change_is_an_error(tmp_path: Path) -> None:
    if not SmallDisk(tmp_path / "disk", 200_000).run(use_read_only):
        pytest.skip("this system lets tests mount no tmpfs of their own")
