"""URLs of blobs that are signed for a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from azure.storage.blob import BlobServiceClient, ContainerClient, generate_blob_sas

_PERMISSIONS: Final = {"GET": "r", "HEAD": "r", "PUT": "cw", "DELETE": "d"}
"""What a URL for one method allows: to read, create, write or delete."""

_CLOCKS_DIFFER_BY: Final = timedelta(minutes=15)
"""How far back a signed URL begins to hold, as Microsoft advises."""


def signed_url(container: ContainerClient, name: str, method: str, expires: int) -> str:
    """Return a URL for one method; see `CloudStore.signed_url`.

    With the account's key it is signed here. With an object of ``azure-identity`` one request
    asks for a key that holds as long (a user delegation key).
    """
    begin = datetime.now(UTC) - _CLOCKS_DIFFER_BY
    end = datetime.now(UTC) + timedelta(seconds=expires)
    blob = container.get_blob_client(name)
    signature = generate_blob_sas(
        blob.account_name or "",
        blob.container_name,
        blob.blob_name,
        permission=_PERMISSIONS[method],
        start=begin,
        expiry=end,
        protocol="https" if blob.url.startswith("https:") else None,
        **_key(container, begin, end),
    )
    return f"{blob.url.partition('?')[0]}?{signature}"


def account_key(container: ContainerClient) -> str | None:
    """Return the account's key, if that is what a client authenticates itself with."""
    key: str | None = getattr(container.credential, "account_key", None)
    return key


def _key(container: ContainerClient, begin: datetime, end: datetime) -> dict[str, Any]:
    known = account_key(container)
    if known is not None:
        return {"account_key": known}
    if not hasattr(container.credential, "get_token"):
        raise TypeError(
            "a URL is signed with the account's key or an object of azure-identity;"
            " a SAS token cannot sign: pass another credential"
        )
    account_url = f"{container.scheme}://{container.primary_hostname}"
    with BlobServiceClient(account_url, credential=container.credential) as service:
        return {"user_delegation_key": service.get_user_delegation_key(begin, end)}
