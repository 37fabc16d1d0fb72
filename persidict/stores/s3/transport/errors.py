"""Exceptions of botocore as typed refusals and back, with notes on what a person can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http.client import BadStatusLine
from types import ModuleType
from typing import Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectionError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from persidict.exceptions import BackendError, without_frames
from persidict.stores.s3.transport.direct.reply_parser import NotHTTP
from persidict.stores.s3.transport.messages import (
    CREDENTIAL_CODES,
    NO_SUCH_BUCKET,
    Refusal,
    http_date,
    leads_nowhere,
)
from persidict.stores.s3.transport.not_s3 import NotOfS3, check_refusal

S3Error = (ClientError, BotoCoreError)
"""Everything that botocore raises by itself."""

ConnectionTrouble = (HTTPClientError, ConnectionError, IncompleteReadError)
"""No answer came, or not all of it."""

_NEVER_SENT = (ConnectTimeoutError, EndpointConnectionError, ProxyConnectionError)
"""There was no connection that a request could have gone through."""

_TRUST_TROUBLE: Final = ("certificate", "handshake", "wrong_version", "unknown_protocol")
"""What the text of an SSLError says where no secure connection came about."""

_NOTE: Final = "persidict: S3 "
_SHOWN: Final = 200
_TLS_ALERT: Final = b"\x15\x03"

_CREDENTIALS_HINT: Final = (
    "check the credentials: aws_access_key_id and aws_secret_access_key (and"
    " aws_session_token), profile_name, or what botocore finds in the environment"
)
_REGION_HINT: Final = "the bucket lies in another region: pass that one as region"
_HINTS: Final = {
    NO_SUCH_BUCKET: "create the bucket, or make a new handle with create_bucket=True"
    " (in a URL: ?create_bucket=true)",
    "InvalidObjectState": "the object is archived: have S3 restore it, then read it",
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


def _told(error: BaseException) -> tuple[int, str, Mapping[str, Any]]:
    """Return HTTP status, S3 error code and headers of an answer; 0 where there was none."""
    if not isinstance(error, ClientError):
        return 0, "", {}
    response: Mapping[str, Any] = error.response
    metadata = response.get("ResponseMetadata", {})
    code = str(response.get("Error", {}).get("Code", ""))
    return int(metadata.get("HTTPStatusCode", 0)), code, metadata


def refusal_of(error: Exception, operation: str, endpoint: str) -> Refusal:
    """Return what an exception of botocore says of a request, as the Refusal that brings it.

    The frames in which it was raised hold signatures and session tokens, and are not kept.
    """
    without_frames(error)
    reason = getattr(error, "kwargs", {}).get("error")
    if isinstance(reason, BaseException):
        without_frames(reason)
    if isinstance(error, ClientError):
        status, code, metadata = _told(error)
        headers = metadata.get("HTTPHeaders", {})
        try:
            check_refusal(status, headers)
        except NotOfS3 as lack:
            return no_s3_reply(operation, status, endpoint, str(lack), error)
        if code == str(status) and leads_nowhere(status, headers):
            what = "a redirection that names no region"
            return no_s3_reply(operation, status, endpoint, what, error)
        date = headers.get("date")
        return Refusal(
            operation,
            status,
            code,
            lambda: error,
            # the client of somebody else may have sent it more than once
            may_have_acted=True if metadata.get("RetryAttempts") else None,
            date=None if date is None else http_date(date),
        )
    if isinstance(error, ResponseParserError):
        return no_s3_reply(operation, 200, endpoint, str(error), error)
    is_trouble = isinstance(error, ConnectionTrouble)
    return Refusal(
        operation,
        0,
        "",
        lambda: error,
        may_have_acted=is_trouble and not _was_never_sent(error),
        may_pass=is_trouble,
        is_broken_connection=isinstance(error, ConnectionClosedError),
    )


def was_raised_in(module: ModuleType, error: BaseException) -> bool:
    """Tell whether an error passed through the code of a module."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") == module.__name__:
            return True
        traceback = traceback.tb_next
    return False


def _was_never_sent(error: Exception) -> bool:
    if isinstance(error, SSLError):
        text = str(error).lower()
        return any(word in text for word in _TRUST_TROUBLE)
    return isinstance(error, _NEVER_SENT)


