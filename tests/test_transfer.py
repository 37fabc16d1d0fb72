"""Copying items between dictionaries of every kind and format."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError

from persidict import (
    AppendOnlyDictCached,
    EmptyDict,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    NonEmptySafeStrTuple,
    PersiDict,
    S3Dict,
    TransferResult,
    WriteOnceDict,
    copy_items,
    sync_items,
)
from persidict.basic_s3_dict import BasicS3Dict
from persidict.codecs import MissingExtraError
from persidict.exceptions import BackendError
from persidict.stored_dict import StoredDict
from tests.faults import intercepted_system_calls
from tests.s3_dicts import connect
from tests.s3_servers.clients import new_bucket_name
from tests.s3_servers.fault_proxy import Fault, FaultProxy
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import AWS, ServerQuirks

__all__ = ["moto_aws_server"]

Make = Callable[..., StoredDict[Any]]
Transfer = Callable[..., TransferResult]

KINDS = ["ram", "files", "s3"]
FORMATS = ["pkl", "json", "txt"]
TEXTS = {("a",): "one", ("a", "b"): "two" * 9000, ("c", "d", "e"): "ü"}
QUICK_RETRIES = {"retries": {"total_max_attempts": 4, "mode": "legacy"}}
NO_RETRIES = {"retries": {"total_max_attempts": 1, "mode": "legacy"}}
TEN_PERCENT_FAIL = {
    Fault.RESET_BEFORE: 0.02,
    Fault.RESET_AFTER: 0.02,
    Fault.DROP_REPLY: 0.02,
    Fault.ERROR_500_AFTER: 0.02,
    Fault.TRUNCATED_BODY: 0.02,
}

both_transfers = pytest.mark.parametrize("transfer", [copy_items, sync_items])


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make a dictionary of a kind and a format in a place of its own."""
    numbers = iter(range(1000))
    bucket = new_bucket_name()

    def new_dict(kind: str = "ram", serialization_format: str = "pkl", **params: Any) -> Any:
        if serialization_format not in ("pkl", "json"):
            params.setdefault("base_class_for_values", str)
        params["serialization_format"] = serialization_format
        number = next(numbers)
        if kind == "ram":
            return LocalDict(**params)
        if kind == "files":
            return FileDirDict(base_dir=tmp_path / str(number), fsync=False, **params)
        server: MotoServer = request.getfixturevalue("moto_aws_server")
        place = {"bucket_name": bucket, "root_prefix": str(number)}
        return connect(server.endpoint_url, **{**place, **params})

    return new_dict


def content(dictionary: PersiDict[Any]) -> dict[tuple[str, ...], Any]:
    return {key.strings: value for key, value in dictionary.items()}


def strings(keys: Any) -> set[tuple[str, ...]]:
    return {key.strings for key in keys}


def outcome(result: TransferResult) -> dict[str, set[tuple[str, ...]]]:
    """Say what was done, without what was not."""
    done = {name: strings(getattr(result, name)) for name in result.__dataclass_fields__}
    return {name: keys for name, keys in done.items() if keys}


def error_of(result: TransferResult, key: str) -> Exception:
    return result.failed[NonEmptySafeStrTuple(key)]


def only_names(**done: Any) -> dict[str, set[tuple[str, ...]]]:
    return {name: {(key,) for key in keys} for name, keys in done.items()}


# ---------------------------------------------------------------------- all pairs


@pytest.mark.parametrize("target_format", FORMATS)
@pytest.mark.parametrize("source_format", FORMATS)
@pytest.mark.parametrize("target_kind", KINDS)
@pytest.mark.parametrize("source_kind", KINDS)
def test_what_is_copied_arrives(
    make: Make, source_kind: str, target_kind: str, source_format: str, target_format: str
) -> None:
    source, target = make(source_kind, source_format), make(target_kind, target_format)
    source.update(TEXTS)
    result = copy_items(source, target)
    assert content(target) == TEXTS
    assert outcome(result) == {"copied": set(TEXTS)}


@pytest.mark.parametrize("target_format", FORMATS)
@pytest.mark.parametrize("source_format", FORMATS)
@pytest.mark.parametrize("target_kind", KINDS)
@pytest.mark.parametrize("source_kind", KINDS)
def test_a_sync_copies_just_what_differs(
    make: Make, source_kind: str, target_kind: str, source_format: str, target_format: str
) -> None:
    source, target = make(source_kind, source_format), make(target_kind, target_format)
    source.update({"same": "same", "new": "new", "size": "long", "bytes": "new"})
    target.update({"same": "same", "gone": "gone", "size": "longer", "bytes": "old"})
    result = sync_items(source, target, delete=True)
    assert content(target) == content(source)
    assert outcome(result) == only_names(
        copied=["new", "size", "bytes"], skipped=["same"], deleted=["gone"]
    )


@pytest.mark.parametrize("serialization_format", FORMATS)
@pytest.mark.parametrize("target_kind", KINDS)
@pytest.mark.parametrize("source_kind", KINDS)
def test_bytes_of_the_same_format_are_copied_as_they_are(
    make: Make, source_kind: str, target_kind: str, serialization_format: str
) -> None:
    source, target = (make(kind, serialization_format) for kind in (source_kind, target_kind))
    source.update(TEXTS)
    copy_items(source, target)
    assert content(target.raw) == content(source.raw)


