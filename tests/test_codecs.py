"""The codecs: round trips, what they read, what they refuse, what they import."""

from __future__ import annotations

import collections
import datetime
import decimal
import io
import json
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import jsonpickle.handlers
import lz4.frame
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonpickle.ext import numpy as jsonpickle_numpy

from persidict.codecs import (
    Buffer,
    Codec,
    MissingExtraError,
    _jsonpickle,
    codec_for,
    is_registered,
    register_codec,
    registry,
)

LZ4_MAGIC = b"\x04\x22\x4d\x18"
PKL = codec_for("pkl")
PKL_OF_FILES = codec_for("pkl", compress=True)
JSON = codec_for("json")
TEXT = codec_for("txt", text_type=str)


# ---------------------------------------------------------------------- values


def atoms() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.text(st.characters()),  # lone surrogates, too
        st.binary(max_size=20),
        st.binary(max_size=20).map(bytearray),
        st.complex_numbers(allow_nan=False),
        st.dates(),
        st.datetimes(timezones=st.one_of(st.none(), st.just(datetime.UTC))),
        st.timedeltas(),
        st.decimals(allow_nan=False),
        st.uuids(),
        st.frozensets(st.integers(), max_size=3),
        st.sets(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    )


def dict_keys() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.text(max_size=4),
        st.sampled_from(("py/object", "py/id", "py/b64", "json://1", "json://x", "__dict__")),
        st.none(),
        st.integers(),
        st.floats(allow_nan=False),
        st.tuples(st.integers(), st.text(max_size=2)),
        st.dates(),
    )


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(dict_keys(), inner, max_size=4),
        st.dictionaries(dict_keys(), inner, max_size=3).map(collections.OrderedDict),
        st.lists(inner, max_size=3).map(collections.deque),
        inner.map(lambda shared: {"one": shared, 2: [shared], "three": (shared, shared)}),
    )


def values() -> st.SearchStrategy[Any]:
    return st.recursive(atoms(), containers, max_leaves=10)


class Tagged(str):
    """A subclass of str."""


class Node:
    """An object with attributes of its own, which can refer to itself."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None: ...


class NamedArray(np.ndarray):
    """A subclass of numpy's array."""


# ---------------------------------------------------------------------- round trips


@given(values())
def test_a_pickled_value_comes_back_equal(value: Any) -> None:
    assert PKL.decode(PKL.encode(value)) == value


@given(values(), st.integers(1, 2_000))
def test_a_value_pickled_for_a_file_comes_back_equal(value: Any, n_copies: int) -> None:
    repeated = [(i, value) for i in range(n_copies)]
    assert PKL_OF_FILES.decode(PKL_OF_FILES.encode(repeated)) == repeated


@given(values())
def test_a_value_in_json_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    found = JSON.decode(JSON.encode(value))
    assert (type(found), found) == (type(value), value)


@given(st.text())
def test_text_comes_back_equal(text: str) -> None:
    assert TEXT.decode(TEXT.encode(text)) == text


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("codec", [PKL, PKL_OF_FILES, JSON, TEXT])
def test_every_codec_decodes_every_kind_of_buffer(
    codec: Codec, view: Callable[[Buffer], Buffer]
) -> None:
    text = "Grüße\n" * 5_000
    assert codec.decode(view(codec.encode(text))) == text


@pytest.mark.parametrize("codec", [PKL, JSON])
def test_objects_that_a_value_holds_twice_are_one_object_again(codec: Codec) -> None:
    shared = [1]
    one, two = codec.decode(codec.encode([shared, {"again": shared}]))
    assert one is two["again"]


@pytest.mark.parametrize("codec", [PKL, JSON])
def test_an_object_that_refers_to_itself_does_so_again(codec: Codec) -> None:
    node = Node(name="loop")
    node.itself = node
    found = codec.decode(codec.encode(node))
    assert found.itself is found


# ---------------------------------------------------------------------- pkl


@pytest.mark.parametrize("codec", [PKL, PKL_OF_FILES])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros(50_000),
        np.random.default_rng(1).random(50_000),
    ],
    ids=["small", "fortran", "compressible", "random"],
)
def test_arrays_come_back_writeable_and_equal(codec: Codec, array: Any) -> None:
    found = codec.decode(codec.encode(array))
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


