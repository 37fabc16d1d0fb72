"""Dictionaries on a store: the contract's primitives by naming, codec and store."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from operator import itemgetter
from typing import Any, BinaryIO, TypeVar, cast

from persidict.codecs import (
    BytesCodec,
    Codec,
    MissingExtraError,
    codec_for,
    is_registered,
)
from persidict.codecs.registry import checked_codec
from persidict.contract.listing import Listing
from persidict.contract.primitives import KeyRange
from persidict.contract.unreadable import UnreadableItems
from persidict.exceptions import (
    BackendError,
    ConcurrencyConflictError,
    ObjectNotFound,
    PreconditionFailed,
    ProtectionError,
    without_frames,
)
from persidict.jokers_and_status_flags import (
    VALUE_NOT_RETRIEVED,
    ETagIfExists,
    ETagValue,
    ItemNotAvailableFlag,
    ValueType,
)
from persidict.naming import KeyNaming, Stretch
from persidict.notes import extra_for, note, note_origin
from persidict.persi_dict import PersiDict
from persidict.protection import NotProtected, Protection
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple, checked_key
from persidict.stores.object_store import (
    ANY_VERSION,
    BUFFERS,
    Buffer,
    NotModified,
    ObjectInfo,
    ObjectStore,
)
from persidict.stores.optional import (
    CopiesInside,
    ListsInGroups,
    get_or_open,
    layers,
    lists_in_groups,
    read_or_open,
    traffic_of,
)
from persidict.stores.shared.secret import mask, revealed
from persidict.traffic import Traffic
from persidict.traits import Traits

SelfType = TypeVar("SelfType", bound="StoredDict[Any]")
Found = TypeVar("Found")

_ANSWERS = (ObjectNotFound, PreconditionFailed)
"""What a store answers, as opposed to what goes wrong in it."""


class StoredDict(PersiDict[ValueType]):
    """A dictionary whose items are objects of a store.

    A subclass calls `_attach` at the end of its constructor, says in `_own_params` how it
    was made, and in `_enter` what changes below a prefix.

    Args:
        append_only: See PersiDict.
        base_class_for_values: See PersiDict.
        serialization_format: See PersiDict.
        codec: How values become bytes, in place of what the format says. It travels with
            pickled handles, and needs not be registered anywhere.
        protection: What is done to the bytes before they are stored; see `Protection`.
        read_only: Whether this handle refuses to change items; see `read_only()`.

    Raises:
        TypeError: `codec` is no Codec, or `protection` no Protection.
        ValueError: `serialization_format` is one that the codec does not write.
    """

    _store: ObjectStore
    _codec: Codec
    _naming: KeyNaming

    codec: Codec | None
    protection: Protection | None

    def __init__(
        self,
        *,
        append_only: bool = False,
        base_class_for_values: type | None = None,
        serialization_format: str = "pkl",
        codec: Codec | None = None,
        protection: Protection | None = None,
        read_only: bool = False,
    ) -> None:
        self.codec = checked_codec(codec, serialization_format)
        if protection is not None and not isinstance(protection, Protection):
            raise TypeError(
                "protection must be Signed(...), Encrypted(...) or None,"
                f" not {type(revealed(protection)).__name__}"
            )
        self.protection = protection
        super().__init__(
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            read_only=read_only,
        )

    @classmethod
    def _mask(cls, params: dict[str, Any]) -> None:
        mask(params, "protection")  # a key is given instead of a protection, now and then

    def _holds_objects(self, serialization_format: str) -> bool:
        return (
            self.codec is not None
            or super()._holds_objects(serialization_format)
            or is_registered(serialization_format)
        )

    def _chosen_codec(self, *, compress: bool) -> Codec:
        """Return the codec that was handed in, or that of the format."""
        return self.codec or codec_for(
            self.serialization_format,
            value_class=self.base_class_for_values,
            compress=compress,
        )

    def _content_type(self, codec: Codec) -> str:
        """Return the media type of what is stored: under protection, that of any bytes."""
        return codec.content_type if self.protection is None else Codec.content_type

    def _attach(self, store: ObjectStore, codec: Codec, naming: KeyNaming) -> None:
        """Tell where the items live, what they are made of, and how they are named."""
        self._store = store.for_reading() if self._is_read_only else store
        self._codec = codec
        self._naming = naming

    def _become_read_only(self) -> None:
        super()._become_read_only()
        self._store = self._store.for_reading()

    def _subdict(self: SelfType, prefix: SafeStrTuple) -> SelfType:
        sub = self._twin()
        sub._store = self._store.scoped(self._naming.prefix_of(prefix))
        if self.protection is not None:
            sub.protection = self.protection.within(prefix.strings)
        sub._enter(prefix)
        return sub

    def _enter(self, prefix: SafeStrTuple) -> None:
        """Adapt the parameters of this handle, which has just been scoped to a prefix."""

    @property
    def _traits(self) -> Traits:
        return self._store.traits

    # ------------------------------------------------------------------ stored bytes

    @property
    def raw(self) -> StoredDict[bytes]:
        """The same dictionary with the stored bytes as its values; see PersiDict."""
        return cast("StoredDict[bytes]", super().raw)

    def _become_raw(self) -> None:
        self._codec = BytesCodec()
        self.protection = None

    @property
    def _byte_form(self) -> object:
        return (
            self.serialization_format,
            type(self._codec),
            self.codec,
            self.protection,
            self.base_class_for_values,
        )

    def _open(self, key: NonEmptySafeStrTuple) -> BinaryIO:
        try:
            return self._store.open(self._naming.name_of(key))
        except _ANSWERS:
            raise
        except Exception as error:
            note(error, "open", key)
            raise

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's parameters, sorted by name; see `raw` for a raw one.

        `codec` and `protection` are among them only where there is one.
        """
        return super().get_params()

    def _all_params(self) -> dict[str, Any]:
        chosen = {"codec": self.codec, "protection": self.protection}
        return super()._all_params() | {
            name: value for name, value in chosen.items() if value is not None
        }

    # ------------------------------------------------------------------ one item

    def _load(
        self, key: NonEmptySafeStrTuple, *, if_none_match: ETagValue | None = None
    ) -> tuple[Any, ETagValue]:
        name = self._naming.name_of(key)
        try:
            found = get_or_open(self._store, name, if_none_match)
        except _ANSWERS:
            raise
        except Exception as error:
            note(error, "get", key)
            raise
        if isinstance(found, NotModified):
            assert if_none_match is not None
            return VALUE_NOT_RETRIEVED, if_none_match
        data, info = found
        if isinstance(data, BUFFERS):
            return self._decode(key, data), info.etag
        with data:
            return self._decode(key, data), info.etag

    def _load_version(self, key: NonEmptySafeStrTuple) -> tuple[Any, ObjectInfo]:
        name = self._naming.name_of(key)
        try:
            found = get_or_open(self._store, name, None)
        except _ANSWERS:
            raise
        except Exception as error:
            note(error, "get", key)
            raise
        assert not isinstance(found, NotModified)
        data, info = found
        if isinstance(data, BUFFERS):
            return self._decode(key, data), info
        with data:
            return self._decode(key, data), info

    def _value(self, key: NonEmptySafeStrTuple) -> Any:
        try:
            data = read_or_open(self._store, self._naming.name_of(key))
        except _ANSWERS:
            raise
        except Exception as error:
            note(error, "get", key)
            raise
        if isinstance(data, BUFFERS):
            return self._decode(key, data)
        with data:
            return self._decode(key, data)

    def _decode(self, key: NonEmptySafeStrTuple, data: Buffer | BinaryIO) -> Any:
        if self.protection is not None:
            data = self._unprotected(key, data)
        begin = 0
        try:
            if isinstance(data, BUFFERS):
                value = self._codec.decode(data)
            else:
                begin = data.tell()
                value = self._codec.decode_stream(data)
        except (MissingExtraError, MemoryError) as error:
            note(error, "decode", key)
            raise
        except Exception as error:
            size = len(data) if isinstance(data, BUFFERS) else data.seek(0, io.SEEK_END) - begin
            raise BackendError(
                f"item {key!r} cannot be decoded from the format {self.serialization_format!r}"
                f" ({self._place_of(key)!r}, {size} bytes):"
                f" {type(error).__name__}: {error}{extra_for(error)}",
                operation="decode",
                key=key,
            ) from error
        if self.base_class_for_values is not None:
            try:
                self._check_is_instance(value)
            except TypeError as error:
                note(error, "get", key)
                raise
        return value

    def _place_of(self, key: NonEmptySafeStrTuple) -> str:
        return self._store.location(self._naming.name_of(key))

    def _unprotected(self, key: NonEmptySafeStrTuple, data: Buffer | BinaryIO) -> Buffer:
        """Check stored bytes and return what they protect."""
        assert self.protection is not None
        stored = data if isinstance(data, BUFFERS) else data.read()
        try:
            return self.protection.check(stored, key.strings, self.serialization_format)
        except NotProtected as error:
            reason = str(error)
        except Exception as error:
            note(error, "check", key)
            raise
        # not from within: the frames of the check have keys in them
        raise ProtectionError(
            f"item {key!r} is not trusted, and was not decoded"
            f" ({self._place_of(key)!r}, {len(stored)} bytes): {reason}",
            operation="check",
            key=key,
        )

    def _head(self, key: NonEmptySafeStrTuple) -> ObjectInfo:
        try:
            return self._store.head(self._naming.name_of(key))
        except _ANSWERS:
            raise
        except Exception as error:
            note(error, "head", key)
            raise

    def _contains(self, key: NonEmptySafeStrTuple) -> bool:
        try:
            return self._store.contains(self._naming.name_of(key))
        except Exception as error:
            note(error, "contains", key)
            raise

    def _encode(self, key: NonEmptySafeStrTuple, value: Any) -> Buffer:
        try:
            data = self._codec.encode(value)
            if self.codec is not None and not isinstance(data, BUFFERS):
                raise TypeError(
                    f"codec {type(self.codec).__name__} must encode to bytes,"
                    f" not to {type(data).__name__}"
                )
            if self.protection is not None:
                return self.protection.protect(data, key.strings, self.serialization_format)
            return data
        except Exception as error:
            error.add_note(
                f"persidict: the value of item {key!r} cannot be stored"
                f" in the format {self.serialization_format!r}; nothing was changed"
            )
            raise

    def _write(
        self, key: NonEmptySafeStrTuple, value: Any, expected: ETagIfExists | None
    ) -> ETagValue:
        name = self._naming.name_of(key)
        data = self._encode(key, value)
        try:
            if expected is None:
                return self._store.put(name, data)
            if isinstance(expected, ItemNotAvailableFlag):
                return self._store.put(name, data, if_none_match=ANY_VERSION)
            return self._store.put(name, data, if_match=expected)
        except _ANSWERS:
            raise
        except Exception as error:
            note(error, "put", key)
            raise

    def _remove(self, key: NonEmptySafeStrTuple, expected: ETagValue | None) -> None:
        # a caller's "*" is the ETag of no version; to a store it would stand for any
        version = ETagValue('"*"') if expected == ANY_VERSION else expected
        try:
            self._store.delete(
                self._naming.name_of(key), if_match=ANY_VERSION if version is None else version
            )
        except _ANSWERS:
            raise
        except ConcurrencyConflictError as conflict:
            raise ConcurrencyConflictError(key, conflict.attempts) from conflict
        except Exception as error:
            note(error, "delete", key)
            raise

    # ------------------------------------------------------------------ many items

    def _keys(self, *, page_size: int | None = None) -> Iterator[NonEmptySafeStrTuple]:
        store = self._store
        if not lists_in_groups(type(store)):
            yield from map(itemgetter(0), self._named_keys(page_size=page_size))
            return
        keys_in = self._naming.keys_in
        try:
            for group in cast("ListsInGroups", store).name_groups(page_size=page_size):
                yield from keys_in(*group)
            self._naming.end_listing()
        except Exception as error:
            note(error, "list", None)
            raise

    def _named_keys(
        self, *, page_size: int | None = None
    ) -> Iterator[tuple[NonEmptySafeStrTuple, str]]:
        naming, store = self._naming, self._store
        try:
            if lists_in_groups(type(store)):
                for group in cast("ListsInGroups", store).name_groups(page_size=page_size):
                    yield from naming.named_keys_in(*group)
            else:
                for name in store.names(page_size=page_size):
                    if (key := naming.key_of(name)) is not None:
                        yield key, name
            naming.end_listing()
        except Exception as error:
            note(error, "list", None)
            raise

    def _versions(
        self, key_range: KeyRange | None = None
    ) -> Iterator[tuple[NonEmptySafeStrTuple, ObjectInfo]]:
        return self._listing() if key_range is None else iter(self._listing_in(key_range))

    def _listing(self) -> Iterator[tuple[NonEmptySafeStrTuple, ObjectInfo]]:
        try:
            for info in self._store.list():
                assert isinstance(info, ObjectInfo), f"{info!r:.80} is no ObjectInfo"
                key = self._naming.key_of(info.name)
                if key is not None:
                    yield key, info
            self._naming.end_listing()
        except Exception as error:
            note(error, "list", None)
            raise

    def _items(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        # made here and not in the generator, which begins only when it is read
        return self._read(Listing(self._listed, self._entries()))

    def _items_written(
        self, is_wanted: Callable[[float], bool]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        return self._read(self._entries(), is_wanted)

    def _read(
        self,
        entries: Iterable[tuple[NonEmptySafeStrTuple, str | ObjectInfo]],
        is_wanted: Callable[[float], bool] | None = None,
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any, float]]:
        """Fetch what is listed; entries whose objects have vanished are left out."""
        unreadable = UnreadableItems()
        asked: deque[tuple[str, NonEmptySafeStrTuple]] = deque()

        def wanted() -> Iterator[str | ObjectInfo]:
            for key, entry in entries:
                asked.append((entry if isinstance(entry, str) else entry.name, key))
                yield entry

        for found_name, data, info in self._store.get_many(wanted()):
            name, key = asked.popleft()
            while name != found_name:
                name, key = asked.popleft()
            if is_wanted is not None and info is not None and not is_wanted(info.last_modified):
                continue
            try:
                if isinstance(data, Exception):
                    raise data
                value = self._decode(key, data)
            except Exception as error:  # raised when all others have been read
                unreadable.add(key, error)
            else:
                assert info is not None
                yield key, value, info.last_modified
        unreadable.raise_if_any()

    def _entries(self) -> Iterator[tuple[NonEmptySafeStrTuple, str | ObjectInfo]]:
        """List all keys, each with what the store fetches it by at the least cost."""
        if self._store.traits.listing_brings_versions:
            yield from self._listing()
        else:
            yield from self._named_keys()

    def _load_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        for key, value, _ in self._read(self._named(keys)):
            yield key, value

    def _named(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, str]]:
        for key in keys:
            yield key, self._naming.name_of(key)

    def _write_many(
        self, items: Iterable[tuple[NonEmptySafeStrTuple, Any]], *, only_new: bool
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception | None]]:
        asked: dict[str, NonEmptySafeStrTuple] = {}
        unencodable: list[tuple[NonEmptySafeStrTuple, Exception]] = []

        def encoded() -> Iterator[tuple[str, Buffer]]:
            for key, value in items:
                try:
                    data = self._encode(key, value)
                except Exception as error:  # reported to the caller, item by item
                    note_origin(error)
                    unencodable.append((key, without_frames(error)))
                    continue
                name = self._naming.name_of(key)
                asked[name] = key
                yield name, data

        condition = ANY_VERSION if only_new else None
        for name, outcome in self._store.put_many(encoded(), if_none_match=condition):
            yield asked.pop(name), outcome if isinstance(outcome, Exception) else None
        yield from unencodable

    def _remove_many(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Exception]]:
        for name, error in self._store.delete_many(map(self._naming.name_of, keys)):
            key = self._naming.key_of(name)
            assert key is not None
            yield key, error

    def _keys_in(self, key_range: KeyRange) -> list[NonEmptySafeStrTuple]:
        def found_below(prefix: str, stretch: Stretch) -> Iterator[tuple[str, None]]:
            for name in self._store.names(prefix, start_after=stretch.start_after):
                yield name, None

        found = set(self._in_stretches(key_range, found_below))
        itself = checked_key(key_range.prefix) if key_range.prefix else None
        if itself is not None and key_range.contains(itself) and self._contains(itself):
            found.add(itself)
        return sorted(found)

    def _listing_in(self, key_range: KeyRange) -> list[tuple[NonEmptySafeStrTuple, ObjectInfo]]:
        def found_below(prefix: str, stretch: Stretch) -> Iterator[tuple[str, ObjectInfo]]:
            for info in self._store.list(prefix, start_after=stretch.start_after):
                assert isinstance(info, ObjectInfo), f"{info!r:.80} is no ObjectInfo"
                yield info.name, info

        found = self._in_stretches(key_range, found_below)
        itself = checked_key(key_range.prefix) if key_range.prefix else None
        if itself is not None and key_range.contains(itself):
            with suppress(ObjectNotFound):
                found[itself] = self._head(itself)
        return sorted(found.items(), key=itemgetter(0))

    def _in_stretches(
        self,
        key_range: KeyRange,
        found_below: Callable[[str, Stretch], Iterator[tuple[str, Found]]],
    ) -> dict[NonEmptySafeStrTuple, Found]:
        """Return what is listed of the keys in a range that are longer than its prefix."""
        found = {}
        prefix = self._naming.prefix_of(checked_key(key_range.prefix)) if key_range.prefix else ""
        for stretch in self._naming.stretches(key_range):
            for name, entry in found_below(prefix, stretch):
                if stretch.end is not None and name >= stretch.end:
                    break
                if (key := self._naming.key_of(name)) is not None and key_range.contains(key):
                    found[key] = entry
        return found

    # ------------------------------------------------------------------ from outside

    def _traffic(self) -> Traffic:
        return traffic_of(self._store)

    def _location(self, key: NonEmptySafeStrTuple) -> str:
        return self._place_of(key)

    def _copy(self, source: NonEmptySafeStrTuple, target: NonEmptySafeStrTuple) -> ETagIfExists:
        if self.protection is not None:
            stored = self.raw._load(source)[0]
            data = self._unprotected(source, stored)
            data = self.protection.protect(data, target.strings, self.serialization_format)
            return (
                self.raw._insert(target, data)
                if self.append_only
                else (self.raw._write(target, data, None))
            )
        if not self.append_only:
            made = self._copy_inside(source, target)
            if made is not None:
                return made
        if self._raw_of is None:
            return self.raw._copy(source, target)
        return super()._copy(source, target)

    def _copy_inside(
        self, source: NonEmptySafeStrTuple, target: NonEmptySafeStrTuple
    ) -> ETagValue | None:
        """Have the storage copy an item; return None if it does not do that."""
        names = [(self._naming.name_of(source), self._naming.name_of(target))]
        *_, innermost_store = layers(self._store)
        for store in layers(self._store):
            if isinstance(store, CopiesInside) and store.can_copy_from(innermost_store):
                ((_, outcome),) = store.copy_many(innermost_store, names)
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
        return None
