"""SeaweedFS: a real server that lists by directory and enforces conditions on PUT and DELETE."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from persidict import BasicS3Dict, LocalDict
from persidict.testing.dict_conformance import DictConformance, NewDict
from tests.s3_dicts import connect, maker
from tests.s3_servers import seaweedfs
from tests.s3_servers.wire import race

if not seaweedfs.is_wanted():
    pytest.skip(f"{seaweedfs.REQUIRE}=1 asks for them", allow_module_level=True)

pytestmark = pytest.mark.slow

Dict = BasicS3Dict[Any]
PARTS = ["a", "a-b", "a(b", "ab", "b", "a.b", "~"]
KEYS = [(part,) for part in PARTS] + list(itertools.product(PARTS, PARTS[:4]))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with seaweedfs.start_seaweedfs() as server:
        yield server.endpoint_url


@pytest.fixture
def d(endpoint: str) -> Dict:
    return connect(endpoint, *seaweedfs.CREDENTIALS)


class TestConformance(DictConformance):
    @pytest.fixture
    def etags_never_repeat(self) -> bool:
        return False

    @pytest.fixture
    def new_dict(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> NewDict:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.CREDENTIALS[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.CREDENTIALS[1])
        return maker(partial(BasicS3Dict, endpoint_url=endpoint, region="us-east-1"), "pkl")


def test_ranges_are_right_although_listings_go_by_directory(d: Dict) -> None:
    model: LocalDict[Any] = LocalDict()
    for target in (d, model):
        target.update({key: "/".join(key) for key in KEYS})
    values = [None, *PARTS, *(("a", part) for part in PARTS[:4])]
    pairs = random.Random(1).sample(list(itertools.product(values, values))[1:], 60)
    for start, stop in pairs:
        chosen: dict[str, Any] = {"start": start, "stop": stop}
        assert list(d.items(**chosen)) == list(model.items(**chosen)), chosen


def test_subdicts_are_those_of_keys(d: Dict) -> None:
    d.update({("a", "b"): 1, ("c",): 2, ("a-b", "x", "y"): 3})
    for name in ("images/cat.png", "folder/", "notes.txt"):
        d.s3_client.put_object(Bucket=d.bucket_name, Key=name, Body=b"x")
    assert d.subdicts().keys() == {"a", "a-b", "c"}


def test_what_it_enforces_is_found_out_and_nothing_is_left_of_that(d: Dict) -> None:
    found = d.capabilities
    assert found.put_if_match
    assert found.put_if_none_match
    assert found.one_taker
    assert not d.keys(start="a", stop="b")
    assert "Contents" not in d.s3_client.list_objects_v2(Bucket=d.bucket_name)


def test_eight_clients_that_take_items_take_each_once(d: Dict) -> None:
    d.update({f"k{number:02}": number for number in range(40)})
    taken: list[int] = []

    def take(_: int) -> int:
        while True:
            try:
                taken.append(d.popitem()[1])
            except KeyError:
                return 0

    race(take)
    assert sorted(taken) == list(range(40))


def test_eight_clients_that_count_lose_nothing(d: Dict) -> None:
    d["n"] = 0

    def count(_: int) -> int:
        for _ in range(5):
            d.transform_item("n", transformer=lambda n: n + 1, n_retries=None)
        return 0

    race(count)
    assert d["n"] == 40
