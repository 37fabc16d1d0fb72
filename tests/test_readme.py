"""README and docs keep their word: their Python runs, and README's two commands are checked.

A line that ends in ``# -> something`` promises the repr of what it evaluates to. Code that
speaks of S3 finds a server and credentials as boto3 does, in the environment.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.s3_servers.clients import CREDENTIALS
from tests.s3_servers.moto_server import start_moto

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))


def sections_with_python() -> dict[str, list[str]]:
    """The Python blocks under each second-level heading; those of one section belong together."""
    found = {}
    for page in ["README.md", *PAGES]:
        text = (ROOT / page).read_text(encoding="utf-8")
        parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)[1:]
        for title, section in zip(parts[::2], parts[1::2], strict=True):
            found[f"{page}: {title}"] = blocks("python", section)
    return {title: code for title, code in found.items() if code}


@pytest.fixture
def s3_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with start_moto() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        yield


def run_block(code: str, namespace: dict[str, Any]) -> None:
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        assert statement.end_lineno is not None
        _, promises, promised = lines[statement.end_lineno - 1].partition("  # -> ")
        if promises:
            assert isinstance(statement, ast.Expr), f"nothing to compare with {promised!r}"
            expression = compile(
                ast.Expression(statement.value), "README.md", "eval", dont_inherit=True
            )
            assert repr(eval(expression, namespace)) == promised
        else:
            code_object = compile(
                ast.Module([statement], []), "README.md", "exec", dont_inherit=True
            )
            exec(code_object, namespace)


@pytest.mark.parametrize("title", sections_with_python())
def test_the_code_of_a_section_runs_and_yields_what_it_says(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    code = sections_with_python()[title]
    if any("S3Dict" in block for block in code):
        request.getfixturevalue("s3_in_the_environment")
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in code:
        run_block(block, namespace)


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_link_to_a_file_or_a_heading_leads_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """What headings are called in links."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_of_docs_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {Path(page).name for page in PAGES} - {"README.md", "index.md"}
    assert {page for page in pages if f"]({page})" not in index} == set()


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
