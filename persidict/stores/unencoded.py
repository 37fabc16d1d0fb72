"""What a store in RAM keeps of a value that cannot be written as bytes."""

from __future__ import annotations

import copy
from typing import Any, NoReturn

from persidict.exceptions import NoBytesError


class Unencoded:
    """A deep copy of a value that has no bytes, and gives out deep copies of itself.

    Args:
        value: The value.
        reason: Why it could not be encoded.

    Raises:
        Exception: Whatever copying raises.
    """

    __slots__ = ("_reason", "_value")

    def __init__(self, value: Any, reason: Exception) -> None:
        self._value = copy.deepcopy(value)
        self._reason = f"{type(reason).__name__}: {reason}"

    def __enter__(self) -> Unencoded:
        """Stand for a stream: there is nothing to close."""
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def value(self) -> Any:
        """Return a copy of the value."""
        return copy.deepcopy(self._value)

    def __len__(self) -> int:
        return 0

    def __bytes__(self) -> NoReturn:
        raise NoBytesError(
            f"this value of a LocalDict, a {type(self._value).__qualname__}, has no bytes:"
            f" it could only be copied ({self._reason})"
        )
