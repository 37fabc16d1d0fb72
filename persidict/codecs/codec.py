"""The port: values to bytes and back."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import Any, BinaryIO

from persidict.buffers import Buffer as Buffer


class MissingExtraError(ImportError):
    """The data need a library that is not installed; the message names the extra to install."""


def check_installed(module: str, *, needed_by: str, extra: str) -> None:
    """Raise MissingExtraError if a library that something needs is not installed.

    Costs a look at the file system, and does not load the library.

    Args:
        module: Its name, for import.
        needed_by: What needs it, as a message begins with it.
        extra: What brings it.
    """
    if module not in sys.modules and not _is_found(module):
        raise MissingExtraError(
            f"{needed_by} needs {module}, which is not installed: pip install 'persidict[{extra}]'",
            name=module,
        )


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # there is not even the package that it would be in
        return False


class Codec(ABC):
    """Turns values into bytes and back.

    A codec knows nothing of keys and storages. It has no state that a call changes, so that
    any number of threads can share it.

    Attributes:
        content_type: The media type of the bytes.
    """

    content_type: str = "application/octet-stream"

    @abstractmethod
    def encode(self, value: Any) -> Buffer:
        """Turn a value into bytes.

        Args:
            value: The value; it is not changed and not kept.

        Returns:
            Bytes that `decode` turns into an equal value.

        Raises:
            Exception: Whatever fits, when the value cannot be held in this format.
        """

    @abstractmethod
    def decode(self, data: Buffer) -> Any:
        """Turn bytes into a value.

        Args:
            data: What `encode` returned.

        Returns:
            A new value, independent of `data`.

        Raises:
            MissingExtraError: A library that these bytes need is not installed.
            Exception: Whatever fits, when the bytes are damaged.
        """

    def decode_stream(self, stream: BinaryIO) -> Any:
        """Turn bytes into a value while they are read; else as `decode`.

        A codec that does not need all bytes at once saves a copy of them by its own version
        of this.

        Args:
            stream: Buffered and seekable, at the first of the bytes, which go on to its end;
                the caller closes it.
        """
        return self.decode(stream.read())
