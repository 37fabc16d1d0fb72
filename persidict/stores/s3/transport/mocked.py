"""Which AWS is asked: the real one, or one of those that moto's ``mock_aws`` puts in its place."""

from __future__ import annotations

import sys
import threading
import uuid
from typing import Any, Final

_ACCOUNT: Final = "123456789012"


class _Worlds:
    """Mocked worlds, one after the other: each begins with other buckets, none at all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: Any = None
        self._name = ""

    def name_of(self, buckets: Any) -> str:
        with self._lock:
            if buckets is not self._buckets:
                self._buckets = buckets
                self._name = f"mocked {uuid.uuid4().hex}"
            return self._name


_WORLDS: Final = _Worlds()


def world() -> str:
    """Return what tells the AWS that is asked now from all others; "": the real one.

    What is known of a bucket, and the copies of its objects, belong to one world. moto is not
    loaded for that: where nobody else has done so, it mocks nothing.
    """
    core = sys.modules.get("moto.core.models")
    if core is None or not getattr(getattr(core, "botocore_stubber", None), "enabled", False):
        return ""
    try:
        from moto.s3.models import s3_backends

        buckets: Any = s3_backends[_ACCOUNT]["aws"].buckets
    except (ImportError, AttributeError, KeyError):
        buckets = core  # another version of moto: all its worlds are taken for one
    return _WORLDS.name_of(buckets)
