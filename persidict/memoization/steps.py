"""Procedures that leave it to whoever drives them to wait for a storage, or to await it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias


class Call(NamedTuple):
    """Do something with a dictionary."""

    function: Callable[[], Any]


class Compute(NamedTuple):
    """Call the function."""


class Pause(NamedTuple):
    """Wait for some seconds."""

    seconds: float


Steps: TypeAlias = Generator[Call | Compute | Pause, Any, Any]
"""A procedure that has its steps done by whoever drives it, waiting or awaiting."""
