"""Copying objects inside a service, without their bytes passing through here."""

from __future__ import annotations

import re
from typing import Final

from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.errors import S3Error, status_of
from persidict.stores.s3.lineage import METADATA_KEY, first, new_token
from persidict.stores.s3.requests import S3Requests, canonical_etag

_REFUSALS: Final = (400, 403, 405, 501)
"""Answers to a copy that say nothing of reading and writing: the object may be too large for
one (5 GB), or may not be copied with these credentials, or the server may know no copies."""

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
        lineage = first(new_token(), None)
        try:
            reply = self._requests.send(
                "copy_object",
                Key=key,
                CopySource={"Bucket": self._source_bucket, "Key": source_key},
                ContentType=self._content_type,
                Metadata={METADATA_KEY: lineage},
                MetadataDirective="REPLACE",
            )
        except S3Error as error:
            if status_of(error) in _REFUSALS:
                return None
            self._requests.fail(error, "copy_object", key)
        etag = canonical_etag(reply["CopyObjectResult"]["ETag"])
        self._requests.bucket.lineages.remember(key, etag, lineage)
        return etag
