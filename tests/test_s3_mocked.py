"""One mocked AWS after another in one process: nothing of the first is taken for the second's."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from persidict import BasicS3Dict, S3Dict

PARAMS: dict[str, Any] = {"bucket_name": "the-same-name", "region": "eu-west-1"}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def buckets() -> list[str]:
    client = boto3.client("s3", region_name="eu-west-1")
    return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


@pytest.mark.parametrize("class_", [BasicS3Dict, S3Dict])
def test_each_mocked_world_gets_its_bucket(class_: Any) -> None:
    for _ in range(3):
        with mock_aws():
            class_(**PARAMS)
            assert buckets() == ["the-same-name"]


@pytest.mark.parametrize("append_only", [False, True])
def test_no_copy_of_one_world_is_served_in_another(append_only: bool) -> None:
    for number in range(3):
        with mock_aws():
            d: S3Dict[Any] = S3Dict(**PARAMS, append_only=append_only)
            assert "a" not in d
            with pytest.raises(KeyError):
                d["a"]
            d["a"] = number
            assert d["a"] == number
            assert dict(d.items()) == {("a",): number}


def test_within_one_world_copies_are_shared() -> None:
    with mock_aws():
        first: S3Dict[Any] = S3Dict(**PARAMS, append_only=True)
        first["a"] = 1
        again = pickle.loads(pickle.dumps(first))
        assert again["a"] == 1
        assert again.cache_info().hits == 1


def test_decorated_tests_are_worlds_of_their_own() -> None:
    @mock_aws
    def one() -> bool:
        d: S3Dict[Any] = S3Dict(**PARAMS, append_only=True)
        return d.setdefault("a", os.urandom(8)) is not None and len(d) == 1

    assert one()
    assert one()
