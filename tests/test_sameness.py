"""Which values count as the same: equal ones, and those that nobody can tell apart."""

from __future__ import annotations

import collections
import copy
import decimal
import fractions
import pathlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from persidict.contract.sameness import is_replica, same_content

NAN = float("nan")


class Plain:
    """An object with a state and no == of its own."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


class Lenient(Plain):
    """An object whose == knows better than its state."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lenient)

    __hash__ = None  # type: ignore[assignment]


class Broken(Plain):
    """An object whose == raises."""

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Record:
    value: Any


class Pair(NamedTuple):
    first: Any
    second: Any


class Text(str):
    """A str of its own class."""


class Tuple(tuple):  # type: ignore[type-arg]
    """A tuple of its own class."""


class Labelled(np.ndarray[Any, Any]):
    """An array with an attribute."""

    label: str


def labelled(array: Any, label: str) -> Labelled:
    found: Labelled = array.copy().view(Labelled)
    found.label = label
    return found


def column_by_column() -> pd.DataFrame:
    frame = pd.DataFrame(index=range(3))
    for n, name in enumerate("abc"):
        frame[name] = np.arange(3.0) + n
    return frame


def circle() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


C = np.arange(6.0).reshape(2, 3)
F = np.asfortranarray(C)
FRAME = pd.DataFrame({"a": [0.0, 1, 2], "b": [1.0, 2, 3], "c": [2.0, 3, 4]})

EQUAL: dict[str, tuple[Any, Any]] = {
    "orders of memory": (C, F),
    "orders of memory in a list": ([C, 1], [F, 1]),
    "orders of memory in a record": (Record(C), Record(F)),
    "dicts in another order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "dicts of arrays in another order": ({"a": C, "b": F}, {"b": C, "a": F}),
    "zeros": (0.0, -0.0),
    "arrays of zeros": (np.array([0.0, 1]), np.array([-0.0, 1])),
    "a scalar of numpy's": (np.int64(5), 5),
    "a scalar of numpy's in a list": ([np.float64(0.5)], [0.5]),
    "a truth value of numpy's": (np.bool_(True), True),
    "a text of numpy's": (np.str_("a"), "a"),
    "NaN": (NAN, float("nan")),
    "NaN in a list": ([NAN], [float("nan")]),
    "NaN in an array": (np.array([1, NAN]), np.array([1, NAN])),
    "NaN in a part of a complex number": (complex(1, NAN), complex(1, NAN)),
    "NaT": (np.datetime64("NaT"), np.datetime64("NaT")),
    "int and float": (1, 1.0),
    "decimals": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
    "fractions": (fractions.Fraction(1, 2), fractions.Fraction(2, 4)),
    "frames built in another way": (FRAME, column_by_column()),
    "frames with a range and with a list of labels": (FRAME, FRAME.set_axis([0, 1, 2])),
    "frames in a list": ([FRAME], [column_by_column()]),
    "frames with NaN": (pd.DataFrame({"a": [NAN]}), pd.DataFrame({"a": [NAN]})),
    "series": (pd.Series([1, 2], name="s"), pd.Series([1, 2], name="s")),
    "objects with the same state": (Plain(a=[1], b=C), Plain(a=[1], b=F)),
    "objects whose == says so": (Lenient(a=1), Lenient(a=2)),
    "what has an == that raises": (Broken(a=1), Broken(a=1)),
    "records with NaN": (Record(NAN), Record(float("nan"))),
    "instants": (
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ),
    "masked arrays": (
        np.ma.masked_array([1, 2], mask=[False, True]),
        np.ma.masked_array([1, 3], mask=[False, True]),
    ),
    "arrays of objects": (
        np.array([[1], "a", None], dtype=object),
        np.array([[1], "a", None], dtype=object),
    ),
    "records of numpy's": (
        np.array([(1, NAN)], dtype=[("a", int), ("b", float)]),
        np.array([(1, NAN)], dtype=[("a", int), ("b", float)]),
    ),
    "named tuples": (Pair(1, C), Pair(1, F)),
    "sets": ({1, 2}, {2, 1}),
    "circles": (circle(), circle()),
    "patterns": (re.compile("a"), re.compile("a")),
    "paths": (pathlib.PurePosixPath("a"), pathlib.PurePosixPath("a")),
    "errors": (ValueError("a"), ValueError("a")),
    "counters": (collections.Counter("ab"), collections.Counter("ba")),
    "functions": (len, len),
    "complex arrays": (np.array([complex(1, NAN)]), np.array([complex(1, NAN)])),
    "queues": (collections.deque([NAN]), collections.deque([NAN])),
    "mappings with a factory in another order": (
        collections.defaultdict(list, a=C, b=F),
        collections.defaultdict(list, b=C, a=F),
    ),
}

