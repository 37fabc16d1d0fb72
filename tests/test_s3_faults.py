"""What networks do to requests: nothing is lost, doubled, or reported wrongly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from persidict import (
    ANY_ETAG,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    MutationPolicyError,
    PersiDict,
)
from persidict.basic_s3_dict import BasicS3Dict
from tests.concurrency import Place, run_workers
from tests.s3_dicts import connect
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer

__all__ = ["moto_aws_server"]

Dict = BasicS3Dict[Any]

ACTED_UNHEARD = [Fault.DROP_REPLY, Fault.RESET_AFTER, Fault.ERROR_500_AFTER]
NEVER_ACTED = [Fault.RESET_BEFORE, Fault.ERROR_500, Fault.SLOW_DOWN]
TWICE = [Fault.DUPLICATE, Fault.DUPLICATE_FIRST]
TROUBLES = [*ACTED_UNHEARD, *NEVER_ACTED, *TWICE]
EVERY_ATTEMPT = 5

SEEN_BY_ITS_TRACE = [*ACTED_UNHEARD, Fault.SLOW_DOWN, *TWICE]
"""Troubles after which it can be told whether something was inserted into emptiness."""

TransportError = (ClientError, BotoCoreError)

each_trouble = pytest.mark.parametrize("fault", TROUBLES, ids=lambda fault: fault.name)
each_with_a_trace = pytest.mark.parametrize(
    "fault", SEEN_BY_ITS_TRACE, ids=lambda fault: fault.name
)
without_a_trace = pytest.mark.parametrize(
    "fault", [Fault.RESET_BEFORE, Fault.ERROR_500], ids=lambda fault: fault.name
)
each_unheard = pytest.mark.parametrize("fault", ACTED_UNHEARD, ids=lambda fault: fault.name)
twice = pytest.mark.parametrize("fault", TWICE, ids=lambda fault: fault.name)


class Bench:
    """A dictionary behind a proxy, and another one on the same bucket that is not."""

    def __init__(self, server: MotoServer, proxy: FaultProxy) -> None:
        bucket = new_bucket_name()
        self.proxy = proxy
        self.direct = connect(server.endpoint_url, bucket_name=bucket)
        self.d = connect(proxy.endpoint_url, bucket_name=bucket)
        self.append_only = connect(proxy.endpoint_url, bucket_name=bucket, append_only=True)
        assert self.d.capabilities.put_if_match

    def trouble(self, operation: str, *faults: Fault, meanwhile: Any = None) -> None:
        self.proxy.script(*faults, operation=operation, meanwhile=meanwhile)

    def fallen_on(self, fault: Fault) -> int:
        return self.proxy.injected()[fault]


@pytest.fixture
def bench(moto_aws_server: MotoServer) -> Iterator[Bench]:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        yield Bench(moto_aws_server, proxy)


def swap(d: Dict, value: Any) -> Any:
    return d.set_item_if("a", value=value, condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a"))


def add_one(d: PersiDict[Any], **params: Any) -> Any:
    return d.transform_item(
        "a", transformer=lambda n: 1 if n is ITEM_NOT_AVAILABLE else n + 1, **params
    )


# ---------------------------------------------------------------------- one write


@each_trouble
def test_a_swap_that_met_trouble_reports_success(bench: Bench, fault: Fault) -> None:
    bench.d["a"] = 1
    bench.trouble("PutObject", fault)
    result = swap(bench.d, 2)
    assert result.condition_was_satisfied
    assert (result.new_value, result.resulting_etag) == (2, bench.direct.etag("a"))
    assert bench.fallen_on(fault) == 1


@each_with_a_trace
def test_an_insertion_that_met_trouble_reports_success(bench: Bench, fault: Fault) -> None:
    bench.trouble("PutObject", fault)
    result = bench.d.setdefault_if(
        "a", default_value=1, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert result.value_was_mutated
    assert (bench.direct["a"], result.resulting_etag) == (1, bench.direct.etag("a"))


@each_with_a_trace
def test_an_append_only_assignment_that_met_trouble_succeeds(bench: Bench, fault: Fault) -> None:
    bench.trouble("PutObject", fault)
    bench.append_only["a"] = 1
    assert bench.direct["a"] == 1


@each_trouble
def test_an_assignment_that_met_trouble_succeeds(bench: Bench, fault: Fault) -> None:
    bench.d["a"] = 0
    bench.trouble("PutObject", fault)
    bench.d["a"] = 1
    assert bench.direct["a"] == 1


@each_with_a_trace
def test_an_assignment_of_a_new_item_that_met_trouble_succeeds(bench: Bench, fault: Fault) -> None:
    bench.trouble("PutObject", fault)
    bench.d["a"] = 1
    assert bench.direct["a"] == 1


@without_a_trace
def test_an_assignment_that_got_no_answer_and_left_nothing_to_see_is_raised_as_unknown(
    bench: Bench, fault: Fault
) -> None:
    """It may have been carried out, and what it wrote deleted by somebody else."""
    bench.trouble("PutObject", fault)
    with pytest.raises(TransportError) as raised:
        bench.d["a"] = 1
    assert any("outcome unknown" in note for note in raised.value.__notes__)


@each_unheard
def test_an_assignment_whose_item_was_deleted_before_the_look_is_not_made_again(
    bench: Bench, fault: Fault
) -> None:
    bench.trouble("PutObject", fault, meanwhile=lambda: bench.direct.pop("a"))
    with pytest.raises(TransportError) as raised:
        bench.d["a"] = 1
    assert any("outcome unknown" in note for note in raised.value.__notes__)
    assert "a" not in bench.direct


@without_a_trace
def test_an_insertion_that_got_no_answer_and_left_nothing_to_see_is_raised_as_unknown(
    bench: Bench, fault: Fault
) -> None:
    """It may have been carried out, and what it inserted taken by somebody else."""
    bench.trouble("PutObject", fault)
    with pytest.raises(TransportError) as raised:
        bench.d.setdefault("a", 1)
    assert any("outcome unknown" in note for note in raised.value.__notes__)
    assert "a" not in bench.direct


@each_unheard
def test_an_insertion_whose_item_was_taken_before_its_answer_came_is_not_repeated(
    bench: Bench, fault: Fault
) -> None:
    bench.trouble("PutObject", fault, meanwhile=lambda: bench.direct.pop("a"))
    with pytest.raises(TransportError) as raised:
        bench.d.setdefault("a", 1)
    assert any("outcome unknown" in note for note in raised.value.__notes__)
    assert "a" not in bench.direct


@each_trouble
def test_a_transformation_that_met_trouble_takes_effect_once(bench: Bench, fault: Fault) -> None:
    bench.d["a"] = 1
    bench.trouble("PutObject", fault)
    result = add_one(bench.d, n_retries=0)
    assert (bench.direct["a"], result.new_value) == (2, 2)
    assert result.resulting_etag == bench.direct.etag("a")


@each_trouble
def test_setting_whatever_is_there_reports_success(bench: Bench, fault: Fault) -> None:
    bench.d["a"] = 1
    etag = bench.d.etag("a")
    bench.trouble("PutObject", fault)
    result = bench.d.set_item_if(
        "a", value=2, condition=ETAG_HAS_CHANGED, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert result.condition_was_satisfied
    assert (result.actual_etag, result.resulting_etag) == (etag, bench.direct.etag("a"))


@each_with_a_trace
def test_a_bulk_insertion_that_met_trouble_reports_success(bench: Bench, fault: Fault) -> None:
    bench.trouble("PutObject", fault)
    outcomes = dict(bench.d._store.put_many([("a.pkl", b"I1\n.")], if_none_match="*"))
    assert outcomes == {"a.pkl": bench.direct.etag("a")}


def _without_date(response_dict: dict[str, Any], **kwargs: Any) -> None:
    response_dict["headers"].pop("date", None)


@each_with_a_trace
def test_an_insertion_that_met_trouble_reports_success_where_replies_bear_no_date(
    bench: Bench, fault: Fault
) -> None:
    events = bench.d.s3_client.meta.events
    events.register("before-parse.s3", _without_date)
    bench.trouble("PutObject", fault)
    try:
        bench.append_only["a"] = 1
    finally:
        events.unregister("before-parse.s3", _without_date)
    assert bench.direct["a"] == 1


# ---------------------------------------------------------------------- others write on top


@each_unheard
def test_a_write_that_others_built_upon_meanwhile_reports_success(
    bench: Bench, fault: Fault
) -> None:
    bench.d["a"] = 1
    versions: list[Any] = []

    def others() -> None:
        versions.append(bench.direct.etag("a"))
        for _ in range(3):
            add_one(bench.direct)

    bench.trouble("PutObject", fault, meanwhile=others)
    result = swap(bench.d, 10)
    assert result.condition_was_satisfied
    assert [result.resulting_etag] == versions
    assert bench.direct["a"] == 13


@each_unheard
def test_an_insertion_that_others_built_upon_meanwhile_reports_success(
    bench: Bench, fault: Fault
) -> None:
    bench.trouble("PutObject", fault, meanwhile=lambda: add_one(bench.direct))
    bench.append_only["a"] = 10
    assert bench.direct["a"] == 11


@twice
def test_a_transformation_delivered_twice_that_others_built_upon_is_not_repeated(
    bench: Bench, fault: Fault
) -> None:
    bench.d["a"] = 1
    bench.trouble("PutObject", fault, meanwhile=lambda: add_one(bench.direct))
    assert add_one(bench.d).new_value == 2
    assert bench.direct["a"] == 3


@pytest.mark.parametrize("fault", NEVER_ACTED, ids=lambda fault: fault.name)
def test_a_write_that_never_acted_and_lost_to_others_reports_an_unmet_condition(
    bench: Bench, fault: Fault
) -> None:
    bench.d["a"] = 1
    etag = bench.d.etag("a")
    add_one(bench.direct)
    bench.trouble("PutObject", fault)
    result = bench.d.set_item_if("a", value=10, condition=ETAG_IS_THE_SAME, expected_etag=etag)
    assert not result.condition_was_satisfied
    assert (result.new_value, bench.direct["a"]) == (2, 2)


@each_unheard
def test_what_cannot_be_known_is_raised(bench: Bench, fault: Fault) -> None:
    """Others replace the write unseen and leave no lineage: nobody can tell what happened."""
    bench.d["a"] = 1

    def replace() -> None:
        bench.direct.s3_client.put_object(
            Bucket=bench.direct.bucket_name, Key="a.pkl", Body=b"I7\n."
        )

    bench.trouble("PutObject", fault, meanwhile=replace)
    with pytest.raises(TransportError) as raised:
        swap(bench.d, 2)
    assert any("does not tell" in note for note in raised.value.__notes__)
    assert bench.direct["a"] == 7


# ---------------------------------------------------------------------- no answer at all


@each_unheard
def test_a_write_that_never_gets_an_answer_is_found_out(bench: Bench, fault: Fault) -> None:
    bench.d["a"] = 1
    bench.trouble("PutObject", *[fault] * EVERY_ATTEMPT)
    result = swap(bench.d, 2)
    assert result.condition_was_satisfied
    assert result.resulting_etag == bench.direct.etag("a")


@each_unheard
def test_an_assignment_that_never_gets_an_answer_is_found_out(bench: Bench, fault: Fault) -> None:
    bench.trouble("PutObject", *[fault] * EVERY_ATTEMPT)
    bench.d["a"] = 1
    assert bench.direct["a"] == 1


def test_a_write_that_never_reaches_the_server_raises_and_changes_nothing(bench: Bench) -> None:
    bench.d["a"] = 1
    bench.trouble("PutObject", *[Fault.RESET_BEFORE] * EVERY_ATTEMPT)
    with pytest.raises(BotoCoreError) as raised:
        swap(bench.d, 2)
    assert "a.pkl" in "".join(raised.value.__notes__)
    assert bench.direct["a"] == 1


def test_an_unmet_condition_whose_answer_got_lost_is_reported_as_unmet(bench: Bench) -> None:
    bench.direct.setdefault("a", 1)
    assert "a" in bench.d
    add_one(bench.direct)
    bench.trouble("PutObject", Fault.DROP_REPLY)
    result = bench.d.setdefault_if(
        "a", default_value=10, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert (result.value_was_mutated, result.new_value) == (False, 2)


# ---------------------------------------------------------------------- deletions


def test_a_deletion_whose_answer_got_lost_is_raised_for_nobody_knows_who_deleted(
    bench: Bench,
) -> None:
    bench.d["a"] = 1
    bench.trouble("DeleteObject", Fault.DROP_REPLY)
    with pytest.raises(TransportError) as raised:
        bench.d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=bench.d.etag("a"))
    assert any("nobody can tell" in note for note in raised.value.__notes__)
    assert "a" not in bench.direct


def test_a_deletion_that_never_acted_is_repeated(bench: Bench) -> None:
    bench.d["a"] = 1
    bench.trouble("DeleteObject", Fault.RESET_BEFORE)
    assert bench.d.pop("a") == 1
    assert "a" not in bench.direct


def test_a_deletion_that_never_acted_and_lost_to_others_reports_an_unmet_condition(
    bench: Bench,
) -> None:
    bench.d["a"] = 1
    etag = bench.d.etag("a")
    add_one(bench.direct)
    bench.trouble("DeleteObject", Fault.SLOW_DOWN)
    result = bench.d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=etag)
    assert not result.condition_was_satisfied
    assert bench.direct["a"] == 2


# ---------------------------------------------------------------------- reads


@pytest.mark.parametrize(
    "fault",
    [Fault.TRUNCATED_BODY, Fault.SLOW_BODY, Fault.DROP_REPLY, Fault.RESET_AFTER, Fault.SLOW_DOWN],
    ids=lambda fault: fault.name,
)
def test_a_read_that_met_trouble_brings_the_value(bench: Bench, fault: Fault) -> None:
    value = bytes(range(256)) * 500
    bench.direct["a"] = value
    bench.trouble("GetObject", fault)
    assert bench.d["a"] == value
    assert bench.fallen_on(fault) == 1


def test_a_body_that_is_always_cut_short_raises_in_the_end(bench: Bench) -> None:
    bench.direct["a"] = "text" * 1000
    bench.trouble("GetObject", *[Fault.TRUNCATED_BODY] * 20)
    with pytest.raises(BotoCoreError) as raised:
        bench.d["a"]
    assert "a.pkl" in "".join(raised.value.__notes__)


# ---------------------------------------------------------------------- at random

TEN_PERCENT_OF_EACH = dict.fromkeys(
    [
        Fault.DROP_REPLY,
        Fault.RESET_BEFORE,
        Fault.ERROR_500,
        Fault.SLOW_DOWN,
        Fault.SLOW_BODY,
        Fault.TRUNCATED_BODY,
        Fault.DUPLICATE,
    ],
    0.1,
)
QUICK_RETRIES = {"retries": {"mode": "standard", "total_max_attempts": 4}}
"""Pauses so short that a write is not lost from sight below what others write meanwhile."""


@contextmanager
def storm(server: MotoServer, bucket: str) -> Iterator[Callable[..., Dict]]:
    """A factory of handles behind a proxy that lets 70 % of all requests meet trouble."""
    connect(server.endpoint_url, bucket_name=bucket)
    with FaultProxy(server.endpoint_url, delay=0.01) as proxy:
        calm = partial(connect, proxy.endpoint_url, bucket_name=bucket, boto_config=QUICK_RETRIES)
        assert calm().capabilities.put_if_match
        proxy.fail_randomly(TEN_PERCENT_OF_EACH, seed=1)
        yield calm


def count_up(d: Dict, place: Place, times: int) -> int:
    """Increment; return how often that succeeded."""
    succeeded = 0
    for _ in range(times):
        with suppress(ClientError, BotoCoreError):
            add_one(d, n_retries=None)
            succeeded += 1
    return succeeded


@pytest.mark.slow
def test_in_a_storm_a_counter_ends_at_the_number_of_successes(
    moto_aws_server: MotoServer,
) -> None:
    bucket = new_bucket_name()
    with storm(moto_aws_server, bucket) as factory:
        counted = run_workers(factory, count_up, 50, count=4, start="fork", timeout=240)
    assert connect(moto_aws_server.endpoint_url, bucket_name=bucket)["a"] == sum(counted)
    assert sum(counted) > 100


def insert_all(d: Dict, place: Place, count: int) -> list[int]:
    """Try to insert every key; return those that were won."""
    won = []
    for number in range(count):
        try:
            d[f"k{number}"] = place.index
        except (MutationPolicyError, ClientError, BotoCoreError):
            continue
        won.append(number)
    return won


@pytest.mark.slow
def test_in_a_storm_no_insertion_has_two_winners(moto_aws_server: MotoServer) -> None:
    bucket = new_bucket_name()
    with storm(moto_aws_server, bucket) as factory:
        make = partial(factory, append_only=True)
        won = run_workers(make, insert_all, 25, count=4, start="fork", timeout=240)
    winners = [(number, index) for index, numbers in enumerate(won) for number in numbers]
    d = connect(moto_aws_server.endpoint_url, bucket_name=bucket)
    assert len({number for number, _ in winners}) == len(winners)
    assert [d[f"k{number}"] for number, _ in winners] == [index for _, index in winners]


def test_in_a_storm_no_read_returns_wrong_bytes(moto_aws_server: MotoServer) -> None:
    bucket = new_bucket_name()
    values = {str(number): bytes([number]) * 2000 for number in range(40)}
    connect(moto_aws_server.endpoint_url, bucket_name=bucket).update(values)
    wrong = []
    with storm(moto_aws_server, bucket) as factory:
        d = factory()
        for key, value in values.items():
            try:
                wrong += [] if d[key] == value else [key]
            except (ClientError, BotoCoreError):
                continue
    assert wrong == []
