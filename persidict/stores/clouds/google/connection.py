"""How Google Cloud Storage is reached."""

from __future__ import annotations

import json
import os
from typing import Any, Final
from weakref import WeakValueDictionary

from google.cloud.storage import Client
from google.oauth2 import service_account

from persidict.stores.clouds.connection import ClientOfProcess, keep_connections
from persidict.stores.shared.secret import Secret, SecretObject, revealed

_clients: Final[WeakValueDictionary[tuple[Any, ...], ClientOfProcess[Client]]] = (
    WeakValueDictionary()
)


def shared_client(
    project: str | None,
    credentials: Secret | SecretObject | None,
    endpoint_url: str | None,
    max_concurrency: int,
) -> ClientOfProcess[Client]:
    """Return the library's client that all handles with the same parameters share.

    Args:
        project: The project that pays, None: that of the credentials.
        credentials: An object of google-auth or the JSON text of a service account's key,
            masked; None: what the environment offers.
        endpoint_url: Another server than Google's.
        max_concurrency: How many requests may be under way at once.
    """

    def make() -> Client:
        options = None if endpoint_url is None else {"api_endpoint": endpoint_url}
        client = Client(
            project=project, credentials=_credentials(credentials), client_options=options
        )
        keep_connections(client._http, max_concurrency)
        return client

    server = os.environ.get("STORAGE_EMULATOR_HOST") if endpoint_url is None else endpoint_url
    key = (project, credentials, server, max_concurrency)
    return _clients.setdefault(key, ClientOfProcess(make))


def _credentials(given: Secret | SecretObject | None) -> Any:
    if not isinstance(given, Secret):
        return revealed(given)
    keys: Any = service_account.Credentials  # which has no types
    try:
        return keys.from_service_account_info(json.loads(given.reveal()), scopes=Client.SCOPE)
    except ValueError as error:
        wrong = str(error)
    # what the libraries raise keeps the text
    raise ValueError(f"credentials must be the JSON text of a service account's key: {wrong}")
