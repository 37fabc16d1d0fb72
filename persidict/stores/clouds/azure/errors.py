"""What Azure's library raises, and what it means."""

from __future__ import annotations

import re
from typing import Final

from azure.core.exceptions import AzureError

from persidict.exceptions import without_frames
from persidict.stores.clouds.connection import never_left, refuses
from persidict.stores.clouds.outcome import Kind, Trouble

_SIGNATURE: Final = re.compile(r"([?&]sig=)[^&\s'\")]+")


def trouble_of(error: Exception) -> Trouble:
    """Tell what an error means, and mask in it what is secret."""
    assert isinstance(error, AzureError)
    kind = _kind_of(error)
    _hush(error)
    return Trouble(kind, without_frames(error))


def _kind_of(error: AzureError) -> Kind:
    match getattr(error, "status_code", None), getattr(error, "error_code", None):
        case 304, _:
            return Kind.UNCHANGED  # the library takes it for an unmet condition
        case 404, "BlobNotFound":
            return Kind.ABSENT
        case (412, "ConditionNotMet" | "TargetConditionNotMet") | (409, "BlobAlreadyExists"):
            return Kind.UNMET
        case ((429 | 503), _):
            return Kind.TURNED_AWAY
        case int(status), _:
            return Kind.FAILED if refuses(status) else Kind.LOST
    return Kind.NOT_DONE if never_left(error) else Kind.LOST


def _hush(error: AzureError) -> None:
    """Mask the signature in what an error tells: that of a SAS token is in every URL."""
    error.message = _SIGNATURE.sub(r"\1***", error.message)
    error.args = (error.message,)
    error.inner_exception = error.exc_value = error.exc_traceback = None
    error.exc_msg = error.message
    request = getattr(getattr(error, "response", None), "request", None)
    if request is not None:
        request.url = _SIGNATURE.sub(r"\1***", request.url)
