"""How dictionaries are constructed, and what is said where that cannot be."""

from __future__ import annotations

import os
from abc import ABCMeta
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from persidict.urls import hint, parameters_of

_SHOWN: Final = 60
_WORTH_A_HINT: Final = 3
"""Characters; what is shorter resembles anything."""

_POSITIONAL: Final = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL")


class RawToo(ABCMeta):
    """Makes constructors take ``raw=True``, for handles on the stored bytes."""

    if not TYPE_CHECKING:  # the signatures of the constructors hold

        def __call__(cls, *args, raw=False, **params):
            """Construct, and take `raw` of it if that is what is wanted."""
            cls._mask(params)
            try:
                made = super().__call__(*args, **params)
            except TypeError as error:
                was_entered = error.__traceback__.tb_next is not None
                if not was_entered:
                    _explain(cls, args, params)
                raise
            if raw not in (True, False):
                raise TypeError(f"raw must be True or False, not {raw!r:.80}")
            return made.raw if raw else made


def _explain(cls: type, args: Sequence[object], params: Collection[str]) -> None:
    """Raise a TypeError that says what to write instead, if arguments do not fit."""
    known = parameters_of(cls)
    kinds = {parameter.kind.name for parameter in known.values()}
    if args and kinds.isdisjoint(_POSITIONAL):
        raise TypeError(_instead_of(cls, args, list(known))) from None
    unknown = [name for name in params if name not in known]
    if unknown and "VAR_KEYWORD" not in kinds:
        meant = hint(unknown[0], known) if len(unknown[0]) >= _WORTH_A_HINT else ""
        raise TypeError(
            f"a {cls.__name__} has no parameter {unknown[0]!r}{meant};"
            f" it has {', '.join(sorted(known))}"
        ) from None


def _instead_of(cls: type, args: Sequence[object], names: Sequence[str]) -> str:
    name = cls.__name__
    if type(args[0]) in (dict, list, tuple) and len(args) == 1:
        return f"a {name} is made without items: make it, then store them with update(...)"
    first = args[0]
    # what comes behind the first one may be a secret, and is not shown
    shown = f"{first!r:.{_SHOWN}}" if isinstance(first, (str, os.PathLike)) else "..."
    written = [f"{names[0]}={shown}", *(f"{each}=..." for each in names[1 : len(args)])]
    return f"the arguments of {name} have names: write {name}({', '.join(written)})"
