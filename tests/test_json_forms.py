"""The format json: what comes back as it was, what does not and is said, and what is refused."""

from __future__ import annotations

import collections
import datetime
import enum
import functools
import io
import json
import pickle
import queue
import re
import sqlite3
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jsonpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from persidict import FileDirDict, LossyValueWarning
from tests.codec_cases import JSON


class Text(str):
    """A str with attributes."""


class Bytes(bytearray):
    """A bytearray of another class."""


class Slots:
    __slots__ = ("first",)


class SlotsAndMore(Slots):
    """Has attributes in slots and in a dict."""

    def __init__(self) -> None:
        self.first = [1]
        self.second = self.first


class SlotsTwice(Slots):
    """Has a slot of the name that its base has, too."""

    __slots__ = ("first", "second")

    def __init__(self) -> None:
        self.first = [1]
        self.second = self.first


class Color(enum.StrEnum):
    """Texts that have names."""

    RED = "red"


class Items(dict[Any, Any]):
    """A dict of another class."""


class Countdown:
    """An iterator that is an object like any other."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not self.count:
            raise StopIteration
        self.count -= 1
        return self.count


class WithCode(Exception):
    """An exception whose constructor takes other arguments than it keeps."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Mine(np.ndarray):
    """A subclass of numpy's array."""


def made(kind: type, *args: Any, **attributes: Any) -> Any:
    value = kind(*args)
    vars(value).update(attributes)
    return value


def in_order(value: Any) -> Any:
    """Return something that is equal only if dicts have their items in the same order."""
    return pickle.dumps(pickle.loads(pickle.dumps(value)))


def back_from_json(value: Any) -> Any:
    """Write and read a value; what is lost must not go unsaid."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", LossyValueWarning)
        return JSON.decode(JSON.encode(value))


SHARED = [1]

EXACT: dict[str, Any] = {
    "str subclass": made(Text, "abc", attribute=1),
    "bytearray subclass": Bytes(b"abc"),
    "slots and dict": SlotsAndMore(),
    "fold of a datetime": datetime.datetime(2024, 10, 27, 2, 30, fold=1),
    "fold with a zone": datetime.datetime(
        2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1
    ),
    "fold of a time": datetime.time(2, 30, fold=1),
    "keys of a str subclass": {"x": [1], Text("a"): SHARED, Color.RED: SHARED, "y": SHARED},
    "slots that a class and its base both have": SlotsTwice(),
    "pattern": re.compile("a.b"),
    "flags of a pattern": re.compile("a.b", re.IGNORECASE | re.DOTALL),
    "pattern of bytes": re.compile(b"a.b"),
    "inline flags": re.compile("(?i)a"),
    "mixed keys": {1: "a", "b": 2, (1, 2): 3, "c": 4, "py/object": 5, None: 6},
    "mixed keys in a subclass": Items({1: [1], "b": [2], (1, 2): [3], "c": [4]}),
    "mixed keys in an ordered dict": collections.OrderedDict({1: "a", "b": 2, 3: 4}),
    "mixed keys with shared values": {1: SHARED, "b": SHARED, 2: {3: SHARED, "c": SHARED}},
    "ellipsis": ...,
    "not implemented": NotImplemented,
    "maskless": np.arange(3),
    "0-d array": np.array(5),
    "0-d array of objects": np.array({"a": 1}, dtype=object),
    "matrix": np.matrix([[1, 2], [3, 4]]),
    "record array": np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "structured array": np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "aligned array": np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "array in an array": np.zeros(2, dtype=[("a", "i4", (2,))]),
    "array subclass": np.arange(3).view(Mine),
    "long doubles": np.array(["0.1"], dtype=np.longdouble),
    "long double": np.longdouble("0.1"),
    "scalar of a structured array": np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])[0],
    "time difference": np.timedelta64(5, "s"),
    "point in time": np.datetime64("2024-01-01T10", "h"),
    "many objects": np.array([{"a": number} for number in range(20)], dtype=object),
    "lists in an array": np.array([[1, 2], None], dtype=object),
    "many tuples": np.array([*((number,) for number in range(20)), None], dtype=object)[:20],
    "view of a matrix": np.asarray(np.matrix([[1, 2]]))[0],
    "index with a name": pd.Index([1, 2], name="n"),
    "times with a frequency": pd.date_range("2024-01-01", periods=3),
    "categories": pd.Series(["a", "b", "a"], dtype="category"),
    "missing integers": pd.DataFrame({"i": pd.array([1, None], dtype="Int64")}),
    "frame": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=pd.Index(["r", "s"], name="i")),
    "columns of two levels": pd.DataFrame({("a", "b"): [1]}),
    "frame with columns of one name": pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "period": pd.Period("2024-01"),
    "not a time": pd.NaT,
}


@pytest.mark.parametrize("name", list(EXACT))
def test_a_value_comes_back_as_it_was_in_its_order_and_class(name: str) -> None:
    value = EXACT[name]
    found = back_from_json([value])[0]
    assert type(found) is type(value)
    if isinstance(value, (pd.DataFrame, pd.Series, pd.Index)):
        kind = {pd.DataFrame: "frame", pd.Series: "series"}.get(type(value), "index")
        getattr(pd.testing, f"assert_{kind}_equal")(found, value)
        assert getattr(found, "freq", None) == getattr(value, "freq", None)
    else:
        assert in_order(found) == in_order(value)


def test_a_masked_array_comes_back_with_its_mask() -> None:
    value = np.ma.array([1, 2, 3], mask=[0, 1, 0], fill_value=7)
    found = back_from_json({"a": value})["a"]
    assert type(found) is np.ma.MaskedArray
    assert (found.tolist(), found.fill_value) == ([1, None, 3], 7)


def test_a_timestamp_comes_back_with_its_zone() -> None:
    value = pd.Timestamp("2024-01-01", tz="Europe/Berlin")
    found = back_from_json([value])[0]
    assert (type(found), found, found.tz) == (pd.Timestamp, value, value.tz)


def test_the_attributes_of_an_exception_come_back() -> None:
    found = back_from_json([WithCode("failed", 5)])[0]
    assert (type(found), found.args, found.code) == (WithCode, ("failed",), 5)


def test_an_iterator_that_is_an_object_comes_back_where_it_was() -> None:
    value = Countdown(3)
    next(value)
    found = back_from_json([value])[0]
    assert (list(found), value.count) == ([1, 0], 2)


def test_a_pyarrow_table_comes_back_and_does_not_end_the_process() -> None:
    program = """
