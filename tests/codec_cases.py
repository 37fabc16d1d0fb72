"""Codecs, values and questions that the tests of the codecs share."""

from __future__ import annotations

import collections
import datetime
import subprocess
import sys
import textwrap
from typing import Any

from hypothesis import strategies as st

from persidict.codecs import (
    Codec,
    codec_for,
)

PKL = codec_for("pkl")


PKL_OF_FILES = codec_for("pkl", compress=True)


JSON = codec_for("json")


TEXT = codec_for("txt", value_class=str)


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


class Node:
    """An object with attributes of its own, which can refer to itself."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None: ...


def decodes(codec: Codec, data: bytes | memoryview) -> bool:
    try:
        codec.decode(data)
    except Exception:
        return False
    return True


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
