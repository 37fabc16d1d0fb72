"""Replies are read as RFC 9112 has them, however they arrive, and refused where they are none."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persidict.stores.s3.transport.direct.reply_parser import (
    MOST_HEAD_BYTES,
    MalformedReply,
    ReplyParser,
)

pytestmark = pytest.mark.direct_wire

OK = b"HTTP/1.1 200 OK\r\n"


def feed_all(raw: bytes, method: str = "GET", cuts: tuple[int, ...] = ()) -> ReplyParser:
    """Feed a reply, cut at these places."""
    parser = ReplyParser(method)
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(raw)), len(raw)]
    for start, stop in itertools.pairwise(places):
        parser.feed(raw[start:stop])
    return parser


def chunked(body: bytes, sizes: list[int], trailers: bytes = b"") -> bytes:
    """Return a body in chunks."""
    pieces = []
    at = 0
    for size in sizes:
        piece = body[at : at + size]
        at += len(piece)
        if piece:
            pieces.append(b"%x;note=1\r\n%s\r\n" % (len(piece), piece))
    if body[at:]:
        pieces.append(b"%X\r\n%s\r\n" % (len(body) - at, body[at:]))
    return b"".join([*pieces, b"0\r\n", trailers, b"\r\n"])


bodies = st.binary(max_size=300)
cuts = st.lists(st.integers(0, 600), max_size=8).map(tuple)


@given(bodies, cuts)
def test_a_body_of_known_length_arrives_however_it_is_cut(body: bytes, cuts: tuple[int]) -> None:
    raw = OK + b'Content-Length: %d\r\nETag: "1"\r\n\r\n' % len(body) + body
    parser = feed_all(raw, cuts=cuts)
    assert (parser.is_complete, parser.is_reusable, parser.take()) == (True, True, body)
    assert parser.headers["etag"] == '"1"'


@given(bodies, st.lists(st.integers(1, 90), max_size=5), cuts, st.booleans())
def test_a_body_in_chunks_arrives_however_it_is_cut(
    body: bytes, sizes: list[int], cuts: tuple[int], has_trailers: bool
) -> None:
    trailers = b"x-amz-checksum-crc32: AAAAAA==\r\nx-other: 1\r\n" if has_trailers else b""
    raw = OK + b"Transfer-Encoding: Chunked\r\n\r\n" + chunked(body, sizes, trailers)
    parser = feed_all(raw, cuts=cuts)
    assert (parser.is_complete, parser.is_reusable, parser.take()) == (True, True, body)
    assert "x-amz-checksum-crc32" not in parser.headers


@given(bodies, st.integers(0, 400))
def test_a_reply_that_is_cut_short_is_never_complete(body: bytes, length: int) -> None:
    raw = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    parser = feed_all(raw[: min(length, len(raw) - 1)])
    assert not parser.is_complete
    assert not parser.end()


@given(bodies, st.lists(st.integers(1, 90), max_size=5), st.integers(0, 600))
def test_chunks_that_are_cut_short_are_never_complete(
    body: bytes, sizes: list[int], length: int
) -> None:
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, sizes)
    parser = feed_all(raw[: min(length, len(raw) - 1)])
    assert not parser.is_complete
    assert not parser.end()


@given(bodies, st.binary(min_size=1, max_size=50), cuts)
def test_a_connection_that_brought_more_than_announced_is_not_used_again(
    body: bytes, extra: bytes, cuts: tuple[int]
) -> None:
    raw = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body + extra
    parser = feed_all(raw, cuts=cuts)
    assert (parser.is_complete, parser.is_reusable, parser.take()) == (True, False, body)


@given(bodies, st.binary(min_size=1, max_size=50), cuts)
def test_bytes_behind_the_last_chunk_end_the_connection(
    body: bytes, extra: bytes, cuts: tuple[int]
) -> None:
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body, []) + extra
    parser = feed_all(raw, cuts=cuts)
    assert (parser.is_complete, parser.is_reusable, parser.take()) == (True, False, body)


@given(st.binary(max_size=400), cuts)
def test_anything_at_all_is_a_reply_or_refused(raw: bytes, cuts: tuple[int]) -> None:
    for start in (
        b"",
        OK,
        OK + b"Content-Length: 3\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
    ):
        try:
            parser = feed_all(start + raw, cuts=cuts)
        except MalformedReply:
            continue
        assert parser.buffered <= len(raw)


@given(st.text(alphabet="HTP/1.0 2\r\n:abcContent-Length5;\t", max_size=200), cuts)
def test_how_a_reply_is_cut_does_not_change_how_it_is_read(text: str, cuts: tuple[int]) -> None:
    def outcome(cuts: tuple[int, ...]) -> object:
        try:
            parser = feed_all(OK + text.encode(), cuts=cuts)
        except MalformedReply:
            return "refused"
        return parser.is_complete, parser.is_reusable, parser.status, parser.headers, parser.take()

    assert outcome(cuts) == outcome(())


LINES = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.0 404 Not Found\r\n",
    b"content-length: 3\r\n",
    b"Content-Length:  3 \r\n",
    b"Content-Length: 4\r\n",
    b"Content-Length: 03\r\n",
    b"Content-Length: +3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Connection: close\r\n",
    b" folded\r\n",
    b"No-Colon\r\n",
    b"Name : value\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"abc",
    b"3\r\nabc\r\n",
    b"3;a=b\r\nabc\r\n",
    b"0x3\r\nabc\r\n",
    b"2\r\nabc\r\n",
    b"-1\r\n",
    b"0\r\n",
    b"Trailer: 1\r\n",
    OK,
]


def read_by_another(raw: bytes, method: str) -> tuple[int, bytes] | None:
    """Return the status and the body that h11 reads, None where it refuses."""
    other = h11.Connection(h11.CLIENT)
    other.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    other.send(h11.EndOfMessage())
    other.receive_data(raw)
    status, body, has_ended = 0, b"", False
    try:
        while True:
            event = other.next_event()
            if event is h11.NEED_DATA and not has_ended:
                other.receive_data(b"")
                has_ended = True
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return status, body
    except h11.RemoteProtocolError:
        return None


@settings(max_examples=500)
@given(st.lists(st.sampled_from(LINES), max_size=10), cuts, st.sampled_from(["GET", "HEAD", "PUT"]))
def test_what_is_taken_for_a_whole_reply_is_one_for_another_strict_parser_too(
    lines: list[bytes], cuts: tuple[int], method: str
) -> None:
    raw = OK + b"".join(lines)
    try:
        parser = feed_all(raw, method, cuts)
    except MalformedReply:
        return
    if parser.is_complete or parser.end():
        assert read_by_another(raw, method) == (parser.status, parser.take())


@pytest.mark.parametrize("status", [204, 304])
def test_replies_of_some_statuses_have_no_body(status: int) -> None:
    parser = feed_all(b"HTTP/1.1 %d X\r\nETag: 1\r\n\r\n" % status)
    assert (parser.is_complete, parser.is_reusable) == (True, True)


def test_a_body_behind_a_204_ends_the_connection() -> None:
    for raw in (b"Content-Length: 4\r\n\r\nbody", b"Content-Length: 4\r\n\r\n", b"\r\nbody"):
        parser = feed_all(b"HTTP/1.1 204 X\r\n" + raw, method="DELETE")
        assert (parser.is_complete, parser.is_reusable, parser.take()) == (True, False, b"")


def test_the_reply_to_head_has_a_length_and_no_body() -> None:
    parser = feed_all(OK + b"Content-Length: 400\r\n\r\n", method="HEAD")
    assert (parser.is_complete, parser.is_reusable, parser.length) == (True, True, 400)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    parser = feed_all(OK + b"\r\nbody")
    assert not parser.is_complete
    assert parser.end()
    assert (parser.take(), parser.is_reusable, parser.length) == (b"body", False, None)


def test_interim_replies_are_passed_over() -> None:
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n" + OK
    for cut in range(len(raw)):
        parser = feed_all(raw + b"Content-Length: 1\r\n\r\nx", cuts=(cut,))
        assert (parser.status, parser.take(), "link" in parser.headers) == (200, b"x", False)


@pytest.mark.parametrize(
    "tail", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], ids=["endless", "ended"]
)
def test_a_flood_of_interim_replies_is_refused(tail: bytes) -> None:
    with pytest.raises(MalformedReply):
        feed_all(b"HTTP/1.1 102 Processing\r\n\r\n" * 100 + tail)


@pytest.mark.parametrize(
    ("headers", "is_reusable"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", True),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.1 200\r\n", True),
    ],
)
def test_the_head_tells_whether_a_connection_is_kept(headers: bytes, is_reusable: bool) -> None:
    parser = feed_all(headers + b"Content-Length: 0\r\n\r\n")
    assert (parser.is_complete, parser.is_reusable) == (True, is_reusable)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"<html><body>Hello</body></html>\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b": no name\r\n\r\n",
        OK + b"a space : x\r\n\r\n",
        OK + b"space-before-colon : x\r\n\r\n",
        OK + b"folded: x\r\n y\r\n\r\n",
        OK + b"bare: x\ny: z\r\n\r\n",
        OK + b"return: x\ry: z\r\n\r\n",
        OK + b"zero: x\0\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
        OK + b"Content-Length: 5, 5\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: +5\r\n\r\n",
        OK + b"Content-Length: 0x5\r\n\r\n",
        OK + b"Content-Length: 5.0\r\n\r\n",
        OK + b"Content-Length: \xb2\r\n\r\n",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b'ETag: "1"\r\nETag: "2"\r\n\r\n',
        OK + b"Content-Range: bytes 0-1/2\r\nContent-Range: bytes 1-2/3\r\n\r\n",
        OK + b"".join(b"x-%d: 1\r\n" % number for number in range(300)) + b"\r\n",
        OK + b"x: " + b"y" * MOST_HEAD_BYTES + b"\r\n\r\n",
    ],
)
def test_a_head_that_can_be_misread_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedReply):
        feed_all(raw)


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b"1 1\r\n",
        b"1\n",
        b"1\r\nab\r\n",
        b"1\r\na0\r\n\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"1;" + b"x" * 2000,
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nx: " + b"y" * MOST_HEAD_BYTES,
        b"0\r\n" + b"x: 1\r\n" * 300 + b"\r\n",
    ],
)
def test_chunks_that_can_be_misread_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        feed_all(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body)


def test_a_head_without_end_is_refused_before_it_fills_memory() -> None:
    parser = ReplyParser("GET")
    fed = 0
    with pytest.raises(MalformedReply):
        for _ in range(1000):
            parser.feed(b"x" * 1024)
            fed += 1024
    assert fed <= MOST_HEAD_BYTES + 1024


def test_a_head_that_comes_byte_by_byte_is_read_in_linear_time() -> None:
    """A quadratic reader would take minutes for it."""
    parser = ReplyParser("GET")
    raw = OK + b"x: " + b"y" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n"
    for position in range(len(raw)):
        parser.feed(raw[position : position + 1])
    assert parser.is_complete


@pytest.mark.timeout(20)
def test_a_field_of_nothing_but_spaces_is_refused_in_linear_time() -> None:
    field = b"X: " + b" " * (MOST_HEAD_BYTES - 100) + b"\0\r\n"
    with pytest.raises(MalformedReply):
        feed_all(OK + field + b"\r\n")


def test_what_comes_several_times_is_joined() -> None:
    parser = feed_all(OK + b"Vary: a\r\nvary: b\r\nContent-Length: 0\r\n\r\n")
    assert parser.headers["vary"] == "a, b"


def test_a_body_can_be_taken_while_it_arrives() -> None:
    parser = ReplyParser("GET")
    parser.feed(OK + b"Content-Length: 6\r\n\r\nab")
    assert (parser.take(), parser.buffered, parser.left) == (b"ab", 0, 4)
    parser.note_taken_elsewhere(3)
    assert (parser.left, parser.is_complete) == (1, False)
    parser.feed(b"f")
    assert (parser.take(), parser.is_complete) == (b"f", True)
