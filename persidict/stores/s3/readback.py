"""What became of a write whose reply is missing or doubtful, told by what is there now.

Evidence counts in this order: the write's own token in the lineage of what is there; the
lineage of what is there, traced back to a version that is known to have been there before;
the server's clock. What none of them shows is unknown.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from persidict import log
from persidict.exceptions import ObjectNotFound, PreconditionFailed
from persidict.jokers_and_status_flags import ETagIfExists, ETagValue
from persidict.stores.s3.requests import Look, S3Requests, pause
from persidict.stores.s3.transport.messages import HeadObject, Refusal
from persidict.stores.shared.lineage import new_token, token_of, versions_in

OUTCOME_UNKNOWN: Final = (
    "persidict: outcome unknown: a change was sent more than once or got no answer, and what"
    " can be seen now does not tell whether it was carried out"
)
"""The note on an error that leaves it open what became of a change."""

_LOOKS: Final = 8
_CLOCK_TOLERANCE_SECONDS: Final = 5.0
"""Times are cut to seconds, and the machines of one service may differ a little."""


class Finding(NamedTuple):
    """What is known of a write.

    Attributes:
        was_written: Whether it was carried out; None: unknown.
        etag: The version that it made, if it did.
        marker: What is there now, if it is the marker of an item that has been taken.
    """

    was_written: bool | None
    etag: ETagValue | None = None
    marker: Look | None = None


_UNKNOWN: Final = Finding(None)


class Readback:
    """What became of one write; holds nothing of its bytes.

    Args:
        requests: The bucket.
        key: The object's key.
        before: The lineage of a version that is known to have been there when the write was
            begun, or earlier: the one to be replaced, if there is such; None if unknown.
    """

    def __init__(self, requests: S3Requests, key: str, before: str | None) -> None:
        self.token = new_token()
        self._requests = requests
        self._key = key
        self._before = token_of(before)
        self._begun = time.monotonic()

    def find(self, own_etag: ETagValue | None = None) -> Finding:
        """Look for the write in what is there now; takes a request.

        Args:
            own_etag: The version that the write makes where ETags tell of nothing but bytes.
        """
        try:
            look = self.look()
        except (ObjectNotFound, Refusal):
            return _UNKNOWN
        return self.judge(look, own_etag)

    def judge(self, look: Look, own_etag: ETagValue | None = None) -> Finding:
        """Tell what became of the write by what has been seen since."""
        versions = list(versions_in(look.lineage, look.etag))
        for token, etag in versions:
            if token == self.token:
                log.info("a write of %r was carried out, though no reply said so", self._key)
                return Finding(True, etag)
        if self._descends_from_before(versions, own_etag) or self.is_older(look):
            return Finding(False, marker=look if look.is_marker else None)
        return _UNKNOWN

    def _descends_from_before(
        self, versions: list[tuple[str, ETagValue]], own_etag: ETagValue | None
    ) -> bool:
        """Tell whether what is there goes back, without this write, to what was there before.

        Its own token says for certain which write made the current version. Of those before
        it, the lineage says what their writers believed to replace: right, unless the same
        bytes have been written again between their look and their write. Where any version
        comes twice, or would be that of this write, nothing is concluded.
        """
        if self._before is None:
            return False
        if versions[0][0] == self._before:
            return True
        etags = [etag for _, etag in versions]
        if len(set(etags)) < len(etags) or own_etag in etags:
            return False
        return any(token == self._before for token, _ in versions)

    def is_older(self, look: Look) -> bool:
        """Tell whether a version is older than the write, by the server's clock alone.

        It need not agree with the clock here. Where a reply bears no date, no version is
        known to be older; neither is one that was written in parts: it is dated from the
        beginning of its upload.
        """
        if look.date is None or "-" in look.etag:
            return False
        age = look.date - look.last_modified
        return age > time.monotonic() - self._begun + _CLOCK_TOLERANCE_SECONDS

    def is_written_since(self, look: Look) -> bool:
        """Tell whether another version has come, after the change was begun, to the place of one.

        The one before is known to have been there, and the server's clock tells, to a second,
        that the other one is not older than the change.
        """
        if self._before is None or look.date is None:
            return False
        return look.last_modified >= look.date - (time.monotonic() - self._begun) - 1

    def look(self) -> Look:
        """Look at the object, at once, and again if that fails in passing.

        Raises:
            ObjectNotFound: There is none.
            Refusal: It cannot be seen.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                self._requests.traffic.count()
                reply = self._requests.transport.send(HeadObject(self._key))
            except Refusal as refusal:
                if refusal.is_absence:
                    raise ObjectNotFound(self._key) from refusal.error
                if attempt == _LOOKS or not (refusal.is_quick or refusal.is_throttled):
                    raise
                pause(attempt)
            else:
                return self._requests.take_in(self._key, reply)


class WriteRefused(PreconditionFailed):
    """A refusal that may be the answer to the second delivery of a request."""

    def __init__(
        self,
        requests: S3Requests,
        key: str,
        readback: Readback,
        *,
        actual_etag: ETagIfExists | None,
        since: int | None = None,
    ) -> None:
        super().__init__(key, actual_etag=actual_etag)
        self._requests = requests
        self._key = key
        self._readback = readback
        self._seen_before = requests.bucket.lineages.now() if since is None else since

    def written_after_all(self, seen_etag: ETagValue | None) -> ETagValue | None:
        """See the base; costs a request, unless the look since has told of the lineage.

        What had been seen before is no evidence: the same bytes have the same ETag.
        """
        if seen_etag is not None:
            lineage = self._requests.bucket.lineages.recall(
                self._key, seen_etag, since=self._seen_before
            )
            if lineage is not None:
                return self._readback.judge(Look(seen_etag, 0, 0.0, lineage, None)).etag
        try:
            return self._readback.judge(self._readback.look()).etag
        except ObjectNotFound:
            return None
        except Refusal as refusal:
            self._requests.fail(refusal, self._key, OUTCOME_UNKNOWN)
