"""Which wire is chosen and why, and what holds on both: nobody has to know which one it is."""

from __future__ import annotations

import gc
import io
import logging
import pickle
import socket
import sys
import threading
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from moto import mock_aws

from persidict import get_safe_chars, sync_items
from persidict.basic_s3_dict import BasicS3Dict
from persidict.local_dict import LocalDict
from persidict.s3_dict_file_dir_cached import S3Dict
from persidict.stores.s3.transport.direct.destination import (
    NotForTheDirectWire,
    learn_destination,
)
from tests.concurrency import run_workers
from tests.s3_dicts import connect, elsewhere_or_skip, short_pauses
from tests.s3_servers.canned import CannedServer, start_canned
from tests.s3_servers.clients import s3_client
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.scripted import Arrived, HangUp, ScriptedServer, reply, scripted

__all__ = ["short_pauses"]

BUCKET = "some-bucket"
ACCESS_POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/point"


@pytest.fixture(scope="module")
def server() -> Iterator[CannedServer]:
    with start_canned() as running:
        yield running


def client_of(region: str = "eu-west-1", endpoint_url: str | None = None, **config: Any) -> Any:
    return boto3.client(
        "s3",
        region_name=region,
        endpoint_url=endpoint_url,
        aws_access_key_id="access",
        aws_secret_access_key="secret",
        config=Config(**config),
    )


# ---------------------------------------------------------------------- where requests go


@pytest.mark.parametrize(
    ("bucket", "config", "url", "region"),
    [
        (BUCKET, {}, "https://some-bucket.s3.eu-west-1.amazonaws.com/", "eu-west-1"),
        (
            BUCKET,
            {"s3": {"addressing_style": "path"}},
            "https://s3.eu-west-1.amazonaws.com/some-bucket/",
            "eu-west-1",
        ),
        ("dotted.bucket", {}, "https://s3.eu-west-1.amazonaws.com/dotted.bucket/", "eu-west-1"),
        (
            BUCKET,
            {"s3": {"use_dualstack_endpoint": True}},
            "https://some-bucket.s3.dualstack.eu-west-1.amazonaws.com/",
            "eu-west-1",
        ),
        (
            BUCKET,
            {"s3": {"use_accelerate_endpoint": True}},
            "https://some-bucket.s3-accelerate.amazonaws.com/",
            "eu-west-1",
        ),
        (
            BUCKET,
            {"region": "us-east-1", "use_fips_endpoint": True},
            "https://some-bucket.s3-fips.us-east-1.amazonaws.com/",
            "us-east-1",
        ),
        (
            ACCESS_POINT,
            {},
            "https://point-123456789012.s3-accesspoint.eu-west-1.amazonaws.com/",
            "eu-west-1",
        ),
        (
            BUCKET,
            {"endpoint_url": "http://127.0.0.1:9000"},
            "http://127.0.0.1:9000/some-bucket/",
            "eu-west-1",
        ),
        (
            BUCKET,
            {"endpoint_url": "https://example.org/deep/down"},
            "https://example.org/deep/down/some-bucket/",
            "eu-west-1",
        ),
        (
            BUCKET,
            {"endpoint_url": "http://[::1]:9000"},
            "http://[::1]:9000/some-bucket/",
            "eu-west-1",
        ),
    ],
)
def test_the_destination_is_the_one_that_botocore_finds(
    bucket: str, config: dict[str, Any], url: str, region: str
) -> None:
    destination = learn_destination(client_of(**config), bucket)
    assert (destination.url, destination.scope) == (url, (region, "s3"))


@pytest.mark.parametrize(
    ("bucket", "config"),
    [
        ("directory--euw1-az1--x-s3", {}),
        (BUCKET, {"signature_version": "s3"}),
        (BUCKET, {"signature_version": UNSIGNED}),
        (BUCKET, {"proxies": {"https": "http://127.0.0.1:9"}}),
    ],
)
def test_what_is_unusual_is_left_to_botocore(bucket: str, config: dict[str, Any]) -> None:
    with pytest.raises(NotForTheDirectWire):
        learn_destination(client_of(**config), bucket)


def test_a_proxy_of_the_environment_is_left_to_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(NotForTheDirectWire):
        learn_destination(client_of(), BUCKET)
    assert learn_destination(client_of(endpoint_url="http://127.0.0.1:9"), BUCKET)


