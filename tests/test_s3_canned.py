"""The canned server is correct enough for boto3, and answers conditions as AWS does."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.s3_servers.canned import CannedServer, Synthetic, start_canned
from tests.s3_servers.clients import SlowPut
from tests.s3_servers.wire import (
    ABSENT,
    MADE_UP,
    UNMET,
    Case,
    Probe,
    answer_to,
    expected_answers,
)

SYNTHETIC = Synthetic(2500, b"shared bytes", prefix="some/", suffix=".txt")


@pytest.fixture(scope="module")
def server() -> Iterator[CannedServer]:
    with start_canned(SYNTHETIC) as running:
        yield running


@pytest.fixture
def probe(server: CannedServer) -> Probe:
    return Probe(server.endpoint_url)


def list_all(probe: Probe, **arguments: Any) -> tuple[list[str], list[str]]:
    """Names and groups of a listing, through all of its pages."""
    names: list[str] = []
    groups: list[str] = []
    paginator = probe.client.get_paginator("list_objects_v2")
    for page in paginator.paginate(Bucket=probe.bucket, **arguments):
        names += [item["Key"] for item in page.get("Contents", [])]
        groups += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
    return names, groups


@pytest.mark.parametrize("case", expected_answers("aws"), ids="-".join)
def test_a_condition_is_answered_as_aws_answers(server: CannedServer, case: Case) -> None:
    assert answer_to(server.endpoint_url, case) == expected_answers("aws")[case]


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
def test_an_object_is_read_as_it_was_written(probe: Probe, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    probe.put("some key = 50% ~é", body)
    reply = probe.client.get_object(Bucket=probe.bucket, Key="some key = 50% ~é")
    assert reply["Body"].read() == body


def test_metadata_and_content_type_come_back(probe: Probe) -> None:
    metadata = {"token": "1", "other_one": "2"}
    probe.put("key", Metadata=metadata, ContentType="text/plain")
    head = probe.client.head_object(Bucket=probe.bucket, Key="key")
    assert (head["Metadata"], head["ContentType"]) == (metadata, "text/plain")


def test_no_two_versions_share_an_etag(probe: Probe) -> None:
    etags = set()
    for _ in range(3):
        probe.put("key", b"same")
        etags.add(probe.etag("key"))
    assert len(etags) == 3


@pytest.mark.parametrize("operation", ["get_object", "head_object"])
def test_an_absent_object_is_not_found(probe: Probe, operation: str) -> None:
    answer = probe.status(operation, "absent")
    assert isinstance(answer, tuple)
    assert answer[0] == 404


def test_an_absent_bucket_is_not_found(probe: Probe) -> None:
    probe.bucket = "no-such-bucket"
    assert probe.put() == (404, "NoSuchBucket")


@pytest.mark.parametrize(
    ("span", "expected"), [("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-2", b"89")]
)
def test_a_range_of_an_object_is_read(probe: Probe, span: str, expected: bytes) -> None:
    probe.put("key", b"0123456789")
    reply = probe.client.get_object(Bucket=probe.bucket, Key="key", Range=span)
    assert reply["Body"].read() == expected


def test_a_range_behind_the_end_is_refused(probe: Probe) -> None:
    probe.put("key", b"0123456789")
    assert probe.status("get_object", "key", Range="bytes=10-") == (416, "InvalidRange")


def test_a_listing_is_in_order_whatever_the_size_of_its_pages(probe: Probe) -> None:
    names = ["a-b", "a/b", "a", "a=b", "b", "a b"]
    for name in names:
        probe.put(name)
    found, _ = list_all(probe, PaginationConfig={"PageSize": 2})
    assert found == sorted(names)


def test_a_listing_is_limited_to_prefix_and_start(probe: Probe) -> None:
    for name in ("a/1", "a/2", "a/3", "b/1"):
        probe.put(name)
    found, _ = list_all(probe, Prefix="a/", StartAfter="a/1")
    assert found == ["a/2", "a/3"]


@pytest.mark.parametrize("page_size", [1, 2, 1000])
def test_a_listing_by_delimiter_tells_each_group_once(probe: Probe, page_size: int) -> None:
    for name in ("top/a", "top/b/1", "top/b/2", "top/c", "top/d/1", "other"):
        probe.put(name)
    config = {"PageSize": page_size}
    found = list_all(probe, Prefix="top/", Delimiter="/", PaginationConfig=config)
    assert found == (["top/a", "top/c"], ["top/b/", "top/d/"])


def test_deleted_objects_are_no_longer_listed(probe: Probe) -> None:
    for name in ("a", "b", "c"):
        probe.put(name)
    probe.status("delete_object", "b")
    assert probe.keys() == ["a", "c"]


def test_many_objects_are_deleted_at_once(probe: Probe) -> None:
    names = [f"{'long' * 50}-{number}" for number in range(1000)]
    for name in names[:10]:
        probe.put(name)
    reply = probe.client.delete_objects(
        Bucket=probe.bucket, Delete={"Objects": [{"Key": name} for name in names]}
    )
    assert ([item["Key"] for item in reply["Deleted"]], probe.keys()) == (names, [])


def test_an_object_under_a_wrong_etag_is_not_deleted(probe: Probe) -> None:
    probe.put("key")
    reply = probe.client.delete_objects(
        Bucket=probe.bucket,
        Delete={"Objects": [{"Key": "key", "ETag": MADE_UP}], "Quiet": True},
    )
    assert (reply["Errors"][0]["Code"], probe.keys()) == ("PreconditionFailed", ["key"])


def test_no_more_than_1000_objects_are_deleted_at_once(probe: Probe) -> None:
    delete: Any = {"Objects": [{"Key": f"{number}"} for number in range(1001)]}
    with pytest.raises(ClientError, match="MalformedXML"):
        probe.client.delete_objects(Bucket=probe.bucket, Delete=delete)


def test_a_large_object_travels_in_parts(probe: Probe) -> None:
    body = bytes(range(256)) * 50_000
    config = TransferConfig(multipart_threshold=1, multipart_chunksize=5 * 1024 * 1024)
    probe.client.upload_fileobj(io.BytesIO(body), probe.bucket, "key", Config=config)
    received = io.BytesIO()
    probe.client.download_fileobj(probe.bucket, "key", received, Config=config)
    assert (received.getvalue(), probe.etag("key")[-3:]) == (body, '-3"')


def start_upload(probe: Probe, key: str) -> tuple[dict[str, Any], list[Any]]:
    where: dict[str, Any] = {"Bucket": probe.bucket, "Key": key}
    where["UploadId"] = probe.client.create_multipart_upload(**where)["UploadId"]
    part = probe.client.upload_part(**where, PartNumber=1, Body=b"part")
    return where, [{"PartNumber": 1, "ETag": part["ETag"]}]


@pytest.mark.parametrize(("key", "expected"), [("present", UNMET), ("absent", 200)])
def test_an_upload_is_completed_only_under_its_condition(
    probe: Probe, key: str, expected: object
) -> None:
    probe.put("present")
    where, parts = start_upload(probe, key)
    answer = probe.status(
        "complete_multipart_upload",
        key,
        UploadId=where["UploadId"],
        MultipartUpload={"Parts": parts},
        IfNoneMatch="*",
    )
    assert answer == expected


def test_uploads_are_listed_while_they_are_open(probe: Probe) -> None:
    where, _ = start_upload(probe, "key")
    start_upload(probe, "other")
    probe.client.abort_multipart_upload(**where)
    listing = probe.client.list_multipart_uploads(Bucket=probe.bucket)
    assert [item["Key"] for item in listing["Uploads"]] == ["other"]


def test_an_object_is_copied_with_its_metadata(probe: Probe) -> None:
    probe.put("from", b"content", Metadata={"token": "1"})
    source: Any = {"Bucket": probe.bucket, "Key": "from"}
    probe.client.copy_object(Bucket=probe.bucket, Key="to", CopySource=source)
    copy = probe.client.get_object(Bucket=probe.bucket, Key="to")
    assert (copy["Body"].read(), copy["Metadata"]) == (b"content", {"token": "1"})


def test_copying_what_is_absent_says_so(probe: Probe) -> None:
    source = {"Bucket": probe.bucket, "Key": "absent"}
    assert probe.status("copy_object", "to", CopySource=source) == ABSENT


def test_a_doomed_upload_is_refused_before_its_body(probe: Probe) -> None:
    probe.put("key")
    with SlowPut(probe.endpoint_url, probe.bucket, "key", **{"If-None-Match": "*"}) as slow:
        assert slow.status() == 412


def test_a_body_in_the_chunks_of_a_signed_stream_is_stored_without_them(probe: Probe) -> None:
    chunks = (
        b"5\r\nhello\r\n6;chunk-signature=0\r\n world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
    )
    lines = [
        f"PUT /{probe.bucket}/key HTTP/1.1",
        "Host: test",
        f"Content-Length: {len(chunks)}",
        "Content-Encoding: aws-chunked",
        "X-Amz-Content-SHA256: STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "",
        "",
    ]
    url = urlsplit(probe.endpoint_url)
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode() + chunks)
        connection.recv(1000)
    reply = probe.client.get_object(Bucket=probe.bucket, Key="key", ChecksumMode="ENABLED")
    assert (reply["Body"].read(), reply["ChecksumCRC32"]) == (b"hello world", "DUoRhQ==")


def test_requests_that_arrive_together_are_answered_in_turn(probe: Probe) -> None:
    probe.put("key", b"the body")
    request = f"GET /{probe.bucket}/key HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    url = urlsplit(probe.endpoint_url)
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(request * 3)
        connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(1000), b""))
    assert received.count(b"the body") == 3


def test_synthetic_objects_are_listed_and_read(probe: Probe) -> None:
    probe.bucket = SYNTHETIC.bucket
    found, _ = list_all(probe)
    last = probe.client.get_object(Bucket=probe.bucket, Key=found[-1])["Body"].read()
    assert (found, last) == (SYNTHETIC.names(), SYNTHETIC.body)


def test_requests_are_counted_by_operation(probe: Probe, server: CannedServer) -> None:
    server.reset_counts()
    probe.put()
    probe.keys()
    probe.keys()
    assert server.counts() == {"PutObject": 1, "ListObjectsV2": 2}
