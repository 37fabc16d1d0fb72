"""Names of stored objects: from keys to names and back, one to one."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from persidict.contract.primitives import KeyRange
from persidict.safe_str_tuple import (
    NonEmptySafeStrTuple,
    SafeStrTuple,
    are_safe_parts,
    checked_key,
    checked_keys,
    is_safe_part,
    key_of_safe_string,
)
from persidict.safe_str_tuple_signing import (
    digest_len_of,
    digest_of,
    digests_of,
    without_digest,
)

_CACHED_PARTS: Final = 1 << 15
_ESCAPE: Final = "%"
_LOOKS_FOR_DIGESTS: Final = 3
"""So many names in a row that end in their own digests do not do so by chance."""

_BEHIND_SLASH: Final = "0"
"""The character behind the slash: names below ``a/`` are less than ``a0``."""

_digest_of = lru_cache(maxsize=_CACHED_PARTS)(digest_of)


class Stretch(NamedTuple):
    """Names in their order, behind one and before another; None: no bound, in any order."""

    start_after: str | None
    end: str | None


def _part_at(bound: tuple[str, ...] | None, prefix: tuple[str, ...]) -> str | None:
    """Return the part of a bound that stands behind a prefix, None if there is none."""
    level = len(prefix)
    if bound is None or len(bound) <= level or bound[:level] != prefix:
        return None
    return bound[level]


class KeyNaming(ABC):
    """How the keys of one dictionary become names in its store.

    Args:
        serialization_format: The extension of the names.
    """

    def __init__(self, serialization_format: str) -> None:
        self._extension = f".{serialization_format}"
        self._stem_end = -len(self._extension)

    @abstractmethod
    def name_of(self, key: NonEmptySafeStrTuple) -> str:
        """Return the name of a key's object."""

    @abstractmethod
    def key_of(self, name: str) -> NonEmptySafeStrTuple | None:
        """Return the key whose object has this name, None if no key's has."""

    def end_listing(self) -> None:  # noqa: B027  # nothing is noted by most
        """Take note that a listing has ended, all of whose names `key_of` was asked for."""

    def keys_in(self, above: str, names: Sequence[str]) -> list[NonEmptySafeStrTuple]:
        """Return the keys whose objects have these names, each behind the same beginning."""
        key_of = self.key_of
        return [key for name in names if (key := key_of(above + name)) is not None]

    def named_keys_in(
        self, above: str, names: Sequence[str]
    ) -> Iterable[tuple[NonEmptySafeStrTuple, str]]:
        """Return what `keys_in` does, each key with the whole name of its object."""
        key_of = self.key_of
        whole_names = map(above.__add__, names)
        return [(key, name) for name in whole_names if (key := key_of(name)) is not None]

    @abstractmethod
    def prefix_of(self, prefix: SafeStrTuple) -> str:
        """Return how the names of all keys begin that are longer than a prefix they have."""

    def stretches(self, key_range: KeyRange) -> list[Stretch]:
        """Return where to look for the keys in a range, below the name of its prefix.

        What lies there may include other keys, but misses none.
        """
        return [Stretch(None, None)]


class PlainNaming(KeyNaming):
    """The parts of the key, joined by slashes, and the extension: for RAM and S3.

    Examples:
        >>> PlainNaming("pkl").name_of(NonEmptySafeStrTuple("a", "b"))
        'a/b.pkl'
    """

    def name_of(self, key: NonEmptySafeStrTuple) -> str:
        """Return the name of the object that holds an item; see KeyNaming."""
        strings = key.strings
        return (strings[0] if len(strings) == 1 else "/".join(strings)) + self._extension

    def key_of(self, name: str) -> NonEmptySafeStrTuple | None:
        """Return the key that a name belongs to, or None; see KeyNaming."""
        if not name.endswith(self._extension):
            return None
        stem = name[: self._stem_end]
        if "/" not in stem:
            return key_of_safe_string(stem)
        parts = tuple(stem.split("/"))
        if not all(map(is_safe_part, parts)):
            return None
        return checked_key(parts)

    def prefix_of(self, prefix: SafeStrTuple) -> str:
        """Return what the names below a prefix begin with; see KeyNaming."""
        return "/".join((*prefix.strings, ""))

    def stretches(self, key_range: KeyRange) -> list[Stretch]:
        """Return stretches of names; see KeyNaming.

        Names are not in the order of keys: ``a-b.pkl`` comes before ``a.pkl`` and that
        before ``a/b.pkl``. So a part that begins like the bound, but is shorter, may have
        its names behind those of the bound: each such part gets a stretch of its own.
        """
        level = len(key_range.prefix)
        below = self.prefix_of(SafeStrTuple(*key_range.prefix))
        first = _part_at(key_range.start, key_range.prefix)
        last = _part_at(key_range.stop, key_range.prefix)
        start_after = below + (first or "")
        if last is None:
            return [Stretch(None if first is None else start_after, None)]
        has_more_parts = key_range.stop is not None and len(key_range.stop) > level + 1
        found = [Stretch(start_after, below + last + (_BEHIND_SLASH if has_more_parts else ""))]
        for length in range(1, len(last)):
            shorter = last[:length]
            if last[length] < _BEHIND_SLASH and (first is None or shorter >= first):
                found.append(Stretch(f"{below}{shorter}.", f"{below}{shorter}{_BEHIND_SLASH}"))
        return found


