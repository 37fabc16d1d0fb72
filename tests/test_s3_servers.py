"""The S3 servers that other tests rely on do what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from tests.s3_servers.clients import SlowPut, s3_client
from tests.s3_servers.fixtures import moto_aws_server, moto_like
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import (
    AWS,
    AWS_RACING,
    CEPH,
    LOCALSTACK,
    MOTO,
    NO_CONDITIONS,
    ServerQuirks,
)
from tests.s3_servers.wire import (
    ABSENT,
    MADE_UP,
    UNMET,
    Case,
    Probe,
    answer_to,
    expected_answers,
    race,
)

__all__ = ["moto_aws_server", "moto_like"]
PRESETS = {
    "aws": AWS,
    "moto": MOTO,
    "localstack": LOCALSTACK,
    "ceph": CEPH,
    "no-conditions": NO_CONDITIONS,
}

ServerLike = Callable[[ServerQuirks], MotoServer]


def cells() -> list[Any]:
    """One parameter set for each server and case."""
    return [
        pytest.param(name, case, id="-".join([name, *case]))
        for name in PRESETS
        for case in expected_answers(name)
    ]


@pytest.mark.parametrize(("name", "case"), cells())
def test_a_condition_is_answered_as_the_imitated_server_answers(
    moto_like: ServerLike, name: str, case: Case
) -> None:
    server = moto_like(PRESETS[name])
    assert answer_to(server.endpoint_url, case) == expected_answers(name)[case]


def test_what_is_said_of_moto_is_true_of_moto_itself() -> None:
    genuine = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    genuine.start()
    try:
        url = "http://{}:{}".format(*genuine.get_host_and_port())
        expected = expected_answers("moto")
        assert {case: answer_to(url, case) for case in expected} == expected
    finally:
        genuine.stop()


@pytest.mark.parametrize("quirks", [AWS, NO_CONDITIONS], ids=["aws", "no-conditions"])
@pytest.mark.parametrize("key", ["present", "absent"])
def test_a_delete_whose_condition_is_met_or_ignored_deletes(
    moto_like: ServerLike, quirks: ServerQuirks, key: str
) -> None:
    probe = Probe(moto_like(quirks).endpoint_url)
    probe.put(key)
    probe.status("delete_object", key, IfMatch=probe.etag(key))
    assert probe.keys() == []


def test_a_refused_write_leaves_the_object_as_it_is(moto_aws_server: MotoServer) -> None:
    probe = Probe(moto_aws_server.endpoint_url)
    probe.put(body=b"old")
    probe.put(body=b"new", IfMatch=MADE_UP)
    found = probe.client.get_object(Bucket=probe.bucket, Key="present")
    assert found["Body"].read() == b"old"


@pytest.mark.parametrize("quoted", [False, True])
def test_a_server_that_wants_quotes_answers_412_to_an_unquoted_etag(
    moto_like: ServerLike, quoted: bool
) -> None:
    probe = Probe(moto_like(replace(AWS, etag_form="quoted")).endpoint_url)
    probe.put()
    etag = probe.etag() if quoted else probe.etag().strip('"')
    assert probe.put(IfMatch=etag) == (200 if quoted else UNMET)


@pytest.mark.parametrize("status", [204, 404, 412])
def test_a_conditional_delete_of_an_absent_object_is_answered_as_configured(
    moto_like: ServerLike, status: Any
) -> None:
    probe = Probe(moto_like(replace(AWS, delete_if_match_absent_status=status)).endpoint_url)
    expected = {204: 204, 404: ABSENT, 412: UNMET}[status]
    assert probe.status("delete_object", IfMatch=MADE_UP) == expected


def test_a_conditional_write_to_a_missing_bucket_says_that_the_bucket_is_missing(
    moto_aws_server: MotoServer,
) -> None:
    probe = Probe(moto_aws_server.endpoint_url)
    probe.bucket = "no-such-bucket"
    assert probe.put(IfMatch=MADE_UP) == (404, "NoSuchBucket")


@pytest.mark.parametrize(
    ("quirks", "kept"), [(AWS, ["wrong"]), (MOTO, []), (CEPH, [])], ids=["aws", "moto", "ceph"]
)
def test_deleting_many_objects_keeps_those_under_a_wrong_etag_where_that_is_enforced(
    moto_like: ServerLike, quirks: ServerQuirks, kept: list[str]
) -> None:
    probe = Probe(moto_like(quirks).endpoint_url)
    for key in ("free", "right", "wrong"):
        probe.put(key)
    reply = probe.client.delete_objects(
        Bucket=probe.bucket,
        Delete={
            "Objects": [
                {"Key": "free"},
                {"Key": "right", "ETag": probe.etag("right")},
                {"Key": "wrong", "ETag": MADE_UP},
            ]
        },
    )
    errors = [(item["Key"], item["Code"]) for item in reply.get("Errors", [])]
    assert (probe.keys(), errors) == (kept, [(key, "PreconditionFailed") for key in kept])


@pytest.mark.parametrize(("quirks", "expected"), [(AWS, 400), (LOCALSTACK, 200)])
def test_more_than_1000_objects_are_deleted_at_once_only_where_that_is_allowed(
    moto_like: ServerLike, quirks: ServerQuirks, expected: int
) -> None:
    probe = Probe(moto_like(quirks).endpoint_url)
    delete = {"Objects": [{"Key": str(number)} for number in range(1001)]}
    try:
        reply: Any = probe.client.delete_objects(Bucket=probe.bucket, Delete=delete)  # type: ignore[arg-type]
    except ClientError as error:
        reply = error.response
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == expected


@pytest.mark.parametrize(
    ("quirks", "condition", "value", "expected"),
    [
        (AWS, "IfNoneMatch", "*", UNMET),
        (AWS, "IfMatch", MADE_UP, UNMET),
        (AWS, "IfMatch", "same", 200),
        (MOTO, "IfNoneMatch", "*", UNMET),
        (MOTO, "IfMatch", MADE_UP, 200),
        (CEPH, "IfNoneMatch", "*", 200),
        (CEPH, "IfMatch", MADE_UP, 200),
    ],
)
def test_completing_an_upload_under_a_condition_is_answered_as_the_imitated_server_answers(
    moto_like: ServerLike, quirks: ServerQuirks, condition: str, value: str, expected: object
) -> None:
    probe = Probe(moto_like(quirks).endpoint_url)
    probe.put()
    where: Any = {"Bucket": probe.bucket, "Key": "present"}
    upload = probe.client.create_multipart_upload(**where)["UploadId"]
    part = probe.client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"part")
    answer = probe.status(
        "complete_multipart_upload",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        **{condition: probe.resolve(value)},
    )
    assert answer == expected


@pytest.mark.parametrize(("quirks", "expected"), [(AWS, UNMET), (CEPH, 200)], ids=["aws", "ceph"])
def test_copying_over_an_object_under_a_condition_is_answered_as_the_imitated_server_answers(
    moto_like: ServerLike, quirks: ServerQuirks, expected: object
) -> None:
    probe = Probe(moto_like(quirks).endpoint_url)
    probe.put()
    probe.put("source", b"other")
    source = {"Bucket": probe.bucket, "Key": "source"}
    assert probe.status("copy_object", CopySource=source, IfNoneMatch="*") == expected


def test_eight_clients_that_insert_one_key_have_one_winner(moto_aws_server: MotoServer) -> None:
    probe = Probe(moto_aws_server.endpoint_url)
    answers = race(lambda number: probe.put(body=b"%d" % number, IfNoneMatch="*"))
    assert sorted(answers, key=str) == [*[UNMET] * 7, 200]


def test_eight_clients_that_replace_one_version_have_one_winner(
    moto_aws_server: MotoServer,
) -> None:
    probe = Probe(moto_aws_server.endpoint_url)
    probe.put()
    etag = probe.etag()
    answers = race(lambda number: probe.put(body=b"%d" % number, IfMatch=etag))
    assert answers.count(200) == 1


def test_several_clients_may_insert_one_key_on_a_server_that_is_not_atomic(
    moto_like: ServerLike,
) -> None:
    probe = Probe(moto_like(MOTO).endpoint_url)

    def winners(key: str) -> int:
        return race(lambda number: probe.put(key, IfNoneMatch="*")).count(200)

    assert any(winners(f"{number}") > 1 for number in range(20))


@pytest.mark.parametrize(("quirks", "expected"), [(AWS_RACING, 409), (AWS, 412)])
def test_a_write_that_another_one_overtakes_is_told_409_where_the_server_may_do_that(
    moto_like: ServerLike, quirks: ServerQuirks, expected: int
) -> None:
    probe = Probe(moto_like(quirks).endpoint_url)
    with SlowPut(probe.endpoint_url, probe.bucket, "key", **{"If-None-Match": "*"}) as slow:
        assert slow.status() == 100
        probe.put("key")
        slow.send_body()
        assert slow.status() == expected


@pytest.mark.parametrize(("quirks", "expected"), [(AWS, 412), (LOCALSTACK, 100)])
def test_a_doomed_upload_is_refused_before_its_body_only_where_the_server_does_that(
    moto_like: ServerLike, quirks: ServerQuirks, expected: int
) -> None:
    probe = Probe(moto_like(quirks).endpoint_url)
    probe.put("key")
    with SlowPut(probe.endpoint_url, probe.bucket, "key", **{"If-None-Match": "*"}) as slow:
        assert slow.status() == expected


def test_every_kth_conditional_write_is_told_409_on_request(moto_like: ServerLike) -> None:
    probe = Probe(moto_like(replace(AWS, conflict_every=3)).endpoint_url)
    answers = [probe.put(str(number), IfNoneMatch="*") for number in range(6)]
    assert answers == [200, 200, (409, "ConditionalRequestConflict")] * 2


def test_a_409_changes_nothing(moto_like: ServerLike) -> None:
    probe = Probe(moto_like(replace(AWS, conflict_every=1)).endpoint_url)
    probe.put(IfNoneMatch="*")
    assert probe.keys() == []


def test_a_page_of_a_listing_is_no_larger_than_the_server_wants(moto_like: ServerLike) -> None:
    probe = Probe(moto_like(replace(AWS, page_size=2)).endpoint_url)
    for number in range(5):
        probe.put(f"{number}")
    pages = probe.client.get_paginator("list_objects_v2").paginate(Bucket=probe.bucket)
    assert [[item["Key"] for item in page["Contents"]] for page in pages] == [
        ["0", "1"],
        ["2", "3"],
        ["4"],
    ]


def test_pages_of_a_listing_by_delimiter_leave_no_group_out(moto_like: ServerLike) -> None:
    probe = Probe(moto_like(replace(AWS, page_size=2)).endpoint_url)
    for group in "abcde":
        probe.put(f"{group}/1")
        probe.put(f"{group}/2")
    pages = probe.client.get_paginator("list_objects_v2").paginate(
        Bucket=probe.bucket, Delimiter="/"
    )
    groups = [item["Prefix"] for page in pages for item in page["CommonPrefixes"]]
    assert groups == ["a/", "b/", "c/", "d/", "e/"]


def test_a_forbidden_operation_is_answered_403(moto_like: ServerLike) -> None:
    probe = Probe(moto_like(replace(AWS, forbidden=frozenset({"DeleteObject"}))).endpoint_url)
    assert probe.status("delete_object") == (403, "AccessDenied")


@pytest.mark.parametrize("operation", ["get_object", "head_object"])
def test_an_absent_object_is_403_for_those_who_may_not_list(
    moto_like: ServerLike, operation: str
) -> None:
    probe = Probe(moto_like(replace(AWS, forbidden=frozenset({"ListObjectsV2"}))).endpoint_url)
    answer = probe.status(operation, "absent")
    assert isinstance(answer, tuple)
    assert answer[0] == 403


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (("key", "secret"), 200),
        (("key", "wrong"), (403, "SignatureDoesNotMatch")),
        (("wrong", "secret"), (403, "InvalidAccessKeyId")),
    ],
)
def test_signatures_are_checked_on_request(
    moto_aws_server: MotoServer, credentials: tuple[str, str], expected: object
) -> None:
    probe = Probe(moto_aws_server.endpoint_url)
    server = moto_aws_server.with_quirks(replace(AWS, credentials=("key", "secret")))
    probe.client = s3_client(server.endpoint_url, credentials=credentials)
    assert probe.put("some key = 50% ~é") == expected


def test_the_log_tells_operation_key_conditions_and_status(moto_aws_server: MotoServer) -> None:
    server = moto_aws_server.with_quirks(AWS)
    probe = Probe(server.endpoint_url)
    server.reset_log()
    probe.put("some/key", IfMatch=MADE_UP)
    (request,) = server.requests()
    assert (request.operation, request.key, request.headers["if-match"], request.status) == (
        "PutObject",
        "some/key",
        MADE_UP,
        404,
    )


def test_a_client_keeps_its_connection(moto_aws_server: MotoServer) -> None:
    server = moto_aws_server.with_quirks(AWS)
    probe = Probe(server.endpoint_url)
    probe.put()
    probe.put(IfMatch=probe.etag())
    probe.keys()
    assert len({request.connection for request in server.requests()}) == 1
