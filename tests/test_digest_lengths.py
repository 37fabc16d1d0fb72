"""Files that were written with another digest_len: whoever lists them is told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from persidict import FileDirDict, sign_safe_str_tuple
from persidict.safe_str_tuple import NonEmptySafeStrTuple

LENGTHS = [0, 3, 4, 8, 26]


def written(place: Path, digest_len: int, count: int) -> None:
    d = FileDirDict[int](base_dir=place, digest_len=digest_len, fsync=False)
    d.update({("a", f"k{number}"): number for number in range(count)})


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("other", LENGTHS)
def test_listing_files_of_another_digest_length_warns_once(
    length: int, other: int, count: int, tmp_path: Path
) -> None:
    written(tmp_path, other, count)
    d = FileDirDict[int](base_dir=tmp_path, digest_len=length, fsync=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keys = [list(d) for _ in range(2)]
        list(d.items_and_timestamps())
    if length == other:
        assert (len(keys[0]), caught) == (count, [])
        return
    (warning,) = caught
    assert f"digest_len={other}" in str(warning.message)
    assert f"digest_len={length} " in str(warning.message)
    assert issubclass(warning.category, UserWarning)


def test_a_dictionary_opened_with_its_own_length_is_silent_though_others_left_files(
    tmp_path: Path,
) -> None:
    written(tmp_path, 4, 3)
    (tmp_path / "notes.pkl").write_bytes(b"whatever")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(FileDirDict[int](base_dir=tmp_path))) == 3


def test_keys_that_end_in_their_own_digests_are_no_reason_to_warn(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path, digest_len=0, fsync=False)
    signed = sign_safe_str_tuple(NonEmptySafeStrTuple("b"), 4)
    d.update({"a": 1, signed: 2, "c": 3})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(FileDirDict[Any](base_dir=tmp_path, digest_len=0))) == 3


def test_keys_that_end_as_if_in_digests_are_no_reason_to_warn(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path, digest_len=0, fsync=False)
    d.update({"first_name": 1, "last_name": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(FileDirDict[Any](base_dir=tmp_path, digest_len=0))) == 2


def test_an_empty_directory_is_no_reason_to_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(FileDirDict[Any](base_dir=tmp_path)) == []
