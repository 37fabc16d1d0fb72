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


def get_safe_chars() -> set[str]:
    """Return a fresh set of the characters that are allowed in keys.

    Returns:
        ASCII letters, digits and ``()_-~.=``.

    Example:
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

    Example:
        >>> replace_unsafe_chars("a/b c", "_")
        'a_b_c'
    """
    if not isinstance(a_str, str):
        raise TypeError(f"a_str must be a str, not {type(a_str).__name__}")
    if not isinstance(replace_with, str):
        raise TypeError(f"replace_with must be a str, not {type(replace_with).__name__}")
    return _UNSAFE_CHAR.sub(lambda _: replace_with, a_str)