class AzureNaming(PlainNaming):
    """As PlainNaming, but a directory whose name ends with a dot is marked with ``%``.

    Azure leaves out dots before a slash, so that the keys ``a., b`` and ``a, b`` would be one.

    Examples:
        >>> AzureNaming("pkl").name_of(NonEmptySafeStrTuple("a.", "b."))
        'a.%/b..pkl'
    """

    def name_of(self, key: NonEmptySafeStrTuple) -> str:
        """Return the name of the object that holds an item; see KeyNaming."""
        return super().name_of(key).replace("./", ".%/")

    def key_of(self, name: str) -> NonEmptySafeStrTuple | None:
        """Return the key that a name belongs to, or None; see KeyNaming."""
        return None if "./" in name else super().key_of(name.replace(".%/", "./"))

    def prefix_of(self, prefix: SafeStrTuple) -> str:
        """Return what the names below a prefix begin with; see KeyNaming."""
        return super().prefix_of(prefix).replace("./", ".%/")


class FileNaming(KeyNaming):
    """As PlainNaming, but each part carries a digest of itself: for files.

    The digest keeps apart on case-insensitive file systems what differs only in case. A
    directory whose name would end like a file's, of this format, ``pkl`` or ``json``, is
    marked with ``%``, so that the keys ``a`` and ``a.pkl, b`` can exist side by side, also in
    dictionaries of different formats. Without digests, so are the files of a format with a
    dot in it, which would otherwise be those of its last part, too: ``a.tar`` in ``gz``, and
    ``a`` in ``tar.gz``.

    Args:
        serialization_format: The extension of the names.
        digest_len: How many characters of digest a part gets; 0: none.

    Examples:
        >>> FileNaming("pkl", 4).name_of(NonEmptySafeStrTuple("a", "b"))
        'a_btax/b_slvv.pkl'
    """

    def __init__(self, serialization_format: str, digest_len: int) -> None:
        super().__init__(serialization_format)
        self._digest_len = digest_len
        if not digest_len and "." in serialization_format:
            self._extension = _ESCAPE + self._extension
            self._stem_end = -len(self._extension)
        self._has_met_own = False
        self._unsigned_name: str | None = None
        self._signed_name: tuple[str, int] | None = None
        self._looks_left = 0 if digest_len else _LOOKS_FOR_DIGESTS
        self._has_warned = False

    def name_of(self, key: NonEmptySafeStrTuple) -> str:
        """Return the name of the object that holds an item; see KeyNaming."""
        strings = key.strings
        last = strings[-1]
        if self._digest_len:
            last = f"{last}_{_digest_of(last, self._digest_len)}"
        if len(strings) == 1:
            return last + self._extension
        return f"{self._directories(strings[:-1])}{last}{self._extension}"

    def key_of(self, name: str) -> NonEmptySafeStrTuple | None:
        """Return the key that a name belongs to, or None; see KeyNaming."""
        if not name.endswith(self._extension):
            return None
        directories, _, last = name[: self._stem_end].rpartition("/")
        if self._digest_len:
            part = without_digest(last, self._digest_len)
            if part is None:
                self._note_stranger(name, last)
                return None
        else:
            part = last
            if self._looks_left:
                self._look_for_digest(name, last)
        if not is_safe_part(part):
            return None
        self._has_met_own = True
        if not directories:
            return checked_key((part,))
        above = _parts_of_directories(directories, self._digest_len, self._extension)
        return None if above is None else checked_key((*above, part))

    def keys_in(self, above: str, names: Sequence[str]) -> list[NonEmptySafeStrTuple]:
        """Return keys by the files of one directory, of which many may have been seen before."""
        keys = self._keys_of_directory(above, names)
        return super().keys_in(above, names) if keys is None else keys

    def named_keys_in(
        self, above: str, names: Sequence[str]
    ) -> Iterable[tuple[NonEmptySafeStrTuple, str]]:
        """Return keys and names by the files of one directory; see KeyNaming."""
        keys = self._keys_of_directory(above, names)
        if keys is None:
            return super().named_keys_in(above, names)
        return zip(keys, map(above.__add__, names) if above else names, strict=False)

    def _keys_of_directory(
        self, above: str, names: Sequence[str]
    ) -> list[NonEmptySafeStrTuple] | None:
        """Return the keys of the files of a directory, in their order; None if in doubt.

        It is empty if the directory's own name is not one that is made of keys.
        """
        flat = self._keys_of_files(names) if self._digest_len else None
        if flat is None:
            return None
        if flat:
            self._has_met_own = True
        if not above:
            return flat
        first = _parts_of_directories(above[:-1], self._digest_len, self._extension)
        return [] if first is None else [checked_key(first + key.strings) for key in flat]

    def _keys_of_files(self, names: Sequence[str]) -> list[NonEmptySafeStrTuple] | None:
        """Return keys of one string by the names of files, None if not all are those of keys."""
        known = _seen(self._digest_len, self._extension)
        try:
            return list(map(known.__getitem__, names))
        except KeyError:
            pass  # not all have been seen
        end = -(1 + self._digest_len + len(self._extension))
        parts = [name[:end] for name in names]
        if not are_safe_parts(parts):
            return None
        digests = digests_of(parts, self._digest_len)
        signed = zip(parts, digests, strict=True)
        if [f"{part}_{digest}{self._extension}" for part, digest in signed] != list(names):
            return None
        keys = checked_keys(parts)
        if len(known) + len(keys) > _CACHED_PARTS:
            known.clear()
        if len(keys) <= _CACHED_PARTS:
            known.update(zip(names, keys, strict=True))
        return keys

    def end_listing(self) -> None:
        """Warn if all names that were met are those of another length; see KeyNaming."""
        if self._signed_name is not None:
            self._warn(*self._signed_name)
        elif self._unsigned_name is not None and not self._has_met_own:
            self._warn(self._unsigned_name, 0)

    def _note_stranger(self, name: str, last: str) -> None:
        """Look whether a name that is no key's would be one with digests of another length."""
        other = digest_len_of(last)
        if other:
            self._warn(name, other)
        elif self._unsigned_name is None and is_safe_part(last):
            self._unsigned_name = name

    def _look_for_digest(self, name: str, last: str) -> None:
        """Look whether the first names that are met end in digests, which are no part of keys."""
        other = digest_len_of(last)
        self._looks_left = self._looks_left - 1 if other else 0
        self._signed_name = (name, other) if other else None

    def _warn(self, name: str, other: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"the file {name!r} was written with digest_len={other}, it seems: a dictionary"
                f" with digest_len={self._digest_len} does not find its item"
                + ("" if self._digest_len else ", and takes the digest for a part of the key"),
                stacklevel=2,
            )

    def prefix_of(self, prefix: SafeStrTuple) -> str:
        """Return what the names below a prefix begin with; see KeyNaming."""
        return self._directories(prefix.strings)

    def _directories(self, parts: tuple[str, ...]) -> str:
        return _directories(parts, self._digest_len, self._extension)


