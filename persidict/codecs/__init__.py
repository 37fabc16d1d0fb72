"""Codecs: how a value becomes bytes, and bytes a value again."""

from __future__ import annotations

from persidict.codecs.bytes_codec import BytesCodec
from persidict.codecs.codec import Buffer, Codec, MissingExtraError
from persidict.codecs.registry import codec_for, is_registered, register_codec

__all__ = [
    "Buffer",
    "BytesCodec",
    "Codec",
    "MissingExtraError",
    "codec_for",
    "is_registered",
    "register_codec",
]
