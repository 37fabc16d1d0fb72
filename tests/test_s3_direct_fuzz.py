"""Whatever a server sends: the right bytes or a Refusal, in bounded time and memory."""

from __future__ import annotations

import base64
import itertools
import random
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persidict.stores.s3.transport.direct.wire import DirectWire
from persidict.stores.s3.transport.messages import (
    DeleteObject,
    GetObject,
    HeadObject,
    ListObjectsV2,
    PutObject,
    Refusal,
    Request,
)
from tests.direct_wires import direct_wire
from tests.s3_servers.scripted import Arrived, HangUp, ScriptedServer, reply

pytestmark = pytest.mark.direct_wire

_READ_TIMEOUT = 0.25


def body_of(key: str) -> bytes:
    """Return what is right for a key; as long as a key says."""
    size = int(key.partition("-")[0])
    return (key.encode() * (size // len(key) + 1))[:size]


def parts_of(key: str) -> tuple[list[bytes], bytes]:
    """Return the lines of a right reply, without its length, and its body."""
    body = body_of(key)
    checksum = base64.b64encode(zlib.crc32(body).to_bytes(4, "big"))
    lines = [
        b"HTTP/1.1 200 OK",
        b'ETag: "%s"' % key.encode(),
        b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
        b"x-amz-checksum-crc32: " + checksum,
    ]
    return lines, body


def framed(lines: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""]) + body


def chunked(lines: list[bytes], body: bytes, chance: random.Random) -> bytes:
    pieces = []
    while body:
        size = chance.randint(1, len(body))
        pieces.append(b"%x;a=b\r\n%s\r\n" % (size, body[:size]))
        body = body[size:]
    head = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""])
    trailers = chance.choice([b"", b"x-trailer: 1\r\n", b"x-amz-checksum-crc32: AAAA\r\n"])
    return head + b"".join(pieces) + b"0\r\n" + trailers + b"\r\n"


BEHAVIOURS = [
    "right",
    "chunked",
    "in pieces",
    "interim",
    "flood",
    "extra",
    "twice",
    "another's",
    "too short",
    "too long",
    "two lengths",
    "length and chunks",
    "cut",
    "stalled",
    "damaged head",
    "damaged body",
    "endless head",
    "no body",
    "until the end",
    "junk",
    "nothing",
    "error",
]


