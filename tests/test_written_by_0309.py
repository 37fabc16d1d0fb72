"""What persidict 0.309.0 wrote is read item for item."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import lz4.frame
import pytest

from persidict import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    VALUE_NOT_RETRIEVED,
    ConditionalOperationResult,
    ETagValue,
    FileDirDict,
    NonEmptySafeStrTuple,
    OperationResult,
    SafeStrTuple,
)
from persidict.codecs import codec_for
from tests.fixtures_0309 import (
    DATA,
    WrittenDirectory,
    WrittenItem,
    WrittenPrefix,
    WrittenStore,
    all_items,
    directories,
    equal,
    prefixes,
)

every_item = pytest.mark.parametrize(
    ("store", "item"),
    [
        pytest.param(store, item, id=f"{store.name}:{'/'.join(item.key)[:20]}")
        for store, item in all_items()
    ],
)
every_directory = pytest.mark.parametrize(
    "store", [pytest.param(store, id=store.name) for store in directories()]
)


def test_the_manifest_accounts_for_every_file() -> None:
    listed = {item.path for _, item in all_items()} | {DATA / "MANIFEST.json"}
    found = {Path(directory, name) for directory, _, names in os.walk(DATA) for name in names}
    assert found == listed


@every_item
def test_the_codec_decodes_what_was_stored(store: WrittenStore, item: WrittenItem) -> None:
    codec = codec_for(store.serialization_format, value_class=store.base_class_for_values)
    assert equal(codec.decode(item.path.read_bytes()), item.expected_value())


@pytest.mark.parametrize(
    ("store", "item"),
    [
        pytest.param(store, item, id=f"{store.name}:{'/'.join(item.key)[:20]}")
        for store, item in all_items()
        if store.serialization_format != "pkl" and item.kind in ("literal", "datetime", "decimal")
    ],
)
def test_the_codec_writes_the_same_text(store: WrittenStore, item: WrittenItem) -> None:
    codec = codec_for(store.serialization_format, value_class=store.base_class_for_values)
    assert codec.encode(item.expected_value()) == item.path.read_bytes()


@pytest.mark.parametrize("store", [pytest.param(store, id=store.name) for store in prefixes()])
def test_objects_have_the_content_type_of_their_codec(store: WrittenPrefix) -> None:
    content_type = codec_for(store.serialization_format).content_type
    assert {written.content_type for written in store.objects} == {content_type}


def handle_on(store: WrittenDirectory, base_dir: Path) -> FileDirDict:
    """Open a copy of a store, with the parameters that it was written with."""
    shutil.copytree(store.directory, base_dir)
    return FileDirDict(
        base_dir=str(base_dir),
        serialization_format=store.serialization_format,
        digest_len=store.digest_len,
        base_class_for_values=store.base_class_for_values,
    )


@every_directory
def test_a_file_dir_dict_lists_exactly_the_keys_that_were_stored(
    store: WrittenDirectory, tmp_path: Path
) -> None:
    d = handle_on(store, tmp_path / "store")
    assert sorted(d) == sorted(item.key for item in store.items)


@every_directory
def test_a_file_dir_dict_reads_every_value_that_was_stored(
    store: WrittenDirectory, tmp_path: Path
) -> None:
    d = handle_on(store, tmp_path / "store")
    wrong = [item.key for item in store.items if not equal(d[item.key], item.expected_value())]
    assert wrong == []


@every_directory
def test_a_file_dir_dict_replaces_what_was_stored_in_the_same_files(
    store: WrittenDirectory, tmp_path: Path
) -> None:
    d = handle_on(store, tmp_path / "store")
    before = sorted(tmp_path.rglob("*"))
    for item in store.items:
        d[item.key] = d[item.key]
    assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------------- keys inside values

HELD = DATA.parent / "persidict-0.309-keys"
ETAG_1, ETAG_2, ETAG_3 = map(ETagValue, ("e1", "e2", "e3"))

HELD_VALUES: dict[str, Any] = {
    "empty": SafeStrTuple(),
    "key": NonEmptySafeStrTuple("a", "b"),
    "flags": [
        ITEM_NOT_AVAILABLE,
        KEEP_CURRENT,
        DELETE_CURRENT,
        ETAG_IS_THE_SAME,
        ETAG_HAS_CHANGED,
        ANY_ETAG,
        ALWAYS_RETRIEVE,
        NEVER_RETRIEVE,
        IF_ETAG_CHANGED,
        VALUE_NOT_RETRIEVED,
    ],
    "results": [
        ConditionalOperationResult(True, ETAG_1, ETAG_2, [1]),
        OperationResult(ETAG_3, {"n": NonEmptySafeStrTuple("k")}),
    ],
    "refs": {
        "refs": [SafeStrTuple("x"), NonEmptySafeStrTuple("y", "z")],
        "by": {"k": NonEmptySafeStrTuple("q")},
    },
}
"""What 0.309 stored under ``held``, as its manifest words it."""

every_held_value = pytest.mark.parametrize("name", list(HELD_VALUES))


def held(serialization_format: str, place: Path) -> FileDirDict[Any]:
    """Open a copy of what 0.309 wrote."""
    shutil.copytree(HELD / serialization_format, place / serialization_format)
    return FileDirDict(
        base_dir=place / serialization_format, serialization_format=serialization_format
    )


@every_held_value
@pytest.mark.parametrize("serialization_format", ["pkl", "json"])
def test_keys_flags_and_results_inside_values_read_back(
    name: str, serialization_format: str, tmp_path: Path
) -> None:
    found = held(serialization_format, tmp_path)["held", name]
    assert (type(found), found) == (type(HELD_VALUES[name]), HELD_VALUES[name])


@pytest.mark.parametrize("serialization_format", ["pkl", "json"])
def test_flags_inside_values_are_the_flags_themselves(
    serialization_format: str, tmp_path: Path
) -> None:
    found = held(serialization_format, tmp_path)["held", "flags"]
    assert [one is other for one, other in zip(found, HELD_VALUES["flags"], strict=True)] == [
        True
    ] * len(found)


def test_a_traceback_inside_a_crash_report_reads_back_as_0309_read_it(tmp_path: Path) -> None:
    assert held("json", tmp_path)["held", "crash"] == {
        "value": "division by zero",
        "trace_back": {"py/object": "builtins.traceback"},
    }


@every_held_value
def test_keys_flags_and_results_inside_values_are_written_as_the_same_json(name: str) -> None:
    [path] = HELD.glob(f"json/held_*/{name}_*.json")
    assert codec_for("json").encode(HELD_VALUES[name]) == path.read_bytes()


@pytest.mark.parametrize("name", ["empty", "key", "refs", "results"])
def test_keys_and_results_inside_values_are_pickled_as_the_same_steps(name: str) -> None:
    [path] = HELD.glob(f"pkl/held_*/{name}_*.pkl")
    theirs = lz4.frame.decompress(path.read_bytes())
    assert pickle.dumps(HELD_VALUES[name], 4) == theirs


def test_a_pickled_flag_is_its_class_called_without_arguments() -> None:
    assert [
        pickle.loads(pickle.dumps(HELD_VALUES["flags"], protocol)) for protocol in range(6)
    ] == [HELD_VALUES["flags"]] * 6
