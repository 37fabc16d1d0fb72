"""Signing keys: suffixes that keep names apart where letter case does not."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from functools import partial
from struct import iter_unpack
from typing import Final, TypeVar, cast

from persidict.checks import check_int
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple

try:
    # hashlib's is OpenSSL's, which takes long to load, and twice as long for a short string
    from _md5 import md5  # type: ignore[import-not-found]
except ImportError:
    import hashlib

    md5 = partial(hashlib.md5, usedforsecurity=False)

MAX_DIGEST_LEN: Final = 32
"""All of base32(md5): a longer digest does not exist."""

_PAIRS: Final = tuple(map("".join, itertools.product("abcdefghijklmnopqrstuvwxyz234567", repeat=2)))
"""The base32 characters (RFC 4648, in lower case) of each 10 bits."""

_SHORT_DIGEST_LEN: Final = 4
_SHORTEST_EVIDENT: Final = 3

KeyType = TypeVar("KeyType", bound=SafeStrTuple)


def digest_of(part: str, digest_len: int) -> str:
    """Return the first characters of lower-cased base32(md5(part in UTF-8)).

    Args:
        part: The string to digest.
        digest_len: How many characters, from 0 to 32.

    Returns:
        The digest, `digest_len` characters long.
    """
    # names of foreign files may hold what is no text: they get a digest, which fits no key
    data = part.encode(errors="surrogatepass")
    digest = md5(data).digest()
    if digest_len <= _SHORT_DIGEST_LEN:
        # listing a directory checks a digest for each file: 20 bits need no general encoder
        bits = int.from_bytes(digest[:3])
        return (_PAIRS[bits >> 14] + _PAIRS[bits >> 4 & 1023])[:digest_len]
    return base64.b32encode(digest)[:digest_len].decode("ascii").lower()


def digests_of(parts: Sequence[str], digest_len: int) -> list[str]:
    """Return what `digest_of` returns for each of many safe strings."""
    if digest_len > _SHORT_DIGEST_LEN:
        return [digest_of(part, digest_len) for part in parts]
    digests = b"".join([md5(data).digest() for data in map(str.encode, parts)])
    found = [
        _PAIRS[high >> 6] + _PAIRS[(high & 63) << 4 | low >> 4]
        for high, low in iter_unpack(">HB13x", digests)
    ]
    return found if digest_len == _SHORT_DIGEST_LEN else [digest[:digest_len] for digest in found]


def without_digest(signed_part: str, digest_len: int) -> str | None:
    """Return the part that a signed part was made of, or None if its suffix is not its own."""
    cut = len(signed_part) - digest_len - 1
    if cut < 1 or signed_part[cut] != "_":
        return None
    part = signed_part[:cut]
    return part if digest_of(part, digest_len) == signed_part[cut + 1 :] else None


def digest_len_of(signed_part: str) -> int:
    """Return how long the digest is that a part ends in; 0 if it ends in none of its own.

    Shorter ones than 3 characters count for none: too many parts end so by chance.
    """
    part, _, suffix = signed_part.rpartition("_")
    if not part or not _SHORTEST_EVIDENT <= len(suffix) <= MAX_DIGEST_LEN:
        return 0
    return len(suffix) if digest_of(part, len(suffix)) == suffix else 0


def check_digest_len(digest_len: int) -> int:
    """Return how long a digest of this length really is.

    Raises:
        TypeError: It is not an int.
        ValueError: It is negative.
    """
    return min(check_int("digest_len", digest_len, at_least=0), MAX_DIGEST_LEN)


def _check_arguments(key: SafeStrTuple, digest_len: int) -> int:
    if not isinstance(key, SafeStrTuple):
        raise TypeError(f"key must be a SafeStrTuple, not {type(key).__name__}")
    return check_digest_len(digest_len)


def _alike(key: KeyType, *parts: str) -> KeyType:
    kind = NonEmptySafeStrTuple if isinstance(key, NonEmptySafeStrTuple) else SafeStrTuple
    return cast("KeyType", kind(*parts))


def sign_safe_str_tuple(key: KeyType, digest_len: int) -> KeyType:
    """Append to every string ``_`` and its digest; strings that carry it already stay.

    Args:
        key: The key to sign.
        digest_len: How many characters of digest; 0 changes nothing.

    Returns:
        A SafeStrTuple, or a NonEmptySafeStrTuple if the key is one.

    Raises:
        TypeError: `key` is no SafeStrTuple or `digest_len` no int.
        ValueError: `digest_len` is negative, or a signed string would be too long.

    Examples:
        >>> sign_safe_str_tuple(SafeStrTuple("a", "b_slvv"), 4)
        SafeStrTuple('a_btax', 'b_slvv')
    """
    digest_len = _check_arguments(key, digest_len)
    if digest_len == 0:
        return key
    return _alike(
        key,
        *(
            part
            if without_digest(part, digest_len) is not None
            else f"{part}_{digest_of(part, digest_len)}"
            for part in key.strings
        ),
    )


def unsign_safe_str_tuple(key: KeyType, digest_len: int) -> KeyType:
    """Take the suffixes off that `sign_safe_str_tuple` appends; other strings stay.

    Args:
        key: The key to unsign.
        digest_len: How many characters of digest; 0 changes nothing.

    Returns:
        A SafeStrTuple, or a NonEmptySafeStrTuple if the key is one.

    Raises:
        TypeError: `key` is no SafeStrTuple or `digest_len` no int.
        ValueError: `digest_len` is negative.

    Examples:
        >>> unsign_safe_str_tuple(SafeStrTuple("a_btax", "b"), 4)
        SafeStrTuple('a', 'b')
    """
    digest_len = _check_arguments(key, digest_len)
    if digest_len == 0:
        return key
    parts = ((part, without_digest(part, digest_len)) for part in key.strings)
    return _alike(key, *(part if bare is None else bare for part, bare in parts))
