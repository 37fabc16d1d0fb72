"""How S3 servers differ, as data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Literal


class Support(StrEnum):
    """What becomes of a condition that a request carries."""

    ENFORCED = "enforced"
    REFUSED = "refused"
    """501 NotImplemented; nothing is done."""
    IGNORED = "ignored"
    """The request is carried out as if it carried no condition."""
    NEVER_MET = "never met"
    """412 even when the condition holds: the server takes ``*`` for an ETag."""


ENFORCED, REFUSED, IGNORED = Support.ENFORCED, Support.REFUSED, Support.IGNORED
NEVER_MET = Support.NEVER_MET


@dataclass(frozen=True)
class ServerQuirks:
    """The abilities of a server; the defaults are those of AWS as documented.

    Attributes:
        put_if_none_match_any: PUT with ``If-None-Match: *``.
        put_if_none_match_etag: PUT with an ETag in ``If-None-Match``.
        put_if_match: PUT with an ETag in ``If-Match``.
        put_if_match_any: PUT with ``If-Match: *``.
        put_if_match_absent_status: The answer to either `If-Match` when there is no object.
        etag_form: How a PUT has to write the ETag in ``If-Match``: any other form is
            answered 412 even when the ETag is the right one.
        delete_if_match: DELETE with an ETag in ``If-Match``.
        delete_if_match_any: DELETE with ``If-Match: *``.
        delete_if_match_absent_status: The answer to either when there is no object.
        delete_objects_etag: An ETag beside an object in DeleteObjects.
        delete_objects_max_keys: How many objects one DeleteObjects may name.
        complete_if_none_match: CompleteMultipartUpload with ``If-None-Match: *``.
        complete_if_match: CompleteMultipartUpload with an ETag in ``If-Match``.
        copy_conditions: CopyObject with a condition on its target.
        conflict_on_race: Answer 409 to a conditional write or delete when the object was
            changed between the request's arrival and its turn.
        conflict_every: Answer 409 to every k-th conditional write or delete; 0: never.
        atomic: Whether condition and change are one step.
        refuses_before_body: Whether an unmet condition is answered instead of
            ``100 Continue``, before the client sends the body.
        lists_by_directory: Whether listings without a delimiter go from directory to
            directory, as SeaweedFS's do, and not in the order of names.
        page_size: The most entries that a page of a listing has.
        forbidden: Names of operations that are answered 403. Without permission for
            ListObjectsV2, an absent object is 403, too, as on AWS.
        credentials: Access key and secret that signatures are checked against; None: any
            signature is good.
    """

    put_if_none_match_any: Support = ENFORCED
    put_if_none_match_etag: Support = REFUSED
    put_if_match: Support = ENFORCED
    put_if_match_any: Support = REFUSED
    put_if_match_absent_status: Literal[404, 412] = 404
    etag_form: Literal["any", "quoted", "unquoted"] = "any"
    delete_if_match: Support = ENFORCED
    delete_if_match_any: Support = ENFORCED
    delete_if_match_absent_status: Literal[204, 404, 412] = 412
    delete_objects_etag: Support = ENFORCED
    delete_objects_max_keys: int | None = 1000
    complete_if_none_match: Support = ENFORCED
    complete_if_match: Support = ENFORCED
    copy_conditions: Support = ENFORCED
    conflict_on_race: bool = False
    conflict_every: int = 0
    atomic: bool = True
    refuses_before_body: bool = True
    lists_by_directory: bool = False
    page_size: int = 1000
    forbidden: frozenset[str] = frozenset()
    credentials: tuple[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "forbidden": sorted(self.forbidden)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ServerQuirks:
        """Undo `to_json`."""
        supports = {item.value: item for item in Support}
        known: dict[str, Any] = {
            name: supports.get(value, value) if isinstance(value, str) else value
            for name, value in values.items()
        }
        known["forbidden"] = frozenset(known["forbidden"])
        if known["credentials"] is not None:
            known["credentials"] = tuple(known["credentials"])
        return cls(**known)


AWS = ServerQuirks()
"""AWS as documented, without collisions."""

AWS_RACING = ServerQuirks(conflict_on_race=True)
"""AWS that answers 409 whenever it may."""

MOTO = ServerQuirks(
    put_if_none_match_etag=IGNORED,
    put_if_match_any=NEVER_MET,
    delete_if_match_any=NEVER_MET,
    delete_if_match_absent_status=404,
    delete_objects_etag=IGNORED,
    delete_objects_max_keys=None,
    complete_if_match=IGNORED,
    copy_conditions=IGNORED,
    atomic=False,
    refuses_before_body=False,
)
"""moto 5.2.5 as it is."""

LOCALSTACK = ServerQuirks(
    delete_if_match=REFUSED,
    delete_if_match_any=REFUSED,
    delete_objects_etag=IGNORED,
    delete_objects_max_keys=None,
    refuses_before_body=False,
)
"""LocalStack 2026.3.0 (its CopyObject under a condition, which corrupts, is left out)."""

CEPH = ServerQuirks(
    put_if_none_match_etag=IGNORED,
    put_if_match_any=ENFORCED,
    put_if_match_absent_status=412,
    etag_form="unquoted",
    delete_if_match=IGNORED,
    delete_if_match_any=IGNORED,
    delete_objects_etag=IGNORED,
    complete_if_none_match=IGNORED,
    complete_if_match=IGNORED,
    copy_conditions=IGNORED,
    refuses_before_body=False,
)
"""Ceph RADOS Gateway 16.2."""

SEAWEEDFS = ServerQuirks(
    put_if_none_match_etag=ENFORCED,
    put_if_match_any=ENFORCED,
    complete_if_none_match=IGNORED,
    complete_if_match=IGNORED,
    copy_conditions=IGNORED,
    lists_by_directory=True,
    refuses_before_body=False,
)
"""SeaweedFS 4.48, as far as it lists and writes."""

NO_CONDITIONS = ServerQuirks(
    put_if_none_match_any=IGNORED,
    put_if_none_match_etag=IGNORED,
    put_if_match=IGNORED,
    put_if_match_any=IGNORED,
    delete_if_match=IGNORED,
    delete_if_match_any=IGNORED,
    delete_objects_etag=IGNORED,
    complete_if_none_match=IGNORED,
    complete_if_match=IGNORED,
    copy_conditions=IGNORED,
    refuses_before_body=False,
)
"""A server that ignores every condition on a write."""
