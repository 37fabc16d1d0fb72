"""Pages of listings are read the same way at wire speed and by a real XML parser."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persidict.stores.s3.transport.direct import listing
from persidict.stores.s3.transport.direct.listing import MalformedListing, parse_page

pytestmark = pytest.mark.direct_wire

_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'

Item = tuple[str, str, int, str]


def page_of(
    items: list[Item],
    *,
    quoted: bool = True,
    outside: str = "<IsTruncated>false</IsTruncated>",
    space: str = "",
    order: tuple[str, ...] = ("Key", "LastModified", "ETag", "Size"),
    extra: str = "",
) -> bytes:
    entries = []
    for key, etag, size, time in items:
        texts = {
            "Key": escape(quote_plus(key, safe="/") if quoted else key),
            "LastModified": time,
            "ETag": escape(etag, {'"': "&quot;"}),
            "Size": str(size),
        }
        fields = [f"<{tag}>{texts[tag]}</{tag}>{space}" for tag in order]
        entries.append(f"<Contents>{space}{''.join(fields)}{extra}</Contents>{space}")
    encoding = "<EncodingType>url</EncodingType>" if quoted else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult {_NAMESPACE}>{space}'
        f"<Name>b</Name>{encoding}{''.join(entries)}{outside}</ListBucketResult>"
    ).encode()


keys = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"
    ),
    min_size=1,
    max_size=20,
)
times = st.sampled_from(["2024-02-03T04:05:06.000Z", "1999-12-31T23:59:59Z"])
etags = st.sampled_from(['"0123"', '"a-2"', "unquoted"])
items_lists = st.lists(st.tuples(keys, etags, st.integers(0, 2**40), times), max_size=5)


@given(
    items_lists,
    st.booleans(),
    st.sampled_from(["", "\n  "]),
    st.permutations(["Key", "LastModified", "ETag", "Size"]),
    st.sampled_from(
        [
            "",
            "<StorageClass>STANDARD</StorageClass>",
            "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>",
            "<Owner><ID>me</ID><DisplayName>Key</DisplayName></Owner>",
        ]
    ),
)
def test_both_parsers_read_the_same(
    items: list[Item], quoted: bool, space: str, order: list[str], extra: str
) -> None:
    page = page_of(items, quoted=quoted, space=space, order=tuple(order), extra=extra)
    fast: Any = listing._read_fast(page.decode())
    assert fast is not None
    assert fast == listing._read_slowly(page.decode())
    assert [entry.key for entry in fast.objects] == [key for key, *_ in items]
    assert all(entry.etag.endswith('"') for entry in fast.objects)


def test_times_are_posix_seconds_and_sizes_are_numbers() -> None:
    page = parse_page(page_of([("k", '"1"', 12, "2024-02-03T04:05:06.000Z")]))
    assert page.objects == [("k", '"1"', 12, 1706933106.0)]


def test_an_empty_page_is_read() -> None:
    assert parse_page(page_of([])).objects == []


def test_the_token_of_the_next_page_is_read() -> None:
    outside = (
        "<IsTruncated>true</IsTruncated>"
        "<NextContinuationToken>a&amp;b+c%20==</NextContinuationToken>"
    )
    assert parse_page(page_of([], outside=outside)).next_token == "a&b+c%20=="


def test_a_token_without_a_next_page_is_not_followed() -> None:
    outside = "<IsTruncated>false</IsTruncated><NextContinuationToken>a</NextContinuationToken>"
    assert parse_page(page_of([], outside=outside)).next_token is None


def test_groups_are_read() -> None:
    outside = (
        "<IsTruncated>false</IsTruncated><Delimiter>/</Delimiter><Prefix>top/</Prefix>"
        "<CommonPrefixes><Prefix>top/a+%C3%A9/</Prefix></CommonPrefixes>"
        "<CommonPrefixes><Prefix>top/b/</Prefix></CommonPrefixes>"
    )
    page = parse_page(page_of([("top/x", '"1"', 1, "2024-02-03T04:05:06Z")], outside=outside))
    assert page.prefixes == ["top/a é/", "top/b/"]
    assert len(page.objects) == 1


@pytest.mark.parametrize(
    "change",
    [
        ("<Contents>", "<!-- a comment --><Contents>"),
        ("<Key>k</Key>", "<Key><![CDATA[k]]></Key>"),
        ("<Contents>", "<CommonPrefixes><Prefix>g/</Prefix></CommonPrefixes><Contents>"),
        ("<Size>12</Size>", "<Size>12</Size><Nested><Size>9</Size></Nested>"),
        ("<Key>k</Key>", '<Key xml:space="preserve">k</Key>'),
        ("<Size>12</Size>", "<Empty/><Size>12</Size>"),
    ],
)
def test_an_unexpected_form_goes_to_a_real_parser(change: tuple[str, str]) -> None:
    one = ("k", '"1"', 12, "2024-02-03T04:05:06.000Z")
    usual = page_of([one, ("k2", '"2"', 13, one[3])])
    unusual = usual.decode().replace(*change).encode()
    assert unusual != usual
    assert [entry.key for entry in parse_page(unusual).objects] == ["k", "k2"]
    assert [entry.size for entry in parse_page(unusual).objects] == [12, 13]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"<html><body>Welcome</body></html>",
        b"<Error><Code>SlowDown</Code></Error>",
        b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult>&a;</ListBucketResult>",
        page_of([("k", '"1"', 1, "yesterday")]),
        page_of([("k", '"1"', 1, "2024-02-03T04:05:06Z")]).replace(b"<Size>1<", b"<Size>x<"),
        page_of([("k", '"1"', 1, "2024-02-03T04:05:06Z")]).replace(b"<Size>1</Size>", b""),
        page_of([("k", '"1"', 1, "2024-02-03T04:05:06Z")], quoted=False).replace(b">k<", b">a&b<"),
        page_of([("k", '"1"', 1, "2024-02-03T04:05:06Z")]).replace(b">k<", b">%ff<"),
    ],
)
def test_what_is_no_listing_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedListing):
        parse_page(body)


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_a_damaged_page_is_refused_or_read_as_xml_reads_it(seed: int, count: int) -> None:
    chance = random.Random(seed)
    page = bytearray(page_of([(f"k{n}", '"1"', n, "2024-02-03T04:05:06Z") for n in range(3)]))
    for _ in range(count):
        position = chance.randrange(len(page))
        page[position : position + chance.randrange(4)] = chance.choice(
            [b"", b"<", b">", b"&", b"x", b"</Key>", b"<Contents>", b"</Contents>", b"<Size>"]
        )
    damaged = bytes(page)
    try:
        found = parse_page(damaged)
    except MalformedListing:
        return
    assert found == listing._read_slowly(damaged.decode())
