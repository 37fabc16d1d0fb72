"""What coroutines wait for while threads work: operations, iterations, streams."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from persidict.jokers_and_status_flags import ConditionalOperationResult
from persidict.stores.shared.parallel import WorkerPool

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Answer = TypeVar("Answer")
Element = TypeVar("Element")
Stream = TypeVar("Stream", bound=Any)

_CHUNK_ITEMS: Final = 64
_CHUNK_SECONDS: Final = 0.01
"""How much an iteration brings with one change of threads, at most."""


class Threads:
    """Threads that do for coroutines what would make an event loop wait.

    Args:
        max_concurrency: How many there are at most.
    """

    def __init__(self, max_concurrency: int) -> None:
        self._pool = WorkerPool(max_concurrency)
        self._under_way: set[Future[Any]] = set()

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """Do some work in a thread and return what it returns.

        When the caller is cancelled, work that has not begun never does, and work that has is
        waited for: nothing goes on behind the caller's back.
        """
        context = contextvars.copy_context()
        future = self._pool.submit(partial(context.run, work))
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError as cancelled:
            if future.cancel():
                raise
            await _until_done(future)
            raise cancelled from future.exception()

    async def rest(self) -> None:
        """Return when nothing is under way."""
        while self._under_way:
            await _until_done(next(iter(self._under_way.copy())))


async def _until_done(future: Future[Any]) -> None:
    """Wait for a thread, whatever else is cancelled meanwhile; its outcome is not looked at."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
    cancelled: asyncio.CancelledError | None = None
    while not done.is_set():
        try:
            await done.wait()
        except asyncio.CancelledError as error:  # again: raised when the thread is done
            cancelled = error
    if cancelled is not None:
        raise cancelled


class AsyncView(AsyncIterable[Element]):
    """Keys, values or items, to be iterated over with ``async for``, any number of times.

    Args:
        threads: Where the elements are read.
        begin: Begins an iteration.
        check_open: Raises RuntimeError if nothing more is to be read.
    """

    def __init__(
        self,
        threads: Threads,
        begin: Callable[[], Iterator[Element]],
        check_open: Callable[[], None],
    ) -> None:
        self._threads = threads
        self._begin = begin
        self._check_open = check_open

    async def __aiter__(self) -> AsyncIterator[Element]:
        iterator: Generator[Element, None, None] | None = None
        failure: Exception | None = None

        def read_some() -> tuple[list[Element], bool]:
            nonlocal iterator, failure
            if iterator is None:
                iterator = (element for element in self._begin())
            chunk = []
            end = time.monotonic() + _CHUNK_SECONDS
            try:
                for element in iterator:
                    chunk.append(element)
                    if len(chunk) == _CHUNK_ITEMS or time.monotonic() > end:
                        return chunk, True
            except Exception as error:  # raised behind what came before it
                failure = error
            return chunk, False

        has_more = True
        try:
            while True:  # with no condition at its end, see tests/test_house.py
                if not has_more:
                    break
                self._check_open()
                chunk, has_more = await self._threads.run(read_some)
                for element in chunk:
                    yield element
            if failure is not None:
                raise failure
        finally:
            failure = None
            if iterator is not None:
                await self._threads.run(iterator.close)

    async def to_list(self) -> list[Element]:
        """Return all elements."""
        return [element async for element in self]


class AsyncStream(Generic[Stream]):
    """A stream of the stored bytes of an item, for ``async with``; from `AsyncDict.open`.

    Its methods do in a thread what those of the stream in the thread do. An exception inside the
    ``with``, a cancellation included, leaves what was there before.

    Args:
        threads: Where it is read and written.
        begin: Opens it.
        check_open: Raises RuntimeError if nothing more is to be opened.
    """

    def __init__(
        self, threads: Threads, begin: Callable[[], Stream], check_open: Callable[[], None]
    ) -> None:
        self._threads = threads
        self._begin = begin
        self._check_open = check_open
        self._stream: Stream | None = None

    async def __aenter__(self) -> Self:
        if self._stream is not None:
            raise RuntimeError("this stream has been opened already")
        self._check_open()

        def begin() -> None:
            self._stream = self._begin()

        try:
            await self._threads.run(begin)
        except BaseException:
            self._give_up()
            raise
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._threads.run(partial(self._opened.__exit__, error_type, error, traceback))
        finally:
            self._give_up()

    def _give_up(self) -> None:
        """Close the stream, if it is still open, and store nothing: that waits for nobody."""
        stream = self._stream
        if stream is not None and not stream.closed:
            getattr(stream, "abort", stream.close)()

    @property
    def _opened(self) -> Stream:
        if self._stream is None:
            raise RuntimeError("open a stream by `async with d.open(...) as stream:`")
        return self._stream

    @property
    def result(self) -> ConditionalOperationResult[Any] | None:
        """After writing, behind the ``with``: what `set_item_if` returned, without the value."""
        return getattr(self._opened, "result", None)

    async def read(self, size: int = -1, /) -> bytes:
        """Read bytes from the current position, up to `size` of them; -1: all."""
        data: bytes = await self._threads.run(partial(self._opened.read, size))
        return data

    async def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes at the current position."""
        count: int = await self._threads.run(partial(self._opened.write, data))
        return count

    async def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to another position, as `io.IOBase.seek` does."""
        position: int = await self._threads.run(partial(self._opened.seek, offset, whence))
        return position

    async def tell(self) -> int:
        """Return the current position."""
        position: int = await self._threads.run(self._opened.tell)
        return position

    async def truncate(self, size: int | None = None, /) -> int:
        """Change the size of what is written; None: to the current position."""
        left: int = await self._threads.run(partial(self._opened.truncate, size))
        return left
