"""Listings on servers that list in an order of their own, and what lies beside the items."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from persidict import BasicS3Dict, LocalDict, S3Dict
from persidict.stores.s3.bucket import Bucket
from tests.s3_dicts import connect
from tests.s3_servers.clients import CREDENTIALS
from tests.s3_servers.fixtures import bucket_name, moto_aws_server, moto_like
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS, NO_CONDITIONS, SEAWEEDFS, ServerQuirks

__all__ = ["bucket_name", "moto_aws_server", "moto_like"]

Dict = BasicS3Dict[Any]
MotoLike = Callable[[ServerQuirks], MotoServer]

PARTS = ["a", "a-b", "a(b", "ab", "b", "a.b", "~", "A"]
KEYS = [(first,) for first in PARTS] + [
    (first, second) for first, second in itertools.product(PARTS, PARTS[:4])
]
READERS = frozenset({"PutObject", "DeleteObject", "DeleteObjects", "CreateBucket"})
NO_DELETION = frozenset({"DeleteObject", "DeleteObjects"})


def endpoint_of_its_own(server: MotoServer, quirks: ServerQuirks) -> MotoServer:
    """Return an endpoint of which nothing is known yet."""
    endpoint = server.with_quirks(quirks)
    endpoint.reset_log()
    return endpoint


def filled(d: Dict) -> Dict:
    d.update({key: "/".join(key) for key in KEYS})
    return d


def bounds() -> list[dict[str, Any]]:
    values = [None, *PARTS, *(("a", part) for part in PARTS[:4])]
    found = []
    for prefix in (None, "a", "a-b"):
        for start, stop in itertools.product(values, values):
            given = {"prefix": prefix, "start": start, "stop": stop}
            found.append({name: bound for name, bound in given.items() if bound is not None})
    return random.Random(1).sample(found, 60)


@pytest.mark.parametrize("transport", ["direct", "botocore"])
@pytest.mark.parametrize("page_size", [3, 1000])
def test_ranges_are_right_where_a_server_lists_by_directory(
    moto_aws_server: MotoServer, transport: str, page_size: int
) -> None:
    server = endpoint_of_its_own(moto_aws_server, replace(SEAWEEDFS, page_size=page_size))
    d = filled(connect(server.endpoint_url, transport=transport))
    model: LocalDict[Any] = LocalDict()
    model.update({key: "/".join(key) for key in KEYS})
    for chosen in bounds()[: 60 if page_size > 3 else 8]:
        try:
            expected = list(model.items(**chosen))
        except ValueError:
            continue
        assert list(d.items(**chosen)) == expected, chosen
        assert list(d.keys(**chosen)) == [key for key, _ in expected], chosen


def test_the_order_is_asked_for_once_and_nothing_is_left_of_that(
    moto_aws_server: MotoServer,
) -> None:
    server = endpoint_of_its_own(moto_aws_server, AWS)
    d = filled(connect(server.endpoint_url))
    assert d.capabilities.put_if_match
    server.reset_log()
    assert len(d.keys(start="a", stop="b"))
    assert server.counts() == {"PutObject": 1, "DeleteObject": 1, "ListObjectsV2": 2}
    server.reset_log()
    assert len(d.keys(start="a", stop="b"))
    assert server.counts() == {"ListObjectsV2": 1}
    names = list(d.raw._store.names())  # type: ignore[attr-defined]
    assert len(names) == len(KEYS)


def test_a_range_without_an_end_below_a_prefix_needs_no_order(moto_aws_server: MotoServer) -> None:
    server = endpoint_of_its_own(moto_aws_server, AWS)
    d = filled(connect(server.endpoint_url))
    server.reset_log()
    assert len(d.keys(prefix="a")) == 5
    assert server.counts()["ListObjectsV2"] == 1
    assert server.counts()["PutObject"] == 0


@pytest.mark.parametrize("quirks", [AWS, SEAWEEDFS])
def test_who_may_only_read_gets_ranges_that_are_right(
    moto_aws_server: MotoServer, quirks: ServerQuirks
) -> None:
    owner = filled(connect(moto_aws_server.endpoint_url))
    server = endpoint_of_its_own(moto_aws_server, replace(quirks, forbidden=READERS))
    d = connect(server.endpoint_url, bucket_name=owner.bucket_name, create_bucket=False)
    assert list(d.keys(start="a", stop="b")) == list(owner.keys(start="a", stop="b"))


def test_disorder_that_is_seen_is_remembered(moto_aws_server: MotoServer) -> None:
    server = endpoint_of_its_own(moto_aws_server, SEAWEEDFS)
    d = filled(connect(server.endpoint_url))
    assert len(d) == len(KEYS)
    server.reset_log()
    assert len(d.keys(start="a", stop="ab"))
    assert server.counts()["PutObject"] == 0


def test_a_bucket_of_s3_express_is_not_taken_for_an_ordinary_one_of_aws() -> None:
    aws = "https://s3.eu-west-1.amazonaws.com"
    assert Bucket(aws, "mine").probe.is_aws
    express = Bucket(aws, "mine--euw1-az1--x-s3").probe
    assert not express.is_aws
    assert express.is_in_order is None


# ---------------------------------------------------------------------- first parts


def put(d: Dict, key: str, body: bytes = b"x") -> None:
    d.s3_client.put_object(Bucket=d.bucket_name, Key=d.root_prefix + key, Body=body)


FOREIGN = [
    "images/cat.png",
    "folder/",
    "notes.txt",
    "!persidict-probe-1/x",
    "deep/er/x.json",
    "bad part/x.pkl",
    "half/bad part.pkl",
    "/x.pkl",
]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("quirks", [AWS, SEAWEEDFS], ids=["in order", "by directory"])
def test_subdicts_are_those_of_keys_and_not_of_what_lies_beside_them(
    moto_aws_server: MotoServer, quirks: ServerQuirks, cached: bool, tmp_path: Any
) -> None:
    server = endpoint_of_its_own(moto_aws_server, quirks)
    d = connect(server.endpoint_url, root_prefix="p")
    if cached:
        d = S3Dict(
            bucket_name=d.bucket_name,
            root_prefix="p",
            endpoint_url=server.endpoint_url,
            region="us-east-1",
            aws_access_key_id=CREDENTIALS[0],
            aws_secret_access_key=CREDENTIALS[1],
            base_dir=tmp_path,
        )
    for key in FOREIGN:
        put(d, key)
    d.update({("a", "b", "c"): 1, ("mixed", "x"): 1, ("one",): 1})
    put(d, "mixed/cat.png")
    server.reset_log()
    assert d.subdicts().keys() == {"a", "mixed", "one"}
    assert server.counts() == {"ListObjectsV2": 1}


@pytest.mark.parametrize("quirks", [AWS, SEAWEEDFS], ids=["in order", "by directory"])
def test_of_large_groups_only_the_beginning_is_listed_where_that_can_be(
    moto_aws_server: MotoServer, quirks: ServerQuirks
) -> None:
    server = endpoint_of_its_own(moto_aws_server, replace(quirks, page_size=10))
    d = connect(server.endpoint_url)
    d.update({(group, str(n)): n for group in "xyz" for n in range(100)})
    d["xyz"] = 1
    assert d.subdicts().keys() == {"x", "xyz", "y", "z"}
    server.reset_log()
    assert d.subdicts().keys() == {"x", "xyz", "y", "z"}
    assert server.counts() == {"ListObjectsV2": 4 if quirks is AWS else 31}


# ---------------------------------------------------------------------- probes


@pytest.mark.parametrize("quirks", [AWS, SEAWEEDFS, NO_CONDITIONS])
def test_probes_leave_one_object_at_most_where_nobody_may_delete(
    moto_aws_server: MotoServer, quirks: ServerQuirks, bucket_name: str
) -> None:
    owner = connect(moto_aws_server.endpoint_url, bucket_name=bucket_name)
    for _ in range(3):  # of each nothing is known yet, as in a new process
        server = endpoint_of_its_own(moto_aws_server, replace(quirks, forbidden=NO_DELETION))
        d = connect(server.endpoint_url, bucket_name=bucket_name, large_object_size=100)
        found = d.capabilities
        expected = quirks is not NO_CONDITIONS
        assert (bool(found.put_if_match), bool(found.put_if_none_match)) == (expected, expected)
        assert len(d.keys(start="a", stop="b")) == 0
        if expected:
            assert d.setdefault("large", "x" * 200_000)
    listed = owner.s3_client.list_objects_v2(Bucket=bucket_name).get("Contents", [])
    assert len([item for item in listed if "probe" in item["Key"]]) <= 1


def test_probes_leave_nothing_where_they_may_delete(moto_aws_server: MotoServer) -> None:
    for quirks in (AWS, SEAWEEDFS, NO_CONDITIONS):
        server = endpoint_of_its_own(moto_aws_server, quirks)
        d = connect(server.endpoint_url)
        assert d.capabilities is not None
        assert len(d.keys(start="a", stop="b")) == 0
        assert "Contents" not in d.s3_client.list_objects_v2(Bucket=d.bucket_name)
