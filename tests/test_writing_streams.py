"""open(key, "wb"): a stream that becomes the item when it is closed, or leaves nothing."""

from __future__ import annotations

import gc
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    ExpiringDict,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
)
from persidict.persi_dict import PersiDict
from tests.s3_dicts import connect
from tests.s3_servers.moto_server import start_moto

LARGE = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with start_moto() as server:
        yield server.endpoint_url


def of_bytes(make: Callable[..., PersiDict[Any]], **params: Any) -> PersiDict[bytes]:
    return make(serialization_format="bin", base_class_for_values=bytes, **params)


MAKERS: dict[str, Any] = {
    "RAM": lambda place, endpoint: of_bytes(LocalDict),
    "files": lambda place, endpoint: of_bytes(FileDirDict, base_dir=place, fsync=False),
    "S3": lambda place, endpoint: of_bytes(lambda **p: connect(endpoint, **p)),
    "expiring": lambda place, endpoint: ExpiringDict(wrapped_dict=of_bytes(LocalDict), ttl=3600),
    "cached": lambda place, endpoint: MutableDictCached(
        main_dict=of_bytes(FileDirDict, base_dir=place, fsync=False),
        data_cache=of_bytes(LocalDict),
        etag_cache=LocalDict(serialization_format="json"),
    ),
}


@pytest.fixture(params=list(MAKERS))
def d(request: pytest.FixtureRequest, tmp_path: Path, endpoint: str) -> PersiDict[bytes]:
    made: PersiDict[bytes] = MAKERS[request.param](tmp_path, endpoint)
    return made


@pytest.mark.parametrize("size", [0, 10, LARGE], ids=["empty", "small", "large"])
def test_what_is_written_is_the_item_once_the_stream_is_closed(
    d: PersiDict[bytes], size: int
) -> None:
    with d.open("a", "wb") as stream:
        stream.write(b"x" * (size // 2))
        stream.write(b"y" * (size - size // 2))
        assert "a" not in d
    assert d["a"] == b"x" * (size // 2) + b"y" * (size - size // 2)
    assert stream.result is not None
    assert stream.result.resulting_etag == d.etag("a")


def test_what_was_written_can_be_read_back_before_the_stream_is_closed() -> None:
    d = of_bytes(LocalDict)
    with d.open("a", "wb") as stream:
        stream.write(b"abc")
        stream.seek(1)
        buffer = bytearray(b"....")
        assert (stream.readable(), stream.readinto(buffer)) == (True, 2)
        assert buffer == b"bc.."


def test_an_exception_leaves_the_old_value_and_nothing_else(d: PersiDict[bytes]) -> None:
    d["a"] = b"old"
    with pytest.raises(LookupError), d.open("a", "wb") as stream:
        stream.write(b"new")
        raise LookupError
    assert dict(d) == {("a",): b"old"}


def test_a_stream_that_is_abandoned_leaves_the_old_value(d: PersiDict[bytes]) -> None:
    d["a"] = b"old"
    stream = d.open("a", "wb")
    stream.write(b"new")
    del stream
    gc.collect()
    assert d["a"] == b"old"


def test_a_condition_is_evaluated_when_the_stream_is_closed(d: PersiDict[bytes]) -> None:
    d["a"] = b"old"
    etag = d.etag("a")
    with d.open("a", "wb", condition=ETAG_IS_THE_SAME, expected_etag=etag) as stream:
        stream.write(b"mine")
        d["a"] = b"theirs"
    assert stream.result is not None
    assert not stream.result.condition_was_satisfied
    assert d["a"] == b"theirs"


def test_an_item_is_inserted_by_a_stream_if_it_is_absent(d: PersiDict[bytes]) -> None:
    for written in (b"first", b"second"):
        with d.open(
            "a", "wb", condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
        ) as stream:
            stream.write(written)
    assert d["a"] == b"first"


def test_a_format_that_goes_back_and_forth_can_be_written(d: PersiDict[bytes]) -> None:
    with d.open("a", "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("name", "content")
    assert zipfile.ZipFile(io.BytesIO(d["a"])).read("name") == b"content"


def test_an_append_only_dictionary_takes_new_items_and_refuses_others(tmp_path: Path) -> None:
    d = of_bytes(FileDirDict, base_dir=tmp_path, append_only=True)
    with d.open("a", "wb") as stream:
        stream.write(b"first")
    with pytest.raises(MutationPolicyError), d.open("a", "wb") as stream:
        stream.write(b"second")
    assert d["a"] == b"first"


def test_the_stored_bytes_of_other_formats_can_be_written() -> None:
    d = LocalDict[Any](serialization_format="json")
    with d.open("a", "wb") as stream:
        stream.write(b'{"n": 1}')
    assert d["a"] == {"n": 1}


@pytest.mark.parametrize("mode", ["w", "r", "ab", "r+b", "xb"])
def test_other_modes_are_refused(d: PersiDict[bytes], mode: Any) -> None:
    with pytest.raises(ValueError, match="mode"):
        d.open("a", mode)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"condition": 3}, ValueError),
        ({"condition": ETAG_IS_THE_SAME, "expected_etag": 5}, TypeError),
    ],
    ids=["condition", "etag"],
)
def test_a_condition_that_is_none_is_refused_before_anything_is_written(
    d: PersiDict[bytes], wrong: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=list(wrong)[-1]):
        d.open("a", "wb", **wrong)


def test_a_condition_for_reading_is_refused(d: PersiDict[bytes]) -> None:
    d["a"] = b"old"
    with pytest.raises(ValueError, match="condition"):
        d.open("a", "rb", condition=ETAG_IS_THE_SAME)  # type: ignore[call-overload]


def test_an_etag_that_no_condition_looks_at_is_refused() -> None:
    d: LocalDict[int] = LocalDict()
    d["a"] = 1
    with pytest.raises(ValueError, match="condition=ETAG_IS_THE_SAME"):
        d.open("a", "wb", expected_etag=d.etag("a"))
    assert d["a"] == 1
