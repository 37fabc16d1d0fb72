"""Showing dictionaries to people: bounded, whatever they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias

from persidict.contract.extent import PAGE, SHOWN
from persidict.contract.primitives import DictPrimitives, KeyRange
from persidict.exceptions import ObjectNotFound, UnreadableItemsError
from persidict.safe_str_tuple import NonEmptySafeStrTuple

LARGEST_READ: Final = 1_000_000
"""Of how many stored bytes a value is still read in order to be shown."""

_LONGEST: Final = 1000
"""How many characters of one value are shown."""

_Listed: TypeAlias = tuple[NonEmptySafeStrTuple, int | None]
"""A key, and the size of its item if the listing told it."""


def first_keys(d: DictPrimitives) -> list[NonEmptySafeStrTuple]:
    """Return some keys, at most what one request lists."""
    return list(islice(d._keys(page_size=PAGE), PAGE))


def _first(d: DictPrimitives, most: int, key_range: KeyRange | None = None) -> list[_Listed]:
    if d._traits.listing_brings_versions:
        return [(key, version.size) for key, version in islice(d._versions(key_range), most)]
    keys = d._keys(page_size=PAGE) if key_range is None else d._keys_in(key_range)
    return [(key, None) for key in islice(keys, most)]


def shown_values(
    d: DictPrimitives, listed: Iterable[_Listed]
) -> Iterator[tuple[NonEmptySafeStrTuple, str]]:
    """Read items and show their values, each cut after 1000 characters.

    Of a large one, the size is shown instead; and of one that cannot be read, that it cannot.
    """
    sizes = {key: _size(d, key) if size is None else size for key, size in listed}
    texts = {
        key: f"<{size:,} bytes>"
        for key, size in sizes.items()
        if size is not None and size > LARGEST_READ
    }
    unread = ""  # vanished meanwhile
    try:
        for key, value in d._load_many([key for key in sizes if key not in texts]):
            texts[key] = _cut(repr(value))
    except UnreadableItemsError:
        unread = "<unreadable>"
    for key in sizes:
        if text := texts.get(key, unread):
            yield key, text


def _size(d: DictPrimitives, key: NonEmptySafeStrTuple) -> int | None:
    """Return the size of an item; None: it is not known, or not without another request."""
    if not d._traits.reads_are_cheap:
        return None
    try:
        return d._head(key).size
    except ObjectNotFound:
        return None


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def content_text(d: DictPrimitives) -> str:
    """Show a dictionary as a dict: the first items, and how many more there are.

    Costs a listing of at most 1000 keys, and reading 20 values of at most 1 MB.
    """
    listed = _first(d, PAGE)
    shown = [f"{key.strings!r}: {text}" for key, text in shown_values(d, listed[:SHOWN])]
    return f"{{{', '.join([*shown, *_rest(len(listed) - SHOWN, is_all=len(listed) < PAGE)])}}}"


def entries_text(
    name: str,
    d: DictPrimitives,
    show: Callable[[NonEmptySafeStrTuple, str], str],
    key_range: KeyRange | None = None,
    brackets: str = "[]",
) -> str:
    """Show a view of a dictionary: the first entries, and that there are more.

    Args:
        name: What it is called.
        d: The dictionary.
        show: Makes the text of an entry of a key and the text of its value.
        key_range: Which keys; None: all.
        brackets: What stands around the entries.
    """
    listed = _first(d, SHOWN + 1, key_range)
    shown = [show(key, text) for key, text in shown_values(d, listed[:SHOWN])]
    return _in_brackets(name, shown, has_more=len(listed) > SHOWN, brackets=brackets)


def keys_text(name: str, keys: Iterable[NonEmptySafeStrTuple]) -> str:
    """Show a view of keys: the first ones, and that there are more."""
    first = list(islice(keys, SHOWN + 1))
    return _in_brackets(name, list(map(repr, first[:SHOWN])), has_more=len(first) > SHOWN)


def _in_brackets(name: str, shown: list[str], *, has_more: bool, brackets: str = "[]") -> str:
    entries = ", ".join([*shown, *(["..."] if has_more else [])])
    return f"{name}({brackets[0]}{entries}{brackets[1]})"


def key_completions(d: DictPrimitives) -> list[Any]:
    """Return what may stand between the brackets of ``d[...]``, for tab completion."""
    return [key.strings[0] if len(key.strings) == 1 else key.strings for key in first_keys(d)]


def _rest(count: int, *, is_all: bool) -> list[str]:
    if count <= 0:
        return []
    return [f"... and {count} more" if is_all else f"... and at least {count} more"]


class ShownToPeople(DictPrimitives):
    """How a dictionary shows itself: bounded, also one of a million items."""

    def __str__(self) -> str:
        return content_text(self)

    def _repr_html_(self) -> str:
        from persidict.contract.html import html_of  # which only notebooks need

        return html_of(self)

    def _ipython_key_completions_(self) -> list[Any]:
        return key_completions(self)
