"""The house keeps its shape: who may name what, and how long a module may be."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import persidict

PACKAGE = Path(persidict.__file__).parent
S3 = PACKAGE / "stores" / "s3"


def test_the_client_library_of_s3_is_named_in_the_transport_alone() -> None:
    naming = [
        module.relative_to(S3)
        for module in S3.rglob("*.py")
        if re.search(r"boto(core|3)", module.read_text(encoding="utf-8"))
        and "transport" not in module.relative_to(S3).parts
    ]
    assert naming == []


def test_status_codes_of_s3_are_compared_in_one_module() -> None:
    comparing = [
        module.relative_to(S3)
        for module in S3.rglob("*.py")
        if re.search(r"status(_of\([^)]*\))? (==|!=|in|not in) ", module.read_text("utf-8"))
        # the one module; and how long a reply is follows from the status in HTTP itself
        and module.name not in ("messages.py", "reply_parser.py")
    ]
    assert comparing == []


def test_no_module_is_longer_than_six_hundred_lines() -> None:
    long = {
        module.name: lines
        for module in PACKAGE.rglob("*.py")
        if (lines := len(module.read_text(encoding="utf-8").splitlines())) > 600
    }
    assert long == {}


def imported_by_modules() -> dict[str, set[str]]:
    """Return what each module imports of the package, wherever it does so, and for types too."""
    modules = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }
    imported: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                names |= inner or {str(node.module)}
        imported[module] = names & modules.keys()
    return imported


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert len(list(TopologicalSorter(imported_by_modules()).static_order())) > 200


ONCE = {
    r"bytes \| bytearray \| memoryview|\(bytes, bytearray, memoryview\)": "buffers.py",
    r"isinstance\(\w+, bool\) or not isinstance": "checks.py",
    r"uniform\(0\.0,|random\(\) \* ": "back_off.py",
}
"""What is written in one module only, where everybody else finds it by a name."""


@pytest.mark.parametrize("written", ONCE)
def test_what_everybody_needs_is_written_once(written: str) -> None:
    writing = [
        module.relative_to(PACKAGE).as_posix()
        for module in PACKAGE.rglob("*.py")
        if "testing" not in module.parts and re.search(written, module.read_text("utf-8"))
    ]
    assert writing == [ONCE[written]]
