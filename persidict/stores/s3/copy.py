"""Copying objects inside a service, without their bytes passing through here."""

from __future__ import annotations

import re
from typing import Final

from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.marker import Stopwatch, is_marker_etag
from persidict.stores.s3.readback import OUTCOME_UNKNOWN, Readback
from persidict.stores.s3.requests import S3Requests
from persidict.stores.s3.taking import delete_marker
from persidict.stores.s3.transport.messages import CopyObject, Refusal, Reply
from persidict.stores.shared.lineage import METADATA_KEY, first

_MD5: Final = re.compile(r'"([0-9a-f]{32})"')


def md5_in(etag: ETagValue) -> str | None:
    """Return the MD5 that the ETag of an object that was written in one piece is on S3."""
    found = _MD5.fullmatch(etag)
    return None if found is None else found[1]


class Copy:
    """One copy of one object inside the service, in one request.

    There are no conditions: only AWS enforces them here, and one server damages the object
    when they do not hold. A copy gets a lineage of its own: that of the source would
    tell of versions that the target never was.

    Args:
        requests: The bucket that the object comes into.
        source_bucket: The bucket that it comes from, reached with the same client.
        source_key: Its key there.
        key: The key that it gets, over whatever is there, atomically.
        content_type: The media type of the copy.
        source_owner: The account that the other bucket has to belong to; None: any.
    """

    def __init__(
        self,
        requests: S3Requests,
        source_bucket: str,
        source_key: str,
        key: str,
        content_type: str,
        source_owner: str | None = None,
    ) -> None:
        self._requests = requests
        self._readback = Readback(requests, key, requests.bucket.lineages.latest(key))
        self._lineage = first(self._readback.token, None)
        self._since = Stopwatch()
        self.request = CopyObject(
            key,
            source_bucket,
            source_key,
            source_owner,
            content_type=content_type,
            metadata={METADATA_KEY: self._lineage},
        )

    def settle(self, answer: Reply | Refusal | None = None) -> ETagValue | None:
        """Bring the copy to its end.

        Args:
            answer: What `request` has been answered with; None: it has not been sent.

        Returns:
            The new version; None: the server copies no such object.

        Raises:
            ObjectNotFound: The source does not exist, or was taken meanwhile: then what was at
                the target is gone, too.
        """
        key, readback = self.request.key, self._readback
        attempts = self._requests.attempts()
        etag = None
        while etag is None:
            try:
                if answer is None or (isinstance(answer, Refusal) and answer.is_missing_bucket):
                    answer = self._requests.perform(self.request, attempts)
                if isinstance(answer, Refusal):
                    raise answer
                etag = answer.etag
            except Refusal as refusal:
                answer = None
                if not refusal.may_have_acted:
                    # it may be too large for a copy (5 GB), or not be allowed, or not be known
                    if refusal.is_unsupported or refusal.is_forbidden:
                        return None
                    self._requests.fail_to_read(refusal, key)
                found = readback.find()
                etag = found.etag
                if found.was_written is None:
                    self._requests.fail(refusal, key, OUTCOME_UNKNOWN)
                if etag is None and not attempts.another(refusal):
                    self._requests.fail(refusal, key)
        if is_marker_etag(etag):
            delete_marker(self._requests, key, readback.token, self._since)
            raise ObjectNotFound(f"s3://{self.request.source_bucket}/{self.request.source_key}")
        self._requests.bucket.lineages.remember(key, etag, self._lineage)
        return etag
