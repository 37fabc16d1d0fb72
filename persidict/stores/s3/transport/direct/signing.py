"""Signature Version 4 for S3, as the AWS General Reference has it, without botocore's cost."""

from __future__ import annotations

import hashlib
import hmac
import time
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_BLOCK_SIZE: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_sha256: Final = hashlib.sha256


class FrozenCredentials(Protocol):
    """Credentials that belong together, at one moment."""

    @property
    def access_key(self) -> str: ...

    @property
    def secret_key(self) -> str: ...

    @property
    def token(self) -> str | None: ...


class Credentials(Protocol):
    """botocore's credentials, which refresh themselves, once for all threads that ask."""

    def get_frozen_credentials(self) -> FrozenCredentials: ...


class Scope(NamedTuple):
    """What a signature is valid for, beside the day.

    Attributes:
        region: The region's name.
        service: ``s3``, or what else speaks its protocol (``s3-outposts``).
    """

    region: str
    service: str


class Signer:
    """Signs requests with the credentials of the moment.

    The key of the day is derived once for each pair of secret and day. Safe to share among
    threads.

    Args:
        credentials: Where each request's credentials come from.
        scope: What the signatures are valid for.

    Examples:
        >>> from botocore.credentials import Credentials
        >>> signer = Signer(Credentials("access", "secret"), Scope("eu-west-1", "s3"))
        >>> headers = signer.sign("GET", "/bucket/key", "", {"host": "s3.amazonaws.com"})
        >>> sorted(headers)
        ['authorization', 'host', 'x-amz-content-sha256', 'x-amz-date']
    """

    def __init__(self, credentials: Credentials, scope: Scope) -> None:
        self._credentials = credentials
        self._scope = scope

    def sign(
        self,
        method: str,
        path: str,
        query: str,
        headers: dict[str, str],
        payload_sha256: str = EMPTY_SHA256,
    ) -> dict[str, str]:
        """Add what proves who sends a request; costs no request, but for a refresh.

        Args:
            method: The HTTP method.
            path: The path as it is sent, percent-encoded.
            query: The query as it is sent, sorted by name and percent-encoded.
            headers: All that are to be signed, ``host`` among them, with lower-case names.
            payload_sha256: The digest of the body, in hexadecimal digits.

        Returns:
            The same dictionary, with the headers of the signature.

        Raises:
            botocore.exceptions.BotoCoreError: There are no credentials, or they cannot be
                refreshed.
        """
        credentials = self._credentials.get_frozen_credentials()
        stamp = _stamp(int(time.time()))
        headers["x-amz-content-sha256"] = payload_sha256
        headers["x-amz-date"] = stamp
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        names = sorted(headers)
        signed_names = ";".join(names)
        lines = "".join([f"{name}:{headers[name]}\n" for name in names])
        if " " in lines or "\t" in lines:
            lines = "".join([f"{name}:{_trimmed(headers[name])}\n" for name in names])
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{signed_names}\n{payload_sha256}"
        digest = _sha256(canonical.encode("latin-1")).hexdigest()
        day = _day(credentials.secret_key, stamp[:8], *self._scope)
        text = f"{_ALGORITHM}\n{stamp}\n{day.scope}\n{digest}"
        headers["authorization"] = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{day.scope},"
            f" SignedHeaders={signed_names}, Signature={day.signature(text.encode())}"
        )
        return headers


def _trimmed(value: str) -> str:
    """Return a header's value as it is signed: spaces around it and between words count once."""
    return " ".join(value.split())


@lru_cache(maxsize=4)
def _stamp(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


class _Day:
    """The key of a day, and what it is valid for.

    HMAC by its definition (RFC 2104), with the beginnings that only depend on the key computed
    once: `hmac.digest` takes three times as long for a text as short as this.

    Args:
        key: The key.
        scope: What it is valid for, as it is signed.
    """

    __slots__ = ("_inner", "_outer", "scope")

    def __init__(self, key: bytes, scope: str) -> None:
        padded = key.ljust(_BLOCK_SIZE, b"\0")
        self.scope = scope
        self._inner = _sha256(padded.translate(_INNER))
        self._outer = _sha256(padded.translate(_OUTER))

    def signature(self, text: bytes) -> str:
        """Sign a text."""
        inner = self._inner.copy()
        inner.update(text)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


@lru_cache(maxsize=32)
def _day(secret: str, day: str, region: str, service: str) -> _Day:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return _Day(key, f"{day}/{region}/{service}/aws4_request")
