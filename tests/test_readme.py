"""README keeps its word: its Python runs, and its two commands are those that are checked.

A line that ends in ``# -> something`` promises the repr of what it evaluates to.
"""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def sections_with_python() -> dict[str, list[str]]:
    """The Python blocks under each second-level heading; those of one section belong together."""
    parts = re.split(r"^## (.*)\n", README, flags=re.MULTILINE)[1:]
    found = {
        title: blocks("python", text) for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: code for title, code in found.items() if code}


def run_block(code: str, namespace: dict[str, Any]) -> None:
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        assert statement.end_lineno is not None
        _, promises, promised = lines[statement.end_lineno - 1].partition("  # -> ")
        if promises:
            assert isinstance(statement, ast.Expr), f"nothing to compare with {promised!r}"
            expression = compile(ast.Expression(statement.value), "README.md", "eval")
            assert repr(eval(expression, namespace)) == promised
        else:
            exec(compile(ast.Module([statement], []), "README.md", "exec"), namespace)


@pytest.mark.parametrize("title", sections_with_python())
def test_the_code_of_a_section_runs_and_yields_what_it_says(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "readme"}
    for code in sections_with_python()[title]:
        run_block(code, namespace)


def test_the_first_two_shell_commands_are_one_line_each() -> None:
    assert [block.count("\n") for block in blocks("sh")[:2]] == [1, 1]


def test_the_first_command_installs_and_runs_the_main_job() -> None:
    assert "pip install '.[examples]' && " in blocks("sh")[0]
    assert "python examples/index_stdlib.py --dir " in blocks("sh")[0]


def test_the_second_command_installs_and_runs_the_tests() -> None:
    assert "pip install -e '.[dev]' && " in blocks("sh")[1]
    assert blocks("sh")[1].endswith("python -m pytest\n")


def test_ci_runs_the_two_commands_as_readme_gives_them() -> None:
    done = subprocess.run(
        ["bash", ".ci/run", "commands"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines(keepends=True) == blocks("sh")[:2]
