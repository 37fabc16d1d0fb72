"""A dictionary in Azure Blob Storage: one blob for each item."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from persidict.checks import check_text
from persidict.cloud_dict import CloudDict
from persidict.codecs import Codec
from persidict.codecs.codec import check_installed
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import AzureNaming
from persidict.protection import Protection
from persidict.stores.shared.secret import Secret, SecretURL, as_secret, mask, masked_url

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

    from persidict.stores.clouds.azure.store import AzureStore

_VARIABLE: Final = "AZURE_STORAGE_CONNECTION_STRING"


class AzureDict(CloudDict[ValueType]):
    """A persistent dictionary whose items are blobs in a container of Azure Blob Storage.

    Azure enforces conditions on every request, deletions included, and uses no ETag twice:
    all operations on one key are linearizable among all clients. A write whose answer got
    lost is recognised by a token in the blob's metadata; what cannot be known is raised as
    the library's own error, with the note "outcome unknown". Needs the extra ``azure``.

    Handles pickle as their parameters, credentials included, unless `credential` is an object
    that cannot be pickled.

    A blob is named like the object of a `BasicS3Dict`, but that ``%`` stands behind the dot of a
    part that ends with one and is not the last, where Azure would leave it out.

    Costs, in requests: reading, ``in``, `etag`, assignment, deletion and a change under a
    version that holds take 1; `transform_item`, `pop` and an unmet condition 2; a listing 1 for
    each 5000 items; `clear` 1 for each item besides.

    Args:
        container_name: The container; created if it is missing.
        account_url: The account, such as ``https://NAME.blob.core.windows.net``, or
        connection_string: everything that Azure's portal says in one text; one of the two, or
            neither: then the environment variable ``AZURE_STORAGE_CONNECTION_STRING``.
        credential: The account's key or a SAS token as a text, or an object of the library
            ``azure-identity``; None: what `connection_string` or the URL brings.
        root_prefix: What the names of all blobs begin with; a slash is put behind it.
        serialization_format: See PersiDict; also the extension of the names.
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of.
        create_container: Whether to create the container if it is missing.
        max_concurrency: How many requests may be under way at once.
        codec: How values become bytes, in place of what the format says; see StoredDict.
        protection: `Signed`, `Encrypted`, or None: whether stored bytes are trusted unseen.
        read_only: Whether this handle refuses to change items; see `read_only()`.

    Raises:
        ValueError: Both of `account_url` and `connection_string` are given, or neither and
            there is none in the environment.
        TypeError: A parameter is of a wrong type.
        azure.core.exceptions.AzureError: The container can be neither found nor created.
    """

    _bucket = "container"

    container_name: str

    def __init__(
        self,
        *,
        container_name: str,
        account_url: str | None = None,
        connection_string: str | Secret | None = None,
        credential: Any = None,
        root_prefix: str = "",
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        create_container: bool = True,
        max_concurrency: int = 32,
        codec: Codec | None = None,
        protection: Protection | None = None,
        read_only: bool = False,
    ) -> None:
        # subclasses call this by itself; whatever fails from here on shows no secret
        params = {
            "account_url": account_url,
            "connection_string": connection_string,
            "credential": credential,
        }
        self._mask(params)
        account_url, connection_string = params["account_url"], params["connection_string"]
        credential = params["credential"]
        super().__init__(
            root_prefix=root_prefix,
            max_concurrency=max_concurrency,
            create=create_container,
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            codec=codec,
            protection=protection,
            read_only=read_only,
        )
        check_text("container_name", container_name)
        if _has_secret(account_url):
            account_url = None
            raise ValueError(
                "account_url must have no query, and neither a user nor a password in it: give"
                " a shared access signature as credential"
            )
        if account_url is not None:
            check_text("account_url", account_url)
        given = as_secret("connection_string", connection_string)
        if account_url is not None and given is not None:
            raise ValueError("give either account_url or connection_string, not both")
        used = given if account_url is not None else given or _from_environment()
        if "\\" in self.root_prefix or "./" in self.root_prefix:
            raise ValueError(
                "root_prefix must have neither a backslash nor a dot before a slash, in which"
                f" Azure sees another name, it is {root_prefix!r}"
            )
        if serialization_format.endswith("."):
            raise ValueError(
                "serialization_format must not end with a dot, which Azure would leave out, it is"
                f" {serialization_format!r}"
            )
        self.container_name = container_name
        self.account_url = account_url
        self._connection_string = given
        self._credential = (
            as_secret("credential", credential)
            if credential is None or isinstance(credential, (str, Secret))
            else credential
        )
        check_installed("azure.storage.blob", needed_by="an AzureDict", extra="azure")
        from persidict.stores.clouds.azure.connection import container_of_process
        from persidict.stores.clouds.azure.store import AzureStore

        shared = container_of_process(
            container_name,
            account_url=account_url,
            connection_string=used,
            credential=self._credential,
            max_concurrency=max_concurrency,
        )
        new_store = partial(AzureStore, shared, container_name)
        self._connect(new_store, AzureNaming(serialization_format))

    @classmethod
    def _mask(cls, params: dict[str, Any]) -> None:
        super()._mask(params)
        mask(params, "connection_string", "credential")
        if _has_secret(params.get("account_url")):
            mask(params, "account_url")

    def _own_params(self) -> dict[str, Any]:
        return super()._own_params() | {
            "account_url": self.account_url,
            "connection_string": self._connection_string,
            "container_name": self.container_name,
            "credential": self._credential,
        }

    @property
    def container_client(self) -> ContainerClient:
        """The library's client of the container, in this process."""
        return cast("AzureStore", self._store).client


def _has_secret(url: Any) -> bool:
    if isinstance(url, str):
        return "?" in url or isinstance(masked_url(url), SecretURL)
    return isinstance(url, Secret)  # masked on the way in


def _from_environment() -> Secret:
    text = os.environ.get(_VARIABLE)
    if not text:
        raise ValueError(
            f"give account_url or connection_string, or set the environment variable {_VARIABLE}"
        )
    return Secret(text)
