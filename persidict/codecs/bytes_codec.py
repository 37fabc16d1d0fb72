"""No format: bytes as they are."""

from __future__ import annotations

from typing import Any

from persidict.codecs.codec import Buffer, Codec


class BytesCodec(Codec):
    """Values that are the stored bytes themselves."""

    def encode(self, value: Any) -> Buffer:
        """Return the bytes."""
        stored: Buffer = value
        return stored

    def decode(self, data: Buffer) -> bytes:
        """Return the bytes, in a form that nobody can change."""
        return bytes(data)
