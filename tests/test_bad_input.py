"""Files that are not what they should be: each with its error, and nothing else touched."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    ITEM_NOT_AVAILABLE,
    NEVER_RETRIEVE,
    VALUE_NOT_RETRIEVED,
    BackendError,
    FileDirDict,
)
from tests.faults import (
    NO_PERMISSION,
    NO_SPACE,
    READ_ONLY,
    failing_at,
    files_below,
    intercepted_system_calls,
)
from tests.operations import (
    ACCESSES,
    ITEMS,
    KEY,
    assert_names_operation_and_key,
    content,
    nobody_waits,
    path_of,
    state_of_files,
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "items"


@pytest.fixture
def dictionary(place: Path) -> FileDirDict[Any]:
    filled: FileDirDict[Any] = FileDirDict(base_dir=place)
    filled.update(ITEMS)
    return filled


# ---------------------------------------------------------------------- the base directory


def test_a_base_dir_that_is_a_file_is_a_value_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match="file"):
        FileDirDict(base_dir=file)
    assert file.read_text() == "mine"


def test_a_base_dir_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / "file" / "below")
    assert "k" not in dictionary
    assert list(dictionary) == []
    with pytest.raises(BackendError, match="base_dir"):
        dictionary["k"] = 1


@pytest.mark.parametrize("error_number", [READ_ONLY, NO_PERMISSION, NO_SPACE])
def test_a_base_dir_that_cannot_be_made_is_a_backend_error_that_names_it(
    place: Path, error_number: int
) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place)
    refuse = failing_at(1, error_number, among=frozenset({"mkdir"}))
    with intercepted_system_calls(refuse), pytest.raises(BackendError) as caught:
        dictionary["k"] = 1
    assert str(place) in str(caught.value)
    assert caught.value.backend == "files"
    assert caught.value.key == ("k",)
    assert isinstance(caught.value.__cause__, OSError)


def test_looking_makes_no_directory(place: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place)
    sub = dictionary.get_subdict("below")
    assert [len(sub), "k" in sub, list(sub), bool(dictionary), sub.discard("k")] == [
        0,
        False,
        [],
        False,
        False,
    ]
    assert not place.exists()


def test_a_base_dir_that_is_a_symbolic_link_to_a_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    linked: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / "link")
    linked[KEY] = 1
    assert FileDirDict(base_dir=tmp_path / "real")[KEY] == 1


def test_items_are_deleted_below_a_base_dir_that_is_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    linked: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / "link")
    linked.update({"a": 1, "b": 2, ("dir", "c"): 3, ("dir", "d"): 4})
    assert linked.pop("a") == 1
    assert not linked.discard("absent")
    del linked["dir", "c"]
    linked.clear()
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize(
    ("base_dir", "said"),
    [
        ("a\0b", "base_dir must not contain a NUL"),
        ("s3://bucket/a/b", r"BasicS3Dict\(bucket_name='bucket', root_prefix='a/b'\)"),
        (str(Path("s3://bucket/a")), r"BasicS3Dict\(bucket_name='bucket', root_prefix='a'\)"),
        ("https://host/a", "base_dir must be a directory, not a URL"),
    ],
)
def test_a_base_dir_that_is_no_path_of_a_directory_is_refused(base_dir: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FileDirDict(base_dir=base_dir)


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert FileDirDict(base_dir="~/items").base_dir == str(tmp_path / "items")


@pytest.mark.parametrize("lock_timeout", [-1, float("nan"), "1", True])
def test_a_lock_timeout_that_makes_no_sense_is_refused_by_its_name(
    lock_timeout: Any, tmp_path: Path
) -> None:
    with pytest.raises((TypeError, ValueError), match="lock_timeout"):
        FileDirDict(base_dir=tmp_path, lock_timeout=lock_timeout)


# ---------------------------------------------------------------------- garbled files


def pickle_of(value: Any) -> bytes:
    return pickle.dumps(value, protocol=5)


GARBAGE = {
    "an empty pickle": ("pkl", None, b""),
    "a truncated pickle": ("pkl", None, pickle_of(list(range(1000)))[:-10]),
    "a pickle of nothing known": ("pkl", None, b"\x80\x05cno_such_module\nNoSuchClass\n."),
    "text where a pickle should be": ("pkl", None, b"hello, world"),
    "a truncated LZ4 frame": ("pkl", None, b"\x04\x22\x4d\x18\x60\x40"),
    "a truncated JSON text": ("json", None, b'{"a": [1, 2'),
    "JSON that is not UTF-8": ("json", None, b'"\xff\xfe"'),
    "text that is not UTF-8": ("txt", str, b"\xff\xfe\x00"),
}


@pytest.fixture(params=GARBAGE)
def garbled(request: pytest.FixtureRequest, place: Path) -> FileDirDict[Any]:
    """A dictionary one of whose files is garbage."""
    extension, base_class, data = GARBAGE[request.param]
    dictionary: FileDirDict[Any] = FileDirDict(
        base_dir=place, serialization_format=extension, base_class_for_values=base_class
    )
    dictionary.update(ITEMS)
    path_of(dictionary, KEY).write_bytes(data)
    return dictionary


def test_a_garbled_file_is_an_error_at_once_that_names_file_key_and_format(
    garbled: FileDirDict[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with nobody_waits(monkeypatch), pytest.raises(BackendError) as caught:
        garbled[KEY]
    message = str(caught.value)
    assert str(path_of(garbled, KEY)) in message
    assert "'dir', 'k'" in message
    assert repr(garbled.serialization_format) in message
    assert caught.value.key == KEY
    assert caught.value.operation is not None
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "read",
    [
        lambda d: d.get(KEY),
        lambda d: d.pop(KEY),
        lambda d: d.setdefault(KEY, "new"),
        lambda d: d.get_with_etag(KEY),
        lambda d: d.transform_item(KEY, transformer=lambda _: "new"),
        lambda d: list(d.values()),
        lambda d: list(d.items()),
        lambda d: d.newest_values(),
    ],
    ids=[
        "get",
        "pop",
        "setdefault",
        "get_with_etag",
        "transform_item",
        "values",
        "items",
        "newest",
    ],
)
def test_whatever_reads_a_garbled_file_raises_and_leaves_it(
    garbled: FileDirDict[Any], read: Callable[[FileDirDict[Any]], Any]
) -> None:
    before = path_of(garbled, KEY).read_bytes()
    with pytest.raises(BackendError):
        read(garbled)
    assert path_of(garbled, KEY).read_bytes() == before


def test_a_garbled_file_is_listed_and_counted(garbled: FileDirDict[Any]) -> None:
    assert KEY in garbled
    assert set(garbled) == set(ITEMS)
    assert len(garbled) == 3


def test_what_does_not_retrieve_the_value_does_not_mind_a_garbled_file(
    garbled: FileDirDict[Any],
) -> None:
    result = garbled.get_item_if(
        KEY, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE, retrieve_value=NEVER_RETRIEVE
    )
    assert result.new_value is VALUE_NOT_RETRIEVED
    assert result.actual_etag == garbled.etag(KEY)


def test_a_garbled_file_can_be_replaced(garbled: FileDirDict[Any]) -> None:
    garbled[KEY] = "mended"
    assert content(garbled) == {**ITEMS, KEY: "mended"}


def test_a_garbled_file_can_be_deleted(garbled: FileDirDict[Any]) -> None:
    del garbled[KEY]
    assert content(garbled) == {key: value for key, value in ITEMS.items() if key != KEY}


# ---------------------------------------------------------------------- directories, pipes


@pytest.mark.parametrize("name", ACCESSES)
def test_a_directory_where_a_file_should_be_is_an_error_that_names_operation_and_key(
    name: str, dictionary: FileDirDict[Any]
) -> None:
    del dictionary[KEY]
    path_of(dictionary, KEY).mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        ACCESSES[name](dictionary, KEY)
    assert_names_operation_and_key(caught.value)


def test_a_directory_where_a_file_should_be_is_neither_listed_nor_cleared(
    dictionary: FileDirDict[Any],
) -> None:
    del dictionary[KEY]
    path_of(dictionary, KEY).mkdir()
    assert KEY not in set(dictionary)
    dictionary.clear()
    assert path_of(dictionary, KEY).is_dir()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ACCESSES)
def test_a_pipe_where_a_file_should_be_is_an_error_and_nobody_waits_for_its_writer(
    name: str, dictionary: FileDirDict[Any]
) -> None:
    del dictionary[KEY]
    os.mkfifo(path_of(dictionary, KEY))
    with pytest.raises(BackendError):
        ACCESSES[name](dictionary, KEY)
    assert KEY not in set(dictionary)


# ---------------------------------------------------------------------- names that are no keys


JUNK = (
    "README",
    ".pkl",
    ".hidden",
    "no-digest.pkl",
    "wrong_zzzz.pkl",
    "k_rtsl.PKL",
    "k_rtsl.json",
    "k_rtsl.pkl.bak",
    "k_rtsl.pkl~",
    "two words_xxxx.pkl",
    "ümlaut_xxxx.pkl",
    "%odd_abcd.pkl",
    "sub/no-digest.pkl",
    "sub/k_rtsl.pkl",
    "sub_zzzz/k_rtsl.pkl",
    "two words/k_rtsl.pkl",
    ".git/config",
)


@pytest.fixture
def littered(dictionary: FileDirDict[Any], place: Path) -> FileDirDict[Any]:
    """A dictionary among whose files lie others."""
    for name in JUNK:
        path = place / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle_of("junk"))
    (place / os.fsdecode(b"\xff\xfe_xxxx.pkl")).write_bytes(pickle_of("junk"))
    return dictionary


def test_files_that_are_no_items_are_not_listed(littered: FileDirDict[Any]) -> None:
    assert content(littered) == ITEMS
    assert len(littered) == len(ITEMS)
    assert {key.strings for key in littered.newest_keys()} == set(ITEMS)
    assert set(littered.subdicts()) == {"dir", "top"}
    assert {littered.random_key() for _ in range(50)} <= set(littered)


def test_files_that_are_no_items_survive_every_operation(
    littered: FileDirDict[Any], place: Path
) -> None:
    junk = {
        name: state
        for name, state in state_of_files(place).items()
        if place / name not in {path_of(littered, key) for key in ITEMS}
    }
    littered["new", "k"] = 1
    littered.popitem()
    littered.get_subdict("dir").clear()
    littered.clear()
    assert not littered
    assert state_of_files(place) == junk
    with pytest.raises(KeyError):
        littered.popitem()


def test_a_dictionary_among_other_files_only_is_empty(place: Path) -> None:
    place.mkdir()
    (place / "README").write_text("mine")
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=place)
    assert not dictionary
    assert dictionary.random_key() is None


# ---------------------------------------------------------------------- symbolic links


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Another dictionary's directory, which has items with the same names."""
    elsewhere: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / "outside")
    elsewhere[KEY] = elsewhere["k"] = "outside"
    return tmp_path / "outside"


