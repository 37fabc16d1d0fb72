"""Uploads in parts that killed processes left open: they cost money until somebody ends them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from os.path import commonprefix
from typing import NamedTuple

from persidict.exceptions import BackendError
from persidict.stores.s3.requests import S3Requests
from persidict.stores.s3.transport.errors import pages_in_a_circle
from persidict.stores.s3.transport.messages import (
    AbortMultipartUpload,
    ListMultipartUploads,
    ListParts,
    Refusal,
)
from persidict.stores.s3.transport.not_s3 import Circle


class _Progress(NamedTuple):
    key: str
    upload_id: str
    parts: list[tuple[int, str]]


class OpenUploads:
    """The uploads of some objects that are open at this moment.

    Takes a request, and another one for each upload that is found. Where these credentials
    may not list uploads, none is.

    Args:
        requests: The bucket.
        keys: The objects' keys.

    Raises:
        BackendError: What is listed goes round in a circle, or is no answer of S3.
    """

    def __init__(self, requests: S3Requests, keys: Collection[str]) -> None:
        self._requests = requests
        self._found: list[_Progress] = []
        if not keys:
            return
        try:
            self._found = [
                _Progress(key, upload_id, self._parts_of(key, upload_id))
                for key, upload_id in self._list(set(keys))
            ]
        except Refusal as refusal:
            if isinstance(refusal.error, BackendError):
                requests.fail(refusal, min(keys))

    def end_stalled(self, keys: Collection[str]) -> None:
        """End those for some of the keys that have received nothing since they were found.

        An upload of somebody who is only slow may be among them. Who writes with this package
        then begins another one.
        """
        for key, upload_id, parts in self._found:
            if key in keys:
                with suppress(Refusal):  # the next one who comes this way ends it
                    if self._parts_of(key, upload_id) == parts:
                        self._requests.perform(AbortMultipartUpload(key, upload_id))

    def _list(self, keys: set[str]) -> Iterator[tuple[str, str]]:
        prefix = commonprefix(list(keys))  # noqa: RUF071  # character by character it is to be
        page = self._requests.perform(ListMultipartUploads(prefix))
        circle = Circle()
        while True:
            for key, upload_id in page.uploads:
                if key in keys:
                    yield key, upload_id
            if page.next_markers is None:
                return
            request = ListMultipartUploads(prefix, page.next_markers)
            if circle.is_closed_by(page.next_markers):
                endpoint = self._requests.transport.endpoint
                raise pages_in_a_circle(request.operation, endpoint, page.next_markers)
            page = self._requests.perform(request)

    def _parts_of(self, key: str, upload_id: str) -> list[tuple[int, str]]:
        page = self._requests.perform(ListParts(key, upload_id))
        parts = list(page.parts)
        while page.next_marker is not None:
            page = self._requests.perform(ListParts(key, upload_id, page.next_marker))
            parts += page.parts
        return [(part.number, part.etag) for part in parts]
