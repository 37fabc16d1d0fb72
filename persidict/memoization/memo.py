"""How the results of one function are found and kept."""

from __future__ import annotations

import functools
import inspect
import pickle
import threading
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from persidict.jokers_and_status_flags import ITEM_NOT_AVAILABLE, ETagIfExists
from persidict.memoization.claims import Claim, Claims
from persidict.memoization.hashing import stable_hash
from persidict.memoization.steps import Call, Compute, Steps
from persidict.persi_dict import PersiDict
from persidict.safe_chars import replace_unsafe_chars
from persidict.safe_str_tuple import NonEmptyPersiDictKey, NonEmptySafeStrTuple, as_key
from persidict.threads import Threads

_LONGEST_NAME: Final = 200
_MOST_THREADS: Final = 32
_MISSING: Final[Any] = object()

_computing: ContextVar[frozenset[tuple[int, NonEmptySafeStrTuple]]] = ContextVar(
    "persidict_computing", default=frozenset()
)
"""What the caller is computing already: it must not wait for itself."""


class MemoizeInfo(NamedTuple):
    """What has become of the calls of a function in this process.

    Attributes:
        hits: How many found a result.
        misses: How many computed one.
        waits: How many got the one that somebody else was computing.
    """

    hits: int
    misses: int
    waits: int


class _Kept(NamedTuple):
    """An exception in the place of a result."""

    exception: Exception


