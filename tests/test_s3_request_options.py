"""What a user adds to requests goes with all that take it, on both wires, and with handles."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest
from mixinforge import dumpjs, loadjs

from persidict.basic_s3_dict import BasicS3Dict
from persidict.s3_dict_file_dir_cached import S3Dict
from persidict.stores.s3.capabilities import Support
from persidict.transfer import copy_items
from tests.s3_dicts import connect
from tests.s3_servers.fixtures import bucket_name, moto_aws_server
from tests.s3_servers.moto_server import LoggedRequest, MotoServer
from tests.s3_servers.quirks import AWS

__all__ = ["bucket_name", "moto_aws_server"]

Dict = BasicS3Dict[Any]

ENCRYPTED = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "key-1", "BucketKeyEnabled": True}
PUT_OPTIONS = {**ENCRYPTED, "StorageClass": "GLACIER_IR", "Tagging": "team=a"}
_BUCKET_KEY = "x-amz-server-side-encryption-bucket-key-enabled"
PUT_HEADERS = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
    _BUCKET_KEY: "true",
    "x-amz-storage-class": "GLACIER_IR",
    "x-amz-tagging": "team=a",
}
WRITING = {"PutObject", "CreateMultipartUpload", "CopyObject"}
MIB = 1024 * 1024


@pytest.fixture(params=["direct", "botocore"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(moto_aws_server: MotoServer) -> MotoServer:
    endpoint = moto_aws_server.with_quirks(AWS)
    endpoint.reset_log()
    return endpoint


def everything(d: Dict) -> None:
    """Make requests of every kind."""
    d["a"] = 1
    assert d["a"] == 1
    assert "a" in d
    d.transform_item("a", transformer=lambda value: value + 1)
    d.update({f"b{number}": number for number in range(3)})
    assert dict(d.items())
    d["large"] = os.urandom(6 * MIB)
    assert len(d["large"]) == 6 * MIB
    d.copy_item("a", "c")
    del d["a"]
    d.discard_many(["b1", "b2"])


def headers_by_operation(server: MotoServer, names: set[str]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for request in server.requests():
        chosen = {name: text for name, text in request.headers.items() if name in names}
        if _BUCKET_KEY in chosen:
            chosen[_BUCKET_KEY] = chosen[_BUCKET_KEY].lower()  # older botocore writes True
        found.setdefault(request.operation, []).append(chosen)
    return found


def test_options_of_writing_go_with_whatever_writes_an_object_and_with_nothing_else(
    server: MotoServer, transport: str
) -> None:
    d = connect(
        server.endpoint_url,
        transport=transport,
        put_options=PUT_OPTIONS,
        large_object_size=5 * MIB,
    )
    everything(d)
    found = headers_by_operation(server, set(PUT_HEADERS))
    assert found.keys() >= WRITING | {"GetObject", "UploadPart", "ListObjectsV2", "DeleteObjects"}
    for operation, requests in found.items():
        expected = PUT_HEADERS if operation in WRITING else {}
        assert requests == [expected] * len(requests), operation


def test_options_of_requests_go_with_every_operation_that_takes_them(
    server: MotoServer, transport: str
) -> None:
    options = {"RequestPayer": "requester", "ExpectedBucketOwner": "123456789012"}
    d = connect(
        server.endpoint_url,
        transport=transport,
        request_options=options,
        large_object_size=5 * MIB,
    )
    everything(d)
    payer, owner = "x-amz-request-payer", "x-amz-expected-bucket-owner"
    found = headers_by_operation(server, {payer, owner})
    about_buckets = {"CreateBucket": set(), "HeadBucket": {owner}}
    for operation, requests in found.items():
        expected = about_buckets.get(operation, {payer, owner})
        assert [set(headers) for headers in requests] == [expected] * len(requests), operation


def test_copies_from_another_dictionary_bear_the_options_of_the_target(
    server: MotoServer, transport: str
) -> None:
    source = connect(server.endpoint_url, transport=transport)
    target = connect(server.endpoint_url, transport=transport, put_options=PUT_OPTIONS)
    source["a"] = 1
    copy_items(source, target)
    [copied] = headers_by_operation(server, set(PUT_HEADERS))["CopyObject"]
    assert copied == PUT_HEADERS
    head = target.s3_client.head_object(Bucket=target.bucket_name, Key="a.pkl")
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("GLACIER_IR", "aws:kms")


def test_probes_bear_them_too_lest_a_policy_that_demands_encryption_is_taken_for_a_lack(
    server: MotoServer, transport: str
) -> None:
    d = connect(server.endpoint_url, transport=transport, put_options=ENCRYPTED)
    assert d.capabilities.put_if_match is Support.ENFORCED

    def is_encrypted(request: LoggedRequest) -> bool:
        return request.headers.get("x-amz-server-side-encryption") == "aws:kms"

    written = [request for request in server.requests() if request.operation in WRITING]
    assert written
    assert all(map(is_encrypted, written))


def test_what_only_botocore_can_write_travels_through_botocore(server: MotoServer) -> None:
    import datetime

    expires = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    d = connect(server.endpoint_url, transport="direct", put_options={"Expires": expires})
    d["a"] = 1
    head = d.s3_client.head_object(Bucket=d.bucket_name, Key="a.pkl")
    assert head["ResponseMetadata"]["HTTPHeaders"]["expires"] == "Tue, 01 Jan 2030 00:00:00 GMT"


def test_options_travel_with_handles(server: MotoServer, transport: str) -> None:
    params = {"put_options": PUT_OPTIONS, "request_options": {"RequestPayer": "requester"}}
    d = connect(server.endpoint_url, transport=transport, **params)
    again = pickle.loads(pickle.dumps(d))
    below = d.get_subdict("x")
    other = d.with_params(append_only=True)
    for handle in (d, again, below, other, type(d)(**d.get_params())):
        assert {name: handle.get_params()[name] for name in params} == params
    below["a"] = 1
    again["b"] = 1
    found = headers_by_operation(server, set(PUT_HEADERS))["PutObject"]
    assert found == [PUT_HEADERS] * 2


def test_options_show_in_representation_and_json(server: MotoServer) -> None:
    d = connect(
        server.endpoint_url,
        aws_access_key_id=None,
        aws_secret_access_key=None,
        s3_client=None,
        create_bucket=False,
        put_options=ENCRYPTED,
    )
    assert "'ServerSideEncryption': 'aws:kms'" in repr(d)
    assert loadjs(dumpjs(d)).get_params()["put_options"] == ENCRYPTED


def test_handles_with_other_options_share_the_client(server: MotoServer) -> None:
    one = connect(server.endpoint_url, put_options=ENCRYPTED)
    assert connect(server.endpoint_url).s3_client is one.s3_client


def test_a_ready_client_and_a_cached_dictionary_send_them_too(
    server: MotoServer, tmp_path: Any, bucket_name: str
) -> None:
    ready = connect(server.endpoint_url).s3_client
    d: S3Dict[Any] = S3Dict(
        bucket_name=bucket_name, s3_client=ready, base_dir=tmp_path, put_options=PUT_OPTIONS
    )
    d["a"] = 1
    assert headers_by_operation(server, set(PUT_HEADERS))["PutObject"] == [PUT_HEADERS]


@pytest.mark.parametrize(
    "params",
    [
        {"put_options": {"ServerSideEncrypton": "aws:kms"}},
        {"put_options": {"Key": "mine"}},
        {"put_options": {"Metadata": {}}},
        {"put_options": {"SSECustomerKey": "secret"}},
        {"put_options": {"RequestPayer": "requester"}},
        {"put_options": {"ChecksumAlgorithm": "SHA256"}},
        {"request_options": {"VersionId": "1"}},
        {"request_options": {"StorageClass": "STANDARD"}},
    ],
    ids=lambda params: next(iter(next(iter(params.values())))),
)
def test_options_that_are_none_are_refused_by_name(server: MotoServer, params: Any) -> None:
    [(where, options)] = params.items()
    with pytest.raises(ValueError, match=f"{where} .*{next(iter(options))}"):
        connect(server.endpoint_url, create_bucket=False, **params)


@pytest.mark.parametrize(
    "params",
    [
        {"put_options": "aws:kms"},
        {"put_options": {"ServerSideEncryption": 1}},
        {"put_options": {1: "aws:kms"}},
        {"request_options": [("RequestPayer", "requester")]},
        {"request_options": {"BypassGovernanceRetention": "yes"}},
    ],
    ids=str,
)
def test_options_of_a_wrong_type_are_refused_by_name(server: MotoServer, params: Any) -> None:
    with pytest.raises(TypeError, match=next(iter(params))):
        connect(server.endpoint_url, create_bucket=False, **params)
