"""What a lineage tells of ETags of any form, and of what others have left in its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.shared.lineage import (
    LineageMemory,
    extend,
    first,
    new_token,
    token_of,
    versions_in,
)
from persidict.stores.shared.recent_notes import RecentNotes
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


def test_the_token_of_a_version_is_that_of_its_own_write() -> None:
    assert token_of(first("inserted", None)) == "inserted"
    assert token_of(extend("replaces", ETagValue('"1"'), first("inserted", None))) == "replaces"


def test_a_lineage_that_grows_too_long_forgets_the_oldest_versions_whole() -> None:
    lineage, written = first(new_token(), None), []
    for number in range(300):
        token = new_token()
        lineage = extend(token, ETagValue(f'"{number:032x}"'), lineage)
        written.append((token, f'"{number + 1:032x}"'))
    found = list(versions_in(lineage, ETagValue(f'"{300:032x}"')))
    assert len(lineage) <= 1500 < len(lineage) + 40
    assert found == written[: -len(found) - 1 : -1]


def test_of_a_version_seen_before_nothing_is_recalled_since() -> None:
    memory = LineageMemory()
    memory.remember("a", '"1"', "lineage")
    since = memory.now()
    assert memory.recall("a", '"1"') == "lineage"
    assert memory.recall("a", '"1"', since=since) is None
    memory.remember("a", '"1"', "lineage")
    assert memory.recall("a", '"1"', since=since) == "lineage"


def test_of_another_version_nothing_is_recalled() -> None:
    memory = LineageMemory()
    memory.remember("a", '"1"', "lineage")
    assert memory.recall("a", '"2"') is None


def test_of_too_many_notes_the_latest_stay() -> None:
    notes = RecentNotes[int](8)
    for number in range(100):
        notes.put(str(number), number)
    kept = [number for number in range(100) if str(number) in notes]
    assert 4 < len(kept) <= 8
    assert kept == list(range(100))[-len(kept) :]


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
