"""The stores that persidict 0.309.0 wrote, as `data/persidict-0.309/MANIFEST.json` lists them.

numpy and pandas are imported only for the values that are made of them.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.safe_str_tuple_signing import sign_safe_str_tuple

DATA = Path(__file__).parent / "data" / "persidict-0.309"


@dataclass(frozen=True)
class WrittenItem:
    """One item: its key, its bytes, and a description of its value."""

    key: NonEmptySafeStrTuple
    path: Path
    """The file that holds the bytes, for an object on S3, too."""
    description: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.description["kind"])

    def expected_value(self) -> Any:
        """Build the value that was stored, anew for each call."""
        return build_value(self.description)


@dataclass(frozen=True)
class WrittenStore:
    """A dictionary as it was left behind."""

    name: str
    serialization_format: str
    base_class_for_values: type | None
    items: tuple[WrittenItem, ...]


@dataclass(frozen=True)
class WrittenDirectory(WrittenStore):
    """A FileDirDict's `base_dir`."""

    directory: Path
    digest_len: int


@dataclass(frozen=True)
class WrittenObject:
    """An object on S3."""

    name: str
    path: Path
    content_type: str


@dataclass(frozen=True)
class WrittenPrefix(WrittenStore):
    """A BasicS3Dict's `root_prefix`, and the objects below it in `items`' order."""

    root_prefix: str
    objects: tuple[WrittenObject, ...]


def directories() -> list[WrittenDirectory]:
    """Return the stores of FileDirDict."""
    return [_directory(store) for store in _manifest() if store["store"] == "files"]


def prefixes() -> list[WrittenPrefix]:
    """Return the stores of BasicS3Dict."""
    return [_prefix(store) for store in _manifest() if store["store"] == "s3"]


def all_items() -> Iterator[tuple[WrittenStore, WrittenItem]]:
    """Iterate over the items of all stores."""
    for store in (*directories(), *prefixes()):
        for item in store.items:
            yield store, item


def build_value(description: dict[str, Any]) -> Any:
    """Build the value that an entry of the manifest describes."""
    kind = description["kind"]
    if kind == "literal":
        return ast.literal_eval(description["python"])
    if kind == "datetime":
        return datetime.datetime.fromisoformat(description["iso"])
    if kind == "decimal":
        return decimal.Decimal(description["str"])
    if kind == "dict":
        return {name: build_value(part) for name, part in description["items"].items()}
    if kind == "ndarray":
        return _array(description)
    if kind == "dataframe":
        import pandas as pd

        return pd.DataFrame(description["columns"])
    raise ValueError(f"the manifest has an unknown kind of value: {kind}")


def equal(actual: Any, expected: Any) -> bool:
    """Compare two values by type and content, arrays and data frames included."""
    if type(actual) is not type(expected):
        return False
    if isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(
            equal(actual[name], value) for name, value in expected.items()
        )
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(expected, numpy.ndarray):
        return (
            actual.dtype == expected.dtype
            and actual.shape == expected.shape
            and actual.flags.f_contiguous == expected.flags.f_contiguous
            and bool(numpy.array_equal(actual, expected))
        )
    if pandas is not None and isinstance(expected, pandas.DataFrame):
        # The type of a column of strings depends on pandas' version and on the format
        return bool(
            actual.to_dict("list") == expected.to_dict("list")
            and list(actual.index) == list(expected.index)
        )
    return bool(actual == expected)


def _manifest() -> list[dict[str, Any]]:
    text = (DATA / "MANIFEST.json").read_text(encoding="utf-8")
    stores: list[dict[str, Any]] = json.loads(text)["stores"]
    return stores


def _directory(store: dict[str, Any]) -> WrittenDirectory:
    directory = DATA / store["dir"]

    def path_of(key: NonEmptySafeStrTuple) -> Path:
        signed = sign_safe_str_tuple(key, store["digest_len"])
        *levels, last = signed.strings
        return directory.joinpath(*levels, f"{last}.{store['serialization_format']}")

    return WrittenDirectory(
        name=store["dir"],
        serialization_format=store["serialization_format"],
        base_class_for_values=_base_class(store),
        items=tuple(
            WrittenItem(key, path_of(key), item["value"])
            for item in store["items"]
            for key in [NonEmptySafeStrTuple(*item["key"])]
        ),
        directory=directory,
        digest_len=store["digest_len"],
    )


def _prefix(store: dict[str, Any]) -> WrittenPrefix:
    by_name = {
        entry["name"]: WrittenObject(entry["name"], DATA / entry["file"], entry["content_type"])
        for entry in store["objects"]
    }
    keys = [NonEmptySafeStrTuple(*item["key"]) for item in store["items"]]
    objects = tuple(
        by_name[f"{store['root_prefix']}/{'/'.join(key)}.{store['serialization_format']}"]
        for key in keys
    )
    return WrittenPrefix(
        name=f"s3-{store['serialization_format']}",
        serialization_format=store["serialization_format"],
        base_class_for_values=_base_class(store),
        items=tuple(
            WrittenItem(key, written.path, item["value"])
            for key, written, item in zip(keys, objects, store["items"], strict=True)
        ),
        root_prefix=store["root_prefix"],
        objects=objects,
    )


def _base_class(store: dict[str, Any]) -> type | None:
    return {None: None, "str": str}[store["base_class_for_values"]]


def _array(description: dict[str, Any]) -> Any:
    import numpy as np

    data = description["data"]
    shape = description["shape"]
    flat = np.arange(np.prod(shape)) if data == "arange" else np.array(data)
    array = flat.astype(description["dtype"]).reshape(shape)
    return np.asfortranarray(array) if description["fortran"] else array
