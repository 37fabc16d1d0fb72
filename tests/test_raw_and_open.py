"""The stored bytes of items: `raw` and `open`."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ETAG_IS_THE_SAME,
    AppendOnlyDictCached,
    EmptyDict,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    PersiDict,
    WriteOnceDict,
)
from persidict.exceptions import BackendError
from persidict.stored_dict import StoredDict
from persidict.wrapper_dict import WrapperDict
from tests.faults import open_descriptors
from tests.s3_dicts import connect
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer

__all__ = ["moto_aws_server"]

Make = Callable[..., StoredDict[Any]]


@pytest.fixture(params=["ram", "files", "s3", "cached s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make a dictionary of a kind from the parameters that all kinds have."""
    if request.param == "ram":
        return LocalDict
    if request.param == "files":
        return lambda **params: FileDirDict(base_dir=tmp_path / "items", fsync=False, **params)
    server: MotoServer = request.getfixturevalue("moto_aws_server")
    if request.param == "s3":
        return lambda **params: connect(server.endpoint_url, **params)
    return lambda **params: connect_cached(server, tmp_path / "cache", **params)


def connect_cached(server: MotoServer, place: Path, **params: Any) -> StoredDict[Any]:
    from persidict.s3_dict_file_dir_cached import S3Dict

    settings = connect(server.endpoint_url, **params).get_params()
    return S3Dict(**settings, base_dir=place)


# ---------------------------------------------------------------------- raw: values


def test_raw_values_are_the_stored_bytes(make: Make) -> None:
    d = make(serialization_format="json")
    d["a", "b"] = [1]
    assert json.loads(d.raw["a", "b"]) == [1]


def test_bytes_written_raw_are_read_as_the_value_that_they_encode(make: Make) -> None:
    d = make()
    d.raw["a"] = pickle.dumps({"x": 1})
    assert d["a"] == {"x": 1}


def test_iterating_over_raw_items_gives_the_stored_bytes(make: Make) -> None:
    d = make(serialization_format="txt", base_class_for_values=str)
    d.update({"a": "ä", "b": "ö"})
    assert dict(d.raw.items()) == {("a",): "ä".encode(), ("b",): "ö".encode()}


def test_raw_bytes_that_are_no_value_are_stored_all_the_same(make: Make) -> None:
    d = make()
    d.raw["a"] = b"no pickle"
    assert d.raw["a"] == b"no pickle"
    with pytest.raises(BackendError):
        d["a"]


@pytest.mark.parametrize("value", ["text", bytearray(b"x"), None, 1])
def test_raw_refuses_what_is_not_bytes(make: Make, value: Any) -> None:
    with pytest.raises(TypeError, match="bytes"):
        make().raw["a"] = value


def test_raw_refuses_in_bulk_what_is_not_bytes(make: Make) -> None:
    with pytest.raises(TypeError, match="bytes"):
        make().raw.update({"a": "text"})


def test_a_conditional_raw_write_sees_the_versions_of_the_dictionary(make: Make) -> None:
    d = make()
    d["a"] = 1
    result = d.raw.set_item_if(
        "a", value=pickle.dumps(2), condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a")
    )
    assert result.condition_was_satisfied
    assert d["a"] == 2


def test_raw_keeps_the_append_only_policy(make: Make) -> None:
    d = make(append_only=True)
    d["a"] = 1
    with pytest.raises(MutationPolicyError):
        d.raw["a"] = b"other"


# ---------------------------------------------------------------------- raw: handles


def test_a_sub_dictionary_of_raw_is_raw(make: Make) -> None:
    d = make(serialization_format="json")
    d["a", "b"] = 1
    assert d.raw.get_subdict("a")["b"] == b"1"


def test_a_copy_of_a_sub_dictionary_of_raw_is_scoped_like_it(make: Make) -> None:
    d = make(serialization_format="json")
    d["a", "b"] = 1
    assert copy.copy(d.raw.get_subdict("a"))["b"] == b"1"


def test_a_sub_dictionary_of_raw_is_raw_of_the_sub_dictionary(make: Make) -> None:
    d = make()
    assert repr(d.raw.get_subdict("a")) == repr(d.get_subdict("a").raw)


def test_raw_of_a_sub_dictionary_holds_its_items(make: Make) -> None:
    d = make(serialization_format="json")
    d["a", "b"] = 1
    assert d.get_subdict("a").raw["b"] == b"1"


def test_the_sub_dictionaries_of_raw_are_raw(make: Make) -> None:
    d = make(serialization_format="json")
    d["a", "b"] = 1
    assert d.raw.subdicts()["a"]["b"] == b"1"


