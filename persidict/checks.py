"""Arguments that are numbers or switches: what is wrong with one is said by its name."""

from __future__ import annotations

import unicodedata
from typing import Any


def check_int(name: str, value: Any, *, at_least: int | None = None) -> int:
    """Return an argument that has to be an int.

    Args:
        name: The argument's name.
        value: What was given.
        at_least: The least value that makes sense.

    Raises:
        TypeError: It is not an int, or it is a bool.
        ValueError: It is less.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return _check_least(name, value, at_least)


def check_int_or_none(name: str, value: Any, *, at_least: int | None = None) -> int | None:
    """Return an argument that has to be an int, or None; else as `check_int`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {type(value).__name__}")
    return _check_least(name, value, at_least)


def _check_least(name: str, value: int, at_least: int | None) -> int:
    if at_least is not None and value < at_least:
        least = "not be negative" if at_least == 0 else f"be at least {at_least}"
        raise ValueError(f"{name} must {least}, it is {value}")
    return value


def check_seconds_or_none(name: str, value: Any) -> float | None:
    """Return an argument that has to be a number of seconds, or None.

    Raises:
        TypeError: It is no number.
        ValueError: It is negative, or not a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number or None, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, it is {value}")
    return value


def check_flag(name: str, flag: Any) -> bool:
    """Return an argument that switches something on or off, or raise TypeError."""
    if flag not in (True, False):
        raise TypeError(f"{name} must be True or False, not {flag!r:.80}")
    return bool(flag)


def check_prefix(name: str, text: Any) -> str:
    """Return what the names of all objects are to begin with, a slash at its end, or "".

    Raises:
        TypeError: It is not a str.
        ValueError: A part of it is ``.`` or ``..``, which those on the way take for a way up,
            or it has characters that listings cannot tell.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    for part in text.split("/"):
        if part in (".", ".."):
            raise ValueError(f"{name} must not have {part!r} between slashes, it is {text!r}")
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") or character in "\ufffe\uffff":
            raise ValueError(
                f"{name} must have neither control characters nor what is no character,"
                f" it is {text!a}"
            )
    stem = text.rstrip("/")
    return f"{stem}/" if stem else ""


def check_text(name: str, text: Any) -> None:
    """Raise TypeError unless a parameter is a text, or ValueError if it is empty."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    if not text:
        raise ValueError(f"{name} must not be empty")
