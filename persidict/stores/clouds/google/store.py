"""A store of objects in a bucket of Google Cloud Storage."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from google.api_core.exceptions import Conflict, Forbidden, NotFound
from google.cloud.storage import Client
from google.cloud.storage.retry import DEFAULT_RETRY

from persidict.exceptions import BackendError, ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.clouds.connection import ClientOfProcess
from persidict.stores.clouds.google.conditions import GCSCapabilities, enforces_conditions
from persidict.stores.clouds.google.errors import FROM_THE_LIBRARY, trouble_of
from persidict.stores.clouds.google.generations import LARGEST, generation, info_of, time_of
from persidict.stores.clouds.outcome import Kind
from persidict.stores.clouds.store import METADATA_KEY, CloudStore, Listing
from persidict.stores.object_store import Buffer, CommonPrefix, ObjectInfo, ObjectStore

_ONCE: Final[dict[str, Any]] = {"retry": None}
"""Has the library send a request once: whether it may be repeated is decided elsewhere."""

_BRIEFLY: Final = DEFAULT_RETRY.with_timeout(10.0)
"""How long a server that cannot be reached is tried for a bucket; by itself, for two minutes."""

_FIELDS: Final = "items(name,generation,size,timeCreated),prefixes,nextPageToken"
_GOOGLE: Final = "https://storage.googleapis.com"

_LONGEST_DOUBT: Final = 600.0
"""For how many seconds a writer may be looking for what became of its write."""


class GCSStore(CloudStore[Client]):
    """Objects below a prefix of a bucket; an ETag is the object's generation.

    A download does not tell the object's metadata, and thus not its lineage. Before a
    version is replaced that somebody else may still be in doubt about, it is asked for.
    """

    _scheme = "gs"
    _errors = FROM_THE_LIBRARY
    _trouble_of = staticmethod(trouble_of)
    _etag_form = re.compile(r"[1-9][0-9]{0,18}")  # 0 would ask that there be no object
    _no_etag = ETagValue(str(LARGEST))

    def __init__(self, shared: ClientOfProcess[Client], bucket_name: str, **options: Any) -> None:
        super().__init__(shared, bucket_name, **options)
        self._conditions: list[bool] = []

    @property
    def _bucket(self) -> Any:
        return self.client.bucket(self._bucket_name)

    def _blob(self, name: str, version: int | None = None) -> Any:
        return self._bucket.blob(self._prefix + name, generation=version)

    def ensure_bucket(self) -> None:
        # who may use the objects may not see the bucket
        with self._hushed(), suppress(Conflict, Forbidden):
            if not self._bucket.exists(retry=_BRIEFLY):
                self.client.create_bucket(self._bucket, retry=_BRIEFLY)

    @property
    def capabilities(self) -> GCSCapabilities:
        """What this server enforces; one that is not Google's is asked the first time."""
        if not self._conditions:
            is_google = self.client.api_endpoint == _GOOGLE
            with self._hushed():
                holds = is_google or enforces_conditions(self._bucket, self._prefix)
            self._conditions.append(holds)
        return GCSCapabilities(self._conditions[0])

    def _check_that_conditions_hold(self) -> None:
        if not self.capabilities.conditions:
            raise BackendError(
                f"the server at {self.client.api_endpoint} ignores ifGenerationMatch: a change on"
                " condition would be made whatever is there",
                backend="gcs",
            )

    def _lineage_of(self, name: str, version: ETagValue) -> str | None:
        known = super()._lineage_of(name, version)
        if known is not None:
            return known
        try:
            info, lineage = self._look(name)
        except (ObjectNotFound, Forbidden):  # who may only write cannot look; the write tells more
            return None
        if info.etag != version:
            raise PreconditionFailed(self.location(name), actual_etag=info.etag)
        return lineage

    def _send_head(self, name: str) -> tuple[ObjectInfo, str | None]:
        blob = self._blob(name)
        blob.reload(**_ONCE)
        return info_of(name, blob), (blob.metadata or {}).get(METADATA_KEY)

    def _send_get(
        self, name: str, if_none_match: ETagValue | None
    ) -> tuple[Buffer, ObjectInfo, str | None]:
        blob = self._blob(name)
        data = blob.download_as_bytes(
            raw_download=True, if_generation_not_match=generation(if_none_match), **_ONCE
        )
        written = None if blob.generation is None else time_of(blob.generation)
        if written is None:  # this server tells too little
            info, lineage = self._send_head(name)
            try:
                blob = self._blob(name, int(info.etag))
                return blob.download_as_bytes(raw_download=True, **_ONCE), info, lineage
            except NotFound:  # it was replaced meanwhile
                return self._send_get(name, if_none_match)
        info = ObjectInfo(name, ETagValue(str(blob.generation)), len(data), written)
        return data, info, "" if time.time() - written > _LONGEST_DOUBT else None

    def _send_put(
        self, name: str, data: Buffer, lineage: str, expected: ETagIfExists | None
    ) -> ETagValue:
        blob = self._blob(name)
        blob.metadata = {METADATA_KEY: lineage}
        blob.upload_from_string(
            data if isinstance(data, bytes) else bytes(data),
            content_type=self._content_type,
            if_generation_match=generation(expected),
            **_ONCE,
        )
        return ETagValue(str(blob.generation))

    def _send_delete(self, name: str, if_match: ETagValue | None) -> None:
        self._blob(name).delete(if_generation_match=generation(if_match), **_ONCE)

    def _send_list(self, wanted: Listing) -> Iterator[Iterable[ObjectInfo | CommonPrefix]]:
        pages = self.client.list_blobs(
            self._bucket_name,
            prefix=wanted.prefix,
            delimiter=wanted.delimiter,
            page_size=wanted.page_size,
            start_offset=wanted.start_after,
            fields=_FIELDS,
        ).pages
        for page in pages:
            objects = [info_of(blob.name, blob) for blob in page]
            yield [*objects, *map(CommonPrefix, page.prefixes)]

    def can_copy_from(self, source: ObjectStore) -> bool:
        """Tell whether another store is reached with the same rights; see `CopiesInside`."""
        return isinstance(source, GCSStore) and source._shared is self._shared

    def _send_copy(
        self, source: CloudStore[Client], source_name: str, name: str, lineage: str
    ) -> ETagValue | None:
        assert isinstance(source, GCSStore)
        blob = self._blob(name)
        blob.metadata = {METADATA_KEY: lineage}
        blob.content_type = self._content_type
        token = None
        while True:  # a large object, or one that moves to another place, takes several
            try:
                token, *_ = blob.rewrite(source._blob(source_name), token=token, **_ONCE)
            except NotFound as error:
                if trouble_of(error).kind is Kind.ABSENT:
                    raise ObjectNotFound(source.location(source_name)) from error
                raise
            if token is None:
                return ETagValue(str(blob.generation))

    def signed_url(self, name: str, method: str, expires: int) -> str:
        try:
            url: str = self._blob(name).generate_signed_url(
                version="v4",
                expiration=timedelta(seconds=expires),
                method=method,
                api_access_endpoint=self.client.api_endpoint,
            )
        except AttributeError as error:  # the library's, for credentials without a private key
            raise TypeError(
                "a signed URL needs credentials that can sign, such as a service account's key"
            ) from error
        return url
