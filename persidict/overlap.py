"""Telling whether two dictionaries have their items in one place."""

from __future__ import annotations

from typing import Any, Final

from persidict.empty_dict import EmptyDict
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.stored_dict import StoredDict
from persidict.stores.object_store import ObjectStore
from persidict.stores.optional import layers
from persidict.stores.site import HasSite, Site
from persidict.wrapper_dict import WrapperDict

_ANY_KEY: Final = NonEmptySafeStrTuple("any")


def overlap(one: PersiDict[Any], other: PersiDict[Any]) -> bool:
    """Tell whether what is written into one dictionary may be an item of the other.

    They are in one place where their bytes are, whatever their classes and parameters are, and
    whichever links lead there. Formats that lie side by side are apart.
    """
    one, other = _bottom(one), _bottom(other)
    if isinstance(one, EmptyDict) or isinstance(other, EmptyDict):
        return False  # what keeps nothing is nowhere
    if one is other:
        return True
    if not (isinstance(one, StoredDict) and isinstance(other, StoredDict)):
        return type(one) is type(other) and one.get_params() == other.get_params()
    here, there = _site_of(one._store), _site_of(other._store)
    if here is None or there is None:
        return one._store == other._store and _have_one_extension(one, other)
    return _shows(one, here.way_to(there), other) or _shows(other, there.way_to(here), one)


def _bottom(dictionary: PersiDict[Any]) -> PersiDict[Any]:
    while isinstance(dictionary, WrapperDict):
        dictionary = dictionary._wrapped
    return dictionary


def _site_of(store: ObjectStore) -> Site | None:
    *_, innermost = layers(store)
    return innermost.site if isinstance(innermost, HasSite) else None


def _shows(outer: StoredDict[Any], way: str | None, inner: StoredDict[Any]) -> bool:
    """Tell whether items of one dictionary, some way below another one's place, are its own."""
    if way is None:
        return False
    if way == "":
        return _have_one_extension(outer, inner)
    return outer._naming.key_of(way + inner._naming.name_of(_ANY_KEY)) is not None


def _have_one_extension(one: StoredDict[Any], other: StoredDict[Any]) -> bool:
    return one.serialization_format == other.serialization_format
