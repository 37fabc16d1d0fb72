"""What is no reply of S3, whichever wire it came by: a proxy's page, another port's, a liar's.

A reply that is read as S3's has been looked at here. What it lacks, or tells without having
been asked, is said in a `NotOfS3`, and users see it as `BackendError`: never as absence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from persidict.stores.s3.transport.messages import (
    CreateMultipartUpload,
    DeleteObjects,
    GetObject,
    HeadObject,
    ListMultipartUploads,
    ListObjectsV2,
    ListPage,
    ListParts,
    PartsPage,
    Refusal,
    Reply,
    Request,
    UploadsPage,
    tells_of_the_object,
)

_MOST_PARTS: Final = 10_000


class NotOfS3(Exception):
    """A reply of success is none that S3 would have given; the text says why."""


def is_web_page(headers: Mapping[str, str]) -> bool:
    """Tell whether a reply brings something for people to read.

    One service calls the empty bodies of its replies HTML, too.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    length = headers.get("content-length", "" if "transfer-encoding" in headers else "0")
    return kind == "text/html" and length.strip() != "0"


def check_refusal(status: int, headers: Mapping[str, str]) -> None:
    """Look at a refusal that would be taken for what S3 says of an object.

    Raises:
        NotOfS3: Somebody else says so.
    """
    if tells_of_the_object(status) and is_web_page(headers):
        raise NotOfS3("HTML")


def check(request: Request[Any], answer: Any, headers: Mapping[str, str]) -> None:
    """Compare what a request is answered with what was asked for.

    Args:
        request: The request.
        answer: Its reply, read from the wire.
        headers: Those of the reply, with lower-case names.

    Raises:
        NotOfS3: It is no answer to that.
    """
    # a value may be a page
    if not isinstance(request, (GetObject, HeadObject)) and is_web_page(headers):
        raise NotOfS3("HTML")
    act = _CHECKS.get(type(request))
    if act is not None:
        act(request, answer)


def _check_object(request: GetObject, reply: Reply) -> None:
    if reply.content_range is None:
        if reply.is_partial:
            raise NotOfS3("a part of the object, and not which one")
    elif not _is_range_of(reply, request):
        raise NotOfS3("a range that nobody asked for")


def _is_range_of(answer: Reply, request: GetObject) -> bool:
    """Tell whether a range is the one asked for, as far as the object goes."""
    if request.byte_range is None or answer.content_range is None:
        return False
    start, stop = request.byte_range
    first, behind, size = answer.content_range
    length = answer.content_length
    return (
        first == start
        and behind == min(stop, size)
        and first < behind
        and (length is None or length == behind - first)
    )


def _check_page(request: ListObjectsV2, page: ListPage) -> None:
    prefix = request.prefix
    for key, _, size, _ in page.objects:
        if size < 0 or not key.startswith(prefix):
            raise NotOfS3(f"an object {key!r} of {size} bytes, where those below {prefix!r} were")
    for group in page.prefixes:
        if not group.startswith(prefix):
            raise NotOfS3(f"a group {group!r}, where those below {prefix!r} were asked for")
    if page.next_token is not None and page.next_token == request.continuation_token:
        raise NotOfS3(f"the page that goes on where it began, at {page.next_token!r}")


def _check_deletions(request: DeleteObjects, failures: Sequence[tuple[str, Refusal]]) -> None:
    if failures:
        asked = set(request.keys)
        for key, _ in failures:
            if key not in asked:
                raise NotOfS3(f"what became of {key!r}, which was not to be deleted")


def _check_uploads(request: ListMultipartUploads, page: UploadsPage) -> None:
    if page.next_markers is not None and page.next_markers in (request.markers, ("", "")):
        raise NotOfS3(f"a page of uploads that goes on where it began, at {page.next_markers!r}")


def _check_parts(request: ListParts, page: PartsPage) -> None:
    marker = page.next_marker
    if marker is not None and not (request.marker or 0) < marker <= _MOST_PARTS:
        raise NotOfS3(f"a page of parts that goes on at {marker}")


def _check_upload(request: CreateMultipartUpload, upload_id: str) -> None:
    if not upload_id:
        raise NotOfS3("no UploadId in it")


_CHECKS: Final[Mapping[type[Request[Any]], Callable[[Any, Any], None]]] = {
    CreateMultipartUpload: _check_upload,
    DeleteObjects: _check_deletions,
    GetObject: _check_object,
    ListMultipartUploads: _check_uploads,
    ListObjectsV2: _check_page,
    ListParts: _check_parts,
}


class Circle:
    """Notices a listing that goes round in circles, in memory for one marker.

    Keeps the marker of every page whose number is a power of two (Brent's way), so that a
    circle is noticed after three times its length at the latest.
    """

    def __init__(self) -> None:
        self._kept: object = None
        self._pages = 0
        self._next = 1

    def is_closed_by(self, marker: object) -> bool:
        """Note the marker of the next page; tell whether it is one that has come before."""
        if marker is not None and marker == self._kept:
            return True
        self._pages += 1
        if self._pages == self._next:
            self._kept, self._next = marker, 2 * self._next
        return False
