"""Replies that get lost on the way to a dictionary with a cache: nothing is doubled or denied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from persidict import (
    ANY_ETAG,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    AppendOnlyDictCached,
    LocalDict,
    MutableDictCached,
    PersiDict,
)
from tests.s3_caches import connect_cached, credentials
from tests.s3_dicts import connect
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer

__all__ = ["credentials", "moto_aws_server"]

pytestmark = pytest.mark.usefixtures("credentials")

AnyDict = PersiDict[Any]

TROUBLES = [
    Fault.DROP_REPLY,
    Fault.RESET_AFTER,
    Fault.ERROR_500_AFTER,
    Fault.RESET_BEFORE,
    Fault.SLOW_DOWN,
    Fault.DUPLICATE,
    Fault.DUPLICATE_FIRST,
]
each_trouble = pytest.mark.parametrize("fault", TROUBLES, ids=lambda fault: fault.name)
each_trouble_of_an_insertion = pytest.mark.parametrize(
    "fault",
    [fault for fault in TROUBLES if fault is not Fault.RESET_BEFORE],
    ids=lambda fault: fault.name,
)


def s3_dict(place: Path, append_only: bool, **params: Any) -> AnyDict:
    return connect_cached(**params, base_dir=place, append_only=append_only)


def composition(place: Path, append_only: bool, **params: Any) -> AnyDict:
    main = connect(**params, append_only=append_only)
    if append_only:
        return AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))
    return MutableDictCached(main_dict=main, data_cache=LocalDict(), etag_cache=LocalDict())


Kind = Callable[..., AnyDict]
each_kind = pytest.mark.parametrize("kind", [s3_dict, composition], ids=["S3Dict", "composition"])


class Bench:
    """Dictionaries with caches behind a proxy, and one on the same bucket without either."""

    def __init__(self, server: MotoServer, proxy: FaultProxy, place: Path) -> None:
        bucket_name = new_bucket_name()
        self.proxy = proxy
        self.direct = connect(server.endpoint_url, bucket_name=bucket_name)
        assert connect(proxy.endpoint_url, bucket_name=bucket_name).capabilities.put_if_match
        params = {"endpoint_url": proxy.endpoint_url, "bucket_name": bucket_name}
        self.make: Callable[[Kind, bool], AnyDict] = lambda kind, append_only: kind(
            place, append_only, **params
        )

    def assert_right(self, d: AnyDict, value: Any) -> None:
        for _ in range(2):
            assert (d["a"], d.etag("a")) == (value, self.direct.etag("a"))
        assert self.direct["a"] == value


@pytest.fixture
def bench(moto_aws_server: MotoServer, tmp_path: Path) -> Iterator[Bench]:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        yield Bench(moto_aws_server, proxy, tmp_path / "cache")


@each_kind
@each_trouble
def test_a_swap_that_met_trouble_reports_success(bench: Bench, kind: Kind, fault: Fault) -> None:
    d = bench.make(kind, False)
    d["a"] = 1
    etag = d.etag("a")
    bench.proxy.script(fault, operation="PutObject")
    result = d.set_item_if("a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=etag)
    assert (result.condition_was_satisfied, result.new_value) == (True, 2)
    bench.assert_right(d, 2)


@each_kind
@each_trouble
def test_a_transformation_that_met_trouble_takes_effect_once(
    bench: Bench, kind: Kind, fault: Fault
) -> None:
    d = bench.make(kind, False)
    d["a"] = 1
    bench.proxy.script(fault, operation="PutObject")
    result = d.transform_item("a", transformer=lambda n: n + 1)
    assert result.new_value == 2
    bench.assert_right(d, 2)


@each_kind
@each_trouble_of_an_insertion
@pytest.mark.parametrize("append_only", [False, True], ids=["mutable", "append-only"])
def test_an_insertion_that_met_trouble_reports_success(
    bench: Bench, kind: Kind, fault: Fault, append_only: bool
) -> None:
    d = bench.make(kind, append_only)
    bench.proxy.script(fault, operation="PutObject")
    result = d.setdefault_if(
        "a", default_value=1, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    )
    assert result.value_was_mutated
    bench.assert_right(d, 1)


@each_kind
@each_trouble_of_an_insertion
def test_an_append_only_assignment_that_met_trouble_succeeds(
    bench: Bench, kind: Kind, fault: Fault
) -> None:
    d = bench.make(kind, True)
    bench.proxy.script(fault, operation="PutObject")
    d["a"] = 1
    bench.assert_right(d, 1)


@each_kind
def test_an_insertion_of_which_nothing_is_seen_is_said_to_be_unknown_and_is_not_cached(
    bench: Bench, kind: Kind
) -> None:
    d = bench.make(kind, True)
    bench.proxy.script(Fault.RESET_BEFORE, operation="PutObject")
    with pytest.raises(ConnectionClosedError) as caught:
        d["a"] = 1
    assert "outcome unknown" in "".join(caught.value.__notes__)
    assert "a" not in d
    assert d.get("a") is None
