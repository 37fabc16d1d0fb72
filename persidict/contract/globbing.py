"""Keys by patterns, as file names are found by them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate
from typing import Final

from persidict.contract.primitives import DictPrimitives, KeyRange
from persidict.safe_chars import SAFE_CHARS_SET
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple, checked_key

_ANY_PARTS: Final = "**"
_IN_ORDER: Final = sorted(SAFE_CHARS_SET)

_WILD: Final = re.compile(r"\[!?\]?[^\]]*\]|[*?]")


class GlobPattern:
    """A pattern of keys, one for each of their strings.

    In a string, ``*`` stands for any characters, ``?`` for any one, ``[abc]`` and ``[a-c]``
    for one of some, ``[!abc]`` for one of all others; ``**`` alone for any number of strings,
    none included.

    Args:
        pattern: The patterns of the strings, with slashes between them, or a sequence.

    Raises:
        TypeError: It is neither.
        ValueError: It is empty, or no key can match it.

    Attributes:
        prefix: The strings that it begins with, as far as they are no patterns.
        start: The first key that may match, None: no bound.
        stop: A key behind all that may match, None: no bound.
    """

    def __init__(self, pattern: str | Sequence[str] | SafeStrTuple) -> None:
        self._parts = _parts_of(pattern)
        literal = next((n for n, part in enumerate(self._parts) if _WILD.search(part)), None)
        self.prefix = tuple(self._parts[:literal])
        self.key = checked_key(self.prefix) if literal is None else None
        self.start: tuple[str, ...] | None = None
        self.stop: tuple[str, ...] | None = None
        if literal is not None and self._parts[literal] != _ANY_PARTS:
            begin = _WILD.split(self._parts[literal])[0]
            if begin:
                self.start = (*self.prefix, begin)
                behind = _behind(begin)
                self.stop = None if behind is None else (*self.prefix, behind)
        self._tests = [
            None if part == _ANY_PARTS else re.compile(translate(part)) for part in self._parts
        ]

    def matches(self, key: NonEmptySafeStrTuple) -> bool:
        """Tell whether a key matches."""
        strings = key.strings
        reached = {0}
        for test in self._tests:
            if test is None:
                reached = set(range(min(reached), len(strings) + 1))
            else:
                reached = {n + 1 for n in reached if n < len(strings) and test.match(strings[n])}
            if not reached:
                return False
        return len(strings) in reached


def _parts_of(pattern: str | Sequence[str] | SafeStrTuple) -> list[str]:
    if isinstance(pattern, str):
        parts = pattern.split("/")
    elif isinstance(pattern, (Sequence, SafeStrTuple)):
        parts = list(pattern)
    else:
        raise TypeError(
            f"pattern must be a str or a sequence of them, not {type(pattern).__name__}"
        )
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(
                f"pattern must be a str or a sequence of them, not {type(part).__name__}"
            )
        unsafe = set(_WILD.sub("", part)) - SAFE_CHARS_SET
        if not part or part in (".", "..") or unsafe:
            why = f"{''.join(sorted(unsafe))!r} stands in no key" if unsafe else f"{part!r} is none"
            raise ValueError(f"pattern {pattern!r:.80}: {why}")
        if _ANY_PARTS in part and part != _ANY_PARTS:
            raise ValueError(f"pattern {pattern!r:.80}: '**' must stand alone between slashes")
    if not parts:
        raise ValueError("pattern must not be empty")
    return list(parts)


def _behind(begin: str) -> str | None:
    """Return a safe string that is greater than all that begin in some way, None: there is none."""
    for cut in range(len(begin) - 1, -1, -1):
        for character in _IN_ORDER:
            found = begin[:cut] + character
            if character > begin[cut] and found not in (".", ".."):
                return found
    return None


class GlobOperations(DictPrimitives):
    """Finding keys by patterns, written once on the primitives."""

    def glob(self, pattern: str | Sequence[str] | SafeStrTuple) -> Iterator[NonEmptySafeStrTuple]:
        """Iterate over the keys that match a pattern, in their order.

        Costs what listing the range costs that the literal beginning of the pattern makes:
        of ``"2026/*/loss"`` what lies below ``2026`` alone, of ``"2026/1*/loss"`` on S3, in a
        cloud or a database what begins so; without anything wild, a look at one item.

        Args:
            pattern: As for file names: strings between slashes, in which ``*`` stands for any
                characters, ``?`` for one, ``[abc]`` for one of some and ``[!abc]`` for one of
                all others; ``**`` alone stands for any number of strings. Or a sequence.

        Raises:
            TypeError: The pattern is neither a str nor a sequence of them.
            ValueError: It is empty, or has characters that stand in no key.

        Examples:
            >>> from persidict import LocalDict
            >>> d = LocalDict()
            >>> d.update({("2026", "may", "loss"): 1, ("2026", "may", "time"): 2})
            >>> list(d.glob("2026/*/loss"))
            [NonEmptySafeStrTuple('2026', 'may', 'loss')]
        """
        return self._found_by(GlobPattern(pattern))

    def _found_by(self, pattern: GlobPattern) -> Iterator[NonEmptySafeStrTuple]:
        if pattern.key is not None:
            if self._contains(pattern.key):
                yield pattern.key
            return
        for key in self._keys_in(KeyRange(pattern.prefix, pattern.start, pattern.stop)):
            if pattern.matches(key):
                yield key