@lru_cache(maxsize=64)
def _seen(digest_len: int, extension: str) -> dict[str, NonEmptySafeStrTuple]:
    """Return the keys of those names of files that have been seen, of one length and extension."""
    return {}


@lru_cache(maxsize=_CACHED_PARTS)
def _directories(parts: tuple[str, ...], digest_len: int, extension: str) -> str:
    names = [f"{part}_{digest_of(part, digest_len)}" if digest_len else part for part in parts]
    ends = _ends_of_files(extension)
    return "".join(f"{name}{_ESCAPE}/" if name.endswith(ends) else f"{name}/" for name in names)


def _ends_of_files(extension: str) -> tuple[str, ...]:
    """Return how the names of files end, as far as directories must not look like them."""
    return extension.removeprefix(_ESCAPE), ".pkl", ".json"


@lru_cache(maxsize=_CACHED_PARTS)
def _parts_of_directories(
    directories: str, digest_len: int, extension: str
) -> tuple[str, ...] | None:
    parts = []
    ends = _ends_of_files(extension)
    for name in directories.split("/"):
        bare = name.removesuffix(_ESCAPE)
        if bare.endswith(ends) != (bare != name):
            return None
        part = without_digest(bare, digest_len) if digest_len else bare
        if part is None or not is_safe_part(part):
            return None
        parts.append(part)
    return tuple(parts)
