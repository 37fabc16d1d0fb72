"""The decorator, and what it makes of functions."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Iterable
from threading import TIMEOUT_MAX
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast, overload

from persidict.checks import check_flag, check_number
from persidict.codecs.codec import check_installed
from persidict.construction import names_its_arguments
from persidict.expiring_dict import ExpiringDict
from persidict.memoization.claims import Claims, check_holds_claims
from persidict.memoization.memo import Memo, MemoizeInfo
from persidict.memoization.steps import Call, Compute, Steps
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptyPersiDictKey, NonEmptySafeStrTuple, SafeStrTuple

Arguments = ParamSpec("Arguments")
Others = ParamSpec("Others")
Result = TypeVar("Result")
Returned = TypeVar("Returned")
Result_co = TypeVar("Result_co", covariant=True)


class MemoizedFunction(Protocol[Arguments, Result_co]):
    """A function whose results are kept."""

    __wrapped__: Callable[..., Any]

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result_co:
        """Return the result that is kept, after computing and keeping it if there is none."""

    @overload
    def __get__(self, instance: None, owner: Any, /) -> Self: ...
    @overload
    def __get__(
        self: MemoizedFunction[Concatenate[Any, Others], Returned], instance: object, owner: Any, /
    ) -> Callable[Others, Returned]: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any:
        """Return the method of an object, or of a class the function."""

    def call(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result_co:
        """Compute the result, whatever is kept, and keep it in its place."""

    def forget(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> bool:
        """Delete the result that is kept; return whether there was one."""

    def key_for(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> NonEmptySafeStrTuple:
        """Return the key that the result is kept under."""

    def cache_info(self) -> MemoizeInfo:
        """Tell what has become of the calls in this process."""


class MemoizedCoroutine(Protocol[Arguments, Result_co]):
    """A coroutine function whose results are kept; see MemoizedFunction."""

    __wrapped__: Callable[..., Any]

    def __call__(
        self, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Coroutine[Any, Any, Result_co]:
        """Return the result that is kept, after computing and keeping it if there is none."""

    @overload
    def __get__(self, instance: None, owner: Any, /) -> Self: ...
    @overload
    def __get__(
        self: MemoizedCoroutine[Concatenate[Any, Others], Returned], instance: object, owner: Any, /
    ) -> Callable[Others, Coroutine[Any, Any, Returned]]: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any:
        """Return the method of an object, or of a class the function."""

    def call(
        self, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Coroutine[Any, Any, Result_co]:
        """Compute the result, whatever is kept, and keep it in its place."""

    def forget(
        self, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Coroutine[Any, Any, bool]:
        """Delete the result that is kept; return whether there was one."""

    def key_for(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> NonEmptySafeStrTuple:
        """Return the key that the result is kept under."""

    def cache_info(self) -> MemoizeInfo:
        """Tell what has become of the calls in this process."""


class Memoizer(Protocol):
    """A decorator of functions and coroutine functions."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # coroutine functions are functions, too
        self, function: Callable[Arguments, Coroutine[Any, Any, Result]]
    ) -> MemoizedCoroutine[Arguments, Result]: ...

    @overload
    def __call__(
        self, function: Callable[Arguments, Result]
    ) -> MemoizedFunction[Arguments, Result]: ...


