"""Servers that lie, and what is not S3 at all: said as BackendError, on both wires, and soon."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from persidict.basic_s3_dict import BasicS3Dict
from persidict.contract.primitives import DictPrimitives
from persidict.exceptions import BackendError, ConcurrencyConflictError
from persidict.jokers_and_status_flags import ANY_ETAG
from persidict.local_dict import LocalDict
from persidict.stores.s3.transport.not_s3 import Circle
from persidict.transfer import sync_items
from tests.s3_dicts import connect
from tests.s3_servers.scripted import Answer, Arrived, HangUp, ScriptedServer, reply, scripted
from tests.s3_servers.scripted import error as error_of

Operation = Callable[[BasicS3Dict[Any]], Any]

XML = "Content-Type: application/xml"
PAGE = b"<html><body>Log in</body></html>"

OPERATIONS: dict[str, Operation] = {
    "get": lambda d: d["a"],
    "in": lambda d: "a" in d,
    "get with a default": lambda d: d.get("a"),
    "set": lambda d: d.__setitem__("a", 1),
    "del": lambda d: d.__delitem__("a"),
    "discard": lambda d: d.discard("a"),
    "pop": lambda d: d.pop("a", None),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("a", 1),
    "transform_item": lambda d: d.transform_item("a", transformer=lambda value: 1, n_retries=1),
    "etag": lambda d: d.etag("a"),
    "timestamp": lambda d: d.timestamp("a"),
    "len": len,
    "list": list,
    "items": lambda d: list(d.items()),
    "clear": lambda d: d.clear(),
    "get_many": lambda d: list(d.get_many(["a", "b"])),
    "update": lambda d: d.update({"a": 1, "b": 2}),
    "discard_many": lambda d: d.discard_many(["a", "b"]),
    "subdicts": lambda d: d.subdicts(),
    "open": lambda d: d.open("a"),
    "copy_item": lambda d: d.copy_item("a", "b"),
    "a large value": lambda d: d.__setitem__("a", bytes(range(256)) * 1000),
}


def entry(key: str) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00Z</LastModified>"
        "<ETag>&quot;1&quot;</ETag><Size>1</Size></Contents>"
    )


def listing(*keys: str, token: str = "") -> bytes:
    """Return a page of a listing, the last one unless it bears a token."""
    more = f"<IsTruncated>{'true' if token else 'false'}</IsTruncated>"
    if token:
        more += f"<NextContinuationToken>{token}</NextContinuationToken>"
    text = f"<ListBucketResult>{''.join(map(entry, keys))}{more}</ListBucketResult>"
    return reply(text.encode(), XML)


def without_etag(body: bytes, *headers: str, status: int = 200) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


class Bench:
    """A server that answers everything as a test wants, and a dictionary on it."""

    def __init__(self, server: ScriptedServer, transport: str, **params: Any) -> None:
        self._server = server
        self._transport = transport
        settings = {
            "create_bucket": False,
            "transport": transport,
            "root_prefix": "place",
            "large_object_size": 100_000,
            "boto_config": {"retries": {"total_max_attempts": 2}},
        }
        self.d = connect(server.endpoint_url, **{**settings, **params})

    def anew(self, **params: Any) -> Bench:
        """Return one with a bucket of which nothing is known yet."""
        return Bench(self._server, self._transport, **params)

    def of_a_ready_client(self) -> Bench:
        """Return one with a client that was made elsewhere."""
        client = boto3.client(
            "s3",
            endpoint_url=self._server.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        bench = copy.copy(self)
        bench.d = BasicS3Dict(bucket_name=self.d.bucket_name, s3_client=client, create_bucket=False)
        return bench

    def serve(self, answer: Answer) -> None:
        self._server.answer = answer

    def fail(self, operation: Operation, answer: Answer | bytes) -> tuple[BaseException, int]:
        """Return what an operation raises, the first of several, and after how many requests."""
        self._server.answer = (lambda request: answer) if isinstance(answer, bytes) else answer
        before = len(self._server.arrived)
        with pytest.raises(Exception) as caught:  # the test says which one
            operation(self.d)
        error: BaseException = caught.value
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        return error, len(self._server.arrived) - before


@pytest.fixture(scope="module", params=["auto", "botocore"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with scripted(lambda request: reply()) as server:
        yield Bench(server, request.param)


def head_of(request: Arrived, whole: bytes) -> bytes:
    """Return a reply, without its body for a HEAD."""
    head, _, body = whole.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n" + (b"" if request.method == "HEAD" else body)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("status", [200, 404, 412])
def test_a_page_for_people_is_no_answer_to_anything(name: str, status: int, bench: Bench) -> None:
    page = without_etag(PAGE, "Content-Type: text/html; charset=utf-8", status=status)
    error, requests = bench.fail(OPERATIONS[name], lambda request: head_of(request, page))
    assert isinstance(error, BackendError)
    assert "does not speak S3" in str(error)
    assert requests <= 6


@pytest.mark.parametrize("operation", [list, len, lambda d: d.subdicts()])
def test_a_continuation_token_that_comes_again_ends_the_listing(
    operation: Operation, bench: Bench
) -> None:
    error, requests = bench.fail(operation, listing("place/a.pkl", token="again"))
    assert isinstance(error, BackendError)
    assert "again" in str(error)
    assert requests <= 5


def test_tokens_that_go_round_in_a_circle_end_the_listing(bench: Bench) -> None:
    def answer(request: Arrived) -> bytes:
        _, _, rest = request.target.partition("continuation-token=")
        number = int(rest.partition("&")[0] or 0)
        return listing(f"place/{number}.pkl", token=str(number % 5 + 1))

    error, requests = bench.fail(list, answer)
    assert isinstance(error, BackendError)
    assert "comes again" in str(error)
    assert requests < 20


def test_markers_of_open_uploads_that_go_round_in_a_circle_end_the_sync(bench: Bench) -> None:
    def answer(request: Arrived) -> bytes:
        if "?uploads" not in request.target and "&uploads" not in request.target:
            return listing()
        _, _, rest = request.target.partition("key-marker=")
        number = int(rest.partition("&")[0] or 0) % 5 + 1
        page = (
            f"<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>{number}"
            f"</NextKeyMarker><NextUploadIdMarker>x</NextUploadIdMarker>"
            "</ListMultipartUploadsResult>"
        )
        return reply(page.encode(), XML)

    source = LocalDict[bytes]()
    source["a"] = bytes(range(256)) * 1000
    error, requests = bench.fail(lambda d: sync_items(source, d), answer)
    assert isinstance(error, BackendError)
    assert "comes again" in str(error)
    assert requests < 30


def test_a_page_that_goes_on_and_does_not_say_where_is_no_listing(bench: Bench) -> None:
    page = reply(b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", XML)
    error, _ = bench.fail(list, page)
    assert isinstance(error, BackendError)


@pytest.mark.parametrize("listed", ["elsewhere/a.pkl", "place", "other/place/a.pkl"])
@pytest.mark.parametrize("operation", [list, len, lambda d: d.clear(), lambda d: d.popitem()])
def test_objects_of_other_places_in_a_listing_are_none_of_ours(
    operation: Operation, listed: str, bench: Bench
) -> None:
    error, requests = bench.fail(operation, listing(listed))
    assert isinstance(error, BackendError)
    assert requests == 1


def test_groups_of_other_places_in_a_listing_are_none_of_ours(bench: Bench) -> None:
    page = reply(
        b"<ListBucketResult><IsTruncated>false</IsTruncated>"
        b"<CommonPrefixes><Prefix>elsewhere/</Prefix></CommonPrefixes></ListBucketResult>",
        XML,
    )
    error, _ = bench.fail(lambda d: d.subdicts(), page)
    assert isinstance(error, BackendError)


@pytest.mark.parametrize(
    "failed",
    ["<Key>other.pkl</Key>", "<Key>place/other.pkl</Key>", "<Key>place/a.pkl.x</Key>", ""],
    ids=["another place", "another key", "another extension", "no key"],
)
def test_what_became_of_objects_that_were_not_to_be_deleted_is_no_answer(
    failed: str, bench: Bench
) -> None:
    def answer(request: Arrived) -> bytes:
        if request.method == "GET":
            return listing("place/a.pkl")
        result = f"<DeleteResult><Error>{failed}<Code>AccessDenied</Code></Error></DeleteResult>"
        return reply(result.encode(), XML)

    error, _ = bench.fail(lambda d: d.clear(), answer)
    assert isinstance(error, BackendError)


DOCUMENTS = [
    b"<Hello/>",
    b"<html><body>Log in</body></html>",
    b"<Delete><Object><Key>DeleteResult</Key></Object></Delete>",
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_another_document_is_none_for_a_ready_client_either(document: bytes, bench: Bench) -> None:
    error, _ = bench.of_a_ready_client().fail(
        lambda d: d.discard_many(["a", "b"]), reply(document, XML)
    )
    assert isinstance(error, BackendError)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_another_document_is_no_list_of_what_could_not_be_deleted(
    document: bytes, bench: Bench
) -> None:
    error, requests = bench.fail(lambda d: d.discard_many(["a", "b"]), reply(document, XML))
    assert isinstance(error, BackendError)
    assert requests == 1


@pytest.mark.parametrize(
    "headers",
    [[], ["Content-Range: bytes 0-3/1000000"], ["Content-Range: bytes a-b/c"]],
    ids=["no range", "the beginning of it", "unreadable"],
)
@pytest.mark.parametrize("name", ["get", "get_many", "open"])
def test_a_part_of_a_value_that_was_asked_for_whole_is_no_answer(
    name: str, headers: list[str], bench: Bench
) -> None:
    error, requests = bench.fail(OPERATIONS[name], reply(b"part", *headers, status=206))
    assert isinstance(error, BackendError)
    assert requests <= 2


def test_ranges_of_ever_other_versions_end_after_a_few_attempts(bench: Bench) -> None:
    def answer(request: Arrived) -> bytes:
        span = request.message.headers.get("range")
        if span is None:
            return reply(b"x" * 300_000)
        start, _, last = span.removeprefix("bytes=").partition("-")
        count = int(last) - int(start) + 1
        return reply(b"y" * count, f"Content-Range: bytes {start}-{last}/300001", status=206)

    _, requests = bench.fail(lambda d: d["a"], answer)
    assert requests < 60


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("name", ["get", "in", "list", "open"])
def test_a_redirection_that_names_no_region_ends_soon(name: str, status: int, bench: Bench) -> None:
    def answer(request: Arrived) -> bytes:
        return reply(b"", f"Location: {request.target}", status=status)

    error, requests = bench.fail(OPERATIONS[name], answer)
    assert isinstance(error, BackendError)
    assert "a redirection that names no region" in str(error)
    assert requests <= 3


def test_a_redirection_that_names_no_region_ends_soon_for_a_ready_client(bench: Bench) -> None:
    error, requests = bench.of_a_ready_client().fail(OPERATIONS["get"], reply(status=302))
    assert isinstance(error, BackendError)
    assert requests == 2


def test_the_bucket_itself_behind_a_redirection_that_names_no_region(bench: Bench) -> None:
    error, requests = bench.fail(lambda d: bench.anew(create_bucket=True), reply(status=302))
    assert isinstance(error, BackendError)
    assert requests == 1


def test_what_s3_says_of_a_bucket_elsewhere_is_told_with_its_own_code(bench: Bench) -> None:
    error, requests = bench.fail(OPERATIONS["get"], error_of(301, "PermanentRedirect"))
    assert isinstance(error, ClientError)
    assert error.response["Error"]["Code"] == "PermanentRedirect"
    assert requests <= 3


@pytest.mark.parametrize("time", ["yesterday", "Sun, 06 Nov 99999999999 08:49:37 GMT"])
@pytest.mark.parametrize("name", ["get", "etag", "open"])
def test_a_time_that_is_none_is_no_matter_or_no_answer(name: str, time: str, bench: Bench) -> None:
    head = ["HTTP/1.1 200 X", "Content-Length: 1", 'ETag: "1"', f"Last-Modified: {time}", "", ""]
    answer = "\r\n".join(head).encode() + b"x"
    operation = OPERATIONS[name]
    try:
        error, _ = bench.fail(operation, lambda request: head_of(request, answer))
    except pytest.fail.Exception:
        return
    assert isinstance(error, BackendError)


@pytest.mark.parametrize("etag", ['"1"', '"a, b"'], ids=["an ETag", "no ETag"])
@pytest.mark.parametrize(
    "operation",
    [
        lambda d: d.open("a", "wb").close(),
        lambda d: d.set_item_if("a", value=1, condition=ANY_ETAG, expected_etag="x"),
        lambda d: d.discard_if("a", condition=ANY_ETAG, expected_etag="x"),
    ],
    ids=["open", "set_item_if", "discard_if"],
)
def test_a_version_that_is_shown_and_always_refused_ends_with_a_conflict(
    operation: Operation, etag: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DictPrimitives, "_seconds_to_pause", lambda *args: 0.0)

    def answer(request: Arrived) -> bytes:
        if request.message.headers.keys() & {"if-match", "if-none-match"}:
            return error_of(412, "PreconditionFailed")
        body = b"" if request.method == "HEAD" else pickle.dumps(1)
        head = ["HTTP/1.1 200 X", f"Content-Length: {len(body)}", f"ETag: {etag}", "", ""]
        return "\r\n".join(head).encode() + body

    error, requests = bench.anew().fail(operation, answer)
    assert isinstance(error, (ConcurrencyConflictError, BackendError))
    assert requests < 150


def test_a_circle_is_noticed_soon_after_it_has_closed() -> None:
    for before in range(5):
        for length in range(1, 40):
            circle = Circle()
            markers = [*range(before), *list(range(100, 100 + length)) * 20]
            noticed = next(n for n, marker in enumerate(markers) if circle.is_closed_by(marker))
            assert before + length <= noticed <= 3 * (before + length) + 1


def test_markers_that_never_come_again_are_no_circle() -> None:
    circle = Circle()
    assert not any(circle.is_closed_by(str(number)) for number in range(10_000))


CHUNKED = b'HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nETag: "1"\r\n\r\n'


def endless(request: Arrived) -> Iterator[bytes]:
    """Answer with a value that does not end, and of which nobody says how long it is."""
    yield CHUNKED
    megabyte = b"100000\r\n" + bytes(1024 * 1024) + b"\r\n"
    for _ in range(MOST_MEGABYTES):
        yield megabyte
    raise HangUp


MOST_MEGABYTES = 200


@pytest.mark.parametrize("name", ["get", "get_many", "open", "items"])
def test_a_value_without_end_is_given_up_soon(name: str, bench: Bench) -> None:
    sent = [0]

    def counted(request: Arrived) -> Iterator[bytes]:
        for piece in endless(request):
            sent[0] += len(piece)
            yield piece

    def answer(request: Arrived) -> Any:
        return listing("place/a.pkl") if "list-type" in request.target else counted(request)

    error, _ = bench.fail(OPERATIONS[name], answer)
    assert isinstance(error, BackendError)
    assert "without saying how many" in str(error)
    assert sent[0] < 100 * 1024 * 1024


def test_a_large_value_whose_length_is_not_said_is_read_in_ranges(bench: Bench) -> None:
    value = bytes(17 * 1024 * 1024)
    data = pickle.dumps(value)

    def answer(request: Arrived) -> Any:
        asked = request.message.headers.get("range")
        if asked is None:
            return [CHUNKED, b"%x\r\n" % len(data), data, b"\r\n0\r\n\r\n"]
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        last = min(last, len(data) - 1)
        part = data[first : last + 1]
        return reply(part, f"Content-Range: bytes {first}-{last}/{len(data)}", status=206)

    bench.serve(answer)
    assert bench.d["long"] == value


def dripping(request: Arrived) -> Iterator[bytes]:
    """Answer with a large value, a byte at a time."""
    if "list-type" in request.target:
        yield listing("place/a.pkl")
        return
    yield b'HTTP/1.1 200 X\r\nContent-Length: 50000000\r\nETag: "1"\r\n\r\n'
    for _ in range(MOST_DRIPS):
        time.sleep(0.01)
        yield b"x"
    raise HangUp


MOST_DRIPS = 3000


@pytest.mark.direct_wire  # botocore waits anew for each byte
@pytest.mark.parametrize("name", ["get", "get_many", "open", "items"])
def test_a_value_that_comes_byte_by_byte_is_given_up_like_one_that_does_not_come(name: str) -> None:
    config = {"read_timeout": 0.2, "retries": {"total_max_attempts": 1}}
    with scripted(dripping) as server:
        d = connect(
            server.endpoint_url, create_bucket=False, root_prefix="place", boto_config=config
        )
        with pytest.raises(Exception) as caught:  # of which kind depends on the operation
            assert OPERATIONS[name](d).read()
    error: BaseException | None = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ReadTimeoutError), error
