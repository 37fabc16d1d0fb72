"""LocalStack's S3, a real and atomic implementation, in a virtual environment of its own."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from .child_process import Server, ServerUnavailable

REQUIRE = "PERSIDICT_REQUIRE_LOCALSTACK"
"""The environment variable that, set to 1, installs LocalStack and insists on it."""

_PACKAGES = (
    "localstack-core[base-runtime]==2026.3.0",
    "cbor2<6",
    "pyopenssl<26",
    "service-identity",
)
_PYTHONS = ("3.13", "3.14")
_SECONDS_TO_INSTALL = 900
_SECONDS_TO_START = 120
_ATTEMPTS_TO_START = 3
_SETTINGS = {
    "SERVICES": "s3",
    "STRICT_SERVICE_LOADING": "1",
    "EAGER_SERVICE_LOADING": "1",
    "GATEWAY_SERVER": "twisted",
    "DISABLE_EVENTS": "1",
    "SKIP_SSL_CERT_DOWNLOAD": "1",
    "DNS_ADDRESS": "0",
    "USE_SSL": "0",
    "LS_LOG": "warn",
    "PYTHONWARNINGS": "ignore",
}


class LocalStackServer(Server):
    """A running server; `start_localstack` makes one.

    Attributes:
        endpoint_url: Where it listens.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
        self._process = process
        self._directory = directory
        self.endpoint_url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        """End the process, and remove what it stored."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def start_localstack(*, install: bool) -> LocalStackServer:
    """Start a server on a free port of the loopback interface; it ends with this process.

    Args:
        install: Whether to install LocalStack (185 MB) into the user's cache directory when
            it is not there yet.

    Raises:
        ServerUnavailable: It is not installed, or can't be, or did not start.
    """
    python = _python_with_localstack(install=install)
    for _ in range(_ATTEMPTS_TO_START):
        server, complaint = _try_to_start(python)
        if server is not None:
            return server
    raise ServerUnavailable(f"LocalStack did not start: {complaint}")


def _try_to_start(python: Path) -> tuple[LocalStackServer | None, str]:
    port = _free_port()
    directory = Path(tempfile.mkdtemp(prefix="localstack-"))
    folders = {
        "HOME": directory / "home",
        "TMPDIR": directory / "tmp",
        "FILESYSTEM_ROOT": directory / "fs",
        "LOCALSTACK_VOLUME_DIR": directory / "fs" / "volume",
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    environment = {**os.environ, **_SETTINGS, "GATEWAY_LISTEN": f"127.0.0.1:{port}"}
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python, "-I", Path(__file__).with_name("localstack_main.py")],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**environment, **{name: str(path) for name, path in folders.items()}},
        )
    server = LocalStackServer(process, port, directory)
    if _becomes_ready(process, server.endpoint_url):
        return server, ""
    complaint = _last_line(log.read_text(errors="replace"))
    server.stop()
    return None, complaint


def _becomes_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and not _ends(process, within=0.05):
        try:
            with urlopen(f"{url}/_localstack/health", timeout=5):
                return True
        except OSError:
            continue
    return False


def _ends(process: subprocess.Popen[bytes], within: float) -> bool:
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _python_with_localstack(*, install: bool) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = _PACKAGES[0].rpartition("==")[2]
    environment = cache / "persidict-tests" / f"localstack-{version}"
    python = environment / "bin" / "python"
    is_complete = environment / "is-complete"
    if not is_complete.exists():
        if not install:
            raise ServerUnavailable(f"LocalStack is not installed; {REQUIRE}=1 installs it")
        environment.mkdir(parents=True, exist_ok=True)
        with _alone(environment / "lock"):
            if not is_complete.exists():
                _run([_find_python(), "-m", "venv", environment])
                _run([python, "-I", "-m", "pip", "install", "--quiet", *_PACKAGES])
                is_complete.touch()
    return python


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process at a time install."""
    try:
        import fcntl
    except ImportError as error:
        raise ServerUnavailable("LocalStack is started on POSIX systems only") from error
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_TO_INSTALL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerUnavailable(f"LocalStack could not be installed: {error}") from error
    if done.returncode:
        complaint = _last_line(done.stderr)
        raise ServerUnavailable(f"LocalStack could not be installed: {complaint}")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def _find_python() -> str:
    """Return a Python that LocalStack runs on: the environment's choice, PATH's, or pyenv's."""
    pyenv = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    candidates = [os.environ.get("PYTHON313", "")]
    candidates += [f"python{version}" for version in _PYTHONS]
    for version in _PYTHONS:
        candidates += sorted(glob.glob(f"{pyenv}/versions/{version}*/bin/python"), reverse=True)
    check = (
        "import sys, venv, ensurepip; print(sys.executable); sys.exit(sys.version_info < (3, 13))"
    )
    for candidate in filter(shutil.which, filter(None, candidates)):
        done = subprocess.run([candidate, "-c", check], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
    raise ServerUnavailable("LocalStack needs Python 3.13 or later, and there is none")
