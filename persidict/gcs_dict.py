"""A dictionary in Google Cloud Storage: one object for each item."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from persidict.checks import check_text
from persidict.cloud_dict import CloudDict
from persidict.codecs import Codec
from persidict.codecs.codec import check_installed
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import PlainNaming
from persidict.protection import Protection
from persidict.stores.shared.secret import (
    Secret,
    SecretObject,
    SecretURL,
    as_secret,
    mask,
    masked_url,
)

if TYPE_CHECKING:
    from google.cloud.storage import Client

    from persidict.stores.clouds.google.conditions import GCSCapabilities
    from persidict.stores.clouds.google.store import GCSStore


class GCSDict(CloudDict[ValueType]):
    """A persistent dictionary whose items are objects in a bucket of Google Cloud Storage.

    Google enforces conditions on every request, deletions included, and uses no generation
    twice: all operations on one key are linearizable among all clients. ETags are the
    generations. A write whose answer got lost is recognised by a token in the object's
    metadata; what cannot be known is raised as the library's own error, with the note
    "outcome unknown". A server that ignores conditions is found out, and refused with
    BackendError where a change depends on one. Needs the extra ``gcs``.

    Tested on a server of this project's own that follows the documentation of the JSON API,
    since there is no emulator that enforces conditions.

    Handles pickle as their parameters, credentials included.

    Costs, in requests: reading, ``in``, `etag`, assignment and deletion take 1; a change under
    a version that holds 1, or 2 where somebody else wrote it in the last ten minutes or its
    age is not known; `transform_item` and `pop` 1 more for reading, an unmet condition, too; a
    listing 1 for each 1000 items; `clear` 1 for each item besides.

    Args:
        bucket_name: The bucket; created if it is missing.
        project: The project that a new bucket belongs to; None: that of the credentials.
        credentials: An object of the library ``google-auth``, or the JSON text of a service
            account's key; None: what the environment offers (Application Default
            Credentials).
        root_prefix: What the names of all objects begin with; a slash is put behind it.
        endpoint_url: Another server than Google's; None: Google's, or the one that the
            environment variable ``STORAGE_EMULATOR_HOST`` names.
        serialization_format: See PersiDict; also the extension of the names.
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of.
        create_bucket: Whether to create the bucket if it is missing.
        max_concurrency: How many requests may be under way at once.
        codec: How values become bytes, in place of what the format says; see StoredDict.
        protection: `Signed`, `Encrypted`, or None: whether stored bytes are trusted unseen.
        read_only: Whether this handle refuses to change items; see `read_only()`.

    Raises:
        ValueError: A name is empty.
        TypeError: A parameter is of a wrong type.
        google.api_core.exceptions.GoogleAPICallError: The bucket can be neither found nor
            created.
    """

    _bucket = "bucket"

    bucket_name: str

    def __init__(
        self,
        *,
        bucket_name: str,
        project: str | None = None,
        credentials: Any = None,
        root_prefix: str = "",
        endpoint_url: str | None = None,
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        create_bucket: bool = True,
        max_concurrency: int = 32,
        codec: Codec | None = None,
        protection: Protection | None = None,
        read_only: bool = False,
    ) -> None:
        # subclasses call this by itself; whatever fails from here on shows no secret
        given = {"credentials": credentials, "endpoint_url": endpoint_url}
        self._mask(given)
        credentials, endpoint_url = given["credentials"], given["endpoint_url"]
        super().__init__(
            root_prefix=root_prefix,
            max_concurrency=max_concurrency,
            create=create_bucket,
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            codec=codec,
            protection=protection,
            read_only=read_only,
        )
        if isinstance(endpoint_url, SecretURL):
            raise ValueError("endpoint_url must not have a user and a password in it")
        check_text("bucket_name", bucket_name)
        for name, text in (("project", project), ("endpoint_url", endpoint_url)):
            if text is not None:
                check_text(name, text)
        self.bucket_name = bucket_name
        self.project = project
        self.endpoint_url = endpoint_url
        self._credentials = _masked(credentials)
        check_installed("google.cloud.storage", needed_by="a GCSDict", extra="gcs")
        from persidict.stores.clouds.google.connection import shared_client
        from persidict.stores.clouds.google.store import GCSStore

        shared = shared_client(project, self._credentials, endpoint_url, max_concurrency)
        self._connect(partial(GCSStore, shared, bucket_name), PlainNaming(serialization_format))

    @classmethod
    def _mask(cls, params: dict[str, Any]) -> None:
        super()._mask(params)
        mask(params, "credentials")
        if "endpoint_url" in params:
            params["endpoint_url"] = masked_url(params["endpoint_url"])

    def _own_params(self) -> dict[str, Any]:
        return super()._own_params() | {
            "bucket_name": self.bucket_name,
            "credentials": self._credentials,
            "endpoint_url": self.endpoint_url,
            "project": self.project,
        }

    @property
    def client(self) -> Client:
        """The library's client, in this process."""
        return cast("GCSStore", self._store).client

    @property
    def capabilities(self) -> GCSCapabilities:
        """What this server enforces; it is asked the first time, unless it is Google's."""
        return cast("GCSStore", self._store).capabilities


def _masked(credentials: Any) -> Secret | SecretObject | None:
    if credentials is None or isinstance(credentials, (str, Secret)):
        return as_secret("credentials", credentials)
    masked = credentials if isinstance(credentials, SecretObject) else SecretObject(credentials)
    del credentials
    if masked.reveal() is None:
        return None
    from google.auth.credentials import Credentials

    if not isinstance(masked.reveal(), Credentials):
        raise TypeError(
            "credentials must be an object of google-auth, the JSON text of a key, or None, not"
            f" {type(masked.reveal()).__name__}"
        )
    return masked
