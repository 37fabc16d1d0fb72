"""LocalStack's S3, a real and atomic implementation, in a virtual environment of its own."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from pathlib import Path

from .child_process import ServerUnavailable
from .installed import InstalledServer, alone, free_ports, installation, new_directory, run

REQUIRE = "PERSIDICT_REQUIRE_LOCALSTACK"
"""The environment variable that, set to 1, installs LocalStack and insists on it."""

_PACKAGES = (
    "localstack-core[base-runtime]==2026.3.0",
    "cbor2<6",
    "pyopenssl<26",
    "service-identity",
)
_PYTHONS = ("3.13", "3.14")
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


def start_localstack(*, may_install: bool) -> InstalledServer:
    """Start a server on a free port of the loopback interface; it ends with this process.

    Args:
        may_install: Whether to install it when it is not there yet; see `install`.

    Raises:
        ServerUnavailable: It is not installed, or can't be, or did not start.
    """
    if not (may_install or _is_complete()):
        raise ServerUnavailable(f"LocalStack is not installed; {REQUIRE}=1 installs it")
    python = install()
    for _ in range(_ATTEMPTS_TO_START):
        server, complaint = _try_to_start(python)
        if server is not None:
            return server
    raise ServerUnavailable(f"LocalStack did not start: {complaint}")


def _try_to_start(python: Path) -> tuple[InstalledServer | None, str]:
    (port,) = free_ports(1)
    directory = new_directory("localstack-")
    folders = {
        "HOME": directory / "home",
        "TMPDIR": directory / "tmp",
        "FILESYSTEM_ROOT": directory / "fs",
        "LOCALSTACK_VOLUME_DIR": directory / "fs" / "volume",
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    environment = {**_SETTINGS, "GATEWAY_LISTEN": f"127.0.0.1:{port}"}
    environment |= {name: str(path) for name, path in folders.items()}
    main = Path(__file__).with_name("localstack_main.py")
    server = InstalledServer([python, "-I", main], port, directory, environment)
    if server.becomes_ready("/_localstack/health", _SECONDS_TO_START, may_refuse=False):
        return server, ""
    complaint = server.complaint()
    server.stop()
    return None, complaint


def install() -> Path:
    """Install it (185 MB) where `installation` says, unless it is there; return its Python."""
    directory, python = _installation(), _installation() / "bin" / "python"
    with alone(directory):
        if not _is_complete():
            run([_find_python(), "-m", "venv", directory])
            run([python, "-I", "-m", "pip", "install", "--quiet", *_PACKAGES])
            (directory / "is-complete").touch()
    return python


def _installation() -> Path:
    return installation(f"localstack-{_PACKAGES[0].rpartition('==')[2]}")


def _is_complete() -> bool:
    return (_installation() / "is-complete").exists()


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
