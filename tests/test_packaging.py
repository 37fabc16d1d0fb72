"""What is shipped, and what importing it costs."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import persidict

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def names_in_wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    (wheel,) = WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
    )
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def modules_loaded_by_import() -> set[str]:
    code = "import sys, persidict; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("heavy", ["boto3", "botocore", "numpy", "pandas", "joblib", "jsonpickle"])
def test_importing_persidict_does_not_load(heavy: str, modules_loaded_by_import: set[str]) -> None:
    assert "persidict" in modules_loaded_by_import
    assert heavy not in modules_loaded_by_import


def test_the_version_is_the_one_that_is_installed() -> None:
    assert persidict.__version__ == importlib.metadata.version("persidict")


def test_the_version_that_is_installed_is_the_one_in_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert importlib.metadata.version("persidict") == project["version"]


def test_the_wheel_tells_type_checkers_that_it_is_typed(names_in_wheel: set[str]) -> None:
    assert "persidict/py.typed" in names_in_wheel


def test_the_wheel_holds_every_module_of_the_package(names_in_wheel: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "persidict").rglob("*.py")}
    assert modules <= names_in_wheel


def test_the_wheel_holds_nothing_but_the_package_and_its_metadata(names_in_wheel: set[str]) -> None:
    tops = {name.split("/")[0] for name in names_in_wheel}
    assert {top.split("-")[0] for top in tops} == {"persidict"}
