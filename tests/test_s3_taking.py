"""Each item has one taker, also on a server that deletes whatever is there."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    ConcurrencyConflictError,
    PersiDict,
)
from persidict.basic_s3_dict import BasicS3Dict
from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.stores.s3 import delete as deleting
from persidict.stores.s3 import marker, taking, waiting
from persidict.stores.s3.marker import MARKER_SIZE, is_marker_etag, new_marker
from tests.s3_dicts import connect
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server, moto_like
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS, CEPH, LOCALSTACK, NO_CONDITIONS, ServerQuirks
from tests.s3_servers.rewrites import ClockAhead

__all__ = ["moto_aws_server", "moto_like"]

Dict = BasicS3Dict[Any]

NAME = "a.pkl"
PLAIN_DELETE = {"localstack": LOCALSTACK, "ceph": CEPH}
UNHEARD = [Fault.DROP_REPLY, Fault.RESET_AFTER, Fault.ERROR_500_AFTER]
TWICE = [Fault.DUPLICATE, Fault.DUPLICATE_FIRST]
NEVER_ACTED = [Fault.RESET_BEFORE, Fault.ERROR_500, Fault.SLOW_DOWN]
VARIANT = new_marker(ITEM_NOT_AVAILABLE)  # type: ignore[arg-type]


class Bench:
    """A bucket on a server without conditions on DELETE, behind a proxy of its own."""

    def __init__(self, server: MotoServer, proxy: FaultProxy) -> None:
        self.proxy = proxy
        self.bucket = new_bucket_name()
        self.direct = connect(server.endpoint_url, bucket_name=self.bucket)
        self.d = connect(proxy.endpoint_url, bucket_name=self.bucket)
        assert self.d.capabilities.deletes_by_marker

    def trouble(self, operation: str, *faults: Fault, meanwhile: Any = None) -> None:
        self.proxy.script(*faults, operation=operation, key=NAME, meanwhile=meanwhile)

    def leave_marker(self) -> None:
        """Leave a marker as somebody does who was killed before deleting it."""
        self.direct.s3_client.put_object(Bucket=self.bucket, Key=NAME, Body=VARIANT)

    def delete_marker(self) -> None:
        self.direct.s3_client.delete_object(Bucket=self.bucket, Key=NAME)

    def stored(self) -> list[str]:
        """Return the names of all objects, markers included."""
        found = self.direct.s3_client.list_objects_v2(Bucket=self.bucket)
        return [entry["Key"] for entry in found.get("Contents", ())]

    def sent(self, operation: str) -> int:
        handled = self.proxy.handled()
        return sum(
            entry.request.operation == operation and entry.request.key == NAME for entry in handled
        )


@pytest.fixture(params=PLAIN_DELETE)
def bench(request: pytest.FixtureRequest, moto_aws_server: MotoServer) -> Iterator[Bench]:
    server = moto_aws_server.with_quirks(PLAIN_DELETE[request.param])
    with FaultProxy(server.endpoint_url) as proxy:
        yield Bench(server, proxy)


@pytest.fixture
def bench_with_marker(bench: Bench) -> Bench:
    bench.leave_marker()
    return bench


def said_unknown(error: BaseException) -> bool:
    return any("outcome unknown" in note for note in error.__notes__)


# ---------------------------------------------------------------------- markers


def test_a_marker_never_has_the_version_that_it_replaces(bench: Bench) -> None:
    for _ in range(20):
        bench.leave_marker()
        etag: Any = bench.direct.s3_client.head_object(Bucket=bench.bucket, Key=NAME)["ETag"]
        assert new_marker(etag) != VARIANT


def test_all_markers_have_one_size_and_versions_that_are_known() -> None:
    assert len(VARIANT) == MARKER_SIZE
    assert len(marker._etags()) == 1024


READS: dict[str, Callable[[Dict], Any]] = {
    "get": lambda d: d.get("a", "absent"),
    "in": lambda d: "absent" if "a" not in d else "present",
    "pop": lambda d: d.pop("a", "absent"),
    "get_with_etag": lambda d: (
        "absent" if d.get_with_etag("a").actual_etag is ITEM_NOT_AVAILABLE else "present"
    ),
    "get_many": lambda d: "absent" if not dict(d.get_many(["a"])) else "present",
    "list": lambda d: "absent" if not list(d) else "present",
    "items": lambda d: "absent" if not list(d.items()) else "present",
    "newest_keys": lambda d: "absent" if not d.newest_keys() else "present",
    "len": lambda d: "absent" if len(d) == 0 else "present",
    "bool": lambda d: "absent" if not d else "present",
    "random_key": lambda d: "absent" if d.random_key() is None else "present",
    "discard": lambda d: "present" if d.discard("a") else "absent",
}


@pytest.mark.parametrize("read", READS)
def test_a_reader_takes_a_marker_for_absence(bench_with_marker: Bench, read: str) -> None:
    assert READS[read](bench_with_marker.d) == "absent"


RAISING: dict[str, Callable[[Dict], Any]] = {
    "[]": lambda d: d["a"],
    "del": lambda d: d.__delitem__("a"),
    "open": lambda d: d.open("a"),
    "etag": lambda d: d.etag("a"),
    "popitem": lambda d: d.popitem(),
}


@pytest.mark.parametrize("read", RAISING)
def test_a_reader_who_needs_an_item_is_told_that_there_is_none(
    bench_with_marker: Bench, read: str
) -> None:
    with pytest.raises(KeyError):
        RAISING[read](bench_with_marker.d)


def test_where_versions_do_not_name_the_content_a_marker_is_known_by_what_is_said_of_it(
    bench: Bench,
) -> None:
    assert marker.is_marker(
        '"00000000000000000000000000000000"', MARKER_SIZE, {marker.MARKER_KEY: ""}
    )
    assert not marker.is_marker('"00000000000000000000000000000000"', 7, {marker.MARKER_KEY: ""})


def test_a_value_of_the_size_of_a_marker_is_an_item(bench: Bench) -> None:
    text = connect(
        bench.proxy.endpoint_url,
        bucket_name=bench.bucket,
        serialization_format="txt",
        base_class_for_values=str,
    )
    text["a"] = "x" * MARKER_SIZE
    assert dict(text) == {("a",): "x" * MARKER_SIZE}
    assert list(text) == [("a",)]


def test_the_version_of_a_marker_is_no_version_that_can_be_expected(
    bench_with_marker: Bench,
) -> None:
    store = bench_with_marker.d._store
    etag: Any = bench_with_marker.direct.s3_client.head_object(
        Bucket=bench_with_marker.bucket, Key=NAME
    )["ETag"]
    assert is_marker_etag(etag)
    with pytest.raises(PreconditionFailed):
        store.put(NAME, b"x", if_match=etag)
    with pytest.raises(ObjectNotFound):
        store.delete(NAME, if_match=etag)


# ---------------------------------------------------------------------- taking

TAKES: dict[str, Callable[[PersiDict[Any]], Any]] = {
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem()[1],
    "discard_if": lambda d: (
        d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a")).value_was_mutated
    ),
    "discard_if any": lambda d: (
        d.discard_if("a", condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE).value_was_mutated
    ),
    "transform": lambda d: d.transform_item("a", transformer=lambda _: DELETE_CURRENT),
    "discard": lambda d: d.discard("a"),
}
each_take = pytest.mark.parametrize("take", TAKES)


@each_take
def test_what_is_taken_leaves_nothing_behind(bench: Bench, take: str) -> None:
    bench.direct["a"] = 1
    assert TAKES[take](bench.d)
    assert bench.stored() == []


@each_take
def test_taking_costs_one_request_more_than_where_delete_knows_conditions(
    bench: Bench, take: str
) -> None:
    bench.direct["a"] = 1
    TAKES[take](bench.d)
    assert (bench.sent("PutObject"), bench.sent("DeleteObject")) == (1, 1)


@each_take
def test_taking_costs_nothing_more_where_delete_knows_conditions(
    moto_aws_server: MotoServer, take: str
) -> None:
    server = moto_aws_server.with_quirks(AWS)
    d = connect(server.endpoint_url)
    d["a"] = 1
    assert d.capabilities.one_taker
    assert not d.capabilities.deletes_by_marker
    server.reset_log()
    TAKES[take](d)
    assert server.counts().get("PutObject", 0) == 0
    assert server.counts()["DeleteObject"] == 1


@each_take
def test_what_somebody_else_takes_before_has_not_been_taken_here(bench: Bench, take: str) -> None:
    bench.direct["a"] = 1
    taken = []
    bench.trouble("PutObject", Fault.PASS)
    bench.proxy.script(
        Fault.PASS,
        matches=lambda request: request.operation in ("GetObject", "HeadObject"),
        meanwhile=lambda: taken.append(bench.direct.pop("a", None)),
    )
    try:
        mine = TAKES[take](bench.d)
    except KeyError:
        mine = None
    if take == "transform":
        mine = None  # it ends with absence, whoever brought that about
    assert taken == [1]
    assert not mine


@pytest.mark.parametrize("fault", [*UNHEARD, *TWICE, *NEVER_ACTED], ids=lambda fault: fault.name)
@pytest.mark.parametrize("operation", ["PutObject", "DeleteObject"])
def test_what_becomes_of_a_request_does_not_change_that_an_item_is_taken_once(
    bench: Bench, operation: str, fault: Fault
) -> None:
    bench.direct["a"] = 1
    bench.trouble(operation, fault)
    assert bench.d.pop("a") == 1
    assert bench.stored() == []


def test_an_item_that_has_come_meanwhile_is_not_deleted_in_place_of_the_marker(
    bench: Bench,
) -> None:
    bench.direct["a"] = 1

    def replace_marker() -> None:
        bench.delete_marker()
        bench.direct.setdefault("a", 2)

    bench.trouble("DeleteObject", Fault.DROP_REPLY, meanwhile=replace_marker)
    assert bench.d.pop("a") == 1
    assert bench.direct["a"] == 2


@pytest.mark.parametrize("delete", ["discard", "__delitem__"])
def test_an_item_that_others_replace_all_the_time_is_not_pursued_without_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, delete: str
) -> None:
    bench.direct["a"] = 0
    numbers = itertools.count(1)

    def replace_it() -> None:
        bench.direct["a"] = next(numbers)

    bench.trouble("HeadObject", *[Fault.PASS] * 50, meanwhile=replace_it)
    pauses: list[int] = []
    monkeypatch.setattr(deleting, "pause", pauses.append)
    with pytest.raises(ConcurrencyConflictError) as raised:
        getattr(bench.d, delete)("a")
    assert (raised.value.key, raised.value.attempts) == (("a",), 20)
    assert pauses == list(range(1, 20))


def test_a_deleter_that_was_away_for_long_leaves_its_marker_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "SECONDS_TO_DELETE", -1.0)
    bench.direct["a"] = 1
    assert bench.d.pop("a") == 1
    assert bench.sent("DeleteObject") == 0
    assert "a" not in bench.d


def test_without_leave_to_delete_nothing_is_marked(moto_aws_server: MotoServer) -> None:
    quirks = replace(CEPH, forbidden=frozenset({"DeleteObject"}))
    d = connect(moto_aws_server.with_quirks(quirks).endpoint_url)
    d["a"] = 1
    with pytest.raises(Exception, match=r"403|AccessDenied|Forbidden"):
        d.pop("a")
    assert d["a"] == 1
    assert not d.capabilities.one_taker


def test_capabilities_tell_how_items_are_taken(
    moto_like: Callable[[ServerQuirks], MotoServer],
) -> None:
    found = {
        name: connect(moto_like(quirks).endpoint_url).capabilities
        for name, quirks in {**PLAIN_DELETE, "aws": AWS, "nothing": NO_CONDITIONS}.items()
    }
    assert {name: (c.deletes_by_marker, c.one_taker) for name, c in found.items()} == {
        "localstack": (True, True),
        "ceph": (True, True),
        "aws": (False, True),
        "nothing": (False, False),
    }


def test_what_is_being_taken_cannot_be_copied(bench_with_marker: Bench) -> None:
    bench_with_marker.direct["b"] = 1
    store = bench_with_marker.d._s3_store
    ((_, outcome),) = store.copy_many(store, [(NAME, "b.pkl")])
    assert isinstance(outcome, ObjectNotFound)
    assert bench_with_marker.stored() == [NAME]


# ---------------------------------------------------------------------- inserting

INSERTS: dict[str, Callable[[PersiDict[Any]], Any]] = {
    "setdefault": lambda d: d.setdefault("a", 2) == 2,
    "set_item_if": lambda d: (
        d.set_item_if(
            "a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
        ).value_was_mutated
    ),
    "transform": lambda d: d.transform_item("a", transformer=lambda _: 2),
    "assignment after a look": lambda d: "a" in d or d.__ior__({"a": 2}),
}
each_insert = pytest.mark.parametrize("insert", INSERTS)


@each_insert
def test_an_insertion_waits_until_a_fresh_marker_is_deleted(
    bench_with_marker: Bench, monkeypatch: pytest.MonkeyPatch, insert: str
) -> None:
    bench = bench_with_marker
    pauses: list[int] = []

    def delete_in_the_third_pause(attempt: int) -> None:
        pauses.append(attempt)
        if len(pauses) == 3:
            bench.delete_marker()

    monkeypatch.setattr(waiting, "pause", delete_in_the_third_pause)
    assert INSERTS[insert](bench.d)
    assert pauses == [1, 2, 3]
    assert bench.direct["a"] == 2


@each_insert
def test_an_insertion_replaces_a_marker_that_is_old_by_the_servers_clock(
    bench_with_marker: Bench, insert: str
) -> None:
    bench_with_marker.proxy.rewrite(ClockAhead(60))
    assert INSERTS[insert](bench_with_marker.d)
    assert bench_with_marker.direct["a"] == 2


@pytest.mark.parametrize("seconds", [4, 6, 30])
def test_a_clock_that_runs_ahead_makes_no_fresh_marker_old(
    bench_with_marker: Bench, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    bench = bench_with_marker
    bench.proxy.rewrite(ClockAhead(seconds))
    waited = threading.Event()

    def delete(attempt: int) -> None:
        waited.set()
        bench.delete_marker()

    monkeypatch.setattr(waiting, "pause", delete)
    assert bench.d.setdefault("a", 2) == 2
    assert waited.is_set()


def test_an_insertion_replaces_a_marker_that_it_has_watched_for_long_enough(
    bench_with_marker: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SECONDS_TO_WATCH", -1.0)
    assert bench_with_marker.d.setdefault("a", 2) == 2
    assert bench_with_marker.direct["a"] == 2


@pytest.mark.parametrize("fault", [*UNHEARD, *TWICE, *NEVER_ACTED], ids=lambda fault: fault.name)
def test_replacing_an_old_marker_survives_what_becomes_of_the_request(
    bench_with_marker: Bench, fault: Fault
) -> None:
    bench = bench_with_marker
    bench.proxy.rewrite(ClockAhead(60))
    bench.proxy.script(
        fault, matches=lambda request: request.operation == "PutObject" and request.key == NAME
    )
    assert bench.d.setdefault("a", 2) == 2
    assert bench.direct["a"] == 2


def test_an_insertion_that_was_taken_before_its_second_delivery_was_refused_took_place(
    bench: Bench,
) -> None:
    def take() -> None:
        bench.direct.s3_client.head_object(Bucket=bench.bucket, Key=NAME)

    bench.trouble("PutObject", Fault.DUPLICATE, meanwhile=take)
    assert bench.d.setdefault("a", 2) == 2


def test_a_bulk_insertion_onto_markers_inserts(
    bench_with_marker: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_with_marker
    monkeypatch.setattr(waiting, "pause", lambda attempt: bench.delete_marker())
    d = connect(bench.proxy.endpoint_url, bucket_name=bench.bucket, append_only=True)
    d.update({"a": 2, "b": 3})
    assert dict(bench.direct) == {("a",): 2, ("b",): 3}


def test_a_large_insertion_onto_a_marker_inserts(
    bench_with_marker: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_with_marker
    monkeypatch.setattr(waiting, "pause", lambda attempt: bench.delete_marker())
    d = connect(bench.proxy.endpoint_url, bucket_name=bench.bucket, large_object_size=1000)
    assert d.setdefault("a", bytes(2000)) == bytes(2000)
    assert bench.direct["a"] == bytes(2000)


# ---------------------------------------------------------------------- sweeping

SWEEPS: dict[str, Callable[[Dict], Any]] = {
    "list": list,
    "len": len,
    "items": lambda d: list(d.items()),
    "clear": lambda d: d.clear(),
    "bool": bool,
}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_listings_and_clear_delete_old_markers(bench_with_marker: Bench, sweep: str) -> None:
    bench_with_marker.proxy.rewrite(ClockAhead(60))
    SWEEPS[sweep](bench_with_marker.d)
    assert bench_with_marker.stored() == []


@pytest.mark.parametrize("sweep", SWEEPS)
def test_listings_and_clear_leave_fresh_markers_to_their_deleters(
    bench_with_marker: Bench, sweep: str
) -> None:
    SWEEPS[sweep](bench_with_marker.d)
    assert bench_with_marker.stored() == [NAME]


def test_of_two_who_sweep_one_marker_the_second_one_deletes_nothing_that_came_meanwhile(
    bench_with_marker: Bench,
) -> None:
    bench = bench_with_marker
    bench.proxy.rewrite(ClockAhead(60))

    def sweep_and_insert() -> None:
        bench.delete_marker()
        bench.direct.setdefault("a", 2)

    bench.proxy.script(
        Fault.PASS,
        matches=lambda request: request.operation == "ListObjectsV2",
        meanwhile=sweep_and_insert,
    )
    assert list(bench.d) == []
    assert bench.direct["a"] == 2


def test_a_listing_with_credentials_that_may_not_write_leaves_markers_out_all_the_same(
    moto_aws_server: MotoServer,
) -> None:
    server = moto_aws_server.with_quirks(CEPH)
    bucket = new_bucket_name()
    writer = connect(server.endpoint_url, bucket_name=bucket)
    writer["b"] = 1
    writer.s3_client.put_object(Bucket=bucket, Key=NAME, Body=VARIANT)
    quirks = replace(CEPH, forbidden=frozenset({"PutObject", "DeleteObject"}))
    with FaultProxy(moto_aws_server.with_quirks(quirks).endpoint_url) as proxy:
        proxy.rewrite(ClockAhead(60))
        reader = connect(proxy.endpoint_url, bucket_name=bucket)
        assert [list(reader), list(reader)] == [[("b",)]] * 2
