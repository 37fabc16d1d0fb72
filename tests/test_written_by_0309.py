"""What persidict 0.309.0 wrote is read item for item."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from persidict import FileDirDict
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