@pytest.mark.parametrize("target_kind", KINDS)
@pytest.mark.parametrize("source_kind", KINDS)
def test_a_second_sync_skips_everything(make: Make, source_kind: str, target_kind: str) -> None:
    source, target = make(source_kind), make(target_kind, "json")
    source.update({str(number): [number, "text"] for number in range(20)})
    sync_items(source, target)
    etags = {key: target.etag(key) for key in target}
    assert outcome(sync_items(source, target)) == {"skipped": strings(source)}
    assert {key: target.etag(key) for key in target} == etags


# ---------------------------------------------------------------------- which items


def test_only_the_keys_given_are_copied(make: Make) -> None:
    source, target = make(), make()
    source.update({"a": 1, "b": 2, "c": 3})
    result = copy_items(source, target, keys=["a", ("c",), "a"])
    assert content(target) == {("a",): 1, ("c",): 3}
    assert sorted(result.copied) == [("a",), ("c",)]


def test_keys_may_be_those_of_the_source(make: Make) -> None:
    source, target = make(), make()
    source.update({("a", "b"): 1, "c": 2})
    copy_items(source, target, keys=source.keys(prefix="a"))
    assert content(target) == {("a", "b"): 1}


def test_a_key_that_the_source_does_not_have_fails_with_a_key_error(make: Make) -> None:
    source, target = make(), make()
    source["a"] = 1
    result = copy_items(source, target, keys=["b", "a"])
    assert isinstance(error_of(result, "b"), KeyError)
    assert outcome(result) == only_names(copied="a", failed="b")


def test_a_key_that_is_none_is_refused_when_all_others_have_been_copied(make: Make) -> None:
    source, target = make(), make()
    source.update({"a": 1, "b": 2})
    with pytest.raises(ValueError, match="not safe"):
        copy_items(source, target, keys=["a", "not safe", "b"])
    assert content(target) == content(source)


def test_without_overwriting_existing_items_stay(make: Make) -> None:
    source, target = make(), make()
    source.update({"a": 1, "b": 2})
    target["a"] = 0
    result = copy_items(source, target, overwrite=False)
    assert content(target) == {("a",): 0, ("b",): 2}
    assert outcome(result) == only_names(copied="b", skipped="a")


@pytest.mark.parametrize("target_kind", KINDS)
def test_without_overwriting_an_item_that_comes_meanwhile_stays(
    make: Make, target_kind: str
) -> None:
    source, target = make(), make(target_kind)
    source.update({"a": 1, "b": 2})
    target["a"] = 0
    result = copy_items(source, target, keys=["a", "b"], overwrite=False)
    assert content(target) == {("a",): 0, ("b",): 2}
    assert outcome(result) == only_names(copied="b", skipped="a")


