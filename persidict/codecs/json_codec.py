"""The format ``json``: jsonpickle's text."""

from __future__ import annotations

from typing import Any

from persidict.codecs.codec import Buffer, Codec


class JsonCodec(Codec):
    """What jsonpickle makes of a value: JSON text in UTF-8, indented by 4.

    Lambdas, bound methods, open files, and objects whose class cannot be imported
    are refused, and so is JSON that names what cannot be imported: jsonpickle would quietly
    put None or a dict in their place. How much of an object of other libraries comes back is
    up to jsonpickle's handler of its class. numpy and pandas are imported only to read
    objects of theirs. As with a pickle, read only data that you trust.
    """

    content_type = "application/json"

    def encode(self, value: Any) -> bytes:
        """Turn a value into JSON.

        Raises:
            TypeError: The value, or a part of it, is something that jsonpickle cannot hold.
        """
        from persidict.codecs._jsonpickle import dumps

        return dumps(value).encode("ascii")

    def decode(self, data: Buffer) -> Any:
        """Turn JSON into a value.

        Raises:
            ValueError: The bytes are not UTF-8, the text is not JSON, or an object in it
                cannot be built.
            ImportError: It names a class, function or module that cannot be imported.
        """
        from persidict.codecs._jsonpickle import loads

        return loads(str(data, "utf-8"))
