"""Which codec a serialization format has."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from persidict.codecs.bytes_codec import BytesCodec
from persidict.codecs.codec import Codec
from persidict.codecs.json_codec import JsonCodec
from persidict.codecs.pickle_codec import PickleCodec
from persidict.codecs.text_codec import TextCodec

_BUILT_IN: Final = frozenset({"pkl", "json", "npy", "parquet", "h5", "plainjson"})
_registered: dict[str, Callable[[], Codec]] = {}


def codec_for(
    serialization_format: str, *, value_class: type | None = None, compress: bool = False
) -> Codec:
    r"""Make the codec of a format.

    Args:
        serialization_format: ``"pkl"``, ``"json"``, ``"plainjson"``, ``"npy"``, ``"parquet"``,
            ``"h5"``, a registered format, or any other name for texts and bytes.
        value_class: The class of the values, if all are of one. For the formats of texts, and
            those of arrays and tables: with a subclass of str, texts of that class, with
            `bytes`, bytes as they are. For ``"plainjson"`` and ``"parquet"``: see there.
        compress: For ``"pkl"``: whether to compress values for which a sample shows that it
            pays. Whatever is chosen here, both kinds of data can be read.

    Returns:
        A codec that any number of threads can share.

    Raises:
        MissingExtraError: The format needs a library that is not installed.
        TypeError: The format cannot hold values of that class.

    Examples:
        >>> codec_for("txt").encode("à la carte")
        b'\xc3\xa0 la carte'
    """
    if serialization_format == "pkl":
        return PickleCodec(compress=compress)
    if serialization_format == "json":
        return JsonCodec()
    if serialization_format in _registered:
        return _registered[serialization_format]()
    if serialization_format == "plainjson":
        return _imported("plain_json_codec", "PlainJsonCodec")(value_class)
    if value_class is bytes:
        return BytesCodec()
    if value_class is not None and issubclass(value_class, str):
        return TextCodec(value_class)
    if serialization_format == "npy":
        return _imported("npy_codec", "NpyCodec")()
    if serialization_format == "parquet":
        return _imported("parquet_codec", "ParquetCodec")(value_class)
    if serialization_format == "h5":
        return _imported("h5_codec", "H5Codec")()
    return TextCodec()


def _imported(module: str, name: str) -> Callable[..., Codec]:
    """Load a codec that few need."""
    codec_class: Callable[..., Codec] = getattr(import_module(f"persidict.codecs.{module}"), name)
    return codec_class


def register_codec(serialization_format: str, factory: Callable[[], Codec]) -> None:
    """Add a format of your own, or replace one that was added before.

    Register it before the first dictionary with this format is made, in every process that
    reads or writes its items. A codec that is handed to a dictionary (``codec=``) needs none
    of this: it travels with the handle.

    Args:
        serialization_format: The format's name, which is also the extension of its files.
        factory: Called without arguments, returns the format's codec: a `Codec` class, for
            instance.

    Raises:
        TypeError: The name is not a str, or the factory cannot be called.
        ValueError: The name is empty, or that of a built-in format.

    Examples:
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


def checked_codec(codec: Any, serialization_format: Any) -> Codec | None:
    """Return a codec that was handed in, None if there is none.

    Raises:
        TypeError: It is no Codec.
        ValueError: `serialization_format` names the format of another one.
    """
    if codec is None:
        return None
    if not isinstance(codec, Codec):
        raise TypeError(f"codec must be a Codec or None, not {type(codec).__name__}")
    writes = {PickleCodec: "pkl", JsonCodec: "json"}
    if serialization_format in writes.values() and not any(
        isinstance(codec, cls) and serialization_format == name for cls, name in writes.items()
    ):
        raise ValueError(
            f"serialization_format must name the format of the codec {type(codec).__name__}:"
            f" {serialization_format!r} is another one"
        )
    return codec
