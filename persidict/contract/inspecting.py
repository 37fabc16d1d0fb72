"""Operations that tell of items what is known without their values, and where they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Literal, NamedTuple, TypeAlias, get_args

from persidict.checks import check_int
from persidict.contract.primitives import DictPrimitives, key_range_of, raise_key_error
from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ETagIfExists, ETagValue, ValueType
from persidict.safe_str_tuple import (
    NonEmptyPersiDictKey,
    NonEmptySafeStrTuple,
    PersiDictKey,
    as_key,
    named_key,
)

HttpMethod: TypeAlias = Literal["GET", "HEAD", "PUT", "DELETE"]
"""What a URL may be made for."""

_LONGEST_SECONDS = 7 * 24 * 3600
"""How long a signed URL can hold, on S3, Azure and Google alike."""


class ItemInfo(NamedTuple):
    """What is known of an item without its value, all of one version.

    Attributes:
        key: Its key.
        etag: Its version.
        size: How many bytes are stored.
        last_modified: When it was written, in POSIX seconds.
    """

    key: NonEmptySafeStrTuple
    etag: ETagValue
    size: int
    last_modified: float


class InspectingOperations(DictPrimitives, Generic[ValueType]):
    """Looking at items from outside, written once on the primitives."""

    def info(self, key: NonEmptyPersiDictKey) -> ItemInfo:
        """Tell what is known of an item without its value, in one look.

        Raises:
            KeyError: There is no such item.
        """
        checked = as_key(key)
        try:
            version = self._head(checked)
        except ObjectNotFound as absent:
            raise_key_error(checked, absent)
        return ItemInfo(checked, version.etag, version.size, version.last_modified)

    def infos(
        self,
        prefix: PersiDictKey = (),
        start: PersiDictKey | None = None,
        stop: PersiDictKey | None = None,
    ) -> Iterator[ItemInfo]:
        """Iterate over what is known of all items, or of those in a range, without values.

        Costs what the listing costs. Without arguments in the order of the storage, else in
        that of the keys.

        Args:
            prefix: See `keys`.
            start: See `keys`.
            stop: See `keys`.
        """
        versions = self._versions(key_range_of(prefix, start, stop))
        return (
            ItemInfo(key, version.etag, version.size, version.last_modified)
            for key, version in versions
        )

    def location(self, key: NonEmptyPersiDictKey) -> str:
        """Say where an item lies, or would lie: a path or URL. Nothing is looked at.

        Raises:
            TypeError: This kind of dictionary keeps its items nowhere.
        """
        return self._location(as_key(key))

    def presign(
        self, key: NonEmptyPersiDictKey, method: HttpMethod = "GET", expires: int = 3600
    ) -> str:
        """Return a URL with which anybody can do one thing with an item for a while.

        Nothing checks whether there is such an item. What is read and written through the URL
        are the stored bytes, see `raw`. No request is made, but for credentials that have to be
        fetched, and on Azure with an object of ``azure-identity``: one for a key to sign with.
        Who uses a URL of Azure's for ``"PUT"`` sends the header ``x-ms-blob-type: BlockBlob``.

        Args:
            key: The key.
            method: What the URL is for: ``"GET"``, ``"HEAD"``, ``"PUT"`` or ``"DELETE"``.
            expires: For how many seconds it holds, up to seven days.

        Raises:
            TypeError: This kind of dictionary keeps its items where no URL leads to, or
                `expires` is no int.
            ValueError: The method is another one, or the time out of range.
            MutationPolicyError: The dictionary is append-only or the handle read-only, and the
                method changes items.
        """
        checked = as_key(key)
        if method not in get_args(HttpMethod):
            raise ValueError(f"method must be one of {get_args(HttpMethod)}, not {method!r:.80}")
        if not 0 < check_int("expires", expires) <= _LONGEST_SECONDS:
            raise ValueError(f"expires must be from 1 to {_LONGEST_SECONDS} s, it is {expires}")
        if method in ("PUT", "DELETE"):
            self._refuse_deletion()
        return self._presign(checked, method, expires)

    def copy_item(
        self, source_key: NonEmptyPersiDictKey, target_key: NonEmptyPersiDictKey
    ) -> ETagIfExists:
        """Copy an item to another key, atomically, inside the storage where it can do that.

        The stored bytes are copied as they are; signed or encrypted ones are checked, and
        signed or encrypted anew for the other key. Costs: on S3 one request.

        Args:
            source_key: The item.
            target_key: Where the copy goes; what is there is replaced.

        Returns:
            The version of the copy.

        Raises:
            KeyError: There is no such item.
            MutationPolicyError: The dictionary is append-only and the target exists.
        """
        source, target = named_key("source_key", source_key), named_key("target_key", target_key)
        self._refuse_if_read_only()
        try:
            if source == target:
                version = self._head(source)
                if self.append_only:
                    self._refuse_change(target)
                return version.etag
            return self._copy(source, target)
        except ObjectNotFound as absent:
            raise_key_error(source, absent)
        except PreconditionFailed:
            self._refuse_change(target)

    # ------------------------------------------------------------------ primitives with defaults

    def _location(self, key: NonEmptySafeStrTuple) -> str:
        """Return the path or URL of an item."""
        raise TypeError(f"the items of a {type(self).__name__} lie nowhere")

    def _presign(self, key: NonEmptySafeStrTuple, method: HttpMethod, expires: int) -> str:
        """Return a URL for an item."""
        raise TypeError(f"no URL leads to the items of a {type(self).__name__}")

    def _copy(self, source: NonEmptySafeStrTuple, target: NonEmptySafeStrTuple) -> ETagIfExists:
        """Copy an item, or raise ObjectNotFound; see `_write` for append-only."""
        value: Any = self._load(source)[0]
        if self.append_only:
            return self._insert(target, value)
        return self._write(target, value, None)
