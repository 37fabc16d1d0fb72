"""OverlappingMultiDict: a container of dictionaries over one place, and none itself."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import FileDirDict, LocalDict, OverlappingMultiDict


@pytest.fixture
def multi(tmp_path: Path) -> Any:
    return OverlappingMultiDict(
        dict_type=FileDirDict,
        shared_subdicts_params={"base_dir": str(tmp_path), "fsync": False},
        pkl={},
        json={"append_only": True},
        txt={"base_class_for_values": str},
    )


def test_each_format_is_a_dictionary_of_its_own_over_the_same_place(
    multi: Any, tmp_path: Path
) -> None:
    multi.pkl["a"] = 1
    multi.json["a"] = 2
    multi.txt["a"] = "three"
    assert (multi.pkl["a"], multi.json["a"], multi.txt["a"]) == (1, 2, "three")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".pkl", ".txt"]


def test_no_format_lists_or_clears_the_items_of_another(multi: Any) -> None:
    multi.pkl["a"] = 1
    multi.json["b"] = 2
    multi.txt["c"] = "three"
    assert [list(d) for d in (multi.pkl, multi.json, multi.txt)] == [[("a",)], [("b",)], [("c",)]]
    assert [len(d) for d in (multi.pkl, multi.json, multi.txt)] == [1, 1, 1]
    multi.txt.clear()
    assert (multi.pkl["a"], multi.json["b"], list(multi.txt)) == (1, 2, [])


def test_the_formats_are_named_in_the_order_given(multi: Any) -> None:
    assert multi.subdicts_names == ["pkl", "json", "txt"]


def test_parameters_of_a_format_prevail_over_the_shared_ones(tmp_path: Path) -> None:
    multi: Any = OverlappingMultiDict(
        dict_type=FileDirDict,
        shared_subdicts_params={"base_dir": str(tmp_path), "digest_len": 4},
        pkl={"digest_len": 0},
        json={},
    )
    assert (multi.pkl.digest_len, multi.json.digest_len) == (0, 4)


AS_A_DICT: dict[str, Callable[[Any], Any]] = {
    "reading": lambda multi: multi["a"],
    "reading a format": lambda multi: multi["pkl"],
    "writing": lambda multi: multi.__setitem__("a", 1),
    "deleting": lambda multi: multi.__delitem__("a"),
    "in": lambda multi: "a" in multi,
    "iterating": list,
}


@pytest.mark.parametrize("name", AS_A_DICT)
def test_the_container_itself_is_no_dictionary_and_says_what_to_use(name: str, multi: Any) -> None:
    with pytest.raises(TypeError, match=r"use one of its attributes \(pkl, json, txt\)"):
        AS_A_DICT[name](multi)


def test_a_format_that_was_not_given_is_no_attribute(multi: Any) -> None:
    with pytest.raises(AttributeError, match="no format 'csv'"):
        multi.csv  # noqa: B018


def test_a_container_is_made_from_its_parameters(multi: Any) -> None:
    multi.pkl["a"] = 1
    again: Any = OverlappingMultiDict(**multi.get_params())
    assert again.pkl["a"] == 1
    assert again.get_params() == multi.get_params()


def test_a_container_travels_in_a_pickle(multi: Any) -> None:
    multi.txt["a"] = "text"
    again = pickle.loads(pickle.dumps(multi))
    assert again.txt["a"] == "text"
    assert again.json.append_only


@pytest.mark.parametrize("name", ["subdicts_names", "get_params"])
def test_a_format_named_like_an_attribute_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"a format cannot be named '{name}' here"):
        OverlappingMultiDict(dict_type=LocalDict, shared_subdicts_params={}, **{name: {}})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"dict_type": dict, "shared_subdicts_params": {}}, "dict_type"),
        ({"dict_type": "LocalDict", "shared_subdicts_params": {}}, "dict_type"),
        ({"dict_type": LocalDict, "shared_subdicts_params": []}, "shared_subdicts_params"),
        ({"dict_type": LocalDict, "shared_subdicts_params": {}, "pkl": None}, "pkl"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        OverlappingMultiDict(**arguments)
