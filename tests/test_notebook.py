"""The notebook of the examples runs from its first cell to its last, and shows what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "look_around.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The cells of code, after a kernel has run them all."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": tmp_path_factory.mktemp("notebook")}}
    )
    client.execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def html_shown(cell: Any) -> str:
    return "".join(output.get("data", {}).get("text/html", "") for output in cell.outputs)


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


pytestmark = pytest.mark.slow


def test_a_dictionary_is_shown_as_a_table(executed: list[Any]) -> None:
    shown = html_shown(executed[0])
    assert "<b>FileDirDict</b>" in shown
    assert "30 items" in shown
    assert shown.count("<tr>") == 22


def test_the_last_cell_tells_what_was_measured(executed: list[Any]) -> None:
    assert printed(executed[-1]) == "2026 run-30 30\n"


def test_what_is_committed_has_no_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