import pyarrow as pa
from persidict.codecs import codec_for
table = pa.table({"a": [1, 2], "b": ["x", None]})
json = codec_for("json")
print(json.decode(json.encode([table]))[0].equals(table))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"True\n"), done.stderr


@pytest.mark.parametrize("name", ["DataType", "Schema", "Table", "ChunkedArray"])
def test_a_bare_object_of_compiled_code_is_read_as_a_dict_and_does_not_end_the_process(
    name: str,
) -> None:
    # as jsonpickle writes it
    program = f"""
from persidict.codecs import codec_for
found = codec_for("json").decode(b'[{{"py/object": "pyarrow.lib.{name}"}}]')
print(found)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.stdout.decode() == f"[{{'py/object': 'pyarrow.lib.{name}'}}]\n", done.stderr


def test_jsonpickle_itself_reads_what_is_written_in_our_forms() -> None:
    value = {
        "fold": EXACT["fold of a datetime"],
        "pattern": EXACT["flags of a pattern"],
        "text": EXACT["str subclass"],
        "both": EXACT["slots and dict"],
        "table": pa.table({"a": [1]}),
    }
    found = jsonpickle.decode(JSON.encode(value), keys=True)
    assert found["fold"].fold == 1
    assert found["pattern"] == value["pattern"]
    assert vars(found["text"]) == {"attribute": 1}
    assert found["both"].first is found["both"].second
    assert found["table"].equals(value["table"])


# ---------------------------------------------------------------------- said


class Local:
    """Stands for a class that cannot be imported, see below."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


Local.__qualname__ = "function.<locals>.Local"


def traceback() -> types.TracebackType:
    return types.TracebackType(None, sys._getframe(), 0, 1)


LOSSY: dict[str, tuple[Callable[[], Any], str]] = {
    "traceback": (traceback, "builtins.traceback"),
    "frame": (sys._getframe, "builtins.frame"),
    "connection": (lambda: sqlite3.connect(":memory:"), "sqlite3.Connection"),
    "memoryview": (lambda: memoryview(b"abc"), "builtins.memoryview"),
    "lock": (threading.Lock, "_thread.lock"),
    "lock of one thread": (threading.RLock, "_thread.RLock"),
    "queue": (queue.Queue, "queue.Queue"),
    "keys": (lambda: {"a": 1}.keys(), "builtins.dict_keys"),
    "local object": (lambda: Local(), "function.<locals>.Local"),
}


