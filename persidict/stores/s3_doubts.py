"""Refusals that a later look may show to be mistaken."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.s3_lineage import Outcome, find_write

if TYPE_CHECKING:
    from persidict.stores.s3_capabilities import CapabilityProbe


class WriteTookPlace(Exception):
    """A write that was refused as a duplicate had been carried out the first time.

    Something between client and server delivered the request twice and passed on the
    second answer. Raised by the look that follows a refusal, in place of its result.

    Attributes:
        replaced: The version that the write replaced, ITEM_NOT_AVAILABLE if it inserted.
        etag: The version that it made.
    """

    def __init__(self, replaced: ETagIfExists, etag: ETagValue) -> None:
        super().__init__(f"the write took place and made version {etag}")
        self.replaced = replaced
        self.etag = etag


class _Doubt(NamedTuple):
    key: str
    token: str | None
    expected: ETagIfExists


class Doubts(threading.local):
    """The last refusal that this thread was given, until it looks at the object again.

    After a refusal the caller looks at what is there anyway; examining that reply costs no
    request. It may show that the write did take place, or that the version required is the
    current one, so that the server must want ETags in another form.
    """

    def __init__(self, probe: CapabilityProbe) -> None:
        self._probe = probe
        self._last: _Doubt | None = None

    def remember(self, key: str, token: str | None, expected: ETagIfExists) -> None:
        """Note that a write or a delete (token None) was refused for its condition."""
        self._last = _Doubt(key, token, expected)

    @property
    def pending_key(self) -> str | None:
        """The key of the refusal that has not been compared yet, None if there is none."""
        return None if self._last is None else self._last.key

    def examine(self, key: str, current: ETagValue, lineage: str | None) -> None:
        """Compare what is there with the refusal of this thread's last change, if any.

        Raises:
            WriteTookPlace: The write that was refused is there.
        """
        doubt = self._last
        if doubt is None or doubt.key != key:
            return
        self._last = None
        if doubt.token is not None:
            finding = find_write(doubt.token, doubt.expected, lineage, current)
            if finding.outcome is Outcome.WRITTEN and finding.etag is not None:
                raise WriteTookPlace(doubt.expected, finding.etag)
        if current == doubt.expected and not self._probe.etag_form_is_proven:
            self._probe.unquoted_etags = not self._probe.unquoted_etags
