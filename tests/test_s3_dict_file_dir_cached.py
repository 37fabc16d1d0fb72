"""S3Dict: the contract, the requests it spares, and what it shares with others."""

from __future__ import annotations

import copy
import inspect
import itertools
import multiprocessing
import os
import pickle
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings

from persidict import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    AppendOnlyDictCached,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    OverlappingMultiDict,
    PersiDict,
    S3Dict,
    S3Dict_FileDirCached,
    WriteOnceDict,
)
from persidict.basic_s3_dict import BasicS3Dict
from persidict.stores.s3.transport.direct.exchange import WireReply
from persidict.stores.s3.transport.direct.wire import Line
from persidict.stores.s3.transport.messages import Request
from persidict.testing import (
    AppendOnlyDictConformance,
    DictConformance,
    MutableDictConformance,
    state_machine_for,
)
from tests.s3_caches import connect_cached, credentials
from tests.s3_dicts import connect
from tests.s3_servers.canned import CannedServer, start_canned
from tests.s3_servers.clients import new_bucket_name

__all__ = ["credentials"]

pytestmark = pytest.mark.usefixtures("credentials")

AnyDict = PersiDict[Any]
Connect = Callable[..., S3Dict[Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[CannedServer]:
    with start_canned() as running:
        yield running


@pytest.fixture
def make(server: CannedServer, tmp_path: Path) -> Connect:
    """Make dictionaries with one local directory; in a new bucket unless told otherwise."""
    return partial(connect_cached, server.endpoint_url, base_dir=tmp_path / "cache")


@pytest.fixture(params=["pkl", "json"])
def new_s3_dict(request: pytest.FixtureRequest, make: Connect) -> Callable[..., AnyDict]:
    """Make dictionaries of a format, each at a place of its own in one bucket."""
    bucket_name, numbers = new_bucket_name(), itertools.count()

    def new(**params: Any) -> AnyDict:
        common = {"serialization_format": request.param, "root_prefix": f"place/{next(numbers)}"}
        return make(bucket_name=bucket_name, **{**common, **params})

    return new


def uncached(d: AnyDict) -> BasicS3Dict[Any]:
    """Return a handle on the same items that knows nothing of the cache."""
    own = {"base_dir", "cache_size_limit", "digest_len", "max_staleness"}
    return BasicS3Dict(**{name: v for name, v in d.get_params().items() if name not in own})


# ---------------------------------------------------------------------- the contract


class S3Conformance:
    @pytest.fixture
    def etags_never_repeat(self) -> bool:
        return False


class TestS3Dict(S3Conformance, DictConformance):
    @pytest.fixture
    def new_dict(self, new_s3_dict: Callable[..., AnyDict]) -> Callable[..., AnyDict]:
        return new_s3_dict


@pytest.mark.slow
class TestLenientS3DictWithALimit(S3Conformance, MutableDictConformance):
    @pytest.fixture
    def new_dict(self, make: Connect) -> Callable[..., AnyDict]:
        bucket_name, numbers = new_bucket_name(), itertools.count()

        def new(**params: Any) -> AnyDict:
            settings = {"max_staleness": 60.0, "cache_size_limit": 600, **params}
            return make(bucket_name=bucket_name, root_prefix=f"at/{next(numbers)}", **settings)

        return new


@pytest.mark.parametrize("append_only", [False, True], ids=["mutable", "append_only"])
def test_an_s3_dict_changed_behind_its_back_behaves_like_the_model(
    new_s3_dict: Callable[..., AnyDict], append_only: bool
) -> None:
    machine = state_machine_for(
        partial(new_s3_dict, append_only=append_only),
        etags_never_repeat=False,
        detours={"the bucket itself": uncached},
    )
    usual = machine.settings
    machine.settings = settings(usual, max_examples=max(1, usual.max_examples // 3))
    machine("runTest").debug()


# ---------------------------------------------------------------------- requests

_answer = Line.answer


class Wire:
    """What a dictionary sends and gets on either wire: operations, and statuses of replies."""

    def __init__(self, d: S3Dict[Any]) -> None:
        assert d.capabilities
        self._events = d.s3_client.meta.events
        self.operations: Counter[str] = Counter()
        self.statuses: list[int] = []

    def _sent(self, event_name: str, **kwargs: Any) -> None:
        self.operations[event_name.rpartition(".")[2]] += 1

    def _answered(self, http_response: Any, **kwargs: Any) -> None:
        self.statuses.append(http_response.status_code)

    def _answered_directly(self, line: Line, request: Request[Any], reply: WireReply) -> Any:
        self.statuses.append(reply.status)
        return _answer(line, request, reply)

    def of(self, act: Callable[[], Any]) -> dict[str, int]:
        self.operations.clear()
        self.statuses.clear()
        hooks = [("before-send.s3", self._sent), ("after-call.s3", self._answered)]
        for event, hook in hooks:
            self._events.register(event, hook)
        # the direct wire tells botocore's listeners what it sends, not what it gets
        directly = mock.patch.object(
            Line, "answer", lambda *arguments: self._answered_directly(*arguments)
        )
        try:
            with directly, suppress(KeyError):
                act()
        finally:
            for event, hook in hooks:
                self._events.unregister(event, hook)
        return dict(self.operations)


@pytest.fixture
def d(make: Connect) -> S3Dict[Any]:
    d = make()
    d["a"] = 1
    return d


SINGLE: dict[str, tuple[Callable[[AnyDict], Any], dict[str, int], list[int]]] = {
    "reading": (lambda d: d["a"], {"GetObject": 1}, [304]),
    "get": (lambda d: d.get("a"), {"GetObject": 1}, [304]),
    "get_with_etag": (lambda d: d.get_with_etag("a"), {"GetObject": 1}, [304]),
    "reading what was changed elsewhere": (lambda d: d["b"], {"GetObject": 1}, [200]),
    "reading what is absent": (lambda d: d["c"], {"GetObject": 1}, [404]),
    "writing": (lambda d: d.__setitem__("a", 2), {"PutObject": 1}, [200]),
    "deleting if it is the same": (
        lambda d: d.discard_if("a", condition=ANY_ETAG, expected_etag=""),
        {"HeadObject": 1, "DeleteObject": 1},
        [200, 204],
    ),
    "transforming": (
        lambda d: d.transform_item("a", transformer=lambda n: n + 1),
        {"GetObject": 1, "PutObject": 1},
        [304, 200],
    ),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_mutable_dictionary_asks_once_and_moves_no_value_that_it_has(
    name: str, d: S3Dict[Any]
) -> None:
    d["b"] = 1
    uncached(d)["b"] = 2
    act, operations, statuses = SINGLE[name]
    wire = Wire(d)
    assert wire.of(lambda: act(d)) == operations
    assert wire.statuses == statuses


def test_a_warm_read_of_an_append_only_dictionary_takes_no_request(make: Connect) -> None:
    bucket_name = new_bucket_name()
    writer = make(bucket_name=bucket_name, append_only=True)
    writer["a"] = 1
    reader = make(bucket_name=bucket_name, append_only=True)
    assert Wire(reader).of(lambda: (reader["a"], reader.get("a"), reader.get_with_etag("a"))) == {}


WRITES: dict[str, Callable[[AnyDict], Any]] = {
    "assignment": lambda d: d.__setitem__("a", 2),
    "update": lambda d: d.update({"a": 2, "other": 3}),
    "set_item_if": lambda d: d.set_item_if(
        "a", value=2, condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a")
    ),
    "transform_item": lambda d: d.transform_item("a", transformer=lambda _: 2),
    "setdefault": lambda d: (d.discard("a"), d.setdefault("a", 2)),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_was_written_is_in_the_cache_at_once(name: str, d: S3Dict[Any]) -> None:
    WRITES[name](d)
    wire = Wire(d)
    wire.of(lambda: d["a"])
    assert wire.statuses == [304]
    assert d["a"] == 2


def test_a_warm_iteration_asks_for_the_listing_only(make: Connect) -> None:
    d = make()
    d.update({f"k{n}": n for n in range(2_500)})
    for content in (d.items, d.values, d.items_and_timestamps):
        assert Wire(d).of(lambda content=content: list(content())) == {"ListObjectsV2": 3}
    assert dict(d.items()) == {(f"k{n}",): n for n in range(2_500)}


def test_iteration_fetches_what_was_changed_elsewhere_and_nothing_more(make: Connect) -> None:
    d = make()
    d.update({f"k{n}": n for n in range(20)})
    uncached(d).update({"k3": "new", "k4": "new"})
    assert Wire(d).of(lambda: list(d.values())) == {"ListObjectsV2": 1, "GetObject": 2}
    assert sorted(map(str, d.values()))[-2:] == ["new", "new"]


@pytest.mark.direct_wire
def test_many_copies_are_revalidated_in_a_request_each_that_no_thread_sends(
    make: Connect,
) -> None:
    d = make()
    d.update({f"k{n:03}": n for n in range(200)})
    uncached(d)["k007"] = "new"
    keys = [("absent",), *((f"k{n:03}",) for n in range(200))]
    wire = Wire(d)
    senders: set[int] = set()
    found: dict[Any, Any] = {}

    def sent(**kwargs: Any) -> None:
        senders.add(threading.get_ident())

    d.s3_client.meta.events.register("before-send.s3", sent)
    try:
        assert wire.of(lambda: found.update(d.get_many(keys))) == {"GetObject": 201}
    finally:
        d.s3_client.meta.events.unregister("before-send.s3", sent)
    assert list(found.items()) == [((f"k{n:03}",), "new" if n == 7 else n) for n in range(200)]
    assert Counter(wire.statuses) == {304: 199, 200: 1, 404: 1}
    assert senders == {threading.get_ident()}


READS: dict[str, Callable[[AnyDict], Any]] = {
    "d[key]": lambda d: d["a"],
    "get": lambda d: d.get("a"),
}


@pytest.mark.parametrize("name", READS)
def test_a_value_validated_lately_is_served_without_a_request(name: str, make: Connect) -> None:
    d = make(max_staleness=3600)
    d["a"] = 1
    assert Wire(d).of(lambda: READS[name](d)) == {}


CONDITIONAL: dict[str, Callable[[AnyDict], Any]] = {
    "get_with_etag": lambda d: d.get_with_etag("a").new_value,
    "get_item_if": lambda d: (
        d.get_item_if(
            "a", condition=ETAG_HAS_CHANGED, expected_etag="", retrieve_value=ALWAYS_RETRIEVE
        ).new_value
    ),
    "setdefault": lambda d: d.setdefault("a", 3),
    "transform_item": lambda d: d.transform_item("a", transformer=lambda n: n).new_value,
    "pop": lambda d: d.pop("a"),
    "values": lambda d: next(iter(d.values())),
    "get_many": lambda d: d.get_many(["a"])["a",],
}


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditional_operations_and_iteration_always_ask(name: str, make: Connect) -> None:
    d = make(max_staleness=3600)
    d["a"] = 1
    uncached(d)["a"] = 2
    assert CONDITIONAL[name](d) == 2


def test_a_handle_counts_what_its_cache_does(d: S3Dict[Any]) -> None:
    for act in (lambda: d["a"], lambda: d.get_subdict(()), lambda: list(d.values())):
        act()
    info = d.cache_info()
    assert (info.hits, info.revalidations, info.misses, info.entries) == (1, 1, 0, 1)


def test_clearing_the_cache_leaves_the_items(d: S3Dict[Any]) -> None:
    d.clear_cache()
    assert d.cache_info().entries == 0
    assert d["a"] == 1


# ---------------------------------------------------------------------- one directory for many


@pytest.mark.parametrize(
    "params",
    [
        [{"bucket_name": new_bucket_name()}, {"bucket_name": new_bucket_name()}],
        [{"root_prefix": "one"}, {"root_prefix": "other"}],
        [{"serialization_format": "pkl"}, {"serialization_format": "json"}],
    ],
    ids=["buckets", "prefixes", "formats"],
)
def test_append_only_dictionaries_in_one_directory_do_not_mix(
    params: list[dict[str, Any]], make: Connect
) -> None:
    common = {"bucket_name": new_bucket_name(), "append_only": True}
    dictionaries = [make(**{**common, **own}) for own in params]
    for number, d in enumerate(dictionaries):
        d["a"] = number
    assert [d["a"] for d in dictionaries] == [0, 1]


def test_endpoints_in_one_directory_do_not_mix(make: Connect, tmp_path: Path) -> None:
    common = {"bucket_name": new_bucket_name(), "append_only": True}
    here = make(**common)
    with start_canned() as elsewhere:
        there = connect_cached(elsewhere.endpoint_url, base_dir=tmp_path / "cache", **common)
        here["a"], there["a"] = "here", "there"
        assert (here["a"], there["a"]) == ("here", "there")


def test_a_sub_dictionary_uses_the_copies_of_its_parent(make: Connect) -> None:
    d = make(append_only=True)
    d["g", "a"] = 1
    sub = d.get_subdict("g")
    assert Wire(sub).of(lambda: sub["a"]) == {}


# ---------------------------------------------------------------------- handles


def test_the_two_names_are_one_class() -> None:
    assert S3Dict is S3Dict_FileDirCached


def test_every_parameter_of_a_basic_s3_dict_is_one_with_the_same_default() -> None:
    basic = inspect.signature(BasicS3Dict).parameters
    cached = inspect.signature(S3Dict).parameters
    assert {name: parameter.default for name, parameter in basic.items()} == {
        name: cached[name].default for name in basic if name in cached
    }


def test_handles_of_one_configuration_share_a_client(d: S3Dict[Any]) -> None:
    others = [copy.copy(d), pickle.loads(pickle.dumps(d)), d.get_subdict("g"), uncached(d)]
    assert all(other.s3_client is d.s3_client for other in others)


def read_in_child(travelling: bytes | None, inherited: AnyDict, answer: Any) -> None:
    d = inherited if travelling is None else pickle.loads(travelling)
    answer.send((d["a"], d.transform_item("a", transformer=lambda n: n + 1).new_value))


@pytest.mark.parametrize("how", ["pickled", "inherited"])
def test_a_handle_works_in_a_forked_process(how: str, d: S3Dict[Any]) -> None:
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    travelling = pickle.dumps(d) if how == "pickled" else None
    child = fork.Process(target=read_in_child, args=(travelling, d, sender), daemon=True)
    child.start()
    assert receiver.poll(60)
    assert receiver.recv() == (1, 2)
    child.join()
    assert d["a"] == 2


def test_parameters_are_kept(make: Connect, tmp_path: Path) -> None:
    own = {"cache_size_limit": 10_000, "digest_len": 3, "max_staleness": 1.5}
    d = make(**own)
    assert {name: d.get_params()[name] for name in own} == own
    assert d.get_params()["base_dir"] == d.base_dir == str(tmp_path / "cache")


def test_a_relative_base_dir_stays_where_it_was_when_the_process_moves(
    make: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    d = make(base_dir="relative")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    d["a"] = 1
    assert os.listdir(tmp_path / "relative")
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("cache_size_limit", -1, ValueError),
        ("cache_size_limit", 1.5, TypeError),
        ("cache_size_limit", True, TypeError),
        ("max_staleness", -0.1, ValueError),
        ("max_staleness", float("nan"), ValueError),
        ("max_staleness", None, TypeError),
        ("digest_len", -1, ValueError),
        ("digest_len", "8", TypeError),
        ("base_dir", __file__, ValueError),
    ],
)
def test_bad_parameters_are_refused(
    name: str, value: Any, error: type[Exception], make: Connect
) -> None:
    with pytest.raises(error):
        make(**{name: value})


# ---------------------------------------------------------------------- stacking


@pytest.mark.filterwarnings("ignore:a cache of")
class TestMutableDictCachedOverS3(S3Conformance, MutableDictConformance):
    """`MutableDictCached(BasicS3Dict, LocalDict, LocalDict)` keeps the contract."""

    @pytest.fixture
    def handles_travel(self) -> bool:
        return False

    @pytest.fixture
    def new_dict(self, server: CannedServer) -> Callable[..., AnyDict]:
        bucket_name, numbers = new_bucket_name(), itertools.count()

        def new(**params: Any) -> AnyDict:
            place = {"bucket_name": bucket_name, "root_prefix": f"place/{next(numbers)}"}
            return MutableDictCached(
                main_dict=connect(server.endpoint_url, **place, **params),
                data_cache=LocalDict(**params),
                etag_cache=LocalDict(),
            )

        return new

    @pytest.fixture
    def append_only_d(self, d: AnyDict) -> AnyDict:
        """The suite asks for one where any dictionary will do; these are mutable by nature."""
        return d

    def another_handle(self, d: AnyDict, **params: Any) -> AnyDict:
        parts = d.get_params()
        for name in ("main_dict", "data_cache"):
            parts[name] = type(parts[name])(**{**parts[name].get_params(), **params})
        return type(d)(**parts)


class TestAppendOnlyDictCachedOverFiles(AppendOnlyDictConformance):
    """`AppendOnlyDictCached(FileDirDict, LocalDict)` keeps the contract."""

    @pytest.fixture
    def handles_travel(self) -> bool:
        return False

    @pytest.fixture
    def new_dict(self, tmp_path: Path) -> Callable[..., AnyDict]:
        numbers = itertools.count()

        def new(**params: Any) -> AnyDict:
            place = tmp_path / str(next(numbers))
            return AppendOnlyDictCached(
                main_dict=FileDirDict(base_dir=place, append_only=True, fsync=False, **params),
                data_cache=LocalDict(append_only=True, **params),
            )

        return new

    def another_handle(self, d: AnyDict, **params: Any) -> AnyDict:
        parts = d.get_params()
        for name, part in parts.items():
            parts[name] = type(part)(**{**part.get_params(), **params})
        return type(d)(**parts)


def test_a_write_once_dictionary_over_an_append_only_s3_dict_keeps_the_first_value(
    make: Connect,
) -> None:
    d = WriteOnceDict(wrapped_dict=make(append_only=True), p_consistency_checks=1.0)
    d["a"] = 1
    d["a"] = 1
    with pytest.raises(MutationPolicyError):
        d["a"] = 2
    assert d["a"] == 1
    assert d.cache_info().entries == 1
    assert Wire(d.wrapped_dict).of(lambda: d["a"]) == {}


def test_a_read_through_a_cache_in_ram_before_s3_moves_no_value_that_it_has(
    server: CannedServer,
) -> None:
    main = connect(server.endpoint_url)
    d = MutableDictCached(main_dict=main, data_cache=LocalDict(), etag_cache=LocalDict())
    d["a"] = 1
    wire = Wire(main)
    assert wire.of(lambda: d["a"]) == {"GetObject": 1}
    assert wire.statuses == [304]
    main["a"] = 2
    assert d["a"] == 2


def test_formats_over_one_place_of_an_s3_dict_are_dictionaries_of_their_own(
    make: Connect, tmp_path: Path
) -> None:
    shared = make().get_params()
    shared.pop("serialization_format")
    multi = OverlappingMultiDict(dict_type=S3Dict, shared_subdicts_params=shared, pkl={}, json={})
    multi.pkl["a"], multi.json["a"] = 1, 2
    assert (multi.pkl["a"], multi.json["a"]) == (1, 2)
    assert list(multi.pkl.values()) == [1]


def test_insertion_through_a_cache_is_refused_where_s3_has_an_item(server: CannedServer) -> None:
    main = connect(server.endpoint_url, append_only=True)
    d = AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))
    main["a"] = 1
    with pytest.raises(MutationPolicyError):
        d["a"] = 2
    assert d.setdefault("a", 3) == 1
    assert d.get_item_if(
        "a", condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
    ).actual_etag == main.etag("a")
