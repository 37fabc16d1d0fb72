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
    ListObjectsV2,
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

_LEFT_BEHIND: Final = "left-behind"
"""How the name goes on of the one object that stays where nobody may delete it."""

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
        self.is_in_order: bool | None = True if is_aws else None
        """Whether listings come in the order of names; None: not known."""

    def support(self, ability: str, sender: Sender, prefix: str) -> Support:
        """Tell what the server does with a condition, asking it the first time.

        Raises:
            Refusal: The server could not be asked; nothing is concluded from that.
        """
        found = self._found[ability]
        if found is not Support.UNKNOWN:
            return found
        with self.lock:
            return self._find_out(ability, sender, prefix)

    def _find_out(self, ability: str, sender: Sender, prefix: str) -> Support:
        found = self._found[ability]
        if found is Support.UNKNOWN:
            concluded = _PROBES[ability](self._object(sender, prefix, ability))
            found = concluded.support
            self._concluded[ability] = concluded
            log.debug("probed %s: %s (status %d)", ability, found.value, concluded.status)
            # other credentials may be allowed to ask: not for them is this concluded
            if not concluded.is_forbidden:
                self._found[ability] = found
        return found

    def _object(self, sender: Sender, prefix: str, ability: str = "put") -> _Probe:
        """Return an object to probe with.

        What only deletes leaves nothing behind. Before something is written that would stay,
        a deletion shows whether these credentials may remove it again: if not, all processes
        write the same one, which nobody deletes while another one looks at it.
        """
        common = f"{prefix}{PROBE_NAME}{_LEFT_BEHIND}"
        if ability == "put_if_match":  # whatever is there, and whoever deletes it
            return _Probe(sender, common)
        if ability.startswith("delete") or self._may_delete(sender, prefix):
            return _Probe(sender, f"{prefix}{PROBE_NAME}{uuid.uuid4().hex}")
        return _Probe(sender, common, may_delete=False)

    def _may_delete(self, sender: Sender, prefix: str) -> bool:
        try:
            self._find_out("delete_if_match", sender, prefix)
        except Refusal as refusal:
            return not refusal.is_forbidden
        return not self.is_forbidden("delete_if_match")

    def lists_in_order(self, sender: Sender, prefix: str) -> bool:
        """Tell whether listings come in the order of names, asking the first time.

        Costs 3 requests, and 1 more if nothing is known yet of deletions. Where nothing may be
        written, or not deleted again, it stays unknown, which is not taken for order.
        """
        if self.is_in_order is None:
            with self.lock:
                if self.is_in_order is None:
                    probe = self._object(sender, prefix)
                    if probe.may_delete:
                        self.is_in_order = _probe_order(probe)
                        log.debug("probed the order of listings: %s", self.is_in_order)
        return bool(self.is_in_order)

    def note_disorder(self) -> None:
        """Take note that a listing has come in another order than that of names."""
        log.info("the server does not list in the order of names: ranges are sorted here")
        self.is_in_order = False

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
                try:
                    probe = self._object(sender, prefix)
                    self.completion[condition] = _probe_completion(probe, condition)
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

    def __init__(self, sender: Sender, name: str, *, may_delete: bool = True) -> None:
        self.sender = sender
        self.name = name
        self.may_delete = may_delete

    @property
    def transport(self) -> Transport:
        return self.sender.transport

    def put(self, *, if_match: str | None = None, if_none_match: str | None = None) -> str | None:
        request = PutObject(self.name, b"", if_match=if_match, if_none_match=if_none_match)
        return self.send(request).etag

    def delete(self, if_match: str | None = None) -> None:
        self.send(DeleteObject(self.name, if_match=if_match))

    def send(self, request: Request[ReplyType]) -> ReplyType:
        for _ in range(_ATTEMPTS - 1):
            try:
                return self.sender.perform(request)
            except Refusal as refusal:
                if request.is_repeatable or not (refusal.may_have_acted and refusal.is_passing):
                    raise
        return self.sender.perform(request)

    def clean_up(self) -> None:
        """Remove the object; it stays, empty, where these credentials may not delete."""
        if not self.may_delete:
            return
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
            probe.clean_up()


def _probe_order(probe: _Probe) -> bool | None:
    """Tell whether ``name/x`` is listed behind ``name.``, as bytes are, not by directories."""
    within = _Probe(probe.sender, f"{probe.name}/x")
    try:
        within.put()
        page = probe.send(ListObjectsV2(probe.name, f"{probe.name}."))
        return any(item.key == within.name for item in page.objects)
    except Refusal:
        return None
    finally:
        with suppress(Refusal):
            within.clean_up()


def _completed_under(probe: _Probe, completion: CompleteMultipartUpload) -> Support:
    try:
        probe.send(completion)
    except Refusal as refusal:
        # An upload that is gone may have been completed by this request, delivered twice
        if not (refusal.is_unmet or refusal.is_absence):
            raise
        return Support.ENFORCED
    return Support.IGNORED