class Memo:
    """How the results of one function are found and kept."""

    def __init__(
        self,
        function: Callable[..., Any],
        results: PersiDict[Any],
        *,
        key: Callable[..., NonEmptyPersiDictKey] | None,
        ignore: frozenset[str],
        version: tuple[str, ...],
        exceptions: tuple[type[Exception], ...],
        claims: Claims | None,
    ) -> None:
        self.function = function
        self.is_coroutine = inspect.iscoroutinefunction(function)
        self._bound_to = getattr(function, "__self__", None) if inspect.ismethod(function) else None
        self._name = name_of(function)
        self._signature = _signature_of(function)
        self._check_ignored(ignore)
        self._results = results
        self._key = key
        self._ignore = ignore
        self._version = version
        self._exceptions = exceptions
        self._claims = claims
        self._start_counting()

    def _start_counting(self) -> None:
        self._counting = threading.Lock()
        self._hits = self._misses = self._waits = 0

    def __getstate__(self) -> dict[str, Any]:
        own = ("_counting", "_hits", "_misses", "_waits", "threads")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_counting()

    @functools.cached_property
    def threads(self) -> Threads:
        """What works with dictionaries for coroutines."""
        return Threads(_MOST_THREADS)

    def cache_info(self) -> MemoizeInfo:
        """Return what has become of the calls in this process."""
        return MemoizeInfo(self._hits, self._misses, self._waits)

    def _count(self, what: str) -> None:
        with self._counting:
            setattr(self, what, getattr(self, what) + 1)

    # ------------------------------------------------------------------ keys

    def _check_ignored(self, ignore: frozenset[str]) -> None:
        if self._signature is None:
            if ignore:
                raise ValueError(f"{self._name} does not tell its parameters: ignore has no use")
            return
        parameters = self._signature.parameters.values()
        if any(each.kind is each.VAR_KEYWORD for each in parameters):
            return
        unknown = ignore - {each.name for each in parameters}
        if unknown:
            raise ValueError(f"ignore: {self._name} has no parameter {min(unknown)!r}")

    def key_for(self, *args: Any, **kwargs: Any) -> NonEmptySafeStrTuple:
        """Return the key of a call's result."""
        if self._key is not None:
            try:
                told_apart = as_key(self._key(*args, **kwargs))
            except (TypeError, ValueError) as error:
                error.add_note(f"persidict: in the key of a call of {self._name}")
                raise
        else:
            told_apart = as_key(self._digest(args, kwargs))
        return NonEmptySafeStrTuple(_safe_name(self._name), *self._version, *told_apart.strings)

    def _digest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        arguments = self._arguments(args, kwargs)
        try:
            digest = stable_hash((self._name, self._version, arguments))
        except RecursionError:  # mostly of a function that calls itself too often
            raise
        except Exception as error:
            raise TypeError(
                f"an argument of {self._name} cannot be hashed"
                f" ({_unhashable(arguments)}: {error}); ignore it, or give key="
            ) from error
        return digest

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, as they tell calls apart."""
        named: dict[str, Any] = {}
        if self._bound_to is not None:
            named["__self__"] = self._bound_to
        if self._signature is None:
            return {**named, "args": args, "kwargs": kwargs}
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if name in self._ignore:
                continue
            if kind is inspect.Parameter.VAR_KEYWORD:
                value = {key: each for key, each in value.items() if key not in self._ignore}
            named[name] = value
        return named

    # ------------------------------------------------------------------ procedures

    def forget(self, *args: Any, **kwargs: Any) -> Steps:
        """Delete a result; return whether there was one."""
        key = self.key_for(*args, **kwargs)
        return (yield Call(lambda: self._results.discard(key)))

    def call(self, *args: Any, **kwargs: Any) -> Steps:
        """Compute a result, whatever is kept, and keep it."""
        key = self.key_for(*args, **kwargs)
        with _as_computing(self, key):
            value = yield from self._computed()

        def replace() -> Any:
            self._results[key] = value
            return value

        return _unpacked((yield Call(replace)))

    def get(self, *args: Any, **kwargs: Any) -> Steps:
        """Return the result that is kept, or compute it and keep it."""
        key = self.key_for(*args, **kwargs)
        found = yield Call(lambda: self._results.get(key, _MISSING))
        if found is not _MISSING:
            self._count("_hits")
            return _unpacked(found)
        if self._claims is None or (id(self), key) in _computing.get():
            return _unpacked((yield from self._computed_and_kept(key)))
        replaced: ETagIfExists = ITEM_NOT_AVAILABLE
        while True:
            claim = yield from self._claims.claim(key, replaced)
            if claim is not None:
                return _unpacked((yield from self._computed_under(claim, key)))
            replaced = yield from self._claims.watch(key)
            found = yield Call(lambda: self._results.get(key, _MISSING))
            if found is not _MISSING:
                self._count("_waits")
                return _unpacked(found)

    def _computed_under(self, claim: Claim, key: NonEmptySafeStrTuple) -> Steps:
        try:
            # whoever held the claim before has kept a result before letting go of it
            found = yield Call(lambda: self._results.get(key, _MISSING))
            if found is _MISSING:
                claim.begin_to_show_life()
                found = yield from self._computed_and_kept(key)
            else:
                self._count("_waits")
        except GeneratorExit:  # nobody does steps any more
            claim.release()
            raise
        except BaseException:
            yield from claim.let_go()
            raise
        yield from claim.let_go()
        return found

    def _computed_and_kept(self, key: NonEmptySafeStrTuple) -> Steps:
        with _as_computing(self, key):
            value = yield from self._computed()
        try:
            return (yield Call(lambda: self._results.setdefault(key, value)))
        except Exception as error:
            if isinstance(value, _Kept):  # which is what the caller is to see
                raise value.exception from error
            raise

    def _computed(self) -> Steps:
        self._count("_misses")
        try:
            return (yield Compute())
        except self._exceptions as error:
            if _cannot_be_read_again(error):
                raise
            return _Kept(error)


@contextmanager
def _as_computing(memo: Memo, key: NonEmptySafeStrTuple) -> Generator[None, None, None]:
    before = _computing.set(_computing.get() | {(id(memo), key)})
    try:
        yield
    finally:
        # a coroutine that nobody goes on with is closed in another context
        with suppress(ValueError):
            _computing.reset(before)


def _cannot_be_read_again(error: Exception) -> bool:
    """Tell whether an exception can be pickled, but not be made of the pickle."""
    try:
        stored = pickle.dumps(error)
    except Exception:  # told when it is stored
        return False
    try:
        pickle.loads(stored)
    except Exception as failed:
        error.add_note(f"persidict: this is not kept, since it cannot be unpickled: {failed}")
        return True
    return False


def _unpacked(value: Any) -> Any:
    if isinstance(value, _Kept):
        raise value.exception
    return value


def name_of(function: Any) -> str:
    """Return what a function is called everywhere, or refuse one that has no name."""
    if not callable(function):
        raise TypeError(f"memoize decorates functions, not {type(function).__name__}")
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not name:
        raise TypeError(f"memoize needs a function with a name, not {function!r:.80}")
    if "<lambda>" in name:
        raise TypeError("memoize needs a function with a name: a lambda has none, use def")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} is a generator function: what it yields cannot be kept")
    return f"{module}.{name}"


def _signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions do not tell
        return None


def _safe_name(name: str) -> str:
    safe = str(replace_unsafe_chars(name, "_"))
    if len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[-_LONGEST_NAME:]}-{uuid.uuid5(uuid.NAMESPACE_OID, name).hex}"


def _unhashable(arguments: dict[str, Any]) -> str:
    """Say which argument cannot be hashed."""
    for name, value in arguments.items():
        try:
            stable_hash(value)
        except Exception:
            return name
    return ", ".join(arguments)
