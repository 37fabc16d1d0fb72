"""What is said to S3 and what it answers, in types: nothing here knows how it travels.

Requests bear the names of S3's own operations. They say nothing of the bucket, because a
Transport belongs to one. ETags are in quotes, always, on the way out and on the way in.
This is the only place where status and error codes are compared.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_tz
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar

from persidict.buffers import Buffer
from persidict.jokers_and_status_flags import ETagValue

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ReplyType = TypeVar("ReplyType", covariant=True)

NOTHING_MORE: Final[Mapping[str, Any]] = MappingProxyType({})
"""No metadata, no options."""


def _nothing_more() -> Mapping[str, Any]:
    return NOTHING_MORE


class Body(Protocol):
    """The body of a reply; where it breaks off or is damaged, reading raises Refusal."""

    def read(self, size: int = -1, /) -> bytes:
        """Return so many bytes, fewer at the end; all that is left for a negative size."""

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as the bytes at hand go; 0 at the end."""

    def close(self) -> None:
        """Give up the rest."""


class PartBody(Protocol):
    """A body that is sent piece by piece; reading may raise to break off the request."""

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Return so many bytes, fewer at the end; all that is left for a negative size."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position, as that of a file."""

    def tell(self) -> int:
        """Return the position."""


# ---------------------------------------------------------------------- replies


@dataclass(slots=True)
class Reply:
    """An answer about one object.

    Attributes:
        status: The HTTP status, 2xx.
        etag: The version, in quotes; None where the answer to such a request bears none.
        content_length: How many bytes the body has, or would have; None if not announced.
        content_range: First byte, byte after the last one, and size of the whole object;
            None where all of it is in the body.
        last_modified: POSIX seconds; None if not told.
        metadata: What the writer said of the object, the names in lower case.
        date: The server's clock in POSIX seconds; None if not told.
        body: The bytes asked for; None where there are none. Whoever asks for them closes it.
        checksums: What the server told of a part, as CompleteMultipartUpload wants it back.
    """

    status: int
    etag: ETagValue | None = None
    content_length: int | None = None
    content_range: tuple[int, int, int] | None = None
    last_modified: float | None = None
    metadata: Mapping[str, str] = field(default_factory=_nothing_more)
    date: float | None = None
    body: Body | None = None
    checksums: Mapping[str, str] = field(default_factory=_nothing_more)

    @property
    def size(self) -> int | None:
        """How many bytes the object has, of which this is the whole or a range."""
        return self.content_length if self.content_range is None else self.content_range[2]

    @property
    def is_partial(self) -> bool:
        """Whether the body is said to be a range of the object."""
        return self.status == 206


class ListedObject(NamedTuple):
    """What a listing tells of an object; `last_modified` in POSIX seconds."""

    key: str
    etag: ETagValue
    size: int
    last_modified: float


@dataclass(slots=True)
class ListPage:
    """A page of a listing.

    Attributes:
        objects: In the order of the answer.
        prefixes: The groups that a delimiter made.
        next_token: What the next page is asked for with; None: this is the last one.
        date: The server's clock in POSIX seconds; None if not told.
    """

    objects: Sequence[ListedObject]
    prefixes: Sequence[str] = ()
    next_token: str | None = None
    date: float | None = None


class UploadedPart(NamedTuple):
    """A part of an upload; `checksums` as its Reply has them."""

    number: int
    etag: ETagValue
    checksums: Mapping[str, str] = NOTHING_MORE


class UploadsPage(NamedTuple):
    """Open uploads, each with key and id, and from where to go on, None at the end."""

    uploads: Sequence[tuple[str, str]]
    next_markers: tuple[str, str] | None = None


class PartsPage(NamedTuple):
    """Parts that an open upload has, and from where to go on, None at the end."""

    parts: Sequence[UploadedPart]
    next_marker: int | None = None


# ---------------------------------------------------------------------- requests


class Request(Generic[ReplyType]):
    """One operation of S3.

    Attributes:
        operation: Its name, as S3 has it.
        is_repeatable: Whether acting twice changes no more than acting once, whatever
            others do in between.
    """

    __slots__ = ()

    operation: ClassVar[str]
    is_repeatable: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.operation = cls.__name__


@dataclass(frozen=True, slots=True)
class GetObject(Request[Reply]):
    """Read an object, or the bytes from a first one up to, but not with, another one."""

    key: str
    byte_range: tuple[int, int] | None = None
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True)
class HeadObject(Request[Reply]):
    """Look at an object."""

    key: str


