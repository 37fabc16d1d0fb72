"""Credentials that have expired are looked for anew, where somebody may have left others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from persidict.stores.s3.transport.messages import Refusal, ReplyType, Request, UploadPart
from persidict.stores.s3.transport.transport import Again, Transport, never

_ATTEMPTS: Final = 2
"""How often one of many requests may have been refused for its credentials."""


class Renewing(Transport):
    """A transport that sends again, once, what was refused because credentials had expired.

    Such a request has done nothing. It is sent again only if others have been found.

    Args:
        wire: What carries the requests.
        renew: Looks for other credentials, and tells whether there are; told whether it is
            certain that the old ones have expired.
    """

    def __init__(self, wire: Transport, renew: Callable[[bool], bool]) -> None:
        super().__init__(wire.bucket_name, wire.pool)
        self._wire = wire
        self._renew = renew

    def __repr__(self) -> str:
        return repr(self._wire)

    @property
    def endpoint(self) -> str:
        return self._wire.endpoint

    def send(self, request: Request[ReplyType]) -> ReplyType:
        try:
            return self._wire.send(request)
        except Refusal as refusal:
            if not self._is_renewed_after(refusal):
                raise
        if isinstance(request, UploadPart):
            request.rewind()
        return self._wire.send(request)

    def send_many(
        self, requests: Iterable[Request[ReplyType]], again: Again = never
    ) -> Iterator[ReplyType | Refusal]:
        def renewed_or_again(
            request: Request[Any], refusal: Refusal, attempt: int, /
        ) -> float | None:
            if attempt <= _ATTEMPTS and self._is_renewed_after(refusal):
                return 0.0
            return again(request, refusal, attempt)

        return self._wire.send_many(requests, renewed_or_again)

    def _is_renewed_after(self, refusal: Refusal) -> bool:
        if not refusal.may_be_expired or refusal.may_have_acted:
            return False
        return self._renew(refusal.is_credential_trouble)
