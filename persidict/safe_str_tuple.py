"""Keys: flat, immutable sequences of safe strings."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, TypeAlias, TypeVar

from persidict.buffers import BUFFERS
from persidict.safe_chars import SAFE_STRING_MAX_LENGTH

_SAFE_CHARACTER: Final = r"[A-Za-z0-9()_\-~.=]"
_is_safe_string: Final = re.compile(
    rf"{_SAFE_CHARACTER}{{1,{SAFE_STRING_MAX_LENGTH - 1}}}"
).fullmatch
_are_safe_characters: Final = re.compile(f"{_SAFE_CHARACTER}*").fullmatch
_IN_NO_KEY: Final = frozenset({"", ".", ".."})
_CACHED_KEYS: Final = 1 << 15
_set: Final = object.__setattr__


def is_safe_part(part: str) -> bool:
    """Tell whether a string may stand in a key."""
    return _is_safe_string(part) is not None and part != "." and part != ".."


def are_safe_parts(parts: Sequence[str]) -> bool:
    """Tell whether each of many strings may stand in a key."""
    return (
        _are_safe_characters("".join(parts)) is not None
        and _IN_NO_KEY.isdisjoint(parts)
        and max(map(len, parts), default=0) < SAFE_STRING_MAX_LENGTH
    )


def _check_string(part: str) -> str:
    """Return the part as an exact `str`, or raise ValueError that says what is wrong."""
    if is_safe_part(part):
        return part if type(part) is str else str.__str__(part)
    if not part:
        raise ValueError("key: a string in a key must not be empty")
    if len(part) >= SAFE_STRING_MAX_LENGTH:
        raise ValueError(
            f"key: a string in a key has at most {SAFE_STRING_MAX_LENGTH - 1} characters,"
            f" this one has {len(part)}: {part[:40]!r}..."
        )
    if part in (".", ".."):
        raise ValueError(f"key: {part!r} is not allowed as a string in a key")
    unsafe = sorted({c for c in part if not _is_safe_string(c)})
    raise ValueError(
        f"key: {part!r} contains {''.join(unsafe)!r}; allowed are ASCII letters, digits"
        " and ()_-~.= (see escape_key)"
    )


def _flatten(part: Any, into: list[str]) -> None:
    """Append the strings in a string, key or (nested) sequence, left to right."""
    if isinstance(part, str):
        into.append(_check_string(part))
    elif isinstance(part, SafeStrTuple):
        into.extend(part.strings)
    elif isinstance(part, Sequence) and not isinstance(part, BUFFERS):
        for inner in part:
            _flatten(inner, into)
    else:
        raise TypeError(
            "key: a key is made of strings and sequences of strings,"
            f" not of {type(part).__name__} ({part!r:.80})"
        )


class SafeStrTuple(Sequence[str]):
    """An immutable, hashable, flat sequence of safe strings.

    A subclass may have a constructor and attributes of its own. Sums and reversals are plain.
    Pickles, and the JSON that jsonpickle writes, hold the strings and what attributes there
    are; reading them checks the strings and calls no constructor.

    Args:
        *parts: Strings, SafeStrTuples, or (nested) sequences of them, flattened left to
            right. Each string has 1 to 253 characters, all of them ASCII letters, digits
            or ``()_-~.=``, and is neither ``.`` nor ``..``.

    Raises:
        ValueError: A string is empty, too long, unsafe, ``.`` or ``..``; or the sequences
            are nested endlessly.
        TypeError: A part is neither a string nor a sequence.

    Examples:
        >>> SafeStrTuple("a", ["b", ("c",)])
        SafeStrTuple('a', 'b', 'c')
        >>> SafeStrTuple("a") + "b" == ("a", "b")
        True
    """

    strings: tuple[str, ...]

    def __init__(self, *parts: Any) -> None:
        _set(self, "strings", self._flat(parts))

    @staticmethod
    def _flat(parts: Any) -> tuple[str, ...]:
        """Return the strings in some parts, left to right, or raise what is wrong with them."""
        flat: list[str] = []
        try:
            for part in parts:
                _flatten(part, flat)
        except RecursionError:
            raise ValueError(
                "key: the sequences are nested too deeply, or contain themselves"
            ) from None
        return tuple(flat)

    @property
    def str_chain(self) -> tuple[str, ...]:
        """The strings, under their old name."""
        return self.strings

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "strings" and "strings" not in self.__dict__:
            _set(self, name, self._flat(value))  # jsonpickle restores an object in this way
        elif name in ("strings", "str_chain") or self._is_plain():
            raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")
        else:
            _set(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name in ("strings", "str_chain") or self._is_plain():
            raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")
        object.__delattr__(self, name)

    def _is_plain(self) -> bool:
        return type(self) in (SafeStrTuple, NonEmptySafeStrTuple)

    def __setstate__(self, state: Any) -> None:
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        attributes = dict(attributes or {})
        _set(self, "strings", self._flat(attributes.pop("strings", ())))
        self.__dict__.update(attributes)
        for name, value in (slots or {}).items():
            _set(self, name, value)

    def __getitem__(self, index: Any) -> Any:
        return self.strings[index]

    def __len__(self) -> int:
        return len(self.strings)

    def __iter__(self) -> Iterator[str]:
        return iter(self.strings)

    def __contains__(self, item: object) -> bool:
        return item in self.strings

    def __reversed__(self) -> Any:
        return self._plain(self.strings[::-1])

    def _plain(self, *parts: Any) -> SafeStrTuple:
        is_key = isinstance(self, NonEmptySafeStrTuple)
        return NonEmptySafeStrTuple(*parts) if is_key else SafeStrTuple(*parts)

    def __hash__(self) -> int:
        return hash(self.strings)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SafeStrTuple):
            if (
                type(other).__eq__ is not SafeStrTuple.__eq__
                and type(self).__eq__ is SafeStrTuple.__eq__
            ):
                return NotImplemented
            return self.strings == other.strings
        if isinstance(other, tuple) and self.strings == other:
            return True
        if isinstance(other, (str, Sequence)) and not isinstance(other, (Mapping, Set)):
            try:
                return self.strings == SafeStrTuple(other).strings
            except (TypeError, ValueError):
                return False
        return False

    def __lt__(self, other: object) -> bool:
        return self.strings < other.strings if isinstance(other, SafeStrTuple) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.strings <= other.strings if isinstance(other, SafeStrTuple) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self.strings > other.strings if isinstance(other, SafeStrTuple) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return self.strings >= other.strings if isinstance(other, SafeStrTuple) else NotImplemented

    def __add__(self, other: Any) -> Any:
        return self._plain(self, other)

    def __radd__(self, other: Any) -> Any:
        return self._plain(other, self)

    def __copy__(self) -> SafeStrTuple:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SafeStrTuple:
        return self

    def __repr__(self) -> str:
        strings = getattr(self, "strings", ())  # which it has not got before it is checked
        return f"{type(self).__name__}({', '.join(map(repr, strings))})"


class NonEmptySafeStrTuple(SafeStrTuple):
    """A SafeStrTuple with at least one string: what every item of a dictionary is kept under.

    Raises:
        ValueError: As SafeStrTuple, and when there is no string at all.

    Examples:
        >>> NonEmptySafeStrTuple("users", "ann")
        NonEmptySafeStrTuple('users', 'ann')
    """

    @staticmethod
    def _flat(parts: Any) -> tuple[str, ...]:
        flat = SafeStrTuple._flat(parts)
        if not flat:
            raise ValueError("key: a key must contain at least one string")
        return flat


PersiDictKey: TypeAlias = SafeStrTuple | Sequence[Any] | str
"""What is accepted as a prefix of keys."""

KeyType = TypeVar("KeyType", bound=SafeStrTuple)

NonEmptyPersiDictKey: TypeAlias = NonEmptySafeStrTuple | Sequence[Any] | str
"""What is accepted as a key."""


def checked_key(
    strings: tuple[str, ...], _new: Any = object.__new__, _set: Any = object.__setattr__
) -> NonEmptySafeStrTuple:
    """Make a key of strings that are known to be safe, without a second look."""
    key: NonEmptySafeStrTuple = _new(NonEmptySafeStrTuple)
    _set(key, "strings", strings)
    return key


@lru_cache(maxsize=_CACHED_KEYS)
def _key_of_string(string: str) -> NonEmptySafeStrTuple:
    if _is_safe_string(string) and string != "." and string != "..":
        return checked_key((string,))
    return NonEmptySafeStrTuple(string)


def as_prefix(name: str, strings: Any) -> SafeStrTuple:
    """Return what an argument that bounds or begins keys is made of, which may be nothing.

    Raises:
        TypeError, ValueError: It is no sequence of safe strings; the error names it.
    """
    return _named(name, SafeStrTuple, strings)


def named_key(name: str, key: Any) -> NonEmptySafeStrTuple:
    """Return an argument that is a key, and not called `key`, in its checked form.

    Raises:
        TypeError, ValueError: As NonEmptySafeStrTuple; the error names the argument.
    """
    return _named(name, as_key, key)


def _named(name: str, check: Callable[[Any], KeyType], given: Any) -> KeyType:
    try:
        return check(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {str(error).removeprefix('key: ')}") from None


def checked_keys(parts: Sequence[str]) -> list[NonEmptySafeStrTuple]:
    """Make keys of one string each, all known to be safe, in less time than one by one."""
    keys = list(map(object.__new__, repeat(NonEmptySafeStrTuple, len(parts))))
    deque(map(_set, keys, repeat("strings"), zip(parts, strict=False)), maxlen=0)
    return keys


@lru_cache(maxsize=_CACHED_KEYS)
def key_of_safe_string(string: str) -> NonEmptySafeStrTuple | None:
    """Return the key of one string, None if it may not stand in a key."""
    return checked_key((string,)) if is_safe_part(string) else None


def as_key(key: Any) -> NonEmptySafeStrTuple:
    """Return the key in its checked form; one that is checked already is not looked at again.

    Raises:
        ValueError, TypeError: As NonEmptySafeStrTuple.
    """
    if type(key) is NonEmptySafeStrTuple:
        return key
    if type(key) is str:
        return _key_of_string(key)
    if isinstance(key, NonEmptySafeStrTuple):
        return key
    return NonEmptySafeStrTuple(key)