@dataclass(frozen=True, slots=True)
class PutObject(Request[Reply]):
    """Write an object."""

    is_repeatable: ClassVar[bool] = False

    key: str
    body: Buffer = field(repr=False)
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=_nothing_more)
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteObject(Request[Reply]):
    """Delete an object; `if_match` may be ``*``."""

    is_repeatable: ClassVar[bool] = False

    key: str
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteObjects(Request[Sequence[tuple[str, "Refusal"]]]):
    """Delete up to 1000 objects; the answer tells which ones were not, and why."""

    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class ListObjectsV2(Request[ListPage]):
    """List objects, a page of them."""

    prefix: str = ""
    start_after: str | None = None
    delimiter: str | None = None
    max_keys: int | None = None
    continuation_token: str | None = None


@dataclass(frozen=True, slots=True)
class CopyObject(Request[Reply]):
    """Copy an object inside the service, with new metadata."""

    is_repeatable: ClassVar[bool] = False

    key: str
    source_bucket: str
    source_key: str
    source_owner: str | None = None
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=_nothing_more)


@dataclass(frozen=True, slots=True)
class CreateMultipartUpload(Request[str]):
    """Begin an upload; the answer is its id. One begun twice leaves an upload without parts."""

    key: str
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=_nothing_more)


@dataclass(frozen=True, slots=True)
class UploadPart(Request[Reply]):
    """Send a part of an upload; parts are numbered from 1. A body is read from where it stands."""

    key: str
    upload_id: str
    number: int
    body: bytes | PartBody = field(repr=False)

    def rewind(self) -> None:
        """Make the body ready to be sent again."""
        if not isinstance(self.body, bytes):
            self.body.seek(0)


@dataclass(frozen=True, slots=True)
class CompleteMultipartUpload(Request[Reply]):
    """Make the object of its parts; an upload can be completed once."""

    key: str
    upload_id: str
    parts: Sequence[UploadedPart]
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True)
class AbortMultipartUpload(Request[Reply]):
    """End an upload and delete its parts."""

    key: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class ListMultipartUploads(Request[UploadsPage]):
    """List open uploads, a page of them; `markers` from the page before."""

    prefix: str = ""
    markers: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ListParts(Request[PartsPage]):
    """List the parts of an open upload, a page of them; `marker` from the page before."""

    key: str
    upload_id: str
    marker: int | None = None


@dataclass(frozen=True, slots=True)
class HeadBucket(Request[Reply]):
    """Look whether there is such a bucket."""


@dataclass(frozen=True, slots=True)
class CreateBucket(Request[Reply]):
    """Create the bucket, in the region that the transport is for."""


# ---------------------------------------------------------------------- refusals

NO_SUCH_BUCKET: Final = "NoSuchBucket"

_UNSUPPORTED: Final = frozenset({400, 405, 501})
_ELSEWHERE: Final = frozenset({301, 302, 307, 308})
_OF_THE_OBJECT: Final = frozenset({404, 409, 412, 416})
_PASSING_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
_PASSING_CODES: Final = frozenset({"RequestTimeout", "RequestTimeoutException", "InternalError"})
_THROTTLING_CODES: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
CREDENTIAL_CODES: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurity",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_OUTDATED_CODES: Final = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired"}
)
_STATUS_OF_CODES: Final = {
    "AccessDenied": 403,
    "ExpiredToken": 400,
    "InternalError": 500,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "ServiceUnavailable": 503,
    "SlowDown": 503,
}


