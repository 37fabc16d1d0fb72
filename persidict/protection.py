"""Protecting stored bytes: from whoever can write where they lie, and whoever can read there.

A dictionary with a protection checks every item before anything of it is decoded. Somebody
who can write to the place, but has no key, can delete items and put back older versions of
them, or what has the same name in another place with the same key; he can neither alter an
item, nor make one, nor pass one off as another.
"""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from persidict.codecs import Buffer, MissingExtraError

SelfType = TypeVar("SelfType", bound="Protection")

_SHORTEST_KEY: Final = 32
_LENGTHS: Final = struct.Struct(">II")
_ID_SIZE: Final = 8
_DIGEST_SIZE: Final = 32
_SALT_SIZE: Final = 16
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16


class NotProtected(Exception):
    """Stored bytes are not what their owner wrote: altered, of another item, or unprotected."""


class KeyFromEnvironment:
    """A key that is the text of an environment variable, looked up where it is needed.

    Args:
        name: The variable. Its text in UTF-8 is the key: 32 bytes or more, such as
            ``openssl rand -hex 32`` prints.

    Examples:
        >>> KeyFromEnvironment("ARCHIVE_KEY")
        KeyFromEnvironment('ARCHIVE_KEY')
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        self.name = name

    def __call__(self) -> bytes:
        """Return the key.

        Raises:
            LookupError: There is no such variable.
        """
        try:
            return os.environ[self.name].encode()
        except KeyError:
            raise LookupError(
                f"the environment variable {self.name!r}, which is to hold a key, is not set"
            ) from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyFromEnvironment) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


ProtectionKey: TypeAlias = bytes | Callable[[], bytes]
"""A key, or what returns one when it is called; the latter travels with pickled handles."""


class Protection(ABC):
    """What is done to stored bytes on their way out and in; a parameter of dictionaries.

    Args:
        keys: A key, or several: the first protects what is written, all are tried for what
            is read. Each is at least 32 random bytes, or a function without arguments that
            returns them, such as `KeyFromEnvironment`. Functions are called when a key is
            first needed. Keys are in no repr, message, JSON or pickle.
        place: What the names of the items begin with under this protection, ending with ``/``,
            so that no place ends in the middle of a key. Items of different places cannot be
            passed off as each other, though their keys are equal, unless one place begins with
            the other: ``a/b/`` is to ``a/`` what a sub-dictionary is.

    Raises:
        TypeError: A key is neither bytes nor a function, or `place` no str.
        ValueError: There is no key, one is too short, or `place` does not end with ``/``.
    """

    def __init__(self, keys: ProtectionKey | Sequence[ProtectionKey], *, place: str = "") -> None:
        self._keys: tuple[ProtectionKey, ...] = ()
        self._place = ""
        self._secrets: list[tuple[bytes, bytes]] = []
        several: tuple[Any, ...] = (keys,)
        if isinstance(keys, Sequence) and not isinstance(keys, (str, bytes, bytearray)):
            several = tuple(keys)
        problem = _problem_with(several)
        if problem is None:
            self._keys = several
        del keys, several  # whatever fails from here on shows no key in its frames
        if problem is not None:
            raise problem
        if not isinstance(place, str):
            raise TypeError(f"place must be a str, not {type(place).__name__}")
        if place and not place.endswith("/"):
            # else "-b" in place "a" would have the name that "b" has in place "a-"
            raise ValueError(f"place must end with '/', as in {place + '/'!r:.80}")
        self._place = place
        self._require_library()

    @property
    def place(self) -> str:
        """What the names of the items begin with."""
        return self._place

    def within(self: SelfType, prefix: Sequence[str]) -> SelfType:
        """Return the same protection for the items below a prefix of keys."""
        inner = object.__new__(type(self))
        inner.__dict__.update(self.__dict__)
        inner._place = "".join((self._place, *(f"{part}/" for part in prefix)))
        return inner

    def protect(self, data: Buffer, key: Sequence[str], serialization_format: str) -> bytes:
        """Return the bytes to be stored for those of an item.

        Args:
            data: What a codec made.
            key: The strings of the item's key.
            serialization_format: The format of the dictionary.
        """
        return self._seal(data, self._about(key, serialization_format), self._unlocked()[0])

    def check(self, data: Buffer, key: Sequence[str], serialization_format: str) -> Buffer:
        """Return what `protect` was given, for the same key and format.

        Raises:
            NotProtected: These bytes were not made for this item with one of the keys.
        """
        view = memoryview(data).cast("B")
        if bytes(view[: len(self._magic)]) != self._magic or len(view) < self._overhead:
            raise NotProtected(f"it was not stored under {type(self).__name__}")
        key_id = bytes(view[len(self._magic) :][:_ID_SIZE])
        body = view[len(self._magic) + _ID_SIZE :]
        about = self._about(key, serialization_format)
        for secret in self._unlocked():
            if _is_same(secret[0], key_id):
                return self._open(body, about, secret)
        raise NotProtected("it was stored under a key that is none of those given")

    # ------------------------------------------------------------------ what a kind supplies

    def _require_library(self) -> None:  # noqa: B027 (a kind may need none)
        """Raise MissingExtraError if what the kind needs is not installed."""

    _magic: bytes
    """How protected bytes begin."""

    _overhead: int
    """How many bytes are added."""

    @abstractmethod
    def _seal(self, data: Buffer, about: bytes, secret: tuple[bytes, bytes]) -> bytes:
        """Return magic, the key's id, and what protects the data."""

    @abstractmethod
    def _open(self, body: memoryview, about: bytes, secret: tuple[bytes, bytes]) -> Buffer:
        """Return the data from behind magic and id, or raise NotProtected."""

    def _about(self, key: Sequence[str], serialization_format: str) -> bytes:
        """Return what the bytes belong to, in a form that says it in one way only."""
        name = f"{self._place}{'/'.join(key)}".encode()
        extension = serialization_format.encode()
        return _LENGTHS.pack(len(name), len(extension)) + name + extension

    def _unlocked(self) -> list[tuple[bytes, bytes]]:
        """Return the id of each key and what is derived from it for this kind."""
        if not self._secrets:
            keys = [key if isinstance(key, bytes) else key() for key in self._keys]
            problem = next(filter(None, map(_problem_with_key, keys)), None)
            if problem is not None:
                del keys  # which would show in the frames of the error
                raise problem
            self._secrets = [
                (_derived(key, self._magic + b"id")[:_ID_SIZE], _derived(key, self._magic + b"key"))
                for key in keys
            ]
        return self._secrets

    # ------------------------------------------------------------------ as a parameter

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Protection):
            return NotImplemented
        return (type(self), self._keys, self._place) == (type(other), other._keys, other._place)

    def __hash__(self) -> int:
        return hash((type(self), self._place))

    def __repr__(self) -> str:
        shown = ["<secret>" if isinstance(key, bytes) else _name_of(key) for key in self._keys]
        keys = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
        return f"{type(self).__name__}({keys}{f', place={self._place!r}' if self._place else ''})"

    def __copy__(self: SelfType) -> SelfType:
        return self

    def __deepcopy__(self: SelfType, memo: dict[int, Any]) -> SelfType:
        return self

    def _refuse_to_travel(self) -> None:
        if any(isinstance(key, bytes) for key in self._keys):
            raise TypeError(
                f"a {type(self).__name__} that was given its key as bytes cannot be pickled: the"
                " key would lie in the pickle; give KeyFromEnvironment('NAME') or a function"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        self._refuse_to_travel()
        return _rebuild, (type(self), self._keys, self._place)

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_to_travel()
        return {"_keys": self._keys, "_place": self._place, "_secrets": []}


class Signed(Protection):
    """HMAC-SHA-256 of the stored bytes, the format and the name of the item.

    Checked before anything is decoded: what others put into the place is never unpickled.
    Anybody can read the items. Costs: about 1 s for each 1 to 2 GB.

    Examples:
        >>> import secrets
        >>> from persidict import LocalDict
        >>> d = LocalDict(protection=Signed(secrets.token_bytes(32)))
        >>> d["a"] = 1
        >>> d["a"]
        1
    """

    _magic = b"\x93pdS1"
    _overhead = len(_magic) + _ID_SIZE + _DIGEST_SIZE

    def _seal(self, data: Buffer, about: bytes, secret: tuple[bytes, bytes]) -> bytes:
        return b"".join((self._magic, secret[0], _digest(secret[1], about, data), data))

    def _open(self, body: memoryview, about: bytes, secret: tuple[bytes, bytes]) -> Buffer:
        data = body[_DIGEST_SIZE:]
        if not _is_same(_digest(secret[1], about, data), bytes(body[:_DIGEST_SIZE])):
            raise NotProtected("it was altered, or it is another item's")
        return data


class Encrypted(Protection):
    """AES-256-GCM of the stored bytes, bound to the format and the name of the item.

    Nobody without a key can read the items or, unseen, change them; keys of items and sizes
    can be seen. A value can have up to 2 GB. Each is encrypted with a key of its own, derived
    from yours and 16 random bytes, so that any number of items can be written with one key.

    Raises:
        MissingExtraError: The library cryptography is not installed.

    Examples:
        >>> import secrets
        >>> from persidict import LocalDict
        >>> d = LocalDict(protection=Encrypted(secrets.token_bytes(32)))
        >>> d["a"] = "nobody's business"
        >>> d["a"]
        "nobody's business"
        >>> b"business" in d.raw["a"]
        False
    """

    _magic = b"\x93pdE1"
    _overhead = len(_magic) + _ID_SIZE + _SALT_SIZE + _NONCE_SIZE + _TAG_SIZE

    def _require_library(self) -> None:
        _aes_gcm()

    def _seal(self, data: Buffer, about: bytes, secret: tuple[bytes, bytes]) -> bytes:
        salt, nonce = os.urandom(_SALT_SIZE), os.urandom(_NONCE_SIZE)
        encrypted = _aes_gcm()(_derived(secret[1], salt)).encrypt(nonce, bytes(data), about)
        return b"".join((self._magic, secret[0], salt, nonce, encrypted))

    def _open(self, body: memoryview, about: bytes, secret: tuple[bytes, bytes]) -> Buffer:
        from cryptography.exceptions import InvalidTag

        salt, nonce = bytes(body[:_SALT_SIZE]), bytes(body[_SALT_SIZE:][:_NONCE_SIZE])
        cipher = _aes_gcm()(_derived(secret[1], salt))
        try:
            data: bytes = cipher.decrypt(nonce, body[_SALT_SIZE + _NONCE_SIZE :], about)
        except InvalidTag:
            raise NotProtected("it was altered, or it is another item's") from None
        return data


def _aes_gcm() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtraError(
            "Encrypted needs cryptography, which is not installed:"
            " pip install 'persidict[encryption]'",
            name="cryptography",
        ) from error
    return AESGCM


def _problem_with(keys: Sequence[Any]) -> Exception | None:
    """Return what is wrong with keys as they are given; raised elsewhere, it shows none."""
    if not keys:
        return ValueError("keys must not be empty")
    for key in keys:
        if isinstance(key, bytes):
            problem = _problem_with_key(key)
            if problem is not None:
                return problem
        elif not callable(key):
            return TypeError(
                "keys must be bytes, functions that return bytes, or a list of these,"
                f" not {type(key).__name__}"
            )
    return None


def _problem_with_key(key: Any) -> Exception | None:
    if not isinstance(key, bytes):
        return TypeError(f"keys must be bytes, or several of them, not {type(key).__name__}")
    if len(key) < _SHORTEST_KEY:
        return ValueError(f"each of keys must have at least {_SHORTEST_KEY} bytes, not {len(key)}")
    return None


def _derived(key: bytes, purpose: bytes) -> bytes:
    from hmac import digest  # which loads OpenSSL

    return digest(key, purpose, "sha256")


def _digest(key: bytes, about: bytes, data: Buffer) -> bytes:
    from hmac import new

    digest = new(key, about, "sha256")
    digest.update(data)
    return digest.digest()


def _name_of(function: Callable[[], bytes]) -> str:
    return (
        repr(function)
        if isinstance(function, KeyFromEnvironment)
        else (getattr(function, "__qualname__", type(function).__name__))
    )


def _rebuild(cls: type[SelfType], keys: tuple[ProtectionKey, ...], place: str) -> SelfType:
    return cls(keys, place=place)


def _is_same(one: bytes, other: bytes) -> bool:
    """Compare secrets in a time that does not depend on them."""
    from hmac import compare_digest

    return compare_digest(one, other)
