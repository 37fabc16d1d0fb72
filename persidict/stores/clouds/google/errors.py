"""What Google's library raises, and what it means."""

from __future__ import annotations

from typing import Final

import requests
import urllib3
from google.api_core.exceptions import (
    GoogleAPICallError,
    NotFound,
    NotModified,
    PreconditionFailed,
)
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from persidict.exceptions import without_frames
from persidict.stores.clouds.connection import never_left, refuses
from persidict.stores.clouds.outcome import Kind, Trouble

_MISSING_BUCKET: Final = "bucket does not exist"
_MISSING_OBJECT: Final = "No such object"

FROM_THE_LIBRARY: Final = (
    GoogleAPICallError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
)


def trouble_of(error: Exception) -> Trouble:
    """Tell what an error means."""
    return Trouble(_kind_of(error), without_frames(error))


def _kind_of(error: Exception) -> Kind:
    match error:
        case NotFound() if _is_absence(error):
            return Kind.ABSENT
        case PreconditionFailed():
            return Kind.UNMET
        case NotModified():
            return Kind.UNCHANGED
        case GoogleAPICallError(code=(429 | 503)):
            return Kind.TURNED_AWAY
        case DataCorruption():
            return Kind.NOT_DONE
        case GoogleAPICallError(code=int(status)) if refuses(status):
            return Kind.FAILED
        case GoogleAuthError() | requests.exceptions.InvalidURL():
            return Kind.FAILED
    return Kind.NOT_DONE if never_left(error) else Kind.LOST


def _is_absence(error: NotFound) -> bool:
    """Tell whether it is the service that says so, and of an object."""
    if _MISSING_BUCKET in str(error):
        return False
    reasons = [detail.get("reason") for detail in error.errors]
    return "notFound" in reasons or _MISSING_OBJECT in str(error)