def test_a_sub_dictionary_is_copied_under_its_own_keys(make: Make) -> None:
    source, target = make("files"), make()
    source.update({("a", "x"): 1, ("a", "y", "z"): 2, "b": 3})
    copy_items(source.get_subdict("a"), target)
    assert content(target) == {("x",): 1, ("y", "z"): 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sync_into_a_sub_dictionary_leaves_all_else_alone(make: Make, kind: str) -> None:
    source, target = make(kind), make(kind)
    source["x"] = 1
    target.update({("a", "old"): 0, "b": 0})
    sync_items(source, target.get_subdict("a"), delete=True)
    assert content(target) == {("a", "x"): 1, ("b",): 0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_can_be_copied_into_a_part_of_itself(make: Make, kind: str) -> None:
    d = make(kind)
    d.update({"x": 1, "y": 2})
    result = copy_items(d, d.get_subdict("backup"))
    assert content(d.get_subdict("backup")) == {("x",): 1, ("y",): 2}
    assert outcome(result) == only_names(copied="xy")


@pytest.mark.parametrize("kind", KINDS)
def test_a_sync_with_itself_skips_everything(make: Make, kind: str) -> None:
    d = make(kind)
    d.update({"x": 1, "y": 2})
    assert outcome(sync_items(d, d, delete=True)) == only_names(skipped="xy")


@both_transfers
def test_an_empty_source_gives_an_empty_result(make: Make, transfer: Transfer) -> None:
    assert transfer(make(), make()) == TransferResult()


def test_more_items_than_are_compared_at_once_are_synced(make: Make) -> None:
    source, target = make(), make()
    source.update({str(number): number for number in range(2500)})
    target.update({str(number): number // 2000 for number in range(2500)})
    result = sync_items(source, target)
    assert content(target) == content(source)
    assert len(result.copied) + len(result.skipped) == 2500


@both_transfers
def test_no_more_bytes_are_read_at_once_than_may_be_held(
    make: Make, monkeypatch: pytest.MonkeyPatch, transfer: Transfer
) -> None:
    monkeypatch.setattr("persidict.transfer.items._CHUNK_BYTES", 1000)
    source, target = make("ram", "txt"), make("ram", "txt")
    source.update({str(number): "x" * 300 for number in range(20)})
    source["large"] = "x" * 5000
    target.update({str(number): "y" * 300 for number in range(0, 20, 2)})
    asked = []
    load_many = StoredDict._load_many

    def noting(self: Any, keys: list[Any]) -> Any:
        asked.append(sum(5000 if key == "large" else 300 for key in keys))
        return load_many(self, keys)

    monkeypatch.setattr(StoredDict, "_load_many", noting)
    transfer(source, target)
    assert sorted(set(asked))[-2:] == [900, 5000]
    assert content(target) == content(source)


def test_values_that_are_packed_in_the_source_are_not_all_held_at_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persidict.transfer.items._CHUNK_BYTES", 1_000_000)
    source, target = make("files", "pkl"), make("ram", "json")
    keys = [str(number) for number in range(40)]
    source.update(dict.fromkeys(keys, "x" * 300_000))
    target.update(dict.fromkeys(keys, ""))
    assert max(info.size for info in source.infos()) < 10_000
    tracemalloc.start()
    try:
        result = sync_items(source, LocalDict(**target.get_params() | {"append_only": True}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(result.failed) == 40
    assert peak < 5_000_000


# ---------------------------------------------------------------------- what is the same


def test_times_of_writing_do_not_make_items_the_same(make: Make) -> None:
    source, target = make("files", "txt"), make("files", "txt")
    source["a"] = "new"
    target["a"] = "old"
    assert target.timestamp("a") > source.timestamp("a")
    sync_items(source, target)
    assert target["a"] == "new"


@pytest.mark.parametrize(("new", "old"), [(True, 1), (1.0, 1), ([True], [1]), ({1: 2}, {True: 2})])
@pytest.mark.parametrize("target_format", ["pkl", "json"])
def test_values_that_are_equal_but_not_the_same_are_copied(
    make: Make, target_format: str, new: Any, old: Any
) -> None:
    source, target = make(), make("ram", target_format)
    source["a"] = new
    target["a"] = old
    assert outcome(sync_items(source, target)) == only_names(copied="a")
    assert repr(target["a"]) == repr(new)


def test_damaged_bytes_of_the_target_are_replaced(make: Make) -> None:
    source, target = make(), make("ram", "json")
    source["a"] = 1
    target.raw["a"] = b"{"
    sync_items(source, target)
    assert target["a"] == 1


# ---------------------------------------------------------------------- requests


@contextmanager
def counting(dictionary: BasicS3Dict[Any]) -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()

    def count(event_name: str, **kwargs: Any) -> None:
        counts[event_name.rpartition(".")[2]] += 1

    events = dictionary.s3_client.meta.events
    events.register("before-send.s3", count)
    try:
        yield counts
    finally:
        events.unregister("before-send.s3", count)


@pytest.fixture
def s3_pair(make: Make) -> tuple[BasicS3Dict[Any], BasicS3Dict[Any]]:
    """Two dictionaries on one service, the first one with ten items."""
    source, target = make("s3"), make("s3")
    assert isinstance(source, BasicS3Dict)
    assert isinstance(target, BasicS3Dict)
    source.update({str(number): number for number in range(10)})
    assert target.capabilities.put_if_none_match
    return source, target


def test_one_service_copies_by_itself(s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]]) -> None:
    source, target = s3_pair
    with counting(target) as counts:
        copy_items(source, target)
    assert counts == {"ListObjectsV2": 1, "CopyObject": 10}


def test_a_sync_within_one_service_reads_nothing(
    s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]],
) -> None:
    source, target = s3_pair
    copy_items(source, target)
    source["new"] = 1
    with counting(target) as counts:
        sync_items(source, target)
    assert counts == {"ListObjectsV2": 2, "CopyObject": 1}


def test_a_sync_within_one_service_does_not_read_what_differs_in_size(
    s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]],
) -> None:
    source, target = s3_pair
    copy_items(source, target)
    source["3"] = "another size"
    with counting(target) as counts:
        sync_items(source, target)
    assert counts == {"ListObjectsV2": 2, "CopyObject": 1}


def test_a_sync_to_s3_asks_for_nothing_that_is_there(
    make: Make, s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]]
) -> None:
    local, (_, target) = make("files", "json"), s3_pair
    local.update({str(number): number for number in range(10)})
    sync_items(local, target)
    with counting(target) as counts:
        sync_items(local, target)
    assert counts == {"ListObjectsV2": 1}


def test_a_sync_from_s3_fetches_only_what_differs(
    make: Make, s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]]
) -> None:
    (source, _), local = s3_pair, make("files")
    sync_items(source, local)
    source["5"] = 50
    local["6"] = 60
    with counting(source) as counts:
        result = sync_items(source, local)
    assert outcome(result)["copied"] == {("5",), ("6",)}
    assert counts == {"ListObjectsV2": 1, "GetObject": 2}


@pytest.fixture
def cached_s3(moto_aws_server: MotoServer, tmp_path: Path) -> Callable[[], S3Dict[Any]]:
    """Make dictionaries in one bucket, with copies in one directory and kept for a while."""
    numbers = iter(range(10))
    params = connect(moto_aws_server.endpoint_url).get_params()

    def new_dict() -> S3Dict[Any]:
        place = {"root_prefix": str(next(numbers)), "base_dir": tmp_path, "max_staleness": 1000}
        return S3Dict(**{**params, **place})

    return new_dict


def test_a_service_copies_between_dictionaries_with_local_copies(
    cached_s3: Callable[[], S3Dict[Any]],
) -> None:
    source, target = cached_s3(), cached_s3()
    source["a"] = 1
    with counting(target) as counts:
        copy_items(source, target)
    assert counts == {"ListObjectsV2": 1, "CopyObject": 1}
    assert target["a"] == 1


