"""Saying that a cache fails, without failing what it was done for."""

from __future__ import annotations

import logging
import warnings
from typing import Final

_LOG: Final = logging.getLogger("persidict")


def complain(message: str, *, stacklevel: int = 2) -> None:
    """Warn (RuntimeWarning); where warnings are made errors, log instead.

    What a cache stands in front of has been changed already when the cache fails.
    """
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=stacklevel + 1)
    except RuntimeWarning:
        _LOG.warning("%s", message)