class Hostile:
    """Answers requests in the ways given, one after the other."""

    def __init__(self, behaviours: list[str], seed: int) -> None:
        self._behaviours = itertools.cycle(behaviours)
        self._chance = random.Random(seed)
        self._lock = threading.Lock()

    def __call__(self, request: Arrived) -> Iterator[bytes]:
        with self._lock:
            behaviour = next(self._behaviours)
            chance = random.Random(self._chance.random())
        lines, body = parts_of(request.key)
        if request.method == "HEAD":
            right = b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""])
        else:
            right = framed(lines, body)
        yield from self._send(behaviour, chance, lines, body, right)

    def _send(
        self,
        behaviour: str,
        chance: random.Random,
        lines: list[bytes],
        body: bytes,
        right: bytes,
    ) -> Iterator[bytes]:
        match behaviour:
            case "right":
                yield right
            case "chunked":
                yield chunked(lines, body, chance)
            case "in pieces":
                at = 0
                while at < len(right):
                    size = chance.randint(1, 1 + len(right) // 3)
                    yield right[at : at + size]
                    at += size
            case "interim":
                yield (
                    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </>\r\n\r\n" + right
                )
            case "flood":
                yield b"HTTP/1.1 102 Processing\r\n\r\n" * 50 + right
            case "extra":
                yield right + chance.randbytes(chance.randint(1, 200))
            case "twice":
                yield right + right
            case "another's":
                yield right + framed(*parts_of("20-another"))
            case "too short":
                yield b"\r\n".join([*lines, b"Content-Length: %d" % (len(body) // 2), b"", body])
            case "too long":
                yield b"\r\n".join([*lines, b"Content-Length: %d" % (len(body) + 9), b"", body])
                raise HangUp
            case "two lengths":
                yield framed([*lines, b"Content-Length: 3"], body)
            case "length and chunks":
                yield framed([*lines, b"Transfer-Encoding: chunked"], body)
            case "cut":
                yield right[: chance.randrange(len(right))]
                raise HangUp
            case "stalled":
                yield right[: chance.randrange(len(right))]
                threading.Event().wait(_READ_TIMEOUT * 3)
                raise HangUp
            case "damaged head":
                head, _, rest = right.partition(b"\r\n\r\n")
                first, etag, others = head.partition(lines[1])  # nothing vouches for the ETag
                damaged = bytearray(first + others)
                place = chance.randrange(len(damaged))
                damaged[place] = chance.randrange(256)
                cut = len(first)
                yield bytes(damaged[:cut]) + etag + bytes(damaged[cut:]) + b"\r\n\r\n" + rest
                raise HangUp
            case "damaged body":
                head, end, rest = right.partition(b"\r\n\r\n")
                damaged = bytearray(rest)
                damaged[-1:] = [byte ^ 1 for byte in damaged[-1:]]  # a HEAD has none
                yield head + end + bytes(damaged)
            case "endless head":
                yield b"HTTP/1.1 200 OK\r\n"
                while True:
                    yield b"x-%d: %s\r\n" % (chance.randrange(1000), bytes(1000).hex().encode())
            case "no body":
                yield b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n" + body
            case "until the end":
                yield b"\r\n".join([*lines, b"", body])
                raise HangUp
            case "junk":
                yield chance.randbytes(chance.randint(1, 3000))
                raise HangUp
            case "nothing":
                raise HangUp
            case "error":
                yield reply(b"<Error><Code>InternalError</Code></Error>", status=500)


@pytest.fixture(scope="module")
def hostile() -> Iterator[ScriptedServer]:
    server = ScriptedServer(lambda request: b"")
    yield server
    server.stop()


def check(key: str, request: Request[Any], item: Any) -> str:
    """Check that an answer is the right one, or none; return which."""
    if isinstance(item, Refusal):
        return "refused"
    if isinstance(request, GetObject):
        assert item.etag == f'"{key}"'
        assert item.body is not None
        try:
            body = item.body.read()
        except Refusal:
            return "refused"
        assert body == body_of(key)
    elif isinstance(request, HeadObject):
        assert item.etag == f'"{key}"'
    return "answered"


def send(wire: DirectWire, request: Request[Any]) -> Any:
    try:
        return wire.send(request)
    except Refusal as refusal:
        return refusal


behaviours = st.lists(st.sampled_from(BEHAVIOURS), min_size=1, max_size=6)
sizes = st.sampled_from([0, 1, 20, 300, 70_000, 1_200_000])
kinds = st.sampled_from([GetObject, GetObject, HeadObject])


@settings(max_examples=60)
@given(behaviours, st.lists(st.tuples(sizes, kinds), min_size=1, max_size=8), st.integers())
def test_one_by_one_the_right_bytes_come_or_none(
    hostile: ScriptedServer, ways: list[str], wanted: list[tuple[int, Any]], seed: int
) -> None:
    hostile.answer = Hostile([*ways, "right"], seed)
    wire = direct_wire_to(hostile)
    for number, (size, kind) in enumerate(wanted):
        key = f"{size}-{number}"
        begun = time.monotonic()
        request = kind(key)
        check(key, request, send(wire, request))
        assert time.monotonic() - begun < 20  # one that hangs would take for ever


@settings(max_examples=40)
@given(behaviours, st.lists(st.tuples(sizes, kinds), min_size=1, max_size=20), st.integers())
def test_many_at_once_the_right_bytes_come_or_none(
    hostile: ScriptedServer, ways: list[str], wanted: list[tuple[int, Any]], seed: int
) -> None:
    hostile.answer = Hostile([*ways, "right"], seed)
    wire = direct_wire_to(hostile)
    keys = [f"{size}-{number}" for number, (size, _) in enumerate(wanted)]
    requests = [kind(key) for key, (_, kind) in zip(keys, wanted, strict=True)]
    found = list(wire.send_many(requests))
    assert len(found) == len(requests)
    for key, request, item in zip(keys, requests, found, strict=True):
        check(key, request, item)


_WIRES: dict[tuple[str, float], DirectWire] = {}


def direct_wire_to(server: ScriptedServer, read_timeout: float = _READ_TIMEOUT) -> DirectWire:
    """Return one wire for all examples, because it takes long to make a client."""
    at = server.endpoint_url, read_timeout
    if at not in _WIRES:
        _WIRES[at] = direct_wire(at[0], read_timeout=read_timeout, concurrency=4)
    return _WIRES[at]


@pytest.mark.parametrize("behaviour", [way for way in BEHAVIOURS if way != "stalled"])
def test_each_way_to_answer_leaves_the_wire_fit_for_the_next_request(
    hostile: ScriptedServer, behaviour: str
) -> None:
    wire = direct_wire_to(hostile, read_timeout=30)
    for kind in (GetObject, HeadObject):
        hostile.answer = Hostile([behaviour], 1)
        check("300-a", kind("300-a"), send(wire, kind("300-a")))
        hostile.answer = Hostile(["right"], 1)
        assert check("300-b", kind("300-b"), send(wire, kind("300-b"))) == "answered"


RIGHT = ("right", "chunked", "in pieces", "interim", "extra", "twice", "another's")


@pytest.mark.parametrize("behaviour", RIGHT)
def test_what_is_right_is_not_refused(hostile: ScriptedServer, behaviour: str) -> None:
    hostile.answer = Hostile([behaviour], 1)
    wire = direct_wire_to(hostile, read_timeout=30)
    for number in range(5):
        key = f"1200-{number}"
        assert check(key, GetObject(key), send(wire, GetObject(key))) == "answered"


@given(st.binary(max_size=2000), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", reply(b"x")[:60]]))
@settings(max_examples=60)
def test_any_bytes_at_all_are_survived(hostile: ScriptedServer, raw: bytes, start: bytes) -> None:
    def answer(request: Arrived) -> Iterator[bytes]:
        yield start + raw
        raise HangUp

    hostile.answer = answer
    wire = direct_wire_to(hostile)
    requests: list[Request[Any]] = [
        PutObject("key", b"body"),
        DeleteObject("key"),
        ListObjectsV2(),
    ]
    for request in requests:
        send(wire, request)


@pytest.mark.parametrize("behaviour", ["endless head", "endless body", "endless chunk line"])
def test_what_never_ends_does_not_fill_memory(hostile: ScriptedServer, behaviour: str) -> None:
    def answer(request: Arrived) -> Iterator[bytes]:
        if behaviour == "endless head":
            yield b"HTTP/1.1 200 OK\r\nx: "
        elif behaviour == "endless body":
            yield b"HTTP/1.1 500 X\r\n\r\n"
        else:
            yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"
        for _ in range(200):
            yield b"x" * 1_000_000

    hostile.answer = answer
    wire = direct_wire_to(hostile)
    tracemalloc.start()
    try:
        item = send(wire, ListObjectsV2())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(item, Refusal)
    # the server is in this process, and holds some, too
    assert peak < (220 if behaviour == "endless body" else 10) * 1_000_000
