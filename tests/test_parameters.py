"""Parameters as mixinforge's JSON, and mixinforge's classes as bases that are loaded late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mixinforge import ParameterizableMixin, SingletonMixin, access_jsparams, dumpjs, loadjs

from persidict import (
    KEEP_CURRENT,
    EmptyDict,
    FileDirDict,
    LocalDict,
    OverlappingMultiDict,
    WriteOnceDict,
)
from persidict.parameters import Parameters


class Text(str):
    """A class of values that can be imported."""


def texts(place: Path, kind: type = str) -> FileDirDict[Any]:
    return FileDirDict(base_dir=place, serialization_format="txt", base_class_for_values=kind)


@pytest.mark.parametrize("kind", [str, Text])
def test_a_dictionary_with_a_class_for_its_values_comes_back_from_json(
    kind: type, tmp_path: Path
) -> None:
    d = texts(tmp_path, kind)
    d["a"] = kind("text")
    back = loadjs(dumpjs(d))
    assert back.get_params() == d.get_params()
    assert (type(back["a"]), back["a"]) == (kind, "text")


def test_parameters_with_a_class_come_back_from_json_one_by_one(tmp_path: Path) -> None:
    params = texts(tmp_path).get_jsparams()
    assert loadjs(params) == texts(tmp_path).get_params()
    assert access_jsparams(params, "base_class_for_values") == {"base_class_for_values": str}


def test_a_class_that_cannot_be_imported_is_refused_by_name(tmp_path: Path) -> None:
    class Local(str):
        pass

    with pytest.raises(TypeError, match="Local"):
        dumpjs(texts(tmp_path, Local))


def test_parameters_are_copied_as_a_plain_dict(tmp_path: Path) -> None:
    import copy

    params = texts(tmp_path).get_params()
    assert type(params) is Parameters
    assert {type(copy.copy(params)), type(copy.deepcopy(params))} == {dict}
    assert copy.deepcopy(params) == params


def test_a_clone_has_the_class_for_its_values(tmp_path: Path) -> None:
    assert texts(tmp_path).clone(append_only=True).get_params() == {
        **texts(tmp_path).get_params(),
        "append_only": True,
    }


def test_an_overlapping_multi_dict_comes_back_from_json(tmp_path: Path) -> None:
    multi = OverlappingMultiDict(
        dict_type=FileDirDict,
        shared_subdicts_params={"base_dir": str(tmp_path)},
        pkl={},
        txt={"base_class_for_values": str},
    )
    multi.txt["a"] = "text"
    back = loadjs(dumpjs(multi))
    assert back.get_params() == multi.get_params()
    assert back.txt["a"] == "text"


@pytest.mark.parametrize("serialization_format", ["pkl", "json", "txt"])
def test_a_raw_handle_comes_back_raw_from_json(serialization_format: str, tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(
        base_dir=tmp_path,
        serialization_format=serialization_format,
        base_class_for_values=str,
    )
    d["a"] = "text"
    back = loadjs(dumpjs(d.raw))
    assert back["a"] == d.raw["a"]
    assert back == d.raw
    assert back["a"] != d["a"]


def test_a_raw_handle_is_made_from_the_parameters_of_one() -> None:
    d: LocalDict[Any] = LocalDict()
    d["a"] = 1
    assert LocalDict(**d.raw.get_params())["a"] == d.raw["a"]


def test_whether_to_be_raw_is_yes_or_no() -> None:
    with pytest.raises(TypeError, match="raw"):
        LocalDict(raw="yes")  # type: ignore[call-arg]


def test_the_bases_of_mixinforge_hold() -> None:
    assert isinstance(LocalDict(), ParameterizableMixin)
    assert issubclass(FileDirDict, ParameterizableMixin)
    assert issubclass(OverlappingMultiDict, ParameterizableMixin)
    assert isinstance(KEEP_CURRENT, SingletonMixin)


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


IS_LOADED = "import sys; print('mixinforge' in sys.modules)"


def test_mixinforge_is_not_loaded_by_what_does_not_need_it() -> None:
    program = """
