"""Blobs in a container of Azure Blob Storage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import requests
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ResourceExistsError,
    ResourceModifiedError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import (
    BlobPrefix,
    BlobProperties,
    BlobSasPermissions,
    BlobServiceClient,
    ContainerClient,
    ContentSettings,
    generate_blob_sas,
)

from persidict.jokers_and_status_flags import ETagIfExists, ETagValue, ItemNotAvailableFlag
from persidict.stores.clouds.connection import ClientOfProcess, keep_connections, never_left
from persidict.stores.clouds.store import METADATA_KEY, CloudStore, Kind, Trouble, by_itself
from persidict.stores.object_store import Buffer, CommonPrefix, ObjectInfo, ObjectStore
from persidict.stores.shared.secret import Secret, revealed

_NO_REPEATING: Final[dict[str, Any]] = {"retry_total": 0}
"""Has the library send a request once: whether it may be repeated is decided here."""

_SECONDS_FOR_A_COPY: Final = 900
_SOON: Final[dict[str, Any]] = {"initial_backoff": 0, "increment_base": 2, "random_jitter_range": 1}
"""When the library repeats a page of a listing: not 15 seconds later, as by itself."""

_SIGNATURE: Final = re.compile(r"([?&]sig=)[^&\s'\")]+")
_NOT_FOUND: Final = 404
_LARGEST_PUT: Final = 5000 * 1024 * 1024
"""What one request may write: in parts, two writers of one blob get into each other's way."""


_PERMISSIONS: Final = {
    "GET": BlobSasPermissions(read=True),
    "HEAD": BlobSasPermissions(read=True),
    "PUT": BlobSasPermissions(create=True, write=True),
    "DELETE": BlobSasPermissions(delete=True),
}
"""What a URL for one method allows."""

_CLOCKS_DIFFER_BY: Final = timedelta(minutes=15)
"""How far back a signed URL begins to hold, as Microsoft advises."""


def _kind_of(error: AzureError) -> Kind:
    match getattr(error, "status_code", None), getattr(error, "error_code", None):
        case 304, _:
            return Kind.UNCHANGED  # the library takes it for an unmet condition
        case 404, "BlobNotFound":
            return Kind.ABSENT
        case 412, "ConditionNotMet" | "TargetConditionNotMet":
            return Kind.UNMET
        case 409, "BlobAlreadyExists":
            return Kind.UNMET
        case ((429 | 503), _):
            return Kind.TURNED_AWAY
        case int(status), _:
            return Kind.LOST if status >= 500 else Kind.FAILED
    return Kind.NOT_DONE if never_left(error) else Kind.LOST


@contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except AzureError as error:
        kind = _kind_of(error)
        _hush(error)
        raise Trouble(kind, error) from None


def _hush(error: AzureError) -> None:
    """Mask the signature in what an error tells: that of a SAS token is in every URL."""
    error.message = _SIGNATURE.sub(r"\1***", error.message)
    error.args = (error.message,)
    error.inner_exception = error.exc_value = error.exc_traceback = None
    error.exc_msg = error.message
    request = getattr(getattr(error, "response", None), "request", None)
    if request is not None:
        request.url = _SIGNATURE.sub(r"\1***", request.url)


def _quoted(etag: Any) -> ETagValue:
    text = str(etag)
    return ETagValue(text if text.endswith('"') else f'"{text}"')


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


