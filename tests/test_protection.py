"""Signed and encrypted dictionaries: what others put into the place is neither run nor believed."""

from __future__ import annotations

import os
import pickle
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mixinforge import dumpjs

from persidict import (
    Encrypted,
    FileDirDict,
    KeyFromEnvironment,
    LocalDict,
    MutableDictCached,
    ProtectionError,
    Signed,
    copy_items,
    sync_items,
)
from persidict.codecs import MissingExtraError
from persidict.persi_dict import PersiDict
from persidict.protection import NotProtected, Protection

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
KINDS = [Signed, Encrypted]

READS: dict[str, Callable[[PersiDict[Any]], object]] = {
    "d[key]": lambda d: d["a"],
    "get": lambda d: d.get("a"),
    "items": lambda d: list(d.items()),
    "get_many": lambda d: d.get_many(["a"]),
    "get_with_etag": lambda d: d.get_with_etag("a"),
    "pop": lambda d: d.pop("a"),
    "setdefault": lambda d: d.setdefault("a", 1),
    "transform_item": lambda d: d.transform_item("a", transformer=lambda value: value),
}


class Evil:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[Protection]:
    chosen: type[Protection] = request.param
    return chosen


def in_files(place: Path, protection: Protection | None, **params: Any) -> FileDirDict[Any]:
    return FileDirDict(base_dir=place, protection=protection, fsync=False, **params)


@pytest.mark.parametrize("read", list(READS))
def test_a_malicious_pickle_that_was_put_into_the_place_is_not_run(
    kind: type[Protection], tmp_path: Path, read: str
) -> None:
    trap = tmp_path / "trap"
    in_files(tmp_path / "d", None)["a"] = Evil(trap)
    with pytest.raises(ProtectionError, match="is not trusted"):
        READS[read](in_files(tmp_path / "d", kind(KEY)))
    assert not trap.exists()


def test_what_is_not_trusted_is_named(kind: type[Protection], tmp_path: Path) -> None:
    in_files(tmp_path, None)["a"] = 1
    with pytest.raises(ProtectionError) as caught:
        in_files(tmp_path, kind(KEY))["a"]
    assert (caught.value.operation, caught.value.key) == ("check", ("a",))