def test_a_local_copy_of_what_the_service_copied_over_is_not_served(
    cached_s3: Callable[[], S3Dict[Any]],
) -> None:
    source, target = cached_s3(), cached_s3()
    source["a"] = 1
    target["a"] = 0
    copy_items(source, target)
    assert target["a"] == 1


def test_a_sync_between_dictionaries_with_local_copies_reads_nothing(
    cached_s3: Callable[[], S3Dict[Any]],
) -> None:
    source, target = cached_s3(), cached_s3()
    source["a"] = 1
    sync_items(source, target)
    with counting(target) as counts:
        sync_items(source, target)
    assert counts == {"ListObjectsV2": 2}


def test_insertions_are_sent_under_a_condition_that_servers_enforce(
    s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]],
) -> None:
    source, target = s3_pair
    with counting(target) as counts:
        copy_items(source, target, overwrite=False)
    assert counts == {"ListObjectsV2": 2, "GetObject": 10, "PutObject": 10}


@pytest.fixture
def forbidding_server(moto_aws_server: MotoServer) -> MotoServer:
    return moto_aws_server.with_quirks(ServerQuirks(forbidden=frozenset({"CopyObject"})))


def test_items_that_the_service_may_not_copy_are_sent(forbidding_server: MotoServer) -> None:
    bucket = new_bucket_name()
    source, target = (
        connect(forbidding_server.endpoint_url, bucket_name=bucket, root_prefix=prefix)
        for prefix in ("source", "target")
    )
    source.update(TEXTS)
    result = copy_items(source, target)
    assert content(target) == TEXTS
    assert outcome(result) == {"copied": set(TEXTS)}


def test_items_are_sent_between_services(make: Make, moto_aws_server: MotoServer) -> None:
    source, target = make("s3"), connect(moto_aws_server.with_quirks(AWS).endpoint_url)
    source.update(TEXTS)
    with counting(target) as counts:
        copy_items(source, target)
    assert content(target) == TEXTS
    assert counts["CopyObject"] == 0


def test_a_copy_can_be_changed_under_a_condition(
    s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]],
) -> None:
    source, target = s3_pair
    copy_items(source, target)
    assert target.transform_item("3", transformer=lambda n: n + 1).new_value == 4


def test_what_vanishes_from_the_source_while_the_service_copies_is_left_out(
    s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]],
) -> None:
    source, target = s3_pair
    listed = list(source._listing())
    del source["3"]
    with mock.patch.object(source, "_listing", return_value=listed):
        result = copy_items(source, target)
    assert outcome(result) == only_names(copied="012456789")


def test_what_vanishes_from_the_source_while_it_is_read_is_left_out(make: Make) -> None:
    source, target = make(), make("ram", "json")
    source.update({"a": 1, "b": 2, "c": 3})
    listed = list(source._listing())
    del source["b"], source["c"]
    with mock.patch.object(source, "_listing", return_value=listed):
        result = copy_items(source, target)
    assert outcome(result) == only_names(copied="a")


@pytest.mark.parametrize("append_only", [False, True])
def test_what_vanishes_from_the_target_while_it_is_compared_is_written_again(
    make: Make, append_only: bool
) -> None:
    source, target = make(), make(append_only=append_only)
    source["a"] = target["a"] = 1
    listed = list(target._listing())
    target.backend.delete("a.pkl")  # type: ignore[attr-defined]
    with mock.patch.object(target, "_listing", return_value=listed):
        result = sync_items(source, target)
    assert content(target) == {("a",): 1}
    assert outcome(result) == only_names(copied="a")


# ---------------------------------------------------------------------- classes of values


@pytest.mark.parametrize("target_format", ["pkl", "json"])
def test_values_of_a_class_that_the_target_does_not_hold_fail(
    make: Make, target_format: str
) -> None:
    source, target = make(), make("ram", target_format, base_class_for_values=int)
    source.update({"a": 1, "b": "text", "c": True})
    result = copy_items(source, target)
    assert content(target) == {("a",): 1, ("c",): True}
    assert isinstance(error_of(result, "b"), TypeError)
    assert outcome(result) == only_names(copied="ac", failed="b")


def test_a_service_copies_no_values_that_nobody_has_looked_at(make: Make) -> None:
    source, target = make("s3"), make("s3", base_class_for_values=int)
    source.update({"a": 1, "b": "text"})
    copy_items(source, target)
    assert content(target) == {("a",): 1}


def test_values_of_a_subclass_are_copied(make: Make) -> None:
    source = make(base_class_for_values=bool)
    target = make(base_class_for_values=int)
    source["a"] = True
    copy_items(source, target)
    assert target["a"] is True


def test_raw_items_are_copied_into_raw_whatever_the_formats(make: Make) -> None:
    source, target = make("ram", "json"), make("files", "txt")
    source["a"] = 1
    copy_items(source.raw, target.raw)
    assert target["a"] == "1"


def test_raw_items_are_values_to_a_dictionary_that_is_not_raw(make: Make) -> None:
    source, target = make("ram", "json"), make()
    source["a"] = 1
    copy_items(source.raw, target)
    assert target["a"] == b"1"


# ---------------------------------------------------------------------- policies


