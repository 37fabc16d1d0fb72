"""What is told to whoever listens to ``logging.getLogger("persidict")``.

DEBUG is what happens on a good day, too, INFO what went wrong and was mended, WARNING what
its user should know of.
"""

from __future__ import annotations

import sys
from typing import Final

_STACK: Final = 3
"""Where the caller of one of these functions stands on the stack."""


def debug(message: str, *arguments: object) -> None:
    """Tell what happens on a good day, too."""
    if "logging" in sys.modules:  # it takes long to load, and nobody can listen before it is
        _log(10, message, arguments)


def info(message: str, *arguments: object) -> None:
    """Tell what went wrong and was mended."""
    if "logging" in sys.modules:
        _log(20, message, arguments)


def warning(message: str, *arguments: object) -> None:
    """Tell what somebody should know of."""
    _log(30, message, arguments)


def of(error: BaseException) -> str:
    """Return an error as one short line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]


def _log(level: int, message: str, arguments: tuple[object, ...]) -> None:
    import logging

    logging.getLogger("persidict").log(level, message, *arguments, stacklevel=_STACK)