from persidict import KEEP_CURRENT, LocalDict, OverlappingMultiDict, WriteOnceDict, EmptyDict
d = LocalDict()
d["a"] = KEEP_CURRENT
repr(d), d.get_params()
"""
    assert run(program + IS_LOADED) == "False\n"


SLOW_TO_LOAD = {
    "asyncio",
    "boto3",
    "concurrent.futures",
    "dataclasses",
    "difflib",
    "email",
    "hashlib",
    "importlib.metadata",
    "inspect",
    "jsonpickle",
    "logging",
    "lz4",
    "mixinforge",
    "numpy",
    "random",
    "tempfile",
    "urllib.parse",
}


@pytest.mark.parametrize("names", ["KEEP_CURRENT", "FileDirDict", "LocalDict"])
def test_loading_a_dictionary_loads_nothing_that_is_slow_to_load(names: str) -> None:
    program = f"from persidict import {names}; import sys; print(*sys.modules)"
    assert {*run(program).split()} & SLOW_TO_LOAD == set()


@pytest.mark.parametrize(
    "first",
    ["import mixinforge", "import persidict, mixinforge", "from persidict import LocalDict"],
)
def test_the_bases_of_mixinforge_hold_in_whatever_order_modules_are_loaded(first: str) -> None:
    program = """
from persidict import KEEP_CURRENT, LocalDict
class Mine(LocalDict): pass
d = Mine()
from mixinforge import ParameterizableMixin, SingletonMixin
print(isinstance(d, ParameterizableMixin), issubclass(LocalDict, ParameterizableMixin))
print(isinstance(KEEP_CURRENT, SingletonMixin), type(KEEP_CURRENT)() is KEEP_CURRENT)
"""
    assert run(f"{first}\n{program}") == "True True\nTrue True\n"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("LocalDict.get_default_params()['append_only']", "False"),
        ("type(LocalDict().clone()).__name__", "LocalDict"),
        ("sorted(EmptyDict().essential_param_names)[0]", "append_only"),
        ("EmptyDict().auxiliary_param_names", "set()"),
        ("EmptyDict().get_essential_params()['append_only']", "False"),
        ("EmptyDict().get_auxiliary_params()", "{}"),
        ("'append_only' in EmptyDict().get_jsparams()", "True"),
        ("'append_only' in EmptyDict.get_default_jsparams()", "True"),
        ("'append_only' in EmptyDict().get_essential_jsparams()", "True"),
        ("'append_only' in EmptyDict().get_auxiliary_jsparams()", "False"),
    ],
)
def test_what_the_mixin_brings_along_works_before_it_is_loaded(asked: str, answer: str) -> None:
    program = f"from persidict import EmptyDict, LocalDict\nprint({asked})"
    assert run(program) == f"{answer}\n"


def test_mixinforge_is_adopted_once_it_is_loaded_after_a_failure() -> None:
    program = """
import sys
from persidict import LocalDict
sys.modules["uuid"] = sys.modules["importlib.metadata"] = None
try:
    import mixinforge
except ImportError:
    print("failed")
for name in [name for name in sys.modules if name.startswith("mixinforge")]:
    del sys.modules[name]
del sys.modules["uuid"], sys.modules["importlib.metadata"]
import mixinforge
print(isinstance(LocalDict(), mixinforge.ParameterizableMixin))
"""
    assert run(program) == "failed\nTrue\n"


# ---------------------------------------------------------------------- what 0.309 accepts


def test_the_probability_of_checks_is_zero_by_default() -> None:
    d: WriteOnceDict[Any] = WriteOnceDict(wrapped_dict=LocalDict(append_only=True))
    assert d.p_consistency_checks == 0.0
    assert type(d.p_consistency_checks) is float


def test_assigning_keep_current_keeps_the_probability() -> None:
    d: WriteOnceDict[Any] = WriteOnceDict(
        wrapped_dict=LocalDict(append_only=True), p_consistency_checks=0.5
    )
    d.p_consistency_checks = KEEP_CURRENT  # type: ignore[assignment]
    assert d.p_consistency_checks == 0.5


def test_an_empty_dictionary_answers_for_anything() -> None:
    d: EmptyDict[Any] = EmptyDict()
    assert 123 not in d
    assert d.get(123) is None
    assert d.get({"no": "key"}, "default") == "default"
