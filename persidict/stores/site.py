"""Where bytes lie: two ways to one place are told to be that."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import NamedTuple, Protocol, runtime_checkable


class Site(NamedTuple):
    """Where the objects of a store lie, whatever way leads there.

    Attributes:
        storage: Which storage it is, among all that there are.
        path: What stands in front of the names of the objects there.
        identity: What the place is known by, whatever its path; None: by its path alone.
    """

    storage: Hashable
    path: str
    identity: Hashable = None

    def way_to(self, other: Site) -> str | None:
        """Return what stands in front of the names of another place's objects here.

        Returns:
            The empty string for the same place; None for one that is not below this one.
        """
        if self.storage != other.storage:
            return None
        if self.identity is not None and self.identity == other.identity:
            return ""
        return other.path.removeprefix(self.path) if other.path.startswith(self.path) else None


@runtime_checkable
class HasSite(Protocol):
    """A store that can tell where its objects lie."""

    @property
    def site(self) -> Site:
        """Where the objects lie."""


def real_path(path: str) -> str:
    """Return a path without links on the way, whether or not there is anything there."""
    return os.path.normcase(os.path.realpath(path))


def identity_of(path: str) -> tuple[int, int] | None:
    """Return what a file or directory is known by to the system; None: there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
