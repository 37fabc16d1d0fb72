"""persidict 0.309 as it was published, in a virtual environment of its own.

It is a black box: installed, and driven from outside by `benchmarks.worker`.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.harness import Bench
from benchmarks.peers import PeerUnavailable
from benchmarks.worker import Worker, WorkerError

NAME: Final = "persidict 0.309"
_REQUIREMENT: Final = "persidict==0.309.*"
_INSTALL_SECONDS: Final = 600
_SHARED: Final = ("boto3", "numpy")
"""Libraries that must be of the same version on both sides, or they would be what differs."""


def start(bench: Bench, environment: Mapping[str, str] | None = None) -> Worker:
    """Start a process that has imported 0.309 as `persidict`.

    Args:
        bench: Says where the virtual environment is; it is made if it is missing.
        environment: Environment variables in addition to those of this process.

    Raises:
        PeerUnavailable: The environment cannot be made or used.
    """
    python = _python(bench.environments)
    worker = Worker(python, environment=environment, isolated=True)
    try:
        worker.execute("import persidict")
    except WorkerError as error:
        worker.stop()
        raise PeerUnavailable(f"because it cannot be imported ({error})") from error
    return worker


def versions(bench: Bench) -> str:
    """Return the versions of 0.309 and of what it runs on, or why there are none."""
    try:
        worker = start(bench)
    except PeerUnavailable as reason:
        return f"not measured, {reason}"
    with worker:
        worker.execute("from importlib.metadata import version; import sys")
        named = [f"Python {worker.evaluate('sys.version.split()[0]')}"]
        for name in ("persidict", "boto3", "joblib", "numpy", "jsonpickle"):
            named.append(f"{name} {worker.evaluate(f'version({name!r})')}")
    return ", ".join(named)


def _python(environments: Path | None) -> Path:
    """Return the interpreter of the virtual environment, which is made at first use."""
    if environments is None:
        raise PeerUnavailable("because a quick run makes no environment for it")
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in _SHARED]
    place = environments.resolve() / "-".join(["0.309", *pins, f"py{sys.version_info[1]}"])
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = place / "complete"
    if not complete.exists():
        print(f"  making an environment for {NAME} ...", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", place])
        _run([python, "-m", "pip", "install", "--quiet", _REQUIREMENT, *pins])
        complete.touch()
    return python


def _run(command: list[str | Path]) -> None:
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no message"]
        raise PeerUnavailable(f"because it cannot be installed ({lines[-1]})") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailable(f"because it cannot be installed ({error})") from error
