"""What AzureDict and GCSDict have in common: what becomes of them when requests go wrong."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from azure.core.exceptions import AzureError, ResourceNotFoundError
from google.api_core.exceptions import GoogleAPICallError, NotFound

from persidict import (
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    AzureDict,
    GCSDict,
    PersiDict,
    open_dict,
)
from persidict.transfer import copy_items, sync_items
from tests.clouds import ACTED, CLOUDS, DID_NOTHING, Fault, Mode, Way, breaks, in_google, way
from tests.concurrency import do_random_operations, joined, run_workers
from tests.linearizability import assert_linearizable

__all__ = ["breaks", "way"]

Dict = PersiDict[Any]
Connect = Callable[..., Any]
FAILURES = (OSError, GoogleAPICallError, AzureError)
"""What the libraries raise."""


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(cloud: str) -> Connect:
    return CLOUDS[cloud]


@pytest.fixture
def d(connect: Connect) -> Any:
    """A dictionary whose server is known to keep conditions, which Google's is asked once."""
    made = connect()
    made.setdefault("known", 0)
    del made["known"]
    return made


def another(d: Any) -> Any:
    return pickle.loads(pickle.dumps(d))


@pytest.fixture
def meanwhile(d: Any, breaks: Callable[..., Fault]) -> Callable[..., None]:
    """Return what breaks the next request of an operation, and lets another client act then."""

    def arrange(operation: str, mode: Mode, act: Callable[[Any], object]) -> None:
        breaks(operation, mode).meanwhile = partial(act, another(d))

    return arrange


@contextmanager
def unknown_outcome() -> Iterator[None]:
    with pytest.raises(FAILURES) as caught:
        yield
    assert "outcome unknown" in caught.value.__notes__[0]


def add_one(current: Any) -> int:
    return 1 if current is ITEM_NOT_AVAILABLE else current + 1


# ---------------------------------------------------------------------- writes


@pytest.mark.parametrize("mode", ACTED + DID_NOTHING)
def test_an_increment_takes_effect_once_whatever_becomes_of_its_write(
    d: Any, breaks: Callable[..., Fault], mode: Mode
) -> None:
    d["a"] = 1
    breaks("put", mode)
    assert d.transform_item("a", transformer=add_one).new_value == 2
    assert d["a"] == 2


def test_a_write_is_looked_for_where_an_answer_is_none_of_the_service(
    d: Any, breaks: Callable[..., Fault]
) -> None:
    d["a"] = 1
    breaks("put", "200 after acting")
    assert d.transform_item("a", transformer=add_one).new_value == 2
    assert d["a"] == 2


