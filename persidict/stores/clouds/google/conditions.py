"""Whether a server of Google's interface enforces conditions, which emulators may ignore."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Final, NamedTuple

from google.api_core.exceptions import NotFound, PreconditionFailed
from google.cloud.storage import Bucket

_NAME: Final = "!persidict-probe-"
"""How the objects of probes begin: ``!`` stands in no key, so that none is ever listed."""


class GCSCapabilities(NamedTuple):
    """What a server does with conditions.

    Attributes:
        conditions: Whether it enforces ``ifGenerationMatch`` on writes and deletions.
    """

    conditions: bool


def enforces_conditions(bucket: Bucket, prefix: str) -> bool:
    """Ask for what must fail: a change under a generation of nothing, and of another one."""
    probe = bucket.blob(f"{prefix}{_NAME}{uuid.uuid4().hex}")
    try:
        probe.upload_from_string(b"", if_generation_match=1)
    except PreconditionFailed:
        pass
    else:
        probe.delete()
        return False
    try:
        probe.upload_from_string(b"", if_generation_match=0)
    except PreconditionFailed:  # the library sent it twice
        probe.reload()
    try:
        probe.delete(if_generation_match=int(probe.generation) + 1)
    except PreconditionFailed:
        with suppress(NotFound):  # somebody tidied up
            probe.delete()
        return True
    return False