def test_all_of_raw_as_a_sub_dictionary_is_raw(make: Make) -> None:
    d = make(serialization_format="json")
    d["a"] = 1
    assert d.raw.get_subdict(())["a"] == b"1"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_raw_is_raw(make: Make, copied: Callable[[Any], Any]) -> None:
    d = make(serialization_format="json")
    d["a"] = 1
    assert copied(d.raw)["a"] == b"1"


def test_raw_of_raw_is_itself(make: Make) -> None:
    raw = make().raw
    assert raw.raw is raw


def test_a_pickled_raw_handle_is_raw_elsewhere(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, serialization_format="json")
    d["a"] = 1
    assert pickle.loads(pickle.dumps(d.raw))["a"] == b"1"


def test_a_raw_handle_on_ram_refuses_to_be_pickled() -> None:
    with pytest.raises(TypeError, match="RAM"):
        pickle.dumps(LocalDict().raw)


def test_raw_is_of_the_same_class(make: Make) -> None:
    d = make()
    assert type(d.raw) is type(d)


def test_the_parameters_of_raw_make_a_dictionary_whose_raw_is_equal(make: Make) -> None:
    d = make(serialization_format="txt", base_class_for_values=str)
    raw = d.raw
    assert type(raw)(**raw.get_params()).raw == raw


def test_raw_holds_bytes(make: Make) -> None:
    d = make(serialization_format="txt", base_class_for_values=str)
    assert d.raw.base_class_for_values is bytes


def test_the_repr_of_raw_says_that_it_is_raw(make: Make) -> None:
    d = make()
    assert repr(d.raw) == f"{d!r}.raw"


def test_raw_equals_a_mapping_with_the_stored_bytes(make: Make) -> None:
    d = make(serialization_format="json")
    d["a"] = 1
    assert d.raw == {"a": b"1"}


def test_raw_does_not_equal_the_dictionary_with_other_values(make: Make) -> None:
    d = make()
    d["a"] = 1
    assert d.raw != d
    assert d != d.raw


def test_raw_equals_the_dictionary_when_both_are_empty(make: Make) -> None:
    d = make()
    assert d.raw == d


def test_making_raw_leaves_the_dictionary_as_it_is(make: Make) -> None:
    d = make()
    d["a"] = 1
    before = repr(d)
    d.raw["b"] = pickle.dumps(2)
    assert (repr(d), d.base_class_for_values) == (before, None)
    assert d == {"a": 1, "b": 2}


# ---------------------------------------------------------------------- raw: who has it


def test_raw_of_a_write_once_dictionary_is_that_of_the_wrapped_one() -> None:
    d: Any = WriteOnceDict(wrapped_dict=LocalDict(append_only=True, serialization_format="json"))
    d["a"] = 1
    assert d.raw["a"] == b"1"


def test_raw_of_a_write_once_dictionary_changes_nothing() -> None:
    d: Any = WriteOnceDict(wrapped_dict=LocalDict(append_only=True))
    d["a"] = 1
    with pytest.raises(MutationPolicyError):
        d.raw["a"] = b"other"
    assert d["a"] == 1


WRAPPERS: dict[str, Callable[..., PersiDict[Any]]] = {
    "WrapperDict": lambda **params: WrapperDict(wrapped_dict=LocalDict(**params)),
    "MutableDictCached": lambda **params: MutableDictCached(
        main_dict=LocalDict(**params), data_cache=LocalDict(**params), etag_cache=LocalDict()
    ),
    "AppendOnlyDictCached": lambda **params: AppendOnlyDictCached(
        main_dict=LocalDict(append_only=True, **params),
        data_cache=LocalDict(append_only=True, **params),
    ),
    "WriteOnceDict": lambda **params: WriteOnceDict(
        wrapped_dict=LocalDict(append_only=True, **params)
    ),
}


@pytest.fixture(params=WRAPPERS)
def make_wrapper(request: pytest.FixtureRequest) -> Callable[..., PersiDict[Any]]:
    return WRAPPERS[request.param]


def test_raw_of_a_wrapper_has_the_stored_bytes(
    make_wrapper: Callable[..., PersiDict[Any]],
) -> None:
    d = make_wrapper(serialization_format="json")
    d["a"] = 1
    assert d.raw == {"a": b"1"}


def test_what_is_written_through_raw_of_a_wrapper_is_read_by_it(
    make_wrapper: Callable[..., PersiDict[Any]],
) -> None:
    d = make_wrapper(serialization_format="json")
    d.raw["a"] = b"[1, 2]"
    assert d["a"] == [1, 2]


def test_raw_of_raw_of_a_wrapper_is_the_same(make_wrapper: Callable[..., PersiDict[Any]]) -> None:
    raw = make_wrapper().raw
    assert raw.raw is raw


