"""Many threads and processes on one dictionary of S3 or another cloud.

Exact totals, one winner, orderly histories.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.clouds import CLOUDS
from tests.concurrency import (
    Factory,
    Insertion,
    StartMethod,
    do_random_operations,
    increment,
    joined,
    pop_each_key,
    pop_every_item,
    race_to_insert,
    run_workers,
)
from tests.linearizability import UNKNOWN, Version, assert_linearizable
from tests.s3_dicts import connect, elsewhere_or_skip
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fixtures import localstack_server, moto_aws_server, moto_like
from tests.s3_servers.quirks import AWS, AWS_RACING, CEPH

__all__ = ["localstack_server", "moto_aws_server", "moto_like"]

pytestmark = pytest.mark.slow

QUIRKS = {"aws": AWS, "aws-racing": AWS_RACING, "ceph": CEPH}
Located = Callable[..., Factory]


@pytest.fixture
def located(request: pytest.FixtureRequest) -> Located:
    """A function that returns a factory of handles on one new bucket of a server."""
    bucket = new_bucket_name()
    if request.param in CLOUDS:
        CLOUDS[request.param]()  # has the server started here, where all processes find it
        return lambda **params: partial(CLOUDS[request.param], root_prefix=bucket, **params)
    if request.param == "elsewhere":
        server = elsewhere_or_skip()
        return lambda **params: partial(connect, *server, bucket_name=bucket, **params)
    if request.param == "localstack":
        endpoint_url = request.getfixturevalue("localstack_server").endpoint_url
    else:
        endpoint_url = request.getfixturevalue("moto_like")(QUIRKS[request.param]).endpoint_url
    return lambda **params: partial(connect, endpoint_url, bucket_name=bucket, **params)


def on(*servers: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("located", servers, indirect=True)


@on("aws", "localstack", "elsewhere", *CLOUDS)
def test_eight_processes_that_increment_100_times_count_to_800(located: Located) -> None:
    factory = located()
    history = joined(run_workers(factory, increment, "counter", 100, start="fork", timeout=240))
    assert factory()["counter"] == 800
    assert_linearizable(history)


@on("ceph", "aws-racing")
def test_where_writes_collide_or_etags_are_others_nothing_is_lost_either(
    located: Located,
) -> None:
    factory = located()
    run_workers(factory, increment, "counter", 25, start="fork", count=4)
    assert factory()["counter"] == 100


@on("aws", "localstack", "elsewhere", *CLOUDS)
@pytest.mark.parametrize("how", ["assignment", "setdefault", "setdefault_if", "set_item_if"])
def test_of_eight_that_insert_one_wins_and_all_see_its_value(
    located: Located, how: Insertion
) -> None:
    factory = located(append_only=how == "assignment")
    keys = [("dir", f"k{number}") for number in range(25)]
    history = joined(run_workers(factory, race_to_insert, keys, how, start="fork"))
    for key in keys:
        operations = [operation for operation in history if operation.key == key]
        [winner] = [o.left.value for o in operations if isinstance(o.left, Version)]
        seen = {o.found.value for o in operations if isinstance(o.found, Version)}
        assert seen - {UNKNOWN} == {winner}
    assert_linearizable(history)


@on("aws", "aws-racing", *CLOUDS)
@pytest.mark.parametrize("start", ["thread", "fork"])
def test_operations_of_all_kinds_on_few_items_have_an_order(
    located: Located, start: StartMethod
) -> None:
    factory = located()
    keys = ["x", "y"]
    history = joined(run_workers(factory, do_random_operations, keys, 40, count=6, start=start))
    assert_linearizable(history)


@on("aws", *CLOUDS)
def test_popitem_hands_out_every_item_exactly_once(located: Located) -> None:
    factory = located()
    items = {(f"dir{number % 7}", f"k{number}"): number for number in range(60)}
    factory().update(items)
    handed_out = run_workers(factory, pop_every_item, start="fork")
    assert sorted(pair for pairs in handed_out for pair in pairs) == sorted(items.items())


@on("aws", *CLOUDS)
def test_pop_hands_out_every_item_exactly_once(located: Located) -> None:
    factory = located()
    items = {(f"dir{number % 7}", f"k{number}"): number for number in range(40)}
    factory().update(items)
    popped = run_workers(factory, pop_each_key, list(items), start="fork")
    assert sorted(pair for pairs in popped for pair in pairs) == sorted(items.items())
