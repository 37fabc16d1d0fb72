"""Showing dictionaries to people: bounded, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

from persidict.contract.primitives import DictPrimitives
from persidict.safe_str_tuple import NonEmptySafeStrTuple

SHOWN: Final = 20
"""How many items are shown."""

PAGE: Final = 1000
"""How many keys are looked at: what one request lists on S3."""


def first_keys(d: DictPrimitives) -> list[NonEmptySafeStrTuple]:
    """Return some keys, at most what one request lists."""
    return list(islice(d._keys(page_size=PAGE), PAGE))


def content_text(d: DictPrimitives) -> str:
    """Show a dictionary as a dict: the first items, and how many more there are.

    Costs a listing of at most 1000 keys, and reading 20 values.
    """
    keys = first_keys(d)
    shown = [
        f"{key.strings!r}: {value!r}" for key, value in islice(d._load_many(keys[:SHOWN]), SHOWN)
    ]
    return f"{{{', '.join([*shown, *_rest(len(keys) - SHOWN, is_all=len(keys) < PAGE)])}}}"


def view_text(name: str, entries: Iterable[Any]) -> str:
    """Show a view as a list: the first entries, and how many more there are."""
    iterator: Iterator[Any] = iter(entries)
    first = list(islice(iterator, SHOWN + 1))
    shown = [repr(entry) for entry in first[:SHOWN]]
    more = ["..."] if len(first) > SHOWN else []
    return f"{name}([{', '.join([*shown, *more])}])"


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
