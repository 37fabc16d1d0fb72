"""Uploads in parts that killed processes left open: they cost money until somebody ends them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from os.path import commonprefix
from typing import Any, NamedTuple

from persidict.stores.s3.errors import S3Error
from persidict.stores.s3.requests import S3Requests


class _Progress(NamedTuple):
    identity: dict[str, str]
    parts: list[tuple[int, str]]


class OpenUploads:
    """The uploads of some objects that are open at this moment.

    Takes a request, and another one for each upload that is found. Where these credentials
    may not list uploads, none is.

    Args:
        requests: The bucket.
        keys: The objects' keys.
    """

    def __init__(self, requests: S3Requests, keys: Collection[str]) -> None:
        self._requests = requests
        self._found: list[_Progress] = []
        if not keys:
            return
        with suppress(*S3Error):
            self._found = [
                _Progress(identity, self._parts_of(identity)) for identity in self._list(set(keys))
            ]

    def end_stalled(self, keys: Collection[str]) -> None:
        """End those for some of the keys that have received nothing since they were found.

        An upload of somebody who is only slow may be among them. Who writes with this package
        then begins another one.
        """
        for identity, parts in self._found:
            if identity["Key"] in keys:
                with suppress(*S3Error):  # the next one who comes this way ends it
                    if self._parts_of(identity) == parts:
                        self._requests.send("abort_multipart_upload", **identity)

    def _list(self, keys: set[str]) -> Iterator[dict[str, str]]:
        prefix = commonprefix(list(keys))  # noqa: RUF071  # character by character it is to be
        for page in self._pages("list_multipart_uploads", Prefix=prefix):
            for upload in page.get("Uploads", ()):
                if upload["Key"] in keys:
                    yield {"Key": upload["Key"], "UploadId": upload["UploadId"]}

    def _parts_of(self, identity: dict[str, str]) -> list[tuple[int, str]]:
        return [
            (part["PartNumber"], part["ETag"])
            for page in self._pages("list_parts", **identity)
            for part in page.get("Parts", ())
        ]

    def _pages(self, operation: str, **request: str) -> Iterator[dict[str, Any]]:
        while True:
            page = self._requests.send(operation, **request)
            yield page
            if not page.get("IsTruncated"):
                return
            request.update(
                (marker, page[f"Next{marker}"])
                for marker in ("KeyMarker", "UploadIdMarker", "PartNumberMarker")
                if f"Next{marker}" in page
            )
