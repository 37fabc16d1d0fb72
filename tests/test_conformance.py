"""Every dictionary keeps the contract, those of dict_cases.py all of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import AppendOnlyDictCached, LocalDict, MutableDictCached, WriteOnceDict
from persidict.persi_dict import PersiDict
from persidict.testing import (
    AppendOnlyDictConformance,
    DictConformance,
    InsertingDictConformance,
    MutableDictConformance,
)
from tests.dict_cases import DictCase, in_files, parameters

NewDict = Callable[..., PersiDict[Any]]


class TestDictionaries(DictConformance):
    @pytest.fixture(params=parameters())
    def case(self, request: pytest.FixtureRequest) -> DictCase:
        chosen: DictCase = request.param
        return chosen

    @pytest.fixture
    def new_dict(self, case: DictCase, tmp_path: Path) -> NewDict:
        return case.maker(tmp_path)

    @pytest.fixture
    def etags_never_repeat(self, case: DictCase) -> bool:
        return case.etags_never_repeat

    @pytest.fixture
    def handles_travel(self, case: DictCase) -> bool:
        return case.handles_travel


class TestMutableDictCached(MutableDictConformance):
    @pytest.fixture
    def new_dict(self, tmp_path: Path) -> NewDict:
        numbers = itertools.count()

        def make(**params: Any) -> PersiDict[Any]:
            place = tmp_path / str(next(numbers))
            return MutableDictCached(
                main_dict=in_files(place / "main", **params),
                data_cache=in_files(place / "data", digest_len=0, **params),
                etag_cache=in_files(place / "etags", serialization_format="json"),
            )

        return make

    def another_handle(self, d: PersiDict[Any], **params: Any) -> PersiDict[Any]:
        parts = d.get_params()
        main = super().another_handle(parts["main_dict"], **params)
        return MutableDictCached(**{**parts, "main_dict": main})


class TestAppendOnlyDictCached(AppendOnlyDictConformance):
    @pytest.fixture
    def new_dict(self, tmp_path: Path) -> NewDict:
        numbers = itertools.count()

        def make(**params: Any) -> PersiDict[Any]:
            params["append_only"] = True
            return AppendOnlyDictCached(
                main_dict=in_files(tmp_path / str(next(numbers)), **params),
                data_cache=LocalDict(**params),
            )

        return make

    @pytest.fixture
    def handles_travel(self) -> bool:
        return False


class TestWriteOnceDict(InsertingDictConformance):
    @pytest.fixture(params=[None, 0.5, 1], ids=lambda p: f"checked-{p}")
    def new_dict(self, request: pytest.FixtureRequest, tmp_path: Path) -> NewDict:
        numbers = itertools.count()

        def make(**params: Any) -> PersiDict[Any]:
            wrapped = in_files(tmp_path / str(next(numbers)), append_only=True, **params)
            return WriteOnceDict(wrapped_dict=wrapped, p_consistency_checks=request.param)

        return make