WRITTEN_VALUES = [
    {"n": [1, 2.5, None]},
    "x" * 100_000,
    np.arange(100_000),
    {"array": np.random.default_rng(1).random(10_000), "text": "y" * 30_000},
]


@pytest.mark.parametrize("value", WRITTEN_VALUES, ids=["plain", "text", "array", "both"])
@pytest.mark.parametrize("codec", [PKL, PKL_OF_FILES])
def test_joblib_reads_the_files_that_we_write(codec: Codec, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "value.pkl"
    path.write_bytes(codec.encode(value))
    np.testing.assert_equal(joblib.load(path), value)


@pytest.mark.parametrize("value", WRITTEN_VALUES, ids=["plain", "text", "array", "both"])
def test_without_compression_the_result_is_a_plain_pickle_of_protocol_5(value: Any) -> None:
    data = PKL.encode(value)
    assert data[:2] == b"\x80\x05"
    np.testing.assert_equal(pickle.loads(data), value)


def noise(n_bytes: int) -> bytes:
    """Return bytes that no compressor makes smaller."""
    return random.Random(n_bytes).randbytes(n_bytes)


@pytest.mark.parametrize(
    "value",
    [
        bytes(100_000),
        noise(5_000) + bytes(100_000),
        bytes(50_000) + noise(5_000) + bytes(50_000),
        bytes(100_000) + noise(5_000),
    ],
    ids=["all of it", "all but the head", "all but the middle", "all but the tail"],
)
def test_what_compresses_well_becomes_one_lz4_frame_that_tells_its_size(value: bytes) -> None:
    frame = lz4.frame.get_frame_info(PKL_OF_FILES.encode(value))
    assert frame["content_size"] == len(PKL.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        bytes(15_000),
        noise(100_000),
        b"".join(bytes(400) + noise(600 + i) for i in range(100)),
        # Samples at the beginning, in the middle and at the end find nothing but zeros
        bytes(5_000) + noise(100_000) + bytes(10_000) + noise(100_001) + bytes(5_000),
    ],
    ids=["small", "noise", "noise in great part", "misleading samples"],
)
def test_what_compression_would_not_help_stays_a_plain_pickle(value: bytes) -> None:
    assert PKL_OF_FILES.encode(value) == PKL.encode(value)


