"""Azurite, Microsoft's own emulator of Azure Blob Storage, on loopback and in memory."""

from __future__ import annotations

import os
from pathlib import Path

from tests.s3_servers.child_process import ServerUnavailable
from tests.s3_servers.installed import (
    InstalledServer,
    alone,
    free_ports,
    installation,
    new_directory,
    run,
)

REQUIRE = "PERSIDICT_REQUIRE_AZURITE"
"""The environment variable that, set to 1, asks for Azurite; it is installed with npm."""

_PACKAGE = "azurite@3.37.0"
_DIRECTORY = installation(_PACKAGE.replace("@", "-"))
_SECONDS_TO_START = 60
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The published key of every emulator."""


_WHILE_WANTED = "process.stdin.resume().on('end', process.exit); require(process.argv[1])"
"""Runs a program until its standard input ends, which it does with this process."""


def _program() -> Path:
    return _DIRECTORY / "node_modules" / ".bin" / "azurite-blob"


def is_wanted() -> bool:
    """Tell whether the tests on Azurite are to be collected."""
    return os.environ.get(REQUIRE) == "1"


def install() -> None:
    """Install it into the user's cache directory, unless it is there; needs npm."""
    with alone(_DIRECTORY):
        if not _program().exists():
            command = ["npm", "install", "--silent", "--no-fund", "--no-audit", _PACKAGE]
            run(command, cwd=_DIRECTORY)


class Azurite(InstalledServer):
    """A running server; it ends with this process, or with `stop`.

    Attributes:
        connection_string: What the library's clients connect with.
    """

    def __init__(self) -> None:
        install()
        (port,) = free_ports(1)
        options = ["--inMemoryPersistence", "--silent", "--disableTelemetry"]
        options += ["--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        command = ["node", "-e", _WHILE_WANTED, _program(), *options]
        super().__init__(command, port, new_directory("azurite-"))
        self.connection_string = (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY};"
            f"BlobEndpoint={self.endpoint_url}/devstoreaccount1"
        )
        if not self.becomes_ready("/devstoreaccount1", _SECONDS_TO_START, may_refuse=True):
            complaint = self.complaint()
            self.stop()
            raise ServerUnavailable(f"Azurite did not start: {complaint}")
