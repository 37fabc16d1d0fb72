"""What ``logging.getLogger("persidict")`` is told: nothing at INFO on a good day."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    SQLiteDict,
    memoize,
)
from persidict.basic_s3_dict import BasicS3Dict
from tests.s3_caches import connect_cached, credentials
from tests.s3_dicts import connect
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer

__all__ = ["credentials", "moto_aws_server"]


class Told:
    """What the logger was told."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def at(self, level: int) -> list[str]:
        return [each.getMessage() for each in self._records() if each.levelno == level]

    def from_info_on(self) -> list[str]:
        return [each.getMessage() for each in self._records() if each.levelno >= logging.INFO]

    def modules(self) -> set[str]:
        return {each.module for each in self._records()}

    def _records(self) -> list[logging.LogRecord]:
        return [each for each in self._caplog.records if each.name == "persidict"]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    caplog.set_level(logging.DEBUG, logger="persidict")
    return Told(caplog)


@pytest.fixture
def proxy(moto_aws_server: MotoServer) -> Iterator[FaultProxy]:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        yield proxy


def add_one(number: Any) -> int:
    return 1 if number is ITEM_NOT_AVAILABLE else number + 1


def use(d: Any) -> None:
    """Do a little of everything."""
    d["a"] = 1
    d.update({f"k{number}": number for number in range(20)})
    assert d["a"] == 1
    assert "nobody" not in d
    d.transform_item("a", transformer=add_one)
    d.set_item_if("b", value=1, condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE)
    d.discard("b")
    assert d.pop("a") == 2
    assert len(list(d.items())) == 20
    d.clear()


# ---------------------------------------------------------------------- a good day


def local(tmp_path: Path) -> list[Any]:
    return [
        LocalDict(),
        FileDirDict(base_dir=tmp_path / "files"),
        SQLiteDict(path=tmp_path / "database"),
        MutableDictCached(main_dict=LocalDict(), data_cache=LocalDict(), etag_cache=LocalDict()),
    ]


def test_on_a_good_day_a_local_dictionary_tells_nothing(tmp_path: Path, told: Told) -> None:
    for d in local(tmp_path):
        use(d)
    assert told.from_info_on() == []


def test_on_a_good_day_s3_tells_nothing_from_info_on(
    moto_aws_server: MotoServer, told: Told
) -> None:
    use(connect(moto_aws_server.endpoint_url))
    assert told.from_info_on() == []


def test_on_a_good_day_a_cache_that_evicts_tells_nothing_from_info_on(
    moto_aws_server: MotoServer, credentials: None, tmp_path: Path, told: Told
) -> None:
    d = connect_cached(moto_aws_server.endpoint_url, base_dir=tmp_path, cache_size_limit=1000)
    use(d)
    for number in range(8):
        d[f"large{number}"] = bytes(400)
    assert told.from_info_on() == []
    assert any(text.startswith("evicted ") for text in told.at(logging.DEBUG))


def test_on_a_good_day_memoize_tells_nothing(told: Told) -> None:
    @memoize(LocalDict[Any](), once=True, claims=LocalDict[Any]())
    def square(number: int) -> int:
        return number**2

    assert [square(3), square(3)] == [9, 9]
    assert told.from_info_on() == []


def test_a_collision_of_writers_is_told_at_debug_alone(told: Told) -> None:
    d = LocalDict[int]()
    seen = []

    def disturbed(number: Any) -> int:
        if not seen:
            d["a"] = 10
        seen.append(number)
        return add_one(number)

    assert d.transform_item("a", transformer=disturbed).new_value == 11
    assert "attempt 1 came to nothing" in told.at(logging.DEBUG)[0]
    assert told.from_info_on() == []


def test_the_direct_wire_is_told_at_debug(moto_aws_server: MotoServer, told: Told) -> None:
    endpoint_url = moto_aws_server.endpoint_url
    assert "absent" not in connect(endpoint_url, transport="direct")
    texts = told.at(logging.DEBUG)
    assert any(f"travel directly to {endpoint_url}" in text for text in texts)


def test_the_new_bucket_and_the_probes_are_told_at_debug(
    moto_aws_server: MotoServer, told: Told
) -> None:
    d = connect(moto_aws_server.endpoint_url)
    assert d.capabilities.put_if_match
    texts = told.at(logging.DEBUG)
    assert f"created bucket {d.bucket_name!r}" in texts
    assert "probed put_if_match: enforced (status 404)" in texts


# ---------------------------------------------------------------------- a bad day


