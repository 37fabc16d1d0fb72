"""Each operation takes as few requests as the server's abilities allow."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from persidict import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    NEVER_RETRIEVE,
    MutationPolicyError,
    WriteOnceDict,
)
from persidict.basic_s3_dict import BasicS3Dict
from persidict.wrapper_dict import WrapperDict
from tests.s3_dicts import connect
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS, LOCALSTACK

__all__ = ["moto_aws_server"]

Dict = BasicS3Dict[Any]
OTHER = '"0123456789abcdef0123456789abcdef"'


class RequestCounter:
    """Counts a client's requests by operation, through botocore's own events."""

    def __init__(self, d: Dict) -> None:
        self._events = d.s3_client.meta.events
        self.counts: Counter[str] = Counter()

    def _count(self, event_name: str, **kwargs: Any) -> None:
        self.counts[event_name.rpartition(".")[2]] += 1

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Count what is sent meanwhile."""
        self.counts.clear()
        self._events.register("before-send.s3", self._count)
        try:
            yield self.counts
        finally:
            self._events.unregister("before-send.s3", self._count)


def prepared(d: Dict) -> Dict:
    """Let a dictionary find out what its server does, so that this is not counted."""
    d["present"] = 1
    assert d.capabilities.put_if_match
    return d


@pytest.fixture
def d(moto_aws_server: MotoServer) -> Dict:
    return prepared(connect(moto_aws_server.endpoint_url))


def requests_of(d: Dict, operation: Callable[[], Any]) -> dict[str, int]:
    with RequestCounter(d).counting() as counts:
        operation()
    return dict(counts)


READS: dict[str, tuple[Callable[[Dict, str], Any], dict[str, int]]] = {
    "d[key]": (lambda d, etag: d["present"], {"GetObject": 1}),
    "_repr_html_": (lambda d, etag: d._repr_html_(), {"ListObjectsV2": 1}),
    "in": (lambda d, etag: "present" in d, {"HeadObject": 1}),
    "etag": (lambda d, etag: d.etag("present"), {"HeadObject": 1}),
    "timestamp": (lambda d, etag: d.timestamp("present"), {"HeadObject": 1}),
    "get_with_etag": (lambda d, etag: d.get_with_etag("present"), {"GetObject": 1}),
    "get_item_if, unchanged": (
        lambda d, etag: d.get_item_if("present", condition=ETAG_HAS_CHANGED, expected_etag=etag),
        {"GetObject": 1},
    ),
    "get_item_if, never retrieve": (
        lambda d, etag: d.get_item_if(
            "present", condition=ANY_ETAG, expected_etag=etag, retrieve_value=NEVER_RETRIEVE
        ),
        {"HeadObject": 1},
    ),
    "bool": (lambda d, etag: bool(d), {"ListObjectsV2": 1}),
    "get_subdict": (lambda d, etag: d.get_subdict("a"), {}),
    "get_subdict of nothing": (lambda d, etag: d.get_subdict(()), {}),
}

