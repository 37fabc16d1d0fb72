"""WriteOnceDict: the first value stays, and later ones are compared as they are stored."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persidict import (
    ANY_ETAG,
    DELETE_CURRENT,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    EmptyDict,
    FileDirDict,
    LocalDict,
    MutationPolicyError,
    PersiDict,
    WriteOnceDict,
)


def write_once(p: float | None = 1, **params: Any) -> WriteOnceDict[Any]:
    return WriteOnceDict(wrapped_dict=LocalDict(append_only=True, **params), p_consistency_checks=p)


# ---------------------------------------------------------------------- the first value stays


WRITES: dict[str, Callable[[PersiDict[Any], Any], Any]] = {
    "assigning": lambda d, value: d.__setitem__("a", value),
    "update": lambda d, value: d.update({"a": value}),
    "setdefault": lambda d, value: d.setdefault("a", value),
    "|=": lambda d, value: d.__ior__({"a": value}),
}


@pytest.mark.parametrize("name", WRITES)
def test_the_first_value_stays(name: str) -> None:
    d = write_once(p=None)
    d["a"] = 1
    WRITES[name](d, 2)
    assert d["a"] == 1


def test_keep_current_writes_nothing() -> None:
    d = write_once()
    d["a"] = KEEP_CURRENT
    assert "a" not in d


DELETIONS: dict[str, Callable[[PersiDict[Any]], Any]] = {
    "del": lambda d: d.__delitem__("a"),
    "discard": lambda d: d.discard("a"),
    "pop": lambda d: d.pop("a", None),
    "popitem": lambda d: d.popitem(),
    "clear": lambda d: d.clear(),
    "discard_many": lambda d: d.discard_many(["a"]),
    "DELETE_CURRENT": lambda d: d.__setitem__("a", DELETE_CURRENT),
    "set_item_if": lambda d: d.set_item_if(
        "a", value=KEEP_CURRENT, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE
    ),
}


@pytest.mark.parametrize("name", DELETIONS)
@pytest.mark.parametrize("content", [{}, {"a": 1}], ids=["absent", "present"])
def test_what_it_never_does_is_refused_under_its_own_policy(
    name: str, content: dict[str, Any]
) -> None:
    d = write_once()
    d.update(content)
    with pytest.raises(MutationPolicyError) as caught:
        DELETIONS[name](d)
    assert caught.value.policy == "write-once"
    assert d == content


def test_a_value_of_the_wrong_class_is_refused_although_the_item_exists() -> None:
    d = write_once(base_class_for_values=int)
    d["a"] = 1
    with pytest.raises(TypeError):
        d["a"] = "text"


def test_attributes_of_what_lies_beneath_are_found(tmp_path: Path) -> None:
    d: Any = WriteOnceDict(wrapped_dict=FileDirDict(base_dir=tmp_path, append_only=True))
    assert d.base_dir == str(tmp_path)
    with pytest.raises(AttributeError):
        d.no_such_attribute  # noqa: B018


def test_without_a_dictionary_it_keeps_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrapped = WriteOnceDict[Any]().wrapped_dict
    assert isinstance(wrapped, FileDirDict)
    assert wrapped.append_only


def test_what_is_not_append_only_is_refused() -> None:
    with pytest.raises(ValueError, match="wrapped_dict must be append-only"):
        WriteOnceDict(wrapped_dict=LocalDict())


def test_what_is_no_persidict_is_refused() -> None:
    with pytest.raises(TypeError, match="wrapped_dict must be a PersiDict, not dict"):
        WriteOnceDict(wrapped_dict={})  # type: ignore[arg-type]


def test_in_front_of_a_dictionary_that_keeps_nothing_it_is_empty() -> None:
    d = WriteOnceDict(wrapped_dict=EmptyDict[Any](append_only=True), p_consistency_checks=1)
    d["a"] = 1
    d["a"] = 2
    assert len(d) == 0


# ---------------------------------------------------------------------- comparing


def counters(d: WriteOnceDict[Any]) -> tuple[int, int, int]:
    """Return how many checks were attempted, passed and failed."""
    return (
        d.consistency_checks_attempted,
        d.consistency_checks_passed,
        d.consistency_checks_failed,
    )


def test_an_equal_value_passes() -> None:
    d = write_once()
    d["a"] = [1]
    d["a"] = [1]
    assert counters(d) == (1, 1, 0)


def test_a_different_value_is_an_error_that_names_the_item() -> None:
    d = write_once()
    d["a"] = 1
    with pytest.raises(MutationPolicyError, match=r"'a'.* was stored with another value") as caught:
        d["a"] = 2
    assert caught.value.policy == "write-once"
    assert counters(d) == (1, 0, 1)


def test_a_first_value_is_compared_with_nothing() -> None:
    d = write_once()
    d.update({f"k{n}": n for n in range(10)})
    assert counters(d) == (0, 0, 0)


@pytest.mark.parametrize("p", [None, 0])
def test_without_a_probability_nothing_is_compared(p: float | None) -> None:
    d = write_once(p)
    d["a"] = 1
    d.update({"a": 2})
    assert counters(d) == (0, 0, 0)


def test_about_as_many_are_compared_as_the_probability_says() -> None:
    random.seed(0)
    d = write_once(0.5)
    d["a"] = 1
    for _ in range(200):
        d["a"] = 1
    assert 70 < d.consistency_checks_attempted < 130


def test_a_sub_dictionary_counts_for_itself() -> None:
    d = write_once()
    d["g", "a"] = 1
    d["g", "a"] = 1
    sub = d.get_subdict("g")
    sub["a"] = 1
    assert (counters(d), counters(sub)) == ((1, 1, 0), (1, 1, 0))


def frame_by_columns() -> pd.DataFrame:
    frame = pd.DataFrame(index=range(2))
    frame["x"] = [1.0, 2.0]
    frame["y"] = [3.0, 4.0]
    return frame


C = np.arange(6.0).reshape(2, 3)
F = np.asfortranarray(C)

EQUAL: dict[str, tuple[Any, Any]] = {
    "orders of memory": (C, F),
    "orders of memory in a list": ([C], [F]),
    "dicts of arrays in another order": ({"a": C, "b": F}, {"b": F, "a": C}),
    "zeros in an array": (np.array([0.0, 1.0]), np.array([-0.0, 1.0])),
    "zeros": (0.0, -0.0),
    "a scalar of numpy's": (np.int64(5), 5),
    "frames": (pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}), frame_by_columns()),
    "NaN": (float("nan"), float("nan")),
}
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "shapes": (np.array([1]), np.array([[1]])),
    "dtypes": (np.array([1]), np.array([1.0])),
    "labels": (pd.DataFrame({"x": [1]}), pd.DataFrame({"y": [1]})),
    "list and tuple": ([1], (1,)),
}
BULK: dict[str, Callable[[PersiDict[Any], Any], Any]] = {
    name: WRITES[name] for name in ("assigning", "update")
}


@pytest.mark.parametrize("write", BULK)
@pytest.mark.parametrize("name", EQUAL)
def test_what_is_equal_passes(name: str, write: str) -> None:
    first, later = EQUAL[name]
    d = write_once()
    d["a"] = first
    BULK[write](d, later)
    assert counters(d) == (1, 1, 0)


@pytest.mark.parametrize("write", BULK)
@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_fails(name: str, write: str) -> None:
    first, later = DIFFERENT[name]
    d = write_once()
    d["a"] = first
    with pytest.raises(MutationPolicyError):
        BULK[write](d, later)
    assert counters(d) == (1, 0, 1)


class Restless:
    """A value that is another one each time that it is encoded."""

    times_encoded = 0

    def __reduce__(self) -> Any:
        type(self).times_encoded += 1
        return int, (type(self).times_encoded,)


@pytest.mark.parametrize("write", BULK)
@pytest.mark.parametrize("p", [0, 1])
def test_a_value_is_encoded_once_whether_it_is_stored_or_compared(write: str, p: float) -> None:
    d = write_once(p)
    Restless.times_encoded = 0
    BULK[write](d, Restless())
    assert (Restless.times_encoded, d["a"]) == (1, 1)
    Restless.times_encoded = 0  # the next one is as the first one was
    BULK[write](d, Restless())
    assert Restless.times_encoded <= 1
    assert counters(d) == (p, p, 0)


def test_an_item_that_exists_is_not_encoded_if_a_look_is_cheap() -> None:
    d = write_once(0)
    d["a"] = 1
    Restless.times_encoded = 0
    d["a"] = Restless()
    assert Restless.times_encoded == 0


def test_a_value_that_can_only_be_copied_is_compared_as_it_is() -> None:
    def made_here() -> None:
        """Have no name to be pickled by."""

    d = write_once()
    d["a"] = made_here
    d.update({"a": made_here})
    with pytest.raises(MutationPolicyError):
        d["a"] = lambda: 5
    assert counters(d) == (2, 1, 1)


class Incomparable:
    """A value whose == raises."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError("no comparing")

    __hash__ = None  # type: ignore[assignment]


