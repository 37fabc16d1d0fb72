"""Pages of listings, read at wire speed; an unexpected form goes to a real XML parser."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from persidict.stores.s3.transport.messages import ListedObject, ListPage, quoted

_ENTRY: Final = "<Contents>"
_ENTRY_END: Final = "</Contents>"
_GROUP: Final = "<CommonPrefixes>"
_WANTED: Final = ("Key", "ETag", "Size", "LastModified")
_TAG: Final = re.compile(r"<(\w+)>[^<]*</")
_IGNORED: Final = "|".join(
    rf"<{tag}>[^<&]*</{tag}>\s*"
    for tag in ("StorageClass", "ChecksumAlgorithm", "ChecksumType", "Type", "ID", "DisplayName")
)
_OTHER: Final = rf"(?:{_IGNORED}|<Owner>\s*(?:{_IGNORED})*</Owner>\s*)*"
_REFERENCE: Final = re.compile(
    r"&(?:#x([0-9A-Fa-f]{1,6})|#([0-9]{1,7})|(amp|lt|gt|quot|apos));|(&)"
)
_NAMED: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


class MalformedListing(ValueError):
    """A page is not what a listing is written in."""


def parse_page(body: bytes) -> ListPage:
    """Read a page of ListObjectsV2.

    Raises:
        MalformedListing: It is none: other or broken XML, or HTML.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedListing("a listing is not in UTF-8") from error
    return _read_fast(text) or _read_slowly(text)


# ---------------------------------------------------------------------- the usual form


def _read_fast(text: str) -> ListPage | None:
    """Read the form that servers usually write; None: it is another one."""
    if "<!" in text:
        return None  # comments, CDATA and doctypes are for a real parser
    begin = text.find(_ENTRY)
    if begin < 0:
        found: list[tuple[str, ...]] = []
        order: tuple[str, ...] = _WANTED
        rest = text
    else:
        end = text.rfind(_ENTRY_END) + len(_ENTRY_END)
        order = tuple(tag for tag in _TAG.findall(text, begin, text.find(_ENTRY_END, begin)))
        order = tuple(tag for tag in order if tag in _WANTED)
        if sorted(order) != sorted(_WANTED) or _GROUP in text[begin:end]:
            return None
        entries = text[begin:end]
        found = _entry_pattern(order).findall(entries)
        if sum(len(whole) for whole, *_ in found) != len(entries):
            return None  # there is something else in between
        rest = text[:begin] + text[end:]
    try:
        root = ElementTree.fromstring(rest)
    except ElementTree.ParseError:
        return None
    columns = dict(zip(("", *order), zip(*found, strict=True), strict=True)) if found else None
    try:
        return _page(root, columns)
    except (MalformedListing, OverflowError):
        return None


@lru_cache(maxsize=32)
def _entry_pattern(order: tuple[str, ...]) -> re.Pattern[str]:
    texts = {"Key": "[^<]*", "ETag": "[^<]*", "Size": r"[0-9]+", "LastModified": "[^<&]*"}
    fields = "".join(rf"<{tag}>({texts[tag]})</{tag}>\s*{_OTHER}" for tag in order)
    return re.compile(rf"(<Contents>\s*{_OTHER}{fields}</Contents>\s*)")


def _page(root: ElementTree.Element, columns: dict[str, tuple[str, ...]] | None) -> ListPage:
    single = {_local(child.tag): child.text or "" for child in root}
    if _local(root.tag) != "ListBucketResult":
        raise MalformedListing(f"a listing was asked for, and <{_local(root.tag)}> came")
    is_quoted = single.get("EncodingType") == "url"
    prefixes = [
        _unquoted(_text_of(child, "Prefix"), is_quoted)
        for child in root
        if _local(child.tag) == "CommonPrefixes"
    ]
    return ListPage(
        _entries(columns, is_quoted) if columns else [],
        prefixes,
        _next_token(single),
    )


def _next_token(single: dict[str, str]) -> str | None:
    if single.get("IsTruncated", "false").strip().lower() != "true":
        return None
    token = single.get("NextContinuationToken", "")
    if not token:
        raise MalformedListing("a listing goes on, but does not say where")
    return token


def _entries(columns: dict[str, tuple[str, ...]], is_quoted: bool) -> list[ListedObject]:
    try:
        keys = [_unquoted(_unescaped(key), is_quoted) for key in columns["Key"]]
        etags = [quoted(_unescaped(etag)) for etag in columns["ETag"]]
        times = {text: _seconds(text) for text in set(columns["LastModified"])}
        seconds = [times[text] for text in columns["LastModified"]]
        sizes = [int(size) for size in columns["Size"]]
    except ValueError as error:
        raise MalformedListing("an entry of a listing cannot be read") from error
    return list(map(ListedObject, keys, etags, sizes, seconds))


def _unescaped(text: str) -> str:
    """Resolve the references of XML 1.0 without a document type."""
    if "&" not in text:
        return text
    text = text.replace("&quot;", '"').replace("&#34;", '"')
    return _REFERENCE.sub(_referred_to, text) if "&" in text else text


def _referred_to(reference: re.Match[str]) -> str:
    hexadecimal, decimal, name, stray = reference.groups()
    if stray:
        raise ValueError("an ampersand that begins no reference")
    return _NAMED[name] if name else chr(int(hexadecimal, 16) if hexadecimal else int(decimal))


def _unquoted(text: str, is_quoted: bool) -> str:
    return (
        unquote_plus(text, errors="strict") if is_quoted and ("%" in text or "+" in text) else text
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.strip()).timestamp()


# ---------------------------------------------------------------------- any form


def _read_slowly(text: str) -> ListPage:
    if "<!DOCTYPE" in text:
        raise MalformedListing("a listing does not begin with a document type")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise MalformedListing("a listing is no well-formed XML") from error
    objects = [child for child in root if _local(child.tag) == "Contents"]
    page = _page(root, None)
    is_quoted = any(_local(child.tag) == "EncodingType" and child.text == "url" for child in root)
    page.objects = [_entry(item, is_quoted) for item in objects]
    return page


def _entry(item: ElementTree.Element, is_quoted: bool) -> ListedObject:
    try:
        return ListedObject(
            _unquoted(_text_of(item, "Key"), is_quoted),
            quoted(_text_of(item, "ETag")),
            int(_text_of(item, "Size")),
            _seconds(_text_of(item, "LastModified")),
        )
    except ValueError as error:
        raise MalformedListing("an entry of a listing cannot be read") from error


def _text_of(element: ElementTree.Element, tag: str) -> str:
    for child in element:
        if _local(child.tag) == tag:
            return child.text or ""
    raise MalformedListing(f"an entry of a listing has no {tag}")


def _local(tag: Any) -> str:
    return str(tag).rpartition("}")[2]