def joblib_dump(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(value, stream, **options)
    return stream.getvalue()


COMPRESSORS = ("zlib", "gzip", "bz2", "lzma", "xz", "lz4")


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("compressor", [None, *COMPRESSORS])
def test_what_joblib_wrote_is_read(compressor: str | None, protocol: int) -> None:
    value = {"a": np.arange(1_000), "b": [np.ones((3, 0)), "x"], "c": np.array(["o", None])}
    options = {"compress": (compressor, 3)} if compressor else {}
    found = PKL.decode(joblib_dump(value, protocol=protocol, **options))
    np.testing.assert_equal(found, value)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol_are_read(protocol: int) -> None:
    value = [1, "two", {"three": 3.0}, list(range(1_000))]
    assert PKL.decode(pickle.dumps(value, protocol)) == value


def test_several_lz4_frames_are_read_as_one_pickle() -> None:
    data = pickle.dumps(list(range(1_000)))
    frames = lz4.frame.compress(data[:500]) + lz4.frame.compress(data[500:])
    assert PKL.decode(frames) == list(range(1_000))


def array_looking_like_a_pickle() -> Any:
    """Make an array whose bytes, read as pickle, would end in a value."""
    return np.frombuffer(b"N." * 50, dtype="u1")


SMALL_PICKLES = {
    **{f"protocol {p}": pickle.dumps({"k": [1, "x", 2.5]}, p) for p in range(6)},
    "none": pickle.dumps(None),
    "lz4": lz4.frame.compress(pickle.dumps(["x"] * 50)),
    "two lz4 frames": lz4.frame.compress(b"\x80\x04") + lz4.frame.compress(b"K\x01."),
    "joblib": joblib_dump({"k": [1, "x"]}),
    "joblib array": joblib_dump(np.arange(10)),
    "joblib nested array": joblib_dump({"a": array_looking_like_a_pickle(), "b": "x"}),
    "joblib empty array": joblib_dump(np.zeros((0, 3))),
    **{f"joblib {c}": joblib_dump(np.arange(10), compress=(c, 3)) for c in COMPRESSORS},
}


def prefixes_that_decode(codec: Codec, data: bytes) -> list[int]:
    """Return the lengths at which the beginning of the data passes for a value."""
    lengths = []
    for length in range(len(data)):
        try:
            codec.decode(data[:length])
        except Exception:
            continue
        lengths.append(length)
    return lengths


@pytest.mark.parametrize("data", SMALL_PICKLES.values(), ids=SMALL_PICKLES)
def test_a_pickle_that_is_cut_short_anywhere_is_an_error(data: bytes) -> None:
    assert prefixes_that_decode(PKL, data) == []


def test_a_pickle_with_large_parts_that_is_cut_short_is_an_error() -> None:
    data = PKL.encode({"text": "x" * 70_000, "bytes": bytes(70_000), "array": np.zeros(9_000)})
    cuts = [*range(0, len(data), 997), len(data) - 2, len(data) - 1]
    assert [cut for cut in cuts if _decodes(PKL, data[:cut])] == []


def _decodes(codec: Codec, data: bytes) -> bool:
    try:
        codec.decode(data)
    except Exception:
        return False
    return True


@pytest.mark.parametrize(
    "trailing",
    [
        pytest.param(b".", id="stop"),
        pytest.param(b"\x00", id="zero"),
        pytest.param(bytes(53), id="zeros that look like a frame's length"),
        pytest.param(pickle.dumps("tail of a longer one"), id="another pickle"),
    ],
)
@pytest.mark.parametrize("kind", [k for k in SMALL_PICKLES if not k.startswith("joblib ")])
def test_bytes_behind_a_pickle_are_an_error(kind: str, trailing: bytes) -> None:
    assert not _decodes(PKL, SMALL_PICKLES[kind] + trailing)


@pytest.mark.parametrize("data", [b"garbage", b"\x00" * 100, LZ4_MAGIC + b"garbage", b"\x80\x05"])
def test_garbage_instead_of_a_pickle_is_an_error(data: bytes) -> None:
    assert not _decodes(PKL, data)


def test_without_joblib_its_arrays_are_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = joblib_dump(np.arange(10))
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'persidict\[joblib\]'"):
        PKL.decode(data)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_without_joblib_its_compressed_pickles_are_read(
    compressor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = joblib_dump(["plain"] * 10, compress=(compressor, 3))
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert PKL.decode(data) == ["plain"] * 10


# ---------------------------------------------------------------------- json


def test_json_is_indented_by_4_and_plain_ascii() -> None:
    assert JSON.encode({"ż": [1]}) == b'{\n    "\\u017c": [\n        1\n    ]\n}'


@pytest.mark.parametrize(
    "value", [{"k": [1, "x"]}, [1, 2], "text", None, (1, {2}), b"bytes", {1: {"k": Node(a=[1])}}]
)
def test_json_that_is_cut_short_anywhere_is_an_error(value: Any) -> None:
    assert prefixes_that_decode(JSON, bytes(JSON.encode(value))) == []


@pytest.mark.parametrize("data", [b"", b"garbage", b"a: yaml", b"{} {}", b"[1],", b'"\xff"'])
def test_garbage_instead_of_json_is_an_error(data: bytes) -> None:
    assert not _decodes(JSON, data)


@pytest.mark.parametrize(
    "text",
    [
        '{"py/object": "no_such_module.Class"}',
        '[{"py/object": "tests.test_codecs.NoSuchClass"}]',
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
        np.asfortranarray(np.arange(40).reshape(5, 8)),
        np.array([1 + 2j] * 20),
    ],
    ids=["short", "long", "strided", "big-endian", "fortran", "complex"],
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


# ---------------------------------------------------------------------- text


@pytest.mark.parametrize("text", ["", "\r\n", "a\rb\n", "\ufeffmark", "\x00", "𝄞"])
def test_text_is_stored_character_for_character(text: str) -> None:
    assert TEXT.encode(text) == text.encode("utf-8")


def test_text_with_surrogates_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        TEXT.encode("a\ud800")


@pytest.mark.parametrize("value", [None, 1, b"bytes", ["text"]])
def test_a_text_format_refuses_what_is_no_text(value: Any) -> None:
    with pytest.raises(TypeError, match="a text format holds str values"):
        TEXT.encode(value)


def test_bytes_that_are_not_utf_8_are_an_error() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        TEXT.decode(b"\xff")


def test_text_comes_back_as_the_subclass_of_str_that_was_asked_for() -> None:
    codec = codec_for("txt", text_type=Tagged)
    assert type(codec.decode(codec.encode(Tagged("x")))) is Tagged


# ---------------------------------------------------------------------- the registry


class Reversed(Codec):
    """A format of somebody else's."""

    content_type = "application/x-reversed"

    def encode(self, value: Any) -> bytes:
        return bytes(reversed(value))

    def decode(self, data: Buffer) -> Any:
        return bytes(reversed(data))


@pytest.fixture
def no_formats_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.parametrize(
    ("serialization_format", "content_type"),
    [
        ("pkl", "application/octet-stream"),
        ("json", "application/json"),
        ("txt", "text/plain"),
        ("html", "text/plain"),
    ],
)
def test_every_format_has_its_content_type(serialization_format: str, content_type: str) -> None:
    assert codec_for(serialization_format).content_type == content_type


@pytest.mark.usefixtures("no_formats_of_others")
def test_a_registered_format_has_its_own_codec() -> None:
    register_codec("rev", Reversed)
    assert codec_for("rev").encode(b"abc") == b"cba"


@pytest.mark.usefixtures("no_formats_of_others")
def test_a_format_is_registered_only_after_it_was_registered() -> None:
    before = is_registered("rev")
    register_codec("rev", Reversed)
    assert (before, is_registered("rev")) == (False, True)


@pytest.mark.usefixtures("no_formats_of_others")
@pytest.mark.parametrize(
    ("serialization_format", "factory", "error"),
    [
        ("pkl", Reversed, ValueError),
        ("json", Reversed, ValueError),
        ("", Reversed, ValueError),
        (1, Reversed, TypeError),
        ("rev", Reversed(), TypeError),
    ],
)
def test_a_bad_registration_is_refused(
    serialization_format: Any, factory: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        register_codec(serialization_format, factory)


# ---------------------------------------------------------------------- imports


def modules_after(program: str) -> set[str]:
    """Run a program in a new process; return the heavy modules that it loaded."""
    program = textwrap.dedent(program) + textwrap.dedent("""
        import sys
        heavy = {"joblib", "jsonpickle", "lz4", "numpy", "pandas"}
        print(" ".join(heavy & sys.modules.keys()))
    """)
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=100
    )
    return set(result.stdout.split())


def test_ordinary_pickles_and_text_need_no_library() -> None:
    program = """
        from persidict.codecs import codec_for
        for codec in codec_for("pkl", compress=True), codec_for("txt"):
            assert codec.decode(codec.encode("small")) == "small"
        codec_for("json")
    """
    assert modules_after(program) == set()


def test_ordinary_json_needs_jsonpickle_only() -> None:
    program = """
        from persidict.codecs import codec_for
        codec = codec_for("json")
        assert codec.decode(codec.encode({"numpy.": [1, "pandas."]})) == {"numpy.": [1, "pandas."]}
    """
    assert modules_after(program) == {"jsonpickle"}


def test_compressed_pickles_do_not_need_joblib() -> None:
    program = """
        from persidict.codecs import codec_for
        codec = codec_for("pkl", compress=True)
        assert codec.decode(codec.encode("x" * 100_000)) == "x" * 100_000
    """
    assert modules_after(program) == {"lz4"}


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
    data = bytes(JSON.encode(array)).replace(b"tests.test_codecs", b"named_arrays")
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
