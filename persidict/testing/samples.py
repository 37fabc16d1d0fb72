"""Keys and values that are worth trying on any dictionary."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from persidict.safe_str_tuple_signing import digest_of
from persidict.testing.model import Key

_TEXTS: Final = ("one", "two", "Grüße ☃ 𝄞", "line\r\nline\n", "", " 3 ", "\ufeff\x00")
_VALUES: Final = (
    {"n": [1, 2.5], "nested": {"deep": None}},
    [1, "two", [3]],
    "Grüße ☃ 𝄞\r\n",
    17,
    None,
    ("a", 1),
    "",
    False,
)


def sample_values(serialization_format: str) -> tuple[Any, ...]:
    """Return distinct values that a dictionary of this format can hold.

    Args:
        serialization_format: The dictionary's format.

    Returns:
        At least four values, of which the first is true.
    """
    return _VALUES if serialization_format in ("pkl", "json") else _TEXTS


def with_digest(part: str, digest_len: int) -> str:
    """Return the string with its own digest behind it, even if it carries one already."""
    return f"{part}_{digest_of(part, digest_len)}"


AWKWARD_PARTS: Final[tuple[str, ...]] = (
    *("a", "A", "b", "ab", "a-b", "a.b", "a_", "a__", "_", "__a__"),
    *(with_digest("a", digest_len) for digest_len in (4, 8, 11)),
    *(with_digest(with_digest("a", digest_len), digest_len) for digest_len in (4, 11)),
    *(with_digest("A", 4), with_digest("a_", 4), with_digest("a.pkl", 4)),
    *("a.pkl", "a.pkl.pkl", "a.json", "a.txt", "pkl", ".pkl", with_digest("a", 4) + ".pkl"),
    *(".a", "..a", "a.", "...", ".hidden", "a~", "~a", "~", "a.tmp"),
    *("=", "()", "-", "0", "CON", "nul.txt"),
)
"""Strings that a careless storage takes for one another, or for something else."""

AWKWARD_KEYS: Final[tuple[Key, ...]] = (
    *((part,) for part in AWKWARD_PARTS),
    *((part, "a") for part in AWKWARD_PARTS),
    ("a", "A"),
    ("a", "b"),
    ("a", "a", "a", "a", "a", "a"),
    ("x" * 200,),
)
"""Keys of such strings, also such as are the beginning of others."""

_SAFE_TEXT: Final = st.text(alphabet="abAB019()_-~.=", min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..")
)


def _keys_of(parts: st.SearchStrategy[str]) -> st.SearchStrategy[Key]:
    return st.lists(parts, min_size=1, max_size=3).map(tuple)


def _look_alikes(serialization_format: str) -> tuple[tuple[str, ...], ...]:
    """Return small groups of strings that one mistake is enough to mix up."""
    return (
        ("a", "A"),
        ("a", "ab"),
        ("a", "a_"),
        ("a", with_digest("a", 4), with_digest(with_digest("a", 4), 4)),
        ("a", with_digest("a", 11), with_digest(with_digest("a", 11), 11)),
        ("a", f"a.{serialization_format}"),
        ("a", f"a.{serialization_format}", serialization_format, f".{serialization_format}"),
        (".a", "...", "a~", "a.tmp"),
    )


def groups_of_keys(serialization_format: str) -> st.SearchStrategy[list[Key]]:
    """Return a Hypothesis strategy for two to six keys that provoke collisions.

    Args:
        serialization_format: The format of the dictionary that is to hold them.
    """
    alike = st.sampled_from(_look_alikes(serialization_format)).map(st.sampled_from).map(_keys_of)
    anything = _keys_of(st.one_of(st.sampled_from(AWKWARD_PARTS), _SAFE_TEXT))
    sources = st.one_of(alike, alike, alike, st.just(anything))
    return sources.flatmap(lambda source: st.lists(source, min_size=2, max_size=6, unique=True))