@pytest.mark.parametrize("name", list(LOSSY))
def test_what_does_not_come_back_warns_once_with_its_class_and_the_rest_comes_back(
    name: str,
) -> None:
    make, class_name = LOSSY[name]
    value = {"first": [1], "lost": [make(), make()], "last": (2, 3)}
    with pytest.warns(LossyValueWarning, match=re.escape(class_name)) as caught:
        data = JSON.encode(value)
    found = JSON.decode(data)
    lossy = [one for one in caught if one.category is LossyValueWarning]  # not of earlier tests
    assert [one.filename for one in lossy] == [__file__]
    assert {key: found[key] for key in ("first", "last")} == {"first": [1], "last": (2, 3)}


@pytest.mark.parametrize("name", list(LOSSY))
def test_what_would_not_come_back_at_all_is_refused_as_a_value(name: str) -> None:
    with pytest.raises(TypeError, match="json cannot hold"):
        JSON.encode(LOSSY[name][0]())


def test_a_crash_report_is_stored_and_reads_back_without_its_traceback(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, serialization_format="json")
    with pytest.warns(LossyValueWarning, match="traceback") as caught:
        d["crash"] = {"value": "division by zero", "trace_back": traceback()}
    lossy = [one for one in caught if one.category is LossyValueWarning]
    assert [one.filename for one in lossy] == [__file__]
    assert d["crash"] == {
        "value": "division by zero",
        "trace_back": {"py/object": "builtins.traceback"},
    }


def test_a_lost_object_does_not_shift_references_to_others() -> None:
    shared = ["shared"]
    value = {"a": Local(inner=shared, other=[0]), "b": traceback(), "c": shared, "d": [shared]}
    with pytest.warns(LossyValueWarning):
        data = JSON.encode(value)
    found = JSON.decode(data)
    assert found["a"]["inner"] == ["shared"]
    assert found["c"] is found["d"][0] is found["a"]["inner"]


def test_an_object_of_a_class_that_cannot_be_imported_reads_back_as_its_attributes() -> None:
    with pytest.warns(LossyValueWarning, match="Local"):
        data = JSON.encode(Local(x=1, y=[2]))
    found = JSON.decode(data)
    assert (found["x"], found["y"]) == (1, [2])


def test_a_default_factory_that_is_no_class_warns_and_the_items_come_back() -> None:
    with pytest.warns(LossyValueWarning, match="defaultdict"):
        data = JSON.encode(collections.defaultdict(lambda: 0, {"a": 1}))
    assert JSON.decode(data) == {"a": 1}


def test_a_warning_that_is_made_an_error_stops_the_write(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, serialization_format="json")
    d["crash"] = "before"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LossyValueWarning):
            d["crash"] = {"trace_back": traceback()}
    assert d["crash"] == "before"


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    "value",
    [[].append, "text".upper, functools.partial([].append, 1), {"k": Countdown(1).__next__}],
)
def test_a_method_is_refused_because_its_object_would_be_left_behind(value: Any) -> None:
    with pytest.raises(TypeError, match="json cannot hold"):
        JSON.encode({"callback": value})


def generator() -> Any:
    return (number for number in range(3))


def cursor() -> Any:
    return sqlite3.connect(":memory:").execute("select 1 union select 2 union select 3")


REFUSED_ITERATORS: dict[str, Callable[[], Any]] = {
    "generator": generator,
    "map of a generator": lambda: map(str, generator()),
    "cursor": cursor,
    "file": lambda: io.TextIOWrapper(io.BytesIO(b"1\n2\n3\n")),
    "lines": lambda: __import__("csv").reader(["1", "2", "3"]),
}


@pytest.mark.parametrize("name", list(REFUSED_ITERATORS))
def test_an_iterator_that_is_refused_has_not_been_read(name: str) -> None:
    value = REFUSED_ITERATORS[name]()
    with pytest.raises(TypeError, match="json cannot hold"):
        JSON.encode({"before": 1, "iterator": value})
    assert len(list(value)) == 3


def test_an_iterator_beside_something_refused_has_not_been_read() -> None:
    value = Countdown(3)
    with pytest.raises(TypeError, match="json cannot hold"):
        JSON.encode([value, lambda: None])
    assert value.count == 3


def test_arrays_that_jsonpickle_gives_back_are_written_as_it_writes_them() -> None:
    assert json.loads(JSON.encode(np.arange(3)))["values"] == [0, 1, 2]
