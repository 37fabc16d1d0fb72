"""The direct wire carries each request once, over connections that are fit for use."""

from __future__ import annotations

import base64
import io
import os
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from persidict.exceptions import BackendError
from persidict.stores.s3.transport.direct import checksums, connections
from persidict.stores.s3.transport.direct.exchange import STREAMED_FROM
from persidict.stores.s3.transport.messages import (
    CompleteMultipartUpload,
    CopyObject,
    CreateMultipartUpload,
    DeleteObject,
    DeleteObjects,
    GetObject,
    HeadBucket,
    HeadObject,
    ListObjectsV2,
    PutObject,
    Refusal,
    UploadedPart,
    UploadPart,
)
from tests.direct_wires import direct_wire, pool_of, sent_otherwise
from tests.s3_servers.scripted import (
    Arrived,
    HangUp,
    ScriptedServer,
    error,
    make_certificate,
    reply,
    scripted,
    server_context,
)

pytestmark = pytest.mark.direct_wire


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted(lambda request: reply(b"hello")) as running:
        yield running


def refusal_of(wire: Any, request: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        wire.send(request)
    return caught.value


# ---------------------------------------------------------------------- requests


def test_what_is_sent_is_signed_and_named_as_botocore_does(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    wire.send(GetObject("a/b c+%é", byte_range=(0, 5), if_match='"1"'))
    [request] = server.arrived
    headers = request.message.headers
    assert request.target == "/bucket/a/b%20c%2B%25%C3%A9"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert headers["range"] == "bytes=0-4"
    assert headers["if-match"] == '"1"'
    assert headers["x-amz-checksum-mode"] == "ENABLED"
    assert headers["user-agent"].startswith("Boto3/")
    assert headers["accept-encoding"] == "identity"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")


def test_what_is_written_bears_the_digest_of_its_bytes(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    metadata = {"Persidict-Lineage": "a b"}
    for body in (b"body", bytearray(b"body"), memoryview(b"body")):
        wire.send(PutObject("key", body, content_type="text/plain", metadata=metadata))
    for request in server.arrived:
        headers = request.message.headers
        assert request.message.body == b"body"
        assert headers["x-amz-content-sha256"].startswith("230d8358dc8e8890b4c58deeb62912ee")
        assert headers["content-type"] == "text/plain"
        assert headers["x-amz-meta-persidict-lineage"] == "a b"


def test_the_second_checksum_is_sent_only_where_it_is_configured(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url, request_checksum_calculation="when_supported")
    wire.send(PutObject("key", b"body"))
    direct_wire(server.endpoint_url).send(PutObject("key", b"body"))
    first, second = server.arrived
    expected = base64.b64encode(zlib.crc32(b"body").to_bytes(4, "big")).decode()
    assert first.message.headers["x-amz-checksum-crc32"] == expected
    assert "x-amz-checksum-crc32" not in second.message.headers


def test_a_part_that_is_sent_again_is_sent_from_its_beginning(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    part = io.BytesIO(bytes(range(256)) * 5000)
    request = UploadPart("key", "an id+", 3, part)
    for position in (0, 77, 1_280_000):
        part.seek(position)
        wire.send(request)
    assert [item.message.body for item in server.arrived] == [part.getvalue()] * 3
    assert server.arrived[0].target == "/bucket/key?partNumber=3&uploadId=an%20id%2B"


def test_a_part_that_breaks_off_ends_its_connection(server: ScriptedServer) -> None:
    class Breaking(io.BytesIO):
        is_sent = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.is_sent and self.tell() > 500_000:
                raise InterruptedError("stop")
            return super().read(size)

        def seek(self, offset: int, whence: int = 0, /) -> int:
            self.is_sent = self.tell() > 0
            return super().seek(offset, whence)

    wire = direct_wire(server.endpoint_url)
    with pytest.raises((InterruptedError, Refusal)):
        wire.send(UploadPart("key", "id", 1, Breaking(bytes(2_000_000))))
    assert not server.arrived
    assert not pool_of(wire)._idle


@pytest.mark.parametrize(
    "request_",
    [
        PutObject("key", b"", metadata={"name": "a\r\nx-injected: 1"}),
        PutObject("key", b"", metadata={"na\r\nme": "a"}),
        PutObject("key", b"", metadata={"name": "é"}),
        PutObject("key", b"", content_type="a\nb"),
        PutObject("key", b"", if_match='"1"\r\n\r\nGET / HTTP/1.1'),
        GetObject("key", if_none_match='"1"\0'),
    ],
)
def test_what_would_add_a_line_to_the_head_is_never_sent(
    server: ScriptedServer, request_: Any
) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent|must be ASCII"):
        direct_wire(server.endpoint_url).send(request_)
    assert not server.arrived


def test_a_key_cannot_add_a_line_to_the_head(server: ScriptedServer) -> None:
    direct_wire(server.endpoint_url).send(GetObject("a\r\nx-injected: 1\r\n\r\n?b#c"))
    [request] = server.arrived
    assert request.target == "/bucket/a%0D%0Ax-injected%3A%201%0D%0A%0D%0A%3Fb%23c"
    assert "x-injected" not in request.message.headers


def test_what_the_direct_wire_does_not_know_goes_the_other_way(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    unusual = [
        HeadBucket(),
        CopyObject("key", "arn:aws:s3:eu-west-1:123456789012:accesspoint/x", "key"),
    ]
    for request in unusual:
        wire.send(request)
    assert sent_otherwise(wire) == unusual
    assert not server.arrived


def test_a_large_body_under_a_condition_waits_until_the_server_wants_it() -> None:
    def answer(request: Arrived) -> bytes:
        return reply()

    with scripted(answer) as server:
        wire = direct_wire(server.endpoint_url)
        body = bytes(3_000_000)
        wire.send(PutObject("key", body, if_none_match="*"))
        wire.send(PutObject("key", body))
    asked, unasked = server.arrived
    assert asked.message.headers["expect"] == "100-continue"
    assert "expect" not in unasked.message.headers
    assert asked.message.body == unasked.message.body == body


def test_a_large_body_that_is_refused_is_not_sent() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    received = []

    def refuse() -> None:
        sock, _ = listener.accept()
        with sock:
            received.append(sock.recv(65536))
            sock.sendall(error(412, "PreconditionFailed"))
            received.append(sock.recv(65536))

    thread = threading.Thread(target=refuse)
    thread.start()
    wire = direct_wire(f"http://127.0.0.1:{listener.getsockname()[1]}")
    refusal = refusal_of(wire, PutObject("key", bytes(3_000_000), if_match='"1"'))
    thread.join()
    listener.close()
    assert refusal.is_unmet
    assert received[0].endswith(b"\r\n\r\n")
    assert received[1] == b""


def test_the_answer_of_a_server_that_stops_reading_is_read() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1024)
            sock.sendall(error(403, "AccessDenied"))
            sock.shutdown(socket.SHUT_RD)
            sock.recv(1)

    thread = threading.Thread(target=refuse)
    thread.start()
    wire = direct_wire(f"http://127.0.0.1:{listener.getsockname()[1]}")
    refusal = refusal_of(wire, PutObject("key", bytes(20_000_000)))
    thread.join()
    listener.close()
    assert refusal.is_forbidden or refusal.status == 0


# ---------------------------------------------------------------------- replies


def test_what_an_object_is_comes_with_it(server: ScriptedServer) -> None:
    server.answer = lambda request: reply(
        b"hello", "x-amz-meta-Name: value", "Date: Sun, 06 Nov 1994 08:49:38 GMT"
    )
    found = direct_wire(server.endpoint_url).send(GetObject("key"))
    assert (found.etag, found.content_length, found.metadata) == ('"1"', 5, {"name": "value"})
    assert (found.last_modified, found.date) == (784111777.0, 784111778.0)
    assert found.body is not None
    assert [found.body.read(2), found.body.read(), found.body.read()] == [b"he", b"llo", b""]


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("Content-Range: bytes 0-4/9", None),
        ("Content-Range: bytes 1-5/9", (0, 5)),
        ("Content-Range: bytes 0-3/9", (0, 5)),
        ("Content-Range: bytes 0-5/9", (0, 5)),
        ("Content-Range: bytes 0-4/3", (0, 5)),
        ("Content-Range: bytes 4-0/9", (0, 5)),
        ("Content-Range: bytes */9", (0, 5)),
        ("Content-Range: chars 0-4/9", (0, 5)),
        ("X-Nothing: 1", (0, 5)),
    ],
)
def test_another_range_than_the_one_asked_for_is_no_answer(
    server: ScriptedServer, header: str, asked: tuple[int, int] | None
) -> None:
    server.answer = lambda request: reply(b"hello", header, status=206)
    refusal = refusal_of(direct_wire(server.endpoint_url), GetObject("key", byte_range=asked))
    assert isinstance(refusal.error, BackendError)


def test_a_range_is_told_as_it_is(server: ScriptedServer) -> None:
    server.answer = lambda request: reply(b"hello", "Content-Range: bytes 2-6/7", status=206)
    found = direct_wire(server.endpoint_url).send(GetObject("key", byte_range=(2, 100)))
    assert (found.content_range, found.size) == ((2, 7, 7), 7)


@pytest.mark.parametrize(
    "request_",
    [
        GetObject("key"),
        HeadObject("key"),
        PutObject("key", b""),
        ListObjectsV2(),
        DeleteObjects(["key"]),
        DeleteObject("key"),
        CreateMultipartUpload("key"),
        UploadPart("key", "id", 1, b"part"),
        CompleteMultipartUpload("key", "id", [UploadedPart(1, "e")]),  # type: ignore[arg-type]
        CopyObject("key", "bucket", "other"),
    ],
)
def test_a_page_of_html_is_no_answer_of_s3(server: ScriptedServer, request_: Any) -> None:
    page = b"<html><body>Log in</body></html>"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: text/html\r\n\r\n" % len(page)
    server.answer = lambda request: head + (b"" if request.method == "HEAD" else page)
    refusal = refusal_of(direct_wire(server.endpoint_url), request_)
    assert isinstance(refusal.error, BackendError)
    assert refusal.may_have_acted


@pytest.mark.parametrize("body", [b"", b"\n\n", b"<Error><Code>InternalError</Code></Error>"])
@pytest.mark.parametrize(
    "request_",
    [
        CompleteMultipartUpload("key", "id", [UploadedPart(1, "e")]),  # type: ignore[arg-type]
        CopyObject("key", "bucket", "other"),
    ],
)
def test_success_that_turns_out_a_failure_is_one(
    server: ScriptedServer, body: bytes, request_: Any
) -> None:
    server.answer = lambda request: reply(body)
    refusal = refusal_of(direct_wire(server.endpoint_url), request_)
    assert refusal.status == 500
    assert refusal.may_have_acted


def test_an_error_is_botocores_own(server: ScriptedServer) -> None:
    server.answer = lambda request: error(403, "AccessDenied")
    refusal = refusal_of(direct_wire(server.endpoint_url), GetObject("key"))
    caught: Any = refusal.error
    assert caught.response["Error"] == {"Code": "AccessDenied", "Message": "message"}
    assert caught.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert caught.operation_name == "GetObject"


def test_a_head_that_finds_nothing_has_its_status_for_a_code(server: ScriptedServer) -> None:
    server.answer = lambda request: reply(status=404)
    refusal = refusal_of(direct_wire(server.endpoint_url), HeadObject("key"))
    caught: Any = refusal.error
    assert caught.response["Error"] == {"Code": "404", "Message": "Not Found"}
    assert refusal.is_absence


def test_what_could_not_be_deleted_is_told(server: ScriptedServer) -> None:
    server.answer = lambda request: reply(
        b"<DeleteResult><Error><Key>a&amp;b</Key><Code>AccessDenied</Code>"
        b"<Message>no</Message></Error></DeleteResult>"
    )
    [(key, refusal)] = direct_wire(server.endpoint_url).send(DeleteObjects(["a&b", "c<d>"]))
    assert (key, refusal.code, refusal.status) == ("a&b", "AccessDenied", 403)
    body = server.arrived[0].message.body
    assert b"<Key>a&amp;b</Key>" in body
    assert b"<Key>c&lt;d&gt;</Key>" in body


# ---------------------------------------------------------------------- bodies


@pytest.mark.parametrize("size", [0, 1, 70_000, STREAMED_FROM, STREAMED_FROM + 1, 5_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_of_all_sizes_arrive_whole(
    server: ScriptedServer, size: int, is_chunked: bool
) -> None:
    body = os.urandom(size)
    head = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nTransfer-Encoding: chunked\r\n\r\n'
    pieces = [body[at : at + 100_000] for at in range(0, size, 100_000)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    server.answer = lambda request: head + chunks if is_chunked else reply(body)
    wire = direct_wire(server.endpoint_url)
    for _ in range(2):
        found = wire.send(GetObject("key")).body
        assert found is not None
        assert found.read() == body
    assert server.connections == 1


def test_a_large_body_is_read_into_a_buffer(server: ScriptedServer) -> None:
    body = os.urandom(3_000_000)
    server.answer = lambda request: reply(body)
    stream = direct_wire(server.endpoint_url).send(GetObject("key")).body
    assert stream is not None
    target = bytearray(len(body))
    view = memoryview(target)
    while view:
        view = view[stream.readinto(view) :]
    assert target == body
    assert stream.readinto(bytearray(10)) == 0


def test_a_body_that_is_closed_early_takes_its_connection_with_it(server: ScriptedServer) -> None:
    body = os.urandom(50_000_000)
    server.answer = lambda request: reply(body)
    wire = direct_wire(server.endpoint_url)
    stream = wire.send(GetObject("key")).body
    assert stream is not None
    assert stream.read(10) == body[:10]
    stream.close()
    server.answer = lambda request: reply(b"other")
    found = wire.send(GetObject("other")).body
    assert found is not None
    assert found.read() == b"other"


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_body_that_is_cut_is_never_taken_for_a_whole_one(
    server: ScriptedServer, size: int
) -> None:
    def answer(request: Arrived) -> Iterator[bytes]:
        yield reply(bytes(size), length=size + 1)
        raise HangUp

    server.answer = answer
    found = direct_wire(server.endpoint_url).send(GetObject("key")).body
    assert found is not None
    with pytest.raises(Refusal) as caught:
        found.read()
    assert isinstance(caught.value.error, IncompleteReadError)
    assert caught.value.is_passing


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("header", ["x-amz-checksum-crc32", "x-amz-checksum-sha256"])
def test_a_checksum_that_is_announced_is_compared(
    server: ScriptedServer, size: int, is_right: bool, header: str
) -> None:
    import hashlib

    body = os.urandom(size)
    digest = (
        zlib.crc32(body).to_bytes(4, "big")
        if header.endswith("crc32")
        else hashlib.sha256(body).digest()
    )
    text = base64.b64encode(digest if is_right else digest[::-1]).decode()
    server.answer = lambda request: reply(body, f"{header}: {text}")
    found = direct_wire(server.endpoint_url).send(GetObject("key")).body
    assert found is not None
    if is_right:
        assert found.read() == body
        return
    with pytest.raises(Refusal) as caught:
        found.read()
    assert isinstance(caught.value.error, FlexibleChecksumError)


CHECK_VALUES = {"crc32c": 0xE3069283, "crc64nvme": 0xAE8B14860A799888}
"""Of the ASCII digits from 1 to 9, as the catalogue of parametrised CRC algorithms has them."""


def check_value(name: str) -> str:
    size = 4 if name == "crc32c" else 8
    return base64.b64encode(CHECK_VALUES[name].to_bytes(size, "big")).decode()


@pytest.mark.parametrize("name", CHECK_VALUES)
@pytest.mark.parametrize("status", [200, 206])
def test_checksums_that_need_awscrt_are_compared_where_it_is_installed(
    server: ScriptedServer, name: str, status: int
) -> None:
    pytest.importorskip("awscrt")
    body = b"123456789"
    headers = [f"x-amz-checksum-{name}: {check_value(name)}"]
    if status == 206:
        headers.append("Content-Range: bytes 0-8/20")
    wire = direct_wire(server.endpoint_url)
    request = GetObject("key", byte_range=(0, 9) if status == 206 else None)
    server.answer = lambda _: reply(body, *headers, status=status)
    found = wire.send(request).body
    assert found is not None
    assert found.read() == body
    server.answer = lambda _: reply(body[::-1], *headers, status=status)
    damaged = wire.send(request).body
    assert damaged is not None
    with pytest.raises(Refusal) as caught:
        damaged.read()
    assert isinstance(caught.value.error, FlexibleChecksumError)


@pytest.mark.parametrize("name", CHECK_VALUES)
def test_the_log_says_once_that_a_checksum_is_not_compared_where_awscrt_is_missing(
    server: ScriptedServer,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(checksums.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(checksums, "_algorithms", checksums._algorithms.__wrapped__)
    checksums._tell_of_unknown.cache_clear()
    server.answer = lambda _: reply(b"123456789", f"x-amz-checksum-{name}: AAAA")
    with caplog.at_level("INFO", logger="persidict"):
        for _ in range(3):
            found = direct_wire(server.endpoint_url).send(GetObject("key")).body
            assert found is not None
            assert found.read() == b"123456789"
    told = [text for text in caplog.messages if "awscrt" in text]
    assert len(told) == 1
    assert f"checksum {name} " in told[0]


def test_a_checksum_of_checksums_is_not_compared(server: ScriptedServer) -> None:
    server.answer = lambda request: reply(b"hello", "x-amz-checksum-crc32: AAAAAA==-2")
    found = direct_wire(server.endpoint_url).send(GetObject("key")).body
    assert found is not None
    assert found.read() == b"hello"


def test_the_checksum_of_a_range_is_compared(server: ScriptedServer) -> None:
    server.answer = lambda request: reply(
        b"hello", "x-amz-checksum-crc32: AAAAAA==", "Content-Range: bytes 0-4/9", status=206
    )
    found = direct_wire(server.endpoint_url).send(GetObject("key", byte_range=(0, 5))).body
    assert found is not None
    with pytest.raises(Refusal):
        found.read()


# ---------------------------------------------------------------------- connections


def test_requests_share_a_connection(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url)
    for _ in range(20):
        wire.send(GetObject("key"))
    assert server.connections == 1


@pytest.mark.parametrize("request_", [GetObject("key"), PutObject("key", b"body")])
def test_a_connection_that_was_cut_while_idle_is_not_used(
    server: ScriptedServer, request_: Any
) -> None:
    wire = direct_wire(server.endpoint_url)
    wire.send(request_)
    server.close_connections()
    idle = pool_of(wire)._idle[0]
    assert connections.ready(idle.sock, connections.READABLE, 10)
    wire.send(request_)
    assert len(server.arrived) == 2


def test_a_connection_that_brings_what_nobody_asked_for_is_not_used(
    server: ScriptedServer,
) -> None:
    release = threading.Event()

    def answer(request: Arrived) -> Iterator[bytes]:
        yield reply(request.key.encode())
        if request.number == 0:
            release.wait(10)
            yield reply(b"a reply to nothing")

    server.answer = answer
    wire = direct_wire(server.endpoint_url)
    wire.send(GetObject("first"))
    release.set()
    assert connections.ready(pool_of(wire)._idle[0].sock, connections.READABLE, 10)
    found = wire.send(GetObject("second")).body
    assert found is not None
    assert found.read() == b"second"


def test_what_comes_behind_a_large_body_over_tls_is_no_reply_to_the_next_request(
    tmp_path: Path,
) -> None:
    """It has been decrypted with the end of the body, so that no socket shows that it is there."""
    body = os.urandom(3 * STREAMED_FROM)

    def answer(request: Arrived) -> bytes:
        if request.key == "large":
            return reply(body) + reply(b"a reply to nothing")
        return reply(request.key.encode())

    certificate = make_certificate(tmp_path, "server")
    with scripted(answer, tls=server_context(certificate)) as server:
        wire = direct_wire(server.endpoint_url, ca_bundle=str(certificate))
        for _ in range(5):
            for key, expected in (("large", body), ("small", b"small")):
                found = wire.send(GetObject(key)).body
                assert found is not None
                assert found.read() == expected


def test_a_reading_request_is_sent_again_where_an_idle_connection_was_cut_meanwhile(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = direct_wire(server.endpoint_url)
    wire.send(GetObject("key"))
    server.close_connections()
    monkeypatch.setattr(connections.Connection, "is_stale", lambda self: False)
    wire.send(GetObject("key"))
    server.close_connections()
    refusal = refusal_of(wire, PutObject("key", b"body"))
    assert isinstance(refusal.error, ConnectionClosedError)
    assert refusal.may_have_acted
    assert refusal.is_passing


@pytest.mark.parametrize("attribute", ["_LONGEST_LIFE_SECONDS", "_LONGEST_IDLE_SECONDS"])
def test_a_connection_is_used_for_a_bounded_time(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, attribute: str
) -> None:
    wire = direct_wire(server.endpoint_url)
    wire.send(GetObject("key"))
    monkeypatch.setattr(connections, attribute, -1.0)
    wire.send(GetObject("key"))
    assert server.connections == 2


def test_a_server_that_says_close_is_believed(server: ScriptedServer) -> None:
    server.answer = lambda request: reply(b"", "Connection: close")
    wire = direct_wire(server.endpoint_url)
    wire.send(GetObject("key"))
    wire.send(GetObject("key"))
    assert server.connections == 2
    assert not pool_of(wire)._idle


def test_no_more_connections_than_needed_are_kept(server: ScriptedServer) -> None:
    wire = direct_wire(server.endpoint_url, concurrency=2)
    pool = pool_of(wire)
    taken = [pool.open() for _ in range(9)]
    for connection in taken:
        pool.give_back(connection)
    assert len(pool._idle) == 4


def test_a_server_that_does_not_answer_is_given_up(server: ScriptedServer) -> None:
    release = threading.Event()

    def answer(request: Arrived) -> bytes:
        release.wait(20)
        return reply()

    server.answer = answer
    refusal = refusal_of(direct_wire(server.endpoint_url, read_timeout=0.3), PutObject("key", b""))
    release.set()
    assert isinstance(refusal.error, ReadTimeoutError)
    assert refusal.may_have_acted
    assert not refusal.is_quick


def test_a_head_that_trickles_in_is_given_up(server: ScriptedServer) -> None:
    stop = threading.Event()

    def answer(request: Arrived) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nx: "
        while not stop.wait(0.05):
            yield b"y"

    server.answer = answer
    refusal = refusal_of(direct_wire(server.endpoint_url, read_timeout=0.5), GetObject("key"))
    stop.set()
    assert isinstance(refusal.error, ReadTimeoutError)


def test_a_body_that_stops_arriving_is_given_up(server: ScriptedServer) -> None:
    release = threading.Event()

    def answer(request: Arrived) -> Iterator[bytes]:
        yield reply(bytes(3_000_000), length=4_000_000)
        release.wait(20)

    server.answer = answer
    found = direct_wire(server.endpoint_url, read_timeout=0.3).send(GetObject("key")).body
    assert found is not None
    with pytest.raises(Refusal) as caught:
        found.read()
    release.set()
    assert isinstance(caught.value.error, ReadTimeoutError)


def test_a_port_where_nobody_listens_is_no_sent_request() -> None:
    refusal = refusal_of(direct_wire("http://127.0.0.1:9"), PutObject("key", b""))
    assert isinstance(refusal.error, EndpointConnectionError)
    assert not refusal.may_have_acted
    assert refusal.is_passing


def test_a_host_that_does_not_exist_is_no_sent_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    wire = direct_wire("http://nowhere.invalid")
    pool_of(wire)
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    refusal = refusal_of(wire, PutObject("key", b""))
    assert isinstance(refusal.error, EndpointConnectionError)
    assert not refusal.may_have_acted


def test_a_host_that_does_not_accept_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        at = listener.getsockname()
        waiting = []
        for _ in range(4):  # the queue of the listener is full now
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(at)
            waiting.append(sock)
        wire = direct_wire(f"http://127.0.0.1:{at[1]}", connect_timeout=0.3)
        refusal = refusal_of(wire, PutObject("key", b""))
        for sock in waiting:
            sock.close()
    assert isinstance(refusal.error, ConnectTimeoutError)
    assert not refusal.may_have_acted


def test_the_next_address_of_a_host_is_tried(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = direct_wire(server.endpoint_url)
    pool = pool_of(wire)
    kind = socket.AF_INET, socket.SOCK_STREAM, 0, ""
    found = [(*kind, ("127.0.0.1", 9)), (*kind, ("127.0.0.1", server.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    for _ in range(3):
        connection = pool.open()
        assert connection.sock.getpeername()[1] == server.port
        connection.close()


def test_ipv6_is_spoken() -> None:
    try:
        running = ScriptedServer(lambda request: reply(b"six"), address="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    found = direct_wire(running.endpoint_url).send(GetObject("key")).body
    expected = f"[::1]:{running.port}"
    running.stop()
    assert found is not None
    assert found.read() == b"six"
    assert running.arrived[0].message.headers["host"] == expected


def test_without_credentials_nothing_is_sent(server: ScriptedServer) -> None:
    class None_:
        def get_frozen_credentials(self) -> Any:
            raise NoCredentialsError

    refusal = refusal_of(
        direct_wire(server.endpoint_url, credentials=None_()), PutObject("key", b"")
    )
    assert isinstance(refusal.error, NoCredentialsError)
    assert not refusal.may_have_acted
    assert not refusal.is_passing


def test_an_interruption_closes_the_connection(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = direct_wire(server.endpoint_url)
    wire.send(GetObject("key"))
    pool = pool_of(wire)
    [connection] = pool._idle

    class Interrupting:
        """A socket on which Ctrl-C arrives while it waits for the reply."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

        def recv(self, size: int) -> bytes:
            raise KeyboardInterrupt

    connection.sock = Interrupting(connection.sock)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        wire.send(GetObject("key"))
    assert connection.sock.fileno() == -1
    assert not pool._idle


# ---------------------------------------------------------------------- TLS


def test_tls_trusts_whom_the_bundle_names(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "server")
    with scripted(lambda request: reply(b"safe"), tls=server_context(certificate)) as server:
        wire = direct_wire(server.endpoint_url, ca_bundle=str(certificate))
        for _ in range(3):
            found = wire.send(GetObject("key")).body
            assert found is not None
            assert found.read() == b"safe"
        body = os.urandom(5_000_000)
        wire.send(PutObject("key", body))
        assert server.arrived[-1].message.body == body
        assert server.connections == 1


def test_tls_does_not_trust_anybody_else(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "server")
    other = make_certificate(tmp_path, "other")
    with scripted(lambda request: reply(), tls=server_context(certificate)) as server:
        wire = direct_wire(server.endpoint_url, ca_bundle=str(other))
        refusal = refusal_of(wire, PutObject("key", b""))
    assert isinstance(refusal.error, SSLError)
    assert not refusal.may_have_acted
    assert not server.arrived


def test_a_certificate_for_another_name_is_not_trusted(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "server")
    with scripted(lambda request: reply(), tls=server_context(certificate)) as server:
        url = server.endpoint_url.replace("127.0.0.1", "localhost")
        refusal = refusal_of(direct_wire(url, ca_bundle=str(certificate)), GetObject("key"))
    assert isinstance(refusal.error, SSLError)


def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "server")
    mine = make_certificate(tmp_path, "client")
    context = server_context(certificate, client_ca=mine)
    with scripted(lambda request: reply(b"welcome"), tls=context) as server:
        settings = {"ca_bundle": str(certificate)}
        wire = direct_wire(server.endpoint_url, client_cert=str(mine), **settings)
        found = wire.send(GetObject("key")).body
        assert found is not None
        assert found.read() == b"welcome"
        refusal_of(direct_wire(server.endpoint_url, **settings), GetObject("key"))
