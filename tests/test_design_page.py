"""The design page speaks of modules and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
MODULES = sorted(set(re.findall(r"`(persidict/[\w/]+(?:\.py|/))`", PAGE)))
PROOFS = sorted(set(re.findall(r"`((?:tests|persidict/testing)/\w+\.py(?:::\w+)?)`", PAGE)))


@pytest.mark.parametrize("module", MODULES)
def test_a_room_or_module_that_is_named_exists(module: str) -> None:
    assert (ROOT / module).exists()


@pytest.mark.parametrize("proof", PROOFS)
def test_a_test_that_is_named_as_a_proof_exists(proof: str) -> None:
    path, _, name = proof.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8") or not name


def test_every_promise_has_a_mechanism_and_a_proof() -> None:
    table = PAGE.partition("## Promises, mechanisms, proofs")[2]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 40
    assert [row for row in rows if len(row) != 3 or not row[1].strip() or "`" not in row[2]] == []
