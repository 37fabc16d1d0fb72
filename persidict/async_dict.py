"""Any dictionary for asyncio: every operation is awaited, and the event loop never waits."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    BinaryIO,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

from persidict.checks import check_int
from persidict.construction import all_name_their_arguments
from persidict.contract.inspecting import HttpMethod, ItemInfo
from persidict.exceptions import ConcurrencyConflictError
from persidict.jokers_and_status_flags import (
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    ConditionalOperationResult,
    ETagConditionFlag,
    ETagIfExists,
    ETagValue,
    Joker,
    OperationResult,
    RetrieveValueFlag,
    ValueType,
)
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import (
    NonEmptyPersiDictKey,
    NonEmptySafeStrTuple,
    PersiDictKey,
    SafeStrTuple,
)
from persidict.threads import AsyncStream, AsyncView, Threads

if TYPE_CHECKING:
    from persidict.contract.streams import ItemWriter

Answer = TypeVar("Answer")
Element = TypeVar("Element")
Arguments = ParamSpec("Arguments")
Default = TypeVar("Default")

_NO_DEFAULT: Final[Any] = object()


@all_name_their_arguments
class AsyncDict(Generic[ValueType]):
    """A persistent dictionary whose operations are coroutines.

    Each does what the operation of the same name does on the dictionary, in a thread of a
    pool of its own: the event loop never waits for a storage. What dictionaries write as
    ``d[key]``, ``d[key] = value``, ``del d[key]``, ``key in d`` and ``len(d)`` is here
    ``await d[key]``, ``await d.set(key, value)``, ``await d.delete(key)``,
    ``await d.contains(key)`` and ``await d.len()``.

    Cancelling a coroutine (a time-out, a client that went away) never leaves something under
    way: an operation that has not begun never does, and one that has is waited for before
    CancelledError is raised. It may have taken place then.

    Args:
        d: The dictionary.
        max_concurrency: How many operations may be under way at once; others wait.

    Raises:
        TypeError: `d` is no PersiDict, or `max_concurrency` no int.
        ValueError: `max_concurrency` is less than 1.

    Examples:
        >>> from persidict import LocalDict
        >>> async def count() -> int:
        ...     async with AsyncDict(LocalDict[int]()) as d:
        ...         await d.set("visits", 10)
        ...         await d.transform_item("visits", transformer=lambda n: n + 1)
        ...         return await d["visits"]
        >>> asyncio.run(count())
        11
    """

    def __init__(self, d: PersiDict[ValueType], *, max_concurrency: int = 32) -> None:
        if not isinstance(d, PersiDict):
            raise TypeError(f"d must be a PersiDict, not {type(d).__name__}")
        self._wrapped = d
        self._max_concurrency = check_int("max_concurrency", max_concurrency, at_least=1)
        self._threads = Threads(max_concurrency)
        self._is_closed = False
        self._parent: AsyncDict[Any] | None = None

    @property
    def wrapped_dict(self) -> PersiDict[ValueType]:
        """The dictionary, whose own operations make the caller wait."""
        return self._wrapped

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._wrapped!r}, max_concurrency={self._max_concurrency})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), max_concurrency=self._max_concurrency), (self._wrapped,)

    def _beside(self, d: PersiDict[Any]) -> AsyncDict[Any]:
        """Return another dictionary that shares the threads of this one, and is closed with it."""
        other: AsyncDict[Any] = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._wrapped = d
        other._parent = self
        return other

    async def __aenter__(self) -> AsyncDict[ValueType]:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for what is under way; operations that begin later raise RuntimeError.

        So do those of dictionaries that were got from this one, and iterations that go on.
        """
        self._is_closed = True
        await self._threads.rest()

    def _check_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(f"this {type(self).__name__} is closed")
        if self._parent is not None:
            self._parent._check_open()

    async def _run(
        self,
        operation: Callable[Arguments, Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        self._check_open()
        return await self._threads.run(partial(operation, *args, **kwargs))

    def _view(self, begin: Callable[[], Iterable[Element]]) -> AsyncView[Element]:
        self._check_open()
        return AsyncView(self._threads, lambda: iter(begin()), self._check_open)

    # ------------------------------------------------------------------ one item

    def __getitem__(self, key: NonEmptyPersiDictKey) -> Awaitable[ValueType]:
        """Return the value under a key, to be awaited; KeyError if there is none."""
        return self._run(self._wrapped.__getitem__, key)

    @overload
    async def get(self, key: NonEmptyPersiDictKey, default: None = None) -> ValueType | None: ...
    @overload
    async def get(self, key: NonEmptyPersiDictKey, default: Default) -> ValueType | Default: ...
    async def get(self, key: NonEmptyPersiDictKey, default: Any = None) -> Any:
        """Do what `PersiDict.get` does."""
        return await self._run(self._wrapped.get, key, default)

    async def set(self, key: NonEmptyPersiDictKey, value: ValueType | Joker) -> None:
        """Store a value under a key: ``d[key] = value``."""
        await self._run(self._wrapped.__setitem__, key, value)

    async def delete(self, key: NonEmptyPersiDictKey) -> None:
        """Delete an item: ``del d[key]``; KeyError if there is none."""
        await self._run(self._wrapped.__delitem__, key)

    async def contains(self, key: NonEmptyPersiDictKey) -> bool:
        """Tell whether there is an item: ``key in d``."""
        return await self._run(self._wrapped.__contains__, key)

    async def discard(self, key: NonEmptyPersiDictKey) -> bool:
        """Do what `PersiDict.discard` does."""
        return await self._run(self._wrapped.discard, key)

    @overload
    async def pop(self, key: NonEmptyPersiDictKey) -> ValueType: ...
    @overload
    async def pop(self, key: NonEmptyPersiDictKey, default: Default) -> ValueType | Default: ...
    async def pop(self, key: NonEmptyPersiDictKey, default: Any = _NO_DEFAULT) -> Any:
        """Do what `PersiDict.pop` does."""
        if default is _NO_DEFAULT:
            return await self._run(self._wrapped.pop, key)
        return await self._run(self._wrapped.pop, key, default)

    async def popitem(self) -> tuple[NonEmptySafeStrTuple, ValueType]:
        """Do what `PersiDict.popitem` does."""
        return await self._run(self._wrapped.popitem)

    @overload
    async def setdefault(
        self, key: NonEmptyPersiDictKey, default: None = None
    ) -> ValueType | None: ...
    @overload
    async def setdefault(self, key: NonEmptyPersiDictKey, default: ValueType) -> ValueType: ...
    async def setdefault(self, key: NonEmptyPersiDictKey, default: Any = None) -> Any:
        """Do what `PersiDict.setdefault` does."""
        return await self._run(self._wrapped.setdefault, key, default)

    async def timestamp(self, key: NonEmptyPersiDictKey) -> float:
        """Do what `PersiDict.timestamp` does."""
        return await self._run(self._wrapped.timestamp, key)

    async def etag(self, key: NonEmptyPersiDictKey) -> ETagValue:
        """Do what `PersiDict.etag` does."""
        return await self._run(self._wrapped.etag, key)

    async def delete_if_exists(self, key: NonEmptyPersiDictKey) -> bool:
        """Do what `discard` does, under its old name."""
        return await self.discard(key)

    # ------------------------------------------------------------------ looking from outside

    async def info(self, key: NonEmptyPersiDictKey) -> ItemInfo:
        """Do what `PersiDict.info` does."""
        return await self._run(self._wrapped.info, key)

    def infos(
        self,
        prefix: PersiDictKey = (),
        start: PersiDictKey | None = None,
        stop: PersiDictKey | None = None,
    ) -> AsyncView[ItemInfo]:
        """Return what is known of the items, for ``async for``; see `PersiDict.infos`."""
        return self._view(partial(self._wrapped.infos, prefix, start, stop))

    def location(self, key: NonEmptyPersiDictKey) -> str:
        """Do what `PersiDict.location` does, at once: nothing is looked at."""
        return self._wrapped.location(key)

    async def presign(
        self, key: NonEmptyPersiDictKey, method: HttpMethod = "GET", expires: int = 3600
    ) -> str:
        """Do what `PersiDict.presign` does; credentials may have to be fetched for it."""
        return await self._run(self._wrapped.presign, key, method, expires)

    async def copy_item(
        self, source_key: NonEmptyPersiDictKey, target_key: NonEmptyPersiDictKey
    ) -> ETagIfExists:
        """Do what `PersiDict.copy_item` does."""
        return await self._run(self._wrapped.copy_item, source_key, target_key)

    @overload
    def open(
        self, key: NonEmptyPersiDictKey, mode: Literal["rb"] = "rb"
    ) -> AsyncStream[BinaryIO]: ...

    @overload
    def open(
        self,
        key: NonEmptyPersiDictKey,
        mode: Literal["wb"],
        *,
        condition: ETagConditionFlag = ANY_ETAG,
        expected_etag: ETagIfExists = ITEM_NOT_AVAILABLE,
    ) -> AsyncStream[ItemWriter]: ...

    def open(
        self,
        key: NonEmptyPersiDictKey,
        mode: str = "rb",
        *,
        condition: ETagConditionFlag = ANY_ETAG,
        expected_etag: ETagIfExists = ITEM_NOT_AVAILABLE,
    ) -> AsyncStream[Any]:
        """Open the stored bytes of an item, for ``async with``; see `PersiDict.open`.

        Example:
            >>> from persidict import LocalDict
            >>> async def write() -> str:
            ...     d = AsyncDict(LocalDict(serialization_format="txt", base_class_for_values=str))
            ...     async with d.open("note", "wb") as stream:
            ...         await stream.write(b"milk")
            ...     return await d["note"]
            >>> asyncio.run(write())
            'milk'
        """
        self._check_open()
        open_it = cast("Any", self._wrapped).open
        conditions = {"condition": condition, "expected_etag": expected_etag}
        begin = partial(open_it, key, mode, **conditions)
        return AsyncStream(self._threads, begin, self._check_open)

    # ------------------------------------------------------------------ conditional operations

    async def get_with_etag(
        self, key: NonEmptyPersiDictKey
    ) -> ConditionalOperationResult[ValueType]:
        """Do what `PersiDict.get_with_etag` does."""
        return await self._run(self._wrapped.get_with_etag, key)

    async def get_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[ValueType]:
        """Do what `PersiDict.get_item_if` does."""
        return await self._run(
            self._wrapped.get_item_if,
            key,
            condition=condition,
            expected_etag=expected_etag,
            retrieve_value=retrieve_value,
        )

    async def set_item_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        value: ValueType | Joker,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[ValueType]:
        """Do what `PersiDict.set_item_if` does."""
        return await self._run(
            self._wrapped.set_item_if,
            key,
            value=value,
            condition=condition,
            expected_etag=expected_etag,
            retrieve_value=retrieve_value,
        )

    async def setdefault_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        default_value: ValueType,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult[ValueType]:
        """Do what `PersiDict.setdefault_if` does."""
        return await self._run(
            self._wrapped.setdefault_if,
            key,
            default_value=default_value,
            condition=condition,
            expected_etag=expected_etag,
            retrieve_value=retrieve_value,
        )

    async def discard_if(
        self,
        key: NonEmptyPersiDictKey,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
    ) -> ConditionalOperationResult[ValueType]:
        """Do what `PersiDict.discard_if` does."""
        return await self._run(
            self._wrapped.discard_if, key, condition=condition, expected_etag=expected_etag
        )

    async def transform_item(
        self,
        key: NonEmptyPersiDictKey,
        *,
        transformer: Callable[[Any], Any] | Callable[[Any], Awaitable[Any]],
        n_retries: int | None = 6,
        default: Any = ITEM_NOT_AVAILABLE,
    ) -> OperationResult[ValueType]:
        """Do what `PersiDict.transform_item` does; the transformer may be a coroutine function.

        A function is called in a thread, a coroutine function in the event loop.
        """
        call = getattr(transformer, "__call__", None)  # noqa: B004  # an object may be one, too
        if not (inspect.iscoroutinefunction(transformer) or inspect.iscoroutinefunction(call)):
            return await self._run(
                self._wrapped.transform_item,
                key,
                transformer=transformer,
                n_retries=n_retries,
                default=default,
            )
        self._wrapped._check_n_retries(n_retries)
        self._wrapped._refuse_if_read_only()
        began = time.perf_counter()
        for attempt in itertools.count(1):
            found = await self.get_with_etag(key)
            is_absent = found.actual_etag is ITEM_NOT_AVAILABLE
            current = deepcopy(default) if is_absent else found.new_value
            new_value = await transformer(current)
            if new_value is KEEP_CURRENT or (is_absent and new_value is DELETE_CURRENT):
                return OperationResult(found.actual_etag, found.new_value)
            written = await self.set_item_if(
                key,
                value=new_value,
                condition=ETAG_IS_THE_SAME,
                expected_etag=found.actual_etag,
                retrieve_value=NEVER_RETRIEVE,
            )
            if written.condition_was_satisfied:
                return OperationResult(written.resulting_etag, written.new_value)
            if n_retries is not None and attempt > n_retries:
                raise ConcurrencyConflictError(key, attempt)
            refused = time.perf_counter()
            await asyncio.sleep(self._wrapped._seconds_to_pause(attempt, refused - began))
            began += time.perf_counter() - refused
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------ many items

    __iter__ = None  # else Python would ask for d[0], d[1], ... for ever

    def __contains__(self, key: object) -> bool:
        raise TypeError("`in` cannot be awaited: write await d.contains(key)")

    def __aiter__(self) -> AsyncIterator[NonEmptySafeStrTuple]:
        return self.keys().__aiter__()

    async def len(self) -> int:
        """Return how many items there are: ``len(d)``."""
        return await self._run(self._wrapped.__len__)

    def keys(
        self,
        prefix: PersiDictKey = (),
        start: PersiDictKey | None = None,
        stop: PersiDictKey | None = None,
    ) -> AsyncView[NonEmptySafeStrTuple]:
        """Return the keys, for ``async for``; see `PersiDict.keys`."""
        return self._view(partial(iter, self._wrapped.keys(prefix, start, stop)))

    def values(
        self,
        prefix: PersiDictKey = (),
        start: PersiDictKey | None = None,
        stop: PersiDictKey | None = None,
    ) -> AsyncView[ValueType]:
        """Return the values, for ``async for``; see `PersiDict.values`."""
        return self._view(partial(iter, self._wrapped.values(prefix, start, stop)))

    def items(
        self,
        prefix: PersiDictKey = (),
        start: PersiDictKey | None = None,
        stop: PersiDictKey | None = None,
    ) -> AsyncView[tuple[NonEmptySafeStrTuple, ValueType]]:
        """Return the items, for ``async for``; see `PersiDict.items`."""
        return self._view(partial(iter, self._wrapped.items(prefix, start, stop)))

    def glob(self, pattern: str | Sequence[str] | SafeStrTuple) -> AsyncView[NonEmptySafeStrTuple]:
        """Return the keys that match a pattern, for ``async for``; see `PersiDict.glob`."""
        return self._view(partial(self._wrapped.glob, pattern))

    def keys_and_timestamps(self) -> AsyncView[tuple[NonEmptySafeStrTuple, float]]:
        """Return keys and times, for ``async for``; see `PersiDict.keys_and_timestamps`."""
        return self._view(self._wrapped.keys_and_timestamps)

    def values_and_timestamps(self) -> AsyncView[tuple[ValueType, float]]:
        """Return values and times, for ``async for``; see `PersiDict.values_and_timestamps`."""
        return self._view(self._wrapped.values_and_timestamps)

    def items_and_timestamps(self) -> AsyncView[tuple[NonEmptySafeStrTuple, ValueType, float]]:
        """Return items and times, for ``async for``; see `PersiDict.items_and_timestamps`."""
        return self._view(self._wrapped.items_and_timestamps)

    async def get_many(
        self, keys: Iterable[NonEmptyPersiDictKey]
    ) -> dict[NonEmptySafeStrTuple, ValueType]:
        """Do what `PersiDict.get_many` does; the keys are consumed in a thread."""
        return await self._run(self._wrapped.get_many, keys)

    async def set_many(
        self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **kwargs: Any
    ) -> None:
        """Do what `PersiDict.set_many` does; the items are consumed in a thread."""
        self._check_open()
        await self._threads.run(partial(self._wrapped.set_many, items, **kwargs))

    async def update(
        self, items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = (), /, **kwargs: Any
    ) -> None:
        """Do what `set_many` does, under the dict's own name."""
        self._check_open()
        await self._threads.run(partial(self._wrapped.set_many, items, **kwargs))

    async def discard_many(self, keys: Iterable[NonEmptyPersiDictKey]) -> None:
        """Do what `PersiDict.discard_many` does; the keys are consumed in a thread."""
        await self._run(self._wrapped.discard_many, keys)

    async def clear(self) -> None:
        """Do what `PersiDict.clear` does."""
        await self._run(self._wrapped.clear)

    async def random_key(self) -> NonEmptySafeStrTuple | None:
        """Do what `PersiDict.random_key` does."""
        return await self._run(self._wrapped.random_key)

    async def oldest_keys(self, *, max_n: int | None = None) -> list[NonEmptySafeStrTuple]:
        """Do what `PersiDict.oldest_keys` does."""
        return await self._run(self._wrapped.oldest_keys, max_n=max_n)

    async def newest_keys(self, *, max_n: int | None = None) -> list[NonEmptySafeStrTuple]:
        """Do what `PersiDict.newest_keys` does."""
        return await self._run(self._wrapped.newest_keys, max_n=max_n)

    async def oldest_values(self, *, max_n: int | None = None) -> list[ValueType]:
        """Do what `PersiDict.oldest_values` does."""
        return await self._run(self._wrapped.oldest_values, max_n=max_n)

    async def newest_values(self, *, max_n: int | None = None) -> list[ValueType]:
        """Do what `PersiDict.newest_values` does."""
        return await self._run(self._wrapped.newest_values, max_n=max_n)

    # ------------------------------------------------------------------ other dictionaries

    def get_subdict(self, prefix_key: PersiDictKey) -> AsyncDict[ValueType]:
        """Return the sub-dictionary, at once: nothing is looked at. It shares the threads."""
        return self._beside(self._wrapped.get_subdict(prefix_key))

    async def subdicts(self) -> dict[str, AsyncDict[ValueType]]:
        """Do what `PersiDict.subdicts` does; they share the threads."""
        found = await self._run(self._wrapped.subdicts)
        return {part: self._beside(sub) for part, sub in found.items()}

    def get_params(self) -> dict[str, Any]:
        """Return the parameters of the dictionary; see `PersiDict.get_params`."""
        return self._wrapped.get_params()

    async def with_params(self, **changes: Any) -> AsyncDict[ValueType]:
        """Do what `PersiDict.with_params` does: its constructor may look at the storage."""
        return self._beside(await self._run(self._wrapped.with_params, **changes))

    def read_only(self) -> AsyncDict[ValueType]:
        """Return a handle that cannot change items, at once; see `PersiDict.read_only`."""
        return self._beside(self._wrapped.read_only())

    @property
    def is_read_only(self) -> bool:
        """Whether this handle refuses to change items."""
        return self._wrapped.is_read_only

    @property
    def append_only(self) -> bool:
        """Whether items can be added, but never changed or removed."""
        return self._wrapped.append_only

    @property
    def base_class_for_values(self) -> type | None:
        """The class that every value must be an instance of; None: any."""
        return self._wrapped.base_class_for_values

    @property
    def serialization_format(self) -> str:
        """How values are stored."""
        return self._wrapped.serialization_format

    @property
    def url(self) -> str:
        """The URL that `open_dict` opens the dictionary by; see `PersiDict.url`."""
        return self._wrapped.url

    @property
    def raw(self) -> AsyncDict[bytes]:
        """The same dictionary with the stored bytes as values; see `StoredDict.raw`."""
        return self._beside(cast("Any", self._wrapped).raw)

    async def call(
        self,
        function: Callable[Concatenate[PersiDict[ValueType], Arguments], Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Call a function with the dictionary and more arguments, in a thread.

        For operations of some dictionaries alone, and for several steps in one go:
        ``await d.call(lambda d: d.cache_info())``.
        """
        return await self._run(function, self._wrapped, *args, **kwargs)
