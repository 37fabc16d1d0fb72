"""Disks that take `A` and `a` for one name: digests keep such keys apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persidict import FileDirDict
from tests.faults import CaseInsensitiveDisk, files_below

ALIKE = [
    ("A",),
    ("a",),
    ("A", "b"),
    ("a", "b"),
    ("a", "B"),
    ("README", "Makefile"),
    ("readme", "makefile"),
    ("ReadMe", "MakeFile"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory whose names are case-insensitive, as on macOS and Windows."""
    with CaseInsensitiveDisk(tmp_path).mounted():
        yield tmp_path


def test_the_disk_of_these_tests_takes_names_that_differ_in_case_for_one(disk: Path) -> None:
    (disk / "Name").mkdir()
    with pytest.raises(FileExistsError):
        (disk / "nAME").mkdir()
    assert [path.name for path in disk.iterdir()] == ["Name"]


@pytest.mark.parametrize("digest_len", [1, 4, 11])
def test_keys_that_differ_in_case_only_are_items_of_their_own(digest_len: int, disk: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=disk / "items", digest_len=digest_len)
    for number, key in enumerate(ALIKE):
        dictionary[key] = number
    content = {key.strings: value for key, value in dictionary.items()}
    assert content == {key: number for number, key in enumerate(ALIKE)}
    assert [dictionary.pop(key) for key in ALIKE] == list(range(len(ALIKE)))


def test_names_with_the_default_digest_differ_by_more_than_case_for_each_spelling(
    tmp_path: Path,
) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False)
    spellings = {
        "".join(letters)
        for word in ("makefile", "k")
        for letters in itertools.product(*((c, c.upper()) for c in word))
    }
    for spelling in spellings:
        dictionary[spelling] = spelling
    names = {name.lower() for name in files_below(tmp_path)}
    assert len(names) == len(spellings)


def test_without_digests_keys_that_differ_in_case_only_share_an_item(disk: Path) -> None:
    dictionary: FileDirDict[Any] = FileDirDict(base_dir=disk / "items", digest_len=0)
    dictionary["A"] = 1
    dictionary["a"] = 2
    assert dictionary["A"] == 2
    assert len(dictionary) == 1
