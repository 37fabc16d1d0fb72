"""Other libraries, none of which has to be there."""

from __future__ import annotations

import importlib
from typing import Any


class PeerUnavailable(Exception):
    """A peer cannot be measured; the message says why, and begins with "because"."""


def load(module: str) -> Any:
    """Import a module of a peer.

    Raises:
        PeerUnavailable: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PeerUnavailable(f"because {module.partition('.')[0]} is not installed") from error
