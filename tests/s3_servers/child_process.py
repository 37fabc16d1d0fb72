"""Servers in child processes that never outlive their parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any, NoReturn, Self

CONTROL = "_control"
_IMPORT_ROOT = Path(__file__).resolve().parents[len(__name__.split(".")) - 1]


class ServerUnavailable(RuntimeError):
    """A server could not be started; the message says why."""


class Server(ABC):
    """Something that listens on loopback until it is stopped.

    Attributes:
        endpoint_url: Where clients connect to.
    """

    _endpoint_url: str

    @property
    def endpoint_url(self) -> str:
        return self._endpoint_url

    @endpoint_url.setter
    def endpoint_url(self, url: str) -> None:
        from persidict.stores.s3.transport import client

        self._endpoint_url = url
        # a server of another kind may have had the port before
        client._ETAG_FORMS.pop(url, None)

    @abstractmethod
    def stop(self) -> None:
        """Stop serving, at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class ChildProcess:
    """A Python process that runs one function of this package.

    The function receives `arguments`, tells what it has to tell with `announce`, and then
    calls `exit_with_parent`, for example.

    Args:
        module: The name of a module of this package.
        arguments: What its function `serve` is called with; JSON.

    Raises:
        ServerUnavailable: The process ended before it announced anything.
    """

    def __init__(self, module: str, arguments: dict[str, Any]) -> None:
        code = (
            f"import json, sys; from {__package__}.{module} import serve;"
            "serve(**json.loads(sys.argv[1]))"
        )
        path = [str(_IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )
        line = _pipe(self._process.stdout).readline()
        if not line:
            self.stop()
            raise ServerUnavailable(f"{module} ended at once; its standard error says why")
        self.announced: dict[str, Any] = json.loads(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def control(port: int, command: str, argument: Any = None) -> Any:
    """Send a command to a server that answers requests for the bucket `CONTROL` itself."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", f"/{CONTROL}/{command}", json.dumps(argument))
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def announce(**facts: Any) -> None:
    """Tell the parent that the server is ready, and where."""
    print(json.dumps(facts), flush=True)


def exit_with_parent() -> NoReturn:
    """Block until the parent is gone, then end this process."""
    sys.stdin.buffer.read()
    os._exit(0)


def watch_parent() -> None:
    """Do what `exit_with_parent` does in a thread of its own."""
    threading.Thread(target=exit_with_parent, daemon=True).start()
