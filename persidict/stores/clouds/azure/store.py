"""A store of blobs in a container of Azure Blob Storage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import (
    BlobClient,
    BlobPrefix,
    BlobProperties,
    ContainerClient,
    ContentSettings,
)

from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.clouds.azure.errors import trouble_of
from persidict.stores.clouds.azure.signing import account_key, signed_url
from persidict.stores.clouds.outcome import Kind
from persidict.stores.clouds.store import METADATA_KEY, CloudStore, Listing
from persidict.stores.object_store import Buffer, CommonPrefix, ObjectInfo, ObjectStore

_ONCE: Final[dict[str, Any]] = {"retry_total": 0}
"""Has the library send a request once: whether it may be repeated is decided elsewhere."""

_SECONDS_FOR_A_COPY: Final = 900
_NOT_FOUND: Final = 404


class AzureStore(CloudStore[ContainerClient]):
    """Blobs below a prefix of a container; ETags are Azure's own."""

    _scheme = "az"
    _errors = (AzureError,)
    _trouble_of = staticmethod(trouble_of)
    _etag_form = re.compile(r'"[!#-)+-~]{1,128}"')  # any blob would be a *
    _no_etag = ETagValue('"0x0"')

    def ensure_bucket(self) -> None:
        with self._hushed(), suppress(ResourceExistsError):
            if not self.client.exists():
                self.client.create_container()

    def _blob(self, name: str) -> BlobClient:
        return self.client.get_blob_client(self._prefix + name)

    def _send_head(self, name: str) -> tuple[ObjectInfo, str | None]:
        return _info(name, self._blob(name).get_blob_properties(**_ONCE))

    def _send_get(
        self, name: str, if_none_match: ETagValue | None
    ) -> tuple[Buffer, ObjectInfo, str | None]:
        condition: dict[str, Any] = {}
        if if_none_match is not None:
            condition = {"etag": if_none_match, "match_condition": MatchConditions.IfModified}
        downloader = self._blob(name).download_blob(**condition, **_ONCE)
        data: bytes = downloader.readall()
        return data, *_info(name, downloader.properties)

    def _send_put(
        self, name: str, data: Buffer, lineage: str, expected: ETagIfExists | None
    ) -> ETagValue:
        reply = self._blob(name).upload_blob(
            data if isinstance(data, bytes) else bytes(data),
            overwrite=True,
            metadata={METADATA_KEY: lineage},
            content_settings=ContentSettings(content_type=self._content_type),
            **_only_over(expected),
            **_ONCE,
        )
        return _quoted(reply["etag"])

    def _send_delete(self, name: str, if_match: ETagValue | None) -> None:
        self._blob(name).delete_blob(**_only_over(if_match), **_ONCE)

    def _send_list(self, wanted: Listing) -> Iterator[Iterable[ObjectInfo | CommonPrefix]]:
        options: dict[str, Any] = {
            "name_starts_with": wanted.prefix,
            "results_per_page": wanted.page_size,
            "start_from": wanted.start_after,
        }
        entries: Any = (
            self.client.list_blobs(**options)
            if wanted.delimiter is None
            else self.client.walk_blobs(delimiter=wanted.delimiter, **options)
        )
        for page in entries.by_page():
            yield [
                CommonPrefix(entry.name)
                if isinstance(entry, BlobPrefix)
                else _info(entry.name, entry)[0]
                for entry in page
            ]

    def can_copy_from(self, source: ObjectStore) -> bool:
        """Tell whether another store is in the same account; see `CopiesInside`."""
        if not isinstance(source, AzureStore) or account_key(source.client) is None:
            return False
        accounts = {(c.primary_hostname, c.account_name) for c in (self.client, source.client)}
        return len(accounts) == 1

    def _send_copy(
        self, source: CloudStore[ContainerClient], source_name: str, name: str, lineage: str
    ) -> ETagValue | None:
        try:
            reply = self._blob(name).start_copy_from_url(
                source.signed_url(source_name, "GET", _SECONDS_FOR_A_COPY),
                metadata={METADATA_KEY: lineage},
                requires_sync=True,  # the other way shows what is not whole yet
                **_ONCE,
            )
        except AzureError as error:
            trouble = trouble_of(error)
            if getattr(error, "status_code", None) == _NOT_FOUND:
                source.head(source_name)
            if trouble.kind in (Kind.ABSENT, Kind.FAILED, Kind.UNMET):
                return None  # one that is too large (256 MiB), for example
            raise
        return _quoted(reply["etag"])

    def signed_url(self, name: str, method: str, expires: int) -> str:
        return signed_url(self.client, self._prefix + name, method, expires)


def _only_over(expected: ETagIfExists | None) -> dict[str, Any]:
    """Return the condition that a blob, or its absence, is what is expected, if anything is."""
    if expected is None:
        return {}
    if isinstance(expected, str):
        return {"etag": expected, "match_condition": MatchConditions.IfNotModified}
    return {"match_condition": MatchConditions.IfMissing}


def _quoted(etag: Any) -> ETagValue:
    text = str(etag)
    return ETagValue(text if text.endswith('"') else f'"{text}"')


def _info(name: str, blob: BlobProperties) -> tuple[ObjectInfo, str | None]:
    assert blob.last_modified is not None
    written = blob.last_modified.timestamp()
    info = ObjectInfo(name, _quoted(blob.etag), int(blob.size or 0), written)
    return info, (blob.metadata or {}).get(METADATA_KEY)
