"""What became of a request: found out by evidence, or said to be unknown, and never guessed."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError

from persidict import (
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    BackendError,
    ConcurrencyConflictError,
    PersiDict,
    S3Dict,
    back_off,
)
from persidict.basic_s3_dict import BasicS3Dict
from persidict.stores.s3.transport.direct.connections import (
    CannotConnect,
    Connection,
    ConnectionPool,
)
from tests.concurrency import Place, do_random_histories, joined, run_workers
from tests.linearizability import Operation, assert_linearizable
from tests.s3_caches import connect_cached, credentials
from tests.s3_dicts import connect, short_pauses
from tests.s3_servers.canned import CannedServer, start_canned
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS, MOTO
from tests.s3_servers.rewrites import ClockAhead, Without, chunked, html

__all__ = ["credentials", "moto_aws_server", "short_pauses"]

Dict = BasicS3Dict[Any]

TransportError = (ClientError, BotoCoreError)
NAME = "a.pkl"
UNHEARD = [Fault.DROP_REPLY, Fault.RESET_AFTER, Fault.ERROR_500_AFTER]
TWICE = [Fault.DUPLICATE, Fault.DUPLICATE_FIRST]

each_unheard = pytest.mark.parametrize("fault", UNHEARD, ids=lambda fault: fault.name)
twice = pytest.mark.parametrize("fault", TWICE, ids=lambda fault: fault.name)


class Bench:
    """A bucket behind a proxy of its own, of which this process knows nothing yet."""

    def __init__(self, server: MotoServer | CannedServer, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.bucket = new_bucket_name()
        self.direct = connect(server.endpoint_url, bucket_name=self.bucket)
        self.d = connect(proxy.endpoint_url, bucket_name=self.bucket)

    def trouble(self, operation: str, *faults: Fault, meanwhile: Any = None) -> None:
        self.proxy.script(*faults, operation=operation, key=NAME, meanwhile=meanwhile)

    def sent(self, operation: str) -> int:
        handled = self.proxy.handled()
        return sum(entry.request.operation == operation for entry in handled)


@pytest.fixture
def bench(moto_aws_server: MotoServer) -> Iterator[Bench]:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        yield Bench(moto_aws_server, proxy)


@pytest.fixture
def cached(bench: Bench, tmp_path: Path, credentials: None) -> Callable[..., S3Dict[Any]]:
    """Makes dictionaries behind the proxy, all of which have one local directory."""

    def make(**params: Any) -> S3Dict[Any]:
        place = {"bucket_name": bench.bucket, "base_dir": tmp_path / "cache"}
        return connect_cached(bench.proxy.endpoint_url, **place, **params)

    return make


def add_one(d: PersiDict[Any], **params: Any) -> Any:
    return d.transform_item(
        "a", transformer=lambda n: 1 if n is ITEM_NOT_AVAILABLE else n + 1, **params
    )


def said_unknown(raised: pytest.ExceptionInfo[BaseException]) -> bool:
    return any("outcome unknown" in note for note in raised.value.__notes__)


# ---------------------------------------------------------------------- delivered twice


@twice
def test_the_first_swap_on_a_server_that_is_not_aws_is_applied_once(
    bench: Bench, fault: Fault
) -> None:
    bench.d["a"] = 1
    bench.trouble("PutObject", fault)
    assert add_one(bench.d).new_value == 2
    assert bench.direct["a"] == 2


@twice
def test_what_another_handle_read_into_the_cache_meanwhile_does_not_hide_that_a_swap_was_applied(
    bench: Bench, cached: Callable[..., S3Dict[Any]], fault: Fault
) -> None:
    d, other = cached(), cached()
    d["a"] = 1
    bench.trouble("PutObject", fault, meanwhile=lambda: other["a"])
    assert add_one(d).new_value == 2
    assert bench.direct["a"] == 2


@twice
def test_an_insertion_that_another_handle_has_cached_meanwhile_is_reported_as_won(
    bench: Bench, cached: Callable[..., S3Dict[Any]], fault: Fault
) -> None:
    d, other = cached(append_only=True), cached(append_only=True)
    bench.trouble("PutObject", fault, meanwhile=lambda: other["a"])
    d["a"] = 1
    assert bench.direct["a"] == 1


# ---------------------------------------------------------------------- the same bytes again


def test_a_swap_overwritten_from_a_stale_look_at_the_same_bytes_is_said_to_be_unknown(
    bench: Bench,
) -> None:
    """The lineage of the last write leads past the lost one, for equal bytes have equal ETags."""
    bench.direct["a"] = True
    bench.d.transform_item("a", transformer=lambda value: not value)
    stale = bench.direct.etag("a")
    bench.d.transform_item("a", transformer=lambda value: not value)

    def overwrite() -> None:
        """Write over False as it was two versions ago."""
        result = bench.direct.set_item_if(
            "a", value=True, condition=ETAG_IS_THE_SAME, expected_etag=stale
        )
        assert result.condition_was_satisfied

    bench.trouble("PutObject", Fault.DROP_REPLY, meanwhile=overwrite)
    with pytest.raises(TransportError) as raised:
        bench.d.transform_item("a", transformer=lambda value: not value)
    assert said_unknown(raised)
    assert bench.direct["a"] is True


# ---------------------------------------------------------------------- clocks


@pytest.mark.parametrize("seconds", [4, 6, 30])
@each_unheard
def test_a_clock_that_runs_ahead_does_not_outweigh_the_token(
    bench: Bench, fault: Fault, seconds: int
) -> None:
    bench.d["a"] = 1
    bench.proxy.rewrite(ClockAhead(seconds))
    bench.trouble("PutObject", fault)
    assert add_one(bench.d).new_value == 2
    assert bench.direct["a"] == 2


def test_what_was_written_in_parts_is_not_taken_for_older_by_the_date_of_its_beginning(
    bench: Bench,
) -> None:
    bench.d["a"] = 1
    bench.proxy.rewrite(ClockAhead(60))  # so that what others write meanwhile looks old
    endpoint = bench.proxy.upstream_url
    in_parts = connect(endpoint, bucket_name=bench.bucket, large_object_size=1000)
    large = bytes(2000)
    bench.trouble("PutObject", Fault.DROP_REPLY, meanwhile=lambda: in_parts.__setitem__("a", large))
    with pytest.raises(TransportError) as raised:
        add_one(bench.d)
    assert said_unknown(raised)
    assert bench.direct["a"] == large


# ---------------------------------------------------------------------- looking before repeating


@each_unheard
def test_a_lost_deletion_whose_place_was_filled_deletes_nothing_more(
    bench: Bench, fault: Fault
) -> None:
    bench.d["a"] = 1
    bench.trouble("DeleteObject", fault, meanwhile=lambda: bench.direct.setdefault("a", 2))
    assert bench.d.discard("a") is True
    assert bench.direct["a"] == 2


@each_unheard
def test_a_lost_deletion_of_what_is_gone_now_is_done(bench: Bench, fault: Fault) -> None:
    bench.d["a"] = 1
    bench.trouble("DeleteObject", fault)
    assert bench.d.discard("a") is True
    assert bench.sent("DeleteObject") == 2  # with the one that asks what the server does


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.ERROR_500], ids=lambda f: f.name)
def test_a_deletion_that_never_acted_is_sent_again(bench: Bench, fault: Fault) -> None:
    bench.d["a"] = 1
    bench.trouble("DeleteObject", fault)
    del bench.d["a"]
    assert "a" not in bench.direct


@each_unheard
def test_an_assignment_that_others_overwrote_before_its_answer_came_is_not_repeated(
    bench: Bench, fault: Fault
) -> None:
    bench.trouble("PutObject", fault, meanwhile=lambda: bench.direct.__setitem__("a", 2))
    with pytest.raises(TransportError) as raised:
        bench.d["a"] = 1
    assert said_unknown(raised)
    assert bench.direct["a"] == 2


def test_a_write_whose_server_is_gone_when_it_wants_to_look_is_said_to_be_unknown(
    bench: Bench,
) -> None:
    bench.d["a"] = 1
    bench.trouble("PutObject", Fault.DROP_REPLY, meanwhile=bench.proxy.refuse_connections)
    with pytest.raises(TransportError) as raised:
        add_one(bench.d)
    assert said_unknown(raised)
    assert bench.direct["a"] == 2


@pytest.mark.parametrize(
    "obstacle",
    [TimeoutError("timed out"), ssl.SSLCertVerificationError("expired")],
    ids=["time-out", "certificate"],
)
def test_a_write_behind_which_no_connection_can_be_opened_any_more_is_said_to_be_unknown(
    bench: Bench, obstacle: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(pool: ConnectionPool) -> Connection:
        raise CannotConnect from obstacle

    def cannot_either(connection: HTTPConnection) -> None:
        if isinstance(obstacle, TimeoutError):
            raise ConnectTimeoutError from obstacle
        raise obstacle

    def no_more_connections() -> None:
        monkeypatch.setattr(ConnectionPool, "open", cannot)
        monkeypatch.setattr(HTTPConnection, "connect", cannot_either)

    bench.d["a"] = 1
    bench.trouble("PutObject", Fault.DROP_REPLY, meanwhile=no_more_connections)
    with pytest.raises(TransportError) as raised:
        add_one(bench.d)
    monkeypatch.undo()
    assert said_unknown(raised)
    assert bench.direct["a"] == 2


def test_a_busy_server_that_did_nothing_raises_no_doubt(bench: Bench) -> None:
    bench.trouble("DeleteObject", Fault.SLOW_DOWN)
    assert bench.d.discard("a") is False
    bench.direct["a"] = 1
    bench.trouble("PutObject", Fault.SLOW_DOWN)
    assert bench.d.setdefault("a", 2) == 1


# ---------------------------------------------------------------------- what users see

OPERATIONS: dict[str, Callable[[Dict], object]] = {
    "[]": lambda d: d["a"],
    "in": lambda d: "a" in d,
    "etag": lambda d: d.etag("a"),
    "assign": lambda d: d.__setitem__("a", 5),
    "del": lambda d: d.__delitem__("a"),
    "discard": lambda d: d.discard("a"),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("a", 5),
    "transform": add_one,
    "set_item_if": lambda d: d.set_item_if(
        "a", value=5, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "delete by joker": lambda d: d.transform_item("a", transformer=lambda _: DELETE_CURRENT),
    "update": lambda d: d.update({"a": 5, "b": 6}),
    "clear": lambda d: d.clear(),
    "items": lambda d: list(d.items()),
    "open": lambda d: d.open("a").read(),
    "get": lambda d: d.get("a"),
    "get_with_etag": lambda d: d.get_with_etag("a"),
    "get_item_if": lambda d: d.get_item_if(
        "a", condition=ETAG_HAS_CHANGED, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "set_item_if insert": lambda d: d.set_item_if(
        "a", value=5, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "setdefault_if": lambda d: d.setdefault_if(
        "a", default_value=5, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
    "discard_if": lambda d: d.discard_if("a", condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE),
    "delete_if_exists": lambda d: d.delete_if_exists("a"),
    "get_many": lambda d: list(d.get_many(["a", "b"])),
    "set_many": lambda d: d.set_many({"a": 5, "b": 6}.items()),
    "discard_many": lambda d: d.discard_many(["a", "b"]),
    "copy_item": lambda d: d.copy_item("a", "c"),
    "keys": lambda d: list(d.keys()),
    "values": lambda d: list(d.values()),
    "glob": lambda d: list(d.glob("*")),
    "random_key": lambda d: d.random_key(),
    "timestamp": lambda d: d.timestamp("a"),
    "newest_keys": lambda d: d.newest_keys(),
    "oldest_values": lambda d: d.oldest_values(),
    "keys_and_timestamps": lambda d: list(d.keys_and_timestamps()),
    "items_and_timestamps": lambda d: list(d.items_and_timestamps()),
    "subdicts": lambda d: d.subdicts(),
    "info": lambda d: d.info("a"),
    "infos": lambda d: list(d.infos()),
    "raw": lambda d: d.raw["a"],
}
EVERY_FAULT = [fault for fault in Fault if fault not in (Fault.PASS, Fault.DELAY, Fault.STALL)]
SEEN_BY_USERS = (KeyError, ConcurrencyConflictError, BackendError, ExceptionGroup, *TransportError)


def _strangers_in(error: Exception) -> bool:
    return isinstance(error, ExceptionGroup) and error.split(SEEN_BY_USERS)[1] is not None


@pytest.fixture(scope="module")
def quick_server() -> Iterator[CannedServer]:
    """A server as AWS's that takes a tenth of the time of moto's for a request."""
    with start_canned(quirks=AWS) as server:
        yield server


@pytest.fixture(scope="module")
def one_bench(quick_server: CannedServer) -> Iterator[Bench]:
    with FaultProxy(quick_server.endpoint_url, delay=0.01) as proxy:
        bench = Bench(quick_server, proxy)
        assert bench.d.capabilities.put_if_match
        yield bench


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("deleted_meanwhile", [False, True], ids=["", "deleted meanwhile"])
def test_whatever_happens_users_see_no_exception_of_the_port(
    one_bench: Bench, name: str, deleted_meanwhile: bool
) -> None:
    meanwhile = (lambda: one_bench.direct.discard("a")) if deleted_meanwhile else None
    others: list[BaseException] = []
    for fault in EVERY_FAULT:
        one_bench.direct["a"] = 1
        one_bench.proxy.calm()
        one_bench.proxy.script(
            fault, matches=lambda request: bool(request.operation), meanwhile=meanwhile
        )
        try:
            OPERATIONS[name](one_bench.d)
        except SEEN_BY_USERS as error:
            others += [error] if _strangers_in(error) else []
    assert others == []
    one_bench.proxy.calm()


def test_an_item_that_may_be_neither_read_nor_inserted_is_not_asked_for_without_end(
    moto_aws_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        bench = Bench(moto_aws_server, proxy)
        bench.direct["a"] = 1
        proxy.rewrite(lambda _, reply: reply if reply.status != 200 else _absent(reply))
        monkeypatch.setattr(back_off.time, "sleep", lambda seconds: None)
        with pytest.raises(ConcurrencyConflictError):
            bench.d.setdefault("a", 2)
        assert len(proxy.handled()) < 100


def _absent(reply: Any) -> Any:
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    return replace(reply, raw_head=head, start_line="HTTP/1.1 404 Not Found", body=b"")


# ---------------------------------------------------------------------- replies of other forms


def test_a_reply_in_chunks_is_read_whole(bench: Bench) -> None:
    bench.direct["a"] = "text" * 1000
    bench.proxy.rewrite(chunked)
    assert bench.d["a"] == "text" * 1000
    with bench.d.open("a") as stream:
        assert len(stream.read()) == len(bench.direct.raw["a"])


@pytest.mark.parametrize("header", ["last-modified", "date"])
def test_a_reply_that_lacks_a_header_brings_the_value(bench: Bench, header: str) -> None:
    bench.direct["a"] = 1
    bench.proxy.rewrite(Without(header))
    assert bench.d["a"] == 1
    assert bench.d.etag("a") == bench.direct.etag("a")


def test_a_reply_without_an_etag_says_what_came_and_from_where(bench: Bench) -> None:
    bench.direct["a"] = 1
    bench.proxy.rewrite(Without("etag"))
    for read in (lambda: bench.d["a"], lambda: "a" in bench.d):
        with pytest.raises(BackendError, match=f"ETag.*|.*{bench.proxy.endpoint_url}") as raised:
            read()
        assert bench.proxy.endpoint_url in str(raised.value)


def test_a_listing_that_failed_while_it_was_counted_is_not_taken_for_an_empty_one(
    bench: Bench,
) -> None:
    bench.d["a"] = 1
    bench.proxy.rewrite(html)
    with pytest.raises(BackendError) as raised:
        list(bench.d.items())
    bench.proxy.rewrite(None)
    assert raised.value.__traceback__ is not None  # and with it the listing
    assert len(bench.d) == 1


HTML_OPERATIONS = {**OPERATIONS, "len": len}


@pytest.mark.parametrize("name", HTML_OPERATIONS)
def test_a_page_of_a_proxy_is_no_reply_of_s3(one_bench: Bench, name: str) -> None:
    one_bench.direct["a"] = 1
    one_bench.proxy.rewrite(html)
    try:
        with pytest.raises((BackendError, ExceptionGroup)) as raised:
            HTML_OPERATIONS[name](one_bench.d)
    finally:
        one_bench.proxy.rewrite(None)
    if isinstance(raised.value, ExceptionGroup):
        assert not raised.value.split(BackendError)[1]


# ---------------------------------------------------------------------- many at once


def test_expired_credentials_cost_one_request_for_each_thousand_deletions(
    moto_aws_server: MotoServer,
) -> None:
    server = moto_aws_server.with_quirks(MOTO)
    with FaultProxy(server.endpoint_url) as proxy:
        d = connect(proxy.endpoint_url)
        proxy.rewrite(_expired)
        failures = list(d._store.delete_many(f"n{number}" for number in range(1000)))
        deletions = [entry for entry in proxy.handled() if "Delete" in entry.request.operation]
    assert (len(failures), len(deletions)) == (1000, 1)


def _expired(request: Any, reply: Any) -> Any:
    body = b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>"
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return replace(reply, raw_head=head, start_line="HTTP/1.1 400 Bad Request", body=body)


def test_a_deletion_among_many_that_fails_in_passing_is_tried_again(
    moto_aws_server: MotoServer,
) -> None:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        d = connect(proxy.endpoint_url)
        d.update({"a": 1, "b": 2})
        told = threading.Event()

        def fail_once(request: Any, reply: Any) -> Any:
            if request.operation != "DeleteObjects" or told.is_set():
                return reply
            told.set()
            d.s3_client.put_object(Bucket=d.bucket_name, Key=NAME, Body=b"I1\n.")
            body = (
                b"<DeleteResult><Error><Key>a.pkl</Key><Code>InternalError</Code>"
                b"<Message>again</Message></Error></DeleteResult>"
            )
            return _with_body(reply, body)

        proxy.rewrite(fail_once)
        d.clear()
        assert told.is_set()
        assert list(d) == []


def _with_body(reply: Any, body: bytes) -> Any:
    return replace(reply.having("content-length", str(len(body))), body=body)


# ---------------------------------------------------------------------- at random

HISTORIES = "PERSIDICT_TEST_HISTORIES"
"""The environment variable that says how many histories under faults there are of each kind."""

RUNS = int(os.environ.get(HISTORIES, "50"))
PROCESSES = 3

LOST = [Fault.DROP_REPLY, Fault.RESET_AFTER, Fault.ERROR_500_AFTER]
NEVER_ACTED = [Fault.RESET_BEFORE, Fault.ERROR_500, Fault.SLOW_DOWN]
LEAVING_NO_LINE = ["discard", "pop", "read_then_discard", "transform", "assign"]
"""Operations after which nothing leads back to a version that was there before."""


@pytest.fixture
def behind(quick_server: CannedServer) -> Iterator[tuple[FaultProxy, Callable[[], Dict]]]:
    """A proxy, and what makes dictionaries on one bucket behind it, of which one knows all."""
    with FaultProxy(quick_server.endpoint_url) as proxy:
        make = partial(connect, proxy.endpoint_url, bucket_name=new_bucket_name())
        assert make().capabilities.delete_if_match
        yield proxy, make


def histories_under(
    fault: Fault,
    behind: tuple[FaultProxy, Callable[[], Dict]],
    *,
    matches: Callable[[Any], bool] = lambda request: bool(request.operation),
    without: list[str],
) -> list[Operation]:
    """Let three processes work on two items at a time while 10 % of the requests meet a fault."""
    proxy, make = behind
    proxy.fail_randomly({fault: 0.1}, seed=1, matches=matches)
    arguments = (RUNS, 40, TransportError, without)
    work = do_random_histories
    return joined(run_workers(make, work, *arguments, count=PROCESSES, timeout=30 + 10 * RUNS))


@pytest.mark.slow
@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("fault", [*LOST, *NEVER_ACTED], ids=lambda fault: fault.name)
def test_histories_with_deletions_have_an_order_in_which_only_what_was_raised_is_unknown(
    behind: tuple[FaultProxy, Callable[[], Dict]], fault: Fault
) -> None:
    """Without `discard`, which says True when its answer got lost and nothing is there now."""
    assert_linearizable(histories_under(fault, behind, without=["discard"]))


@pytest.mark.slow
@pytest.mark.usefixtures("short_pauses")
@twice
def test_histories_of_writes_under_conditions_delivered_twice_have_an_order(
    behind: tuple[FaultProxy, Callable[[], Dict]], fault: Fault
) -> None:
    """Without what leaves no line back: of a plain refusal nothing else can be seen."""

    def is_conditional_write(request: Any) -> bool:
        return request.operation == "PutObject" and bool(request.condition)

    history = histories_under(fault, behind, matches=is_conditional_write, without=LEAVING_NO_LINE)
    assert_linearizable(history)


def alternate(d: PersiDict[Any], place: Place, keys: list[str], times: int) -> list[int]:
    """Flip the value of each key; return how often that succeeded, by key."""
    flips = []
    for key in keys:
        place.meet()
        succeeded = 0
        for _ in range(times):
            with suppress(*TransportError):
                d.transform_item(key, transformer=lambda value: not value, n_retries=None)
                succeeded += 1
        flips.append(succeeded)
    return flips


@pytest.mark.slow
@pytest.mark.usefixtures("short_pauses")
def test_a_value_that_alternates_is_flipped_as_often_as_was_reported(
    behind: tuple[FaultProxy, Callable[[], Dict]],
) -> None:
    """Where nothing was raised: what was raised may or may not have flipped it."""
    proxy, make = behind
    keys = [f"k{number}" for number in range(RUNS)]
    make().update(dict.fromkeys(keys, False))
    proxy.fail_randomly(
        {Fault.DROP_REPLY: 0.1}, seed=1, matches=lambda r: r.operation == "PutObject"
    )
    flips = run_workers(make, alternate, keys, 20, count=2, timeout=30 + 10 * RUNS)
    proxy.calm()
    values = make()
    assert all(
        values[key] is False for key, *mine in zip(keys, *flips, strict=True) if sum(mine) == 40
    )
