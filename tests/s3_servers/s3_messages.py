"""What S3 requests mean, and what S3's errors look like on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class S3Request(NamedTuple):
    """What a request asks for.

    Attributes:
        operation: The name of the API operation, as in boto3's documentation.
        bucket: The bucket's name, or the empty string.
        key: The object's name, or the empty string.
        query: The parameters behind the question mark.
        condition: ``if-match`` or ``if-none-match``, or the empty string.
    """

    operation: str
    bucket: str
    key: str
    query: dict[str, str]
    condition: str = ""


_CONDITIONS = ("if-match", "if-none-match")
_BUCKET_OPERATIONS = {"HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}
_OBJECT_OPERATIONS = {
    "GET": "GetObject",
    "HEAD": "HeadObject",
    "PUT": "PutObject",
    "DELETE": "DeleteObject",
}
_UPLOAD_OPERATIONS = {
    "GET": "ListParts",
    "PUT": "UploadPart",
    "POST": "CompleteMultipartUpload",
    "DELETE": "AbortMultipartUpload",
}
_CONFIGURATIONS = {"versioning": "BucketVersioning", "location": "BucketLocation"}


def parse_s3_request(method: str, target: str, headers: Mapping[str, str]) -> S3Request:
    """Tell what a path-style request asks for.

    Args:
        method: The HTTP method.
        target: Path and query, as sent.
        headers: With lower-case names.
    """
    parts = urlsplit(target)
    bucket, _, key = parts.path.removeprefix("/").partition("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = unquote(key)
    operation = (
        _object_operation(method, query, headers) if name else _bucket_operation(method, query)
    )
    if not bucket:
        operation = "ListBuckets"
    condition = next((header for header in _CONDITIONS if header in headers), "")
    return S3Request(operation, unquote(bucket), name, query, condition)


def _object_operation(method: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    if "uploadId" in query:
        return _UPLOAD_OPERATIONS.get(method, method)
    if method == "POST" and "uploads" in query:
        return "CreateMultipartUpload"
    if method == "PUT" and "x-amz-copy-source" in headers:
        return "CopyObject"
    return _OBJECT_OPERATIONS.get(method, method)


def _bucket_operation(method: str, query: Mapping[str, str]) -> str:
    for parameter, name in _CONFIGURATIONS.items():
        if parameter in query:
            return method.capitalize() + name
    if method == "POST" and "delete" in query:
        return "DeleteObjects"
    if method == "GET":
        if "uploads" in query:
            return "ListMultipartUploads"
        if "versions" in query:
            return "ListObjectVersions"
        return "ListObjectsV2" if query.get("list-type") == "2" else "ListObjects"
    return _BUCKET_OPERATIONS.get(method, method)


class S3Error(NamedTuple):
    """An error as S3 reports it."""

    status: int
    code: str
    message: str

    def to_xml(self, **details: str) -> bytes:
        """Return the body of the response."""
        fields = {"Code": self.code, "Message": self.message, **details}
        inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in fields.items())
        declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
        return f"{declaration}<Error>{inner}<RequestId>0</RequestId></Error>".encode()


ACCESS_DENIED = S3Error(403, "AccessDenied", "Access Denied")
CONDITIONAL_REQUEST_CONFLICT = S3Error(
    409,
    "ConditionalRequestConflict",
    "The conditional request cannot succeed due to a conflicting operation against this resource.",
)
INTERNAL_ERROR = S3Error(
    500, "InternalError", "We encountered an internal error. Please try again."
)
INVALID_ACCESS_KEY = S3Error(
    403,
    "InvalidAccessKeyId",
    "The AWS Access Key Id you provided does not exist in our records.",
)
INVALID_RANGE = S3Error(416, "InvalidRange", "The requested range is not satisfiable")
MALFORMED_XML = S3Error(
    400,
    "MalformedXML",
    "The XML you provided was not well-formed or did not validate against our published schema",
)
NO_SUCH_BUCKET = S3Error(404, "NoSuchBucket", "The specified bucket does not exist")
NO_SUCH_KEY = S3Error(404, "NoSuchKey", "The specified key does not exist.")
NO_SUCH_UPLOAD = S3Error(404, "NoSuchUpload", "The specified multipart upload does not exist.")
NOT_IMPLEMENTED = S3Error(
    501,
    "NotImplemented",
    "A header you provided implies functionality that is not implemented",
)
PRECONDITION_FAILED = S3Error(
    412,
    "PreconditionFailed",
    "At least one of the pre-conditions you specified did not hold",
)
SIGNATURE_DOES_NOT_MATCH = S3Error(
    403,
    "SignatureDoesNotMatch",
    "The request signature we calculated does not match the signature you provided."
    " Check your key and signing method.",
)
SLOW_DOWN = S3Error(503, "SlowDown", "Please reduce your request rate.")