def test_the_same_pickle_runs_where_nothing_protects(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    d = in_files(tmp_path / "d", None)
    d["a"] = Evil(trap)
    d["a"]
    assert trap.exists()


def test_a_malicious_pickle_is_not_run_through_a_cache(
    kind: type[Protection], tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    in_files(tmp_path / "d", None)["a"] = Evil(trap)
    cached = MutableDictCached(
        main_dict=in_files(tmp_path / "d", kind(KEY)),
        data_cache=LocalDict(),
        etag_cache=LocalDict(serialization_format="json"),
    )
    with pytest.raises(ProtectionError):
        cached["a"]
    assert not trap.exists()


def test_every_altered_byte_is_noticed(kind: type[Protection]) -> None:
    d = LocalDict[Any](protection=kind(KEY))
    d["a"] = [1, "two"]
    stored = d.raw["a"]
    for position in range(len(stored)):
        altered = bytearray(stored)
        altered[position] ^= 1
        d.raw["a"] = bytes(altered)
        with pytest.raises(ProtectionError):
            d["a"]


def test_every_truncation_and_every_addition_is_noticed(kind: type[Protection]) -> None:
    d = LocalDict[Any](protection=kind(KEY))
    d["a"] = [1, "two"]
    stored = d.raw["a"]
    for changed in [stored[:length] for length in range(len(stored))] + [stored + b"\0"]:
        d.raw["a"] = changed
        with pytest.raises(ProtectionError):
            d["a"]


@pytest.mark.parametrize("target", ["b", ("a", "a"), ("g", "a")], ids=repr)
def test_an_item_cannot_be_passed_off_as_another(kind: type[Protection], target: Any) -> None:
    d = LocalDict[int](protection=kind(KEY))
    d["a"] = 1
    d.raw[target] = d.raw["a"]
    with pytest.raises(ProtectionError):
        d[target]


def test_an_item_cannot_be_passed_off_in_a_sub_dictionary(kind: type[Protection]) -> None:
    d = LocalDict[int](protection=kind(KEY))
    d["ann", "limit"] = 1
    d["bob", "limit"] = 2
    d.raw["ann", "limit"] = d.raw["bob", "limit"]
    with pytest.raises(ProtectionError):
        d.get_subdict("ann")["limit"]


def test_an_item_cannot_be_passed_off_as_one_of_another_format(
    kind: type[Protection], tmp_path: Path
) -> None:
    text = in_files(tmp_path, kind(KEY), serialization_format="txt", base_class_for_values=str)
    text["a"] = "cos\nsystem\n(S'true'\ntR."
    d = in_files(tmp_path, kind(KEY))
    d.raw["a"] = text.raw["a"]
    with pytest.raises(ProtectionError):
        d["a"]


def test_a_place_does_not_end_in_the_middle_of_a_name(kind: type[Protection]) -> None:
    with pytest.raises(ValueError, match="place must end with '/', as in 'orders/'"):
        kind(KEY, place="orders")


def test_places_keep_equal_keys_of_two_dictionaries_apart(kind: type[Protection]) -> None:
    one = LocalDict[int](protection=kind(KEY, place="one/"))
    other = LocalDict[int](protection=kind(KEY, place="other/"))
    one["a"] = 1
    other.raw["a"] = one.raw["a"]
    with pytest.raises(ProtectionError):
        other["a"]


def test_a_sub_dictionary_and_its_parent_read_each_other(kind: type[Protection]) -> None:
    d = LocalDict[int](protection=kind(KEY))
    d["g", "h", "a"] = 1
    sub = d.get_subdict(("g", "h"))
    sub["b"] = 2
    assert (sub["a"], d["g", "h", "b"]) == (1, 2)
    assert type(sub)(**sub.get_params())["a"] == 1


def test_the_first_key_writes_and_all_read(kind: type[Protection]) -> None:
    old = LocalDict[int](protection=kind(KEY))
    old["a"] = 1
    new = LocalDict[int](backend=old.backend, protection=kind([OTHER_KEY, KEY]))
    new["b"] = 2
    assert (new["a"], new["b"]) == (1, 2)
    assert old["a"] == 1
    with pytest.raises(ProtectionError, match="none of those given"):
        old["b"]


def test_nothing_of_an_encrypted_value_can_be_seen_in_what_is_stored() -> None:
    d = LocalDict[str](protection=Encrypted(KEY))
    d["a"] = "attack at dawn"
    assert b"dawn" not in d.raw["a"]


def test_equal_values_are_encrypted_differently_each_time() -> None:
    d = LocalDict[str](protection=Encrypted(KEY))
    d["a"] = "attack at dawn"
    first = d.raw["a"]
    d["a"] = "attack at dawn"
    assert d.raw["a"] != first


@pytest.mark.parametrize(
    "function", [repr, str, lambda d: repr(d.protection), dumpjs, pickle.dumps]
)
def test_a_key_given_as_bytes_shows_nowhere(
    kind: type[Protection], tmp_path: Path, function: Callable[[Any], Any]
) -> None:
    key = secrets.token_hex(32).encode()
    d = in_files(tmp_path, kind(key))
    d["a"] = 1
    d["a"]
    try:
        shown = function(d)
    except TypeError as error:
        shown = str(error)
    assert key not in (shown if isinstance(shown, bytes) else shown.encode())


def test_a_handle_that_was_given_a_key_as_bytes_refuses_to_be_pickled_and_says_what_to_do(
    kind: type[Protection], tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match="KeyFromEnvironment"):
        pickle.dumps(in_files(tmp_path, kind(KEY)))


def test_a_key_from_the_environment_is_in_no_pickle_and_found_where_it_is_unpickled(
    kind: type[Protection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = secrets.token_hex(32)
    monkeypatch.setenv("ARCHIVE_KEY", key)
    d = in_files(tmp_path, kind(KeyFromEnvironment("ARCHIVE_KEY")))
    d["a"] = 1
    pickled = pickle.dumps(d)
    assert key.encode() not in pickled
    assert pickle.loads(pickled)["a"] == 1


def test_a_missing_variable_is_named(kind: type[Protection], tmp_path: Path) -> None:
    d = in_files(tmp_path, kind(KeyFromEnvironment("NO_SUCH_KEY")))
    with pytest.raises(LookupError, match="NO_SUCH_KEY"):
        d["a"] = 1
    assert "a" not in d


def test_a_function_gives_the_key_once(kind: type[Protection]) -> None:
    asked = []

    def key() -> bytes:
        asked.append(1)
        return KEY

    d = LocalDict[int](protection=kind(key))
    assert asked == []
    d["a"] = 1
    d["b"] = d["a"]
    assert asked == [1]


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ("k" * 32, TypeError),
        (b"k" * 31, ValueError),
        ([], ValueError),
        ([KEY, "k" * 32], TypeError),
        (None, TypeError),
    ],
    ids=repr,
)
def test_what_is_no_key_is_refused(kind: Any, keys: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="key"):
        kind(keys)


def test_what_a_function_gives_is_checked(kind: Any) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        LocalDict(protection=kind(lambda: b"short"))["a"] = 1


@pytest.mark.parametrize("protection", [KEY, "signed", Signed], ids=repr)
def test_what_is_no_protection_is_refused(protection: Any) -> None:
    with pytest.raises(TypeError, match="protection must be"):
        LocalDict(protection=protection)


def test_the_library_that_encrypts_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(MissingExtraError, match=r"persidict\[encryption\]"):
        Encrypted(KEY)


def test_protected_bytes_are_opened_only_by_their_own_kind() -> None:
    sealed = Signed(KEY).protect(b"data", ("a",), "pkl")
    with pytest.raises(NotProtected):
        Encrypted(KEY).check(sealed, ("a",), "pkl")


def test_copying_to_another_key_place_protects_anew(kind: type[Protection]) -> None:
    source = LocalDict[int](protection=kind(KEY))
    target = LocalDict[int](protection=kind(OTHER_KEY))
    source.update({"a": 1, "b": 2})
    copy_items(source, target)
    assert target == {"a": 1, "b": 2}


def test_copying_to_a_plain_dictionary_takes_the_protection_off(kind: type[Protection]) -> None:
    source, target = LocalDict[int](protection=kind(KEY)), LocalDict[int]()
    source["a"] = 1
    copy_items(source, target)
    assert target["a"] == 1


def test_a_sync_replaces_what_was_tampered_with_and_nothing_else(kind: type[Protection]) -> None:
    source, target = LocalDict[int](), LocalDict[int](protection=kind(KEY))
    source.update({"a": 1, "b": 2})
    sync_items(source, target)
    target.raw["a"] = pickle.dumps(1)
    assert [key.strings for key in sync_items(source, target).copied] == [("a",)]
    assert target["a"] == 1