class Refusal(Exception):
    """A request was not answered with success.

    Args:
        operation: The name of the operation.
        status: The HTTP status; 0: no answer came.
        code: The S3 error code, ``""`` where there was none.
        make_error: Makes the exception that a user is to see.
        may_have_acted: Whether the request, or an earlier delivery of it, may have been
            carried out nevertheless; None: as status and code tell.
        may_pass: Where no answer came: whether another attempt may fare better.
        is_broken_connection: Where no answer came: whether the connection broke, which takes
            no time, unlike waiting for an answer.
        date: The server's clock in POSIX seconds; None if not told.

    Attributes:
        may_have_acted: See above.
        is_misread: Whether a condition was refused although it holds: the server does not
            read it as it is meant.
    """

    def __init__(
        self,
        operation: str,
        status: int,
        code: str,
        make_error: Callable[[], Exception],
        *,
        may_have_acted: bool | None = None,
        may_pass: bool = False,
        is_broken_connection: bool = False,
        date: float | None = None,
    ) -> None:
        super().__init__(operation, status, code)
        self.operation = operation
        self.status = status
        self.code = code
        self.date = date
        self._make_error = make_error
        self._may_pass = may_pass
        self._is_broken_connection = is_broken_connection
        self.is_misread = False
        self.may_have_acted = self._acts_perhaps() if may_have_acted is None else may_have_acted

    @cached_property
    def error(self) -> Exception:
        """The exception that a user is to see, always the same one."""
        return self._make_error()

    def _acts_perhaps(self) -> bool:
        """Tell by the answer alone: errors of the server may come after the deed, but for some."""
        return self.status >= 500 and not (self.is_throttled or self.is_unsupported)

    @property
    def is_absence(self) -> bool:
        """Whether there is no such object; a missing bucket or upload is no absence."""
        return self.status == 404 and self.code not in (NO_SUCH_BUCKET, "NoSuchUpload")

    @property
    def is_missing_bucket(self) -> bool:
        """Whether it is the bucket that is missing, as far as the answer tells."""
        return self.code == NO_SUCH_BUCKET

    @property
    def is_not_found(self) -> bool:
        """Whether something is missing: object, bucket or upload."""
        return self.status == 404

    @property
    def is_missing_upload(self) -> bool:
        """Whether the upload has ended."""
        return self.code == "NoSuchUpload"

    @property
    def is_unmet(self) -> bool:
        """Whether a condition does not hold."""
        return self.status == 412

    @property
    def is_unchanged(self) -> bool:
        """Whether the object still is the version that `if_none_match` names."""
        return self.status == 304

    @property
    def is_conflict(self) -> bool:
        """Whether a conditional request collided with another one and did nothing."""
        return self.status == 409 and self.code == "ConditionalRequestConflict"

    @property
    def is_unsatisfiable(self) -> bool:
        """Whether the object has no byte of the range asked for."""
        return self.status == 416

    @property
    def is_forbidden(self) -> bool:
        """Whether these credentials may not do this."""
        return self.status == 403

    @property
    def is_credential_trouble(self) -> bool:
        """Whether the answer tells of the caller and nothing of the server."""
        return self.code in CREDENTIAL_CODES

    @property
    def may_be_expired(self) -> bool:
        """Whether other credentials may fare better; HEAD brings no code that tells."""
        return self.code in _OUTDATED_CODES or (
            self.operation.startswith("Head") and self.status in (400, 403)
        )

    @property
    def is_unsupported(self) -> bool:
        """Whether the server does not know, or does not want, such a request."""
        return self.status in _UNSUPPORTED and self.code not in _PASSING_CODES

    @property
    def is_bad_request(self) -> bool:
        """Whether the server finds fault with the request itself."""
        return self.status == 400

    @property
    def is_throttled(self) -> bool:
        """Whether the server asks for fewer requests; it has done nothing."""
        return self.code in _THROTTLING_CODES or self.status == 429

    @property
    def asks_for_fewer_requests(self) -> bool:
        """Whether it may mean that the service is asked for too much; HEAD brings no code."""
        return self.is_throttled or self.status == 503

    @property
    def is_bucket_taken(self) -> bool:
        """Whether the bucket to be created is there already, or just being created, by us."""
        return self.code in ("BucketAlreadyOwnedByYou", "OperationAborted")

    @property
    def is_passing(self) -> bool:
        """Whether another attempt may fare better."""
        if not self.status:
            return self._may_pass
        return self.status in _PASSING_STATUSES or self.code in _PASSING_CODES or self.is_throttled

    @property
    def is_quick(self) -> bool:
        """Whether it failed at once, so that many more attempts cost little time."""
        return self.is_passing if self.status else self._is_broken_connection


def tells_of_the_object(status: int) -> bool:
    """Tell whether a status would be taken for what S3 says of an object, not of the caller."""
    return status in _OF_THE_OBJECT


def leads_elsewhere(status: int, *, is_of_another_region: bool) -> bool:
    """Tell whether a request has to go to another host, or be signed for the bucket's region."""
    return status in _ELSEWHERE or (status == 400 and is_of_another_region)


def leads_nowhere(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether a redirection's headers do not say in which region the bucket lies."""
    return status in _ELSEWHERE and "x-amz-bucket-region" not in headers


def status_of_code(code: str) -> int:
    """Return the HTTP status that goes with an error code told in a body, 400 if not known."""
    return _STATUS_OF_CODES.get(code, 400)


def quoted(etag: str) -> ETagValue:
    """Return an ETag in quotes, as HTTP has it, also where a server leaves them out."""
    return ETagValue(etag if etag.endswith('"') else f'"{etag}"')


@lru_cache(maxsize=256)
def http_date(text: str) -> float | None:
    """Return POSIX seconds of a date as HTTP writes it (RFC 9110), None if it is none.

    Examples:
        >>> http_date("Sun, 06 Nov 1994 08:49:37 GMT")
        784111777.0
    """
    parsed = parsedate_tz(text)
    if parsed is None:
        return None
    try:
        return float(timegm((*parsed[:6], 0, 0, 0)) - (parsed[9] or 0))
    except (OverflowError, ValueError):
        return None
