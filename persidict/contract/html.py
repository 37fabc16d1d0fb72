"""Showing a dictionary in a notebook: what is known of it without reading a value."""

from __future__ import annotations

import math
import threading
import time
from html import escape
from pathlib import PurePath
from typing import Any, Final, NamedTuple

from persidict.contract.extent import PAGE, SHOWN
from persidict.contract.primitives import DictPrimitives, Version
from persidict.exceptions import ObjectNotFound
from persidict.safe_str_tuple import NonEmptySafeStrTuple

SECONDS: Final = 1.0
"""For how long a notebook waits."""

_OPENED_BY_BROWSERS: Final = ("file://", "http://", "https://")
_LEFT: Final = ' style="text-align: left"'
_RIGHT: Final = ' style="text-align: right"'


class _Glance(NamedTuple):
    """What was seen of the content.

    Attributes:
        items: The first keys, and what is known of them without their values.
        seen: How many keys were listed.
        is_all: Whether these are all that there are.
    """

    items: list[tuple[NonEmptySafeStrTuple, Version]]
    seen: int
    is_all: bool


def html_of(d: Any) -> str:
    """Show class, place, number of items, and the first keys with size and time.

    Takes one page of a listing at most, 1 request on S3, and no value is read. A server has a
    second to answer; on a disk it ends with the entry that is under way after a second.
    """
    raw = "" if d._raw_of is None else ".raw"
    heading = f"<b>{escape(type(d).__name__)}{raw}</b>{_policy(d)} {_place(d)}".rstrip()
    try:
        glance = _at_once(d)
    except Exception as error:  # shown in the place of the content, as a notebook shows errors
        trouble = f"{type(error).__name__}: {error}"
        return f"<div>{heading}<br>{escape(trouble)}</div>"
    if glance is None:
        return f"<div>{heading}<br>no answer within {SECONDS:g} s</div>"
    return f"<div>{heading}<br>{_number(glance)}{_inside(d)}{_table(d, glance)}</div>"


def _at_once(d: DictPrimitives) -> _Glance | None:
    """Look at a dictionary; None: there was no answer in time."""
    if d._traits.reads_are_cheap:
        return _look(d)  # in this thread, which may be inside of a transaction
    found: list[_Glance | Exception] = []

    def look() -> None:
        try:
            found.append(_look(d))
        except Exception as error:  # raised again below
            found.append(error)

    thread = threading.Thread(target=look, name="persidict-glance", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not found:
        return None
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _look(d: DictPrimitives) -> _Glance:
    deadline = time.monotonic() + SECONDS
    items: list[tuple[NonEmptySafeStrTuple, Version]] = []
    brings_versions = d._traits.listing_brings_versions
    listing: Any = d._versions() if brings_versions else d._keys(page_size=PAGE)
    seen = 0
    for seen, entry in enumerate(listing, start=1):
        if len(items) < SHOWN:
            if brings_versions:
                items.append(entry)
            else:
                try:
                    items.append((entry, d._head(entry)))
                except ObjectNotFound:
                    continue
        if seen == PAGE or time.monotonic() > deadline:
            return _Glance(items, seen, is_all=False)
    return _Glance(items, seen, is_all=True)


def _number(glance: _Glance) -> str:
    if not glance.is_all:
        return f"at least {glance.seen} items"
    return "1 item" if glance.seen == 1 else f"{glance.seen} items"


def _policy(d: DictPrimitives) -> str:
    told = [escape(d.serialization_format)]
    if d.base_class_for_values is not None:
        told.append(escape(d.base_class_for_values.__name__))
    if d.append_only:
        told.append("append-only")
    if getattr(d, "is_read_only", False):
        told.append("read-only")
    return f" ({', '.join(told)})"


def _place(d: Any) -> str:
    place = d._place()
    return "" if place is None else _link(place.url, place.url)


def _inside(d: Any) -> str:
    """Return a part that opens on a click and shows what a wrapper has in it."""
    parts = []
    while isinstance(d := getattr(d, "_wrapped", None), DictPrimitives):
        parts.append(f"<li><b>{escape(type(d).__name__)}</b> {_place(d)}</li>")
    if not parts:
        return ""
    return f"<details><summary>in front of</summary><ul>{''.join(parts)}</ul></details>"


def _table(d: Any, glance: _Glance) -> str:
    if not glance.items:
        return ""
    rows = "".join(
        f"<tr><td{_LEFT}>{_key(d, key)}</td><td{_RIGHT}>{_size(version.size)}</td>"
        f"<td{_LEFT}>{_time(version.last_modified)}</td></tr>"
        for key, version in glance.items
    )
    more = glance.seen - len(glance.items)
    rest = ""
    if more > 0 or not glance.is_all:
        said = f"and {more} more" if glance.is_all else f"and at least {more} more"
        rest = f'<tr><td colspan="3"{_LEFT}>... {said}</td></tr>'
    head = f"<tr><th{_LEFT}>key</th><th{_RIGHT}>bytes</th><th{_LEFT}>written (UTC)</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}{rest}</tbody></table>"


def _key(d: Any, key: NonEmptySafeStrTuple) -> str:
    strings = key.strings
    text = repr(strings[0]) if len(strings) == 1 else ", ".join(map(repr, strings))
    try:
        location = str(d._location(key))
    except TypeError:  # it lies nowhere
        return f"<code>{escape(text)}</code>"
    if PurePath(location).is_absolute():
        location = PurePath(location).as_uri()
    return _link(location, text)


def _link(url: str, text: str) -> str:
    shown = f"<code>{escape(text)}</code>"
    if not url.startswith(_OPENED_BY_BROWSERS):
        return shown
    return f'<a href="{escape(url)}" target="_blank" rel="noopener">{shown}</a>'


def _size(size: int) -> str:
    return f"{size:,}"


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return ""
