"""Checksums that a server announces (``x-amz-checksum-*``) are compared with what came."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from persidict.buffers import Buffer

_LOG: Final = logging.getLogger("persidict")
_PREFIX: Final = "x-amz-checksum-"
_CRC32C: Final = _PREFIX + "crc32c"
_CRC64NVME: Final = _PREFIX + "crc64nvme"
_OF_AWSCRT: Final = (_CRC32C, _CRC64NVME)


class DamagedBody(ValueError):
    """The bytes that came are not those that the server announced."""


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A cyclic redundancy check, in the form of a digest.

    Args:
        function: Computes it from some bytes and the value of those before.
        size: How many bytes it has.
    """

    def __init__(self, function: Callable[[Any, int], int], size: int) -> None:
        self._function = function
        self._size = size
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class Checksum:
    """The checksum of bytes that are still arriving.

    Args:
        name: The algorithm's name.
        digest: Computes it.
        announced: What it must be, in base64.
    """

    def __init__(self, name: str, digest: _Digest, announced: str) -> None:
        self._name = name
        self._digest = digest
        self._announced = announced

    def update(self, data: bytes | memoryview) -> None:
        """Take more bytes."""
        self._digest.update(data)

    def compare(self) -> None:
        """Compare it, after the last byte.

        Raises:
            DamagedBody: It is another one.
        """
        actual = b64encode(self._digest.digest()).decode()
        if actual != self._announced:
            raise DamagedBody(
                f"Expected checksum {self._announced} did not match calculated checksum:"
                f" {actual} ({self._name})"
            )


def announced_checksum(headers: Mapping[str, str]) -> Checksum | None:
    """Return the checksum that a reply announces for its body, None if there is none to check.

    One that is made of those of parts (with ``-`` and their number) is not of these bytes,
    and CRC32C and CRC64NVME are known only where ``awscrt`` is installed, as for botocore:
    where nothing can be compared because of that, the log says so, once in a process.
    """
    algorithms = _algorithms()
    for header, make in algorithms.items():
        announced = headers.get(header)
        if announced is not None and "-" not in announced:
            return Checksum(header.removeprefix(_PREFIX), make(), announced)
    for header in _OF_AWSCRT:
        if header in headers and header not in algorithms:
            _tell_of_unknown(header.removeprefix(_PREFIX))
    return None


@lru_cache
def _tell_of_unknown(name: str) -> None:
    _LOG.info(
        "the checksum %s that S3 announces for what is read is not compared: install"
        " persidict[crt], which brings awscrt",
        name,
    )


def crc32(data: Buffer) -> str:
    """Return the CRC32 of some bytes as S3 wants it, in base64."""
    return b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


@lru_cache(maxsize=1)
def _algorithms() -> dict[str, Callable[[], _Digest]]:
    """Return what can be computed, by the header that announces it; the quickest first."""
    found: dict[str, Callable[[], _Digest]] = {_PREFIX + "crc32": lambda: _Crc(zlib.crc32, 4)}
    if importlib.util.find_spec("awscrt"):
        checksums: Any = importlib.import_module("awscrt.checksums")
        found[_CRC32C] = lambda: _Crc(lambda data, value: checksums.crc32c(bytes(data), value), 4)
        if hasattr(checksums, "crc64nvme"):
            found[_CRC64NVME] = lambda: _Crc(
                lambda data, value: checksums.crc64nvme(bytes(data), value), 8
            )
    return {**found, _PREFIX + "sha1": _sha1, _PREFIX + "sha256": hashlib.sha256}


def _sha1() -> _Digest:
    return hashlib.sha1(usedforsecurity=False)