@both_transfers
@pytest.mark.parametrize("kind", KINDS)
def test_an_append_only_target_keeps_what_it_has(make: Make, kind: str, transfer: Transfer) -> None:
    source, target = make(), make(kind, append_only=True)
    source.update({"same": 1, "other": 2, "new": 3})
    target.update({"same": 1, "other": 0})
    result = transfer(source, target)
    assert content(target) == {("same",): 1, ("other",): 0, ("new",): 3}
    assert outcome(result) == only_names(copied=["new"], skipped=["same"], failed=["other"])
    error = error_of(result, "other")
    assert isinstance(error, MutationPolicyError)
    assert error.policy == "append-only"


@pytest.mark.parametrize("kind", KINDS)
def test_an_append_only_target_compares_also_items_that_were_asked_for(
    make: Make, kind: str
) -> None:
    source, target = make(), make(kind, append_only=True)
    source.update({"same": 1, "other": 2, "new": 3})
    target.update({"same": 1, "other": 0})
    result = copy_items(source, target, keys=["same", "other", "new"])
    assert outcome(result) == only_names(copied=["new"], skipped=["same"], failed=["other"])


def test_an_append_only_target_has_an_equal_value_also_in_other_bytes(make: Make) -> None:
    source, target = make(), make(append_only=True)
    source["a"] = {"x": 1}
    target.raw["a"] = pickle.dumps({"x": 1}, protocol=0)
    assert outcome(sync_items(source, target)) == only_names(skipped="a")


def test_deleting_from_an_append_only_target_is_refused_before_anything_is_copied(
    make: Make,
) -> None:
    source, target = make(), make(append_only=True)
    source["a"] = 1
    with pytest.raises(MutationPolicyError):
        sync_items(source, target, delete=True)
    assert not target


@both_transfers
def test_a_write_once_target_refuses_another_value_in_its_own_name(transfer: Transfer) -> None:
    source: LocalDict[Any] = LocalDict()
    target: WriteOnceDict[Any] = WriteOnceDict(wrapped_dict=LocalDict(append_only=True))
    source.update({"same": 1, "other": 2, "new": 3})
    target.update({"same": 1, "other": 0})
    result = transfer(source, target)
    assert outcome(result) == only_names(copied=["new"], skipped=["same"], failed=["other"])
    error = error_of(result, "other")
    assert isinstance(error, MutationPolicyError)
    assert error.policy == "write-once"


# ---------------------------------------------------------------------- compositions


def cached(main: PersiDict[Any]) -> PersiDict[Any]:
    if main.append_only:
        return AppendOnlyDictCached(main_dict=main, data_cache=LocalDict(append_only=True))
    return MutableDictCached(main_dict=main, data_cache=LocalDict(), etag_cache=LocalDict())


@both_transfers
@pytest.mark.parametrize("append_only", [False, True])
def test_items_are_copied_between_dictionaries_with_caches(
    transfer: Transfer, append_only: bool
) -> None:
    source, target = (cached(LocalDict(append_only=append_only)) for _ in range(2))
    source.update({"a": 1, "b": 2})
    transfer(source, target)
    assert content(target) == {("a",): 1, ("b",): 2}


def test_a_cache_in_front_of_the_target_serves_what_was_copied(make: Make) -> None:
    source, target = make(), cached(make("files"))
    target["a"] = 0
    assert target["a"] == 0
    source["a"] = 1
    copy_items(source, target)
    assert target["a"] == 1


def test_a_sync_deletes_behind_a_cache(make: Make) -> None:
    source, target = make(), cached(make())
    target["a"] = 0
    source["b"] = target["b"] = 1
    sync_items(source, target, delete=True)
    assert "a" not in target
    assert target.get("a") is None


@both_transfers
def test_an_empty_dictionary_takes_everything_and_keeps_nothing(
    make: Make, transfer: Transfer
) -> None:
    source, target = make(), EmptyDict[Any]()
    source.update({"a": 1, "b": 2})
    assert outcome(transfer(source, target)) == only_names(copied="ab")
    assert not target


def test_a_sync_with_an_empty_dictionary_deletes_everything(make: Make) -> None:
    target = make()
    target.update({"a": 1, "b": 2})
    result = sync_items(EmptyDict(), target, delete="even if empty")
    assert outcome(result) == only_names(deleted="ab")


def test_a_sync_from_an_empty_or_missing_source_deletes_nothing(make: Make, tmp_path: Path) -> None:
    target = make()
    target.update({"a": 1, "b": 2})
    missing = FileDirDict[Any](base_dir=tmp_path / "not mounted")
    for source in (LocalDict[Any](), missing):
        with pytest.raises(ValueError, match="even if empty"):
            sync_items(source, target, delete=True)
    assert dict(target.items()) == {("a",): 1, ("b",): 2}


def test_a_sync_of_an_empty_source_with_an_empty_target_is_no_error(make: Make) -> None:
    assert outcome(sync_items(make(), make(), delete=True)) == only_names()


@pytest.mark.parametrize("delete", ["no", "yes", 2, None])
def test_what_is_no_way_to_delete_is_refused_by_name(make: Make, delete: Any) -> None:
    with pytest.raises(TypeError, match="delete must be True, False or 'even if empty'"):
        sync_items(make(), make(), delete=delete)


def test_one_key_in_place_of_many_is_refused_by_name(make: Make) -> None:
    with pytest.raises(TypeError, match="keys must be an iterable of keys, not one key"):
        copy_items(make(), make(), keys="ab")


