"""Every dictionary of dict_cases.py behaves like the model through random histories."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from persidict.testing import state_machine_for
from tests.dict_cases import CASES, DictCase


@pytest.mark.parametrize("append_only", [False, True], ids=["mutable", "append_only"])
@pytest.mark.parametrize(
    "case", [c for c in CASES if "durable" not in c.name], ids=lambda case: case.name
)
def test_a_dictionary_behaves_like_the_model(
    case: DictCase, append_only: bool, tmp_path: Path
) -> None:
    new_dict = partial(case.maker(tmp_path), append_only=append_only)
    machine = state_machine_for(new_dict, etags_never_repeat=case.etags_never_repeat)
    machine("runTest").debug()
