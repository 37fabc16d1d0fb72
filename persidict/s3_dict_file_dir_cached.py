"""A dictionary in an S3 bucket, with copies of what was read and written in a local directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, cast

from persidict.basic_s3_dict import BasicS3Dict
from persidict.checks import check_int_or_none, check_seconds
from persidict.codecs import Codec
from persidict.jokers_and_status_flags import ValueType
from persidict.protection import Protection
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.safe_str_tuple_signing import check_digest_len
from persidict.stores.cached.store import CachedStore, CacheInfo
from persidict.stores.files.store import absolute_directory
from persidict.stores.object_store import BUFFERS
from persidict.stores.s3.transport.mocked import world

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_s3 import S3Client

    from persidict.stores.s3.store import S3Store
    from persidict.stores.shared.secret import Secret


_PURPOSE: Final = b"persidict: who reads copies"
"""Keeps the digest of an access key id apart from those that others make of it."""


class S3Dict_FileDirCached(BasicS3Dict[ValueType]):
    """A BasicS3Dict that keeps what it reads and writes in a local directory.

    A mutable dictionary asks the server with every read whether its copy still is the
    current version, in the one request that otherwise brings the new value: a hit moves no
    value, and no read is stale. An append-only one serves what it has without a request.
    Iterating over values and items serves all copies whose versions the listing confirms.

    The directory may be shared by any number of dictionaries, threads and processes, and
    may be deleted, damaged, full or read-only at any time: reading then takes longer, and
    gives the right value.

    Costs, in requests: a read 1 (append-only, cached: 0), iterating over n items
    1 for each 1000 and 1 for each one without a current copy; all else as BasicS3Dict.

    Args:
        bucket_name: See BasicS3Dict, for this and for all that is not named here.
        region: See BasicS3Dict.
        root_prefix: See BasicS3Dict.
        base_dir: The directory of the copies; made for this user alone. Copies belong to
            the access key id that they were fetched with: with other credentials there is
            nothing to be read.
        serialization_format: See BasicS3Dict.
        digest_len: Kept for code that passes it: names in the directory are digests.
        append_only: See BasicS3Dict.
        base_class_for_values: See BasicS3Dict.
        cache_size_limit: How many bytes the copies of all dictionaries in `base_dir` may
            have; None: any. The least recently used go first. Give all dictionaries that
            share a directory the same limit.
        max_staleness: For how many seconds ``d[key]`` and `get` serve a value without
            asking after this process has seen it to be the current one. Conditional
            operations, iteration and everything else always ask.
        endpoint_url: See BasicS3Dict.
        profile_name: See BasicS3Dict.
        aws_access_key_id: See BasicS3Dict.
        aws_secret_access_key: See BasicS3Dict.
        aws_session_token: See BasicS3Dict.
        boto_config: See BasicS3Dict.
        s3_client: See BasicS3Dict.
        create_bucket: See BasicS3Dict.
        max_concurrency: See BasicS3Dict.
        large_object_size: See BasicS3Dict.
        transport: See BasicS3Dict.
        put_options: See BasicS3Dict.
        request_options: See BasicS3Dict.
        expected_bucket_owner: See BasicS3Dict.
        codec: See BasicS3Dict.
        protection: See BasicS3Dict; what is cached is protected in the same way.
        read_only: See BasicS3Dict; copies are still kept of what is read.

    Raises:
        botocore.exceptions.ClientError: The bucket cannot be found or created.
        ValueError: `base_dir` is a file, `digest_len`, `cache_size_limit` or
            `max_staleness` is negative, or as BasicS3Dict.
        TypeError: A parameter is of a wrong type.
        BackendError: `base_dir` is another user's, or others may write to it.
    """

    base_dir: str
    digest_len: int
    cache_size_limit: int | None
    max_staleness: float

    def __init__(
        self,
        *,
        bucket_name: str = "my_bucket",
        region: str | None = None,
        root_prefix: str = "",
        base_dir: str | os.PathLike[str] = "__s3_dict__",
        serialization_format: str = "pkl",
        digest_len: int = 8,
        append_only: bool = False,
        base_class_for_values: type | None = None,
        cache_size_limit: int | None = None,
        max_staleness: float = 0,
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
        params: dict[str, Any] = {
            "endpoint_url": endpoint_url,
            "aws_access_key_id": aws_access_key_id,
            "aws_secret_access_key": aws_secret_access_key,
            "aws_session_token": aws_session_token,
            "boto_config": boto_config,
        }
        del endpoint_url, aws_access_key_id, aws_secret_access_key, aws_session_token, boto_config
        self._mask(params)
        check_digest_len(digest_len)
        self.digest_len = digest_len
        self.base_dir = absolute_directory("base_dir", base_dir)
        self.cache_size_limit = check_int_or_none("cache_size_limit", cache_size_limit, at_least=0)
        self.max_staleness = check_seconds("max_staleness", max_staleness)
        super().__init__(
            bucket_name=bucket_name,
            region=region,
            root_prefix=root_prefix,
            serialization_format=serialization_format,
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            profile_name=profile_name,
            s3_client=s3_client,
            create_bucket=create_bucket,
            max_concurrency=max_concurrency,
            large_object_size=large_object_size,
            transport=transport,
            put_options=put_options,
            request_options=request_options,
            expected_bucket_owner=expected_bucket_owner,
            codec=codec,
            protection=protection,
            read_only=read_only,
            **params,
        )
        store = cast("S3Store", self._store)
        shared = store.shared
        place = [shared.endpoint, bucket_name, self.root_prefix, serialization_format]
        if is_mocked := world():
            place.append(is_mocked)
        self._store = CachedStore(
            store,
            self.base_dir,
            identity="\n".join(place),
            reader=lambda: _digest_of_name(shared.access_key_id),
            trusting=self.append_only,
            max_staleness=self.max_staleness,
            size_limit=self.cache_size_limit,
        )

    def _own_params(self) -> dict[str, Any]:
        return super()._own_params() | {
            "base_dir": self.base_dir,
            "cache_size_limit": self.cache_size_limit,
            "digest_len": self.digest_len,
            "max_staleness": self.max_staleness,
        }

    @property
    def _cached_store(self) -> CachedStore:
        return cast("CachedStore", self._store)

    @property
    def _s3_store(self) -> S3Store:
        return cast("S3Store", self._cached_store.wrapped)

    def _value(self, key: NonEmptySafeStrTuple) -> Any:
        name = self._naming.name_of(key)
        recent = self._cached_store.recent(name)
        if recent is None:
            return super()._value(key)
        if isinstance(recent, BUFFERS):
            return self._decode(key, recent)
        with recent:
            return self._decode(key, recent)

    def cache_info(self) -> CacheInfo:
        """Tell what the cache has done for this handle and its sub-dictionaries, and its size.

        Returns:
            ``(hits, revalidations, misses, corrupt, evictions, bytes, entries)``; the last
            two are those of the whole directory, which is listed for that.
        """
        return self._cached_store.info()

    def clear_cache(self) -> None:
        """Delete this dictionary's copies in the local directory, and no item.

        Those that were fetched with other credentials stay.
        On a sub-dictionary, the copies of the whole dictionary that it was made from.
        """
        self._cached_store.clear_cache()


S3Dict = S3Dict_FileDirCached


@lru_cache(maxsize=256)
def _digest_of_name(access_key_id: str) -> str:
    """Return what tells the copies of one access key id from those of another."""
    return blake2b(access_key_id.encode(), digest_size=16, key=_PURPOSE).hexdigest()