def test_the_rehearsal_is_never_sent() -> None:
    with scripted(lambda request: reply()) as server:
        learn_destination(client_of(endpoint_url=server.endpoint_url), BUCKET)
        assert not server.arrived


# ---------------------------------------------------------------------- the choice


@pytest.mark.direct_wire
def test_the_direct_wire_is_the_default(
    server: CannedServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="persidict"):
        d = connect(server.endpoint_url)
        d["key"] = 1
    assert repr(d.transport).startswith("<direct wire to ")
    assert server.endpoint_url in repr(d.transport)
    assert any("travel directly" in record.getMessage() for record in caplog.records)


def test_botocore_is_used_where_that_is_asked_for(server: CannedServer) -> None:
    d = connect(server.endpoint_url, transport="botocore")
    d["key"] = 1
    assert d["key"] == 1
    assert repr(d.transport).startswith("<botocore wire to ")


def test_a_ready_client_is_used_as_it_is(server: CannedServer) -> None:
    client = s3_client(server.endpoint_url)
    d: BasicS3Dict[int] = BasicS3Dict(bucket_name="ready", s3_client=client)
    d["key"] = 1
    assert "a ready client" in repr(d.transport)
    with pytest.raises(ValueError, match="s3_client"):
        BasicS3Dict(bucket_name="ready", s3_client=client, transport="direct")


@pytest.mark.direct_wire
def test_the_reason_is_told_and_logged(
    server: CannedServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="persidict"):
        d = connect(server.endpoint_url, boto_config={"signature_version": "s3"})
        d["key"] = 1
        assert d["key"] == 1
    assert "not signed with SigV4" in repr(d.transport)
    assert any("not signed with SigV4" in record.getMessage() for record in caplog.records)


def test_the_direct_wire_can_be_insisted_on(server: CannedServer) -> None:
    assert "direct wire" in repr(connect(server.endpoint_url, transport="direct").transport)
    with pytest.raises(ValueError, match="transport cannot be 'direct'"):
        connect(
            server.endpoint_url, transport="direct", boto_config={"signature_version": "s3"}
        ).clear()


@pytest.mark.parametrize(
    ("given", "error"), [("fast", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)]
)
def test_another_transport_is_refused_by_name(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="transport"):
        BasicS3Dict(bucket_name=BUCKET, transport=given, create_bucket=False)


def test_the_choice_travels_with_a_handle(server: CannedServer) -> None:
    d = connect(server.endpoint_url, transport="botocore")
    assert d.get_params()["transport"] == "botocore"
    assert pickle.loads(pickle.dumps(d)).get_params() == d.get_params()
    assert d.get_subdict("some").get_params()["transport"] == "botocore"


