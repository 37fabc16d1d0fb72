"""How a container of Azure is reached."""

from __future__ import annotations

from typing import Any, Final

import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient

from persidict.stores.clouds.connection import ClientOfProcess, keep_connections
from persidict.stores.shared.secret import Secret, revealed

_SOON: Final[dict[str, Any]] = {"initial_backoff": 0, "increment_base": 2, "random_jitter_range": 1}
"""When the library repeats a page of a listing: not 15 seconds later, as by itself."""

_LARGEST_PUT: Final = 5000 * 1024 * 1024
"""What one request may write: in parts, two writers of one blob get into each other's way."""


def container_of_process(
    name: str,
    *,
    account_url: str | None,
    connection_string: Secret | None,
    credential: Any,
    max_concurrency: int,
) -> ClientOfProcess[ContainerClient]:
    """Return a client of a container, made when it is first needed in a process."""

    def make() -> ContainerClient:
        session = requests.Session()
        keep_connections(session, max_concurrency)
        options: dict[str, Any] = {
            "transport": RequestsTransport(session=session),
            "max_single_put_size": _LARGEST_PUT,
            **_SOON,
        }
        try:
            if connection_string is None:
                return ContainerClient(account_url or "", name, revealed(credential), **options)
            return ContainerClient.from_connection_string(
                connection_string.reveal(), name, revealed(credential), **options
            )
        except ValueError as error:
            wrong = str(error)
        raise ValueError(wrong)  # in whose frames all is masked

    return ClientOfProcess(make)
