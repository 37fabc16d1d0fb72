"""The store on S3: what it finds out about servers, and what it does about it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ClientError

from persidict.exceptions import BackendError, ObjectNotFound, PreconditionFailed
from persidict.stores.object_store import ANY_VERSION, CommonPrefix, NotModified, ObjectInfo
from persidict.stores.s3.capabilities import PROBE_NAME, S3Capabilities, Support
from persidict.stores.s3.store import S3Store
from persidict.stores.s3.transport.client import shared_client
from persidict.stores.s3.transport.connection import S3Connection
from persidict.stores.s3.transport.etag_form import is_aws_endpoint
from tests.s3_servers.clients import CREDENTIALS, new_bucket_name
from tests.s3_servers.fixtures import localstack_server, moto_aws_server, moto_like
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import (
    AWS,
    AWS_RACING,
    CEPH,
    IGNORED,
    LOCALSTACK,
    MOTO,
    NEVER_MET,
    NO_CONDITIONS,
    REFUSED,
    ServerQuirks,
)

__all__ = ["localstack_server", "moto_aws_server", "moto_like"]

NewStore = Callable[..., S3Store]
OTHER: Any = '"0123456789abcdef0123456789abcdef"'


def store_on(endpoint_url: str, **params: Any) -> S3Store:
    access_key_id, secret_access_key = CREDENTIALS
    connection = S3Connection.of(
        region="us-east-1",
        endpoint_url=endpoint_url,
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
    )
    settings: dict[str, Any] = {"bucket_name": new_bucket_name(), **params}
    return S3Store(shared_client(connection), **settings)


@pytest.fixture
def new_store(moto_aws_server: MotoServer) -> NewStore:
    """Makes a store on a new bucket of a server with the quirks given."""

    def make(quirks: ServerQuirks = AWS, **params: Any) -> S3Store:
        return store_on(moto_aws_server.with_quirks(quirks).endpoint_url, **params)

    return make


@pytest.fixture
def store(new_store: NewStore) -> S3Store:
    return new_store()


def body_of(store: S3Store, name: str) -> bytes:
    found = store.get(name)
    assert not isinstance(found, NotModified)
    return bytes(found[0])


# ---------------------------------------------------------------------- capabilities

E, R, NO = Support.ENFORCED, Support.REFUSED, Support.IGNORED

FOUND = {
    "aws": (AWS, S3Capabilities(E, E, E, E)),
    "aws-racing": (AWS_RACING, S3Capabilities(E, E, E, E)),
    "moto": (MOTO, S3Capabilities(E, E, E, E)),
    "localstack": (LOCALSTACK, S3Capabilities(E, E, R, R)),
    "ceph": (CEPH, S3Capabilities(E, E, NO, NO, unquoted_etags=True)),
    "nothing": (NO_CONDITIONS, S3Capabilities(NO, NO, NO, NO)),
    "all refused": (
        ServerQuirks(
            put_if_match=REFUSED,
            put_if_none_match_any=REFUSED,
            delete_if_match=REFUSED,
            delete_if_match_any=REFUSED,
        ),
        S3Capabilities(R, R, R, R),
    ),
    "no permission to delete": (
        ServerQuirks(forbidden=frozenset({"DeleteObject"})),
        S3Capabilities(E, E, R, R),
    ),
}


@pytest.mark.parametrize("server", FOUND)
def test_a_probe_finds_out_what_a_server_enforces(new_store: NewStore, server: str) -> None:
    quirks, expected = FOUND[server]
    assert new_store(quirks).capabilities == expected


def test_a_probe_finds_out_what_localstack_enforces(localstack_server: Any) -> None:
    assert store_on(localstack_server.endpoint_url).capabilities == S3Capabilities(E, E, R, R)


@pytest.mark.parametrize("server", [name for name in FOUND if name != "no permission to delete"])
def test_probes_leave_nothing_behind(new_store: NewStore, server: str) -> None:
    store = new_store(FOUND[server][0])
    assert store.capabilities
    assert list(store.names()) == []


def test_nothing_is_asked_before_an_operation_needs_it(moto_aws_server: MotoServer) -> None:
    server = moto_aws_server.with_quirks(AWS)
    store = store_on(server.endpoint_url)
    store.put("a", b"1")
    store.delete("a")
    assert not [r for r in server.requests() if PROBE_NAME in r.key]


def test_a_swap_costs_one_more_request_the_first_time_only(moto_aws_server: MotoServer) -> None:
    server = moto_aws_server.with_quirks(AWS)
    store = store_on(server.endpoint_url)
    etag = store.put("a", b"1")
    server.reset_log()
    etag = store.put("a", b"2", if_match=etag)
    store.put("a", b"3", if_match=etag)
    assert server.counts() == {"PutObject": 3}


def test_stores_on_one_bucket_share_what_was_found_out(moto_aws_server: MotoServer) -> None:
    server = moto_aws_server.with_quirks(AWS)
    bucket_name = new_bucket_name()
    first, second = (store_on(server.endpoint_url, bucket_name=bucket_name) for _ in range(2))
    assert first.capabilities
    server.reset_log()
    assert second.capabilities
    assert server.requests() == []


def test_a_probe_that_is_not_answered_concludes_nothing(new_store: NewStore) -> None:
    store = new_store(create_bucket=False)
    with pytest.raises(ClientError):
        store.put("a", b"1", if_none_match=ANY_VERSION)
    store.shared.client.create_bucket(Bucket=store.bucket_name)
    assert store.put("a", b"1", if_none_match=ANY_VERSION)


@pytest.mark.parametrize(
    ("url", "is_aws"),
    [
        ("https://s3.amazonaws.com", True),
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("https://bucket.s3.cn-north-1.amazonaws.com.cn/", True),
        ("http://127.0.0.1:5552", False),
        ("https://minio.example.org/s3.amazonaws.com", False),
        ("https://s3.amazonaws.com.example.org", False),
    ],
)
def test_only_aws_own_endpoints_are_not_asked(url: str, is_aws: bool) -> None:
    assert is_aws_endpoint(url) is is_aws


# ---------------------------------------------------------------------- conditional writes

SERVERS = {"aws": AWS, "aws-racing": AWS_RACING, "moto": MOTO, "localstack": LOCALSTACK}
SERVERS |= {"ceph": CEPH}
each_server = pytest.mark.parametrize("server", SERVERS)


@each_server
def test_a_write_over_the_current_version_takes_place(new_store: NewStore, server: str) -> None:
    store = new_store(SERVERS[server])
    etag = store.put("a", b"1")
    assert store.put("a", b"2", if_match=etag) == store.head("a").etag
    assert body_of(store, "a") == b"2"


@each_server
def test_a_write_over_another_version_changes_nothing(new_store: NewStore, server: str) -> None:
    store = new_store(SERVERS[server])
    store.put("a", b"1")
    with pytest.raises(PreconditionFailed):
        store.put("a", b"2", if_match=OTHER)
    assert body_of(store, "a") == b"1"


@each_server
def test_a_write_over_a_version_of_what_is_absent_changes_nothing(
    new_store: NewStore, server: str
) -> None:
    store = new_store(SERVERS[server])
    with pytest.raises(PreconditionFailed):
        store.put("a", b"2", if_match=OTHER)
    with pytest.raises(ObjectNotFound):
        store.get("a")


@each_server
def test_an_insertion_takes_place_once(new_store: NewStore, server: str) -> None:
    store = new_store(SERVERS[server])
    store.put("a", b"1", if_none_match=ANY_VERSION)
    with pytest.raises(PreconditionFailed):
        store.put("a", b"2", if_none_match=ANY_VERSION)
    assert body_of(store, "a") == b"1"


@pytest.mark.parametrize("text", ["", "*", '"a", "b"', "unquoted", '"', '" "', "W/"])
def test_what_can_be_no_etag_matches_nothing(store: S3Store, text: Any) -> None:
    store.put("a", b"1")
    with pytest.raises(PreconditionFailed):
        store.put("a", b"2", if_match=text)
    assert body_of(store, "a") == b"1"


def test_the_form_of_etags_is_learnt_once(moto_aws_server: MotoServer) -> None:
    server = moto_aws_server.with_quirks(CEPH)
    store = store_on(server.endpoint_url)
    etag = store.put("a", b"1")
    etag = store.put("a", b"2", if_match=etag)
    server.reset_log()
    store.put("a", b"3", if_match=etag)
    assert [request.status for request in server.requests()] == [200]


def test_a_server_that_accepts_an_etag_in_no_form_is_refused(new_store: NewStore) -> None:
    store = new_store(ServerQuirks(put_if_match=NEVER_MET))
    etag = store.put("a", b"1")
    with pytest.raises(BackendError, match="412"):
        store.put("a", b"2", if_match=etag)


def test_collisions_are_tried_again(new_store: NewStore) -> None:
    store = new_store(ServerQuirks(conflict_every=2))
    etag = store.put("a", b"1", if_none_match=ANY_VERSION)
    for number in range(4):
        etag = store.put("a", b"%d" % number, if_match=etag)
    assert body_of(store, "a") == b"3"


def test_collisions_without_end_are_raised(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persidict.stores.s3.requests.pause", lambda attempt: None)
    store = new_store()
    etag = store.put("a", b"1", if_none_match=ANY_VERSION)
    colliding = new_store(ServerQuirks(conflict_every=1), bucket_name=store.bucket_name)
    with pytest.raises(ClientError) as raised:
        colliding.put("a", b"2", if_match=etag)
    assert raised.value.response["Error"]["Code"] == "ConditionalRequestConflict"


# ---------------------------------------------------------------------- deletions


@each_server
def test_deleting_the_current_version_deletes_it(new_store: NewStore, server: str) -> None:
    store = new_store(SERVERS[server])
    store.delete("a", if_match=store.put("a", b"1"))
    assert list(store.names()) == []


@each_server
def test_deleting_another_version_deletes_nothing(new_store: NewStore, server: str) -> None:
    store = new_store(SERVERS[server])
    store.put("a", b"1")
    with pytest.raises(PreconditionFailed):
        store.delete("a", if_match=OTHER)
    assert list(store.names()) == ["a"]


@each_server
def test_deleting_a_version_of_what_is_absent_says_so(new_store: NewStore, server: str) -> None:
    store = new_store(SERVERS[server])
    with pytest.raises((ObjectNotFound, PreconditionFailed)):
        store.delete("a", if_match=OTHER)


@each_server
def test_deleting_whatever_is_there_tells_whether_there_was_something(
    new_store: NewStore, server: str
) -> None:
    store = new_store(SERVERS[server])
    store.put("a", b"1")
    store.delete("a", if_match=ANY_VERSION)
    for _ in range(2):
        with pytest.raises(ObjectNotFound):
            store.delete("a", if_match=ANY_VERSION)


@each_server
@pytest.mark.parametrize("version", [ANY_VERSION, OTHER], ids=["any version", "one version"])
def test_absence_that_a_deletion_meets_is_chained_from_the_services_own_error(
    new_store: NewStore, server: str, version: Any
) -> None:
    store = new_store(SERVERS[server])
    with pytest.raises((ObjectNotFound, PreconditionFailed)) as caught:
        store.delete("a", if_match=version)
    assert isinstance(caught.value.__cause__, ClientError)


def test_where_an_asterisk_is_taken_for_an_etag_deleting_works_all_the_same(
    new_store: NewStore,
) -> None:
    store = new_store(ServerQuirks(delete_if_match_any=NEVER_MET))
    for name in ("a", "b"):
        store.put(name, b"1")
        store.delete(name, if_match=ANY_VERSION)
    assert list(store.names()) == []
    assert store.capabilities.delete_if_match_any is Support.REFUSED


def test_where_deletions_under_an_etag_are_never_met_it_looks_and_deletes(
    new_store: NewStore,
) -> None:
    store = new_store(ServerQuirks(delete_if_match=NEVER_MET))
    store.delete("a", if_match=store.put("a", b"1"))
    assert list(store.names()) == []


def test_where_only_deletions_under_an_etag_are_never_met_that_is_found_out_after_other_conditions(
    new_store: NewStore,
) -> None:
    store = new_store(ServerQuirks(delete_if_match=NEVER_MET))
    etag = store.put("a", b"2", if_match=store.put("a", b"1"))
    store.delete("a", if_match=etag)
    assert list(store.names()) == []


def test_deleting_without_a_condition_does_not_mind_absence(store: S3Store) -> None:
    store.delete("a")
    assert list(store.names()) == []


def test_what_is_deleted_from_a_versioned_bucket_is_absent(store: S3Store) -> None:
    store.shared.client.put_bucket_versioning(
        Bucket=store.bucket_name, VersioningConfiguration={"Status": "Enabled"}
    )
    store.put("a", b"1")
    etag = store.put("a", b"2")
    store.delete("a", if_match=etag)
    with pytest.raises(ObjectNotFound):
        store.get("a")
    assert list(store.names()) == []
    store.put("a", b"3", if_none_match=ANY_VERSION)
    assert body_of(store, "a") == b"3"


# ---------------------------------------------------------------------- listings

NAMES = sorted(["a.pkl", "a/b.pkl", "a/c/d.pkl", "a-b.pkl", "b/~=()_.-.pkl", "ü +%&.pkl", "z"])


@pytest.fixture
def listed(new_store: NewStore) -> S3Store:
    """A store below a prefix, on a server with pages of two, beside another one."""
    store = new_store(ServerQuirks(page_size=2), prefix="root/")
    for name in NAMES:
        store.put(name, name.encode())
    store.scoped("../").put("x", b"")
    store_beside = new_store(bucket_name=store.bucket_name, prefix="rooted/")
    store_beside.put("y", b"")
    return store


def test_a_listing_follows_pages_of_any_size(listed: S3Store) -> None:
    assert [name for name in listed.names() if name != "../x"] == NAMES


def test_a_listing_tells_what_looking_tells(listed: S3Store) -> None:
    listing = list(listed.list("a"))
    assert listing == [listed.head(entry[0]) for entry in listing]


def test_a_listing_begins_where_it_is_told(listed: S3Store) -> None:
    assert next(listed.names(start_after="a/b.pkl")) == "a/c/d.pkl"


def test_a_listing_by_delimiter_rolls_up_in_order(listed: S3Store) -> None:
    entries = list(listed.list("a", delimiter="/"))
    assert [entry[0] for entry in entries] == ["a-b.pkl", "a.pkl", "a/"]
    assert [type(entry) for entry in entries] == [ObjectInfo, ObjectInfo, CommonPrefix]


def test_a_listing_is_in_order_across_pages(listed: S3Store) -> None:
    names = list(listed.names())
    assert all(first.encode() < second.encode() for first, second in pairwise(names))


# ---------------------------------------------------------------------- many objects


def test_many_objects_come_in_the_order_asked_and_absent_ones_are_left_out(
    store: S3Store,
) -> None:
    names = [f"n{number:03}" for number in range(100)]
    outcomes = list(store.put_many((name, name.encode()) for name in names))
    assert [name for name, _ in outcomes] == names
    asked = [*reversed(names), "absent"]
    read = [(name, bytes(data)) for name, data, _ in store.get_many(asked)]
    assert read == [(name, name.encode()) for name in reversed(names)]


def test_a_consumer_that_stops_is_not_read_ahead_for(store: S3Store) -> None:
    names = [f"n{number:03}" for number in range(300)]
    list(store.put_many((name, b"") for name in names))
    taken: list[str] = []

    def asked() -> Any:
        for name in names:
            taken.append(name)
            yield name

    reading = store.get_many(asked())
    next(reading)
    reading.close()
    assert len(taken) <= 2 * store.shared.pool.max_workers


def test_insertions_that_fail_are_told_one_by_one(store: S3Store) -> None:
    store.put("b", b"0")
    outcomes = dict(
        store.put_many([("a", b"1"), ("b", b"1"), ("c", b"1")], if_none_match=ANY_VERSION)
    )
    failed = [name for name, outcome in outcomes.items() if isinstance(outcome, Exception)]
    assert failed == ["b"]
    assert [body_of(store, name) for name in "abc"] == [b"1", b"0", b"1"]


def test_more_than_a_thousand_objects_are_deleted(store: S3Store) -> None:
    names = [f"n{number}" for number in range(1050)]
    list(store.put_many((name, b"") for name in names))
    store.put("stays", b"")
    assert list(store.delete_many([*names, "absent"])) == []
    assert list(store.names()) == ["stays"]


def test_objects_that_may_not_be_deleted_are_told_with_the_reason(new_store: NewStore) -> None:
    store = new_store(ServerQuirks(forbidden=frozenset({"DeleteObjects"})))
    store.put("a", b"")
    [(name, error)] = store.delete_many(["a"])
    assert name == "a"
    assert isinstance(error, ClientError)


def test_conditions_hold_where_a_read_is_not_needed(store: S3Store) -> None:
    etag = store.put("a", b"1")
    assert isinstance(store.get("a", if_none_match=etag), NotModified)
    assert not isinstance(store.get("a", if_none_match=OTHER), NotModified)


def test_ignored_conditions_on_insertion_refuse_to_insert(new_store: NewStore) -> None:
    store = new_store(ServerQuirks(put_if_none_match_any=IGNORED))
    with pytest.raises(BackendError, match="If-None-Match"):
        store.put("a", b"1", if_none_match=ANY_VERSION)
    assert list(store.names()) == []
