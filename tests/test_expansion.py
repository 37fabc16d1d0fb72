"""Compressed values: no more is expanded than may be."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
from mixinforge import dumpjs, loadjs

from persidict import BackendError, FileDirDict, Signed, SQLiteDict, StoreDict
from persidict.codecs import PickleCodec, expansion
from persidict.stores.memory import MemoryStore

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "lz4 without a size": lambda data: lz4.frame.compress(data, store_size=False),
    "two lz4 frames": lambda data: lz4.frame.compress(data[:5]) + lz4.frame.compress(data[5:]),
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "two members of gzip": lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:]),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
}
MB = 1024 * 1024

every_compressor = pytest.mark.parametrize("name", list(COMPRESSORS))


@every_compressor
@pytest.mark.parametrize("spare", [0, 1, 100 * MB])
def test_a_value_of_just_the_size_that_it_may_have_is_read(name: str, spare: int) -> None:
    data = pickle.dumps(list(range(100_000)))
    codec = PickleCodec(max_value_size=len(data) + spare)
    assert codec.decode(COMPRESSORS[name](data)) == list(range(100_000))


@every_compressor
def test_a_value_that_is_larger_by_a_byte_is_refused(name: str) -> None:
    data = pickle.dumps(b"x" * 100_000)
    with pytest.raises(ValueError, match="max_value_size"):
        PickleCodec(max_value_size=len(data) - 1).decode(COMPRESSORS[name](data))


@every_compressor
def test_a_bomb_is_refused_before_it_takes_memory(name: str) -> None:
    bomb = COMPRESSORS[name](pickle.dumps(b"\0" * (200 * MB)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="max_value_size"):
            PickleCodec(max_value_size=MB).decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < 60 * MB
    finally:
        tracemalloc.stop()


@every_compressor
@pytest.mark.parametrize("size", [MB, None])
def test_compressed_data_that_are_cut_short_are_an_error(name: str, size: int | None) -> None:
    data = COMPRESSORS[name](pickle.dumps([*range(1000)]))
    codec = PickleCodec(max_value_size=size)
    for end in {1, 2, 5, 10, len(data) // 2, len(data) - 1}:
        with pytest.raises(Exception):  # noqa: B017  # whatever the decompressor raises
            codec.decode(data[:end])


def test_what_is_not_compressed_may_be_of_any_size() -> None:
    data = pickle.dumps(b"x" * 1000)
    assert PickleCodec(max_value_size=10).decode(data) == b"x" * 1000


def test_a_dictionary_with_such_a_codec_names_the_item(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, codec=PickleCodec(max_value_size=100))
    d.raw["a"] = lz4.frame.compress(pickle.dumps(b"x" * 10_000))
    with pytest.raises(BackendError, match=r"'a'.*max_value_size"):
        d["a"]


DICTIONARIES: dict[str, Callable[[Path, PickleCodec], Any]] = {
    "FileDirDict": lambda place, codec: FileDirDict(base_dir=place, codec=codec),
    "SQLiteDict": lambda place, codec: SQLiteDict(path=place / "the.db", codec=codec),
    "StoreDict": lambda place, codec: StoreDict(store=MemoryStore(), codec=codec),
    "with protection": lambda place, codec: FileDirDict(
        base_dir=place, codec=codec, protection=Signed(b"k" * 32)
    ),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_the_limit_of_a_dictionary_holds_for_its_other_handles(name: str, tmp_path: Path) -> None:
    d = DICTIONARIES[name](tmp_path, PickleCodec(compress=True, max_value_size=1000))
    d["some", "a"] = "x" * 100_000
    d["some", "b"] = "small"
    others = [d.get_subdict("some"), d.with_params().get_subdict("some")]
    if name not in ("StoreDict", "with protection"):
        others.append(pickle.loads(pickle.dumps(d)).get_subdict("some"))
    for other in others:
        assert other["b"] == "small"
        with pytest.raises(BackendError, match="max_value_size"):
            other["a"]


def test_a_codec_with_the_same_parameters_makes_an_equal_handle(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, codec=PickleCodec(max_value_size=1000))
    assert "max_value_size=1000" in repr(d)
    assert PickleCodec(max_value_size=1000) != PickleCodec()
    for again in (pickle.loads(pickle.dumps(d)), loadjs(dumpjs(d))):
        assert again == d
        assert again.codec == d.codec
        assert hash(again.codec) == hash(d.codec)


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "1"])
def test_a_limit_that_is_none_is_refused_by_name(size: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_value_size"):
        PickleCodec(max_value_size=size)


@every_compressor
def test_many_short_streams_take_no_time_by_the_square_of_their_number(name: str) -> None:
    empty = COMPRESSORS[name](b"")
    seen = []

    class Counted(expansion._Source):
        def put_back(self, count: int) -> None:
            seen.append(count)
            super().put_back(count)

    value = COMPRESSORS[name](pickle.dumps("value"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expansion, "_Source", Counted)
        assert PickleCodec(max_value_size=100).decode(empty * 1000 + value) == "value"
    assert max(seen) <= 2048
