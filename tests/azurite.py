"""Azurite, Microsoft's own emulator of Azure Blob Storage, on loopback and in memory."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

REQUIRE = "PERSIDICT_REQUIRE_AZURITE"
"""The environment variable that, set to 1, asks for Azurite; it is installed with npm."""

_PACKAGE = "azurite@3.37.0"
_SECONDS_TO_INSTALL = 600
_SECONDS_TO_START = 60
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The published key of every emulator."""


def _directory() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "persidict-tests" / _PACKAGE.replace("@", "-")


def _program() -> Path:
    return _directory() / "node_modules" / ".bin" / "azurite-blob"


def is_wanted() -> bool:
    """Tell whether the tests on Azurite are to be collected."""
    return os.environ.get(REQUIRE) == "1"


def _install() -> None:
    directory = _directory()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _program().exists():
            subprocess.run(
                ["npm", "install", "--silent", "--no-fund", "--no-audit", _PACKAGE],
                cwd=directory,
                check=True,
                timeout=_SECONDS_TO_INSTALL,
            )


class Azurite:
    """A running server; it ends with `stop`.

    Attributes:
        connection_string: What the library's clients connect with.
    """

    def __init__(self) -> None:
        _install()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = [
            "--inMemoryPersistence",
            "--silent",
            "--disableTelemetry",
            "--skipApiVersionCheck",
        ]
        options += ["--skipApiVersionCheck"]
        place = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
        self._process = subprocess.Popen(
            ["node", str(_program()), *options, *place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}/devstoreaccount1"
        self.connection_string = (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY};"
            f"BlobEndpoint={url}"
        )
        self._wait_until_it_answers(url)

    def _wait_until_it_answers(self, url: str) -> None:
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline:
            try:
                urlopen(url, timeout=5).close()
            except HTTPError:
                return
            except OSError:
                try:
                    self._process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
                break
        self.stop()
        raise RuntimeError("Azurite did not start")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