def test_a_repeated_request_is_told_with_its_cause_and_the_pause(
    proxy: FaultProxy, told: Told
) -> None:
    d = connect(proxy.endpoint_url)
    d["a"] = 0
    proxy.script(Fault.ERROR_500, operation="PutObject", key="a.pkl")
    d["a"] = 1
    (text,) = told.from_info_on()
    assert text.startswith("PutObject is sent again in ")
    assert " s: ClientError: An error occurred (InternalError)" in text


def test_one_repeated_request_of_many_is_told_in_the_same_way(
    proxy: FaultProxy, told: Told
) -> None:
    d = connect(proxy.endpoint_url)
    proxy.script(Fault.SLOW_DOWN, operation="PutObject", key="k3.pkl")
    d.update({f"k{number}": number for number in range(6)})
    (text,) = told.from_info_on()
    assert text.startswith("PutObject is sent again in ")
    assert "(SlowDown)" in text


def test_a_write_whose_reply_was_lost_is_told_when_it_is_recognised(
    proxy: FaultProxy, told: Told
) -> None:
    d = connect(proxy.endpoint_url)
    d["a"] = 1
    proxy.script(Fault.DROP_REPLY, operation="PutObject", key="a.pkl")
    d.transform_item("a", transformer=add_one)
    assert "a write of 'a.pkl' was carried out, though no reply said so" in told.from_info_on()


def test_a_cache_that_fails_is_told_beside_the_warning(told: Told) -> None:
    class Failing(LocalDict[Any]):
        def _load(self, key: Any, **options: Any) -> Any:
            raise OSError(5, "it is broken")

        _head = _load

    d = MutableDictCached[Any](main_dict=LocalDict(), data_cache=Failing(), etag_cache=LocalDict())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        d["a"] = 1
        assert d["a"] == 1
    assert [str(each.message) for each in warned] == told.at(logging.INFO)
    assert "it is broken" in told.at(logging.INFO)[0]


def test_a_claim_that_is_replaced_is_told(told: Told) -> None:
    claims = LocalDict[Any]()

    @memoize(LocalDict[Any](), once=True, claims=claims, lease=0.01)
    def square(number: int) -> int:
        return number**2

    key = square.key_for(3)
    claims["memoize-claims", key] = "of somebody who is dead"
    assert square(3) == 9
    (text,) = told.from_info_on()
    assert text.startswith("replaced a claim that showed no life for 0.01 s: memoize-claims/")


def test_who_was_taken_for_dead_is_warned(told: Told) -> None:
    was_replaced = threading.Event()

    class Watched(LocalDict[Any]):
        def set_item_if(self, key: Any, **options: Any) -> Any:
            result = super().set_item_if(key, **options)
            if not result.condition_was_satisfied:
                was_replaced.set()
            return result

    claims = Watched()

    @memoize(LocalDict[Any](), once=True, claims=claims, lease=0.04)
    def square(number: int) -> int:
        claims["memoize-claims", square.key_for(number)] = "somebody else's"
        assert was_replaced.wait(60)
        return number**2

    assert square(3) == 9
    assert told.at(logging.WARNING)[0].startswith("this claim was taken for dead, and replaced: ")


# ---------------------------------------------------------------------- how it is told


def test_what_is_told_names_the_module_that_told_it(proxy: FaultProxy, told: Told) -> None:
    d = connect(proxy.endpoint_url)
    d["a"] = 0
    proxy.script(Fault.ERROR_500, operation="PutObject", key="a.pkl")
    d["a"] = 1
    assert "log" not in told.modules()


def test_a_process_that_does_not_log_does_not_load_logging(tmp_path: Path) -> None:
    code = (
        "import sys; from persidict import FileDirDict;"
        f"d = FileDirDict(base_dir={str(tmp_path)!r}); d['a'] = 1; d.pop('a');"
        "print('logging' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


SECRETS: list[Callable[[BasicS3Dict[Any]], object]] = [lambda d: d["a"], lambda d: d.update(a=1)]


@pytest.mark.parametrize("operation", SECRETS, ids=["get", "update"])
def test_no_secret_is_told_at_any_level(
    proxy: FaultProxy, told: Told, operation: Callable[[BasicS3Dict[Any]], object]
) -> None:
    d = connect(proxy.endpoint_url, aws_access_key_id="test", aws_secret_access_key="hush-hush")
    d["a"] = 1
    proxy.script(Fault.RESET_BEFORE, Fault.DROP_REPLY, key="a.pkl")
    operation(d)
    assert told.from_info_on()
    assert "hush-hush" not in "\n".join(told.from_info_on() + told.at(logging.DEBUG))