DIFFERENT: dict[str, tuple[Any, Any]] = {
    "shapes": (np.array([1]), np.array([[1]])),
    "shapes of one element in a list": ([np.array([1])], [np.array([[1]])]),
    "shapes of one element in a record": (Record(np.array([1])), Record(np.array([[1]]))),
    "shapes of nothing": (np.zeros((0, 3)), np.zeros((3, 0))),
    "dtypes": (np.array([1]), np.array([1.0])),
    "elements": (np.array([1, 2]), np.array([1, 3])),
    "an element and an array": (5, np.array(5)),
    "masks": (
        np.ma.masked_array([1, 2], mask=[False, True]),
        np.ma.masked_array([1, 2], mask=[True, False]),
    ),
    "list and tuple": ([1], (1,)),
    "lengths": ([1], [1, 2]),
    "a missing end": ([1, None], [1]),
    "texts": ("a", "b"),
    "a text of its own class": (Text("a"), "a"),
    "bytes and text": (b"a", "a"),
    "keys": ({"a": 1}, {"b": 1}),
    "values": ({"a": [1]}, {"a": [2]}),
    "states": (Plain(a=1), Plain(a=2)),
    "classes": (Plain(a=1), Lenient(a=1)),
    "records": (Record(1), Record(2)),
    "labels of columns": (FRAME, FRAME.rename(columns={"a": "x"})),
    "labels of rows": (FRAME, FRAME.set_axis([5, 6, 7])),
    "names of indexes": (FRAME, FRAME.rename_axis("rows")),
    "types of columns": (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1.0]})),
    "names of series": (pd.Series([1], name="a"), pd.Series([1], name="b")),
    "NaN and a number": (NAN, 1.0),
    "parts of complex numbers": (complex(1, NAN), complex(2, NAN)),
    "None and nothing": (None, 0),
    "orders of an ordered mapping": (
        collections.OrderedDict(a=1, b=2),
        collections.OrderedDict(b=2, a=1),
    ),
    "factories": (collections.defaultdict(list), collections.defaultdict(set)),
    "functions": (len, repr),
    "real parts of complex arrays": (np.array([complex(1, 2)]), np.array([complex(3, 2)])),
    "imaginary parts of complex arrays": (np.array([complex(1, 2)]), np.array([complex(1, 3)])),
    "queues": (collections.deque([1]), collections.deque([2])),
    "values of a mapping with a factory": (
        collections.defaultdict(list, a=1),
        collections.defaultdict(list, a=2),
    ),
    "errors": (ValueError("a"), ValueError("b")),
}

ALIKE = {
    "orders of memory": (C, F),
    "dicts in another order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "zeros": (0.0, -0.0),
    "zeros in an array": (np.array([0.0]), np.array([-0.0])),
    "a scalar of numpy's": (np.int64(5), 5),
    "truth and one": (True, 1),
    "truth and one in a set": ({True}, {1}),
    "int and float in a list": ([1], [1.0]),
    "folds": (datetime(2026, 11, 1, 1), datetime(2026, 11, 1, 1, fold=1)),
    "a text of its own class": (Text("a"), "a"),
    "what is below a mask": (
        np.ma.masked_array([1, 2], mask=[False, True]),
        np.ma.masked_array([1, 3], mask=[False, True]),
    ),
    "a part met twice": ((lambda part: [part, part])([1]), [[1], [1]]),
    "decimals": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equal_values_are_the_same(name: str) -> None:
    one, other = EQUAL[name]
    assert same_content(one, other)
    assert same_content(other, one)


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_values_are_not_the_same(name: str) -> None:
    one, other = DIFFERENT[name]
    assert not same_content(one, other)
    assert not same_content(other, one)


@pytest.mark.parametrize("name", [name for name in EQUAL if name != "circles"])
def test_a_copy_is_a_replica(name: str) -> None:
    value = EQUAL[name][0]
    assert is_replica(value, copy.deepcopy(value))


@pytest.mark.parametrize("name", [*ALIKE, *DIFFERENT])
def test_what_can_be_told_apart_is_no_replica(name: str) -> None:
    one, other = {**DIFFERENT, **ALIKE}[name]
    assert not is_replica(one, other)
    assert not is_replica(other, one)


def test_an_error_is_the_same_after_its_attributes_have_been_looked_at() -> None:
    one, other = ValueError("a"), ValueError("a")
    assert vars(one) == {}
    assert same_content(one, other)
    assert is_replica(one, other)


def test_a_replica_has_the_same_parts_more_than_once() -> None:
    part = [1]
    value = {"a": part, "b": part}
    assert is_replica(value, copy.deepcopy(value))


def test_what_is_nested_deeper_than_python_goes_is_compared() -> None:
    one: list[Any] = []
    other: list[Any] = []
    for _ in range(400):
        one, other = [one], [other]
    assert same_content(one, other)


def test_arrays_with_different_attributes_are_not_the_same() -> None:
    assert same_content(labelled(C, "one"), labelled(F, "one"))
    assert not same_content(labelled(C, "one"), labelled(C, "other"))


def test_what_differs_deeper_than_python_goes_is_not_the_same() -> None:
    one: list[Any] = [1]
    other: list[Any] = [2]
    for _ in range(400):
        one, other = [one], [other]
    assert not same_content(one, other)


def test_what_cannot_be_compared_is_no_replica() -> None:
    assert not is_replica({lambda: 1}, {lambda: 1})


def test_an_equality_that_raises_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        same_content(Broken(a=1), Broken(a=2))