def test_raw_of_a_sub_dictionary_of_a_wrapper_is_the_sub_dictionary_of_raw(
    make_wrapper: Callable[..., PersiDict[Any]],
) -> None:
    d = make_wrapper(serialization_format="json")
    d["g", "a"] = 1
    assert d.raw.get_subdict("g") == d.get_subdict("g").raw == {"a": b"1"}


def test_open_of_a_wrapper_reads_the_stored_bytes(
    make_wrapper: Callable[..., PersiDict[Any]],
) -> None:
    d = make_wrapper(serialization_format="json")
    d["a"] = 1
    with d.open("a") as stream:
        assert stream.read() == b"1"


def test_raw_of_an_empty_dictionary_is_empty_and_takes_bytes() -> None:
    raw = EmptyDict[Any]().raw
    raw["a"] = b"1"
    assert len(raw) == 0


def test_raw_of_an_empty_dictionary_refuses_what_are_no_bytes() -> None:
    with pytest.raises(TypeError, match="bytes"):
        EmptyDict[Any]().raw["a"] = 1  # type: ignore[assignment]


def test_opening_an_item_of_an_empty_dictionary_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        EmptyDict[Any]().open("a")


class KeptAsValues(EmptyDict[Any]):
    """A dictionary on primitives alone, which knows of no bytes."""

    _become_raw = PersiDict._become_raw
    _open = PersiDict._open


@pytest.mark.parametrize("ask", [lambda d: d.raw, lambda d: d.open("a")], ids=["raw", "open"])
def test_a_dictionary_that_keeps_no_bytes_says_so(ask: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="KeptAsValues does not keep its values as bytes"):
        ask(KeptAsValues())


# ---------------------------------------------------------------------- open


def test_open_reads_the_stored_bytes(make: Make) -> None:
    d = make(serialization_format="json")
    d["a", "b"] = 1
    with d.open(("a", "b")) as stream:
        assert stream.read() == b"1"


def test_open_reads_from_anywhere(make: Make) -> None:
    d = make(serialization_format="txt", base_class_for_values=str)
    d["a"] = "0123456789"
    with d.open("a") as stream:
        stream.seek(-4, os.SEEK_END)
        assert (stream.read(2), stream.tell()) == (b"67", 8)


def test_open_reads_the_version_that_was_there(make: Make) -> None:
    d = make(serialization_format="txt", base_class_for_values=str)
    d["a"] = "old" * 10_000
    with d.open("a") as stream:
        d["a"] = "new" * 10_000
        assert stream.read() == b"old" * 10_000


def test_open_reads_an_item_that_is_deleted_meanwhile(make: Make) -> None:
    d = make(serialization_format="txt", base_class_for_values=str)
    d["a"] = "text"
    with d.open("a") as stream:
        del d["a"]
        assert stream.read() == b"text"


def test_what_is_opened_cannot_be_written(make: Make) -> None:
    d = make()
    d["a"] = 1
    before = d.raw["a"]
    with d.open("a") as stream:
        if stream.writable():  # a copy in memory
            stream.write(b"x")
    assert d.raw["a"] == before


@pytest.mark.parametrize("mode", ["r", "rt", "w", "r+b", "", None])
def test_open_refuses_every_mode_but_rb_and_wb(make: Make, mode: Any) -> None:
    d = make()
    d["a"] = 1
    with pytest.raises(ValueError, match="rb"):
        d.open("a", mode)


def test_opening_what_is_absent_is_a_key_error(make: Make) -> None:
    with pytest.raises(KeyError) as caught:
        make().open(("a", "b"))
    assert caught.value.args == (("a", "b"),)


def test_the_key_error_of_open_is_chained_from_the_storage_s_own(tmp_path: Path) -> None:
    with pytest.raises(KeyError) as caught:
        FileDirDict(base_dir=tmp_path).open("a")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_open_of_a_file_is_the_file_itself(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path)
    d["a"] = 1
    (path,) = tmp_path.iterdir()
    with d.open("a") as stream:
        assert os.path.samestat(os.fstat(stream.fileno()), path.stat())


def test_open_follows_no_symbolic_link(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path / "items", digest_len=0)
    d["other"] = 1
    (tmp_path / "items" / "a.pkl").symlink_to(tmp_path / "items" / "other.pkl")
    with pytest.raises(BackendError, match="symbolic link") as caught:
        d.open("a")
    assert caught.value.operation == "open"


def test_open_of_a_directory_says_which_item(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, digest_len=0)
    (tmp_path / "a.pkl").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        d.open("a")
    assert "'open' of item" in caught.value.__notes__[0]


def test_a_refused_open_leaves_no_file_open(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, digest_len=0)
    (tmp_path / "a.pkl").mkdir()
    before = open_descriptors(tmp_path)
    with pytest.raises(IsADirectoryError):
        d.open("a")
    assert open_descriptors(tmp_path) == before
