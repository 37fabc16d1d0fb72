"""What the stores of Azure and Google have in common: one policy for what goes wrong on the way."""

from __future__ import annotations

import re
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from typing import ClassVar, Final, Literal, NoReturn, TypeVar

from persidict import log
from persidict.back_off import seconds_to_pause
from persidict.exceptions import ObjectNotFound, PreconditionFailed, without_frames
from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagIfExists, ETagValue
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
from persidict.stores.shared.lineage import LineageMemory, extend, first, new_token, versions_in
from persidict.stores.shared.parallel import WorkerPool, map_in_order
from persidict.traits import Traits

Answer = TypeVar("Answer")
SelfType = TypeVar("SelfType", bound="CloudStore")

METADATA_KEY: Final = "persidict_lineage"
"""Where an object's lineage is; Azure allows letters, digits and underscores in such names."""

PROBE_NAME: Final = "!persidict-probe-"
"""How the objects of probes begin: ``!`` stands in no key, so that none is ever listed."""

_ATTEMPTS: Final = 5
_SECONDS_OF_PATIENCE: Final = 0.25
"""What pauses begin with for a server that is busy: Google takes a write a second of one object."""

_UNKNOWN: Final = (
    "persidict: outcome unknown: a change got no answer, and what can be seen now does not tell"
    " whether it was carried out"
)


class Kind(Enum):
    """What became of a request, as far as its answer tells."""

    ABSENT = "there is no such object"
    UNMET = "a condition does not hold"
    UNCHANGED = "the object is the version that one has"
    NOT_DONE = "it did nothing, and may be sent again"
    TURNED_AWAY = "it did nothing, and may be sent again after a while"
    LOST = "no answer came: it may have acted"
    FAILED = "anything else"


_DID_NOTHING: Final = (Kind.NOT_DONE, Kind.TURNED_AWAY)


class Trouble(Exception):
    """A request that did not succeed.

    Attributes:
        kind: What became of it.
        error: The library's own exception, which users are to see; without the library's
            frames, in which credentials are plain text.
    """

    def __init__(self, kind: Kind, error: Exception) -> None:
        super().__init__(str(error))
        self.kind = kind
        self.error = without_frames(error)


@contextmanager
def by_itself() -> Iterator[None]:
    """Raise the library's own exception in the place of Trouble."""
    try:
        yield
    except Trouble as trouble:
        raise trouble.error from None


class _NotCopied(Exception):
    """The service does not copy this object."""


