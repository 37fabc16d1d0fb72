"""One way to open every dictionary: by a URL, which the dictionary gives back."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    BasicS3Dict,
    EmptyDict,
    FileDirDict,
    LocalDict,
    S3Dict,
    SQLiteDict,
    WriteOnceDict,
    open_dict,
)

SERVER: dict[str, Any] = {
    "create_bucket": False,
    "aws_access_key_id": "any",
    "aws_secret_access_key": "very secret",
    "region": "us-east-1",
}


def test_a_plain_path_is_a_directory_of_files(tmp_path: Path) -> None:
    for path in (tmp_path / "a b?", str(tmp_path / "x")):
        if "?" in str(path):
            os.mkdir(path)
        d = open_dict(path, digest_len=0)
        assert type(d) is FileDirDict
        assert (d.base_dir, d.digest_len) == (str(path), 0)


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_dict("data/x").url == f"file://{tmp_path}/data/x"


def test_a_file_url_takes_parameters(tmp_path: Path) -> None:
    d = open_dict(f"file://{tmp_path}/a%20b?format=json&append_only=true&digest_len=0&fsync=no")
    assert d == FileDirDict(
        base_dir=tmp_path / "a b",
        serialization_format="json",
        append_only=True,
        digest_len=0,
        fsync=False,
    )


def test_a_sqlite_url_is_a_database(tmp_path: Path) -> None:
    d = open_dict(f"sqlite://{tmp_path}/x.db?root_prefix=a/b&timeout=1.5", fsync=False)
    assert d == SQLiteDict(path=tmp_path / "x.db", root_prefix="a/b", timeout=1.5, fsync=False)


def test_a_name_in_memory_is_shared_by_all_who_open_it() -> None:
    one, other = open_dict("mem://shared"), open_dict("mem://shared?append_only=1")
    one["a", "b"] = 1
    assert type(other) is LocalDict
    assert (other["a", "b"], open_dict("mem://shared/a")["b"]) == (1, 1)
    assert "a" not in open_dict("mem://another")


def test_an_s3_url_is_a_bucket_and_a_prefix() -> None:
    d = open_dict("s3://bucket/a/b?format=json&max_concurrency=4", **SERVER)
    assert type(d) is BasicS3Dict
    assert (d.bucket_name, d.root_prefix, d.serialization_format) == ("bucket", "a/b/", "json")
    assert d.get_params()["endpoint_url"] is None


def test_an_s3_url_can_name_a_server() -> None:
    d = open_dict("s3+http://127.0.0.1:9000/bucket/a", **SERVER)
    assert type(d) is BasicS3Dict
    params = d.get_params()
    assert (params["endpoint_url"], d.bucket_name, d.root_prefix) == (
        "http://127.0.0.1:9000",
        "bucket",
        "a/",
    )


def test_an_s3_url_with_a_directory_for_copies_is_a_cached_one(tmp_path: Path) -> None:
    d = open_dict(f"s3://bucket/a?base_dir={tmp_path}&max_staleness=5", **SERVER)
    assert type(d) is S3Dict
    assert (d.base_dir, d.max_staleness) == (str(tmp_path), 5.0)


def handles(place: Path) -> dict[str, Any]:
    server = {**SERVER, "endpoint_url": "http://127.0.0.1:9000"}
    return {
        "files": FileDirDict(base_dir=place / "a b%#?", digest_len=0),
        "files below": FileDirDict(base_dir=place / "x").get_subdict(("a", "b")),
        "texts": FileDirDict(
            base_dir=place / "t", serialization_format="md", base_class_for_values=str
        ),
        "a database": SQLiteDict(path=place / "x.db", large_value_size=7, append_only=True),
        "a database below": SQLiteDict(path=place / "x.db", fsync=False).get_subdict("a"),
        "RAM": open_dict("mem://round-trip?format=json"),
        "RAM below": open_dict("mem://round-trip").get_subdict(("a", "b")),
        "S3": BasicS3Dict(bucket_name="b", root_prefix="x/y", **SERVER),
        "S3 on a server": BasicS3Dict(bucket_name="b", **server).get_subdict("p"),
        "S3 with copies": S3Dict(bucket_name="b", base_dir=place / "c", **server),
    }


@pytest.mark.parametrize("kind", list(handles(Path("."))))
def test_a_dictionary_gives_back_the_url_that_opens_it(kind: str, tmp_path: Path) -> None:
    d = handles(tmp_path)[kind]
    secrets = SERVER if "S3" in kind else {}
    url = d.url
    again = open_dict(url, **{name: v for name, v in secrets.items() if name not in url})
    assert type(again) is type(d)
    assert again.get_params() == d.get_params()
    assert again.url == url
    assert "secret" not in url


def test_a_url_travels_with_a_pickled_handle(tmp_path: Path) -> None:
    d = open_dict(f"sqlite://{tmp_path}/x.db?append_only=true")
    assert pickle.loads(pickle.dumps(d)).url == d.url


@pytest.mark.parametrize("kind", ["LocalDict", "EmptyDict", "WriteOnceDict"])
def test_what_lies_nowhere_has_no_url(kind: str, tmp_path: Path) -> None:
    files: Any = FileDirDict(base_dir=tmp_path, append_only=True)
    d: Any = {
        "LocalDict": LocalDict(),
        "EmptyDict": EmptyDict(),
        "WriteOnceDict": WriteOnceDict(wrapped_dict=files),
    }[kind]
    with pytest.raises(TypeError, match="no URL"):
        _ = d.url


MISTAKES = [
    ("s4://bucket", ValueError, r"unknown scheme 's4' \(did you mean 's3'\?\).*s3://bucket"),
    ("sqllite:///x.db", ValueError, r"'sqlite'"),
    ("http://host/x", ValueError, "unknown scheme 'http'"),
    ("s3:bucket/x", ValueError, "write s3://bucket/prefix"),
    ("sqlite:///x.db?formt=json", TypeError, r"no parameter 'formt' \(did you mean 'format'\?\)"),
    ("mem://x?apend_only=1", TypeError, r"'apend_only' \(did you mean 'append_only'\?\)"),
    ("s3://b?base_dirr=x", TypeError, r"'base_dirr' \(did you mean 'base_dir'\?\)"),
    ("mem://x?append_only=maybe", ValueError, "'append_only' cannot be 'maybe'.*true or false"),
    ("file:///x?digest_len=four", ValueError, "'digest_len' cannot be 'four'"),
    ("mem://x?format=json&serialization_format=pkl", ValueError, "twice"),
    ("mem://x?base_class_for_values=Decimal", ValueError, "one of str, bytes"),
    ("s3://b/x?aws_secret_access_key=abc", ValueError, "keyword argument"),
    ("s3://b/x?boto_config=abc", ValueError, "keyword argument"),
    ("s3://user:hidden@b/x", ValueError, "no user and no password"),
    ("s3://", ValueError, "missing"),
    ("mem://", ValueError, "missing"),
    ("s3+http://host:9000", ValueError, "bucket"),
    ("file://data/x", ValueError, "absolute"),
    ("sqlite://data/x.db", ValueError, "absolute"),
    ("sqlite:///x.db#y", ValueError, "%23"),
    ("data/x?format=json", ValueError, "file:///"),
    ("", ValueError, "empty"),
]


@pytest.mark.parametrize(("url", "kind", "message"), MISTAKES, ids=[m[0] or "''" for m in MISTAKES])
def test_mistakes_are_named(
    url: str,
    kind: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message) as caught:
        open_dict(url)
    assert "hidden" not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"serialisation_format": "json"}, "did you mean 'serialization_format'"),
        ({"base_dir": "x"}, "'base_dir' is given twice"),
        ({"append_only": True}, "'append_only' is given twice"),
    ],
)
def test_mistakes_among_arguments_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        open_dict("file:///x?append_only=1", **params)


def test_a_database_is_not_opened_as_a_directory(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    with pytest.raises(ValueError, match="sqlite://"):
        open_dict(tmp_path / "x.db")


def test_a_url_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError):
        open_dict(5)  # type: ignore[arg-type]
