"""What the stores of Azure and Google have in common: one policy for what goes wrong on the way."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Final, Generic, Literal, NamedTuple, TypeVar

from persidict import log
from persidict.back_off import seconds_to_pause
from persidict.exceptions import ObjectNotFound, PreconditionFailed, without_frames
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagIfExists, ETagValue
from persidict.stores.clouds.connection import ClientOfProcess, ClientType
from persidict.stores.clouds.outcome import (
    DID_NOTHING,
    Kind,
    Trouble,
    Versions,
    Write,
    unknown,
)
from persidict.stores.object_store import (
    ANY_VERSION,
    NOT_MODIFIED,
    AnyVersion,
    Buffer,
    CommonPrefix,
    NotModified,
    ObjectInfo,
    ObjectStore,
    Read,
    Unread,
)
from persidict.stores.shared.lineage import LineageMemory, versions_in
from persidict.stores.shared.parallel import WorkerPool, map_in_order
from persidict.traits import Traits

Answer = TypeVar("Answer")
Known = TypeVar("Known")
SelfType = TypeVar("SelfType", bound="CloudStore[Any]")

METADATA_KEY: Final = "persidict_lineage"
"""Where an object's lineage is; Azure allows letters, digits and underscores in such names."""

_ATTEMPTS: Final = 5
_SECONDS_OF_PATIENCE: Final = 0.25
"""What pauses begin with for a server that is busy: Google takes a write a second of one object."""


class Listing(NamedTuple):
    """What is to be listed, with whole names; see `ObjectStore.list`."""

    prefix: str
    start_after: str | None
    delimiter: str | None
    page_size: int | None


