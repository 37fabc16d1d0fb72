"""The format json: nothing is lost quietly, threads keep apart, numpy stays away."""

from __future__ import annotations

import datetime
import decimal
import json
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonpickle
import jsonpickle.handlers
import numpy as np
import pytest
from hypothesis import given
from jsonpickle.ext import numpy as jsonpickle_numpy

from persidict.codecs import (
    _jsonpickle,
)
from tests.codec_cases import (
    JSON,
    Node,
    decodes,
    modules_after,
    prefixes_that_decode,
    values,
)


class NamedArray(np.ndarray):
    """A subclass of numpy's array."""


@given(values())
def test_a_value_in_json_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    found = JSON.decode(JSON.encode(value))
    assert (type(found), found) == (type(value), value)


def test_json_is_indented_by_4_and_plain_ascii() -> None:
    assert JSON.encode({"ż": [1]}) == b'{\n    "\\u017c": [\n        1\n    ]\n}'


@pytest.mark.parametrize(
    "value", [{"k": [1, "x"]}, [1, 2], "text", None, (1, {2}), b"bytes", {1: {"k": Node(a=[1])}}]
)
def test_json_that_is_cut_short_anywhere_is_an_error(value: Any) -> None:
    assert prefixes_that_decode(JSON, bytes(JSON.encode(value))) == []


@pytest.mark.parametrize("data", [b"", b"garbage", b"a: yaml", b"{} {}", b"[1],", b'"\xff"'])
def test_garbage_instead_of_json_is_an_error(data: bytes) -> None:
    assert not decodes(JSON, data)


@pytest.mark.parametrize(
    "text",
    [
        '{"py/object": "no_such_module.Class"}',
        '[{"py/object": "tests.test_json_codec.NoSuchClass"}]',
        '{"py/type": "no_such_module.Class"}',
        '{"py/function": "no_such_module.function"}',
        '{"py/mod": "no_such_module/no_such_module"}',
        '{"py/reduce": [{"py/type": "no_such_module.Class"}, {"py/tuple": []}]}',
    ],
)
def test_json_of_what_cannot_be_imported_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ImportError, match=r"no_such_module|NoSuchClass"):
        JSON.decode(text.encode())


@pytest.mark.parametrize("around", ['{"py/tuple": [%s]}', '{"py/set": [%s]}', "[%s]"])
@pytest.mark.parametrize(
    "broken",
    [
        '{"py/reduce": [{"py/type": "builtins.range"}, {"py/tuple": ["x"]}]}',
        '{"py/object": "datetime.date", "__reduce__": [{"py/type": "datetime.date"}, ["AAAA"]]}',
    ],
    ids=["reduce", "object"],
)
def test_json_of_an_object_that_cannot_be_built_is_an_error_wherever_it_is(
    broken: str, around: str
) -> None:
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        JSON.decode((around % broken).encode())


class Local:
    """Stands for a class that cannot be imported, see below."""


Local.__qualname__ = "function.<locals>.Local"


@pytest.mark.parametrize(
    "value",
    [
        lambda: None,
        [lambda: None],
        {"callback": lambda: None},
        Node(callback=lambda: None),
        Node(callback=Node().method),
        {"file": sys.__stdout__},
        (i for i in range(3)),
        types.MappingProxyType({}),
        Local(),
        {"class": Local},
    ],
    ids=[
        "lambda",
        "in a list",
        "in a dict",
        "in an object",
        "method",
        "file",
        "generator",
        "view",
        "object of a local class",
        "local class",
    ],
)
def test_json_refuses_what_it_could_not_give_back(value: Any) -> None:
    with pytest.raises(TypeError, match="json cannot hold"):
        JSON.encode(value)


@pytest.mark.parametrize(
    "key", ["py/object", "py/id", "py/tuple", "py/b64", "json://1", "json://["]
)
def test_dict_keys_that_mean_something_to_jsonpickle_are_just_keys(key: str) -> None:
    shared = [1]
    value = {key: shared, "a": {key: key}, "b": shared}
    found = JSON.decode(JSON.encode(value))
    assert found == value
    assert found["b"] is found[key]


def test_jsonpickle_itself_reads_what_we_write() -> None:
    value = {"py/id": 1, (1, 2): bytearray(b"x"), "when": datetime.date(2024, 2, 29)}
    assert jsonpickle.decode(JSON.encode(value), keys=True) == value