def link(dictionary: FileDirDict[Any], outside: Path, what: str) -> None:
    """Make an item, or the directory it is in, a symbolic link to one outside."""
    path = path_of(dictionary, KEY)
    dictionary.get_subdict("dir").clear()
    relative = path.relative_to(dictionary.base_dir)
    if what == "directory":
        path.parent.symlink_to(outside / relative.parent, target_is_directory=True)
    else:
        path.parent.mkdir()
        path.symlink_to(outside / relative if what == "file" else outside / "nothing")


@pytest.fixture(params=["file", "directory", "dangling"])
def linked(
    request: pytest.FixtureRequest, dictionary: FileDirDict[Any], outside: Path
) -> FileDirDict[Any]:
    link(dictionary, outside, request.param)
    return dictionary


@pytest.mark.parametrize("name", ACCESSES)
def test_an_item_behind_a_symbolic_link_is_an_error_and_its_target_is_untouched(
    name: str, linked: FileDirDict[Any], outside: Path
) -> None:
    before = state_of_files(outside)
    with pytest.raises(BackendError, match="symbolic link"):
        ACCESSES[name](linked, KEY)
    assert state_of_files(outside) == before


def test_items_behind_symbolic_links_are_not_listed(linked: FileDirDict[Any]) -> None:
    assert content(linked) == {("top",): "t"}
    assert len(linked) == 1
    assert set(linked.subdicts()) == {"top"}
    assert list(linked.get_subdict("dir")) == []


def test_clearing_leaves_symbolic_links_and_their_targets(
    linked: FileDirDict[Any], outside: Path
) -> None:
    before = state_of_files(outside)
    linked.clear()
    linked.get_subdict("dir").clear()
    assert state_of_files(outside) == before
    links = [path for path in Path(linked.base_dir).rglob("*") if path.is_symlink()]
    assert len(links) == 1


def test_a_subdictionary_behind_a_symbolic_link_is_an_error_to_write_to(
    dictionary: FileDirDict[Any], outside: Path
) -> None:
    link(dictionary, outside, "directory")
    before = state_of_files(outside)
    with pytest.raises(BackendError, match="symbolic link"):
        dictionary.get_subdict("dir")["new"] = 1
    assert state_of_files(outside) == before


def test_a_link_that_looks_like_a_left_over_temporary_file_does_not_harm_its_target(
    dictionary: FileDirDict[Any], place: Path, outside: Path
) -> None:
    before = state_of_files(outside)
    target = next(iter(files_below(outside)))
    (place / "%tmp.0123456789abcdef").symlink_to(outside / target)
    assert content(dictionary) == ITEMS
    dictionary.clear()
    assert state_of_files(outside) == before
