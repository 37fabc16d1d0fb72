"""A dictionary in Google Cloud Storage: one object for each item."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from persidict.checks import check_flag, check_int, check_prefix
from persidict.codecs import Codec
from persidict.codecs.codec import check_installed
from persidict.contract.inspecting import HttpMethod
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import PlainNaming
from persidict.protection import Protection
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.stored_dict import StoredDict
from persidict.stores.shared.secret import (
    Secret,
    SecretObject,
    SecretURL,
    as_secret,
    mask,
    masked_url,
)
from persidict.urls import Place, place

if TYPE_CHECKING:
    from google.cloud.storage import Client

    from persidict.stores.clouds.gcs import GCSCapabilities, GCSStore


class GCSDict(StoredDict[ValueType]):
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

    bucket_name: str
    root_prefix: str

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
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            codec=codec,
            protection=protection,
            read_only=read_only,
        )
        if isinstance(endpoint_url, SecretURL):
            raise ValueError("endpoint_url must not have a user and a password in it")
        for name, text, may_be_none in (
            ("bucket_name", bucket_name, False),
            ("project", project, True),
            ("endpoint_url", endpoint_url, True),
        ):
            if not (isinstance(text, str) or (may_be_none and text is None)):
                raise TypeError(f"{name} must be a str, not {type(text).__name__}")
        if not bucket_name:
            raise ValueError("bucket_name must not be empty")
        self.bucket_name = bucket_name
        self.project = project
        self.root_prefix = check_prefix("root_prefix", root_prefix)
        self.endpoint_url = endpoint_url
        self._credentials = _masked(credentials)
        self._create_bucket = check_flag("create_bucket", create_bucket)
        self._max_concurrency = check_int("max_concurrency", max_concurrency, at_least=1)
        chosen_codec = self._chosen_codec(compress=True)
        check_installed("google.cloud.storage", needed_by="a GCSDict", extra="gcs")
        from persidict.stores.clouds.gcs import GCSConnection, GCSStore

        store = GCSStore(
            GCSConnection(
                project,
                self._credentials,
                endpoint_url,
                max_concurrency,
            ),
            bucket_name,
            prefix=self.root_prefix,
            content_type=self._content_type(chosen_codec),
        )
        if self._create_bucket and not read_only:
            store.ensure_bucket()
        self._attach(store, chosen_codec, PlainNaming(serialization_format))

    @classmethod
    def _mask(cls, params: dict[str, Any]) -> None:
        super()._mask(params)
        mask(params, "credentials")
        if "endpoint_url" in params:
            params["endpoint_url"] = masked_url(params["endpoint_url"])

    def _own_params(self) -> dict[str, Any]:
        return {
            "bucket_name": self.bucket_name,
            "create_bucket": self._create_bucket,
            "credentials": self._credentials,
            "endpoint_url": self.endpoint_url,
            "max_concurrency": self._max_concurrency,
            "project": self.project,
            "root_prefix": self.root_prefix,
        }

    def _enter(self, prefix: SafeStrTuple) -> None:
        self.root_prefix += self._naming.prefix_of(prefix)

    def _place(self) -> Place:
        path = f"{self.bucket_name}/{self.root_prefix}".rstrip("/")
        return place("gs", path, "bucket_name", "root_prefix")

    @property
    def _gcs_store(self) -> GCSStore:
        return cast("GCSStore", self._store)

    @property
    def base_url(self) -> str:
        """Where the items are: ``gs://bucket/prefix``."""
        return f"gs://{self.bucket_name}/{self.root_prefix}"

    @property
    def client(self) -> Client:
        """The library's client, in this process."""
        return self._gcs_store.client

    @property
    def capabilities(self) -> GCSCapabilities:
        """What this server enforces; it is asked the first time, unless it is Google's."""
        return self._gcs_store.capabilities

    def _presign(self, key: NonEmptySafeStrTuple, method: HttpMethod, expires: int) -> str:
        try:
            url: str = self._gcs_store.blob(self._naming.name_of(key)).generate_signed_url(
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
