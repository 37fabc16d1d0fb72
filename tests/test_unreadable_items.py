"""What cannot be read of many items is named when all others have been read."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from persidict import (
    AppendOnlyDictCached,
    AsyncDict,
    BackendError,
    BasicS3Dict,
    FileDirDict,
    LocalDict,
    NonEmptySafeStrTuple,
    PersiDict,
    S3Dict,
    SQLiteDict,
    UnreadableItemsError,
    WriteOnceDict,
)
from persidict.transfer import copy_items
from tests.s3_dicts import connect
from tests.s3_servers.clients import CREDENTIALS
from tests.s3_servers.fault_proxy import FaultProxy
from tests.s3_servers.fixtures import bucket_name, moto_aws_server
from tests.s3_servers.http_messages import Message
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.s3_messages import S3Request

__all__ = ["bucket_name", "moto_aws_server"]

AnyDict = PersiDict[Any]
KEYS = [f"k{number}" for number in range(9)]
BROKEN = "k4"
OTHERS = {(key,): key for key in KEYS if key != BROKEN}


@pytest.fixture
def proxy(moto_aws_server: MotoServer) -> Iterator[FaultProxy]:
    with FaultProxy(moto_aws_server.endpoint_url) as running:
        yield running


class RefusedKey:
    """A server that refuses to hand out the objects of some names."""

    def __init__(self, code: str, *words: str) -> None:
        self.code = code
        self.words = words

    def __call__(self, request: S3Request, reply: Message) -> Message:
        is_meant = any(word in request.key for word in self.words)
        if request.operation != "GetObject" or not is_meant:
            return reply
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        lines = ["HTTP/1.1 403 Forbidden", "Content-Type: application/xml"]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "\r\n"]).encode()
        headers = {"content-type": "application/xml", "content-length": str(len(body))}
        return Message(head, lines[0], headers, body)


def on_s3(proxy: FaultProxy, tmp_path: Path, **params: Any) -> AnyDict:
    return connect(proxy.endpoint_url, transport="direct", **params)


def on_s3_by_botocore(proxy: FaultProxy, tmp_path: Path, **params: Any) -> AnyDict:
    return connect(proxy.endpoint_url, transport="botocore", **params)


def on_s3_cached(proxy: FaultProxy, tmp_path: Path, **params: Any) -> AnyDict:
    basic = connect(proxy.endpoint_url, **params)
    other: AnyDict = S3Dict(
        bucket_name=basic.bucket_name,
        endpoint_url=proxy.endpoint_url,
        region="us-east-1",
        aws_access_key_id=CREDENTIALS[0],
        aws_secret_access_key=CREDENTIALS[1],
        base_dir=tmp_path / "copies",
        **params,
    )
    return other


On = Callable[..., AnyDict]


def filled(d: AnyDict) -> AnyDict:
    d.update({key: key for key in KEYS})
    if isinstance(d, S3Dict):
        d.clear_cache()
    return d


def read_until_error(entries: Any) -> tuple[list[Any], UnreadableItemsError]:
    """Return what came, and what was raised in the end."""
    found: list[Any] = []
    with pytest.raises(UnreadableItemsError) as caught:
        found.extend(entries)
    return found, caught.value


@pytest.mark.parametrize("make", [on_s3, on_s3_by_botocore, on_s3_cached])
@pytest.mark.parametrize("code", ["AccessDenied", "InvalidObjectState"])
def test_one_refused_object_ends_no_iteration_over_the_others(
    proxy: FaultProxy, tmp_path: Path, make: On, code: str
) -> None:
    d = filled(make(proxy, tmp_path))
    proxy.rewrite(RefusedKey(code, BROKEN))
    found, error = read_until_error(d.items())
    assert dict(found) == OTHERS
    [reason] = error.exceptions
    assert isinstance(reason, ClientError)
    assert reason.response["Error"]["Code"] == code
    assert repr(NonEmptySafeStrTuple(BROKEN)) in str(error)
    assert read_until_error(d.values())[0] == list(OTHERS.values())
    assert [key for key, *_ in read_until_error(d.items_and_timestamps())[0]] == list(OTHERS)


@pytest.mark.parametrize("make", [on_s3, on_s3_by_botocore, on_s3_cached])
def test_get_many_hands_over_the_others_with_the_error(
    proxy: FaultProxy, tmp_path: Path, make: On
) -> None:
    d = filled(make(proxy, tmp_path))
    proxy.rewrite(RefusedKey("AccessDenied", BROKEN))
    with pytest.raises(UnreadableItemsError) as caught:
        d.get_many([*KEYS, "absent"])
    assert caught.value.found == OTHERS
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.found, str(again)) == (OTHERS, str(caught.value))
    assert d.get_many(KEYS[:4]) == {(key,): key for key in KEYS[:4]}


def test_an_archived_object_is_said_to_be_archived(proxy: FaultProxy, tmp_path: Path) -> None:
    d = filled(on_s3(proxy, tmp_path))
    proxy.rewrite(RefusedKey("InvalidObjectState", BROKEN))
    with pytest.raises(ClientError) as caught:
        d[BROKEN]
    [note] = [note for note in caught.value.__notes__ if note.startswith("persidict: S3")]
    assert "archived" in note
    assert "credentials" not in note


def test_a_large_object_that_is_refused_ends_nothing_either(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    d = filled(on_s3(proxy, tmp_path, large_object_size=100))
    d["k2"] = os.urandom(1000)
    d[BROKEN] = os.urandom(1000)
    proxy.rewrite(RefusedKey("AccessDenied", BROKEN))
    found, _ = read_until_error(d.items())
    assert [key.strings for key, _ in found] == list(OTHERS)


def test_expired_credentials_end_reading_at_once(proxy: FaultProxy, tmp_path: Path) -> None:
    d = filled(on_s3(proxy, tmp_path, max_concurrency=1))
    proxy.rewrite(RefusedKey("ExpiredToken", ".pkl"))
    with pytest.raises(ClientError):
        dict(d.items())


def test_a_server_that_is_gone_ends_reading_at_once() -> None:
    d: BasicS3Dict[Any] = connect(
        "http://127.0.0.1:9",
        create_bucket=False,
        boto_config={"retries": {"total_max_attempts": 1}},
    )
    with pytest.raises(EndpointConnectionError):
        d.get_many(KEYS)


def test_very_many_refusals_are_counted_and_few_are_kept(proxy: FaultProxy, tmp_path: Path) -> None:
    d = on_s3(proxy, tmp_path)
    d.update({f"secret{number}": number for number in range(150)})
    d["open"] = 1
    proxy.rewrite(RefusedKey("AccessDenied", "secret"))
    found, error = read_until_error(d.items())
    assert found == [(("open",), 1)]
    assert (error.count, len(error.exceptions)) == (150, 100)
    assert str(error).startswith("150 items could not be read")


def test_copying_reports_what_cannot_be_read_and_copies_the_others(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    d = filled(on_s3(proxy, tmp_path))
    proxy.rewrite(RefusedKey("AccessDenied", BROKEN, "k7"))
    target: LocalDict[Any] = LocalDict()
    result = copy_items(d, target, keys=[*KEYS, "absent"])
    assert {key.strings[0] for key in result.failed} == {BROKEN, "k7", "absent"}
    assert isinstance(result.failed[NonEmptySafeStrTuple("absent")], KeyError)
    assert len(target) == 7


# ---------------------------------------------------------------------- files and others


def break_file(d: FileDirDict[Any], key: str) -> None:
    [path] = Path(d.base_dir).rglob(f"{key}_*")
    path.write_bytes(b"\x80not a pickle")


def test_a_file_that_may_not_be_read_ends_no_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = filled(FileDirDict(base_dir=tmp_path))
    open_file = os.open

    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        if f"{BROKEN}_" in os.path.basename(os.fsdecode(path)):
            raise PermissionError(13, "Permission denied", path)
        return open_file(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    found, error = read_until_error(d.items())
    assert dict(found) == OTHERS
    assert isinstance(error.exceptions[0], PermissionError)
    with pytest.raises(UnreadableItemsError) as caught:
        d.get_many(KEYS)
    assert caught.value.found == OTHERS


def test_an_item_that_cannot_be_decoded_ends_no_iteration(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path)
    filled(d)
    break_file(d, BROKEN)
    found, error = read_until_error(d.items())
    assert dict(found) == OTHERS
    assert isinstance(error, BackendError)
    assert [type(reason) for reason in error.exceptions] == [BackendError]


def test_ten_items_that_cannot_be_read_are_all_that_is_named(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path, digest_len=0, fsync=False)
    for number in range(10):
        (tmp_path / f"k{number}.pkl").write_bytes(b"junk")
    with pytest.raises(UnreadableItemsError) as caught:
        list(d.items())
    assert caught.value.message.startswith("10 items could not be read")
    assert "more" not in caught.value.message


def test_who_catches_the_error_of_a_single_item_catches_that_of_many(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path)
    filled(d)
    break_file(d, BROKEN)
    with pytest.raises(BackendError):
        d[BROKEN]
    with pytest.raises(BackendError):
        dict(d.items())
    caught = []
    try:
        dict(d.items())
    except* BackendError as group:
        caught.append(group)
    assert len(caught) == 1


def test_who_stops_in_time_hears_of_nothing(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path)
    filled(d)
    break_file(d, BROKEN)
    entries = iter(d.items())
    assert next(entries)[1] in OTHERS.values()
    del entries


def test_an_item_of_a_database_that_cannot_be_decoded_ends_no_iteration(tmp_path: Path) -> None:
    d = filled(SQLiteDict(path=tmp_path / "x.db"))
    d.raw[BROKEN] = b"\x80not a pickle"
    assert dict(read_until_error(d.items())[0]) == OTHERS
    with pytest.raises(UnreadableItemsError) as caught:
        d.get_many(KEYS)
    assert caught.value.found == OTHERS


@pytest.mark.parametrize("wrap", ["cached", "write once"])
def test_what_stands_in_front_of_a_dictionary_goes_on_as_it_does(tmp_path: Path, wrap: str) -> None:
    main = FileDirDict[Any](base_dir=tmp_path, append_only=True)
    filled(main)
    break_file(main, BROKEN)
    d: AnyDict = (
        AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))
        if wrap == "cached"
        else WriteOnceDict(wrapped_dict=main)
    )
    for _ in range(2):
        assert dict(read_until_error(d.items())[0]) == OTHERS
        with pytest.raises(UnreadableItemsError) as caught:
            d.get_many(KEYS)
        assert caught.value.found == OTHERS


def test_a_coroutine_goes_on_as_well(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path)
    filled(d)
    break_file(d, BROKEN)

    async def read() -> dict[Any, Any]:
        found = {}
        async with AsyncDict(d) as asynchronous:
            with pytest.raises(UnreadableItemsError):
                async for key, value in asynchronous.items():
                    found[key] = value
        return found

    assert asyncio.run(read()) == OTHERS