def test_keys_that_break_off_lose_none_that_they_had_yielded(make: Make) -> None:
    source, target = make(), make()
    source.update({"a": 1, "b": 2, "c": 3})

    def keys() -> Iterator[Any]:
        yield from ("a", "b")
        raise OSError("broke off")

    with pytest.raises(OSError, match="broke off"):
        copy_items(source, target, keys=keys())
    assert dict(target.items()) == {("a",): 1, ("b",): 2}


class InMemory(EmptyDict[Any]):
    """A dictionary with values and without a store, as others may write one."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.values_by_key: dict[Any, Any] = {}

    def _load(self, key: Any, *, if_none_match: Any = None) -> Any:
        return (self.values_by_key[key], "") if key in self.values_by_key else self._absent(key)

    def _write(self, key: Any, value: Any, expected: Any) -> Any:
        self.values_by_key[key] = value

    def _keys(self, *, page_size: int | None = None) -> Any:
        return iter(list(self.values_by_key))


def test_a_sync_compares_the_values_of_dictionaries_without_a_store(make: Make) -> None:
    source, target = make(), InMemory()
    source.update({"same": 1, "other": True, "new": 3})
    target.update({"same": 1, "other": 1})
    result = sync_items(source, target)
    assert outcome(result) == only_names(copied=["other", "new"], skipped=["same"])
    assert target.values_by_key["other",] is True


def test_items_are_copied_from_a_dictionary_without_a_store(make: Make) -> None:
    source, target = InMemory(), make("files")
    source["a"] = 1
    copy_items(source, target)
    assert target["a"] == 1


@both_transfers
@pytest.mark.parametrize("wrong", [{}, None, "place"])
def test_only_persistent_dictionaries_are_copied(transfer: Transfer, wrong: Any) -> None:
    with pytest.raises(TypeError, match="source"):
        transfer(wrong, LocalDict())
    with pytest.raises(TypeError, match="target"):
        transfer(LocalDict(), wrong)


# ---------------------------------------------------------------------- failures


@both_transfers
def test_items_that_cannot_be_decoded_fail_and_the_others_are_copied(
    make: Make, transfer: Transfer
) -> None:
    source, target = make("files"), make("ram", "json")
    source.update({str(number): number for number in range(200)})
    for number in range(0, 200, 50):
        source.raw[str(number)] = b"damaged"
    result = transfer(source, target)
    assert strings(result.failed) == {("0",), ("50",), ("100",), ("150",)}
    assert all(isinstance(error, BackendError) for error in result.failed.values())
    assert len(target) == len(result.copied) == 196


def test_after_an_item_that_cannot_be_read_the_others_are_read_in_bulk_again(make: Make) -> None:
    source, target = make(), make("ram", "json")
    source.update({str(number): number for number in range(1000)})
    source.raw["0"] = b"damaged"
    with mock.patch.object(source, "_load", wraps=source._load) as load:
        copy_items(source, target)
    assert load.call_count < 100
    assert len(target) == 999


def test_a_value_that_the_target_cannot_encode_fails_alone(make: Make) -> None:
    source, target = make(), make("files", "json")  # RAM copies what it cannot encode
    source.update({"a": 1, "b": open, "c": 3})
    with mock.patch.object(target._codec, "encode", side_effect=only_numbers(target)):
        result = copy_items(source, target)
    assert outcome(result) == only_names(copied="ac", failed="b")
    assert "'b'" in error_of(result, "b").__notes__[0]


def only_numbers(dictionary: StoredDict[Any]) -> Callable[[Any], Any]:
    encode = dictionary._codec.encode

    def encode_numbers(value: Any) -> Any:
        if not isinstance(value, int):
            raise TypeError("no number")
        return encode(value)

    return encode_numbers


def test_a_file_that_cannot_be_read_fails_alone(tmp_path: Path, make: Make) -> None:
    source, target = make("files", digest_len=0), make("ram")
    source.update({"a": 1, "c": 3})
    (Path(source.get_params()["base_dir"]) / "b.pkl").symlink_to(tmp_path)
    result = copy_items(source, target, keys=["a", "b", "c"])
    assert content(target) == {("a",): 1, ("c",): 3}
    assert isinstance(error_of(result, "b"), BackendError)


def test_an_item_that_cannot_be_written_fails_alone(make: Make) -> None:
    source, target = make(), make("files")
    too_long = "x" * 250
    source.update({"a": 1, too_long: 2})
    result = copy_items(source, target)
    assert content(target) == {("a",): 1}
    assert isinstance(error_of(result, too_long), OSError)


def test_nothing_is_deleted_when_something_could_not_be_copied(make: Make) -> None:
    source, target = make(), make("ram", "json")
    source.update({"a": 1, "b": 2})
    source.raw["b"] = b"damaged"
    target["old"] = 0
    result = sync_items(source, target, delete=True)
    assert content(target) == {("a",): 1, ("old",): 0}
    assert outcome(result) == only_names(copied="a", failed="b")


def test_an_item_that_cannot_be_deleted_fails(make: Make) -> None:
    source, target = make(), make()
    target.update({"a": 1, "b": 2})
    refusal = OSError("no")
    failures = [(NonEmptySafeStrTuple("a"), refusal)]
    with mock.patch.object(target, "_remove_many", return_value=failures):
        result = sync_items(source, target, delete="even if empty")
    assert outcome(result) == only_names(deleted="b", failed="a")


def test_a_failed_item_is_copied_by_the_next_sync(make: Make) -> None:
    source, target = make(), make("ram", "json")
    source.update({"a": 1, "b": 2})
    good = source.raw["b"]
    source.raw["b"] = b"damaged"
    sync_items(source, target)
    source.raw["b"] = good
    result = sync_items(source, target)
    assert outcome(result) == only_names(copied="b", skipped="a")


def test_a_source_that_cannot_be_listed_raises(make: Make) -> None:
    source = make()
    with (
        mock.patch.object(LocalDict, "_listing", side_effect=OSError("no")),
        pytest.raises(OSError, match="no"),
    ):
        copy_items(source, make("files"))


# ---------------------------------------------------------------------- results and progress


def test_a_result_says_in_brief_what_was_done(make: Make) -> None:
    source, target = make(), make()
    source.update({"a": 1, "b": 2})
    assert repr(copy_items(source, target)) == (
        "<TransferResult: 2 copied, 0 skipped, 0 deleted, 0 failed>"
    )


def test_a_result_cannot_be_changed(make: Make) -> None:
    result = copy_items(make(), make())
    with pytest.raises(TypeError):
        result.failed[NonEmptySafeStrTuple("a")] = OSError()  # type: ignore[index]


class RecordingBar:
    """What tqdm is to a caller, drawn nowhere."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.count = 0

    def __enter__(self) -> RecordingBar:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.options["closed"] = True

    def update(self) -> None:
        self.count += 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[RecordingBar]:
    made: list[RecordingBar] = []

    def new_bar(**options: Any) -> RecordingBar:
        made.append(RecordingBar(**options))
        return made[-1]

    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=new_bar))
    return made