CHANGES: dict[str, tuple[Callable[[Dict, str], Any], dict[str, int]]] = {
    "d[key] = value": (lambda d, etag: d.__setitem__("new", 2), {"PutObject": 1}),
    "set_item_if ETAG_IS_THE_SAME, met": (
        lambda d, etag: d.set_item_if(
            "present", value=2, condition=ETAG_IS_THE_SAME, expected_etag=etag
        ),
        {"PutObject": 1},
    ),
    "set_item_if ETAG_IS_THE_SAME, inserting": (
        lambda d, etag: d.set_item_if(
            "new", value=2, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
        ),
        {"PutObject": 1},
    ),
    "set_item_if ETAG_IS_THE_SAME, not met, value wanted": (
        lambda d, etag: d.set_item_if(
            "present",
            value=2,
            condition=ETAG_IS_THE_SAME,
            expected_etag=OTHER,
            retrieve_value=ALWAYS_RETRIEVE,
        ),
        {"PutObject": 1, "GetObject": 1},
    ),
    "set_item_if ETAG_IS_THE_SAME, not met, value not wanted": (
        lambda d, etag: d.set_item_if(
            "present",
            value=2,
            condition=ETAG_IS_THE_SAME,
            expected_etag=OTHER,
            retrieve_value=NEVER_RETRIEVE,
        ),
        {"PutObject": 1, "HeadObject": 1},
    ),
    "set_item_if ANY_ETAG": (
        lambda d, etag: d.set_item_if(
            "present", value=2, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
        ),
        {"HeadObject": 1, "PutObject": 1},
    ),
    "set_item_if ETAG_HAS_CHANGED": (
        lambda d, etag: d.set_item_if(
            "present", value=2, condition=ETAG_HAS_CHANGED, expected_etag=OTHER
        ),
        {"HeadObject": 1, "PutObject": 1},
    ),
    "setdefault, absent": (lambda d, etag: d.setdefault("new", 2), {"PutObject": 1}),
    "setdefault, present": (
        lambda d, etag: d.setdefault("present", 2),
        {"PutObject": 1, "GetObject": 1},
    ),
    "setdefault_if, absent": (
        lambda d, etag: d.setdefault_if(
            "new", default_value=2, condition=ANY_ETAG, expected_etag=OTHER
        ),
        {"PutObject": 1},
    ),
    "setdefault_if, present": (
        lambda d, etag: d.setdefault_if(
            "present",
            default_value=2,
            condition=ETAG_IS_THE_SAME,
            expected_etag=ITEM_NOT_AVAILABLE,
        ),
        {"PutObject": 1, "GetObject": 1},
    ),
    "discard_if ETAG_IS_THE_SAME": (
        lambda d, etag: d.discard_if("present", condition=ETAG_IS_THE_SAME, expected_etag=etag),
        {"DeleteObject": 1},
    ),
    "del d[key]": (lambda d, etag: d.__delitem__("present"), {"DeleteObject": 1}),
    "discard": (lambda d, etag: d.discard("present"), {"DeleteObject": 1}),
    "pop": (lambda d, etag: d.pop("present"), {"GetObject": 1, "DeleteObject": 1}),
    "transform_item": (
        lambda d, etag: d.transform_item("present", transformer=lambda value: value + 1),
        {"GetObject": 1, "PutObject": 1},
    ),
    "transform_item, inserting": (
        lambda d, etag: d.transform_item("new", transformer=lambda value: 1),
        {"GetObject": 1, "PutObject": 1},
    ),
    "popitem": (
        lambda d, etag: d.popitem(),
        {"ListObjectsV2": 1, "GetObject": 1, "DeleteObject": 1},
    ),
    "clear": (lambda d, etag: d.clear(), {"ListObjectsV2": 1, "DeleteObjects": 1}),
}


@pytest.mark.parametrize("name", [*READS, *CHANGES])
def test_an_operation_takes_no_more_requests_than_the_budget_allows(d: Dict, name: str) -> None:
    operation, budget = {**READS, **CHANGES}[name]
    etag = d.etag("present")
    assert requests_of(d, lambda: operation(d, etag)) == budget


@pytest.mark.parametrize("name", [*READS, *CHANGES])
def test_a_wrapper_takes_the_requests_of_what_it_wraps(d: Dict, name: str) -> None:
    operation, budget = {**READS, **CHANGES}[name]
    etag = d.etag("present")
    wrapper: Any = WrapperDict(wrapped_dict=d)
    assert requests_of(d, lambda: operation(wrapper, etag)) == budget


def test_an_insertion_by_setdefault_of_a_write_once_dictionary_takes_one_request(
    moto_aws_server: MotoServer,
) -> None:
    d = prepared(connect(moto_aws_server.endpoint_url, append_only=True))
    write_once = WriteOnceDict(wrapped_dict=d)
    assert requests_of(d, lambda: write_once.setdefault("new", 1)) == {"PutObject": 1}


def test_an_append_only_insertion_takes_one_request(moto_aws_server: MotoServer) -> None:
    d = prepared(connect(moto_aws_server.endpoint_url, append_only=True))
    assert requests_of(d, lambda: d.__setitem__("new", 1)) == {"PutObject": 1}


def test_an_append_only_refusal_takes_two_requests(moto_aws_server: MotoServer) -> None:
    d = prepared(connect(moto_aws_server.endpoint_url, append_only=True))

    def refused() -> None:
        with pytest.raises(MutationPolicyError):
            d["present"] = 2

    assert requests_of(d, refused) == {"PutObject": 1, "HeadObject": 1}


