"""What a server enforces: found out once for each endpoint and bucket, never guessed."""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Final, Literal, NamedTuple, Protocol

from persidict import log
from persidict.stores.s3.transport.messages import (
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CreateMultipartUpload,
    DeleteObject,
    PutObject,
    Refusal,
    ReplyType,
    Request,
    UploadedPart,
    UploadPart,
)
from persidict.stores.s3.transport.transport import Transport

Condition = Literal["if_match", "if_none_match"]

PROBE_NAME: Final = "!persidict-probe-"
"""How the probes' own objects begin: ``!`` stands in no key, so that none is ever listed."""

_ATTEMPTS: Final = 5
_MISREAD: Final = 412
_MADE_UP_ETAG: Final = '"00000000000000000000000000000000"'


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
        deletes_by_marker: Whether a version is deleted by first replacing it, under its ETag,
            with a marker, because DELETE knows no condition; says what is done, not what the
            server does, and is left out of comparisons.
    """

    put_if_match: Support = Support.UNKNOWN
    put_if_none_match: Support = Support.UNKNOWN
    delete_if_match: Support = Support.UNKNOWN
    delete_if_match_any: Support = Support.UNKNOWN
    unquoted_etags: bool = False
    deletes_by_marker: bool = field(default=False, compare=False)

    @property
    def one_taker(self) -> bool:
        """Whether each version that is deleted has exactly one caller who is told so."""
        return bool(self.delete_if_match) or self.deletes_by_marker


ABILITIES: Final = tuple(f.name for f in fields(S3Capabilities) if f.default is Support.UNKNOWN)


class CapabilityProbe:
    """The abilities of one bucket on one endpoint, each found out when first asked for.

    A probe asks for what must fail: a write or a delete under a made-up ETag, on a name
    that does not exist. Where conditions are enforced there is nothing to clean up.
    """

    def __init__(self, *, is_aws: bool) -> None:
        known = Support.ENFORCED if is_aws else Support.UNKNOWN
        self._found: dict[str, Support] = dict.fromkeys(ABILITIES, known)
        self._concluded: dict[str, _Conclusion] = {}
        self.is_aws = is_aws
        self.lock = threading.Lock()
        self.any_means_absent = False
        """Whether a 412 to ``If-Match: *`` has been seen to mean that there is nothing."""
        self.completion: dict[str, Support] = {}
        """What becomes of conditions, by their names, on CompleteMultipartUpload."""

    def support(self, ability: str, sender: Sender, prefix: str) -> Support:
        """Tell what the server does with a condition, asking it the first time.

        Raises:
            Refusal: The server could not be asked; nothing is concluded from that.
        """
        found = self._found[ability]
        if found is not Support.UNKNOWN:
            return found
        with self.lock:
            found = self._found[ability]
            if found is Support.UNKNOWN:
                name = f"{prefix}{PROBE_NAME}{uuid.uuid4().hex}"
                concluded = _PROBES[ability](_Probe(sender, name))
                found = concluded.support
                self._concluded[ability] = concluded
                log.debug("probed %s: %s (status %d)", ability, found.value, concluded.status)
                # other credentials may be allowed to ask: not for them is this concluded
                if not concluded.is_forbidden:
                    self._found[ability] = found
        return found

    def known(self, ability: str) -> Support:
        """Return what is known so far, without asking."""
        return self._found[ability]

    def status(self, ability: str) -> int:
        """Return the HTTP status from which an ability was concluded, 0 if there was none."""
        concluded = self._concluded.get(ability)
        return 0 if concluded is None else concluded.status

    def is_forbidden(self, ability: str) -> bool:
        """Tell whether it is only that these credentials may not find out."""
        concluded = self._concluded.get(ability)
        return concluded is not None and concluded.is_forbidden

    def note_misread(self, ability: str) -> None:
        """Correct what is known: the server refuses a condition that holds."""
        log.info("corrected %s: the server refuses a condition that holds", ability)
        self._found[ability] = Support.REFUSED
        self._concluded[ability] = _Conclusion(Support.REFUSED, _MISREAD)

    def support_on_completion(self, condition: Condition, sender: Sender, prefix: str) -> bool:
        """Tell whether a server checks a condition on CompleteMultipartUpload.

        It is asked once for each bucket. What cannot be found out, for want of permission,
        say, is not taken for enforcement, and asked again the next time.
        """
        if self.is_aws:
            return True
        with self.lock:
            if condition not in self.completion:
                name = f"{prefix}{PROBE_NAME}{uuid.uuid4().hex}"
                try:
                    self.completion[condition] = _probe_completion(_Probe(sender, name), condition)
                except Refusal:
                    return False
                found = self.completion[condition].value
                log.debug("probed %s on completing uploads: %s", condition, found)
            return self.completion[condition] is Support.ENFORCED


class Sender(Protocol):
    """What carries the probes' requests."""

    @property
    def transport(self) -> Transport:
        """How they travel."""

    def perform(self, request: Request[ReplyType]) -> ReplyType:
        """Send a request, and again as long as that may help and does no harm."""


