"""All codecs, text, and the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persidict.codecs import (
    Buffer,
    Codec,
    codec_for,
    is_registered,
    register_codec,
    registry,
)
from tests.codec_cases import (
    JSON,
    PKL,
    PKL_OF_FILES,
    TEXT,
    Node,
)


class Tagged(str):
    """A subclass of str."""


@given(st.text())
def test_text_comes_back_equal(text: str) -> None:
    assert TEXT.decode(TEXT.encode(text)) == text


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("codec", [PKL, PKL_OF_FILES, JSON, TEXT])
def test_every_codec_decodes_every_kind_of_buffer(
    codec: Codec, view: Callable[[Buffer], Buffer]
) -> None:
    text = "Grüße\n" * 5_000
    assert codec.decode(view(codec.encode(text))) == text


@pytest.mark.parametrize("codec", [PKL, JSON])
def test_objects_that_a_value_holds_twice_are_one_object_again(codec: Codec) -> None:
    shared = [1]
    one, two = codec.decode(codec.encode([shared, {"again": shared}]))
    assert one is two["again"]


@pytest.mark.parametrize("codec", [PKL, JSON])
def test_an_object_that_refers_to_itself_does_so_again(codec: Codec) -> None:
    node = Node(name="loop")
    node.itself = node
    found = codec.decode(codec.encode(node))
    assert found.itself is found


@pytest.mark.parametrize("text", ["", "\r\n", "a\rb\n", "\ufeffmark", "\x00", "𝄞"])
def test_text_is_stored_character_for_character(text: str) -> None:
    assert TEXT.encode(text) == text.encode("utf-8")


def test_text_with_surrogates_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        TEXT.encode("a\ud800")


@pytest.mark.parametrize("value", [None, 1, b"bytes", ["text"]])
def test_a_text_format_refuses_what_is_no_text(value: Any) -> None:
    with pytest.raises(TypeError, match="a text format holds str values"):
        TEXT.encode(value)


def test_bytes_that_are_not_utf_8_are_an_error() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        TEXT.decode(b"\xff")


def test_text_comes_back_as_the_subclass_of_str_that_was_asked_for() -> None:
    codec = codec_for("txt", value_class=Tagged)
    assert type(codec.decode(codec.encode(Tagged("x")))) is Tagged


class Reversed(Codec):
    """A format of somebody else's."""

    content_type = "application/x-reversed"

    def encode(self, value: Any) -> bytes:
        return bytes(reversed(value))

    def decode(self, data: Buffer) -> Any:
        return bytes(reversed(data))


@pytest.fixture
def no_formats_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.parametrize(
    ("serialization_format", "content_type"),
    [
        ("pkl", "application/octet-stream"),
        ("json", "application/json"),
        ("txt", "text/plain"),
        ("html", "text/plain"),
    ],
)
def test_every_format_has_its_content_type(serialization_format: str, content_type: str) -> None:
    assert codec_for(serialization_format).content_type == content_type


@pytest.mark.usefixtures("no_formats_of_others")
def test_a_registered_format_has_its_own_codec() -> None:
    register_codec("rev", Reversed)
    assert codec_for("rev").encode(b"abc") == b"cba"


@pytest.mark.usefixtures("no_formats_of_others")
def test_a_format_is_registered_only_after_it_was_registered() -> None:
    before = is_registered("rev")
    register_codec("rev", Reversed)
    assert (before, is_registered("rev")) == (False, True)


@pytest.mark.usefixtures("no_formats_of_others")
@pytest.mark.parametrize(
    ("serialization_format", "factory", "error"),
    [
        ("pkl", Reversed, ValueError),
        ("json", Reversed, ValueError),
        ("", Reversed, ValueError),
        (1, Reversed, TypeError),
        ("rev", Reversed(), TypeError),
    ],
)
def test_a_bad_registration_is_refused(
    serialization_format: Any, factory: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        register_codec(serialization_format, factory)