@names_its_arguments
def memoize(
    d: PersiDict[Any],
    *,
    key: Callable[..., NonEmptyPersiDictKey] | None = None,
    ignore: Iterable[str] = (),
    version: str = "",
    once: bool = False,
    ttl: float | None = None,
    exceptions: type[Exception] | tuple[type[Exception], ...] = (),
    lease: float = 20.0,
    claims: PersiDict[str] | None = None,
) -> Memoizer:
    """Return a decorator that keeps what a function or coroutine function returns.

    A result is kept as an item of the dictionary, under the module and name of the function,
    the version, and a hash of the arguments. Whoever calls the same function with equal
    arguments, in whatever process, machine or run, finds it there. Of several that compute the
    same at once, the first to be stored wins, and all return that.

    Not part of the key is what the function takes from elsewhere: global variables, variables
    of a function around it, its own code. A change of these is said by another version.

    Costs: on a hit one read; on a miss an insertion more; with `once` a claim, another read,
    and a deletion more, and for those who wait a look now and then.

    Args:
        d: Where results are kept.
        key: Called with the arguments, returns the key that tells them apart, in place of a
            hash: a string or a sequence of strings.
        ignore: Names of parameters that make no difference.
        version: Tells results of different versions of the function apart.
        once: Whether of all callers anywhere only one computes at a time, and the others wait
            for what it finds. It shows that it is alive as long as it computes; when it is
            killed, one of the others takes its place after the time of `lease`. An exception
            in it makes one of the others try.
        ttl: After how many seconds a result is computed anew; None: never.
        exceptions: Exceptions that are kept like results, and raised again. By default none
            is. Needs a dictionary of format ``"pkl"``.
        lease: With `once`, for how many seconds a claim stands without a sign of life. Code that
            keeps Python from running for longer is taken for dead.
        claims: With `once`, where claims are kept while somebody computes; None: in `d`.

    Returns:
        The decorator. What it makes of a function also has `cache_info`, `key_for`, `forget` and
        `call`; see MemoizedFunction.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: The dictionary cannot do what is asked for: a read-only one, an append-only
            one with `ttl`, or one that cannot hold claims or exceptions; or the version is no
            safe string.
        MissingExtraError: joblib, which hashes arguments, is not installed, and no `key` given.

    Examples:
        >>> from persidict import LocalDict
        >>> @memoize(LocalDict())
        ... def double(number):
        ...     return number * 2
        >>> double(4), double(4)
        (8, 8)
        >>> double.cache_info()
        MemoizeInfo(hits=1, misses=1, waits=0)
    """
    if not isinstance(d, PersiDict):
        raise TypeError(f"d must be a PersiDict, not {type(d).__name__}")
    if d.is_read_only:
        raise ValueError("d must not be read-only: results are kept in it")
    if key is None:
        check_installed("joblib", needed_by="memoize without key=", extra="memoize")
    elif not callable(key):
        raise TypeError(f"key must be a function of the arguments, not {type(key).__name__}")
    if not 0 < check_number("lease", lease) <= TIMEOUT_MAX:
        raise ValueError(f"lease must be positive and at most {TIMEOUT_MAX:.0f}, it is {lease}")
    results = d if ttl is None else ExpiringDict(wrapped_dict=d, ttl=ttl)
    held = d if claims is None else claims
    if not isinstance(held, PersiDict):
        raise TypeError(f"claims must be a PersiDict, not {type(held).__name__}")
    if check_flag("once", once):
        check_holds_claims(held)
    ignored, tag = _checked_names(ignore), _checked_version(version)
    kept = exceptions if isinstance(exceptions, tuple) else (exceptions,)
    _check_keeps_exceptions(d, kept)

    def decorate(function: Callable[..., Any]) -> Any:
        memo = Memo(
            function,
            results,
            key=key,
            ignore=ignored,
            version=tag,
            exceptions=kept,
            claims=Claims(held, lease) if once else None,
        )
        return as_coroutine_function(memo) if memo.is_coroutine else as_function(memo)

    return cast("Memoizer", decorate)


def _check_keeps_exceptions(d: PersiDict[Any], kept: tuple[Any, ...]) -> None:
    for each in kept:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(f"exceptions must be classes of exceptions, not {each!r:.80}")
    if kept and (d.serialization_format != "pkl" or d.base_class_for_values is not None):
        raise ValueError(
            "exceptions are kept in dictionaries of the format 'pkl' for values of any class only"
        )


def _checked_names(ignore: Any) -> frozenset[str]:
    if not isinstance(ignore, Iterable):
        raise TypeError(f"ignore must be names of parameters, not {type(ignore).__name__}")
    names = [ignore] if isinstance(ignore, str) else list(ignore)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"ignore must be names of parameters, not {name!r:.80}")
    return frozenset(names)


def _checked_version(version: Any) -> tuple[str, ...]:
    if not isinstance(version, str):
        raise TypeError(f"version must be a str, not {type(version).__name__}")
    try:
        return SafeStrTuple(version).strings if version else ()
    except ValueError as error:
        raise ValueError(f"version must be a string of safe characters: {error}") from error


def as_function(memo: Memo) -> Any:
    """Return the function that finds results or computes them, and waits meanwhile."""
    function = memo.function

    def drive(steps: Steps, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Call):
                        done = step.function()
                    elif isinstance(step, Compute):
                        done = function(*args, **kwargs)
                    else:
                        time.sleep(step.seconds)
                        done = None
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(done)
        except StopIteration as end:
            return end.value

    def driven(name: str) -> Any:
        procedure = getattr(memo, name)

        @functools.wraps(function)
        def memoized(*args: Any, **kwargs: Any) -> Any:
            return drive(procedure(*args, **kwargs), args, kwargs)

        return memoized

    return _with_attributes(driven("get"), memo, driven)


def as_coroutine_function(memo: Memo) -> Any:
    """Return the coroutine function that finds results or awaits them."""
    function = memo.function

    async def drive(steps: Steps, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            step = next(steps)
            while True:
                try:
                    if isinstance(step, Call):
                        done = await memo.threads.run(step.function)
                    elif isinstance(step, Compute):
                        done = await function(*args, **kwargs)
                    else:
                        await asyncio.sleep(step.seconds)
                        done = None
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(done)
        except StopIteration as end:
            return end.value

    def driven(name: str) -> Any:
        procedure = getattr(memo, name)

        @functools.wraps(function)
        async def memoized(*args: Any, **kwargs: Any) -> Any:
            return await drive(procedure(*args, **kwargs), args, kwargs)

        return memoized

    return _with_attributes(driven("get"), memo, driven)


def _with_attributes(memoized: Any, memo: Memo, driven: Callable[[str], Any]) -> Any:
    memoized.call = driven("call")
    memoized.forget = driven("forget")
    memoized.key_for = memo.key_for
    memoized.cache_info = memo.cache_info
    return memoized
