"""Whose bucket it is, and what happens when it vanishes."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from persidict import BasicS3Dict, S3Dict, copy_items
from tests.s3_dicts import connect
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.scripted import Arrived, error, reply, scripted

__all__ = ["moto_aws_server"]

OWNER = "111122223333"
HEADER = "x-amz-expected-bucket-owner"


@pytest.fixture(params=["direct", "botocore"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---------------------------------------------------------------------- one that vanishes


def remove_bucket(d: BasicS3Dict[Any]) -> None:
    d.clear()
    d.s3_client.delete_bucket(Bucket=d.bucket_name)


def exists(d: BasicS3Dict[Any]) -> bool:
    names = [bucket["Name"] for bucket in d.s3_client.list_buckets()["Buckets"]]
    return d.bucket_name in names


CHANGES: dict[str, Callable[[BasicS3Dict[Any]], Any]] = {
    "set": lambda d: d.__setitem__("a", 1),
    "update": lambda d: d.update({"a": 1, "b": 2}),
    "setdefault": lambda d: d.setdefault("a", 1),
    "a large value": lambda d: d.__setitem__("a", bytes(range(256)) * 4000),
    "list": list,
    "get": lambda d: d["a"],
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_bucket_that_vanishes_after_it_was_used_is_not_created_again(
    name: str, transport: str, moto_aws_server: MotoServer
) -> None:
    d = connect(moto_aws_server.endpoint_url, transport=transport, large_object_size=500_000)
    d["a"] = 0
    remove_bucket(d)
    with pytest.raises(Exception) as raised:  # one, or a group of one kind
        CHANGES[name](d)
    first: BaseException = raised.value
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, ClientError)
    assert first.response["Error"]["Code"] == "NoSuchBucket"
    assert "new handle" in "".join(first.__notes__)
    assert not exists(d)


def test_one_that_was_only_seen_is_not_created_again_either(moto_aws_server: MotoServer) -> None:
    d = connect(moto_aws_server.endpoint_url)
    remove_bucket(d)
    with pytest.raises(ClientError, match="NoSuchBucket"):
        d["a"] = 1
    assert not exists(d)


def test_a_new_handle_creates_it_again(transport: str, moto_aws_server: MotoServer) -> None:
    d = connect(moto_aws_server.endpoint_url, transport=transport)
    d["a"] = 0
    remove_bucket(d)
    again = d.with_params()
    again["a"] = 1
    assert d["a"] == 1


# ---------------------------------------------------------------------- whose it is


def test_whose_a_bucket_has_to_be_goes_with_every_request(
    transport: str, moto_aws_server: MotoServer
) -> None:
    params: dict[str, Any] = {
        "bucket_name": new_bucket_name(),
        "transport": transport,
        "expected_bucket_owner": OWNER,
        "large_object_size": 6_000_000,
    }
    client = connect(moto_aws_server.endpoint_url, create_bucket=False, **params).s3_client
    told: Counter[str] = Counter()
    silent: set[str] = set()

    def listen(request: Any, event_name: str, **kwargs: Any) -> None:
        operation = event_name.rpartition(".")[2]
        told[operation] += 1
        if request.headers.get(HEADER) not in (OWNER, OWNER.encode()):
            silent.add(operation)
        source = request.headers.get("x-amz-source-expected-bucket-owner")
        if operation == "CopyObject" and source not in (OWNER, OWNER.encode()):
            silent.add("the source of CopyObject")

    client.meta.events.register("before-send.s3", listen)
    try:
        d = connect(moto_aws_server.endpoint_url, **params)
        d.update({"a": 1, "b": 2})
        assert dict(d.get_many(["a"])) == {("a",): 1}
        assert "b" in d
        assert d.setdefault("c", 3) == 3
        assert d.pop("c") == 3
        d.copy_item("a", "copied")
        copy_items(d, d.get_subdict("sub"))
        large = os.urandom(7_000_000)
        d["large"] = large
        assert d.setdefault("as-large", large) == d["large"] == large
        with d.open("stream", "wb") as stream:
            stream.write(b"x")
        d.clear()
    finally:
        client.meta.events.unregister("before-send.s3", listen)
    # a bucket that is being created belongs to whoever creates it
    assert silent == {"CreateBucket"}
    assert told.keys() >= {
        "AbortMultipartUpload",
        "CompleteMultipartUpload",
        "CopyObject",
        "CreateMultipartUpload",
        "DeleteObject",
        "DeleteObjects",
        "GetObject",
        "HeadBucket",
        "HeadObject",
        "ListObjectsV2",
        "PutObject",
        "UploadPart",
    }


def test_a_bucket_of_somebody_else_is_not_read(transport: str) -> None:
    def answer(request: Arrived) -> bytes:
        if request.message.headers.get(HEADER) == "another":
            return reply(pickle.dumps("what somebody else has put there"))
        return error(403, "AccessDenied")

    with scripted(answer) as server:
        d = connect(
            server.endpoint_url,
            transport=transport,
            expected_bucket_owner=OWNER,
            create_bucket=False,
        )
        with pytest.raises(ClientError, match="AccessDenied"):
            d["a"]


@pytest.mark.parametrize("cls", [BasicS3Dict, S3Dict])
def test_whose_a_bucket_has_to_be_is_a_parameter_of_the_handle(cls: Any) -> None:
    d = cls(
        bucket_name="some-bucket",
        create_bucket=False,
        expected_bucket_owner=OWNER,
        request_options={"RequestPayer": "requester"},
    )
    again = pickle.loads(pickle.dumps(d))
    assert again == d
    assert again.get_params()["expected_bucket_owner"] == OWNER
    assert again.get_params()["request_options"] == {"RequestPayer": "requester"}


@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        ({"expected_bucket_owner": 111122223333}, TypeError),
        ({"expected_bucket_owner": ""}, ValueError),
        (
            {
                "expected_bucket_owner": OWNER,
                "request_options": {"ExpectedBucketOwner": "444455556666"},
            },
            ValueError,
        ),
    ],
    ids=["a number", "empty", "two owners"],
)
def test_an_owner_that_makes_no_sense_is_refused_by_name(
    params: dict[str, Any], wrong: type[Exception]
) -> None:
    with pytest.raises(wrong, match="expected_bucket_owner"):
        BasicS3Dict(bucket_name="some-bucket", create_bucket=False, **params)


# ---------------------------------------------------------------------- prefixes


@pytest.mark.parametrize(
    "prefix",
    ["a\nb", "\0", "a\x7f", "a\x85", "\ud800", "\uffff", "..", "../a", "a/../b", "a/.", "./a"],
    ids=ascii,
)
@pytest.mark.parametrize("cls", [BasicS3Dict, S3Dict])
def test_a_prefix_that_leads_elsewhere_or_cannot_be_told_is_refused(cls: Any, prefix: str) -> None:
    with pytest.raises(ValueError, match="root_prefix"):
        cls(bucket_name="some-bucket", create_bucket=False, root_prefix=prefix)


@pytest.mark.parametrize(
    "prefix",
    [
        "a b",
        "a+b",
        "a%20b",
        "a%2Fb",
        "ünï/日本",
        "a&<>\"'b",
        "a//b",
        "/a",
        "...",
        "a..b",
        "😀",
        "a=b;c?d#e",
    ],
    ids=ascii,
)
def test_names_come_back_from_listings_as_they_went_in(
    prefix: str, transport: str, moto_aws_server: MotoServer
) -> None:
    d = connect(moto_aws_server.endpoint_url, transport=transport, root_prefix=prefix)
    d["x"] = 1
    d["y", "z"] = 2
    assert dict(d.items()) == {("x",): 1, ("y", "z"): 2}
    assert set(d.subdicts()) == {"x", "y"}
    listed = d.s3_client.list_objects_v2(Bucket=d.bucket_name)["Contents"]
    assert {item["Key"] for item in listed} == {f"{d.root_prefix}x.pkl", f"{d.root_prefix}y/z.pkl"}
    d.clear()
    assert len(d) == 0
