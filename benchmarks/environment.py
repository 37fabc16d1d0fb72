"""Where a benchmark ran: machine, file system, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path


def describe(directory: str, libraries: Iterable[str]) -> str:
    """Return a Markdown list of what the results depend on.

    Args:
        directory: Where files are written.
        libraries: The distributions whose versions matter.
    """
    facts = {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.platform()}",
        "load when it started": _load(),
        "files": f"on {_file_system(directory)}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join(f"{name} {_version(name)}" for name in libraries),
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _processor() -> str:
    """Return the processor's model name, which only Linux's /proc/cpuinfo tells in words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _load() -> str:
    if not hasattr(os, "getloadavg"):
        return "unknown"
    return f"{os.getloadavg()[0]:.1f}"


def _file_system(directory: str) -> str:
    """Return the type of the file system that a directory is on, as Linux tells it."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "a file system of unknown type"
    mounts = [line.split()[1:3] for line in lines]
    path = os.path.realpath(directory)
    holding = [(at, kind) for at, kind in mounts if os.path.commonpath([at, path]) == at]
    return max(holding, key=lambda mount: len(mount[0]))[1]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