# ---------------------------------------------------------------------- who listens


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("a request went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("class_", [BasicS3Dict, S3Dict])
def test_mock_aws_intercepts_everything(class_: Any, tmp_path: Path) -> None:
    source: LocalDict[Any] = LocalDict()
    source.update({f"other-{number}": number for number in range(20)})
    params: dict[str, Any] = {"base_dir": tmp_path} if class_ is S3Dict else {}
    for _ in range(2):  # the second time in another world
        with mock_aws():
            d = class_(
                bucket_name=f"mocked-{uuid.uuid4().hex}",
                region="eu-west-1",
                large_object_size=6 * 1024 * 1024,
                **params,
            )
            wire = "direct" if d.get_params()["transport"] == "auto" else "botocore"
            assert repr(d.transport).startswith(f"<{wire} wire")
            d.update({f"key-{number}": number for number in range(40)})
            assert dict(d.items()) == {(f"key-{number}",): number for number in range(40)}
            assert d.transform_item("key-1", transformer=lambda value: value + 1).new_value == 2
            assert "key-2" in d
            assert "absent" not in d
            d["large"] = bytes(13_000_000)
            assert d["large"] == bytes(13_000_000)
            del d["key-3"]
            sync_items(source, d)
            d.clear()
            assert len(d) == 0


def test_listeners_hear_of_each_request_and_may_add_headers() -> None:
    heard: Counter[str] = Counter()

    def listen(request: Any, event_name: str, **kwargs: Any) -> None:
        heard[event_name] += 1
        assert request.headers["Authorization"]
        request.headers["X-Added"] = "by a listener"

    def answer(request: Arrived) -> bytes:
        return reply(request.key.encode() if request.method == "GET" else b"")

    with scripted(answer) as server:
        d = connect(server.endpoint_url, create_bucket=False)
        d.s3_client.meta.events.register("before-send.s3", listen)
        assert list(d._store.get_many(["a", "b", "c"]))
        assert d._store.get("d")
        d._store.put("e", bytearray(b"body"))
    assert heard == {"before-send.s3.GetObject": 4, "before-send.s3.PutObject": 1}
    assert {item.message.headers["x-added"] for item in server.arrived} == {"by a listener"}


REDIRECTIONS = {
    "another signature": (400, "AuthorizationHeaderMalformed"),
    "for good": (301, "PermanentRedirect"),
    "for now": (307, "TemporaryRedirect"),
}


def _elsewhere(name: str, here: list[Arrived], there: list[Arrived]) -> Callable[[Arrived], bytes]:
    """Answer as S3 does where the bucket lies in another region: in eu-west-3."""
    status, code = REDIRECTIONS[name]

    def answer(request: Arrived) -> bytes:
        region = request.message.headers["authorization"].split("/")[2]
        if region == "eu-west-3":
            there.append(request)
            return reply(request.key.encode() if request.method == "GET" else b"")
        here.append(request)
        text = f"<Error><Code>{code}</Code><Message>no</Message><Region>eu-west-3</Region></Error>"
        body = b"" if request.method == "HEAD" else text.encode()
        headers = ["x-amz-bucket-region: eu-west-3", "Content-Type: application/xml"]
        return reply(body, *headers, status=status)

    return answer


def _sent_directly(request: Arrived) -> bool:
    return "amz-sdk-invocation-id" not in request.message.headers


@pytest.mark.direct_wire
@pytest.mark.parametrize("name", REDIRECTIONS)
@pytest.mark.parametrize("first", ["get", "put", "contains"])
def test_a_redirection_is_followed_by_botocore_and_then_known(name: str, first: str) -> None:
    here: list[Arrived] = []
    there: list[Arrived] = []
    with scripted(_elsewhere(name, here, there)) as server:
        d = connect(server.endpoint_url, create_bucket=False)
        act: dict[str, Callable[[], object]] = {
            "get": lambda: d._store.get("key"),
            "put": lambda: d._store.put("key", b"body"),
            "contains": lambda: d._store.contains("key"),
        }
        act[first]()
        assert [_sent_directly(request) for request in there] == [False]
        assert repr(d.transport).startswith("<direct wire")
        assert "eu-west-3" in repr(d.transport)
        seen_here = len(here)
        for other in act.values():
            other()
        assert len(here) == seen_here
        assert [_sent_directly(request) for request in there[1:]] == [True] * 3


@pytest.mark.parametrize("name", REDIRECTIONS)
def test_a_bulk_that_is_redirected_reads_and_writes_all_of_it(name: str) -> None:
    here: list[Arrived] = []
    there: list[Arrived] = []
    keys = [f"key-{number:03}" for number in range(200)]
    with scripted(_elsewhere(name, here, there)) as server:
        d = connect(server.endpoint_url, create_bucket=False)
        found = [(key, bytes(data)) for key, data, _ in d._store.get_many(keys)]
        assert found == [(key, key.encode()) for key in keys]
        assert Counter(request.key for request in there) == Counter(keys)
        there.clear()
        outcomes = list(d._store.put_many((key, b"body") for key in keys))
        assert [key for key, _ in outcomes] == keys
        assert not [etag for _, etag in outcomes if isinstance(etag, Exception)]
        assert Counter(request.key for request in there) == Counter(keys)
        is_direct = repr(d.transport).startswith("<direct wire")
        assert {_sent_directly(request) for request in there} == {is_direct}


# ---------------------------------------------------------------------- listings


def _page(request: Arrived) -> bytes:
    """Return one of five pages, of one object each."""
    _, _, rest = request.target.partition("continuation-token=")
    number = int(rest.partition("&")[0] or 0)
    entry = (
        f"<Contents><Key>{number}.pkl</Key><LastModified>2024-01-01T00:00:00Z</LastModified>"
        "<ETag>&quot;1&quot;</ETag><Size>1</Size></Contents>"
    )
    token = f"<NextContinuationToken>{number + 1}</NextContinuationToken>"
    more = f"<IsTruncated>true</IsTruncated>{token}"
    end = more if number < 4 else "<IsTruncated>false</IsTruncated>"
    return reply(f"<ListBucketResult>{entry}{end}</ListBucketResult>".encode())


@pytest.mark.parametrize("transport", ["auto", "botocore"])
def test_a_page_is_read_ahead_from_the_second_one_on(transport: str) -> None:
    arrived = threading.Semaphore(0)

    def answer(request: Arrived) -> bytes:
        arrived.release()
        return _page(request)

    with scripted(answer) as server:
        d = connect(server.endpoint_url, create_bucket=False, transport=transport)
        names = d._store.names()
        assert next(names) == "0.pkl"
        assert arrived.acquire(timeout=10)
        assert len(server.arrived) == 1
        assert next(names) == "1.pkl"
        assert arrived.acquire(timeout=10)
        assert arrived.acquire(timeout=10)  # the third page, which nobody has asked for yet
        assert [*names] == ["2.pkl", "3.pkl", "4.pkl"]
        assert len(server.arrived) == 5


# ---------------------------------------------------------------------- trouble, and much of it


@pytest.mark.slow
def test_a_storm_of_slow_down_over_5000_items_loses_none_and_writes_none_twice(
    server: CannedServer,
) -> None:
    with FaultProxy(server.endpoint_url) as proxy:
        d = connect(proxy.endpoint_url)
        values = {f"key-{number:05d}": number for number in range(5000)}
        proxy.fail_randomly({Fault.SLOW_DOWN: 0.2}, seed=1)
        server.reset_counts()
        d.update(values)
        assert server.counts()["PutObject"] == 5000
        proxy.calm()
        assert {key[0]: value for key, value in d.items()} == values
        assert proxy.injected()[Fault.SLOW_DOWN] > 900


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a minute on a machine with nothing else to do
def test_100_000_requests_leave_memory_and_descriptors_as_they_were(server: CannedServer) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    d = connect(server.endpoint_url)
    keys = [f"key-{number:04d}" for number in range(1000)]
    d.update(dict.fromkeys(keys, 1))

    def work(rounds: int) -> None:
        for _ in range(rounds):
            for _ in d.get_many(keys):
                pass
            for key in keys[:100]:
                d[key] = d[key]

    work(2)
    tracemalloc.start()
    work(5)
    gc.collect()  # botocore leaves cycles behind, which are freed now and then
    held, _ = tracemalloc.get_traced_memory()
    work(15)
    gc.collect()
    held_later, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()  # it makes a request take three times as long
    blocks = sys.getallocatedblocks()
    work(63)
    gc.collect()
    assert held_later < held + 96_000
    assert sys.getallocatedblocks() < blocks + 5_000
    if before:
        most_connections = d.get_params()["max_concurrency"]
        assert len(list(descriptors.iterdir())) <= before + most_connections + 2


KEYS = [
    "".join(sorted(get_safe_chars())),
    "()_-~.=",
    "a.b..c",
    "...",
    ".hidden",
    "~",
    "=",
]


@pytest.mark.slow
def test_signatures_are_right_on_a_server_that_checks_them() -> None:
    """By hand, on the server that the environment names."""
    endpoint_url, access_key_id, secret_access_key = elsewhere_or_skip()
    for prefix in ("plain", "with space", "ünïcode/日本", "plus+and%25percent", "a..b/c.d"):
        d = connect(endpoint_url, access_key_id, secret_access_key, root_prefix=prefix)
        assert repr(d.transport).startswith("<direct wire")
        for key in KEYS:
            d[key] = key
            assert d[key] == key
            assert key in d
        assert dict(d.items()) == {(key,): key for key in KEYS}
        d.update({f"many-{number}": number for number in range(50)})
        assert len(d) == 50 + len(KEYS)
        d["large"] = bytes(20_000_000)
        assert d["large"] == bytes(20_000_000)
        d.clear()
        assert len(d) == 0


def test_a_wrong_secret_is_told_as_s3_tells_it() -> None:
    endpoint_url, access_key_id, _ = elsewhere_or_skip()
    d = connect(endpoint_url, access_key_id, "wrong", create_bucket=False)
    with pytest.raises(Exception, match="SignatureDoesNotMatch") as caught:
        d["key"]
    assert "check the credentials" in "".join(caught.value.__notes__)


def test_bodies_are_the_same_on_both_wires(server: CannedServer) -> None:
    bucket = f"both-{uuid.uuid4().hex}"
    direct = connect(server.endpoint_url, bucket_name=bucket)
    botocore = connect(server.endpoint_url, bucket_name=bucket, transport="botocore")
    for size in (0, 1, 70_000, 1_100_000, 17_000_000):
        data = (io.BytesIO(bytes(range(256)) * (size // 256 + 1)).read())[:size]
        direct._store.put("a", data)
        botocore._store.put("b", data)
        for store in (direct._store, botocore._store):
            for name in ("a", "b"):
                found: Any = store.get(name)
                assert bytes(found[0]) == data
                [(_, many, _)] = store.get_many([name])
                assert bytes(many) == data


class Objects:
    """Answers as a bucket does, and closes a connection after every third reply on it."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self._objects: dict[str, tuple[bytes, list[str]]] = {}
        self._replies: Counter[int] = Counter()

    def __call__(self, request: Arrived) -> bytes:
        answer = self._reply(request)
        self._replies[request.connection] += 1
        if self._replies[request.connection] % 3 == 0:
            raise HangUp(answer)
        return answer

    def _reply(self, request: Arrived) -> bytes:
        message = request.message
        if request.method == "PUT":
            tokens = [f"{n}: {v}" for n, v in message.headers.items() if n.startswith("x-amz-meta")]
            self._objects[request.key] = message.body, tokens
            self.written[request.key] += 1
            return reply()
        if request.key not in self._objects:
            return reply(status=404)
        body, tokens = self._objects[request.key]
        if request.method == "HEAD":
            return reply(b"", *tokens, length=len(body))
        return reply(body, *tokens)


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def closing(objects: Objects) -> Iterator[ScriptedServer]:
    with scripted(objects) as running:
        yield running


@pytest.mark.usefixtures("short_pauses")
def test_behind_a_server_that_closes_after_every_few_replies_all_is_read_and_written_once(
    closing: ScriptedServer, objects: Objects
) -> None:
    d = connect(closing.endpoint_url, create_bucket=False)
    values = {f"key-{number:03}": number for number in range(100)}
    d.update(values)
    d["alone"] = -1
    assert list(d.get_many(values).values()) == list(values.values())
    assert d["alone"] == -1
    assert objects.written == Counter([f"{key}.pkl" for key in [*values, "alone"]])


@pytest.mark.parametrize("name", ["get", "set", "contains", "get_many", "update"])
def test_connections_that_were_cut_while_idle_are_not_noticed(
    closing: ScriptedServer, objects: Objects, name: str
) -> None:
    d = connect(closing.endpoint_url, create_bucket=False)
    values = {f"key-{number}": number for number in range(20)}
    d.update(values)
    written = objects.written.copy()
    closing.close_connections()
    if name == "get":
        assert d["key-1"] == 1
    elif name == "contains":
        assert "key-1" in d
    elif name == "get_many":
        assert list(d.get_many(values).values()) == list(values.values())
    elif name == "set":
        d["key-1"] = 1
        written["key-1.pkl"] += 1
    else:
        d.update(values)
        written.update(f"{key}.pkl" for key in values)
    assert objects.written == written


def use(d: BasicS3Dict[Any], name: str) -> None:
    """Write and read items that nobody else has."""
    values = {f"{name}-{number}": f"{name}-{number}" for number in range(20)}
    d.update(values)
    assert list(d.get_many(values).values()) == list(values.values())
    d[name] = name
    assert d[name] == name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_thirty_children_forked_under_load_read_and_write_what_is_theirs(
    server: CannedServer,
) -> None:
    d = connect(server.endpoint_url, max_concurrency=4)
    stop = threading.Event()

    def load(name: str) -> None:
        while not stop.is_set():
            use(d, name)

    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(load, f"parent-{number}") for number in range(3)]
        try:
            for number in range(30):
                name = f"child-{number}"
                run_workers(lambda: d, lambda d, place, name: use(d, name), name, count=1)
        finally:
            stop.set()
        for load_ in loads:
            load_.result()
    assert len(d) == 33 * 21
