"""info, infos, location, presign and copy_item."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    BasicS3Dict,
    EmptyDict,
    FileDirDict,
    ItemInfo,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    S3Dict,
    Signed,
    WriteOnceDict,
)
from persidict.persi_dict import PersiDict
from tests.s3_dicts import connect
from tests.s3_servers.clients import CREDENTIALS, new_bucket_name
from tests.s3_servers.moto_server import start_moto
from tests.test_s3_request_budget import requests_of


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with start_moto() as server:
        yield server.endpoint_url


def cached(place: Path) -> PersiDict[Any]:
    return MutableDictCached(
        main_dict=FileDirDict(base_dir=place, fsync=False),
        data_cache=LocalDict(),
        etag_cache=LocalDict(serialization_format="json"),
    )


MAKERS: dict[str, Any] = {
    "RAM": lambda place, endpoint: LocalDict(),
    "files": lambda place, endpoint: FileDirDict(base_dir=place, fsync=False),
    "S3": lambda place, endpoint: connect(endpoint),
    "S3 with a local cache": lambda place, endpoint: S3Dict(
        base_dir=place,
        bucket_name=new_bucket_name(),
        endpoint_url=endpoint,
        region="us-east-1",
        aws_access_key_id=CREDENTIALS[0],
        aws_secret_access_key=CREDENTIALS[1],
    ),
    "cached": lambda place, endpoint: cached(place),
    "signed": lambda place, endpoint: LocalDict(protection=Signed(b"k" * 32)),
}


@pytest.fixture(params=list(MAKERS))
def d(request: pytest.FixtureRequest, tmp_path: Path, endpoint: str) -> PersiDict[Any]:
    made: PersiDict[Any] = MAKERS[request.param](tmp_path, endpoint)
    return made


def test_info_is_what_etag_timestamp_and_raw_say(d: PersiDict[Any]) -> None:
    d["a", "b"] = "value"
    info = d.info(("a", "b"))
    assert info == ItemInfo(
        info.key, d.etag(("a", "b")), len(d.raw["a", "b"]), d.timestamp(("a", "b"))
    )
    assert info.key == ("a", "b")


def test_info_of_an_absent_item_is_a_key_error(d: PersiDict[Any]) -> None:
    with pytest.raises(KeyError):
        d.info("absent")


def test_infos_tells_of_every_item_what_info_does(d: PersiDict[Any]) -> None:
    d.update({"a": 1, ("b", "c"): 2})
    assert {info.key.strings: info for info in d.infos()} == {
        ("a",): d.info("a"),
        ("b", "c"): d.info(("b", "c")),
    }


@pytest.mark.parametrize(
    "bounds",
    [{"prefix": "b"}, {"start": ("b", "d")}, {"stop": "b"}, {"prefix": "b", "stop": ("b", "d")}],
    ids=repr,
)
def test_infos_of_a_range_are_those_of_its_keys_in_order(
    d: PersiDict[Any], bounds: dict[str, Any]
) -> None:
    d.update({"a": 1, "b": 2, ("b", "c"): 3, ("b", "d"): 4, "b-": 5, "c": 6})
    assert [info.key for info in d.infos(**bounds)] == list(d.keys(**bounds))
    assert [info.etag for info in d.infos(**bounds)] == [d.etag(k) for k in d.keys(**bounds)]


def test_on_s3_info_is_one_request_and_infos_are_the_listing(endpoint: str) -> None:
    d = connect(endpoint)
    d.update({str(number): number for number in range(20)})
    assert sum(requests_of(d, lambda: d.info("7")).values()) == 1
    assert requests_of(d, lambda: list(d.infos())) == requests_of(d, lambda: list(d.keys()))


def test_the_location_in_files_is_the_path_of_the_file(tmp_path: Path) -> None:
    d = FileDirDict[int](base_dir=tmp_path)
    d["a", "b"] = 1
    (file,) = tmp_path.rglob("*.pkl")
    assert Path(d.location(("a", "b"))) == file


def test_the_location_on_s3_is_a_url_and_costs_no_request(endpoint: str) -> None:
    d = connect(endpoint, root_prefix="p", bucket_name="location-bucket")
    assert requests_of(d, lambda: d.location("a")) == {}
    assert d.location(("a", "b")) == "s3://location-bucket/p/a/b.pkl"


def test_what_is_kept_nowhere_has_no_location() -> None:
    with pytest.raises(TypeError, match="lie nowhere"):
        EmptyDict().location("a")


# ---------------------------------------------------------------------- presign


@pytest.mark.parametrize("maker", ["S3", "S3 with a local cache"])
def test_anybody_reads_and_writes_stored_bytes_by_a_signed_url(
    maker: str, tmp_path: Path, endpoint: str
) -> None:
    d: BasicS3Dict[Any] = MAKERS[maker](tmp_path, endpoint)
    d["g", "a"] = 1
    sub = d.get_subdict("g")
    with urllib.request.urlopen(sub.presign("a")) as reply:
        assert reply.read() == d.raw["g", "a"]
    put = urllib.request.Request(
        sub.presign("b", "PUT"),
        data=d.raw["g", "a"],
        method="PUT",
        headers={"Content-Type": "application/octet-stream"},
    )
    urllib.request.urlopen(put).close()
    assert d["g", "b"] == 1


def test_signing_makes_no_request(endpoint: str) -> None:
    d = connect(endpoint)
    assert requests_of(d, lambda: d.presign("a", expires=60)) == {}


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_urls_are_signed_by_version_4_in_every_region(region: str) -> None:
    d: BasicS3Dict[Any] = BasicS3Dict(
        bucket_name="url-bucket",
        region=region,
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        create_bucket=False,
    )
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in d.presign("a")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "POST"}, ValueError, "method"),
        ({"expires": 0}, ValueError, "expires"),
        ({"expires": 8 * 24 * 3600}, ValueError, "expires"),
        ({"expires": "60"}, TypeError, "expires"),
    ],
    ids=repr,
)
def test_what_cannot_be_signed_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str, endpoint: str
) -> None:
    with pytest.raises(error, match=message):
        connect(endpoint).presign("a", **arguments)


def test_nothing_that_changes_items_is_signed_for_an_append_only_dictionary(endpoint: str) -> None:
    d = connect(endpoint, append_only=True)
    assert d.presign("a")
    with pytest.raises(MutationPolicyError):
        d.presign("a", "PUT")


def test_files_have_no_urls(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no URL"):
        FileDirDict(base_dir=tmp_path).presign("a")


# ---------------------------------------------------------------------- copy_item


def test_a_copied_item_is_there_twice(d: PersiDict[Any]) -> None:
    d["a"] = [1, "two"]
    etag = d.copy_item("a", ("b", "c"))
    assert d["a"] == d["b", "c"] == [1, "two"]
    assert etag == d.etag(("b", "c"))


def test_a_copy_replaces_what_is_there(d: PersiDict[Any]) -> None:
    d.update({"a": 1, "b": 2})
    assert d["b"] == 2
    d.copy_item("a", "b")
    assert d["b"] == 1


def test_an_item_copied_onto_itself_stays(d: PersiDict[Any]) -> None:
    d["a"] = 1
    assert d.copy_item("a", "a") == d.etag("a")
    assert d["a"] == 1


@pytest.mark.parametrize("target", ["b", "absent"])
def test_copying_an_absent_item_is_a_key_error_and_changes_nothing(
    d: PersiDict[Any], target: str
) -> None:
    d["b"] = 2
    with pytest.raises(KeyError, match="absent"):
        d.copy_item("absent", target)
    assert d["b"] == 2
    assert len(d) == 1


def test_copying_moves_no_bytes_through_here_on_s3(endpoint: str) -> None:
    d = connect(endpoint)
    d["a"] = 1
    assert requests_of(d, lambda: d.copy_item("a", "b")) == {"CopyObject": 1}
    assert d["b"] == 1


def test_a_copy_within_a_sub_dictionary_stays_there(d: PersiDict[Any]) -> None:
    d["g", "a"] = 1
    d.get_subdict("g").copy_item("a", "b")
    assert d["g", "b"] == 1


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: WriteOnceDict(wrapped_dict=d)])
def test_an_append_only_dictionary_takes_copies_to_new_keys_only(wrap: Any, tmp_path: Path) -> None:
    d = wrap(FileDirDict[int](base_dir=tmp_path, append_only=True))
    d.setdefault("a", 1)
    d.copy_item("a", "b")
    assert d["b"] == 1
    for target in ("a", "b"):
        with pytest.raises(MutationPolicyError):
            d.copy_item("a", target)
