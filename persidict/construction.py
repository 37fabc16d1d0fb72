"""How dictionaries are constructed, and what is said where that cannot be."""

from __future__ import annotations

import functools
import os
from abc import ABCMeta
from collections.abc import Callable, Collection, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from persidict.urls import hint, parameters_of

_SHOWN: Final = 60
_WORTH_A_HINT: Final = 3
"""Characters; what is shorter resembles anything."""

Method = TypeVar("Method", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)

_OF_COROUTINES: Final = 0x80
"""The flag of their code, `inspect.CO_COROUTINE`; that module takes long to load."""

_POSITIONAL: Final = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL")


class RawToo(ABCMeta):
    """Makes constructors take ``raw=True``, for handles on the stored bytes."""

    if not TYPE_CHECKING:  # the signatures of the constructors hold

        def __call__(cls, *args, raw=False, **params):
            """Construct, and take `raw` of it if that is what is wanted."""
            if raw not in (True, False):
                raise TypeError(f"raw must be True or False, not {raw!r:.80}")
            cls._mask(params)
            try:
                made = super().__call__(*args, **params)
            except TypeError as error:
                was_entered = error.__traceback__.tb_next is not None
                if not was_entered:
                    _explain(cls, args, params)
                raise
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


def names_its_arguments(method: Method) -> Method:
    """Have a function that takes most by name say so to who calls it otherwise.

    Costs a call of a function more, well below 1 us.
    """

    @functools.wraps(method)
    def called(*args: Any, **named: Any) -> Any:
        try:
            return method(*args, **named)
        except TypeError as error:
            was_entered = error.__traceback__ is None or error.__traceback__.tb_next is not None
            if not was_entered:
                _explain_call(method, args, named)
            raise

    @functools.wraps(method)
    async def awaited(*args: Any, **named: Any) -> Any:
        return await called(*args, **named)

    is_awaited = method.__code__.co_flags & _OF_COROUTINES
    return awaited if is_awaited else called  # type: ignore[return-value]


def all_name_their_arguments(cls: Class) -> Class:
    """Have the constructor and methods of a class that take something by name say so."""
    for name, method in list(vars(cls).items()):
        is_public = name == "__init__" or not name.startswith("_")
        if is_public and isinstance(method, FunctionType) and method.__code__.co_kwonlyargcount:
            setattr(cls, name, names_its_arguments(method))
    return cls


def _explain_call(
    method: Callable[..., Any], args: Sequence[object], named: Mapping[str, object]
) -> None:
    """Raise a TypeError that says what a method is to be called with."""
    from inspect import signature  # which takes long to load

    known = list(signature(method).parameters.values())
    if known[0].name == "self":
        known, args = known[1:], args[1:]
    by_position = [each.name for each in known if each.kind.name in _POSITIONAL]
    names = [each.name for each in known if each.name not in by_position]
    needed = [each.name for each in known if each.default is each.empty]
    call = method.__name__
    if call == "__init__":
        call = method.__qualname__.split(".")[-2]
    unknown = [name for name in named if name not in (*by_position, *names)]
    if unknown:
        raise TypeError(
            f"{call} has no argument {unknown[0]!r}{hint(unknown[0], [*by_position, *names])};"
            f" it has {', '.join([*by_position, *names])}"
        ) from None
    given = [*by_position[: len(args)], *names[: max(0, len(args) - len(by_position))], *named]
    shown = [name for name in names if name in needed or name in given]
    written = ", ".join([*by_position, *(f"{name}=..." for name in shown)])
    if len(args) > len(by_position):
        raise TypeError(f"the arguments of {call} have names: write {call}({written})") from None
    missing = [name for name in needed if name not in given]
    if missing:
        raise TypeError(f"{call} lacks {', '.join(missing)}: write {call}({written})") from None
