"""Python processes that run statements when they are told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.harness import Measure

_SCRIPT = Path(__file__).with_name("worker_main.py")


class WorkerError(RuntimeError):
    """A statement failed in a worker; the message is that of its exception."""


class Worker:
    """A process that keeps names between statements, and times them by its own clock.

    Args:
        python: The interpreter; by default the one that runs this.
        environment: Environment variables in addition to those of this process.
        isolated: Whether the interpreter leaves PYTHONPATH and the user's packages aside.
    """

    def __init__(
        self,
        python: str | os.PathLike[str] = sys.executable,
        *,
        environment: Mapping[str, str] | None = None,
        isolated: bool = False,
    ) -> None:
        self._process = subprocess.Popen(
            [python, *(["-I"] if isolated else []), _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            text=True,
        )

    def execute(self, code: str) -> None:
        """Run code, whose names stay."""
        self.send("execute", code)
        self.receive()

    def evaluate(self, code: str) -> Any:
        """Return the value of an expression, as JSON can hold it."""
        self.send("evaluate", code)
        return self.receive()

    def timed(self, statement: str) -> Measure:
        """Measure a statement in the worker, as `benchmarks.harness.timed` does here."""

        def measure(number: int) -> float:
            self.send("time", statement, number)
            return float(self.receive())

        return measure

    def send(self, *command: Any) -> None:
        """Give the worker something to do, and do not wait."""
        stream = _pipe(self._process.stdin)
        stream.write(f"{json.dumps(command)}\n")
        stream.flush()

    def receive(self) -> Any:
        """Wait until the worker has done what it was given first.

        Raises:
            WorkerError: It failed, or the process has ended.
        """
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise WorkerError("the process has ended; its standard error says why")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply["value"]

    def stop(self) -> None:
        """End the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def together(workers: Sequence[Worker], statement: str) -> Measure:
    """Measure how long it takes until all workers have run a statement side by side."""

    def measure(number: int) -> float:
        start = time.perf_counter()
        for worker in workers:
            worker.send("time", statement, number)
        for worker in workers:
            worker.receive()
        return time.perf_counter() - start

    return measure


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
