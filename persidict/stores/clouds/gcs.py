"""Objects in a bucket of Google Cloud Storage."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import requests
import urllib3
from google.api_core.exceptions import (
    Conflict,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    NotModified,
    PreconditionFailed,
)
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2 import service_account

from persidict.exceptions import BackendError, ObjectNotFound
from persidict.exceptions import PreconditionFailed as UnmetCondition
from persidict.jokers_and_status_flags import ETagIfExists, ETagValue, ItemNotAvailableFlag
from persidict.stores.clouds.connection import ClientOfProcess, keep_connections, never_left
from persidict.stores.clouds.store import (
    METADATA_KEY,
    PROBE_NAME,
    CloudStore,
    Kind,
    Trouble,
    by_itself,
)
from persidict.stores.object_store import Buffer, CommonPrefix, ObjectInfo, ObjectStore
from persidict.stores.shared.secret import Secret, SecretObject, revealed

_ONCE: Final[dict[str, Any]] = {"retry": None}
"""Has the library send a request once: whether it may be repeated is decided here."""

_BRIEFLY: Final = DEFAULT_RETRY.with_timeout(10.0)
"""How long a server that cannot be reached is tried for a bucket; by itself, for two minutes."""

_FIELDS: Final = "items(name,generation,size,timeCreated),prefixes,nextPageToken"
_MISSING_BUCKET: Final = "bucket does not exist"
_MISSING_OBJECT: Final = "No such object"
_GOOGLE: Final = "https://storage.googleapis.com"

_LARGEST_GENERATION: Final = (1 << 63) - 1
_MICROSECONDS: Final = 1_000_000
_EARLIEST: Final = 1_262_304_000
"""When the service began, as far as a generation that tells a time is concerned: 2010."""

_LONGEST_DOUBT: Final = 600.0
"""For how many seconds a writer may be looking for what became of its write."""

_FROM_THE_LIBRARY: Final = (
    GoogleAPICallError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
)


def _kind_of(error: Exception) -> Kind:
    match error:
        case NotFound() if _is_absence(error):
            return Kind.ABSENT
        case PreconditionFailed():
            return Kind.UNMET
        case NotModified():
            return Kind.UNCHANGED
        case GoogleAPICallError(code=(429 | 503)):
            return Kind.TURNED_AWAY
        case DataCorruption():
            return Kind.NOT_DONE
        case GoogleAPICallError(code=int(status)) if status < 500:
            return Kind.FAILED
        case GoogleAuthError() | requests.exceptions.InvalidURL():
            return Kind.FAILED
    return Kind.NOT_DONE if never_left(error) else Kind.LOST


def _is_absence(error: NotFound) -> bool:
    """Tell whether it is the service that says so, and of an object."""
    if _MISSING_BUCKET in str(error):
        return False
    reasons = [detail.get("reason") for detail in error.errors]
    return "notFound" in reasons or _MISSING_OBJECT in str(error)


@contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except _FROM_THE_LIBRARY as error:
        raise Trouble(_kind_of(error), error) from None


class GCSCapabilities(NamedTuple):
    """What a server does with conditions.

    Attributes:
        conditions: Whether it enforces ``ifGenerationMatch`` on writes and deletions.
    """

    conditions: bool


class GCSConnection(NamedTuple):
    """How the service is reached.

    Attributes:
        project: The project that pays, None: that of the credentials.
        credentials: An object of google-auth or the JSON text of a service account's key,
            masked; None: what the environment offers.
        endpoint_url: Another server than Google's.
        max_concurrency: How many requests may be under way at once.
    """

    project: str | None
    credentials: Secret | SecretObject | None
    endpoint_url: str | None
    max_concurrency: int

    def client(self) -> Client:
        """Make a client of the library."""
        options = None if self.endpoint_url is None else {"api_endpoint": self.endpoint_url}
        client = Client(
            project=self.project, credentials=_credentials(self.credentials), client_options=options
        )
        keep_connections(client._http, self.max_concurrency)
        return client


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


_clients: Final[WeakValueDictionary[tuple[Any, ...], ClientOfProcess[Client]]] = (
    WeakValueDictionary()
)


def _shared_client(connection: GCSConnection) -> ClientOfProcess[Client]:
    """Return the client that all handles with the same connection share."""
    key = (*connection, os.environ.get("STORAGE_EMULATOR_HOST"))
    return _clients.setdefault(key, ClientOfProcess(connection.client))


class GCSStore(CloudStore):
    """Objects below a prefix of a bucket; an ETag is the object's generation.

    A download does not tell the object's metadata, and thus not its lineage. Before a
    version is replaced that somebody else may still be in doubt about, it is asked for.

    Args:
        connection: How the service is reached.
        bucket_name: The bucket.
        prefix: What all names begin with.
        content_type: The media type of what is written.
    """

    _etag_form = re.compile(r"[1-9][0-9]{0,18}")  # 0 would ask that there be no object
    _no_etag = ETagValue(str(_LARGEST_GENERATION))

    def __init__(
        self, connection: GCSConnection, bucket_name: str, *, prefix: str, content_type: str
    ) -> None:
        super().__init__(prefix=prefix, max_concurrency=connection.max_concurrency)
        self._shared = _shared_client(connection)
        self._bucket_name = bucket_name
        self._content_type = content_type
        self._conditions: list[bool] = []

    @property
    def client(self) -> Client:
        """The library's client."""
        return self._shared.client

    def blob(self, name: str, generation: int | None = None) -> Any:
        """Return the library's handle of an object, or of one version, without a request."""
        bucket = self.client.bucket(self._bucket_name)
        return bucket.blob(self._prefix + name, generation=generation)

    def ensure_bucket(self) -> None:
        """Create the bucket if it is missing; losing the race to do so is fine."""
        bucket = self.client.bucket(self._bucket_name)
        # who may use the objects may not see the bucket
        with by_itself(), _typed(), suppress(Conflict, Forbidden):
            if not bucket.exists(retry=_BRIEFLY):
                self.client.create_bucket(bucket, retry=_BRIEFLY)

    # ------------------------------------------------------------------ conditions

    @property
    def capabilities(self) -> GCSCapabilities:
        """What this server enforces; one that is not Google's is asked the first time."""
        if not self._conditions:
            is_google = self.client.api_endpoint == _GOOGLE
            with by_itself(), _typed():
                self._conditions.append(is_google or self._enforces_conditions())
        return GCSCapabilities(self._conditions[0])

    def _enforces_conditions(self) -> bool:
        """Ask for what must fail: a change under a generation of nothing, and of another one."""
        probe = self.client.bucket(self._bucket_name).blob(
            f"{self._prefix}{PROBE_NAME}{uuid.uuid4().hex}"
        )
        try:
            probe.upload_from_string(b"", if_generation_match=1)
        except PreconditionFailed:
            pass
        else:
            probe.delete()
            return False
        try:
            probe.upload_from_string(b"", if_generation_match=0)
        except PreconditionFailed:  # the library sent it twice
            probe.reload()
        made = int(probe.generation)
        try:
            self.client.bucket(self._bucket_name).delete_blob(
                probe.name, if_generation_match=made + 1
            )
        except PreconditionFailed:
            with suppress(NotFound):  # somebody tidied up
                probe.delete()
            return True
        return False

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
            info, lineage = self._send_head(name)
        except Trouble:  # who may only write cannot look; the write tells what is wrong
            return None
        if info.etag != version:
            raise UnmetCondition(self.location(name), actual_etag=info.etag)
        return lineage

    # ------------------------------------------------------------------ one object

    def _send_head(self, name: str) -> tuple[ObjectInfo, str | None]:
        with _typed():
            blob = self.blob(name)
            blob.reload(**_ONCE)
        return _info(name, blob), (blob.metadata or {}).get(METADATA_KEY)

    def _send_get(
        self, name: str, if_none_match: ETagValue | None
    ) -> tuple[Buffer, ObjectInfo, str | None]:
        known = None if if_none_match is None else _generation(if_none_match)
        with _typed():
            blob = self.blob(name)
            data = blob.download_as_bytes(raw_download=True, if_generation_not_match=known, **_ONCE)
        written = None if blob.generation is None else _time_of(blob.generation)
        if written is None:  # this server tells too little
            info, lineage = self._send_head(name)
            try:
                with _typed():
                    blob = self.blob(name, generation=int(info.etag))
                    return blob.download_as_bytes(raw_download=True, **_ONCE), info, lineage
            except Trouble as trouble:
                if trouble.kind is Kind.ABSENT:  # it was replaced meanwhile
                    raise Trouble(Kind.NOT_DONE, trouble.error) from None
                raise
        etag = ETagValue(str(blob.generation))
        is_settled = time.time() - written > _LONGEST_DOUBT
        return data, ObjectInfo(name, etag, len(data), written), "" if is_settled else None

    def _send_put(
        self, name: str, data: Buffer, lineage: str, expected: ETagIfExists | None
    ) -> ETagValue:
        condition = None
        if isinstance(expected, ItemNotAvailableFlag):
            condition = 0
        elif expected is not None:
            condition = _generation(expected)
        with _typed():
            blob = self.blob(name)
            blob.metadata = {METADATA_KEY: lineage}
            blob.upload_from_string(
                data if isinstance(data, bytes) else bytes(data),
                content_type=self._content_type,
                if_generation_match=condition,
                **_ONCE,
            )
        return ETagValue(str(blob.generation))

    def _send_delete(self, name: str, if_match: ETagValue | None) -> None:
        condition = None if if_match is None else _generation(if_match)
        with _typed():
            self.blob(name).delete(if_generation_match=condition, **_ONCE)

    # ------------------------------------------------------------------ many objects

    def _send_list(
        self,
        prefix: str,
        delimiter: str | None,
        page_size: int | None,
        start_after: str | None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        with _typed():
            pages = self.client.list_blobs(
                self._bucket_name,
                prefix=prefix,
                delimiter=delimiter,
                page_size=page_size,
                start_offset=start_after,
                fields=_FIELDS,
            ).pages
            for page in pages:
                found: list[ObjectInfo | CommonPrefix] = [_info(b.name, b) for b in page]
                found += map(CommonPrefix, page.prefixes)
                yield from sorted(found, key=lambda entry: entry[0].encode())

    def can_copy_from(self, source: ObjectStore) -> bool:
        """Tell whether another store is reached with the same rights; see `CopiesInside`."""
        return isinstance(source, GCSStore) and source._shared is self._shared

    def _send_copy(
        self, source: CloudStore, source_name: str, name: str, lineage: str
    ) -> ETagValue | None:
        assert isinstance(source, GCSStore)
        blob = self.blob(name)
        blob.metadata = {METADATA_KEY: lineage}
        blob.content_type = self._content_type
        token = None
        while True:  # a large object, or one that moves to another place, takes several
            try:
                with _typed():
                    token, *_ = blob.rewrite(source.blob(source_name), token=token, **_ONCE)
            except Trouble as trouble:
                if trouble.kind is Kind.ABSENT:
                    raise ObjectNotFound(source.location(source_name)) from trouble.error
                raise
            if token is None:
                return ETagValue(str(blob.generation))

    def location(self, name: str) -> str:
        return f"gs://{self._bucket_name}/{self._prefix}{name}"


def _generation(etag: ETagValue) -> int:
    """Return the number that an ETag is, as far as a condition can name it."""
    return min(int(etag), _LARGEST_GENERATION)


def _time_of(generation: int) -> float | None:
    """Return the time that a generation tells, in POSIX seconds.

    On Google it counts microseconds. That is not promised anywhere, so that one which
    cannot be such a number is not taken for one.
    """
    seconds = generation / _MICROSECONDS
    return seconds if _EARLIEST < seconds < time.time() + 86400 else None


def _info(name: str, blob: Blob) -> ObjectInfo:
    """Tell what a metadata record says; a generation that tells the time does so everywhere."""
    created = blob.time_created.timestamp()
    told = _time_of(blob.generation)
    written = told if told is not None and abs(told - created) < 2 else created
    return ObjectInfo(name, ETagValue(str(blob.generation)), int(blob.size or 0), written)
