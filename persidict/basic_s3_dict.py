"""A dictionary in an S3 bucket: one object for each item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from persidict.checks import check_flag, check_prefix, check_text
from persidict.codecs import Codec
from persidict.contract.inspecting import HttpMethod
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import PlainNaming
from persidict.protection import Protection
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.stored_dict import StoredDict
from persidict.stores.shared.secret import Secret, as_secret, mask, masked_proxies, masked_url
from persidict.urls import Place, place

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_s3 import S3Client

    from persidict.stores.s3.capabilities import S3Capabilities
    from persidict.stores.s3.store import S3Store
    from persidict.stores.s3.transport.transport import Transport

_OPERATIONS: Final[Mapping[HttpMethod, Any]] = {
    "GET": "get_object",
    "HEAD": "head_object",
    "PUT": "put_object",
    "DELETE": "delete_object",
}


class BasicS3Dict(StoredDict[ValueType]):
    """A persistent dictionary whose items are objects in an S3 bucket.

    Conditions ride on the request that makes the change, so that the server checks them and
    acts in one step: all operations on one key are linearizable among all clients, as far
    as the server enforces conditions; `capabilities` tells. Every write carries a token, so
    that one whose reply got lost is neither repeated nor reported as a failure.

    One client is shared by all handles of one configuration in a process, also by
    sub-dictionaries and after unpickling. Handles pickle as their parameters and work in
    other processes; a handle around a ready client cannot.

    Costs, in requests: reading, ``in``, `etag`, assignment, and `set_item_if` or
    `discard_if` under a version that holds take 1; `transform_item`, `pop` and an unmet
    condition 2; a listing 1 for each 1000 items; `clear` 2 for each 1000. A server that is
    not AWS is asked once, with 1 to 3 more, what it enforces.

    Args:
        bucket_name: The bucket; created if it is missing.
        region: The bucket's region; None: as botocore finds it.
        root_prefix: What the names of all objects begin with; a slash is put behind it.
        serialization_format: See PersiDict; also the extension of the names. Objects with
            another extension are left alone.
        append_only: Items can be added, but never changed or removed.
        base_class_for_values: The class that every value must be an instance of.
        endpoint_url: The URL of a service other than AWS.
        profile_name: A profile of the AWS configuration files.
        aws_access_key_id: Credentials, for those that are not to be found in the usual
            places. They show in no message, repr or JSON, but travel with a pickled handle.
        aws_secret_access_key: See `aws_access_key_id`.
        aws_session_token: See `aws_access_key_id`.
        boto_config: A botocore `Config`, or a mapping of its options; overrides the
            defaults of this class (standard retries, 5 attempts, keep-alive).
        s3_client: A ready boto3 client, used instead of all of the above.
        create_bucket: Whether to look for the bucket and to create it if it is missing. One
            that vanishes after this handle has used it is not created again.
        max_concurrency: How many requests may be under way at once.
        large_object_size: Items of more bytes than this are read in parallel ranges of one
            version, and written in parallel parts that one last request puts together under
            the condition. Where a server does not enforce conditions on that request, what
            is written under one goes as a single request, of at most 5 GB.
        transport: How requests travel: ``"auto"``, directly wherever that is possible, in a
            tenth of the CPU time; ``"botocore"``; or ``"direct"``, or not at all. The
            attribute of this name tells what came of it.
        put_options: What boto3's `put_object` is to be told beside, such as
            ``{"ServerSideEncryption": "aws:kms", "StorageClass": "GLACIER_IR"}``; it goes
            with whatever writes an object, in one piece, in parts, or as a copy.
        request_options: What goes with every request that takes it: `RequestPayer`,
            `ExpectedBucketOwner`, `ExpectedSourceBucketOwner`, `BypassGovernanceRetention`.
        expected_bucket_owner: The account that the bucket has to belong to, in twelve digits;
            sent with every request. A bucket that was deleted and registered anew by somebody
            else is refused by the server with 403.
        codec: How values become bytes, in place of what the format says; see StoredDict.
        protection: `Signed`, `Encrypted`, or None: whether stored bytes are trusted unseen.
        read_only: Whether this handle refuses to change items; see `read_only()`.

    Raises:
        botocore.exceptions.ClientError: The bucket cannot be found or created.
        ValueError: A parameter has no meaning, or none beside `s3_client`.
        TypeError: A parameter is of a wrong type.
    """

    bucket_name: str
    root_prefix: str

    def __init__(
        self,
        *,
        bucket_name: str = "my_bucket",
        region: str | None = None,
        root_prefix: str = "",
        serialization_format: str = "pkl",
        append_only: bool = False,
        base_class_for_values: type | None = None,
        endpoint_url: str | None = None,
        profile_name: str | None = None,
        aws_access_key_id: str | Secret | None = None,
        aws_secret_access_key: str | Secret | None = None,
        aws_session_token: str | Secret | None = None,
        boto_config: Config | Mapping[str, Any] | None = None,
        s3_client: S3Client | None = None,
        create_bucket: bool = True,
        max_concurrency: int = 64,
        large_object_size: int = 16 * 1024 * 1024,
        transport: str = "auto",
        put_options: Mapping[str, Any] | None = None,
        request_options: Mapping[str, Any] | None = None,
        expected_bucket_owner: str | None = None,
        codec: Codec | None = None,
        protection: Protection | None = None,
        read_only: bool = False,
    ) -> None:
        # subclasses call this by itself; whatever fails from here on shows no secret
        aws_access_key_id = as_secret("aws_access_key_id", aws_access_key_id)
        aws_secret_access_key = as_secret("aws_secret_access_key", aws_secret_access_key)
        aws_session_token = as_secret("aws_session_token", aws_session_token)
        endpoint_url = masked_url(endpoint_url)
        boto_config = _masked_config(boto_config)
        put_options = _masked_options(put_options)
        request_options = _masked_options(request_options)
        super().__init__(
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            codec=codec,
            protection=protection,
            read_only=read_only,
        )
        from persidict.stores.s3.store import S3Store
        from persidict.stores.s3.transport.client import shared_client
        from persidict.stores.s3.transport.connection import S3Connection
        from persidict.stores.s3.transport.options import RequestOptions, options_of, with_owner

        check_text("bucket_name", bucket_name)
        self.bucket_name = bucket_name
        self.root_prefix = check_prefix("root_prefix", root_prefix)
        self._create_bucket = check_flag("create_bucket", create_bucket)
        self._connection = S3Connection.of(
            region=region,
            endpoint_url=endpoint_url,
            profile_name=profile_name,
            access_key_id=aws_access_key_id,
            secret_access_key=aws_secret_access_key,
            session_token=aws_session_token,
            config=boto_config,
            max_concurrency=max_concurrency,
            ready_client=s3_client,
            transport=transport,
        )
        on_all = options_of("request_options", request_options)
        self._on_all, self._expected_bucket_owner = on_all, expected_bucket_owner
        self._request_options = RequestOptions(
            options_of("put_options", put_options), with_owner(on_all, expected_bucket_owner)
        )
        chosen_codec = self._chosen_codec(compress=True)
        store = S3Store(
            shared_client(self._connection),
            bucket_name=bucket_name,
            prefix=self.root_prefix,
            content_type=self._content_type(chosen_codec),
            create_bucket=self._create_bucket and not read_only,
            large_object_size=large_object_size,
            options=self._request_options,
        )
        self._large_object_size = large_object_size
        self._attach(store, chosen_codec, PlainNaming(serialization_format))

    @classmethod
    def _mask(cls, params: dict[str, Any]) -> None:
        super()._mask(params)
        mask(params, "aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        if "endpoint_url" in params:
            params["endpoint_url"] = masked_url(params["endpoint_url"])
        if "boto_config" in params:
            params["boto_config"] = _masked_config(params["boto_config"])
        for name in ("put_options", "request_options"):
            if name in params:
                params[name] = _masked_options(params[name])

    def _own_params(self) -> dict[str, Any]:
        connection = self._connection
        return {
            "aws_access_key_id": connection.access_key_id,
            "aws_secret_access_key": connection.secret_access_key,
            "aws_session_token": connection.session_token,
            "boto_config": dict(connection.options) or None,
            "bucket_name": self.bucket_name,
            "create_bucket": self._create_bucket,
            "endpoint_url": connection.endpoint_url,
            "expected_bucket_owner": self._expected_bucket_owner,
            "large_object_size": self._large_object_size,
            "max_concurrency": connection.max_concurrency,
            "profile_name": connection.profile_name,
            "put_options": dict(self._request_options.on_writing) or None,
            "region": connection.region,
            "request_options": dict(self._on_all) or None,
            "root_prefix": self.root_prefix,
            "s3_client": connection.ready_client,
            "transport": connection.transport,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        if self._connection.ready_client is not None:
            raise TypeError(
                f"a {type(self).__name__} around a ready s3_client cannot be pickled, because"
                " a client is bound to its process; give endpoint_url, region, credentials or"
                " boto_config instead, and each process makes a client of its own"
            )
        return super().__reduce__()

    def _enter(self, prefix: SafeStrTuple) -> None:
        self.root_prefix += self._naming.prefix_of(prefix)

    def _place(self) -> Place:
        told = ["bucket_name", "root_prefix"]
        server, path = "s3", f"{self.bucket_name}/{self.root_prefix}"
        endpoint = self._connection.endpoint_url
        if endpoint is not None and not urlsplit(endpoint).path.strip("/"):
            told.append("endpoint_url")
            scheme, _, host = endpoint.rstrip("/").partition("://")
            server, path = f"s3+{scheme}", f"{host}/{path}"
        return place(server, path.rstrip("/"), *told)

    # ------------------------------------------------------------------ what it is connected to

    @property
    def _s3_store(self) -> S3Store:
        return cast("S3Store", self._store)

    @property
    def s3_client(self) -> S3Client:
        """The boto3 client, shared by all handles of this configuration."""
        return self._s3_store.shared.client

    @property
    def transport(self) -> Transport:
        """How requests travel; its ``repr`` tells which wire it is, where it leads, and why."""
        return self._s3_store.transport

    @property
    def region(self) -> str | None:
        """The region that requests are signed for."""
        return self._connection.region or self.s3_client.meta.region_name

    @property
    def base_url(self) -> str:
        """Where the items are: ``s3://bucket/prefix``."""
        return f"s3://{self.bucket_name}/{self.root_prefix}"

    @property
    def capabilities(self) -> S3Capabilities:
        """What this server enforces; it is asked the first time, unless it is AWS."""
        return self._s3_store.capabilities

    def _presign(self, key: NonEmptySafeStrTuple, method: HttpMethod, expires: int) -> str:
        url: str = self.s3_client.generate_presigned_url(
            _OPERATIONS[method],
            Params={
                "Bucket": self.bucket_name,
                "Key": self.root_prefix + self._naming.name_of(key),
            },
            ExpiresIn=expires,
        )
        return url

    # ------------------------------------------------------------------ fewer requests

    def _first_parts(self) -> set[str]:
        """List everything, but what comes behind the page on which a part is first seen.

        Large groups of names are read several at once.
        """
        parts: set[str] = set()
        for name in self._s3_store.names_of_groups(parts.__contains__):
            key = self._naming.key_of(name)
            if key is not None:
                parts.add(key.strings[0])
        return parts


def _masked_config(config: Any) -> Any:
    """Return the options of a configuration with the passwords of proxies masked."""
    if not isinstance(config, Mapping) or config.get("proxies") is None:
        return config
    return {**config, "proxies": masked_proxies(config["proxies"])}


def _masked_options(options: Any) -> Any:
    """Return options without customers' keys, which are refused by their names."""
    if not isinstance(options, Mapping):
        return options
    return {name: "***" if "SSECustomer" in str(name) else given for name, given in options.items()}
