"""The formats npy, parquet, h5, plainjson and bytes, and codecs that are handed to a dictionary."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import io
import json
import multiprocessing
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from persidict import BackendError, FileDirDict, LocalDict
from persidict.codecs import BytesCodec, Codec, MissingExtraError, codec_for


class Backwards(Codec):
    """Bytes, the last one first; registered nowhere."""

    def encode(self, value: Any) -> bytes:
        return bytes(value[::-1])

    def decode(self, data: Any) -> bytes:
        return bytes(data)[::-1]


@dataclasses.dataclass
class Visit:
    page: str
    when: datetime.datetime
    marks: tuple[int, ...] = ()
    weight: float = 1.0


class Model(BaseModel):
    name: str
    inner: list[Visit]


class Point(TypedDict):
    x: int
    y: float


class NotForJson:
    pass


NOON = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)


def ram(serialization_format: str, **params: Any) -> LocalDict[Any]:
    return LocalDict(serialization_format=serialization_format, **params)


# ---------------------------------------------------------------------- npy


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array(1.5),
        np.zeros((0, 3)),
        np.array([1 + 2j]),
        np.array(["a", "été"]),
        np.array(["2026-05-01"], dtype="datetime64[D]"),
        np.array([(1, 2.0)], dtype=[("n", "i4"), ("x", "f8")]),
        np.arange(10)[::-2],
        np.zeros(2, dtype=[(f"field {number}", "f8") for number in range(1000)]),
        np.random.default_rng(0).random((300, 1000)),
    ],
    ids=lambda array: f"{array.dtype}"[:40] + f"{array.shape}",
)
def test_npy_gives_the_array_back(array: np.ndarray[Any, Any]) -> None:
    d = ram("npy")
    d["a"] = array
    found = d["a"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert (found == array).all()
    assert found.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        1.5,
        np.float64(1),
        np.array([object()]),
        np.ma.array([1, 2], mask=[0, 1]),
        np.zeros(2, dtype=np.dtype("i4", metadata={"unit": "m"})),
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_npy_refuses_what_it_cannot_give_back(value: Any) -> None:
    d = ram("npy")
    with pytest.raises(TypeError, match="npy"):
        d["a"] = value
    assert "a" not in d


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_array_that_is_announced_and_not_there_is_refused_before_it_takes_memory(
    version: tuple[int, int],
) -> None:
    stream = io.BytesIO()
    array = np.lib.stride_tricks.as_strided(np.zeros(1), (1 << 40,), (0,))
    header = np.lib.format.header_data_from_array_1_0(array) | {"fortran_order": False}
    write = (
        np.lib.format.write_array_header_1_0
        if version == (1, 0)
        else np.lib.format.write_array_header_2_0
    )
    write(stream, header)
    d = ram("npy")
    d.raw["a"] = stream.getvalue() + b"12345678"
    with pytest.raises(BackendError, match="are there"):
        d["a"]


def test_npy_files_are_mapped_into_memory_by_numpy(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path, serialization_format="npy")
    d["a"] = np.arange(5)
    (file,) = tmp_path.glob("*.npy")
    assert isinstance(np.load(file, mmap_mode="r"), np.memmap)


def test_npy_runs_no_pickle_that_was_put_in_its_place() -> None:
    d = ram("npy")
    stream_of_objects = io.BytesIO()
    np.save(stream_of_objects, np.array([object()]), allow_pickle=True)
    d.raw["a"] = stream_of_objects.getvalue()
    with pytest.raises(BackendError, match="allow_pickle"):
        d["a"]


# ---------------------------------------------------------------------- parquet


def test_parquet_gives_a_pandas_frame_back_with_its_index() -> None:
    d = ram("parquet")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.Index([5, 7], name="n"))
    d["a"] = frame
    pd.testing.assert_frame_equal(d["a"], frame)


def test_parquet_gives_a_polars_frame_back() -> None:
    d = ram("parquet")
    frame = pl.DataFrame({"a": [1, 2], "c": [[1], [2, 3]]})
    d["a"] = frame
    assert isinstance(d["a"], pl.DataFrame)
    assert d["a"].equals(frame)


def test_parquet_gives_a_pyarrow_table_back() -> None:
    d = ram("parquet")
    table = pa.table({"a": [1, 2]}, metadata={"unit": "m"})
    d["a"] = table
    assert d["a"].equals(table, check_metadata=True)


@pytest.mark.parametrize("table_class", [pd.DataFrame, pl.DataFrame, pa.Table])
def test_parquet_reads_what_another_library_wrote_as_the_class_that_is_wanted(
    table_class: type,
) -> None:
    writer = ram("parquet")
    writer["a"] = pd.DataFrame({"a": [1, 2]})
    reader = LocalDict[Any](
        backend=writer.backend, serialization_format="parquet", base_class_for_values=table_class
    )
    assert isinstance(reader["a"], table_class)


@pytest.mark.parametrize("value", [{"a": [1]}, [1], pd.Series([1])], ids=lambda v: type(v).__name__)
def test_parquet_refuses_what_is_no_table(value: Any) -> None:
    with pytest.raises(TypeError, match="parquet holds"):
        ram("parquet")["a"] = value


PARQUET_CANNOT: dict[str, tuple[Any, str]] = {
    "bool names": (pd.DataFrame({True: [1], False: [2]}), "column False"),
    "mixed names": (pd.DataFrame({1: [1], "a": [2]}), "column 1"),
    "tuple name": (pd.DataFrame({("a", "b"): [1], "c": [2]}), r"column \('a', 'b'\)"),
    "empty name": (pl.DataFrame({"a": [1], "": [2]}), "column ''"),
    "objects": (pl.DataFrame({"a": [object()]}), "objects: column 'a'"),
    "equal names": (pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"]), "'a'"),
    "no columns": (pa.table({"a": [1, 2]}).select([]), "rows without columns"),
}


@pytest.mark.filterwarnings("ignore:The DataFrame has column names of mixed type")
@pytest.mark.parametrize("name", PARQUET_CANNOT)
def test_parquet_refuses_columns_that_would_come_back_as_others(name: str) -> None:
    value, named = PARQUET_CANNOT[name]
    d = ram("parquet")
    with pytest.raises((TypeError, ValueError), match=named):
        d["a"] = value
    assert "a" not in d


@pytest.mark.parametrize(
    "columns",
    [[1, 2], [1.5, float("nan")], pd.to_datetime(["2026", "2027"]), [("a", 1), ("b", 2)]],
    ids=["int", "float", "date", "tuple"],
)
def test_parquet_gives_names_of_one_class_back(columns: Any) -> None:
    d = ram("parquet")
    d["a"] = pd.DataFrame([[1, 2]], columns=pd.Index(columns))
    assert repr(list(d["a"].columns)) == repr(list(pd.Index(columns)))


# ---------------------------------------------------------------------- h5

H5_VALUES: list[Any] = [
    {"weights": np.arange(3), "deep": {"bias": np.ones((2, 2), dtype="f4")}},
    (np.arange(2), [np.zeros(3), 1.5], {}),
    np.array(7.0),
    np.float32(3),
    {"a/b": 1, ".": 2, "..": 3, "": 4, "%": 5, "%2F": 6, "é": 7, "z": True, "a": None},
    [],
    (),
    "text",
    2**63,
    -(2**63),
    1 + 2j,
    [np.bytes_(b"ab"), np.array(b"ab"), np.array(b"")],
    {"\ud800": 1},
    {str(number): np.full(2, number) for number in range(30)},
]


@pytest.mark.parametrize("value", H5_VALUES, ids=range(len(H5_VALUES)))
def test_h5_gives_back_what_it_was_given_in_its_order(value: Any) -> None:
    d = ram("h5")
    d["a"] = value
    assert repr(d["a"]) == repr(value)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({1: 2}, "value has the key 1"),
        ({"a": [1, {2}]}, r"value\['a'\]\[1\]"),
        (np.array(["é"]), "value"),
        (np.array([object()]), "value"),
        (b"bytes", "value"),
        (2**64, "value"),
        ({"a": "x\0"}, r"value\['a'\]"),
        (np.ma.array([1]), "value"),
        ({"a": "\ud800"}, r"surrogates in a text: value\['a'\]"),
        ([np.zeros(2, dtype=[])], r"value\[0\]"),
        ([np.zeros(2, dtype=[("day", "M8[D]")])], r"value\[0\]"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_h5_says_where_it_met_what_it_cannot_hold(value: Any, where: str) -> None:
    d = ram("h5")
    with pytest.raises((TypeError, ValueError), match=where):
        d["a"] = value
    assert "a" not in d


def test_h5_reads_files_of_other_programs_as_dicts() -> None:
    import h5py  # type: ignore[import-untyped]

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_group("g")["x"] = np.arange(3)
        file["n"] = 5
    d = ram("h5")
    d.raw["a"] = stream.getvalue()
    assert repr(d["a"]) == repr({"g": {"x": np.arange(3)}, "n": np.array(5)})


def _external_data(file: Any, other: Path) -> None:
    file.create_dataset("x", shape=(4,), dtype="u1", external=[(str(other), 0, 4)])


def _virtual_data(file: Any, other: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout(shape=(4,), dtype="u1")
    layout[:] = h5py.VirtualSource(str(other), "x", shape=(4,))
    file.create_virtual_dataset("x", layout)


def _external_link(file: Any, other: Path) -> None:
    import h5py

    file["x"] = h5py.ExternalLink(str(other), "/x")


@pytest.mark.parametrize("refer", [_external_data, _virtual_data, _external_link])
def test_h5_opens_no_other_file_that_an_item_names(
    refer: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    import h5py

    other = tmp_path / "other"
    other.write_bytes(b"mine")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        refer(file, other)
    d = ram("h5")
    d.raw["a"] = stream.getvalue()
    with pytest.raises(BackendError, match=r"in another file|out of the file"):
        d["a"]


# ---------------------------------------------------------------------- plainjson


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "é"]}, [], "x", 5, None], ids=repr)
def test_plainjson_is_json_that_any_program_reads(value: Any) -> None:
    d = ram("plainjson")
    d["a"] = value
    assert d["a"] == value
    assert json.loads(d.raw["a"]) == value


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ((1, 2), "use a list"),
        ({"a": [{1: 2}]}, r"value\['a'\]\[0\] has the key 1"),
        (float("nan"), "nan"),
        ([float("inf")], "inf"),
        (b"bytes", "bytes"),
        (np.float64(1), "float64"),
        (NOON, "datetime"),
        ("\ud800", "surrogates"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_plainjson_refuses_what_would_come_back_as_something_else(value: Any, where: str) -> None:
    d = ram("plainjson")
    with pytest.raises((TypeError, ValueError), match=where):
        d["a"] = value
    assert "a" not in d


def test_plainjson_refuses_what_contains_itself() -> None:
    value: list[Any] = [1]
    value.append({"again": value})
    with pytest.raises(ValueError, match="contains itself"):
        ram("plainjson")["a"] = value


def test_plainjson_takes_a_list_that_is_in_a_value_twice() -> None:
    d = ram("plainjson")
    part = [1]
    d["a"] = [part, part]
    assert d["a"] == [[1], [1]]


@pytest.mark.parametrize(
    "value",
    [
        Visit("home", NOON, (1, 2)),
        Model(name="m", inner=[Visit("home", NOON)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plainjson_gives_dataclasses_and_models_back(value: Any) -> None:
    d = ram("plainjson", base_class_for_values=type(value))
    d["a"] = value
    assert (type(d["a"]), d["a"]) == (type(value), value)


def test_plainjson_gives_typed_dicts_back() -> None:
    d = ram("plainjson", base_class_for_values=Point)
    d["a"] = Point(x=1, y=2.0)
    assert d["a"] == {"x": 1, "y": 2.0}


@pytest.mark.parametrize(
    "value",
    [Visit(5, NOON), Visit("home", NOON, weight=float("nan"))],  # type: ignore[arg-type]
    ids=["wrong type", "nan"],
)
def test_plainjson_refuses_a_dataclass_whose_fields_are_not_as_it_says(value: Any) -> None:
    d = ram("plainjson", base_class_for_values=Visit)
    with pytest.raises(ValueError, match=r"int|nan"):
        d["a"] = value
    assert "a" not in d


@dataclasses.dataclass
class LongVisit(Visit):
    seconds: int = 0


@dataclasses.dataclass
class Anything:
    what: Any
    left_out: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass
class Grid:
    cells: dict[tuple[int, int], str]


@dataclasses.dataclass(eq=False)
class Untold:
    numbers: list[int]


def changed(value: Anything) -> Anything:
    value.left_out = 5
    return value


@pytest.mark.parametrize(
    ("value_class", "value", "where"),
    [
        (Visit, LongVisit("home", NOON, seconds=3), "than value:"),
        (Model, Model(name="m", inner=[LongVisit("home", NOON)]), r"value\['inner'\]\[0\]"),
        (Anything, Anything({"a": (1, 2)}), r"value\['what'\]\['a'\]"),
        (Anything, Anything(NOON), r"value\['what'\]"),
        (Anything, Anything(float("nan")), r"value\['what'\]"),
        (Anything, changed(Anything(1)), r"value\['left_out'\]"),
        (Grid, Grid({(1, 2): "x"}), "read this value again"),
    ],
    ids=["class", "class inside", "tuple", "datetime", "nan", "no argument", "keys"],
)
def test_plainjson_refuses_an_object_that_would_come_back_as_another(
    value_class: type, value: Any, where: str
) -> None:
    d = ram("plainjson", base_class_for_values=value_class)
    with pytest.raises((TypeError, ValueError), match=where):
        d["a"] = value
    assert "a" not in d


def test_plainjson_takes_objects_that_are_equal_to_themselves_only() -> None:
    d = ram("plainjson", base_class_for_values=Untold)
    d["a"] = Untold([1, 2])
    assert d["a"].numbers == [1, 2]


def test_plainjson_refuses_stored_text_that_does_not_fit_the_class() -> None:
    d = ram("plainjson", base_class_for_values=Visit)
    d.raw["a"] = b'{"page": 5}'
    with pytest.raises(BackendError, match="page"):
        d["a"]


def test_plainjson_makes_no_object_of_what_would_be_one_for_jsonpickle() -> None:
    d = ram("plainjson")
    text = b'{"py/object": "os.system"}'
    d.raw["a"] = text
    assert d["a"] == {"py/object": "os.system"}


def test_plainjson_refuses_a_class_that_it_knows_nothing_of() -> None:
    with pytest.raises(TypeError, match="NotForJson"):
        ram("plainjson", base_class_for_values=NotForJson)


# ---------------------------------------------------------------------- bytes


@pytest.mark.parametrize("name", ["png", "bin", "npy", "h5", "parquet"])
def test_bytes_are_stored_as_they_are_under_any_extension(tmp_path: Path, name: str) -> None:
    d = FileDirDict(base_dir=tmp_path, serialization_format=name, base_class_for_values=bytes)
    d["a"] = b"\x89PNG\0"
    assert d["a"] == b"\x89PNG\0"
    assert next(tmp_path.glob(f"*.{name}")).read_bytes() == b"\x89PNG\0"


def test_a_dictionary_of_bytes_refuses_texts(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path, serialization_format="png", base_class_for_values=bytes)
    with pytest.raises(TypeError, match="bytes"):
        d["a"] = "text"


# ---------------------------------------------------------------------- wrong names


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("pickle", "pkl"),
        ("JSON", "json"),
        (".pkl", "pkl"),
        ("joblib", "pkl"),
        ("numpy", "npy"),
        ("hdf5", "h5"),
        ("Parquet", "parquet"),
        ("feather", "parquet"),
        ("parqet", "parquet"),
    ],
)
def test_a_wrong_name_of_a_format_gets_an_error_that_says_what_was_meant(
    written: str, meant: str
) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
        ram(written)


@pytest.mark.parametrize(
    ("name", "library", "extra", "value_class"),
    [
        ("parquet", "pyarrow", "parquet", None),
        ("h5", "h5py", "h5", None),
        ("npy", "numpy", "numpy", None),
        ("plainjson", "pydantic", "plainjson", Visit),
    ],
)
def test_a_library_that_a_format_needs_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str, value_class: Any
) -> None:
    monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.setattr("persidict.codecs.codec.find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=rf"needs {library}.*persidict\[{extra}\]"):
        ram(name, base_class_for_values=value_class)


# ---------------------------------------------------------------------- codec=


def test_a_codec_that_is_handed_in_needs_no_registration(tmp_path: Path) -> None:
    d = FileDirDict[bytes](base_dir=tmp_path, serialization_format="rev", codec=Backwards())
    d["a"] = b"abc"
    assert (d["a"], d.raw["a"]) == (b"abc", b"cba")


def read(d: FileDirDict[bytes]) -> bytes:
    return d["a"]


def test_a_codec_travels_with_the_pickled_handle_to_a_worker(tmp_path: Path) -> None:
    d = FileDirDict[bytes](base_dir=tmp_path, serialization_format="rev", codec=Backwards())
    d["a"] = b"abc"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read, (d,)) == b"abc"


def test_copies_subdicts_and_handles_made_of_the_parameters_have_the_codec() -> None:
    d = ram("rev", codec=Backwards())
    d["g", "a"] = b"abc"
    assert d.get_subdict("g")["a"] == b"abc"
    assert type(d)(**d.get_params()) == d
    assert copy.copy(d)["g", "a"] == b"abc"


@pytest.mark.parametrize("name", ["pkl", "json"])
def test_a_codec_cannot_write_under_the_name_of_another_format(name: str) -> None:
    with pytest.raises(ValueError, match="serialization_format"):
        ram(name, codec=Backwards())


def test_a_pickle_codec_of_ones_own_settings_writes_pkl() -> None:
    d = ram("pkl", codec=codec_for("pkl", compress=True))
    d["a"] = "x" * 100_000
    assert len(d.raw["a"]) < 10_000
    assert d["a"] == "x" * 100_000


@pytest.mark.parametrize("codec", [Backwards, "pickle", pickle], ids=repr)
def test_what_is_no_codec_is_refused(codec: Any) -> None:
    with pytest.raises(TypeError, match="codec must be"):
        ram("rev", codec=codec)


class ToText(Backwards):
    """A codec that is wrong: it encodes to a text."""

    def encode(self, value: Any) -> Any:
        return "text"


@pytest.mark.parametrize("kind", ["RAM", "files"])
def test_a_codec_that_does_not_encode_to_bytes_is_named(kind: str, tmp_path: Path) -> None:
    params: dict[str, Any] = {"serialization_format": "rev", "codec": ToText()}
    d: Any = LocalDict(**params) if kind == "RAM" else FileDirDict(base_dir=tmp_path, **params)
    for write in (
        lambda: d.__setitem__("a", b"x"),
        lambda: d.setdefault("a", b"x"),
        lambda: d.update(a=b"x"),
    ):
        with pytest.raises(TypeError, match="codec ToText must encode to bytes, not to str"):
            write()
    assert len(d) == 0


def test_a_dictionary_without_codec_or_protection_shows_neither() -> None:
    params = ram("pkl").get_params()
    assert {"codec", "protection"} & params.keys() == set()


def test_bytes_codec_can_be_handed_in(tmp_path: Path) -> None:
    d = FileDirDict[bytes](base_dir=tmp_path, serialization_format="zip", codec=BytesCodec())
    d["a"] = b"PK"
    assert d["a"] == b"PK"


# ---------------------------------------------------------------------- of another class


@dataclasses.dataclass
class Inner:
    x: int


@dataclasses.dataclass
class MoreInner(Inner):
    """A subclass without fields of its own."""


@dataclasses.dataclass
class Outer:
    inner: Inner
    anything: object = None
    several: dict[str, list[Inner]] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (Outer(MoreInner(1)), "value.inner"),
        (Outer(Inner(1), anything=Inner(1)), "value.anything"),
        (Outer(Inner(1), several={"a": [Inner(1), MoreInner(2)]}), r"value.several\['a'\]\[1\]"),
    ],
    ids=["subclass", "object", "deep"],
)
def test_plainjson_refuses_an_object_inside_that_would_come_back_as_another_class(
    value: Outer, where: str
) -> None:
    d: LocalDict[Any] = LocalDict(serialization_format="plainjson", base_class_for_values=Outer)
    with pytest.raises(TypeError, match=where):
        d["a"] = value
    d["a"] = Outer(Inner(1), several={"a": [Inner(2)]})
    assert d["a"] == Outer(Inner(1), several={"a": [Inner(2)]})


def test_parquet_refuses_sets_which_would_come_back_as_lists() -> None:
    d: LocalDict[Any] = LocalDict(serialization_format="parquet")
    with pytest.raises(TypeError, match="sets: column 'a'"):
        d["a"] = pd.DataFrame({"b": [1], "a": [{1, 2}]})