def test_discarding_what_is_absent_takes_one_request_once_the_answer_is_understood(
    d: Dict,
) -> None:
    d.discard("absent")
    assert requests_of(d, lambda: d.discard("absent")) == {"DeleteObject": 1}


def test_without_conditional_deletes_a_discard_takes_three_requests(
    moto_aws_server: MotoServer,
) -> None:
    d = prepared(connect(moto_aws_server.with_quirks(LOCALSTACK).endpoint_url))
    counted = requests_of(d, lambda: d.discard("present"))
    assert counted == {"HeadObject": 1, "PutObject": 1, "DeleteObject": 1}


def test_a_second_handle_on_the_same_bucket_takes_no_request(d: Dict) -> None:
    again = {"bucket_name": d.bucket_name, "root_prefix": "elsewhere"}
    assert requests_of(d, lambda: connect(d.s3_client.meta.endpoint_url, **again)) == {}


def test_a_first_handle_on_an_existing_bucket_takes_one_request(d: Dict) -> None:
    d.s3_client.create_bucket(Bucket=f"{d.bucket_name}-2")
    endpoint = d.s3_client.meta.endpoint_url
    counted = requests_of(d, lambda: connect(endpoint, bucket_name=f"{d.bucket_name}-2"))
    assert counted == {"HeadBucket": 1}


def test_a_handle_that_creates_no_bucket_takes_no_request(d: Dict) -> None:
    counted = requests_of(
        d,
        lambda: connect(
            d.s3_client.meta.endpoint_url, bucket_name="never-seen", create_bucket=False
        ),
    )
    assert counted == {}


@pytest.fixture(scope="module")
def large(moto_aws_server: MotoServer) -> Dict:
    """A dictionary of 2 100 items, in 3 groups and alone."""
    d = connect(moto_aws_server.endpoint_url)
    keys = [(f"group{i % 3}", str(i)) for i in range(2097)] + [("a",), ("b",), ("c",)]
    failures = [
        etag
        for _, etag in d._store.put_many(("/".join(key) + ".pkl", b"I1\n.") for key in keys)
        if isinstance(etag, Exception)
    ]
    assert failures == []
    return prepared_large(d)


def prepared_large(d: Dict) -> Dict:
    assert d.capabilities.delete_if_match
    assert not d.keys(start="~", stop="~~")  # asks whether listings come in order
    return d


