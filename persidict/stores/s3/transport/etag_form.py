"""ETags in `If-Match` as a server wants them: with the quotes that it puts around them or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, cast

from persidict.stores.s3.transport.messages import (
    CompleteMultipartUpload,
    DeleteObject,
    GetObject,
    HeadObject,
    PutObject,
    Refusal,
    Reply,
    ReplyType,
    Request,
)
from persidict.stores.s3.transport.transport import Again, Transport, never

_WITH_CONDITIONS: Final = (PutObject, GetObject, DeleteObject, CompleteMultipartUpload)
_ANY: Final = "*"


def is_aws_endpoint(url: str) -> bool:
    """Tell whether an endpoint is one of AWS's own, whose abilities are documented."""
    host = url.partition("://")[2].partition("/")[0].partition(":")[0].lower()
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


class ETagForm:
    """How a server wants the ETag in `If-Match` to be written; the same for all its buckets.

    Attributes:
        is_unquoted: Whether it wants it without quotes.
        is_proven: Whether a request has succeeded in this form.
    """

    def __init__(self, endpoint: str) -> None:
        self.is_unquoted = False
        self.is_proven = is_aws_endpoint(endpoint)

    def write(self, etag: str) -> str:
        """Return the ETag in this form."""
        return etag.strip('"') if self.is_unquoted else etag

    def other(self, etag: str) -> str:
        """Return the ETag in the other form."""
        return etag if self.is_unquoted else etag.strip('"')

    def learn(self, *, is_unquoted: bool) -> None:
        """Note that a condition was met by an ETag in one of the forms."""
        self.is_unquoted = is_unquoted
        self.is_proven = True


class InItsForm(Transport):
    """A transport that finds out, when a condition is met or not, in which form ETags travel.

    As long as no request has succeeded under ``If-Match``, one that is refused is sent in the
    other form, too, if a look shows that the version is the current one. That costs 2
    requests, once for each endpoint, and nothing on AWS. The refusal of a version that is the
    current one in both forms says so (`Refusal.is_misread`).

    Args:
        wire: What carries the requests.
        form: What is known of the form.
    """

    def __init__(self, wire: Transport, form: ETagForm) -> None:
        super().__init__(wire.bucket_name, wire.pool)
        self._wire = wire
        self.form = form

    def __repr__(self) -> str:
        return repr(self._wire)

    @property
    def endpoint(self) -> str:
        return self._wire.endpoint

    @property
    def unquoted_etags(self) -> bool | None:
        return self.form.is_unquoted if self.form.is_proven else None

    def send(self, request: Request[ReplyType]) -> ReplyType:
        if not isinstance(request, _WITH_CONDITIONS) or request.if_match in (None, _ANY):
            return self._wire.send(request)
        return cast("ReplyType", self._send_under(request, request.if_match))

    def _send_under(self, request: Any, etag: str) -> Any:
        form = self.form
        is_unquoted = form.is_unquoted
        try:
            reply = self._wire.send(replace(request, if_match=form.write(etag)))
        except Refusal as refusal:
            if not refusal.is_unmet or refusal.may_have_acted:
                raise
            if isinstance(request, GetObject):
                return self._read_in_other_form(request, etag)
            if form.is_proven:
                raise
            return self._send_in_other_form(request, etag, refusal)
        # other conditions are ignored by some servers, which proves nothing
        if not form.is_proven and isinstance(request, (PutObject, GetObject)):
            form.learn(is_unquoted=is_unquoted)
        return reply

    def _read_in_other_form(self, request: GetObject, etag: str) -> Reply:
        """Read in the other form at once: that harms nothing, and mostly the version has moved."""
        is_unquoted = self.form.is_unquoted
        reply = self._wire.send(replace(request, if_match=self.form.other(etag)))
        self.form.learn(is_unquoted=not is_unquoted)
        return reply

    def _send_in_other_form(self, request: Any, etag: str, refusal: Refusal) -> Any:
        is_unquoted = self.form.is_unquoted
        if self._is_another_version(request.key, etag):
            raise refusal
        try:
            reply = self._wire.send(replace(request, if_match=self.form.other(etag)))
        except Refusal as again:
            # somebody may have changed it between the two
            again.is_misread = again.is_unmet and not self._is_another_version(request.key, etag)
            raise
        self.form.learn(is_unquoted=not is_unquoted)
        return reply

    def _is_another_version(self, key: str, etag: str) -> bool:
        """Tell whether an object is not the version that a condition names."""
        try:
            return self._wire.send(HeadObject(key)).etag != etag
        except Refusal as refusal:
            if refusal.is_absence:
                return True
            raise

    def send_many(
        self, requests: Iterable[Request[ReplyType]], again: Again = never
    ) -> Iterator[ReplyType | Refusal]:
        """Send many requests, see the port; in the form that is known so far, whatever comes."""
        return self._wire.send_many(map(self._in_form, requests), again)

    def _in_form(self, request: Any) -> Any:
        etag = request.if_match if isinstance(request, _WITH_CONDITIONS) else None
        if etag is None or etag == _ANY:
            return request
        return replace(request, if_match=self.form.write(etag))
