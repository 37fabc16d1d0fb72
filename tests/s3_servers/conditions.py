"""Evaluating the conditions of S3 requests as a given server does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .http_server import Reply
from .quirks import IGNORED, NEVER_MET, REFUSED, ServerQuirks, Support
from .s3_messages import NO_SUCH_KEY, NOT_IMPLEMENTED, PRECONDITION_FAILED

WRITES = frozenset({"PutObject", "CopyObject", "CompleteMultipartUpload"})
CHANGES = WRITES | {"DeleteObject"}

_HEADERS = ("if-match", "if-none-match")


def is_conditional(operation: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a request changes an object under a condition."""
    return operation in CHANGES and any(name in headers for name in _HEADERS)


def without_quotes(etag: str) -> str:
    """Return an ETag as it is written without its quotes."""
    return etag.strip('"')


def same_etag(one: str, other: str) -> bool:
    """Compare ETags without regard to their quotes."""
    return without_quotes(one) == without_quotes(other)


def evaluate(
    quirks: ServerQuirks, operation: str, headers: Mapping[str, str], etag: str | None
) -> Reply | None:
    """Return how a server refuses a request that changes an object, or None.

    Args:
        quirks: The server's abilities.
        operation: The name of the API operation, one of `CHANGES`.
        headers: The headers of the request, with lower-case names.
        etag: The version of the object, or None when there is none.
    """
    if_match, if_none_match = (headers.get(name) for name in _HEADERS)
    if if_none_match is not None and operation in WRITES:
        support = _if_none_match_support(quirks, operation, if_none_match)
        if support is REFUSED:
            return _not_implemented("If-None-Match")
        if support is not IGNORED and _names(if_none_match, etag):
            return unmet("If-None-Match")
    if if_match is not None:
        support = _if_match_support(quirks, operation, if_match)
        if support is REFUSED:
            return _not_implemented("If-Match")
        if support is not IGNORED:
            return _evaluate_if_match(quirks, operation, if_match, etag, support)
    return None


def _evaluate_if_match(
    quirks: ServerQuirks, operation: str, if_match: str, etag: str | None, support: Support
) -> Reply | None:
    if etag is None:
        return _absent(
            quirks.delete_if_match_absent_status
            if operation == "DeleteObject"
            else quirks.put_if_match_absent_status
        )
    if support is NEVER_MET or not _names(if_match, etag):
        return unmet("If-Match")
    is_quoted = if_match.startswith('"')
    wrong_form = {"any": False, "quoted": not is_quoted, "unquoted": is_quoted}[quirks.etag_form]
    return unmet("If-Match") if wrong_form and operation in WRITES and if_match != "*" else None


def _names(condition: str, etag: str | None) -> bool:
    return etag is not None and (condition == "*" or same_etag(condition, etag))


def _if_none_match_support(quirks: ServerQuirks, operation: str, value: str) -> Support:
    if operation == "CompleteMultipartUpload":
        return quirks.complete_if_none_match
    if operation == "CopyObject":
        return quirks.copy_conditions
    return quirks.put_if_none_match_any if value == "*" else quirks.put_if_none_match_etag


def _if_match_support(quirks: ServerQuirks, operation: str, value: str) -> Support:
    if operation == "DeleteObject":
        return quirks.delete_if_match_any if value == "*" else quirks.delete_if_match
    if operation == "CompleteMultipartUpload":
        return quirks.complete_if_match
    if operation == "CopyObject":
        return quirks.copy_conditions
    return quirks.put_if_match_any if value == "*" else quirks.put_if_match


def unmet(header: str) -> Reply:
    """Return the 412 for a condition that does not hold."""
    return Reply.of_error(PRECONDITION_FAILED, Condition=header)


def _absent(status: Literal[204, 404, 412]) -> Reply:
    if status == 204:
        return Reply(204, [])
    return unmet("If-Match") if status == 412 else Reply.of_error(NO_SUCH_KEY)


def _not_implemented(header: str) -> Reply:
    return Reply.of_error(NOT_IMPLEMENTED, Header=header)
