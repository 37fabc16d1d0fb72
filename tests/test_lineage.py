"""What a lineage tells of ETags of any form, and of what others have left in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.shared.lineage import extend, first, new_token, token_of, versions_in
from tests.s3_dicts import connect
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer

__all__ = ["moto_aws_server"]

ODD = ['"a;b"', '"%3B"', '"1;2;3"', "7;8", '"0123456789abcdef0123456789abcdef"', '"x-2"', '"="']
texts = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"'))


@pytest.mark.parametrize("etag", ODD)
def test_a_version_is_found_whatever_characters_its_etag_has(etag: str) -> None:
    tokens = [new_token() for _ in range(3)]
    lineage = extend(tokens[1], ETagValue(etag), first(tokens[0], None))
    lineage = extend(tokens[2], ETagValue('"between"'), lineage)
    assert list(versions_in(lineage, ETagValue('"now"'))) == [
        (tokens[2], '"now"'),
        (tokens[1], '"between"'),
        (tokens[0], etag),
    ]


@given(texts.filter(bool))
def test_any_etag_comes_back_as_it_was(text: str) -> None:
    for etag in (f'"{text}"', text):
        lineage = extend(new_token(), ETagValue(etag), first(new_token(), None))
        assert [found for _, found in versions_in(lineage, ETagValue("x"))] == ["x", etag]


@pytest.mark.parametrize(
    "foreign", ["", "ünïcode", "short", "x" * 3000, ";;;", "a;b;c", "line\r\nx: y", "12345678;?"]
)
def test_what_is_of_foreign_make_tells_nothing_and_is_not_passed_on(foreign: str) -> None:
    token = new_token()
    assert token_of(foreign) is None
    lineage = extend(token, ETagValue('"1"'), foreign)
    assert lineage.isascii()
    assert list(versions_in(lineage, ETagValue('"2"'))) == [(token, '"2"'), ("--------", '"1"')]


@given(st.text())
def test_no_text_breaks_the_next_lineage(foreign: str) -> None:
    lineage = extend(new_token(), ETagValue('"1"'), foreign)
    assert lineage.isascii()
    assert lineage.isprintable()


@pytest.mark.parametrize("transport", ["direct", "botocore"])
def test_metadata_of_foreign_make_does_not_break_the_next_write(
    moto_aws_server: MotoServer, transport: str
) -> None:
    d = connect(moto_aws_server.endpoint_url, transport=transport)
    d["a"] = 1
    for foreign in ("x" * 1900, "=?UTF-8?B?w7w=?=", ";", "a b"):
        d.s3_client.put_object(
            Bucket=d.bucket_name,
            Key="a.pkl",
            Body=d.raw["a"],
            Metadata={"persidict-lineage": foreign},
        )
        value = d["a"]
        assert d.transform_item("a", transformer=lambda n: n + 1).new_value == value + 1