class AzureStore(CloudStore):
    """Blobs below a prefix of a container; ETags are Azure's own.

    Args:
        shared: The library's client of the container, for each process.
        prefix: What all names begin with.
        content_type: The media type of what is written.
        max_concurrency: How many requests may be under way at once.
    """

    _etag_form = re.compile(r'"[!#-)+-~]{1,128}"')  # any blob would be a *
    _no_etag = ETagValue('"0x0"')

    def __init__(
        self,
        shared: ClientOfProcess[ContainerClient],
        *,
        prefix: str,
        content_type: str,
        max_concurrency: int,
    ) -> None:
        super().__init__(prefix=prefix, max_concurrency=max_concurrency)
        self._shared = shared
        self._content_settings = ContentSettings(content_type=content_type)

    @property
    def container(self) -> ContainerClient:
        """The library's client of the container."""
        return self._shared.client

    def ensure_container(self) -> None:
        """Create the container if it is missing; losing the race to do so is fine."""
        with by_itself(), _typed(), suppress(ResourceExistsError):
            if not self.container.exists():
                self.container.create_container()

    def _info(self, name: str, properties: BlobProperties) -> tuple[ObjectInfo, str | None]:
        modified = properties.last_modified
        assert modified is not None
        info = ObjectInfo(
            name, _quoted(properties.etag), int(properties.size or 0), modified.timestamp()
        )
        return info, (properties.metadata or {}).get(METADATA_KEY)

    def _send_head(self, name: str) -> tuple[ObjectInfo, str | None]:
        with _typed():
            blob = self.container.get_blob_client(self._prefix + name)
            return self._info(name, blob.get_blob_properties(**_NO_REPEATING))

    def _send_get(
        self, name: str, if_none_match: ETagValue | None
    ) -> tuple[Buffer, ObjectInfo, str | None]:
        condition: dict[str, Any] = {}
        if if_none_match is not None:
            condition = {"etag": if_none_match, "match_condition": MatchConditions.IfModified}
        with _typed():
            blob = self.container.get_blob_client(self._prefix + name)
            downloader = blob.download_blob(**condition, **_NO_REPEATING)
            try:
                data: bytes = downloader.readall()
            except ResourceModifiedError as error:  # between two parts of a large one
                raise Trouble(Kind.NOT_DONE, error) from None
        return data, *self._info(name, downloader.properties)

    def _send_put(
        self, name: str, data: Buffer, lineage: str, expected: ETagIfExists | None
    ) -> ETagValue:
        condition: dict[str, Any] = {}
        if isinstance(expected, ItemNotAvailableFlag):
            condition = {"match_condition": MatchConditions.IfMissing}
        elif expected is not None:
            condition = {"etag": expected, "match_condition": MatchConditions.IfNotModified}
        with _typed():
            reply = self.container.get_blob_client(self._prefix + name).upload_blob(
                data if isinstance(data, bytes) else bytes(data),
                overwrite=True,
                metadata={METADATA_KEY: lineage},
                content_settings=self._content_settings,
                **condition,
                **_NO_REPEATING,
            )
        return _quoted(reply["etag"])

    def _send_delete(self, name: str, if_match: ETagValue | None) -> None:
        condition: dict[str, Any] = {}
        if if_match is not None:
            condition = {"etag": if_match, "match_condition": MatchConditions.IfNotModified}
        with _typed():
            blob = self.container.get_blob_client(self._prefix + name)
            blob.delete_blob(**condition, **_NO_REPEATING)

    def _send_list(
        self,
        prefix: str,
        delimiter: str | None,
        page_size: int | None,
        start_after: str | None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        options: dict[str, Any] = {
            "name_starts_with": prefix,
            "results_per_page": page_size,
            "start_from": start_after,
        }
        with _typed():
            entries: Any = (
                self.container.list_blobs(**options)
                if delimiter is None
                else self.container.walk_blobs(delimiter=delimiter, **options)
            )
            for entry in entries:
                if isinstance(entry, BlobPrefix):
                    yield CommonPrefix(entry.name)
                else:
                    yield self._info(entry.name, entry)[0]

    # ------------------------------------------------------------------ signed URLs

    def signed_url(self, name: str, method: str, expires: int) -> str:
        """Return a URL with which anybody can send requests of one method for a while.

        With the account's key it is signed here. With an object of ``azure-identity`` one request
        asks for a key that holds as long (a user delegation key).

        Args:
            name: The object's name.
            method: ``"GET"``, ``"HEAD"``, ``"PUT"`` or ``"DELETE"``.
            expires: For how many seconds.

        Raises:
            TypeError: The client has nothing to sign with: a SAS token, or nothing.
        """
        blob = self.container.get_blob_client(self._prefix + name)
        begin = datetime.now(UTC) - _CLOCKS_DIFFER_BY
        end = datetime.now(UTC) + timedelta(seconds=expires)
        signature = generate_blob_sas(
            blob.account_name or "",
            blob.container_name,
            blob.blob_name,
            permission=_PERMISSIONS[method],
            start=begin,
            expiry=end,
            protocol="https" if blob.url.startswith("https:") else None,
            **self._signing_key(begin, end),
        )
        return f"{blob.url.partition('?')[0]}?{signature}"

    def _signing_key(self, begin: datetime, end: datetime) -> dict[str, Any]:
        credential = self.container.credential
        account_key = getattr(credential, "account_key", None)
        if account_key is not None:
            return {"account_key": account_key}
        if not hasattr(credential, "get_token"):
            raise TypeError(
                "a URL is signed with the account's key or an object of azure-identity;"
                " a SAS token cannot sign: pass another credential"
            )
        account_url = f"{self.container.scheme}://{self.container.primary_hostname}"
        with BlobServiceClient(account_url, credential=credential) as service:
            return {"user_delegation_key": service.get_user_delegation_key(begin, end)}

    # ------------------------------------------------------------------ copying

    def can_copy_from(self, source: ObjectStore) -> bool:
        """Tell whether another store is in the same account; see `CopiesInside`."""
        if not isinstance(source, AzureStore):
            return False
        mine, theirs = self.container, source.container
        return (theirs.primary_hostname, theirs.account_name) == (
            mine.primary_hostname,
            mine.account_name,
        ) and getattr(theirs.credential, "account_key", None) is not None

    def _send_copy(
        self, source: CloudStore, source_name: str, name: str, lineage: str
    ) -> ETagValue | None:
        assert isinstance(source, AzureStore)
        url = source.signed_url(source_name, "GET", _SECONDS_FOR_A_COPY)
        try:
            with _typed():
                reply = self.container.get_blob_client(self._prefix + name).start_copy_from_url(
                    url,
                    metadata={METADATA_KEY: lineage},
                    requires_sync=True,  # the other way shows what is not whole yet
                    **_NO_REPEATING,
                )
        except Trouble as trouble:
            if getattr(trouble.error, "status_code", None) == _NOT_FOUND:
                source.head(source_name)
            if trouble.kind in (Kind.ABSENT, Kind.FAILED, Kind.UNMET):
                return None  # one that is too large (256 MiB), for example
            raise
        return _quoted(reply["etag"])

    def location(self, name: str) -> str:
        return f"az://{self.container.container_name}/{self._prefix}{name}"
