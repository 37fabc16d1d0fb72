"""Codecs: how a value becomes bytes, and bytes a value again."""

from __future__ import annotations

from persidict.codecs.bytes_codec import BytesCodec
from persidict.codecs.codec import Buffer, Codec, MissingExtraError
from persidict.codecs.json_codec import JsonCodec
from persidict.codecs.pickle_codec import PickleCodec
from persidict.codecs.registry import codec_for, is_registered, register_codec

__all__ = [
    "Buffer",
    "BytesCodec",
    "Codec",
    "JsonCodec",
    "MissingExtraError",
    "PickleCodec",
    "codec_for",
    "is_registered",
    "register_codec",
]
