"""What the errors of botocore mean, and what a person can do about them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectionError,
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)

S3Error = (ClientError, BotoCoreError)
"""Everything that botocore raises."""

ConnectionTrouble = (HTTPClientError, ConnectionError, IncompleteReadError)
"""No answer came, or not all of it."""

NeverSent = (ConnectTimeoutError, SSLError)
"""There was no connection that a request could have gone through."""

NO_SUCH_BUCKET: Final = "NoSuchBucket"
OUTCOME_UNKNOWN: Final = (
    "persidict: a write was sent more than once or got no answer, and what can be seen now"
    " does not tell whether it was carried out"
)
"""The note on an error that leaves it open what became of a write."""

_CONFLICT: Final = "ConditionalRequestConflict"
_NOTE: Final = "persidict: S3 "

_CREDENTIALS_HINT: Final = (
    "check the credentials: aws_access_key_id and aws_secret_access_key (and"
    " aws_session_token), profile_name, or what botocore finds in the environment"
)
_REGION_HINT: Final = "the bucket lies in another region: pass that one as region"
_HINTS: Final = {
    NO_SUCH_BUCKET: "create the bucket, or pass create_bucket=True",
    "InvalidAccessKeyId": _CREDENTIALS_HINT,
    "SignatureDoesNotMatch": _CREDENTIALS_HINT,
    "InvalidToken": _CREDENTIALS_HINT,
    "ExpiredToken": "the credentials have expired: get new ones",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": _REGION_HINT,
    "AuthorizationHeaderMalformed": _REGION_HINT,
    "IllegalLocationConstraintException": _REGION_HINT,
    "InvalidLocationConstraint": "pass a region that this service knows, or create the bucket",
    "InvalidBucketName": "choose a bucket name that S3 allows",
    "BucketAlreadyExists": "the name belongs to somebody else: choose another bucket name",
}
_STATUS_HINTS: Final = {
    301: _REGION_HINT,
    400: "check bucket name, region and credentials",
    403: "these credentials may not do this: see the permissions that each operation needs",
    503: "the service asks for fewer requests: lower max_concurrency, or try again later",
}


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an answer, 0 where there was none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: BaseException) -> str:
    """Return the S3 error code of an answer, ``""`` where there was none."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def was_retried(error: ClientError) -> bool:
    """Tell whether the request was sent more than once before this answer came."""
    return bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def count_retries(error: ClientError, before: int) -> int:
    """Add the retries before it to those that an answer knows of, and return the sum."""
    metadata: Any = error.response.get("ResponseMetadata", {})
    retries: int = before + metadata.get("RetryAttempts", 0)
    metadata["RetryAttempts"] = retries
    return retries


def is_conflict(error: BaseException) -> bool:
    """Tell whether a conditional request collided with another one and did nothing."""
    return status_of(error) == 409 and code_of(error) == _CONFLICT


def is_absence(error: BaseException) -> bool:
    """Tell whether an answer says that there is no such object; a missing bucket is no absence."""
    return status_of(error) == 404 and code_of(error) != NO_SUCH_BUCKET


def is_passing(error: BaseException) -> bool:
    """Tell whether a request failed quickly, in a way that may not happen again."""
    return isinstance(error, ConnectionClosedError) or status_of(error) >= 500


def leaves_outcome_open(error: BaseException) -> bool:
    """Tell whether a request that ended so may have been carried out nevertheless."""
    if isinstance(error, NeverSent):
        return False
    return isinstance(error, ConnectionTrouble) or status_of(error) >= 500


def _hint(error: BaseException) -> str:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return _CREDENTIALS_HINT
    if isinstance(error, ParamValidationError):
        return "choose a bucket name that S3 allows"
    if isinstance(error, ConnectionTrouble):
        return "check endpoint_url and the network; boto_config sets timeouts and retries"
    return _HINTS.get(code_of(error)) or _STATUS_HINTS.get(status_of(error), "")


def annotate(error: BaseException, operation: str, bucket: str, key: str = "") -> None:
    """Add a note that names operation, bucket and key, and what to do; once."""
    if any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
        return
    place = f"bucket {bucket!r}" + (f", key {key!r}" if key else "")
    hint = _hint(error)
    error.add_note(f"{_NOTE}{operation}, {place}" + (f": {hint}" if hint else ""))


@contextmanager
def annotated(operation: str, bucket: str, key: str = "") -> Iterator[None]:
    """Let botocore's errors pass with a note that names operation, bucket and key."""
    try:
        yield
    except S3Error as error:
        annotate(error, operation, bucket, key)
        raise
