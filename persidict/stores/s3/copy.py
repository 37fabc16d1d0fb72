"""Copying objects inside a service, without their bytes passing through here."""

from __future__ import annotations

import re
from typing import Final

from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.readback import OUTCOME_UNKNOWN, Readback
from persidict.stores.s3.requests import S3Requests
from persidict.stores.s3.transport.messages import CopyObject, Refusal
from persidict.stores.shared.lineage import METADATA_KEY, first

_MD5: Final = re.compile(r'"([0-9a-f]{32})"')


def md5_in(etag: ETagValue) -> str | None:
    """Return the MD5 that the ETag of an object that was written in one piece is on S3."""
    found = _MD5.fullmatch(etag)
    return None if found is None else found[1]


class Copier:
    """Copies objects into one bucket, in one request each.

    There are no conditions: only AWS enforces them here, and one server damages the object
    when they do not hold. A copy gets a lineage of its own: that of the source would
    tell of versions that the target never was.

    Args:
        requests: The bucket that the objects come into.
        source_bucket: The bucket that they come from, reached with the same client.
        content_type: The media type of the copies.
    """

    def __init__(self, requests: S3Requests, source_bucket: str, content_type: str) -> None:
        self._requests = requests
        self._source_bucket = source_bucket
        self._content_type = content_type

    def copy(self, source_key: str, key: str) -> ETagValue | None:
        """Copy an object over whatever is there, atomically.

        Returns:
            The new version; None: the server copies no such object.

        Raises:
            ObjectNotFound: The source does not exist.
        """
        readback = Readback(self._requests, key, self._requests.bucket.lineages.latest(key))
        lineage = first(readback.token, None)
        request = CopyObject(
            key,
            self._source_bucket,
            source_key,
            content_type=self._content_type,
            metadata={METADATA_KEY: lineage},
        )
        attempts = self._requests.attempts()
        etag = None
        while etag is None:
            try:
                etag = self._requests.perform(request, attempts).etag
            except Refusal as refusal:
                if not refusal.may_have_acted:
                    # it may be too large for a copy (5 GB), or not be allowed, or not be known
                    if refusal.is_unsupported or refusal.is_forbidden:
                        return None
                    self._requests.fail_to_read(refusal, key)
                found = readback.find()
                etag = found.etag
                if found.was_written is None and not found.is_absent:
                    self._requests.fail(refusal, key, OUTCOME_UNKNOWN)
                if etag is None and not attempts.another(refusal):
                    self._requests.fail(refusal, key)
        self._requests.bucket.lineages.remember(key, etag, lineage)
        return etag
