"""What dictionaries in the clouds of Azure and Google have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from persidict.checks import check_flag, check_int, check_prefix
from persidict.contract.inspecting import HttpMethod
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import KeyNaming
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple
from persidict.stored_dict import StoredDict
from persidict.urls import Place, place

if TYPE_CHECKING:
    from persidict.stores.clouds.store import CloudStore


class CloudDict(StoredDict[ValueType]):
    """A dictionary below a prefix of a bucket, whose store is a CloudStore.

    A subclass calls `_connect` at the end of its constructor.

    Args:
        root_prefix: What the names of all objects begin with.
        max_concurrency: How many requests may be under way at once.
        create: Whether to create the bucket if it is missing.
        **params: Those of StoredDict.
    """

    _bucket: ClassVar[str]
    """What the service calls a bucket."""

    root_prefix: str

    def __init__(
        self, *, root_prefix: str, max_concurrency: int, create: bool, **params: Any
    ) -> None:
        super().__init__(**params)
        self.root_prefix = check_prefix("root_prefix", root_prefix)
        self._max_concurrency = check_int("max_concurrency", max_concurrency, at_least=1)
        self._create = check_flag(f"create_{self._bucket}", create)

    def _connect(self, new_store: Callable[..., CloudStore[Any]], naming: KeyNaming) -> None:
        codec = self._chosen_codec(compress=True)
        store = new_store(
            prefix=self.root_prefix,
            content_type=self._content_type(codec),
            max_concurrency=self._max_concurrency,
        )
        if self._create and not self._is_read_only:
            store.ensure_bucket()
        self._attach(store, codec, naming)

    def _own_params(self) -> dict[str, Any]:
        return {
            f"create_{self._bucket}": self._create,
            "max_concurrency": self._max_concurrency,
            "root_prefix": self.root_prefix,
        }

    def _enter(self, prefix: SafeStrTuple) -> None:
        self.root_prefix += self._naming.prefix_of(prefix)

    def _place(self) -> Place:
        scheme, _, path = self.base_url.partition("://")
        return place(scheme, path.rstrip("/"), f"{self._bucket}_name", "root_prefix")

    def _presign(self, key: NonEmptySafeStrTuple, method: HttpMethod, expires: int) -> str:
        store = cast("CloudStore[Any]", self._store)
        return store.signed_url(self._naming.name_of(key), method, expires)

    @property
    def base_url(self) -> str:
        """Where the items are: scheme, bucket and prefix."""
        return self._store.location("")
