"""A dictionary under plain keys, and what pytest shows where one differs from a dict."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persidict import FileDirDict, LocalDict, MutationPolicyError
from persidict.contract.plain import PlainMapping

KEYS = st.sampled_from(["a", "b", ("a", "b"), ("b", "c", "d")])
STEPS = st.one_of(
    st.tuples(st.just("set"), KEYS, st.integers()),
    st.tuples(st.just("pop"), KEYS, st.just(0)),
    st.tuples(st.just("setdefault"), KEYS, st.integers()),
    st.tuples(st.just("update"), KEYS, st.integers()),
    st.tuples(st.just("del"), KEYS, st.just(0)),
)


def take(mapping: MutableMapping[Any, Any], step: tuple[str, Any, int]) -> Any:
    """Do a step and return what comes of it, an error as its class."""
    name, key, number = step
    try:
        match name:
            case "set":
                mapping[key] = number
            case "del":
                del mapping[key]
            case "update":
                mapping.update({key: number})
            case _:
                return getattr(mapping, name)(key, number)
    except KeyError:
        return KeyError
    return None


@given(st.lists(STEPS, max_size=12))
def test_it_does_what_a_dict_does(steps: list[tuple[str, Any, int]]) -> None:
    mapping, model = LocalDict[int]().plain(), dict[Any, int]()
    assert [take(mapping, step) for step in steps] == [take(model, step) for step in steps]
    assert mapping == model
    assert dict(mapping) == model
    assert set(mapping) == set(model)
    assert (len(mapping), bool(mapping)) == (len(model), bool(model))
    assert sorted(mapping.values()) == sorted(model.values())
    assert mapping.keys() == model.keys()
    assert mapping.items() == model.items()


@pytest.fixture
def d() -> LocalDict[int]:
    made: LocalDict[int] = LocalDict()
    made.update({"a": 1, ("b", "c"): 2})
    return made


def test_a_key_of_one_string_is_that_string(d: LocalDict[int]) -> None:
    assert {type(key) for key in d.plain()} == {str, tuple}
    assert json.dumps(dict(d.get_subdict("b").plain())) == '{"c": 2}'


def test_it_equals_its_dictionary_and_a_dict(d: LocalDict[int]) -> None:
    for equal in (d, d.plain(), {"a": 1, ("b", "c"): 2}):
        assert d.plain() == equal
        assert equal == d.plain()
    for other in (LocalDict[int](), {"a": 1}, 5):
        assert d.plain() != other


def test_a_key_in_any_form_finds_its_item(d: LocalDict[int]) -> None:
    plain = d.plain()
    assert plain["a"] == plain.get(("a",)) == 1  # type: ignore[comparison-overlap]
    assert ("a",) in plain
    assert "z" not in plain


def test_what_is_written_is_written_into_the_dictionary(d: LocalDict[int]) -> None:
    plain = d.plain()
    plain["e"] = 3
    plain.popitem()
    assert len(d) == len(plain) == 2
    plain.clear()
    assert not d


def test_what_the_dictionary_refuses_is_refused(d: LocalDict[int]) -> None:
    plain = d.read_only().plain()
    with pytest.raises(MutationPolicyError):
        plain["e"] = 3
    with pytest.raises(MutationPolicyError):
        plain.clear()


def test_its_repr_shows_the_first_items_only() -> None:
    many: LocalDict[int] = LocalDict()
    many.update({f"{number:03}": number for number in range(100)})
    assert repr(LocalDict[int]().plain()) == "PlainMapping({})"
    assert len(repr(many.plain())) < 400
    assert repr(many.plain()).endswith(", ...})")


def test_it_travels_with_its_dictionary(tmp_path: Path) -> None:
    stored: FileDirDict[int] = FileDirDict(base_dir=tmp_path)
    stored["a"] = 1
    back: PlainMapping[int] = pickle.loads(pickle.dumps(stored.plain()))
    assert dict(back) == {"a": 1}


def test_of_some_keys_those_of_the_dictionary_come_back_as_they_are(d: LocalDict[int]) -> None:
    for common in (d.keys() & {"a", "z"}, {"a", "z"} & d.keys()):
        assert {type(key): key for key in common} == {str: "a"}


DIFFERENCES = {
    "a value": 'make() == {"a": 2, ("b", "c"): 2}',
    "an item more": 'make() == {"a": 1}',
    "an item less": 'make() == {"a": 1, ("b", "c"): 2, "z": 3}',
    "the other way round": '{"a": 2} == make()',
    "a dict of it": 'dict(make()) == {"a": 1}',
    "plain keys": 'make().plain() == {"a": 2}',
    "keys": 'make().keys() == {"a"}',
    "a list of keys": 'list(make()) == ["z"]',
    "another dictionary": "make() == LocalDict()",
}


def test_pytest_shows_every_difference_without_failing_in_it(tmp_path: Path) -> None:
    lines = [
        "from persidict import LocalDict",
        "def make():",
        "    d = LocalDict()",
        '    d["a"], d["b", "c"] = 1, 2',
        "    return d",
    ]
    for number, difference in enumerate(DIFFERENCES.values()):
        lines += [f"def test_{number}():", f"    assert {difference}"]
    (tmp_path / "test_differences.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider", "-n0", "."]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "failed: /" not in run.stdout
    assert "faulty" not in run.stdout
    assert f"{len(DIFFERENCES)} failed" in run.stdout
    assert "{'a': 1} != {'a': 2}" in run.stdout
