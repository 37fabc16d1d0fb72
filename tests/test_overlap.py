"""A cache in the place of what it is a cache of is refused: places count, not parameters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    AppendOnlyDictCached,
    EmptyDict,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    PersiDict,
    SQLiteDict,
    WriteOnceDict,
)
from persidict.overlap import overlap
from persidict.wrapper_dict import WrapperDict
from tests.s3_dicts import connect
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer

__all__ = ["moto_aws_server"]

Pair = tuple[PersiDict[Any], PersiDict[Any]]


class Own(FileDirDict[Any]):
    """A subclass of a user's."""


def files(place: Path, **params: Any) -> FileDirDict[Any]:
    return FileDirDict(base_dir=place, fsync=False, **params)


def linked(place: Path) -> Path:
    """Return a link to a directory."""
    link = place.parent / "link"
    link.symlink_to(place, target_is_directory=True)
    return link


def with_items(place: Path) -> Path:
    files(place)["a"] = 1
    return place


def below(d: LocalDict[Any]) -> Pair:
    return d, d.get_subdict("x")


def ram(**params: Any) -> Pair:
    one: LocalDict[Any] = LocalDict()
    return one, LocalDict(backend=one.backend, **params)


SAME: dict[str, Callable[[Path], Pair]] = {
    "equal parameters": lambda p: (files(p), files(p)),
    "durable and not": lambda p: (files(p), FileDirDict(base_dir=p, fsync=True)),
    "a subclass": lambda p: (files(p), Own(base_dir=p)),
    "another length of digests": lambda p: (files(p), files(p, digest_len=0)),
    "another class of values": lambda p: (files(p), files(p, base_class_for_values=int)),
    "a link to the directory": lambda p: (files(with_items(p)), files(linked(p))),
    "a link to a directory above": lambda p: (
        files(with_items(p) / "below"),
        files(linked(p) / "below"),
    ),
    "a detour": lambda p: (files(p), files(p / "x" / "..")),
    "a relative path": lambda p: (files(p), files(Path(os.path.relpath(p)))),
    "a wrapper": lambda p: (files(p), WrapperDict(wrapped_dict=files(p))),
    "a sub-dictionary": lambda p: (files(p), files(p).get_subdict("x")),
    "a directory below that looks like keys": lambda p: (
        files(p, digest_len=0),
        files(p / "x", digest_len=0),
    ),
    "a database by a link": lambda p: (
        database(p / "items.db"),
        SQLiteDict(path=linked(p) / "items.db"),
    ),
    "one memory": lambda p: ram(),
    "one memory, another interval": lambda p: ram(prune_interval=None),
    "a sub-dictionary of a memory": lambda p: below(LocalDict()),
    "the dictionary itself": lambda p: (LocalDict(),) * 2,
}


def database(path: Path) -> SQLiteDict[Any]:
    path.parent.mkdir()
    d: SQLiteDict[Any] = SQLiteDict(path=path)
    d["a"] = 1
    return d


APART: dict[str, Callable[[Path], Pair]] = {
    "other directories": lambda p: (files(p / "a"), files(p / "b")),
    "a name that begins alike": lambda p: (files(p / "a"), files(p / "ab")),
    "formats side by side": lambda p: (files(p), files(p, serialization_format="json")),
    "a directory below that is no key": lambda p: (files(p), files(p / "cache")),
    "sub-dictionaries": lambda p: (files(p).get_subdict("a"), files(p).get_subdict("b")),
    "memories": lambda p: (LocalDict(), LocalDict()),
    "formats in one memory": lambda p: ram(serialization_format="json"),
    "other storages": lambda p: (LocalDict(), files(p)),
    "nothing": lambda p: (EmptyDict(), EmptyDict()),
    "a database and files": lambda p: (files(p / "files"), database(p / "d" / "items.db")),
}


@pytest.mark.parametrize("name", SAME)
def test_dictionaries_in_one_place_overlap(name: str, tmp_path: Path) -> None:
    one, other = SAME[name](tmp_path / "place")
    assert overlap(one, other)
    assert overlap(other, one)


@pytest.mark.parametrize("name", APART)
def test_dictionaries_in_two_places_are_apart(name: str, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    one, other = APART[name](tmp_path / "place")
    assert not overlap(one, other)
    assert not overlap(other, one)


def test_one_prefix_of_a_bucket_is_one_place(moto_aws_server: MotoServer) -> None:
    one = connect(moto_aws_server.endpoint_url, root_prefix="p")
    places: dict[str, Any] = {"bucket_name": one.bucket_name}
    same = connect(moto_aws_server.endpoint_url, **places, root_prefix="p/", max_concurrency=3)
    below = connect(moto_aws_server.endpoint_url, **places, root_prefix="p/q")
    beside = connect(moto_aws_server.endpoint_url, **places, root_prefix="pq")
    assert [overlap(one, d) for d in (same, below, beside)] == [True, True, False]


@pytest.mark.parametrize("name", SAME)
def test_a_cache_in_the_place_of_the_main_dictionary_is_refused(name: str, tmp_path: Path) -> None:
    main, cache = SAME[name](tmp_path / "place")
    with pytest.raises(ValueError, match="data_cache must not be in the place of main_dict"):
        MutableDictCached(main_dict=main, data_cache=cache, etag_cache=LocalDict())
    with pytest.raises(ValueError, match="etag_cache must not be in the place of main_dict"):
        MutableDictCached(main_dict=main, data_cache=LocalDict(), etag_cache=cache)


def test_caches_in_one_place_are_refused() -> None:
    data: LocalDict[Any] = LocalDict()
    with pytest.raises(ValueError, match="etag_cache must not be in the place of data_cache"):
        MutableDictCached(main_dict=LocalDict(), data_cache=data, etag_cache=data)


def test_an_append_only_cache_in_the_place_of_what_a_write_once_dictionary_holds_is_refused(
    tmp_path: Path,
) -> None:
    main = WriteOnceDict(wrapped_dict=files(tmp_path, append_only=True))
    cache = FileDirDict[Any](base_dir=tmp_path, append_only=True)
    with pytest.raises(ValueError, match="data_cache must not be in the place of main_dict"):
        AppendOnlyDictCached(main_dict=main, data_cache=cache)


def test_a_cache_that_lies_elsewhere_is_accepted(tmp_path: Path) -> None:
    main = files(tmp_path / "main")
    d = MutableDictCached(
        main_dict=main,
        data_cache=files(tmp_path / "main" / "cache"),
        etag_cache=files(tmp_path / "main", serialization_format="json"),
    )
    d["a"] = 1
    assert (d["a"], len(main)) == (1, 1)
