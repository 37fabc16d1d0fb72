"""EmptyDict: takes every write, keeps nothing, is always empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from persidict import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    ConditionalOperationResult,
    EmptyDict,
    ETagConditionFlag,
    ETagValue,
    MutationPolicyError,
    OperationResult,
    PersiDict,
)

ETAG = ETagValue("some version")


@pytest.fixture
def d() -> EmptyDict[Any]:
    return EmptyDict()


def set_item_if(d: PersiDict[Any], condition: ETagConditionFlag, expected: Any) -> Any:
    return d.set_item_if("a", value=1, condition=condition, expected_etag=expected)


WRITES: dict[str, Callable[[PersiDict[Any]], Any]] = {
    "assigning": lambda d: d.__setitem__("a", 1),
    "update": lambda d: d.update({"a": 1}),
    "setdefault": lambda d: d.setdefault("a", 1),
    "set_item_if": lambda d: set_item_if(d, ANY_ETAG, ITEM_NOT_AVAILABLE),
    "raw": lambda d: d.raw.__setitem__("a", b"1"),
    "a sub-dictionary": lambda d: d.get_subdict("s").__setitem__("a", 1),
}


@pytest.mark.parametrize("name", WRITES)
def test_nothing_is_kept(name: str, d: EmptyDict[Any]) -> None:
    WRITES[name](d)
    assert (len(d), bool(d), list(d), list(d.items()), d.subdicts()) == (0, False, [], [], {})


@pytest.mark.parametrize("key", [123, None, "", "not/safe", ("a", "b"), [1]])
def test_in_and_get_answer_for_anything(key: Any, d: EmptyDict[Any]) -> None:
    assert key not in d
    assert d.get(key, "default") == "default"


ABSENCE: dict[str, Callable[[PersiDict[Any]], Any]] = {
    "[]": lambda d: d["a"],
    "del": lambda d: d.__delitem__("a"),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem(),
    "etag": lambda d: d.etag("a"),
    "timestamp": lambda d: d.timestamp("a"),
}


@pytest.mark.parametrize("name", ABSENCE)
def test_every_item_is_absent(name: str, d: EmptyDict[Any]) -> None:
    WRITES["assigning"](d)
    with pytest.raises(KeyError):
        ABSENCE[name](d)


@pytest.mark.parametrize(
    ("condition", "expected", "is_satisfied"),
    [
        (ANY_ETAG, ETAG, True),
        (ANY_ETAG, ITEM_NOT_AVAILABLE, True),
        (ETAG_IS_THE_SAME, ETAG, False),
        (ETAG_IS_THE_SAME, ITEM_NOT_AVAILABLE, True),
        (ETAG_HAS_CHANGED, ETAG, True),
        (ETAG_HAS_CHANGED, ITEM_NOT_AVAILABLE, False),
    ],
)
def test_conditions_are_evaluated_against_absence(
    condition: ETagConditionFlag, expected: Any, is_satisfied: bool, d: EmptyDict[Any]
) -> None:
    nothing = ConditionalOperationResult(
        is_satisfied, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE
    )
    question: dict[str, Any] = {"condition": condition, "expected_etag": expected}
    assert d.set_item_if("a", value=1, **question) == nothing
    assert d.set_item_if("a", value=DELETE_CURRENT, **question) == nothing
    assert d.set_item_if("a", value=KEEP_CURRENT, **question) == nothing
    assert d.setdefault_if("a", default_value=1, **question) == nothing
    assert d.get_item_if("a", retrieve_value=ALWAYS_RETRIEVE, **question) == nothing
    assert d.discard_if("a", **question) == nothing


def test_a_transformer_is_not_called(d: EmptyDict[Any]) -> None:
    def transformer(value: Any) -> Any:
        raise AssertionError("called")

    nothing = OperationResult(ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)
    assert d.transform_item("a", transformer=transformer) == nothing


def test_setdefault_returns_the_default(d: EmptyDict[Any]) -> None:
    assert d.setdefault("a", 1) == 1


WRONG: dict[str, tuple[Callable[[PersiDict[Any]], Any], type[Exception]]] = {
    "a key that is none": (lambda d: d.__setitem__("a/b", 1), ValueError),
    "a value of the wrong class": (lambda d: d.__setitem__("a", "text"), TypeError),
    "a dictionary as value": (lambda d: d.__setitem__("a", d), TypeError),
    "a default of the wrong class": (lambda d: d.setdefault("a", "text"), TypeError),
    "a joker as default": (lambda d: d.setdefault("a", KEEP_CURRENT), TypeError),
    "a condition that is none": (
        lambda d: set_item_if(d, "same", ETAG),  # type: ignore[arg-type]
        ValueError,
    ),
    "an ETag that is none": (lambda d: set_item_if(d, ETAG_IS_THE_SAME, 5), TypeError),
    "a transformer that is none": (
        lambda d: d.transform_item("a", transformer=5),  # type: ignore[arg-type]
        TypeError,
    ),
    "a negative number of retries": (
        lambda d: d.transform_item("a", transformer=str, n_retries=-1),
        ValueError,
    ),
    "a number of retries that is none": (
        lambda d: d.transform_item("a", transformer=str, n_retries="many"),  # type: ignore[arg-type]
        TypeError,
    ),
    "a key that is none to transform": (
        lambda d: d.transform_item("a/b", transformer=str),
        ValueError,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_are_checked(name: str) -> None:
    call, error = WRONG[name]
    with pytest.raises(error):
        call(EmptyDict(base_class_for_values=int))


@pytest.mark.parametrize(
    "delete",
    [lambda d: d.discard("a"), lambda d: d.clear(), lambda d: d.pop("a", None)],
    ids=["discard", "clear", "pop"],
)
def test_an_append_only_one_refuses_to_delete(delete: Callable[[PersiDict[Any]], Any]) -> None:
    with pytest.raises(MutationPolicyError):
        delete(EmptyDict(append_only=True))


def test_a_handle_is_made_from_its_parameters() -> None:
    d = EmptyDict[Any](append_only=True, base_class_for_values=int)
    again = EmptyDict[Any](**d.get_params())
    assert again == d
    assert (again.append_only, again.base_class_for_values) == (True, int)
