"""The format ``json``: jsonpickle's text."""

from __future__ import annotations

from typing import Any

from persidict.codecs.codec import Buffer, Codec


class JsonCodec(Codec):
    """What jsonpickle makes of a value: JSON text in UTF-8, indented by 4.

    What jsonpickle's own form would change is written as a call that makes an equal object.
    Objects that cannot come back (tracebacks, locks, connections, those whose class cannot be
    imported) are read as a dict of what is left of them, and a `LossyValueWarning` names their
    classes when they are written; they are refused where they are all that there is. Lambdas,
    methods, open files and iterators that reading would use up are refused, and so is JSON
    that names what cannot be imported any more. numpy and pandas are imported only to read
    objects of theirs. As with a pickle, read only data that you trust.
    """

    content_type = "application/json"

    def encode(self, value: Any) -> bytes:
        """Turn a value into JSON.

        Raises:
            TypeError: The value, or a part of it, is something that jsonpickle cannot hold, or
                nothing of the value would come back.

        Warns:
            LossyValueWarning: Some of it will not come back as it is.
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