@both_transfers
def test_a_progress_bar_counts_every_item_once(
    make: Make, transfer: Transfer, bars: list[RecordingBar]
) -> None:
    source, target = make("ram"), make("ram", "json", append_only=True)
    source.update({"new": 1, "same": 2, "other": 3, "damaged": 4})
    source.raw["damaged"] = b"no pickle"
    target.update({"same": 2, "other": 0})
    transfer(source, target, progress=True)
    (bar,) = bars
    assert (bar.options["total"], bar.count, bar.options["closed"]) == (4, 4, True)


def test_no_progress_bar_is_shown_unless_asked_for(make: Make, bars: list[RecordingBar]) -> None:
    copy_items(make(), make())
    assert bars == []


def test_tqdm_draws_the_progress_bar(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    source = make()
    source.update({"a": 1, "b": 2})
    copy_items(source, make(), progress=True)
    assert "copying: 100%" in capsys.readouterr().err


@both_transfers
def test_without_tqdm_a_progress_bar_names_the_extra_and_nothing_is_copied(
    make: Make, transfer: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    source, target = make(), make()
    source["a"] = 1
    with pytest.raises(MissingExtraError, match=r"persidict\[progress\]"):
        transfer(source, target, progress=True)
    assert not target


# ---------------------------------------------------------------------- interruptions

FORK: Any = multiprocessing.get_context("fork")


def sync_until_killed(
    source: FileDirDict[Any], target: FileDirDict[Any], written: int, reports: Any
) -> None:
    """Sync, but report and stop ahead of the n-th item's coming into its place."""
    remaining = written

    def stop_if_due(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal remaining
        if name == "replace":
            remaining -= 1
            if not remaining:
                reports.send("there")
                signal.pause()

    with intercepted_system_calls(stop_if_due):
        sync_items(source, target, delete=True)


@pytest.mark.parametrize("written", [1, 2, 25, 50])
def test_a_sync_that_was_killed_continues_where_it_stopped(make: Make, written: int) -> None:
    source, target = make("files"), make("files")
    assert isinstance(source, FileDirDict)
    assert isinstance(target, FileDirDict)
    values = {("dir", str(number)): bytes([number]) * 3000 for number in range(50)}
    source.update(values)
    target["old"] = 0
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(
        target=sync_until_killed, args=(source, target, written, sender), daemon=True
    )
    child.start()
    assert receiver.recv() == "there"
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert len(target) == written  # the old one, and all but the last of those counted
    result = sync_items(source, target, delete=True)
    assert content(target) == values
    assert (len(result.skipped), len(result.copied)) == (written - 1, 51 - written)
    assert strings(result.deleted) == {("old",)}


def test_a_sync_that_raised_in_the_middle_continues(make: Make) -> None:
    source, target = make("files"), make("files")
    source.update({str(number): number for number in range(20)})
    calls = iter(range(1000))

    def interrupt(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "replace" and next(calls) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), intercepted_system_calls(interrupt):
        sync_items(source, target)
    result = sync_items(source, target)
    assert content(target) == content(source)
    assert (len(result.skipped), len(result.copied)) == (10, 10)


# ---------------------------------------------------------------------- networks


@pytest.fixture
def proxy(moto_aws_server: MotoServer) -> Iterator[FaultProxy]:
    with FaultProxy(moto_aws_server.endpoint_url) as proxy:
        yield proxy


def sync_until_done(source: PersiDict[Any], target: PersiDict[Any]) -> None:
    """Sync until nothing fails, neither an item nor a listing."""
    for _ in range(20):
        try:
            result = sync_items(source, target, delete=not target.append_only)
        except (ClientError, BotoCoreError):
            continue
        if not result.failed:
            return
    raise AssertionError("the sync does not end")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("way", ["up", "down", "inside", "inside under conditions"])
def test_when_ten_percent_of_the_requests_fail_a_sync_ends_with_the_right_content(
    make: Make, proxy: FaultProxy, way: str, seed: int
) -> None:
    bucket = new_bucket_name()
    params: dict[str, Any] = {"bucket_name": bucket, "boto_config": QUICK_RETRIES}
    behind = [connect(proxy.endpoint_url, root_prefix=name, **params) for name in "ab"]
    params["append_only"] = way == "inside under conditions"
    there = connect(proxy.endpoint_url, root_prefix="b", **params)
    assert there.capabilities.put_if_none_match
    source: Any = make("files") if way == "up" else behind[0]
    target: Any = make("files") if way == "down" else behind[1]
    values = {("d", str(number)): bytes([number]) * (1 + 97 * number) for number in range(80)}
    source.update(values)
    if not params["append_only"]:
        target.update({("d", "1"): b"other", ("d", "x"): b"superfluous"})
    proxy.fail_randomly(TEN_PERCENT_FAIL, seed=seed)
    sync_until_done(source, there if params["append_only"] else target)
    proxy.calm()
    assert sum(proxy.injected().values()) > proxy.injected()[Fault.PASS]
    assert content(target) == values


def keys_sent(proxy: FaultProxy) -> Iterator[str]:
    """Say which objects have been sent and have reached the server, each time."""
    for request, fault in proxy.handled():
        if request.operation == "PutObject" and fault is not Fault.RESET_BEFORE:
            yield request.key


def test_a_sync_killed_while_ten_percent_of_its_requests_fail_continues(
    make: Make, proxy: FaultProxy, moto_aws_server: MotoServer
) -> None:
    source, bucket = make("files"), new_bucket_name()
    target = connect(proxy.endpoint_url, bucket_name=bucket, boto_config=QUICK_RETRIES)
    values = {("d", str(number)): bytes([number]) * (1 + 97 * number) for number in range(100)}
    source.update(values)
    connect(moto_aws_server.endpoint_url, bucket_name=bucket).update(
        {("d", "1"): b"other", ("d", "x"): b"superfluous"}
    )
    # what the killed process had under way goes through a proxy of its own, and is not counted
    with FaultProxy(moto_aws_server.endpoint_url) as first:
        dying = connect(first.endpoint_url, bucket_name=bucket, boto_config=QUICK_RETRIES)
        child = FORK.Process(target=sync_until_done, args=(source, dying), daemon=True)
        first.script(Fault.PASS, key="d/50.pkl", meanwhile=lambda: child.kill())
        first.fail_randomly(TEN_PERCENT_FAIL, seed=4)
        child.start()
        child.join()
        arrived = set(keys_sent(first))
    assert child.exitcode == -signal.SIGKILL
    proxy.fail_randomly(TEN_PERCENT_FAIL, seed=5)
    sync_until_done(source, target)
    proxy.calm()
    sent = set(keys_sent(proxy))
    assert content(target) == values
    assert arrived
    assert sent
    assert arrived.isdisjoint(sent)


def test_a_copy_does_not_pass_for_the_beginning_of_what_it_replaced(
    proxy: FaultProxy, moto_aws_server: MotoServer
) -> None:
    bucket = new_bucket_name()
    source, target = (
        connect(moto_aws_server.endpoint_url, bucket_name=bucket, root_prefix=name)
        for name in ("source", "target")
    )
    slow = connect(proxy.endpoint_url, bucket_name=bucket, root_prefix="target")
    assert slow.capabilities.put_if_none_match
    source.setdefault("a", 1)
    proxy.script(
        Fault.DROP_REPLY, operation="PutObject", meanwhile=lambda: copy_items(source, target)
    )
    # it did insert, which nobody can tell any more
    with pytest.raises(ConnectionClosedError, match="outcome unknown"):
        slow.setdefault("a", 2)
    assert target["a"] == 1


def test_a_copy_has_the_content_type_of_the_target(
    s3_pair: tuple[BasicS3Dict[Any], BasicS3Dict[Any]],
) -> None:
    source, target = s3_pair
    copy_items(source, target)
    key = f"{target.root_prefix}3.pkl"
    reply = target.s3_client.head_object(Bucket=target.bucket_name, Key=key)
    assert reply["ContentType"] == "application/octet-stream"


def test_an_item_that_meets_trouble_all_the_time_fails_alone(make: Make, proxy: FaultProxy) -> None:
    source, target = make(), connect(proxy.endpoint_url, boto_config=NO_RETRIES)
    source.update({"a": 1, "b": 2, "c": 3})
    proxy.fail_randomly(
        {Fault.ERROR_500: 1.0}, seed=1, matches=lambda request: request.key == "b.pkl"
    )
    result = copy_items(source, target)
    assert outcome(result) == only_names(copied="ac", failed="b")


def test_an_item_that_cannot_be_fetched_fails_alone(make: Make, proxy: FaultProxy) -> None:
    source, target = connect(proxy.endpoint_url, boto_config=NO_RETRIES), make()
    source.update({str(number): number for number in range(100)})
    proxy.fail_randomly(
        {Fault.ERROR_500: 1.0}, seed=1, matches=lambda request: request.key == "50.pkl"
    )
    result = copy_items(source, target)
    assert strings(result.failed) == {("50",)}
    assert len(target) == 99
