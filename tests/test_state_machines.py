"""Every dictionary behaves like its model through random histories."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import settings

from persidict import (
    DELETE_CURRENT,
    AppendOnlyDictCached,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    WriteOnceDict,
)
from persidict.testing import DictModel, state_machine_for
from tests.dict_cases import CASES, DictCase, parameters


@pytest.mark.parametrize("append_only", [False, True], ids=["mutable", "append_only"])
@pytest.mark.parametrize("case", parameters(case for case in CASES if "durable" not in case.name))
def test_a_dictionary_behaves_like_the_model(
    case: DictCase, append_only: bool, tmp_path: Path
) -> None:
    new_dict = partial(case.maker(tmp_path), append_only=append_only)
    machine: Any = state_machine_for(new_dict, etags_never_repeat=case.etags_never_repeat)
    if case.is_slow:
        machine.settings = settings(machine.settings, max_examples=10)
    machine("runTest").debug()


def test_a_mutable_cache_shows_what_is_written_behind_its_back(tmp_path: Path) -> None:
    numbers = itertools.count()

    def new_dict() -> MutableDictCached[Any]:
        place = tmp_path / str(next(numbers))
        return MutableDictCached(
            main_dict=FileDirDict(base_dir=place / "main", fsync=False),
            data_cache=FileDirDict(base_dir=place / "data", fsync=False),
            etag_cache=LocalDict(),
        )

    detours = {"behind the cache": lambda d: d.main_dict}
    state_machine_for(new_dict, detours=detours)("runTest").debug()


class AppendOnlyCacheModel(DictModel):
    """Append-only; deleting and transforming are refused whatever the state of the key."""

    def discard_if(self, *_: Any, **__: Any) -> NoReturn:
        raise MutationPolicyError(self.policy)

    def transform_item(self, *_: Any, **__: Any) -> NoReturn:
        raise MutationPolicyError(self.policy)


def test_an_append_only_cache_behaves_like_its_model() -> None:
    def new_dict() -> AppendOnlyDictCached[Any]:
        return AppendOnlyDictCached(
            main_dict=LocalDict(append_only=True), data_cache=LocalDict(append_only=True)
        )

    machine = state_machine_for(new_dict, model_class=AppendOnlyCacheModel)
    machine("runTest").debug()


class WriteOnceModel(DictModel):
    """The first value stays: assignments after it are ignored, all other changes refused."""

    policy = "write-once"

    def setitem(self, key: tuple[str, ...], value: Any) -> None:
        if key not in self.items or value is DELETE_CURRENT:
            super().setitem(key, value)

    def set_item_if(self, *_: Any, **__: Any) -> NoReturn:
        raise MutationPolicyError(self.policy)


def test_a_write_once_dictionary_keeps_the_first_value() -> None:
    def new_dict() -> WriteOnceDict[Any]:
        return WriteOnceDict(wrapped_dict=LocalDict(append_only=True))

    state_machine_for(new_dict, model_class=WriteOnceModel)("runTest").debug()
