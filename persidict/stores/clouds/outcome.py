"""What became of a request to a cloud, by its answer and by the lineage of what is there now."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple, NoReturn, TypeAlias

from persidict import log
from persidict.exceptions import PreconditionFailed
from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.shared.lineage import extend, first, new_token

Versions: TypeAlias = list[tuple[str, ETagValue]]
"""Tokens and ETags of what is there and was before it, the newest first."""

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


DID_NOTHING: Final = (Kind.NOT_DONE, Kind.TURNED_AWAY)


class Trouble(NamedTuple):
    """A request that did not succeed.

    Attributes:
        kind: What became of it.
        error: The library's own exception, which users are to see; without the library's
            frames, in which credentials are plain text.
    """

    kind: Kind
    error: Exception


class Write:
    """One write of one object, however many requests it takes.

    It is sent again only where a version is seen to be there, or to have been followed by
    others than this, that was there before: a version is never used twice.

    Args:
        location: Where the object is, for messages.
        look: Asks for the versions, unless what is there is the one that it is given, whose
            lineage is known.
        expected: The version to replace; ITEM_NOT_AVAILABLE: insert; None: whatever is there.
        seen_last: The version that was seen last, None if none was.
    """

    def __init__(
        self,
        location: str,
        look: Callable[[ETagValue | None], Versions],
        expected: ETagIfExists | None,
        seen_last: ETagValue | None,
    ) -> None:
        self._token = new_token()
        self._location = location
        self._look = look
        self._expected = expected
        self._before = expected if isinstance(expected, str) else seen_last
        self._may_have_acted = False

    def lineage(self, replaced: str | None) -> str:
        """Return the lineage of what it writes.

        Args:
            replaced: That of the version that it replaces under a condition, None if unknown.
        """
        if isinstance(self._expected, str):
            return extend(self._token, self._expected, replaced)
        return first(self._token, self._expected)

    def judge(self, trouble: Trouble) -> ETagValue | None:
        """Return the version that it made, although a request failed; None: it did nothing.

        Raises:
            PreconditionFailed: The object is not what is expected.
            Exception: The library's own.
        """
        is_refused = self._expected is not None and trouble.kind in (Kind.UNMET, Kind.ABSENT)
        if is_refused and not self._may_have_acted:
            raise Refused(self._location, self) from trouble.error
        if not is_refused and trouble.kind is not Kind.LOST:
            if trouble.kind not in DID_NOTHING:
                raise trouble.error from None
            return None
        self._may_have_acted = True
        try:
            versions = self._look(None)
        except Exception as failure:
            unknown(trouble.error, failure)
        made = self._own_among(versions)
        if made is not None:
            log.info("a write of %r was carried out, though no reply said so", self._location)
        elif self._before is None or self._before not in (etag for _, etag in versions):
            unknown(trouble.error)
        elif is_refused:
            raise PreconditionFailed(self._location) from trouble.error
        return made

    def made(self, seen_etag: ETagValue | None) -> ETagValue | None:
        """Return the version that this write made, as far as what is there now shows it."""
        return self._own_among(self._look(seen_etag))

    def _own_among(self, versions: Versions) -> ETagValue | None:
        return next((etag for token, etag in versions if token == self._token), None)


class Refused(PreconditionFailed):
    """A refusal that may be the answer to the second delivery of a request."""

    def __init__(self, message: str, write: Write) -> None:
        super().__init__(message)
        self._write = write

    def written_after_all(self, seen_etag: ETagValue | None) -> ETagValue | None:
        """See the base; costs a request, unless the look since has told of the lineage."""
        return self._write.made(seen_etag)


def unknown(error: Exception, cause: BaseException | None = None) -> NoReturn:
    """Raise what went wrong, with the note that nobody knows what became of it."""
    error.add_note(_UNKNOWN)
    raise error from cause
