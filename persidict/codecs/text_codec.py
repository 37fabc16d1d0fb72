"""The text formats: UTF-8 as it is."""

from __future__ import annotations

from typing import Any

from persidict.codecs.codec import Buffer, Codec


class TextCodec(Codec):
    """Text as UTF-8, character for character: newlines and byte order marks stay.

    Args:
        text_type: The type that values are returned as: str or a subclass, which is called
            with the text.
    """

    content_type = "text/plain"

    def __init__(self, text_type: type[str] = str) -> None:
        self._text_type = text_type

    def encode(self, value: Any) -> bytes:
        """Turn text into UTF-8.

        Raises:
            TypeError: The value is not a str.
            ValueError: It has surrogates, which UTF-8 cannot hold.
        """
        if not isinstance(value, str):
            raise TypeError(f"a text format holds str values, not {type(value).__name__}")
        return str.encode(value, "utf-8")

    def decode(self, data: Buffer) -> str:
        """Turn UTF-8 into text.

        Raises:
            ValueError: The bytes are not UTF-8.
        """
        text = str(data, "utf-8")
        return text if self._text_type is str else self._text_type(text)
