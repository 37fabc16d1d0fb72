"""Who wrote what is there: telling after a lost reply whether a write took place.

Every write leaves a lineage in the object's metadata: a token of its own, and, when it
replaced a version under a condition, the tokens and ETags of the versions before it, the
newest first. So a writer whose reply was lost finds its write not only while that is the
current version, but also when others have written on top of it meanwhile.

The format: ``token[;token etag ...][;.]`` without the space, where ``.`` says that the line
began with an insertion into emptiness, and dashes stand for a token that is not known. An
ETag that is an MD5 is written in base64, any other one as it is, behind ``=``; one that
stands in no quotes, such as a number, behind ``~``; in these two, ``;`` and ``%`` are
percent-encoded. What is not of this format is of foreign make, and tells nothing.
"""

from __future__ import annotations

import base64
import itertools
import os
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.shared.recent_notes import RecentNotes

METADATA_KEY: Final = "persidict-lineage"
_LONGEST: Final = 1500
"""Bytes, of the 2 KB that S3 allows for metadata; 48 versions whose ETags are MD5s."""
_TOKEN_LENGTH: Final = 8
_BEGINNING: Final = "."
_UNKNOWN: Final = "-" * _TOKEN_LENGTH
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_AS_IT_IS: Final = "="
_UNQUOTED: Final = "~"
_FORMAT: Final = re.compile(r"[\w-]{8}(?:;[\w-]{8}(?:[\w-]{22}|[=~][!-:<-~]+))*(?:;\.?)?", re.ASCII)


def new_token() -> str:
    """Return 48 random bits in 8 characters."""
    return base64.urlsafe_b64encode(os.urandom(6)).decode("ascii")


def first(token: str, expected: ETagIfExists | None) -> str:
    """Return the lineage of an insertion, or of a write that replaces whatever there is."""
    return token if expected is None else f"{token};{_BEGINNING}"


def extend(token: str, replaced: ETagValue, lineage: str | None) -> str:
    """Return the lineage of a write that replaces a version.

    Args:
        token: The write's own token.
        replaced: The version's ETag.
        lineage: The version's lineage, None if it is not known.
    """
    own, *older = _entries(lineage)
    line = ";".join((token, own + _shortened(replaced), *older))
    return line if len(line) <= _LONGEST else line[: line.rindex(";", 0, _LONGEST + 1)]


def _shortened(etag: ETagValue) -> str:
    bare = etag.strip('"')
    if bare == etag:
        return _UNQUOTED + _escaped(bare)
    if _MD5.fullmatch(bare):
        return base64.urlsafe_b64encode(bytes.fromhex(bare)).decode("ascii").rstrip("=")
    return _AS_IT_IS + _escaped(bare)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace(";", "%3B")


def _entries(lineage: str | None) -> list[str]:
    """Return what a lineage consists of, the current version's token first."""
    if lineage is None or _FORMAT.fullmatch(lineage) is None:
        return [_UNKNOWN]
    return lineage.split(";")


def _restored(text: str) -> ETagValue:
    if text.startswith(_UNQUOTED):
        return ETagValue(unquote(text[1:]))
    if text.startswith(_AS_IT_IS):
        return ETagValue(f'"{unquote(text[1:])}"')
    return ETagValue(f'"{base64.urlsafe_b64decode(text + "==").hex()}"')


def versions_in(lineage: str | None, current: ETagValue) -> Iterator[tuple[str, ETagValue]]:
    """Yield token and ETag of the current version and of those before it, the newest first."""
    own, *older = _entries(lineage)
    yield own, current
    for entry in older:
        try:
            yield entry[:_TOKEN_LENGTH], _restored(entry[_TOKEN_LENGTH:])
        except ValueError:
            return  # the beginning, or written by others


def token_of(lineage: str | None) -> str | None:
    """Return the token of the version that a lineage is of, None if it has none."""
    token = _entries(lineage)[0]
    return None if token == _UNKNOWN else token


class _Note(NamedTuple):
    etag: str
    lineage: str
    number: int


class LineageMemory:
    """The lineages of the versions seen last, bounded; safe to share among threads."""

    def __init__(self, capacity: int = 2048) -> None:
        self._known = RecentNotes[_Note](capacity)
        self._numbers = itertools.count(1)

    def now(self) -> int:
        """Return a number that is less than that of everything remembered from now on."""
        return next(self._numbers)

    def remember(self, name: str, etag: str, lineage: str | None) -> None:
        """Keep the lineage of the current version of an object; None: it has none."""
        self._known.put(name, _Note(etag, lineage or "", next(self._numbers)))

    def recall(self, name: str, etag: Any, *, since: int = 0) -> str | None:
        """Return the lineage of that version, empty if it has none; None: it is not known.

        Args:
            name: The object's name.
            etag: The version.
            since: Only what has been remembered after that number.
        """
        found = self._known.get(name)
        if found is None or found.etag != etag or found.number < since:
            return None
        return found.lineage

    def latest(self, name: str) -> str | None:
        """Return the lineage of the version seen last, as `recall` does."""
        found = self._known.get(name)
        return None if found is None else found.lineage

    def version(self, name: str) -> ETagValue | None:
        """Return the version seen last, None if none was."""
        found = self._known.get(name)
        return None if found is None else ETagValue(found.etag)
