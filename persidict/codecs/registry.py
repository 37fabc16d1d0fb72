"""Which codec a serialization format has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from persidict.codecs.codec import Codec
from persidict.codecs.json_codec import JsonCodec
from persidict.codecs.pickle_codec import PickleCodec
from persidict.codecs.text_codec import TextCodec

_BUILT_IN: Final = frozenset({"pkl", "json"})
_registered: dict[str, Callable[[], Codec]] = {}


def codec_for(
    serialization_format: str, *, text_type: type[str] | None = None, compress: bool = False
) -> Codec:
    r"""Make the codec of a format.

    Args:
        serialization_format: ``"pkl"``, ``"json"``, a registered format, or any other name
            for plain text.
        text_type: For text: the subclass of str that values are returned as; None for str.
        compress: For ``"pkl"``: whether to compress values for which a sample shows that it
            pays. Whatever is chosen here, both kinds of data can be read.

    Returns:
        A codec that any number of threads can share.

    Example:
        >>> codec_for("txt").encode("à la carte")
        b'\xc3\xa0 la carte'
    """
    if serialization_format == "pkl":
        return PickleCodec(compress=compress)
    if serialization_format == "json":
        return JsonCodec()
    factory = _registered.get(serialization_format)
    return TextCodec(text_type or str) if factory is None else factory()


def register_codec(serialization_format: str, factory: Callable[[], Codec]) -> None:
    """Add a format of your own, or replace one that was added before.

    Register it before the first dictionary with this format is made, in every process that
    reads or writes its items.

    Args:
        serialization_format: The format's name, which is also the extension of its files.
        factory: Called without arguments, returns the format's codec: a `Codec` class, for
            instance.

    Raises:
        TypeError: The name is not a str, or the factory cannot be called.
        ValueError: The name is empty, or that of a built-in format.

    Example:
        >>> class Reversed(Codec):
        ...     def encode(self, value):
        ...         return value[::-1]
        ...     def decode(self, data):
        ...         return bytes(data)[::-1]
        >>> register_codec("rev", Reversed)
        >>> codec_for("rev").encode(b"abc")
        b'cba'
    """
    if not isinstance(serialization_format, str):
        raise TypeError(
            f"serialization_format must be a str, not {type(serialization_format).__name__}"
        )
    if not callable(factory):
        raise TypeError(f"factory must be callable, not {type(factory).__name__}")
    if not serialization_format or serialization_format in _BUILT_IN:
        raise ValueError(f"{serialization_format!r} is not a name that a new format can have")
    _registered[serialization_format] = factory


def is_registered(serialization_format: str) -> bool:
    """Tell whether a format was added by `register_codec`."""
    return serialization_format in _registered
