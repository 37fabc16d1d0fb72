"""The characters that may stand in a key."""

from __future__ import annotations

import re
import string
from typing import Final

SAFE_CHARS_SET: Final[frozenset[str]] = frozenset(string.ascii_letters + string.digits + "()_-~.=")
"""Every character that a string in a key may contain."""

SAFE_STRING_MAX_LENGTH: Final[int] = 254
"""The first length that is refused: a string in a key has 1 to 253 characters."""

_UNSAFE_CHAR: Final = re.compile(r"[^A-Za-z0-9()_\-~.=]")
_TO_ESCAPE: Final = re.compile(r"[^A-Za-z0-9()_\-~.=]|=(?=[0-9A-F]{2})|\A\.(?=\.?\Z)")
_ESCAPED: Final = re.compile(r"(?:=[0-9A-F]{2})+")


def escape_key(text: str) -> str:
    """Turn any text into a string that may stand in a key; `unescape_key` turns it back.

    Different texts become different strings, and a text that may stand in a key as it is stays
    as it is, unless it looks escaped. What may not is written as ``=`` and two hexadecimal
    digits for each byte of its UTF-8.

    Args:
        text: Any text of at least one character.

    Returns:
        The string.

    Raises:
        TypeError: `text` is not a str.
        ValueError: It is empty, or the string has more than 253 characters.

    Example:
        >>> escape_key("user:1/é")
        'user=3A1=2F=C3=A9'
        >>> unescape_key("user=3A1=2F=C3=A9")
        'user:1/é'
        >>> escape_key("k=v"), escape_key("k=3D"), escape_key("..")
        ('k=v', 'k=3D3D', '=2E.')
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    escaped = _TO_ESCAPE.sub(_escape, text)
    if not 0 < len(escaped) < SAFE_STRING_MAX_LENGTH:
        raise ValueError(
            f"text must have 1 to {SAFE_STRING_MAX_LENGTH - 1} characters when it is escaped,"
            f" these are {len(escaped)}: {text[:40]!r}"
        )
    return escaped


def _escape(char: re.Match[str]) -> str:
    return "".join(f"={byte:02X}" for byte in char[0].encode("utf-8", "surrogatepass"))


def unescape_key(escaped: str) -> str:
    """Turn what `escape_key` returned back into the text that it was given.

    Raises:
        TypeError: `escaped` is not a str.
        ValueError: `escape_key` returns no such string.
    """
    if not isinstance(escaped, str):
        raise TypeError(f"escaped must be a str, not {type(escaped).__name__}")
    try:
        text = _ESCAPED.sub(_unescape, escaped)
        if escape_key(text) == escaped:
            return text
    except ValueError:  # these are no bytes of a text, or too many or too few of them
        text = ""
    raise ValueError(f"escaped: {escaped[:40]!r} is not what escape_key returns")


def _unescape(escaped: re.Match[str]) -> str:
    return bytes.fromhex(escaped[0].replace("=", "")).decode("utf-8", "surrogatepass")


def get_safe_chars() -> set[str]:
    """Return a fresh set of the characters that are allowed in keys.

    Returns:
        ASCII letters, digits and ``()_-~.=``.

    Examples:
        >>> "a" in get_safe_chars(), "/" in get_safe_chars()
        (True, False)
    """
    return set(SAFE_CHARS_SET)


def replace_unsafe_chars(a_str: str, replace_with: str = "_") -> str:
    """Replace every character that is not allowed in keys.

    Args:
        a_str: The text to clean.
        replace_with: What stands in for each unsafe character. Taken as it is.

    Returns:
        The text with each unsafe character replaced. The length and the special
        names ``.`` and ``..`` are not looked at.

    Raises:
        TypeError: An argument is not a string.

    Examples:
        >>> replace_unsafe_chars("a/b c", "_")
        'a_b_c'
    """
    if not isinstance(a_str, str):
        raise TypeError(f"a_str must be a str, not {type(a_str).__name__}")
    if not isinstance(replace_with, str):
        raise TypeError(f"replace_with must be a str, not {type(replace_with).__name__}")
    return _UNSAFE_CHAR.sub(lambda _: replace_with, a_str)
