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
    return _checked_int(name, value, at_least, "an int")


def check_int_or_none(name: str, value: Any, *, at_least: int | None = None) -> int | None:
    """Return an argument that has to be an int, or None; else as `check_int`."""
    return None if value is None else _checked_int(name, value, at_least, "an int or None")


def _checked_int(name: str, value: Any, at_least: int | None, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}")
    if at_least is not None and value < at_least:
        least = "not be negative" if at_least == 0 else f"be at least {at_least}"
        raise ValueError(f"{name} must {least}, it is {value}")
    return value


def check_number(name: str, value: Any, what: str = "a number of seconds") -> float:
    """Return an argument that has to be a number, whichever one.

    Args:
        name: The argument's name.
        value: What was given.
        what: What else it may be, for the message.

    Raises:
        TypeError: It is neither an int nor a float, or it is a bool.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {what}, not {type(value).__name__}")
    return value


def check_seconds(name: str, value: Any, what: str = "a number of seconds") -> float:
    """Return an argument that has to be a number of seconds; else as `check_number`.

    Raises:
        ValueError: It is negative, or NaN.
    """
    if not check_number(name, value, what) >= 0:
        raise ValueError(f"{name} must not be negative, it is {value}")
    seconds: float = value
    return seconds


def check_seconds_or_none(name: str, value: Any) -> float | None:
    """Return an argument that has to be a number of seconds, or None; else as `check_seconds`."""
    return None if value is None else check_seconds(name, value, "a number of seconds or None")


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
