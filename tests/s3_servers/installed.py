"""What all servers that are installed for the tests share: a directory, a process, free ports."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from .child_process import Server, ServerUnavailable

_SECONDS_TO_INSTALL = 900


class InstalledServer(Server):
    """The process of a server, with a directory of its own that goes when it is stopped.

    Args:
        command: What is run, in the directory.
        port: Where it will listen, on 127.0.0.1.
        directory: A new one, from `new_directory`.
        environment: What it sees beside this process's environment.

    Attributes:
        endpoint_url: Where it listens.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        port: int,
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self._log = directory / "log"
        with self._log.open("wb") as output:
            # the pipe ends with this process, which some servers watch
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **(environment or {})},
            )
        self.endpoint_url = f"http://127.0.0.1:{port}"

    def becomes_ready(self, path: str, within: float, *, may_refuse: bool) -> bool:
        """Wait until a path is answered; return False if the server ends or the time is over.

        Args:
            path: Below the endpoint.
            within: In seconds.
            may_refuse: Whether an error status shows that it is ready, for want of a signature.
        """
        deadline = time.monotonic() + within
        while time.monotonic() < deadline and not self._ends(within=0.05):
            try:
                urlopen(self.endpoint_url + path, timeout=5).close()
            except HTTPError as error:
                error.close()
                if not may_refuse:
                    continue
            except OSError:
                continue
            return True
        return False

    def _ends(self, within: float) -> bool:
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        return True

    def complaint(self) -> str:
        """Return the last line that it printed."""
        return last_line(self._log.read_text(errors="replace"))

    def stop(self) -> None:
        """End the process, and remove what it stored."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def installation(name: str) -> Path:
    """Return where a version of a server is installed: below the user's cache directory."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "persidict-tests" / name


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Make a directory, and let one process at a time install in it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    """Run a step of an installation.

    Raises:
        ServerUnavailable: It failed; with the last line that it printed.
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=_SECONDS_TO_INSTALL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerUnavailable(f"could not be installed: {error}") from error
    if done.returncode:
        raise ServerUnavailable(f"could not be installed: {last_line(done.stderr)}")


def new_directory(prefix: str) -> Path:
    """Make a directory for one server."""
    return Path(tempfile.mkdtemp(prefix=prefix))


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface on which nobody listens at this moment."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
