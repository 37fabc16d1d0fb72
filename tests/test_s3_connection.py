"""Clients, credentials, buckets and handles: shared, kept secret, explained when they fail."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError
from mixinforge import dumpjs, loadjs

from persidict import ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE, BackendError
from persidict.basic_s3_dict import BasicS3Dict
from tests.concurrency import Place, joined, run_workers
from tests.s3_dicts import connect
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fixtures import bucket_name, moto_aws_server, moto_like
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS, NO_CONDITIONS, ServerQuirks

__all__ = ["bucket_name", "moto_aws_server", "moto_like"]

Dict = BasicS3Dict[Any]
SECRETS = {
    "aws_access_key_id": "AKIAHUSH",
    "aws_secret_access_key": "hush-secret",
    "aws_session_token": "hush-token",
}


@pytest.fixture
def endpoint(moto_aws_server: MotoServer) -> str:
    return moto_aws_server.endpoint_url


def notes_of(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


# ---------------------------------------------------------------------- one client


def test_handles_of_one_configuration_share_a_client(endpoint: str) -> None:
    assert connect(endpoint).s3_client is connect(endpoint).s3_client


def test_handles_of_other_configurations_have_other_clients(endpoint: str) -> None:
    other = connect(endpoint, boto_config=Config(read_timeout=7))
    assert connect(endpoint).s3_client is not other.s3_client


def test_equal_boto_configs_make_one_client(endpoint: str) -> None:
    first, second = (connect(endpoint, boto_config=Config(read_timeout=8)) for _ in range(2))
    assert first.s3_client is second.s3_client


def test_a_change_of_the_environment_makes_another_client(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = connect(endpoint).s3_client
    monkeypatch.setenv("AWS_PROFILE_OF_THIS_TEST", "other")
    assert connect(endpoint).s3_client is not before


def test_subdictionaries_copies_and_unpickled_handles_share_the_client(endpoint: str) -> None:
    d = connect(endpoint)
    d["a", "b"] = 1
    handles = [
        d.get_subdict("a"),
        d.subdicts()["a"],
        copy.copy(d),
        pickle.loads(pickle.dumps(d)),
    ]
    assert all(handle.s3_client is d.s3_client for handle in handles)


def test_many_threads_that_ask_at_once_get_one_client(endpoint: str) -> None:
    d = connect(endpoint, boto_config=Config(read_timeout=9), create_bucket=False)
    meet = threading.Barrier(32)

    def ask(_: int) -> int:
        meet.wait()
        return id(d.s3_client)

    with ThreadPoolExecutor(32) as pool:
        assert len(set(pool.map(ask, range(32)))) == 1


def test_the_pool_is_as_large_as_the_concurrency_and_connections_are_kept(endpoint: str) -> None:
    config = connect(endpoint, max_concurrency=7).s3_client.meta.config
    assert config.max_pool_connections == 7
    assert config.retries == {"mode": "standard", "total_max_attempts": 5}


def test_what_boto_config_says_comes_first(endpoint: str) -> None:
    chosen = Config(max_pool_connections=3, retries={"total_max_attempts": 2, "mode": "legacy"})
    config = connect(endpoint, boto_config=chosen).s3_client.meta.config
    assert (config.max_pool_connections, config.retries["mode"]) == (3, "legacy")


def test_a_ready_client_is_used(endpoint: str) -> None:
    client = connect(endpoint).s3_client
    d: Dict = BasicS3Dict(bucket_name="of-ready-client", s3_client=client)
    d["a"] = 1
    assert (d.s3_client, d["a"], d.region) == (client, 1, "us-east-1")


@pytest.mark.parametrize(
    "params",
    [
        {"endpoint_url": "http://127.0.0.1:1"},
        {"profile_name": "p"},
        {"aws_access_key_id": "a", "aws_secret_access_key": "b"},
        {"boto_config": Config(read_timeout=1)},
        {"region": "eu-west-1"},
    ],
    ids=lambda params: next(iter(params)),
)
def test_what_means_nothing_beside_a_ready_client_is_refused(
    endpoint: str, params: dict[str, Any]
) -> None:
    with pytest.raises(ValueError):
        BasicS3Dict(bucket_name="b", s3_client=connect(endpoint).s3_client, **params)


@pytest.mark.parametrize(
    "params",
    [
        {"aws_access_key_id": "only"},
        {"aws_session_token": "only"},
        {"bucket_name": ""},
        {"max_concurrency": 0},
        {"endpoint_url": "127.0.0.1:9000"},
        {"endpoint_url": "http://127.0.0.1:9000?token=a"},
    ],
    ids=lambda params: next(iter(params)),
)
def test_parameters_without_meaning_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        BasicS3Dict(**params)


@pytest.mark.parametrize(
    "params",
    [
        {"region": 1},
        {"endpoint_url": b"http://127.0.0.1"},
        {"aws_access_key_id": 5},
        {"boto_config": "fast"},
        {"boto_config": {"no_such_option": 1}},
        {"bucket_name": None},
        {"root_prefix": None},
        {"max_concurrency": "32"},
        {"s3_client": "client"},
    ],
    ids=lambda params: "=".join(map(str, next(iter(params.items())))),
)
def test_parameters_of_a_wrong_type_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(TypeError) as raised:
        BasicS3Dict(**params)
    assert next(iter(params)) in f"{raised.value}\n{notes_of(raised.value)}"


# ---------------------------------------------------------------------- where things are


@pytest.mark.parametrize(
    ("given", "kept"), [("", ""), ("a", "a/"), ("a/", "a/"), ("a/b", "a/b/"), ("a//", "a/")]
)
def test_a_prefix_that_is_not_empty_gets_one_slash(endpoint: str, given: str, kept: str) -> None:
    d = connect(endpoint, root_prefix=given, bucket_name="prefixes")
    assert (d.root_prefix, d.base_url) == (kept, f"s3://prefixes/{kept}")


@pytest.mark.parametrize(
    ("params", "content_type"),
    [
        ({}, "application/octet-stream"),
        ({"serialization_format": "json"}, "application/json"),
        ({"serialization_format": "md", "base_class_for_values": str}, "text/plain"),
    ],
    ids=["pkl", "json", "text"],
)
def test_an_item_is_one_object_of_its_name_and_content_type(
    endpoint: str, params: dict[str, Any], content_type: str
) -> None:
    d = connect(endpoint, root_prefix="p", **params)
    d["a", "b"] = "text"
    name = f"p/a/b.{d.serialization_format}"
    reply = d.s3_client.head_object(Bucket=d.bucket_name, Key=name)
    assert reply["ContentType"] == content_type


# ---------------------------------------------------------------------- secrets


@pytest.fixture
def guarded(endpoint: str) -> Dict:
    return connect(endpoint, **SECRETS)


SHOWN: dict[str, Callable[[Dict], str]] = {
    "repr": repr,
    "repr of a sub-dictionary": lambda d: repr(d.get_subdict("a")),
    "repr of get_params": lambda d: repr(d.get_params()),
    "get_jsparams": lambda d: d.get_jsparams(),
    "dumpjs": dumpjs,
    "vars": lambda d: str(vars(d)),
}


@pytest.mark.parametrize("place", SHOWN)
def test_secrets_do_not_show(guarded: Dict, place: str) -> None:
    shown = SHOWN[place](guarded)
    assert [secret for secret in SECRETS.values() if secret in shown] == []


def test_secrets_do_not_show_in_errors(guarded: Dict) -> None:
    with pytest.raises(KeyError) as raised:
        guarded["absent"]
    shown = repr(raised.value) + repr(raised.value.__cause__) + notes_of(raised.value)
    assert [secret for secret in SECRETS.values() if secret in shown] == []


def test_a_secret_is_told_when_asked_for_by_name(guarded: Dict) -> None:
    assert guarded.get_params()["aws_secret_access_key"].reveal() == "hush-secret"


def test_parameters_make_an_equal_handle_with_the_same_credentials(guarded: Dict) -> None:
    again: Dict = BasicS3Dict(**guarded.get_params())
    assert again == guarded
    assert again.s3_client is guarded.s3_client


def test_json_makes_a_handle_that_finds_its_credentials_elsewhere(
    guarded: Dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-environment")
    guarded["a"] = 1
    again = loadjs(dumpjs(guarded))
    assert again["a"] == 1
    assert again.get_params()["aws_secret_access_key"] is None


def test_the_json_of_parameters_is_json(endpoint: str) -> None:
    d = connect(endpoint, boto_config=Config(read_timeout=9, s3={"addressing_style": "path"}))
    json.loads(d.get_jsparams())
    assert loadjs(dumpjs(d)).get_params()["boto_config"] == d.get_params()["boto_config"]


# ---------------------------------------------------------------------- travelling


def test_a_handle_around_a_ready_client_refuses_to_be_pickled(endpoint: str) -> None:
    d: Dict = BasicS3Dict(bucket_name="ready", s3_client=connect(endpoint).s3_client)
    with pytest.raises(TypeError, match="s3_client"):
        pickle.dumps(d)


@pytest.mark.parametrize(
    "unsigned", [Config(signature_version=UNSIGNED), {"signature_version": UNSIGNED}], ids=type
)
def test_that_requests_are_unsigned_travels_with_a_handle(endpoint: str, unsigned: Any) -> None:
    again = pickle.loads(pickle.dumps(connect(endpoint, boto_config=unsigned, create_bucket=False)))
    assert again.s3_client.meta.config.signature_version is UNSIGNED


def read_and_write(d: Dict, answers: Any) -> None:
    d["child"] = d["parent"] + 1
    answers.put(len(d))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_handle_works_in_a_child_process(endpoint: str, start: str) -> None:
    d = connect(endpoint)
    d["parent"] = 1
    context: Any = multiprocessing.get_context(start)
    answers = context.Queue()
    child = context.Process(target=read_and_write, args=(d, answers))
    child.start()
    assert answers.get(timeout=60) == 2
    child.join(60)
    assert d["child"] == 2


def write_many(d: Dict, answers: Any) -> None:
    d.update({f"c{number}": number for number in range(50)})
    answers.put(sorted(d.values()))


def test_a_child_process_has_threads_of_its_own_for_many_items(endpoint: str) -> None:
    d = connect(endpoint)
    d.update({f"p{number}": number for number in range(50)})
    context: Any = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=write_many, args=(d, answers))
    child.start()
    assert answers.get(timeout=60) == sorted(2 * list(range(50)))
    child.join(60)


def test_a_handle_around_a_ready_client_works_after_fork(endpoint: str) -> None:
    d: Dict = BasicS3Dict(bucket_name=new_bucket_name(), s3_client=connect(endpoint).s3_client)
    d["parent"] = 1
    context: Any = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_and_write, args=(d, answers))
    child.start()
    assert answers.get(timeout=60) == 2
    child.join(60)
    assert d["child"] == 2


def use_own_key(d: Dict, place: Place, times: int) -> list[int]:
    for number in range(times):
        d[str(place.index)] = number
        assert d[str(place.index)] == number
    return [place.index]


def test_32_threads_share_one_handle(endpoint: str) -> None:
    d = connect(endpoint)
    run_workers(lambda: d, use_own_key, 5, count=32, start="thread")
    assert d == {str(index): 4 for index in range(32)}


# ---------------------------------------------------------------------- buckets


def test_a_missing_bucket_is_created_in_its_region(endpoint: str, bucket_name: str) -> None:
    d = connect(endpoint, bucket_name=bucket_name, region="eu-west-1")
    reply = d.s3_client.get_bucket_location(Bucket=bucket_name)
    assert (reply["LocationConstraint"], d.region) == ("eu-west-1", "eu-west-1")


def make_handle(d: Dict, place: Place, endpoint: str, bucket: str) -> list[bool]:
    connect(endpoint, bucket_name=bucket)[str(place.index)] = 1
    return [True]


def test_losing_the_race_to_create_a_bucket_is_fine(endpoint: str, bucket_name: str) -> None:
    anywhere = partial(connect, endpoint)
    made = run_workers(anywhere, make_handle, endpoint, bucket_name, count=6, start="fork")
    assert joined(made) == [True] * 6
    assert len(connect(endpoint, bucket_name=bucket_name)) == 6


def test_a_bucket_that_may_not_be_looked_at_is_taken_to_be_there(
    moto_aws_server: MotoServer, bucket_name: str
) -> None:
    connect(moto_aws_server.endpoint_url, bucket_name=bucket_name)
    forbidden = ServerQuirks(forbidden=frozenset({"HeadBucket", "CreateBucket"}))
    d = connect(moto_aws_server.with_quirks(forbidden).endpoint_url, bucket_name=bucket_name)
    d["a"] = 1
    assert d["a"] == 1


@pytest.mark.parametrize(
    "operation",
    [
        lambda d: d["a"],
        lambda d: "a" in d,
        lambda d: d.etag("a"),
        lambda d: d.__setitem__("a", 1),
        lambda d: d.discard("a"),
        lambda d: d.setdefault("a", 1),
        lambda d: list(d),
    ],
    ids=["get", "in", "etag", "set", "discard", "setdefault", "list"],
)
def test_a_missing_bucket_is_no_absence_and_the_error_says_what_to_do(
    moto_like: Callable[[ServerQuirks], MotoServer],
    bucket_name: str,
    operation: Callable[[Dict], Any],
) -> None:
    endpoint = moto_like(AWS).endpoint_url
    d = connect(endpoint, bucket_name=bucket_name, create_bucket=False)
    with pytest.raises(ClientError) as raised:
        operation(d)
    assert raised.value.response["Error"]["Code"] == "NoSuchBucket"
    assert bucket_name in notes_of(raised.value)
    assert "create_bucket=True" in notes_of(raised.value)


@pytest.mark.parametrize("name", ["has space", "a" * 64 + "!", "x/y"])
def test_a_bucket_name_that_s3_refuses_is_explained(endpoint: str, name: str) -> None:
    with pytest.raises((ParamValidationError, ClientError)) as raised:
        connect(endpoint, bucket_name=name)
    assert "bucket name" in notes_of(raised.value)


# ---------------------------------------------------------------------- what goes wrong


def test_wrong_credentials_are_explained(moto_aws_server: MotoServer, bucket_name: str) -> None:
    connect(moto_aws_server.endpoint_url, bucket_name=bucket_name)
    strict = moto_aws_server.with_quirks(ServerQuirks(credentials=("right", "right")))
    d = connect(strict.endpoint_url, bucket_name=bucket_name, create_bucket=False)
    with pytest.raises(ClientError) as raised:
        d["a"]
    assert "GetObject" in notes_of(raised.value)
    assert "credentials" in notes_of(raised.value)


def test_a_forbidden_read_is_no_absence(moto_aws_server: MotoServer, bucket_name: str) -> None:
    connect(moto_aws_server.endpoint_url, bucket_name=bucket_name)
    blind = moto_aws_server.with_quirks(ServerQuirks(forbidden=frozenset({"ListObjectsV2"})))
    d = connect(blind.endpoint_url, bucket_name=bucket_name)
    with pytest.raises(ClientError) as raised:
        "a" in d  # noqa: B015
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.fixture
def port_that_refuses() -> Iterator[int]:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def test_an_endpoint_that_is_down_is_named(port_that_refuses: int) -> None:
    with pytest.raises(EndpointConnectionError) as raised:
        connect(f"http://127.0.0.1:{port_that_refuses}")
    assert str(port_that_refuses) in str(raised.value)
    assert "endpoint_url" in notes_of(raised.value)


@pytest.mark.timeout(60)
def test_an_endpoint_that_never_answers_fails_within_the_timeouts() -> None:
    quick = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        d = connect(url, boto_config=quick, create_bucket=False)
        with pytest.raises(OSError, match="timeout"):
            d["a"] = 1


def test_an_object_that_cannot_be_decoded_is_named(endpoint: str) -> None:
    d = connect(endpoint)
    d.s3_client.put_object(Bucket=d.bucket_name, Key="a.pkl", Body=b"no pickle")
    with pytest.raises(BackendError) as raised:
        d["a"]
    message = str(raised.value)
    assert all(part in message for part in (d.bucket_name, "a.pkl", "pkl"))


def test_where_nothing_is_enforced_a_swap_is_refused_and_says_what_lacks(
    moto_aws_server: MotoServer,
) -> None:
    d = connect(moto_aws_server.with_quirks(NO_CONDITIONS).endpoint_url)
    d["a"] = 1
    with pytest.raises(BackendError, match="If-Match"):
        d.set_item_if("a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a"))
    with pytest.raises(BackendError, match="If-None-Match"):
        d.set_item_if("b", value=2, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
    assert d == {"a": 1}


def test_what_wrong_credentials_are_told_of_a_bucket_is_not_concluded_of_the_server(
    moto_aws_server: MotoServer,
) -> None:
    strict = moto_aws_server.with_quirks(replace(AWS, credentials=("right", "secret")))
    bucket = new_bucket_name()
    right = connect(strict.endpoint_url, "right", "secret", bucket_name=bucket)
    wrong = connect(strict.endpoint_url, "wrong", "secret", bucket_name=bucket)
    with pytest.raises(ClientError):
        wrong.setdefault("a", 1)
    assert right.setdefault("a", 2) == 2
