"""Saying that a cache fails, without failing what it was done for."""

from __future__ import annotations

import warnings

from persidict import log


def complain(message: str, *, stacklevel: int = 2) -> None:
    """Warn (RuntimeWarning) and log; where warnings are made errors, only log.

    What a cache stands in front of has been changed already when the cache fails.
    """
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=stacklevel + 1)
    except RuntimeWarning:
        log.warning("%s", message)
    else:
        log.info("%s", message)
