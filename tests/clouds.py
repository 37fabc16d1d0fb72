"""Dictionaries in the clouds, on a server of each kind for a test process, and the way to them."""

from __future__ import annotations

import errno
import functools
import os
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any, Final, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.utils import rewind_body
from urllib3 import HTTPResponse
from urllib3.exceptions import ProtocolError

from persidict.azure_dict import AzureDict
from persidict.gcs_dict import GCSDict
from persidict.persi_dict import PersiDict
from tests import azurite
from tests.gcs_server import GCSServer

CONTAINER: Final = f"tests-{uuid.uuid4().hex[:12]}"

Mode = Literal[
    "lose the reply",
    "lose the request",
    "503",
    "500 after acting",
    "408 after acting",
    "200 after acting",
    "twice",
]
ACTED: Final[list[Mode]] = ["lose the reply", "500 after acting", "408 after acting", "twice"]
DID_NOTHING: Final[list[Mode]] = ["lose the request", "503"]
_AT_RANDOM = [mode for mode in get_args(Mode) if mode not in ("twice", "200 after acting")]
"""Where somebody else comes between, nobody can tell the second answer from a refusal."""


@functools.cache
def azure_server() -> azurite.Azurite:
    """Start Azurite; handles that lost their secrets in JSON find them in the environment."""
    server = azurite.Azurite()
    os.environ["AZURE_STORAGE_CONNECTION_STRING"] = server.connection_string
    return server


@functools.cache
def google_server() -> GCSServer:
    """Start a server of Google's interface, where all handles of this process find it."""
    server = GCSServer()
    os.environ["STORAGE_EMULATOR_HOST"] = server.url
    os.environ["GOOGLE_CLOUD_PROJECT"] = "tests"
    return server


def in_azure(**params: Any) -> AzureDict[Any]:
    """Make a dictionary below a prefix of its own on Azurite."""
    azure_server()
    return AzureDict(**{"container_name": CONTAINER, "root_prefix": uuid.uuid4().hex, **params})


def in_google(**params: Any) -> GCSDict[Any]:
    """Make a dictionary below a prefix of its own on the server of Google's interface."""
    google_server()
    return GCSDict(**{"bucket_name": CONTAINER, "root_prefix": uuid.uuid4().hex, **params})


CLOUDS: Final[dict[str, Callable[..., PersiDict[Any]]]] = {
    **({"azure": in_azure} if azurite.is_wanted() else {}),
    "google": in_google,
}
"""Where these tests run: on Azurite only where that is asked for."""


@dataclass
class Fault:
    """What goes wrong, once, with the next request of an operation."""

    operation: str
    mode: Mode
    meanwhile: Callable[[], object] = lambda: None


@dataclass
class Way:
    """What lies between the libraries and their servers.

    Attributes:
        operations: What has been sent so far, such as ``put``.
        faults: What is to go wrong.
        fault_rate: How many of all other requests something random happens to.
    """

    operations: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    fault_rate: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def send(
        self, send: Callable[..., requests.Response], request: requests.PreparedRequest
    ) -> requests.Response:
        """Carry a request to its server, or half the way."""
        operation = operation_of(request)
        self.operations.append(operation)
        fault = next((fault for fault in self.faults if fault.operation == operation), None)
        if fault is not None:
            self.faults.remove(fault)
        elif self.chance.random() < self.fault_rate:
            fault = Fault(operation, self.chance.choice(_AT_RANDOM))
        return send(request) if fault is None else _go_wrong(fault, send, request)


def _go_wrong(
    fault: Fault, send: Callable[..., requests.Response], request: requests.PreparedRequest
) -> requests.Response:
    if fault.mode in ("lose the reply", "twice") or fault.mode.endswith("after acting"):
        send(request).content  # noqa: B018 - read to its end
    fault.meanwhile()
    if fault.mode == "twice":
        if hasattr(request.body, "seek"):
            rewind_body(request)
        return send(request)
    if fault.mode in ("lose the reply", "lose the request"):
        reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        raise requests.ConnectionError(ProtocolError("Connection aborted.", reset))
    return _error(int(fault.mode[:3]), request)


def _error(status: int, request: requests.PreparedRequest) -> requests.Response:
    answer = requests.Response()
    answer.status_code, answer.reason = status, "Server Error"
    answer.request, answer.url = request, str(request.url)
    answer.raw = HTTPResponse(BytesIO(b""), status=status, preload_content=False)
    return answer


def operation_of(request: requests.PreparedRequest) -> str:
    """Tell what a request is for, in one word for both clouds."""
    parts = urlsplit(str(request.url))
    query = parse_qs(parts.query)
    kind = query.get("comp", query.get("uploadType", [""]))[0]
    is_whole = not str(request.headers.get("Content-Range", "")).endswith("/*")
    match request.method:
        case "GET" if kind == "list" or parts.path.endswith("/o"):
            return "list"
        case "GET" if "/storage/v1/" in parts.path and "alt" not in query:
            return "head"
        case "PUT" if "x-ms-copy-source" in request.headers:
            return "copy"
        case "POST" if "/rewriteTo/" in parts.path:
            return "copy"
        case "PUT" | "POST":
            is_part = kind == "block" or (kind == "resumable" and request.method == "POST")
            return "part" if is_part or not is_whole else "put"
    return str(request.method).lower()


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    """Let all requests of this process to the clouds take a way that notes and breaks them."""
    found, send = Way(), HTTPAdapter.send

    def carry(adapter: HTTPAdapter, request: requests.PreparedRequest, **options: Any) -> Any:
        return found.send(partial(send, adapter, **options), request)

    monkeypatch.setattr(HTTPAdapter, "send", carry)
    yield found
    assert found.faults == [], "a fault was planned that nothing met"


@pytest.fixture
def breaks(way: Way) -> Callable[[str, Mode], Fault]:
    """Return what plans that something goes wrong with the next request of an operation."""

    def break_next(operation: str, mode: Mode) -> Fault:
        fault = Fault(operation, mode)
        way.faults.append(fault)
        return fault

    return break_next