LISTINGS: dict[str, tuple[Callable[[Dict], Any], int]] = {
    "len": (len, 3),
    "list": (list, 3),
    "newest_keys": (lambda d: d.newest_keys(max_n=5), 3),
    # a group tells by its names alone that it holds keys: those behind the first page are skipped
    "subdicts": (lambda d: d.subdicts(), 2),
    "bool": (bool, 1),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_takes_one_request_for_each_thousand(large: Dict, name: str) -> None:
    operation, pages = LISTINGS[name]
    assert requests_of(large, lambda: operation(large)) == {"ListObjectsV2": pages}


def test_bool_asks_for_one_key(large: Dict, moto_aws_server: MotoServer) -> None:
    moto_aws_server.reset_log()
    assert bool(large)
    assert [request.query["max-keys"] for request in moto_aws_server.requests()] == ["1"]


def test_popitem_asks_for_one_small_page(large: Dict, moto_aws_server: MotoServer) -> None:
    moto_aws_server.reset_log()
    large.popitem()
    asked = moto_aws_server.requests()
    assert [request.operation for request in asked] == [
        "ListObjectsV2",
        "GetObject",
        "DeleteObject",
    ]
    assert int(asked[0].query["max-keys"]) < 100


FIVES = sum(1 for i in range(2, 2097, 3) if str(i).startswith("5"))

RANGES: dict[str, tuple[Callable[[Dict], Any], Any]] = {
    "len": (lambda d: len(d.keys(start=("group2", "5"), stop=("group2", "6"))), FIVES),
    "reversed": (lambda d: next(reversed(d.keys(prefix="group2", stop="group3"))), None),
    "glob": (lambda d: len(list(d.glob("group2/5*"))), FIVES),
    "infos": (lambda d: len(list(d.infos("group2", ("group2", "5"), ("group2", "6")))), FIVES),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_range_costs_what_lies_in_it(large: Dict, name: str) -> None:
    operation, expected = RANGES[name]
    found: list[Any] = []
    counted = requests_of(large, lambda: found.append(operation(large)))
    counted.pop("HeadObject", None)  # of the item that is called like the prefix
    assert counted == {"ListObjectsV2": 1}
    assert expected is None or found == [expected]


def test_discarding_a_range_takes_its_listing_and_one_deletion(moto_aws_server: MotoServer) -> None:
    d = prepared_large(connect(moto_aws_server.endpoint_url))
    list(d._store.put_many((f"{i:04}.pkl", b"I1\n.") for i in range(1500)))
    counted = requests_of(d, lambda: d.discard_many(d.keys(start="0100", stop="0200")))
    assert counted == {"ListObjectsV2": 1, "DeleteObjects": 1}
    assert len(d) == 1400


def test_clearing_takes_a_listing_and_a_deletion_for_each_thousand(
    moto_aws_server: MotoServer,
) -> None:
    d = connect(moto_aws_server.endpoint_url)
    list(d._store.put_many((f"{i}.pkl", b"I1\n.") for i in range(1500)))
    counted = requests_of(d, d.clear)
    assert counted == {"ListObjectsV2": 2, "DeleteObjects": 2}


# ---------------------------------------------------------------------- on the wire


@pytest.fixture
def watched(moto_aws_server: MotoServer) -> MotoServer:
    """An endpoint whose log nobody else writes to."""
    return moto_aws_server.with_quirks(AWS)


@pytest.mark.parametrize("size", [100_000, 5_000_000])
def test_a_body_under_no_condition_is_sent_without_asking_first(
    watched: MotoServer, size: int
) -> None:
    d = connect(watched.endpoint_url)
    d["a"] = random.Random(0).randbytes(size)
    put = watched.requests()[-1]
    assert put.operation == "PutObject"
    assert "expect" not in put.headers


def test_a_small_body_is_sent_without_asking_first_by_a_ready_client_too(
    watched: MotoServer,
) -> None:
    d: Dict = BasicS3Dict(bucket_name="ready", s3_client=connect(watched.endpoint_url).s3_client)
    d["a"] = 1
    assert "expect" not in watched.requests()[-1].headers


def test_a_small_body_under_a_condition_is_sent_without_asking_first(watched: MotoServer) -> None:
    d = connect(watched.endpoint_url, append_only=True)
    d["a"] = "x" * 100_000
    put = watched.requests()[-1]
    assert (put.operation, put.headers["if-none-match"]) == ("PutObject", "*")
    assert "expect" not in put.headers


def test_a_large_body_under_an_unmet_condition_is_never_sent(watched: MotoServer) -> None:
    d = connect(watched.endpoint_url)
    d["a"] = 1
    assert d.capabilities.put_if_match
    incompressible = random.Random(0).randbytes(5_000_000)
    watched.reset_log()
    d.set_item_if(
        "a",
        value=incompressible,
        condition=ETAG_IS_THE_SAME,
        expected_etag=OTHER,
        retrieve_value=NEVER_RETRIEVE,
    )
    put = watched.requests()[0]
    assert (put.operation, put.status, put.headers["expect"]) == ("PutObject", 412, "100-continue")


def test_a_body_is_not_sent_in_chunks_of_aws_own_encoding(watched: MotoServer) -> None:
    d = connect(watched.endpoint_url)
    d["a"] = 1
    assert "content-encoding" not in watched.requests()[-1].headers


def test_reading_a_key_twice_uses_one_connection(watched: MotoServer) -> None:
    d = connect(watched.endpoint_url)
    d["a"] = 1
    watched.reset_log()
    assert [d["a"], d["a"]] == [1, 1]
    assert len({request.connection for request in watched.requests()}) == 1


def test_secrets_stand_in_no_log(
    moto_aws_server: MotoServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        d = connect(
            moto_aws_server.endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="hush-hush",
        )
        d["a"] = 1
    assert "hush-hush" not in caplog.text
