"""Every dictionary of dict_cases.py keeps the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict.persi_dict import PersiDict
from persidict.testing import DictConformance
from tests.dict_cases import CASES, DictCase


class TestDictConformance(DictConformance):
    @pytest.fixture(params=CASES, ids=lambda case: case.name)
    def case(self, request: pytest.FixtureRequest) -> DictCase:
        chosen: DictCase = request.param
        return chosen

    @pytest.fixture
    def new_dict(self, case: DictCase, tmp_path: Path) -> Callable[..., PersiDict[Any]]:
        return case.maker(tmp_path)

    @pytest.fixture
    def etags_never_repeat(self, case: DictCase) -> bool:
        return case.etags_never_repeat

    @pytest.fixture
    def handles_travel(self, case: DictCase) -> bool:
        return case.handles_travel
