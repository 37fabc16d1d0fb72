"""Keys: what they are made of, how they behave, and how they are signed."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import operator
import pickle
import re
import string
from collections.abc import Sequence
from typing import Any

import jsonpickle
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from persidict import (
    SAFE_CHARS_SET,
    SAFE_STRING_MAX_LENGTH,
    LocalDict,
    NonEmptySafeStrTuple,
    SafeStrTuple,
    escape_key,
    get_safe_chars,
    replace_unsafe_chars,
    unescape_key,
)
from persidict.safe_str_tuple import are_safe_parts, checked_keys
from persidict.safe_str_tuple_signing import (
    digest_of,
    digests_of,
    sign_safe_str_tuple,
    unsign_safe_str_tuple,
)

SAFE = string.ascii_letters + string.digits + "()_-~.="
KINDS = [SafeStrTuple, NonEmptySafeStrTuple]

safe_strings = st.text(SAFE, min_size=1, max_size=12).filter(lambda s: s not in (".", ".."))
string_lists = st.lists(safe_strings, max_size=5)
nested = st.recursive(
    safe_strings,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(lambda parts: SafeStrTuple(*parts)),
    ),
    max_leaves=8,
)


def flattened(part: Any) -> list[str]:
    """Flatten a string or a nested sequence, left to right."""
    if isinstance(part, str):
        return [part]
    return [leaf for inner in part for leaf in flattened(inner)]


def own_suffix(part: str, digest_len: int) -> str:
    """Compute a signing suffix as the contract words it."""
    digest = base64.b32encode(hashlib.md5(part.encode("utf-8")).digest()).decode()
    return "_" + digest.lower()[:digest_len]


def is_signed(part: str, digest_len: int) -> bool:
    """Tell whether a string ends in the suffix of what stands before it."""
    stem = part[: -digest_len - 1]
    return bool(stem) and part == stem + own_suffix(stem, digest_len)


class TestSafeChars:
    def test_safe_are_ascii_letters_digits_and_seven_signs(self) -> None:
        assert set(SAFE_CHARS_SET) == set(SAFE)

    def test_each_call_returns_a_set_of_its_own(self) -> None:
        get_safe_chars().clear()
        assert get_safe_chars() == set(SAFE)

    @given(st.text())
    def test_replacing_leaves_only_safe_characters_and_the_safe_ones_in_place(
        self, text: str
    ) -> None:
        replaced = replace_unsafe_chars(text, "_")
        assert replaced == "".join(c if c in SAFE else "_" for c in text)

    def test_the_replacement_is_taken_as_it_is(self) -> None:
        assert replace_unsafe_chars("a/b", r"\1") == r"a\1b"

    def test_the_replacement_may_be_empty_or_longer(self) -> None:
        assert replace_unsafe_chars("a/b c", "") == "abc"
        assert replace_unsafe_chars("a/b", "--") == "a--b"


class TestEscaping:
    @given(st.one_of(st.text(st.characters(), min_size=1, max_size=40), safe_strings))
    def test_any_text_comes_back_from_a_key_of_its_own(self, text: str) -> None:
        escaped = escape_key(text)
        assert SafeStrTuple(escaped).strings == (escaped,)
        assert unescape_key(escaped) == text

    @given(safe_strings.filter(lambda text: not re.search("=[0-9A-F]{2}", text)))
    def test_what_may_stand_in_a_key_and_does_not_look_escaped_stays(self, text: str) -> None:
        assert escape_key(text) == text

    @pytest.mark.parametrize(
        ("text", "escaped"),
        [
            ("user:1/é", "user=3A1=2F=C3=A9"),
            ("k=v", "k=v"),
            ("k=3A", "k=3D3A"),
            (".", "=2E"),
            ("..", "=2E."),
            ("...", "..."),
            ("=é", "==C3=A9"),
            ("a\n", "a=0A"),
        ],
    )
    def test_known_escapes(self, text: str, escaped: str) -> None:
        assert escape_key(text) == escaped

    @pytest.mark.parametrize("escaped", ["", "a=41", "=C3", "a b", "=3a:", "..", "=2E=2E"])
    def test_what_no_text_is_escaped_to_is_refused(self, escaped: str) -> None:
        with pytest.raises(ValueError, match="is not what escape_key returns"):
            unescape_key(escaped)

    @pytest.mark.parametrize("text", ["", "é" * 43, "a" * 254])
    def test_a_text_that_is_no_key_however_it_is_written_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="text"):
            escape_key(text)

    @pytest.mark.parametrize("function", [escape_key, unescape_key])
    def test_what_is_no_text_is_a_type_error(self, function: Any) -> None:
        with pytest.raises(TypeError):
            function(b"a")

    def test_the_error_for_an_unsafe_key_tells_how_to_escape_it(self) -> None:
        with pytest.raises(ValueError, match="escape_key"):
            SafeStrTuple("a/b")


class TestMaking:
    @given(st.lists(nested, max_size=4))
    def test_parts_are_flattened_left_to_right(self, parts: list[Any]) -> None:
        assert list(SafeStrTuple(*parts)) == flattened(parts)

    @pytest.mark.parametrize("part", [".hidden", "...", "a.b", "-", "()", "a~", "=", "a" * 253])
    def test_unusual_but_safe_strings_are_taken(self, part: str) -> None:
        assert SafeStrTuple(part).strings == (part,)

    @pytest.mark.parametrize("char", SAFE.replace(".", ""))
    def test_each_safe_character_alone_is_a_string(self, char: str) -> None:
        assert SafeStrTuple(char).strings == (char,)

    @pytest.mark.parametrize(
        "part",
        ["", ".", "..", "a/b", "a\\b", "a b", "a\n", "ä", "a\0", "а", "%", "a" * 254],  # noqa: RUF001
    )
    def test_unsafe_strings_are_a_value_error(self, part: str) -> None:
        with pytest.raises(ValueError):
            SafeStrTuple("fine", part)

    def test_the_first_refused_length_is_published(self) -> None:
        assert SAFE_STRING_MAX_LENGTH == 254

    @given(st.characters().filter(lambda c: c not in SAFE))
    def test_every_other_character_is_refused(self, char: str) -> None:
        with pytest.raises(ValueError):
            SafeStrTuple(f"a{char}b")

    @pytest.mark.parametrize("part", [5, None, 1.5, {"a"}, {"a": "b"}, b"a", object(), frozenset()])
    def test_what_is_no_string_and_no_sequence_is_a_type_error(self, part: object) -> None:
        with pytest.raises(TypeError):
            SafeStrTuple("fine", part)
        with pytest.raises(TypeError):
            SafeStrTuple(["fine", [part]])

    def test_keyword_arguments_are_a_type_error(self) -> None:
        constructor: Any = SafeStrTuple
        with pytest.raises(TypeError):
            constructor("a", b="c")

    def test_a_sequence_that_contains_itself_is_a_value_error(self) -> None:
        endless: list[Any] = ["a"]
        endless.append(endless)
        with pytest.raises(ValueError):
            SafeStrTuple(endless)

    def test_a_key_may_be_empty_only_if_it_is_a_prefix(self) -> None:
        assert SafeStrTuple().strings == SafeStrTuple([], ((),)).strings == ()
        empty_arguments: list[list[Any]] = [[], [[]], [SafeStrTuple()]]
        for nothing in empty_arguments:
            with pytest.raises(ValueError):
                NonEmptySafeStrTuple(*nothing)

    def test_subclasses_of_str_are_taken_as_the_text_they_are(self) -> None:
        class Name(str):
            def __str__(self) -> str:
                return "another/text"

        key = SafeStrTuple(Name("a"))
        assert (type(key.strings[0]), key.strings) == (str, ("a",))

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_key_made_of_a_key_is_equal(self, kind: type[SafeStrTuple]) -> None:
        assert kind(SafeStrTuple("a", "b")).strings == ("a", "b")


class TestBehavingAsASequence:
    @given(string_lists)
    def test_it_indexes_slices_counts_and_finds_like_the_tuple_of_its_strings(
        self, parts: list[str]
    ) -> None:
        key, plain = SafeStrTuple(parts), tuple(parts)
        assert (key.strings, key.str_chain, len(key)) == (plain, plain, len(plain))
        assert [*key] == [key[n] for n in range(len(key))] == [*plain]
        assert all(part in key and key.index(part) == plain.index(part) for part in plain)
        assert all(key.count(part) == plain.count(part) for part in plain)

    @given(string_lists, st.slices(6))
    def test_a_slice_is_a_tuple(self, parts: list[str], cut: slice) -> None:
        piece = SafeStrTuple(parts)[cut]
        assert (type(piece), piece) == (tuple, tuple(parts)[cut])

    def test_it_is_a_sequence(self) -> None:
        assert isinstance(SafeStrTuple("a"), Sequence)
        assert isinstance(NonEmptySafeStrTuple("a"), SafeStrTuple)

    def test_it_contains_strings_only(self) -> None:
        key: Sequence[Any] = SafeStrTuple("a", "b")
        assert ["a" in key, "ab" in key, 5 in key, ("a", "b") in key] == [True, False, False, False]

    @given(string_lists)
    def test_reversed_is_a_key_the_other_way_round(self, parts: list[str]) -> None:
        back = reversed(SafeStrTuple(parts))
        assert (type(back), back.strings) == (SafeStrTuple, tuple(reversed(parts)))

    @pytest.mark.parametrize("other", ["c", ("c",), ["c"], SafeStrTuple("c"), [["c"]]], ids=repr)
    def test_adding_concatenates_on_either_side(self, other: Any) -> None:
        key = SafeStrTuple("a", "b")
        assert (key + other).strings == ("a", "b", "c")
        assert (other + key).strings == ("c", "a", "b")

    @pytest.mark.parametrize("other", [5, None, {"a"}, {}], ids=repr)
    def test_adding_what_is_no_key_is_a_type_error(self, other: Any) -> None:
        with pytest.raises(TypeError):
            SafeStrTuple("a") + other
        with pytest.raises(TypeError):
            other + SafeStrTuple("a")

    def test_adding_unsafe_strings_is_a_value_error(self) -> None:
        with pytest.raises(ValueError):
            SafeStrTuple("a") + "b/c"

    def test_repr_can_be_evaluated(self) -> None:
        key = NonEmptySafeStrTuple("a", "b")
        assert eval(repr(key)) == key
        assert type(eval(repr(key))) is NonEmptySafeStrTuple


class TestBeingImmutable:
    @pytest.mark.parametrize("name", ["strings", "str_chain", "other"])
    def test_attributes_cannot_be_set(self, name: str) -> None:
        key = SafeStrTuple("a")
        with pytest.raises(AttributeError):
            setattr(key, name, ("b",))
        assert key.strings == ("a",)

    def test_attributes_cannot_be_deleted(self) -> None:
        key = SafeStrTuple("a")
        with pytest.raises(AttributeError):
            del key.strings
        assert key.strings == ("a",)

    @pytest.mark.parametrize("kind", KINDS)
    def test_copies_are_the_object_itself(self, kind: type[SafeStrTuple]) -> None:
        key = kind("a", "b")
        assert copy.copy(key) is copy.deepcopy(key) is key

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_pickled_key_comes_back_equal_and_of_its_class(
        self, kind: type[SafeStrTuple], protocol: int
    ) -> None:
        key = kind("a", "b")
        back = pickle.loads(pickle.dumps(key, protocol))
        assert (type(back), back) == (kind, key)


class Address(NonEmptySafeStrTuple):
    """A key with a constructor and attributes of its own, as people write them."""

    def __init__(self, *parts: Any, label: str = "none") -> None:
        super().__init__(*parts)
        self.label = label

    @classmethod
    def of_number(cls, number: int) -> Address:
        return cls("numbers", str(number), label="number")


class Slotted(SafeStrTuple):
    """A key that has a slot for its attribute."""

    __slots__ = ("label",)
    label: str


class TestSubclasses:
    def test_attributes_of_a_subclass_can_be_set_and_deleted_at_any_time(self) -> None:
        address = Address("a")
        address.label = "b"
        address.other = 1  # type: ignore[attr-defined]
        assert (address.label, address.other) == ("b", 1)  # type: ignore[attr-defined]
        del address.other  # type: ignore[attr-defined]
        assert not hasattr(address, "other")

    @pytest.mark.parametrize("name", ["strings", "str_chain"])
    def test_the_strings_of_a_subclass_cannot_be_set_or_deleted(self, name: str) -> None:
        address = Address("a")
        with pytest.raises(AttributeError):
            setattr(address, name, ("b",))
        with pytest.raises(AttributeError):
            delattr(address, name)
        assert address.strings == ("a",)

    @pytest.mark.parametrize(
        ("made", "kind"),
        [
            (Address("a") + "b", NonEmptySafeStrTuple),
            ("b" + Address("a"), NonEmptySafeStrTuple),
            (reversed(Address("a", "b")), NonEmptySafeStrTuple),
            (SafeStrTuple("a") + Address("b"), SafeStrTuple),
            (reversed(SafeStrTuple()), SafeStrTuple),
        ],
    )
    def test_sums_and_reversals_are_plain(self, made: Any, kind: type) -> None:
        assert type(made) is kind

    @pytest.mark.parametrize("change", [sign_safe_str_tuple, unsign_safe_str_tuple])
    def test_a_signed_key_is_plain(self, change: Any) -> None:
        assert type(change(Address("a_btax"), 4)) is NonEmptySafeStrTuple

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_pickle_holds_strings_and_attributes_and_calls_no_constructor(
        self, protocol: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = pickle.dumps(Address("a", "b", label="c"), protocol)
        monkeypatch.delattr(Address, "__init__")
        monkeypatch.delattr(SafeStrTuple, "__init__")
        back = pickle.loads(data)
        assert (type(back), vars(back)) == (Address, {"strings": ("a", "b"), "label": "c"})

    def test_a_pickle_holds_what_a_subclass_keeps_in_slots(self) -> None:
        slotted = Slotted("a")
        slotted.label = "b"
        assert pickle.loads(pickle.dumps(slotted)).label == "b"

    def test_the_state_of_a_key_is_its_strings(self) -> None:
        assert SafeStrTuple("a", "b").__reduce_ex__(2)[2] == {"strings": ("a", "b")}

    def test_jsonpickle_writes_a_key_as_its_strings(self) -> None:
        assert json.loads(jsonpickle.encode(NonEmptySafeStrTuple("a", "b"), keys=True)) == {
            "py/object": "persidict.safe_str_tuple.NonEmptySafeStrTuple",
            "strings": {"py/tuple": ["a", "b"]},
        }

    def test_jsonpickle_reads_a_subclass_back_with_its_attributes(self) -> None:
        back = jsonpickle.decode(jsonpickle.encode(Address("a", label="c"), keys=True), keys=True)
        assert (type(back), vars(back)) == (Address, {"strings": ("a",), "label": "c"})

    @pytest.mark.parametrize("strings", ["..", "a/b", ""])
    def test_strings_that_are_read_are_checked(self, strings: str) -> None:
        text = jsonpickle.encode(NonEmptySafeStrTuple("marker"), keys=True)
        with pytest.raises(ValueError):
            jsonpickle.decode(text.replace("marker", strings), keys=True)
        with pytest.raises(ValueError):
            NonEmptySafeStrTuple.__new__(NonEmptySafeStrTuple).__setstate__({"strings": (strings,)})

    def test_a_key_that_must_not_be_empty_is_not_read_empty(self) -> None:
        with pytest.raises(ValueError):
            NonEmptySafeStrTuple.__new__(NonEmptySafeStrTuple).__setstate__({"strings": ()})

    def test_a_subclass_is_a_key_of_a_dictionary(self) -> None:
        d: LocalDict[int] = LocalDict()
        d[Address.of_number(5)] = 1
        assert {type(key) for key in d} == {NonEmptySafeStrTuple}
        assert d.get_many([Address("numbers", "5"), Address("other")]) == {("numbers", "5"): 1}


class TestEquality:
    @given(string_lists, string_lists)
    def test_keys_are_equal_exactly_if_their_strings_are(
        self, one: list[str], other: list[str]
    ) -> None:
        assert (SafeStrTuple(one) == SafeStrTuple(other)) is (one == other)
        assert (SafeStrTuple(one) != SafeStrTuple(other)) is (one != other)

    @given(string_lists)
    def test_equal_keys_have_equal_hashes(self, parts: list[str]) -> None:
        assert hash(SafeStrTuple(parts)) == hash(SafeStrTuple(*parts))

    def test_a_key_equals_its_non_empty_kind_with_an_equal_hash(self) -> None:
        one, other = SafeStrTuple("a", "b"), NonEmptySafeStrTuple("a", "b")
        assert one == other
        assert other == one
        assert hash(one) == hash(other)

    @pytest.mark.parametrize("other", [("a", "b"), ["a", "b"], [["a"], "b"]], ids=repr)
    def test_a_key_equals_what_can_be_made_into_it(self, other: Any) -> None:
        assert SafeStrTuple("a", "b") == other
        assert other == SafeStrTuple("a", "b")

    def test_a_key_of_one_string_equals_that_string(self) -> None:
        assert SafeStrTuple("a") == "a"
        assert SafeStrTuple("a") != "b"

    @pytest.mark.parametrize(
        "other", [None, 5, {"a"}, {"a": 1}, ("a", 5), "a/b", "", ("a", ""), b"a", object()]
    )
    def test_a_key_differs_from_anything_else_without_an_error(self, other: object) -> None:
        assert not (SafeStrTuple("a") == other)
        assert SafeStrTuple("a") != other

    def test_a_subclass_that_redefines_equality_is_asked_first(self) -> None:
        class Agreeable(SafeStrTuple):
            __hash__ = SafeStrTuple.__hash__

            def __eq__(self, other: object) -> bool:
                return True

        assert SafeStrTuple("a") == Agreeable("b")
        assert Agreeable("b") == SafeStrTuple("a")

    @given(st.lists(string_lists, max_size=5))
    def test_keys_sort_like_the_tuples_of_their_strings(self, many: list[list[str]]) -> None:
        assert [key.strings for key in sorted(map(SafeStrTuple, many))] == sorted(map(tuple, many))

    @pytest.mark.parametrize("order", [operator.lt, operator.le, operator.gt, operator.ge])
    @pytest.mark.parametrize("other", ["a", "b", "c"])
    def test_keys_compare_like_the_tuples_of_their_strings(self, order: Any, other: str) -> None:
        assert order(SafeStrTuple("b"), SafeStrTuple(other)) is order(("b",), (other,))


class TestSigning:
    @given(string_lists, st.integers(1, 26))
    def test_every_string_carries_its_suffix_exactly_once(
        self, parts: list[str], digest_len: int
    ) -> None:
        assume(not any(is_signed(part, digest_len) for part in parts))
        signed = sign_safe_str_tuple(SafeStrTuple(parts), digest_len)
        assert [*signed] == [part + own_suffix(part, digest_len) for part in parts]

    @given(string_lists, st.integers(0, 26))
    def test_signing_twice_is_signing_once(self, parts: list[str], digest_len: int) -> None:
        signed = sign_safe_str_tuple(SafeStrTuple(parts), digest_len)
        assert sign_safe_str_tuple(signed, digest_len) == signed

    @given(string_lists, st.integers(1, 26))
    def test_unsigning_undoes_signing(self, parts: list[str], digest_len: int) -> None:
        assume(not any(is_signed(part, digest_len) for part in parts))
        key = SafeStrTuple(parts)
        assert unsign_safe_str_tuple(sign_safe_str_tuple(key, digest_len), digest_len) == key

    def test_known_digests(self) -> None:
        assert sign_safe_str_tuple(SafeStrTuple("a", "b"), 4).strings == ("a_btax", "b_slvv")
        assert sign_safe_str_tuple(SafeStrTuple("a"), 8).strings == ("a_btaxlooa",)

    def test_a_string_that_carries_its_suffix_is_left_alone(self) -> None:
        assert sign_safe_str_tuple(SafeStrTuple("a_btax"), 4).strings == ("a_btax",)

    @pytest.mark.parametrize("part", ["b_btax", "a_BTAX", "a_bta", "a_btaxl", "abtax", "_btax"])
    def test_a_suffix_that_is_not_its_own_is_no_suffix(self, part: str) -> None:
        assert unsign_safe_str_tuple(SafeStrTuple(part), 4).strings == (part,)
        assert sign_safe_str_tuple(SafeStrTuple(part), 4).strings == (part + own_suffix(part, 4),)

    @pytest.mark.parametrize("change", [sign_safe_str_tuple, unsign_safe_str_tuple])
    def test_no_digest_changes_nothing(self, change: Any) -> None:
        key = NonEmptySafeStrTuple("a", "b_", "c_slvv")
        assert change(key, 0) == key

    @pytest.mark.parametrize("change", [sign_safe_str_tuple, unsign_safe_str_tuple])
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_class_of_the_key_is_kept(self, change: Any, kind: type[SafeStrTuple]) -> None:
        assert type(change(kind("a", "b_slvv"), 4)) is kind

    @pytest.mark.parametrize("change", [sign_safe_str_tuple, unsign_safe_str_tuple])
    def test_a_negative_length_is_a_value_error(self, change: Any) -> None:
        with pytest.raises(ValueError):
            change(SafeStrTuple("a"), -1)

    @pytest.mark.parametrize("change", [sign_safe_str_tuple, unsign_safe_str_tuple])
    @pytest.mark.parametrize("digest_len", ["4", 4.0, None], ids=repr)
    def test_a_length_that_is_no_int_is_a_type_error(self, change: Any, digest_len: Any) -> None:
        with pytest.raises(TypeError):
            change(SafeStrTuple("a"), digest_len)


@pytest.mark.parametrize("digest_len", [1, 3, 4, 5, 8, 32])
def test_many_digests_are_those_of_each(digest_len: int) -> None:
    parts = ["a", "A" * 253, *map(str, range(300))]
    assert digests_of(parts, digest_len) == [digest_of(part, digest_len) for part in parts]


@pytest.mark.parametrize("part", ["", ".", "..", "a b", "é", "\udcff", "a/b", "a" * 254])
def test_of_many_parts_one_that_stands_in_no_key_is_noticed(part: str) -> None:
    assert are_safe_parts(["a", "...", "a" * 253])
    assert are_safe_parts([])
    assert not are_safe_parts(["a", part])


def test_many_keys_are_those_of_each() -> None:
    parts = ["a", "b.c"]
    assert checked_keys(parts) == [NonEmptySafeStrTuple(part) for part in parts]
    assert checked_keys([]) == []