def test_what_cannot_be_compared_is_said_to_be_that() -> None:
    d = write_once()
    d["a"] = Incomparable(1)
    with pytest.raises(MutationPolicyError, match="could not be compared") as caught:
        d["a"] = Incomparable(2)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert counters(d) == (1, 0, 1)


def test_a_comparison_that_raises_stops_no_update() -> None:
    d = write_once()
    d["k100"] = Incomparable(1)
    items: dict[str, Any] = {f"k{n}": n for n in range(300)}
    with pytest.raises(MutationPolicyError, match="could not be compared"):
        d.update({**items, "k100": Incomparable(2)})
    assert len(d) == 300


def test_a_value_that_cannot_be_encoded_stops_no_update() -> None:
    d = write_once()
    with pytest.raises(TypeError, match="lock"):
        d.update({"a": 1, "b": threading.Lock(), "c": 3})
    assert d.keys() == {"a", "c"}


def test_an_item_that_was_deleted_beneath_meanwhile_is_a_key_error() -> None:
    d = write_once()
    d["a"] = 1
    insert = d._stored._insert

    def vanishing(key: Any, value: Any) -> Any:
        try:
            return insert(key, value)
        finally:
            d._wrapped._remove(key, None)

    d._stored._insert = vanishing  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        d["a"] = 1


# ---------------------------------------------------------------------- the probability


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_probability_out_of_range_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="p_consistency_checks must be from 0 to 1"):
        write_once(p)


@pytest.mark.parametrize("p", ["1", True, [1]])
def test_what_is_no_probability_is_refused(p: Any) -> None:
    with pytest.raises(TypeError, match="p_consistency_checks must be a number"):
        write_once(p)


def test_a_handle_has_the_probability_of_the_one_that_it_was_made_from() -> None:
    d = write_once(0.25)
    params = d.get_params()
    assert params["p_consistency_checks"] == 0.25
    assert type(d)(**params).p_consistency_checks == 0.25
    assert d.get_subdict("g").p_consistency_checks == 0.25
