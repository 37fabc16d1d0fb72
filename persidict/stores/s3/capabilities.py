"""What a server enforces: found out once for each endpoint and bucket, never guessed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final

from botocore.exceptions import ClientError

from persidict.stores.s3.errors import NO_SUCH_BUCKET, code_of, status_of

Send = Callable[..., dict[str, Any]]
"""Sends a request about the bucket in boto3's words."""

PROBE_NAME: Final = "!persidict-probe-"
"""How the probes' own objects begin: ``!`` stands in no key, so that none is ever listed."""

_MADE_UP_ETAG: Final = '"00000000000000000000000000000000"'
_UNMET: Final = (404, 412)
_REFUSALS: Final = (400, 403, 405, 501)
_FORBIDDEN: Final = 403
_CREDENTIAL_TROUBLE: Final = frozenset(
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
"""Error codes that tell of the caller and nothing of the server."""


class Support(Enum):
    """What becomes of a condition that a request carries."""

    ENFORCED = "enforced"
    REFUSED = "refused"
    IGNORED = "ignored"
    UNKNOWN = "not asked yet"

    def __bool__(self) -> bool:
        return self is Support.ENFORCED

    def __repr__(self) -> str:
        return self.value


@dataclass(frozen=True)
class S3Capabilities:
    """What an S3 server does with conditions on writes and deletes.

    Attributes:
        put_if_match: PUT that replaces only a given version (compare-and-swap).
        put_if_none_match: PUT that only inserts.
        delete_if_match: DELETE of only a given version.
        delete_if_match_any: DELETE that tells whether there was something to delete.
        unquoted_etags: Whether `If-Match` has to name a version without the quotes that the
            server itself puts around it.
    """

    put_if_match: Support = Support.UNKNOWN
    put_if_none_match: Support = Support.UNKNOWN
    delete_if_match: Support = Support.UNKNOWN
    delete_if_match_any: Support = Support.UNKNOWN
    unquoted_etags: bool = False


ABILITIES: Final = tuple(f.name for f in fields(S3Capabilities) if f.name != "unquoted_etags")


class ETagForm:
    """How a server wants the ETag in `If-Match` to be written; the same for all its buckets."""

    def __init__(self, *, is_proven: bool) -> None:
        self.is_unquoted = False
        self.is_proven = is_proven
        """Whether a request has succeeded in this form."""

    def write(self, etag: str) -> str:
        """Return the ETag in this form."""
        return etag.strip('"') if self.is_unquoted else etag

    def learn(self, written: str) -> None:
        """Note that a condition was met by an ETag in this form."""
        self.is_unquoted = not written.endswith('"')
        self.is_proven = True

    @staticmethod
    def other(written: str) -> str:
        """Return the ETag in the other form."""
        return written.strip('"') if written.endswith('"') else f'"{written}"'


class CapabilityProbe:
    """The abilities of one bucket on one endpoint, each found out when first asked for.

    A probe asks for what must fail: a write or a delete under a made-up ETag, on a name
    that does not exist. Where conditions are enforced there is nothing to clean up.
    """

    def __init__(self, etag_form: ETagForm, *, is_aws: bool) -> None:
        known = Support.ENFORCED if is_aws else Support.UNKNOWN
        self._found: dict[str, Support] = dict.fromkeys(ABILITIES, known)
        self._statuses: dict[str, int] = {}
        self.lock = threading.Lock()
        self.etag_form = etag_form
        self.any_means_absent = False
        """Whether a 412 to ``If-Match: *`` has been seen to mean that there is nothing."""

    def support(self, ability: str, send: Send, prefix: str) -> Support:
        """Tell what the server does with a condition, asking it the first time.

        Raises:
            botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError: The server
                could not be asked; nothing is concluded from that.
        """
        found = self._found[ability]
        if found is not Support.UNKNOWN:
            return found
        with self.lock:
            found = self._found[ability]
            if found is Support.UNKNOWN:
                name = f"{prefix}{PROBE_NAME}{uuid.uuid4().hex}"
                found, status = _PROBES[ability](send, name, self.etag_form)
                self._statuses[ability] = status
                # other credentials may be allowed to ask: not for them is this concluded
                if status != _FORBIDDEN:
                    self._found[ability] = found
        return found

    def status(self, ability: str) -> int:
        """Return the HTTP status from which an ability was concluded, 0 if there was none."""
        return self._statuses.get(ability, 0)

    def note_misread(self, ability: str) -> None:
        """Correct what is known: the server refuses a condition that holds."""
        self._found[ability] = Support.REFUSED
        self._statuses[ability] = 412

    def snapshot(self, found: dict[str, Support]) -> S3Capabilities:
        """Return what has been found, with the form of ETags as it is known now."""
        return S3Capabilities(**found, unquoted_etags=self.etag_form.is_unquoted)


def is_aws_endpoint(url: str) -> bool:
    """Tell whether an endpoint is one of AWS's own, whose abilities are documented."""
    host = url.partition("://")[2].partition("/")[0].partition(":")[0].lower()
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _concluded(error: ClientError) -> tuple[Support, int]:
    """Conclude from the exact status; one that says nothing of conditions is raised."""
    status = status_of(error)
    if status in _UNMET and code_of(error) != NO_SUCH_BUCKET:
        return Support.ENFORCED, status
    if status in _REFUSALS and code_of(error) not in _CREDENTIAL_TROUBLE:
        return Support.REFUSED, status
    raise error


def _clean_up(send: Send, name: str) -> None:
    """Remove a probe's object; it stays, empty, where these credentials may not delete."""
    try:
        send("delete_object", Key=name)
    except ClientError as error:
        if status_of(error) != 403:
            raise


def _probe_put_if_match(send: Send, name: str, form: ETagForm) -> tuple[Support, int]:
    try:
        send("put_object", Key=name, Body=b"", IfMatch=_MADE_UP_ETAG)
    except ClientError as error:
        return _concluded(error)
    _clean_up(send, name)
    return Support.IGNORED, 200


def _probe_put_if_none_match(send: Send, name: str, form: ETagForm) -> tuple[Support, int]:
    try:
        made = send("put_object", Key=name, Body=b"", IfNoneMatch="*")
    except ClientError as error:
        concluded = _concluded(error)
        if concluded[0] is Support.ENFORCED:  # sent twice, and the first one was carried out
            _clean_up(send, name)
        return concluded
    try:
        send("put_object", Key=name, Body=b"", IfNoneMatch="*")
    except ClientError as error:
        concluded = _concluded(error)
        _learn_form(send, name, made["ETag"], form)
        return concluded
    else:
        return Support.IGNORED, 200
    finally:
        _clean_up(send, name)


def _learn_form(send: Send, name: str, etag: str, form: ETagForm) -> None:
    """Use the object at hand to find out in which form the server wants ETags."""
    for written in () if form.is_proven else (etag, form.other(etag)):
        try:
            send("put_object", Key=name, Body=b"", IfMatch=written)
        except ClientError as error:
            if status_of(error) not in (*_UNMET, *_REFUSALS):
                raise
        else:
            return form.learn(written)


def _probe_delete(send: Send, name: str, if_match: str) -> tuple[Support, int]:
    try:
        send("delete_object", Key=name, IfMatch=if_match)
    except ClientError as error:
        return _concluded(error)
    return Support.IGNORED, 204


def _probe_delete_if_match(send: Send, name: str, form: ETagForm) -> tuple[Support, int]:
    return _probe_delete(send, name, _MADE_UP_ETAG)


def _probe_delete_if_match_any(send: Send, name: str, form: ETagForm) -> tuple[Support, int]:
    return _probe_delete(send, name, "*")


_PROBES: Final = {
    "put_if_match": _probe_put_if_match,
    "put_if_none_match": _probe_put_if_none_match,
    "delete_if_match": _probe_delete_if_match,
    "delete_if_match_any": _probe_delete_if_match_any,
}