class CloudStore(ObjectStore, Generic[ClientType]):
    """Objects below a prefix, in a cloud that enforces conditions on every request.

    A version there is never used twice. Every write leaves a lineage in the object's
    metadata (see `persidict.stores.shared.lineage`), by which one whose answer got lost
    is recognised. A change is sent again only if it is seen not to have acted.

    A subclass says how a request is sent, once, and what its library raises.

    Args:
        shared: The library's client, for each process.
        bucket_name: What the objects are in.
        prefix: What all names of this store begin with.
        content_type: The media type of what is written.
        max_concurrency: How many requests may be under way at once.
    """

    traits = Traits(reads_are_cheap=False, listing_brings_versions=True, back_off_seconds=0.02)

    _scheme: ClassVar[str]
    """What URLs of this service begin with."""

    _errors: ClassVar[tuple[type[Exception], ...]]
    """What the library raises."""

    _etag_form: ClassVar[re.Pattern[str]]
    """How the ETags of this service look."""

    _no_etag: ClassVar[ETagValue]
    """One that looks so, and that no object has."""

    def __init__(
        self,
        shared: ClientOfProcess[ClientType],
        bucket_name: str,
        *,
        prefix: str,
        content_type: str,
        max_concurrency: int,
    ) -> None:
        self._shared = shared
        self._bucket_name = bucket_name
        self._prefix = prefix
        self._content_type = content_type
        self._pool = WorkerPool(max_concurrency)
        self._lineages = LineageMemory()

    @property
    def client(self) -> ClientType:
        """The library's client, in this process."""
        return self._shared.client

    # ------------------------------------------------------------------ what a subclass supplies

    @staticmethod
    @abstractmethod
    def _trouble_of(error: Exception) -> Trouble:
        """Tell what it means that the library raised something."""

    @abstractmethod
    def _send_head(self, name: str) -> tuple[ObjectInfo, str | None]:
        """Return what is known of an object, and its lineage."""

    @abstractmethod
    def _send_get(
        self, name: str, if_none_match: ETagValue | None
    ) -> tuple[Buffer, ObjectInfo, str | None]:
        """Return bytes, what is known of them, and the lineage, all of one version."""

    @abstractmethod
    def _send_put(
        self, name: str, data: Buffer, lineage: str, expected: ETagIfExists | None
    ) -> ETagValue:
        """Write once; the library must not repeat it by itself."""

    @abstractmethod
    def _send_delete(self, name: str, if_match: ETagValue | None) -> None:
        """Delete once; what is not there is an error, with or without a version."""

    @abstractmethod
    def _send_list(self, wanted: Listing) -> Iterator[Iterable[ObjectInfo | CommonPrefix]]:
        """List by pages, in the order of names; within a page any order will do.

        Those up to `start_after` may come, too.
        """

    @abstractmethod
    def _send_copy(
        self, source: CloudStore[ClientType], source_name: str, name: str, lineage: str
    ) -> ETagValue | None:
        """Have the service copy an object; None: it does not copy this one.

        Raises ObjectNotFound where the source does not exist.
        """

    @abstractmethod
    def ensure_bucket(self) -> None:
        """Create what the objects are in, if it is missing; losing the race to do so is fine."""

    @abstractmethod
    def can_copy_from(self, source: ObjectStore) -> bool:
        """Tell whether `copy_many` takes objects of another store; see `CopiesInside`."""

    @abstractmethod
    def signed_url(self, name: str, method: str, expires: int) -> str:
        """Return a URL with which anybody can send requests of one method for a while.

        Args:
            name: The object's name.
            method: ``"GET"``, ``"HEAD"``, ``"PUT"`` or ``"DELETE"``.
            expires: For how many seconds.

        Raises:
            TypeError: There is nothing to sign with.
        """

    def _check_that_conditions_hold(self) -> None:
        """Raise BackendError if this server is known to ignore conditions."""

    def _lineage_of(self, name: str, version: ETagValue) -> str | None:
        """Return the lineage of a version that is to be replaced, None: it is not known.

        Raises:
            PreconditionFailed: Another version is seen to be there.
        """
        return self._lineages.recall(self._prefix + name, version)

    # ------------------------------------------------------------------ requests

    @contextmanager
    def _hushed(self) -> Iterator[None]:
        """Let what the library raises pass without its frames, and without secrets."""
        try:
            yield
        except self._errors as error:
            raise self._trouble_of(error).error from None

    def _persist(
        self, send: Callable[[], Answer], judge: Callable[[Trouble], Known | None]
    ) -> Answer | Known:
        """Send a request until it is known what became of it, and return the answer.

        Args:
            send: Sends it once.
            judge: Called when that fails; raises, or tells the answer all the same; None: the
                request did nothing, and is sent again.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return send()
            except self._errors as error:
                trouble = self._trouble_of(error)
                known = judge(trouble)
                if known is not None:
                    return known
                if attempt == _ATTEMPTS:
                    raise trouble.error from None
            _pause_after(trouble, attempt, self.traits.back_off_seconds)
        raise AssertionError("unreachable")

    def _read(self, name: str, send: Callable[[], Answer]) -> Answer | NotModified:
        """Send what changes nothing, and again where that may help."""

        def judge(trouble: Trouble) -> NotModified | None:
            if trouble.kind is Kind.ABSENT:
                raise ObjectNotFound(self.location(name)) from trouble.error
            if trouble.kind is Kind.UNCHANGED:
                return NOT_MODIFIED
            # unmet: another version came between two parts of a large one
            if trouble.kind not in (*DID_NOTHING, Kind.LOST, Kind.UNMET):
                raise trouble.error from None
            return None

        return self._persist(send, judge)

    def _look(self, name: str) -> tuple[ObjectInfo, str | None]:
        found = self._read(name, lambda: self._send_head(name))
        assert not isinstance(found, NotModified)
        self._lineages.remember(self._prefix + name, found[0].etag, found[1])
        return found

    def _versions(self, name: str, seen_etag: ETagValue | None) -> Versions:
        """Return tokens and ETags of what is there and was before it; nothing: none.

        Takes a request, except of a version, `seen_etag`, whose lineage is known.
        """
        lineage = (
            None if seen_etag is None else self._lineages.recall(self._prefix + name, seen_etag)
        )
        if seen_etag is None or lineage is None:
            try:
                info, lineage = self._look(name)
            except ObjectNotFound:
                return []
            seen_etag = info.etag
        return list(versions_in(lineage, seen_etag))

    def _in_its_form(self, etag: ETagValue) -> ETagValue:
        """Return an ETag, or one that no object has in the place of a text that is none.

        Such a text may be a condition of another kind (``*`` is met by anything), or no header.
        """
        return etag if self._etag_form.fullmatch(etag) else self._no_etag

    # ------------------------------------------------------------------ reading

    def head(self, name: str) -> ObjectInfo:
        return self._look(name)[0]

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        known = None if if_none_match is None else self._in_its_form(if_none_match)
        found = self._read(name, lambda: self._send_get(name, known))
        if isinstance(found, NotModified):
            return found
        data, info, lineage = found
        if lineage is not None:
            self._lineages.remember(self._prefix + name, info.etag, lineage)
        return data, info

    def get_many(self, entries: Iterable[str | ObjectInfo]) -> Iterator[Read | Unread]:
        names = (entry if isinstance(entry, str) else entry.name for entry in entries)
        for found in map_in_order(self._get_and_report, names, self._pool):
            if found is not None:
                yield found

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        page_size: int | None = None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        cut = len(self._prefix)
        begin = None if start_after is None else self._prefix + start_after
        with self._hushed():
            wanted = Listing(self._prefix + prefix, begin, delimiter, page_size)
            for page in self._send_list(wanted):
                for entry in sorted(page, key=lambda entry: entry[0].encode()):
                    below = entry[0][cut:]
                    if start_after is not None and below <= start_after:
                        continue
                    yield CommonPrefix(below) if len(entry) == 1 else ObjectInfo(below, *entry[1:])

    # ------------------------------------------------------------------ writing

    def _begin_write(self, name: str, expected: ETagIfExists | None) -> Write:
        seen_last = self._lineages.version(self._prefix + name)
        return Write(self.location(name), partial(self._versions, name), expected, seen_last)

    def put(
        self,
        name: str,
        data: Buffer,
        *,
        if_match: ETagValue | None = None,
        if_none_match: AnyVersion | None = None,
    ) -> ETagValue:
        expected: ETagIfExists | None = None if if_none_match is None else ITEM_NOT_AVAILABLE
        if if_match is not None:
            expected = self._in_its_form(if_match)
        if expected is not None:
            self._check_that_conditions_hold()
        write = self._begin_write(name, expected)
        lineage = write.lineage(
            self._lineage_of(name, expected) if isinstance(expected, str) else None
        )
        etag = self._persist(lambda: self._send_put(name, data, lineage, expected), write.judge)
        self._lineages.remember(self._prefix + name, etag, lineage)
        return etag

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        put = partial(self._put_and_report, if_none_match=if_none_match)
        return map_in_order(put, items, self._pool)

    def copy_many(
        self, source: ObjectStore, names: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[str, ETagValue | Exception | None]]:
        """Copy many objects at the same time, each in one request; see `CopiesInside`."""
        assert isinstance(source, CloudStore)
        return map_in_order(partial(self._copy, source), names, self._pool)

    def _copy(
        self, source: CloudStore[ClientType], names: tuple[str, str]
    ) -> tuple[str, ETagValue | Exception | None]:
        source_name, name = names
        write = self._begin_write(name, None)
        lineage = write.lineage(None)
        try:
            return name, self._persist(
                lambda: self._send_copy(source, source_name, name, lineage), write.judge
            )
        except Exception as error:  # reported to the caller, item by item
            return name, without_frames(error)

    # ------------------------------------------------------------------ deleting

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        version = None
        if if_match is not None and if_match != ANY_VERSION:
            version = if_match = self._in_its_form(if_match)
            self._check_that_conditions_hold()
        was_lost = False

        def send() -> bool:
            self._send_delete(name, version)
            return True

        def judge(trouble: Trouble) -> bool | None:
            nonlocal was_lost
            if was_lost or trouble.kind is Kind.LOST:
                was_lost = True
                return self._is_gone(name, if_match, trouble.error) or None
            if trouble.kind is Kind.ABSENT:
                if if_match is None:
                    return True
                raise ObjectNotFound(self.location(name)) from trouble.error
            if trouble.kind is Kind.UNMET:
                # absence is another answer, which not every server gives
                actual = self.head(name).etag
                raise PreconditionFailed(self.location(name), actual_etag=actual) from trouble.error
            if trouble.kind not in DID_NOTHING:
                raise trouble.error from None
            return None

        self._persist(send, judge)

    def _is_gone(
        self, name: str, if_match: ETagValue | AnyVersion | None, error: Exception
    ) -> bool:
        """Tell after a lost answer whether an object was deleted; False: it is the same still.

        Who deleted it, or whether there was anything, cannot be told by what is not there any
        more. Where nobody asked for that, gone is gone.
        """
        try:
            current = self.head(name).etag
        except ObjectNotFound:
            if if_match is None:
                log.info("a deletion of %r was carried out, though no reply said so", name)
                return True
            unknown(error)
        except Exception as failure:
            unknown(error, failure)
        if current != if_match:
            unknown(error)
        return False

    def delete_many(self, names: Iterable[str]) -> Iterator[tuple[str, Exception]]:
        for name, error in map_in_order(self._delete_and_report, names, self._pool):
            if error is not None:
                yield name, error

    def _delete_and_report(self, name: str) -> tuple[str, Exception | None]:
        try:
            self.delete(name)
        except Exception as error:  # reported to the caller, item by item
            return name, error
        return name, None

    def scoped(self: SelfType, prefix: str) -> SelfType:
        below = object.__new__(type(self))
        below.__dict__.update(self.__dict__)
        below._prefix = self._prefix + prefix
        return below

    def location(self, name: str) -> str:
        return f"{self._scheme}://{self._bucket_name}/{self._prefix}{name}"


def _pause_after(trouble: Trouble, attempt: int, unit_seconds: float) -> None:
    is_busy = trouble.kind is Kind.TURNED_AWAY
    seconds = seconds_to_pause(attempt, _SECONDS_OF_PATIENCE if is_busy else unit_seconds)
    log.info("a request is sent again in %.3f s: %s", seconds, log.of(trouble.error))
    time.sleep(seconds)