@pytest.mark.parametrize("mode", [*ACTED, "503"])
def test_an_insertion_is_told_that_it_won_whatever_becomes_of_its_write(
    d: Any, breaks: Callable[..., Fault], mode: Mode
) -> None:
    breaks("put", mode)
    done = d.set_item_if("a", value=1, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
    assert done.condition_was_satisfied
    assert done.resulting_etag == d.etag("a")


@pytest.mark.parametrize("mode", ["lose the reply", "twice"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_write_is_found_below_what_others_wrote_on_top(
    d: Any, meanwhile: Callable[..., None], mode: Mode, times: int
) -> None:
    def add(other: Any) -> None:
        for _ in range(times):
            other.transform_item("a", transformer=add_one)

    d["a"] = 1
    meanwhile("put", mode, add)
    assert d.transform_item("a", transformer=add_one).new_value == 2
    assert d["a"] == 2 + times


@pytest.mark.parametrize("mode", ["lose the reply", "twice"])
def test_a_swap_is_found_below_what_others_wrote_on_top(
    d: Any, meanwhile: Callable[..., None], mode: Mode
) -> None:
    d["a"] = 1
    etag = d.etag("a")
    meanwhile("put", mode, lambda other: other.transform_item("a", transformer=add_one))
    done = d.set_item_if("a", value=5, condition=ETAG_IS_THE_SAME, expected_etag=etag)
    assert done.condition_was_satisfied
    assert d["a"] == 6


def test_a_look_at_a_lineage_that_gets_no_answer_does_not_break_it_off(
    way: Way, breaks: Callable[..., Fault]
) -> None:
    d = in_google()
    d["a"] = 1
    d.transform_item("a", transformer=add_one)
    other = another(d)
    assert other.capabilities.conditions

    def add() -> None:
        breaks("head", "lose the request")
        other.transform_item("a", transformer=add_one)

    breaks("put", "twice").meanwhile = add
    assert d.transform_item("a", transformer=add_one).new_value == 3
    assert d["a"] == 4


@pytest.mark.parametrize("mode", DID_NOTHING)
def test_an_assignment_that_did_not_arrive_is_sent_again_where_what_was_there_is_there_still(
    d: Any, breaks: Callable[..., Fault], mode: Mode
) -> None:
    d["a"] = 1
    breaks("put", mode)
    d["a"] = 2
    assert d["a"] == 2


def test_an_assignment_that_may_have_been_replaced_is_not_sent_again(
    d: Any, meanwhile: Callable[..., None]
) -> None:
    d["a"] = 1
    meanwhile("put", "lose the reply", lambda other: other.__setitem__("a", 3))
    with unknown_outcome():
        d["a"] = 2
    assert d["a"] == 3


def test_an_insertion_whose_item_was_taken_meanwhile_is_not_repeated(
    d: Any, meanwhile: Callable[..., None]
) -> None:
    meanwhile("put", "lose the reply", lambda other: other.pop("job"))
    with unknown_outcome():
        d.setdefault("job", 1)
    assert "job" not in d


def test_a_write_whose_outcome_cannot_be_looked_up_is_unknown(
    d: Any, breaks: Callable[..., Fault]
) -> None:
    d["a"] = 1
    etag = d.etag("a")
    breaks("put", "lose the reply")
    for _ in range(5):
        breaks("head", "lose the request")
    with unknown_outcome():
        d.set_item_if("a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=etag)


def test_a_write_to_nowhere_is_not_unknown(cloud: str) -> None:
    d: Any = {
        "azure": lambda: AzureDict(
            container_name="c", account_url="http://127.0.0.1:9/account", create_container=False
        ),
        "google": lambda: GCSDict(
            bucket_name="bucket", endpoint_url="http://127.0.0.1:9", create_bucket=False
        ),
    }[cloud]()
    with pytest.raises(FAILURES) as caught:
        d["a"] = 1
    assert "outcome unknown" not in str(caught.value.__notes__)


@pytest.mark.parametrize("mode", [*ACTED, "lose the request"])
def test_a_large_value_is_written_once_whatever_becomes_of_its_last_request(
    connect: Connect, breaks: Callable[..., Fault], mode: Mode
) -> None:
    d = connect(serialization_format="bin", base_class_for_values=bytes)
    d["a"] = b""
    etag, value = d.etag("a"), bytes(9 * 1024 * 1024)
    breaks("put", mode)
    done = d.set_item_if("a", value=value, condition=ETAG_IS_THE_SAME, expected_etag=etag)
    assert done.condition_was_satisfied
    assert d["a"] == value


# ---------------------------------------------------------------------- reads


@pytest.mark.parametrize("mode", ACTED + DID_NOTHING)
@pytest.mark.parametrize("operation", ["get", "list"])
def test_reading_is_repeated_until_it_succeeds(
    d: Any, breaks: Callable[..., Fault], operation: str, mode: Mode
) -> None:
    d["a"] = 1
    breaks(operation, mode)
    assert dict(d.items()) == {("a",): 1} if operation == "list" else d["a"] == 1


def test_a_missing_place_is_no_absence(cloud: str, connect: Connect) -> None:
    created = {"azure": "create_container", "google": "create_bucket"}[cloud]
    name = created.replace("create", "") + "_name"
    d = connect(**{name[1:]: f"none-{uuid.uuid4().hex[:8]}", created: False})
    for look in (lambda: d.get("a"), lambda: list(d), lambda: d.discard("a")):
        with pytest.raises((NotFound, ResourceNotFoundError)):
            look()


# ---------------------------------------------------------------------- deletions


@pytest.mark.parametrize("mode", ["lose the reply", "500 after acting", "408 after acting"])
def test_a_deletion_whose_answer_got_lost_does_not_delete_what_came_since(
    d: Any, meanwhile: Callable[..., None], mode: Mode
) -> None:
    d["a"] = 1
    etag = d.etag("a")
    meanwhile("delete", mode, lambda other: other.__setitem__("a", 2))
    with unknown_outcome():
        d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=etag)
    assert d["a"] == 2


def test_the_second_delivery_of_a_deletion_under_a_version_deletes_nothing(
    d: Any, meanwhile: Callable[..., None]
) -> None:
    d["a"] = 1
    meanwhile("delete", "twice", lambda other: other.__setitem__("a", 2))
    d.transform_item("a", transformer=lambda value: DELETE_CURRENT if value == 1 else value)
    assert d["a"] == 2


def test_who_is_told_of_the_second_delivery_of_a_pop_gets_nothing(
    d: Any, breaks: Callable[..., Fault]
) -> None:
    d["a"] = 1
    breaks("delete", "twice")
    with pytest.raises(KeyError):
        d.pop("a")
    assert "a" not in d


def test_an_assignment_is_told_that_it_is_done_whatever_is_answered_to_its_second_delivery(
    d: Any, breaks: Callable[..., Fault]
) -> None:
    d["a"] = 1
    breaks("put", "twice")
    d["a"] = 2
    assert d.transform_item("a", transformer=add_one).new_value == 3


def test_the_second_delivery_of_a_large_assignment_replaces_nothing_on_google(
    breaks: Callable[..., Fault],
) -> None:
    d = in_google()
    other = another(d)
    breaks("put", "twice").meanwhile = lambda: other.__setitem__("a", 1)
    d["a"] = random.randbytes(9 * 1024 * 1024)
    assert d["a"] == 1


@pytest.mark.parametrize("mode", ["lose the request", "lose the reply"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_discard_without_an_answer_claims_nothing(
    d: Any, breaks: Callable[..., Fault], mode: Mode, exists: bool
) -> None:
    if exists:
        d["a"] = 1
    breaks("delete", mode)
    with unknown_outcome():
        d.discard("a")


@pytest.mark.parametrize("mode", ["lose the reply", "500 after acting"])
def test_clearing_needs_no_answer_where_nothing_is_left(
    d: Any, breaks: Callable[..., Fault], mode: Mode
) -> None:
    d["a"] = 1
    breaks("delete", mode)
    d.clear()
    assert "a" not in d


@pytest.mark.parametrize("mode", DID_NOTHING)
def test_a_deletion_that_was_not_carried_out_is_repeated(
    d: Any, breaks: Callable[..., Fault], mode: Mode
) -> None:
    d["a"] = 1
    breaks("delete", mode)
    assert d.pop("a") == 1
    assert "a" not in d


@pytest.mark.slow
@pytest.mark.parametrize("fault_rate", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(2))
def test_random_operations_of_four_clients_have_an_order(
    d: Any, way: Way, fault_rate: float, seed: int
) -> None:
    way.fault_rate = fault_rate
    keys = ["x", "y"]
    clients = partial(another, d)
    history = run_workers(
        clients, do_random_operations, keys, 40, FAILURES, seed, count=4, start="thread"
    )
    assert_linearizable(joined(history))


# ---------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        (lambda d: d["a"], ["get"]),
        (lambda d: "a" in d, ["head"]),
        (lambda d: d.etag("a"), ["head"]),
        (lambda d: d.__setitem__("a", 2), ["put"]),
        (lambda d: d.discard("a"), ["delete"]),
        (lambda d: d.transform_item("a", transformer=add_one), ["get", "put"]),
        (lambda d: d.setdefault("b", 2), ["put"]),
        (lambda d: d.pop("a"), ["get", "delete"]),
        (lambda d: list(d), ["list"]),
        (lambda d: d.copy_item("a", "b"), ["copy"]),
        (lambda d: list(d.keys(start="a")), ["list"]),
    ],
)
def test_an_operation_takes_the_fewest_requests(
    d: Any, way: Way, operation: Callable[[Dict], Any], wanted: list[str]
) -> None:
    d["a"] = 1
    way.operations.clear()
    operation(d)
    assert way.operations == wanted


def test_an_unmet_condition_takes_a_look_beside_the_request(d: Any, way: Way, cloud: str) -> None:
    d["a"] = 1
    old = d.etag("a")
    d["a"] = 2
    way.operations.clear()
    done = d.set_item_if("a", value=3, condition=ETAG_IS_THE_SAME, expected_etag=old)
    assert (done.condition_was_satisfied, done.new_value) == (False, 2)
    assert way.operations == {"azure": ["put", "get"], "google": ["head", "get"]}[cloud]


def test_a_range_is_listed_from_its_beginning(d: Any, way: Way) -> None:
    d.update({str(number): 0 for number in range(10, 40)})
    way.operations.clear()
    names = d._store.list(start_after="36.pkl", page_size=2)
    assert [entry.name for entry in names] == ["37.pkl", "38.pkl", "39.pkl"]
    assert way.operations == ["list", "list"]


@pytest.mark.parametrize("size", [0, 1, 9 * 1024 * 1024])
def test_values_of_any_size_come_back(connect: Connect, size: int) -> None:
    d = connect(serialization_format="bin", base_class_for_values=bytes)
    d["a"] = bytes(size)
    assert d["a"] == bytes(size)


def test_a_listing_of_many_pages_is_whole_and_in_order(connect: Connect) -> None:
    store = connect()._store
    names = [f"{number // 7}/{number}" for number in range(60)]
    assert [error for _, error in store.put_many((name, b"") for name in names)]
    assert [entry[0] for entry in store.list(page_size=7)] == sorted(names)
    groups = [entry[0] for entry in store.list(delimiter="/", page_size=2, start_after="3/")]
    assert groups == ["4/", "5/", "6/", "7/", "8/"]


def test_objects_and_groups_are_listed_in_one_order(connect: Connect) -> None:
    store = connect()._store
    list(store.put_many((name, b"") for name in ("B", "a/1", "c", "d/2")))
    found = [entry[0] for entry in store.list(delimiter="/", start_after="")]
    assert found == ["B", "a/", "c", "d/"]


# ---------------------------------------------------------------------- places


def test_copying_and_syncing_send_no_bytes(connect: Connect, way: Way) -> None:
    source, target = connect(), connect()
    source.update({str(number): number for number in range(20)})
    way.operations.clear()
    copy_items(source, target)
    assert not {"get", "put"} & set(way.operations)
    assert target == source
    source["0"] = "new"
    del source["1"]
    sync_items(source, target, delete=True)
    assert dict(target.items()) == dict(source.items())


def test_a_url_opens_the_same_dictionary(connect: Connect) -> None:
    d = connect(serialization_format="json", root_prefix=f"{uuid.uuid4().hex}/x")
    d["a"] = [1]
    again = open_dict(d.url)
    assert again == d
    assert again["a"] == [1]
    assert d.url == f"{d.base_url.rstrip('/')}?format=json"


def write_one(d: Dict, key: str) -> None:
    d[key] = 1


def test_a_forked_child_has_connections_of_its_own(d: Any) -> None:
    d["a"] = 1
    child = multiprocessing.get_context("fork").Process(target=write_one, args=(d, "b"))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert d["a"] == d["b"] == 1


def test_what_was_lost_is_sent_again_in_bulk(breaks: Callable[..., Fault]) -> None:
    d = in_google()
    breaks("put", "503")
    d.set_many({str(number): number for number in range(5)})
    assert len(d) == 5
