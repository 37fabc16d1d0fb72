"""Credentials that show only when they are asked for by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_MASK: Final = "***"
_USERINFO: Final = re.compile(
    r"(?:(?<=//)|^(?!(?:[A-Za-z][\w+.-]*:)?//))(?:[^/?#]*@|[^/?#]*:(?!\d*[/?#])[^/?#]*[/?#].*@)",
    re.DOTALL,
)
"""User and password, which end with the last ``@`` before path and query.

A colon without a port behind it says that they do not end there: passwords are pasted with ``/``
and ``#`` in them, too.
"""

_UP_TO_LAST_AT: Final = re.compile(r"(?:(?<=//)|^(?!.*//)).*@", re.DOTALL)
"""All that may be user and password, where a port, or nothing, seems to end them too soon."""

_MAY_HOLD_SECRETS: Final = (bytes, bytearray, list, tuple, set, dict)


class Secret:
    """A string that shows only when it is asked for by name.

    It is masked in ``repr`` and ``str`` and empty in JSON; pickling keeps it, so that a
    handle works in another process.

    Examples:
        >>> Secret("hush"), Secret("hush").reveal()
        (***, 'hush')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the string itself."""
        return self._text

    def __repr__(self) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self._text,)

    def __getstate__(self) -> dict[str, str]:
        """Tell the encoders of JSON, which ask for the state instead of pickling, nothing."""
        return {}

    def __setstate__(self, state: Mapping[str, str]) -> None:
        """Be an empty secret after a round trip through JSON, which is as good as none."""
        self._text = ""


class SecretObject:
    """An object that holds credentials; masked, pickled and left out of JSON like a Secret."""

    __slots__ = ("_held",)

    def __init__(self, held: Any) -> None:
        self._held = held

    def reveal(self) -> Any:
        """Return the object itself."""
        return self._held

    def __repr__(self) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretObject) and bool(self._held == other._held)

    def __hash__(self) -> int:
        return hash(type(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return SecretObject, (self._held,)

    def __getstate__(self) -> dict[str, Any]:
        """See Secret."""
        return {}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """See Secret."""
        self._held = None


class SecretURL(Secret):
    """A URL with a user or a password in it, of which only those do not show.

    JSON keeps all the rest of it.

    Examples:
        >>> SecretURL("http://me:hush@proxy:3128")
        'http://***@proxy:3128'
    """

    __slots__ = ()

    @property
    def is_ambiguous(self) -> bool:
        """Whether user and password have characters in them that only stand behind the host."""
        userinfo = _USERINFO.search(self._text) or _UP_TO_LAST_AT.search(self._text)
        return userinfo is not None and not {"/", "?", "#"}.isdisjoint(userinfo[0])

    def __repr__(self) -> str:
        return repr(shown(self._text))

    def __reduce__(self) -> tuple[Any, ...]:
        return SecretURL, (self._text,)

    def __getstate__(self) -> dict[str, str]:
        """Tell the encoders of JSON what is no secret."""
        return {"url": _without_userinfo(self._text, "")}

    def __setstate__(self, state: Mapping[str, str]) -> None:
        """Be the URL without user and password after a round trip through JSON."""
        self._text = state["url"]


def shown(url: str) -> str:
    """Return a URL for people, with neither user nor password, nor what may be one."""
    return _without_userinfo(url, f"{_MASK}@")


def _without_userinfo(url: str, instead: str) -> str:
    return (_USERINFO if has_userinfo(url) else _UP_TO_LAST_AT).sub(instead, url)


def has_userinfo(url: str) -> bool:
    """Tell whether a URL, which may have an ``@`` in its path, has a user or a password."""
    return _USERINFO.search(url) is not None


def masked_url(url: Any) -> Any:
    """Return a server's URL with a user or a password in masked form; anything else as it is.

    Such a URL has no other ``@``: what stands before one may be a password.
    """
    return SecretURL(url) if isinstance(url, str) and "@" in url else url


def masked_proxies(proxies: Any) -> dict[Any, Any] | SecretObject:
    """Return proxies with users and passwords masked; what is no mapping of URLs, as a whole."""
    if not isinstance(proxies, Mapping):
        return proxies if isinstance(proxies, SecretObject) else SecretObject(proxies)
    return {
        name: masked_url(url)
        if url is None or isinstance(url, (str, Secret, SecretObject))
        else SecretObject(url)
        for name, url in proxies.items()
    }


def revealed(secret: Any) -> Any:
    """Return what is masked, or what is not, as it is."""
    return secret.reveal() if isinstance(secret, (Secret, SecretObject)) else secret


def mask(params: dict[str, Any], *names: str) -> None:
    """Mask parameters in place, lest they show in the frames of what fails because of them."""
    for name in names:
        given = params.get(name)
        if isinstance(given, str):
            params[name] = Secret(given)
        elif isinstance(given, _MAY_HOLD_SECRETS):
            params[name] = SecretObject(given)


def as_secret(name: str, given: Any) -> Secret | None:
    """Return a credential in its masked form, None for one that is missing or empty.

    Raises:
        TypeError: It is neither a string nor a Secret.
    """
    if given is None:
        return None
    if not isinstance(given, (str, Secret)):
        kind = type(given.reveal() if isinstance(given, SecretObject) else given)
        raise TypeError(f"{name} must be a str, not {kind.__name__}")
    secret = Secret(given) if isinstance(given, str) else given
    return secret if secret.reveal() else None