def no_s3_reply(
    operation: str, status: int, endpoint: str, what: str, cause: Exception | None = None
) -> Refusal:
    """Return the Refusal of an answer that is none of S3's: a proxy's, say, or another port's.

    Args:
        operation: The name of the operation.
        status: The HTTP status that it had.
        endpoint: Where it came from.
        what: What came, or what was missing.
        cause: The exception in which the client library said so.
    """

    def make() -> Exception:
        error = BackendError(
            f"what answered {operation} at {endpoint} with status {status} does not speak S3:"
            f" {what[:_SHOWN]}",
            backend="s3",
        )
        error.__cause__ = cause
        return error

    # its status says nothing of any object
    return Refusal(operation, 0, "", make, may_have_acted=True)


def pages_in_a_circle(operation: str, endpoint: str, marker: object) -> Refusal:
    """Return the Refusal of a listing one of whose pages leads back to an earlier one.

    Args:
        operation: The name of the operation.
        endpoint: Where the pages came from.
        marker: What has come again.
    """
    what = f"pages of a listing that go round in a circle: {marker!r} comes again"
    return no_s3_reply(operation, 200, endpoint, what)


def cut_short(actual: int, expected: int) -> Refusal:
    """Return the Refusal of a body that ends before all of it has come."""
    return body_trouble(IncompleteReadError(actual_bytes=actual, expected_bytes=expected))


def concerns_one_object(error: Exception) -> bool:
    """Tell whether an object cannot be read and others can, as far as an exception shows."""
    if isinstance(error, ClientError):
        status, code, _ = _told(error)
        return bool(status) and code not in (NO_SUCH_BUCKET, *CREDENTIAL_CODES)
    return isinstance(error, (FlexibleChecksumError, IncompleteReadError))


def body_trouble(error: Exception) -> Refusal:
    """Return the Refusal of a body that broke off or is damaged."""
    return Refusal("GetObject", 0, "", lambda: error, may_have_acted=False, may_pass=True)


def client_error(
    operation: str,
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> ClientError:
    """Return botocore's own exception for an answer that botocore has not seen."""
    response: Any = {
        "Error": {"Code": code or str(status), "Message": message},
        "ResponseMetadata": {
            "HTTPStatusCode": status,
            "HTTPHeaders": dict(headers or {}),
            "RetryAttempts": 0,
        },
    }
    return ClientError(response, operation)


def _hint(error: BaseException) -> str:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return _CREDENTIALS_HINT
    if isinstance(error, ParamValidationError):
        return "choose a bucket name that S3 allows"
    if isinstance(error, (*ConnectionTrouble, BackendError)):
        return f"{_what_answered(error)}check endpoint_url and the network;" + (
            " boto_config sets timeouts and retries"
        )
    status, code, metadata = _told(error)
    hint = _HINTS.get(code) or _STATUS_HINTS.get(status, "")
    server = metadata.get("HTTPHeaders", {}).get("server")
    if server is None or code != str(status):
        return hint
    return "; ".join(filter(None, (hint, f"what answered calls itself {server[:_SHOWN]!r}")))


def _what_answered(error: BaseException) -> str:
    """Say what is at the other end, if it does not speak the language that it was spoken to in."""
    if "WRONG_VERSION_NUMBER" in str(error):
        return "what answers there speaks no TLS, as https:// would need; "
    for reason in _reasons(error):
        if isinstance(reason, BadStatusLine):
            said = str(reason.args[0]).encode("latin-1", "replace")
        elif isinstance(reason, NotHTTP):
            said = reason.beginning
        else:
            continue
        if said.startswith(_TLS_ALERT):
            return "what answers there wants TLS: https:// instead of http://; "
        if said.strip():
            return f"what answers there does not speak HTTP: it said {said.strip()[:_SHOWN]!r}; "
    return ""


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """Yield what an exception goes back to, wherever the libraries on the way have put it."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        reason = waiting.pop()
        if isinstance(reason, BaseException) and id(reason) not in seen:
            seen.add(id(reason))
            yield reason
            told = getattr(reason, "kwargs", {}).get("error")
            waiting += [told, reason.__cause__, reason.__context__, *reason.args]


def annotate(error: BaseException, operation: str, bucket: str, key: str = "") -> None:
    """Add a note that names operation, bucket and key, and what to do; once."""
    if any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
        return
    place = f"bucket {bucket!r}" + (f", key {key!r}" if key else "")
    hint = _hint(error)
    error.add_note(f"{_NOTE}{operation}, {place}" + (f": {hint}" if hint else ""))