def test_json_does_not_depend_on_the_backend_that_jsonpickle_prefers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = JSON.encode({"b": 1, "a": [decimal.Decimal("1.10"), {3: 4}]})
    monkeypatch.setattr(jsonpickle.pickler, "json", None)
    monkeypatch.setattr(jsonpickle.unpickler, "json", None)
    assert JSON.encode(JSON.decode(expected)) == expected


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5),
        np.arange(100.0).reshape(10, 10),
        np.arange(100)[::2],
        np.arange(50, dtype=">i4"),
        np.arange(3, dtype=">i4"),
        np.arange(40, dtype=">f8").reshape(5, 8),
        np.ones(2, dtype=[("a", "i4"), ("b", ">f8")]),
        np.asfortranarray(np.arange(40).reshape(5, 8)),
        np.array([1 + 2j] * 20),
    ],
    ids=[
        "short",
        "long",
        "strided",
        "big-endian",
        "big-endian and short",
        "big-endian table",
        "big-endian field",
        "fortran",
        "complex",
    ],
)
def test_arrays_in_json_come_back_equal(array: Any) -> None:
    found = JSON.decode(JSON.encode({"array": array, "x": 1}))["array"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_data_frames_in_json_come_back_equal() -> None:
    import pandas as pd

    frame = pd.DataFrame(
        {"n": [1, 2, 3], "f": [1.5, None, 2.5], "when": pd.date_range("2024", periods=3)}
    )
    pd.testing.assert_frame_equal(JSON.decode(JSON.encode([frame]))[0], frame)


@pytest.fixture
def handlers() -> Iterator[jsonpickle.handlers.Registry]:
    """Let a test register handlers of its own, as a program that uses jsonpickle might."""
    registry = jsonpickle.handlers.registry
    before = registry._handlers.copy(), registry._base_handlers.copy()
    yield registry
    registry._handlers, registry._base_handlers = before


class LocalHandler(jsonpickle.handlers.BaseHandler):
    """Holds a class that cannot be imported."""

    def flatten(self, obj: Local, data: dict[str, Any]) -> dict[str, Any]:
        return data

    def restore(self, data: dict[str, Any]) -> Local:
        return Local()


def test_json_holds_what_the_program_registered_a_handler_for(
    handlers: jsonpickle.handlers.Registry,
) -> None:
    handlers.register(Local, LocalHandler)
    assert isinstance(JSON.decode(JSON.encode(Local())), Local)


def test_settings_that_the_program_made_for_arrays_in_json_are_kept(
    handlers: jsonpickle.handlers.Registry,
) -> None:
    jsonpickle_numpy.register_handlers(ndarray_size_threshold=3)
    values = json.loads(JSON.encode(np.arange(4)))["values"]
    assert isinstance(values, str)


def test_handlers_that_the_program_registered_for_pandas_are_kept(
    handlers: jsonpickle.handlers.Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    monkeypatch.setattr(_jsonpickle, "_registered", set())
    handlers.register(pd.Interval, LocalHandler)
    JSON.encode(pd.Interval(1, 2))
    assert handlers.get(pd.Interval) is LocalHandler


class MeetingHandler(jsonpickle_numpy.NumpyNDArrayHandlerView):
    """Lets two threads meet while each has an array in its hands."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(2)

    def flatten(self, obj: Any, data: dict[str, Any]) -> Any:
        context = self.context
        self.barrier.wait(timeout=60)
        assert self.context is context
        self.barrier.wait(timeout=60)
        return super().flatten(obj, data)


def test_threads_that_write_arrays_as_json_at_once_do_not_share_a_handler(
    handlers: jsonpickle.handlers.Registry,
) -> None:
    handlers.register(np.ndarray, MeetingHandler(), base=True)
    arrays = [np.arange(3), np.arange(4)]
    with ThreadPoolExecutor(2) as pool:
        encoded = list(pool.map(JSON.encode, arrays))
    assert [JSON.decode(data).tolist() for data in encoded] == [a.tolist() for a in arrays]


def test_ordinary_json_needs_jsonpickle_only() -> None:
    program = """
        from persidict.codecs import codec_for
        codec = codec_for("json")
        assert codec.decode(codec.encode({"numpy.": [1, "pandas."]})) == {"numpy.": [1, "pandas."]}
    """
    assert modules_after(program) == {"jsonpickle"}


@pytest.mark.parametrize(
    ("value", "loaded"),
    [
        (np.arange(30), {"jsonpickle", "numpy"}),
        ({"scalar": np.float32(1.5), "type": np.dtype("f4")}, {"jsonpickle", "numpy"}),
    ],
    ids=["array", "scalar"],
)
def test_json_of_arrays_imports_numpy_where_it_is_read(value: Any, loaded: set[str]) -> None:
    program = f"""
        from persidict.codecs import codec_for
        value = codec_for("json").decode({JSON.encode(value)!r})
        assert repr(value) == {repr(value)!r}
    """
    assert modules_after(program) == loaded


def test_json_of_a_subclass_of_an_array_finds_the_handler_where_it_is_read(tmp_path: Path) -> None:
    array = np.arange(30).view(NamedArray)
    data = bytes(JSON.encode(array)).replace(b"tests.test_json_codec", b"named_arrays")
    (tmp_path / "named_arrays.py").write_text(
        "import numpy\nclass NamedArray(numpy.ndarray): pass\n", encoding="utf-8"
    )
    program = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from persidict.codecs import codec_for
        value = codec_for("json").decode({data!r})
        assert value.tolist() == {array.tolist()!r}
    """
    assert modules_after(program) == {"jsonpickle", "numpy"}
