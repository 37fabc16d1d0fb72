"""What the parts of the conformance suite share: fixtures, and how outcomes are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import pytest

from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.stores.object_store import Read, Unread
from persidict.testing.model import DictModel, Key
from persidict.testing.samples import sample_values

AnyDict: TypeAlias = PersiDict[Any]

NewDict: TypeAlias = Callable[..., AnyDict]
"""Makes a fresh, empty dictionary in a new place; takes constructor parameters."""


def as_tuple(key: NonEmptySafeStrTuple) -> Key:
    """Return a key that came out of a dictionary as the plain tuple of its strings."""
    assert type(key) is NonEmptySafeStrTuple
    return key.strings


def content_of(d: AnyDict) -> dict[Key, Any]:
    """Return the content of a dictionary as a plain dict."""
    return {as_tuple(key): value for key, value in d.items()}


def read_of(found: Iterable[Read | Unread]) -> Iterator[Read]:
    """Yield what a store's `get_many` read; raise what kept it from reading an object."""
    for name, data, info in found:
        if isinstance(data, Exception):
            raise data
        assert info is not None
        yield name, data, info


def model_of(d: AnyDict) -> DictModel:
    """Return an empty model that learns ETags from an empty dictionary."""
    return DictModel(d.etag, append_only=d.append_only)


class ConformanceBase:
    """The fixtures of the suite. A subclass adds `new_dict`, and overrides what differs."""

    @pytest.fixture
    def new_dict(self) -> NewDict:
        """Return a maker of fresh, empty dictionaries; each call makes one in a new place."""
        raise NotImplementedError("override the fixture new_dict")

    @pytest.fixture
    def etags_never_repeat(self) -> bool:
        """Tell whether writing equal values again gives a new ETag (S3's may be the same)."""
        return True

    @pytest.fixture
    def handles_travel(self) -> bool:
        """Tell whether a handle can be pickled; otherwise it must refuse with a TypeError."""
        return True

    @pytest.fixture
    def d(self, new_dict: NewDict) -> AnyDict:
        """Return a fresh, empty dictionary."""
        return new_dict()

    @pytest.fixture
    def append_only_d(self, new_dict: NewDict) -> AnyDict:
        """Return a fresh, empty dictionary that is append-only."""
        return new_dict(append_only=True)

    @pytest.fixture
    def values(self, d: AnyDict) -> tuple[Any, ...]:
        """Return distinct values that the dictionary can hold, at least four."""
        return sample_values(d.serialization_format)

    def another_handle(self, d: AnyDict, **params: Any) -> AnyDict:
        """Return a second handle on the same items, with some parameters changed."""
        return type(d)(**{**d.get_params(), **params})