class _Conclusion(NamedTuple):
    support: Support
    status: int
    is_forbidden: bool = False


def _concluded(refusal: Refusal) -> _Conclusion:
    """Conclude from the exact answer; one that says nothing of conditions is raised."""
    if refusal.is_unmet or refusal.is_absence:
        return _Conclusion(Support.ENFORCED, refusal.status)
    is_refusal = refusal.is_forbidden or refusal.is_unsupported
    if is_refusal and not refusal.is_credential_trouble:
        return _Conclusion(Support.REFUSED, refusal.status, refusal.is_forbidden)
    raise refusal


class _Probe:
    """Requests about one object, which may be sent twice: nobody else knows of it."""

    def __init__(self, sender: Sender, name: str) -> None:
        self._sender = sender
        self.name = name

    @property
    def transport(self) -> Transport:
        return self._sender.transport

    def put(self, *, if_match: str | None = None, if_none_match: str | None = None) -> str | None:
        request = PutObject(self.name, b"", if_match=if_match, if_none_match=if_none_match)
        return self.send(request).etag

    def delete(self, if_match: str | None = None) -> None:
        self.send(DeleteObject(self.name, if_match=if_match))

    def send(self, request: Request[ReplyType]) -> ReplyType:
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._sender.perform(request)
            except Refusal as refusal:
                if request.is_repeatable or not (refusal.may_have_acted and refusal.is_passing):
                    raise
        return self._sender.perform(request)

    def clean_up(self) -> None:
        """Remove the object; it stays, empty, where these credentials may not delete."""
        try:
            self.delete()
        except Refusal as refusal:
            if not refusal.is_forbidden:
                raise


def _probe_put_if_match(probe: _Probe) -> _Conclusion:
    try:
        probe.put(if_match=_MADE_UP_ETAG)
    except Refusal as refusal:
        return _concluded(refusal)
    probe.clean_up()
    return _Conclusion(Support.IGNORED, 200)


def _probe_put_if_none_match(probe: _Probe) -> _Conclusion:
    try:
        made = probe.put(if_none_match="*")
    except Refusal as refusal:
        concluded = _concluded(refusal)
        if concluded.support is Support.ENFORCED:  # sent twice, and the first one was carried out
            probe.clean_up()
        return concluded
    try:
        probe.put(if_none_match="*")
    except Refusal as refusal:
        concluded = _concluded(refusal)
        _learn_the_form_of_etags(probe, made)
        return concluded
    else:
        return _Conclusion(Support.IGNORED, 200)
    finally:
        probe.clean_up()


def _learn_the_form_of_etags(probe: _Probe, etag: str | None) -> None:
    """Use the object at hand to let the transport find out in which form the server wants ETags."""
    if probe.transport.unquoted_etags is not None:
        return
    try:
        probe.put(if_match=etag)
    except Refusal as refusal:
        _concluded(refusal)


def _probe_delete(probe: _Probe, if_match: str) -> _Conclusion:
    try:
        probe.delete(if_match)
    except Refusal as refusal:
        return _concluded(refusal)
    return _Conclusion(Support.IGNORED, 204)


def _probe_delete_if_match(probe: _Probe) -> _Conclusion:
    return _probe_delete(probe, _MADE_UP_ETAG)


def _probe_delete_if_match_any(probe: _Probe) -> _Conclusion:
    return _probe_delete(probe, "*")


_PROBES: Final = {
    "put_if_match": _probe_put_if_match,
    "put_if_none_match": _probe_put_if_none_match,
    "delete_if_match": _probe_delete_if_match,
    "delete_if_match_any": _probe_delete_if_match_any,
}


def _probe_completion(probe: _Probe, condition: Condition) -> Support:
    """Try to complete an upload under a condition that does not hold, and clean up."""
    upload = ""
    try:
        if condition == "if_none_match":
            probe.put()
        upload = probe.send(CreateMultipartUpload(probe.name))
        part = probe.send(UploadPart(probe.name, upload, 1, b"?"))
        assert part.etag is not None
        parts = [UploadedPart(1, part.etag, part.checksums)]
        unmet = {condition: "*" if condition == "if_none_match" else _MADE_UP_ETAG}
        return _completed_under(probe, CompleteMultipartUpload(probe.name, upload, parts, **unmet))
    except Refusal as refusal:
        if not refusal.is_unsupported or refusal.is_bad_request:
            raise
        return Support.REFUSED
    finally:
        with suppress(Refusal):
            if upload:
                probe.send(AbortMultipartUpload(probe.name, upload))
        with suppress(Refusal):
            probe.delete()


def _completed_under(probe: _Probe, completion: CompleteMultipartUpload) -> Support:
    try:
        probe.send(completion)
    except Refusal as refusal:
        # An upload that is gone may have been completed by this request, delivered twice
        if not (refusal.is_unmet or refusal.is_absence):
            raise
        return Support.ENFORCED
    return Support.IGNORED