class CloudStore(ObjectStore):
    """Objects below a prefix, in a cloud that enforces conditions on every request.

    A version there is never used twice. Every write leaves a lineage in the object's
    metadata (see `persidict.stores.shared.lineage`), by which one whose answer got lost
    is recognised. A change is sent again only if it is seen not to have acted.

    A subclass says how a request is sent. What its library raises it turns into Trouble.

    Args:
        prefix: What all names of this store begin with.
        max_concurrency: How many requests may be under way at once.
    """

    traits = Traits(reads_are_cheap=False, listing_brings_versions=True, back_off_seconds=0.02)

    _etag_form: ClassVar[re.Pattern[str]]
    """How the ETags of this service look."""

    _no_etag: ClassVar[ETagValue]
    """One that looks so, and that no object has."""

    def __init__(self, *, prefix: str, max_concurrency: int) -> None:
        self._prefix = prefix
        self._pool = WorkerPool(max_concurrency)
        self._lineages = LineageMemory()

    # ------------------------------------------------------------------ what a subclass supplies

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
        """Delete once; Trouble ABSENT where there is nothing, with or without a version."""

    @abstractmethod
    def _send_list(
        self,
        prefix: str,
        delimiter: str | None,
        page_size: int | None,
        start_after: str | None,
    ) -> Iterator[ObjectInfo | CommonPrefix]:
        """List in the order of names; the names are whole.

        Those up to `start_after` may come, too, where leaving them out is not possible.
        """

    def _check_that_conditions_hold(self) -> None:
        """Raise BackendError if this server is known to ignore conditions."""

    def _lineage_of(self, name: str, version: ETagValue) -> str | None:
        """Return the lineage of a version that is to be replaced, None: it is not known.

        Raises:
            PreconditionFailed: Another version is seen to be there.
        """
        return self._lineages.recall(self._prefix + name, version)

    def seen_last(self, name: str) -> ETagValue | None:
        """Return the version of an object that was seen last, None if none was."""
        return self._lineages.version(self._prefix + name)

    def versions(
        self, name: str, seen_etag: ETagValue | None = None
    ) -> list[tuple[str, ETagValue]]:
        """Return tokens and ETags of what is there and was before it; nothing: none.

        Takes a request, except of a version, `seen_etag`, whose lineage is known.
        """
        lineage = (
            None if seen_etag is None else self._lineages.recall(self._prefix + name, seen_etag)
        )
        if seen_etag is None or lineage is None:
            try:
                info, lineage = self._read(name, lambda: self._send_head(name))
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
        info, lineage = self._read(name, lambda: self._send_head(name))
        self._lineages.remember(self._prefix + name, info.etag, lineage)
        return info

    def get(
        self, name: str, *, if_none_match: ETagValue | None = None
    ) -> tuple[Buffer, ObjectInfo] | NotModified:
        known = None if if_none_match is None else self._in_its_form(if_none_match)
        try:
            data, info, lineage = self._read(name, lambda: self._send_get(name, known))
        except Trouble as trouble:
            if trouble.kind is Kind.UNCHANGED:
                return NOT_MODIFIED
            raise trouble.error from None
        if lineage is not None:
            self._lineages.remember(self._prefix + name, info.etag, lineage)
        return data, info

    def _read(self, name: str, send: Callable[[], Answer]) -> Answer:
        """Send what changes nothing, and again where that may help."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return send()
            except Trouble as trouble:
                if trouble.kind is Kind.ABSENT:
                    raise ObjectNotFound(self.location(name)) from trouble.error
                if trouble.kind is Kind.UNCHANGED:
                    raise
                if trouble.kind not in (*_DID_NOTHING, Kind.LOST) or attempt == _ATTEMPTS:
                    raise trouble.error from None
                last = trouble
            _pause_after(last, attempt, self.traits.back_off_seconds)
        raise AssertionError("unreachable")

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
        with by_itself():
            for entry in self._send_list(self._prefix + prefix, delimiter, page_size, begin):
                below = entry[0][cut:]
                if start_after is not None and below <= start_after:
                    continue
                yield CommonPrefix(below) if len(entry) == 1 else ObjectInfo(below, *entry[1:])

    # ------------------------------------------------------------------ writing

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
        write = _Write(self, name, expected)
        if isinstance(expected, str):
            lineage = extend(write.token, expected, self._lineage_of(name, expected))
        else:
            lineage = first(write.token, expected)
        etag = write.carry_out(lambda: self._send_put(name, data, lineage, expected))
        self._lineages.remember(self._prefix + name, etag, lineage)
        return etag

    def put_many(
        self, items: Iterable[tuple[str, Buffer]], *, if_none_match: AnyVersion | None = None
    ) -> Iterator[tuple[str, ETagValue | Exception]]:
        put = partial(self._put_and_report, if_none_match=if_none_match)
        return map_in_order(put, items, self._pool)

    # ------------------------------------------------------------------ copying

    @abstractmethod
    def can_copy_from(self, source: ObjectStore) -> bool:
        """Tell whether `copy_many` takes objects of another store; see `CopiesInside`."""

    @abstractmethod
    def _send_copy(
        self, source: CloudStore, source_name: str, name: str, lineage: str
    ) -> ETagValue | None:
        """Have the service copy an object; None: it does not copy this one.

        Raises ObjectNotFound where the source does not exist.
        """

    def copy_many(
        self, source: ObjectStore, names: Iterable[tuple[str, str]]
    ) -> Iterator[tuple[str, ETagValue | Exception | None]]:
        """Copy many objects at the same time, each in one request; see `CopiesInside`."""
        assert isinstance(source, CloudStore)
        return map_in_order(partial(self._copy, source), names, self._pool)

    def _copy(
        self, source: CloudStore, names: tuple[str, str]
    ) -> tuple[str, ETagValue | Exception | None]:
        source_name, name = names
        write = _Write(self, name, None)
        lineage = first(write.token, None)

        def send() -> ETagValue:
            made = self._send_copy(source, source_name, name, lineage)
            if made is None:
                raise _NotCopied
            return made

        try:
            return name, write.carry_out(send)
        except _NotCopied:
            return name, None
        except Exception as error:  # reported to the caller, item by item
            return name, without_frames(error)

    # ------------------------------------------------------------------ deleting

    def delete(self, name: str, *, if_match: ETagValue | AnyVersion | None = None) -> None:
        version = None
        if if_match is not None and if_match != ANY_VERSION:
            version = if_match = self._in_its_form(if_match)
        if version is not None:
            self._check_that_conditions_hold()
        was_lost = False
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._send_delete(name, version)
            except Trouble as trouble:
                if trouble.kind is Kind.ABSENT and not was_lost:
                    if if_match is None:
                        return None
                    raise ObjectNotFound(self.location(name)) from trouble.error
                if trouble.kind is Kind.UNMET and not was_lost:
                    # absence is another answer, which not every server gives
                    actual = self.head(name).etag
                    raise PreconditionFailed(
                        self.location(name), actual_etag=actual
                    ) from trouble.error
                if trouble.kind is Kind.LOST or was_lost:
                    was_lost = True
                    if self._is_gone(name, if_match, trouble.error):
                        log.info("a deletion of %r was carried out, though no reply said so", name)
                        return None
                elif trouble.kind not in _DID_NOTHING:
                    raise trouble.error from None
                last = trouble
            _pause_after(last, attempt, self.traits.back_off_seconds)
        raise last.error

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


def unknown(error: Exception, cause: BaseException | None = None) -> NoReturn:
    """Raise what went wrong, with the note that nobody knows what became of it."""
    error.add_note(_UNKNOWN)
    raise error from cause


def _pause_after(trouble: Trouble, attempt: int, unit_seconds: float) -> None:
    is_busy = trouble.kind is Kind.TURNED_AWAY
    seconds = seconds_to_pause(attempt, _SECONDS_OF_PATIENCE if is_busy else unit_seconds)
    log.info("a request is sent again in %.3f s: %s", seconds, log.of(trouble.error))
    time.sleep(seconds)


class _Write:
    """One write of one object, however many requests it takes.

    It is sent again only where a version is seen to be there, or to have been followed by
    others than this, that was there before: a version is never used twice.

    Args:
        store: Where the object is.
        name: The object's name.
        expected: The version to replace; ITEM_NOT_AVAILABLE: insert; None: whatever is there.
    """

    def __init__(self, store: CloudStore, name: str, expected: ETagIfExists | None) -> None:
        self.token = new_token()
        self._store = store
        self._name = name
        self._expected = expected
        self._before = expected if isinstance(expected, str) else store.seen_last(name)
        self._may_have_acted = False

    def carry_out(self, send: Callable[[], ETagValue]) -> ETagValue:
        """Send the write until it is known what became of it.

        Raises:
            PreconditionFailed: The object is not what is expected.
            Exception: The library's own.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return send()
            except Trouble as trouble:
                is_refused = self._expected is not None and trouble.kind in (
                    Kind.UNMET,
                    Kind.ABSENT,
                )
                if is_refused and not self._may_have_acted:
                    raise _Refused(self._store.location(self._name), self) from trouble.error
                if is_refused or trouble.kind is Kind.LOST:
                    self._may_have_acted = True
                    made = self._find(trouble.error)
                    if made is not None:
                        log.info(
                            "a write of %r was carried out, though no reply said so", self._name
                        )
                        return made
                    if is_refused:
                        raise PreconditionFailed(
                            self._store.location(self._name)
                        ) from trouble.error
                elif trouble.kind not in _DID_NOTHING:
                    raise trouble.error from None
                last = trouble
            _pause_after(last, attempt, self._store.traits.back_off_seconds)
        raise last.error

    def _find(self, error: Exception) -> ETagValue | None:
        """Look for this write in what is there now; None: it did not take place.

        Raises:
            Exception: The error, where that cannot be found out.
        """
        try:
            versions = self._store.versions(self._name)
        except Exception as failure:
            unknown(error, failure)
        made = self._own_among(versions)
        if made is None and (
            self._before is None or self._before not in (etag for _, etag in versions)
        ):
            unknown(error)
        return made

    def made(self, seen_etag: ETagValue | None) -> ETagValue | None:
        """Return the version that this write made, as far as what is there now shows it."""
        return self._own_among(self._store.versions(self._name, seen_etag))

    def _own_among(self, versions: list[tuple[str, ETagValue]]) -> ETagValue | None:
        return next((etag for token, etag in versions if token == self.token), None)


class _Refused(PreconditionFailed):
    """A refusal that may be the answer to the second delivery of a request."""

    def __init__(self, message: str, write: _Write) -> None:
        super().__init__(message)
        self._write = write

    def written_after_all(self, seen_etag: ETagValue | None) -> ETagValue | None:
        """See the base; costs a request, unless the look since has told of the lineage."""
        return self._write.made(seen_etag)
