"""AsyncDict: every operation awaited, an event loop that never waits, nothing left under way."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import pickle
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    AsyncDict,
    ConcurrencyConflictError,
    FileDirDict,
    LocalDict,
    MutationPolicyError,
)
from persidict.persi_dict import PersiDict
from persidict.testing import DictConformance
from persidict.threads import AsyncView

UNCONDITIONAL: dict[str, Any] = {"condition": ANY_ETAG, "expected_etag": ITEM_NOT_AVAILABLE}

OPERATIONS: dict[str, Callable[[AsyncDict[Any]], Awaitable[Any]]] = {
    "d[key]": lambda d: d["a"],
    "get": lambda d: d.get("a"),
    "set": lambda d: d.set("a", 1),
    "delete": lambda d: d.delete("a"),
    "contains": lambda d: d.contains("a"),
    "discard": lambda d: d.discard("a"),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("a", 1),
    "timestamp": lambda d: d.timestamp("a"),
    "etag": lambda d: d.etag("a"),
    "get_with_etag": lambda d: d.get_with_etag("a"),
    "get_item_if": lambda d: d.get_item_if("a", **UNCONDITIONAL),
    "set_item_if": lambda d: d.set_item_if("a", value=1, **UNCONDITIONAL),
    "setdefault_if": lambda d: d.setdefault_if("a", default_value=1, **UNCONDITIONAL),
    "discard_if": lambda d: d.discard_if("a", **UNCONDITIONAL),
    "transform_item": lambda d: d.transform_item("a", transformer=lambda value: 1),
    "keys": lambda d: d.keys().to_list(),
    "values": lambda d: d.values().to_list(),
    "items": lambda d: d.items().to_list(),
    "items of a range": lambda d: d.items(prefix="a").to_list(),
    "keys_and_timestamps": lambda d: d.keys_and_timestamps().to_list(),
    "len": lambda d: d.len(),
    "get_many": lambda d: d.get_many(["a"]),
    "set_many": lambda d: d.set_many({"a": 1}),
    "update": lambda d: d.update(a=1),
    "discard_many": lambda d: d.discard_many(["a"]),
    "clear": lambda d: d.clear(),
    "random_key": lambda d: d.random_key(),
    "newest_keys": lambda d: d.newest_keys(),
    "oldest_values": lambda d: d.oldest_values(max_n=1),
    "subdicts": lambda d: d.subdicts(),
    "call": lambda d: d.call(len),
    "delete_if_exists": lambda d: d.delete_if_exists("a"),
    "info": lambda d: d.info("a"),
    "infos": lambda d: d.infos().to_list(),
    "glob": lambda d: d.glob("*").to_list(),
    "copy_item": lambda d: d.copy_item("a", "b"),
    "open for reading": lambda d: read_all(d, "a"),
    "open for writing": lambda d: write_all(d, "a", b"1"),
    "values_and_timestamps": lambda d: d.values_and_timestamps().to_list(),
    "items_and_timestamps": lambda d: d.items_and_timestamps().to_list(),
    "newest_values": lambda d: d.newest_values(),
    "oldest_keys": lambda d: d.oldest_keys(max_n=1),
}

AT_ONCE = {
    *("get_params", "get_subdict", "location", "read_only"),
    *("append_only", "base_class_for_values", "is_read_only", "raw", "serialization_format", "url"),
}
"""What looks at no storage."""

NOT_AWAITED_HERE = {
    "transaction",  # belongs to one thread: `call`
    "plain",  # a mapping, which cannot be awaited
    *("presign", "with_params"),  # tested by themselves: a GatedDict has no URL
    *("clone", "get_default_params", "get_default_jsparams", "get_jsparams"),
    *("essential_param_names", "auxiliary_param_names"),
    *("get_essential_params", "get_auxiliary_params"),
    *("get_essential_jsparams", "get_auxiliary_jsparams"),
}
"""What concerns one thread, or is mixinforge's."""


async def read_all(d: AsyncDict[Any], key: str) -> bytes:
    async with d.open(key) as stream:
        return await stream.read()


async def write_all(d: AsyncDict[Any], key: str, data: bytes) -> Any:
    async with d.open(key, "wb") as stream:
        await stream.write(data)
    return stream.result


class GatedDict(LocalDict[Any]):
    """A dictionary whose primitives wait until they are let through.

    Attributes:
        entered: Set when a primitive begins to wait.
        gate: What they wait for.
        running: How many are waiting now.
    """

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.entered, self.gate = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.threads: set[int] = set()

    def _wait(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.entered.set()
        assert self.gate.wait(60)
        with self.lock:
            self.running -= 1

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in PRIMITIVES:
            return found
        super().__getattribute__("threads").add(threading.get_ident())
        if super().__getattribute__("gate").is_set():
            return found

        @functools.wraps(found)
        def gated(*args: Any, **kwargs: Any) -> Any:
            self._wait()
            return found(*args, **kwargs)

        return gated


PRIMITIVES = frozenset(
    {
        "_contains",
        "_dated_keys",
        "_first_parts",
        "_head",
        "_items",
        "_keys",
        "_keys_in",
        "_count",
        "_insert",
        "_load",
        "_load_many",
        "_load_version",
        "_open",
        "_versions",
        "_copy",
        "_remove",
        "_remove_many",
        "_value",
        "_write",
        "_write_many",
    }
)


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(main(), 60))


async def set_in_time(event: threading.Event) -> None:
    """Return when a thread has set an event; the loop goes on meanwhile."""
    assert await asyncio.to_thread(event.wait, 60)


# ---------------------------------------------------------------------- it is the dictionary


def awaited(name: str) -> Callable[..., Any]:
    """Make a method that waits for the coroutine of that name."""

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        async def main() -> Any:
            async with AsyncDict(self.inner) as d:
                found = getattr(d, name)(*args, **kwargs)
                if isinstance(found, AsyncView):
                    return await found.to_list()
                return await found

        found = asyncio.run(main())
        return iter(found) if name.endswith("_and_timestamps") else found

    return method


class AwaitedDict(FileDirDict[Any]):
    """A dictionary whose operations are those of an AsyncDict, each waited for."""

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.inner = FileDirDict[Any](**params)

    def __contains__(self, key: object) -> bool:
        return bool(awaited("contains")(self, key))

    def __iter__(self) -> Iterator[Any]:
        return iter(awaited("keys")(self))

    __getitem__ = awaited("__getitem__")
    __setitem__ = awaited("set")
    __delitem__ = awaited("delete")
    __len__ = awaited("len")
    get = awaited("get")
    pop = awaited("pop")
    popitem = awaited("popitem")
    setdefault = awaited("setdefault")
    discard = awaited("discard")
    timestamp = awaited("timestamp")
    etag = awaited("etag")
    get_with_etag = awaited("get_with_etag")
    get_item_if = awaited("get_item_if")
    set_item_if = awaited("set_item_if")
    setdefault_if = awaited("setdefault_if")
    discard_if = awaited("discard_if")
    transform_item = awaited("transform_item")
    get_many = awaited("get_many")
    set_many = awaited("set_many")
    update = awaited("update")
    discard_many = awaited("discard_many")
    clear = awaited("clear")
    random_key = awaited("random_key")
    oldest_keys = awaited("oldest_keys")
    newest_keys = awaited("newest_keys")
    oldest_values = awaited("oldest_values")
    newest_values = awaited("newest_values")
    keys_and_timestamps = awaited("keys_and_timestamps")
    values_and_timestamps = awaited("values_and_timestamps")
    items_and_timestamps = awaited("items_and_timestamps")

    @property
    def raw(self) -> Any:
        raw = super().raw
        raw.inner = self.inner.raw  # type: ignore[attr-defined]
        return raw

    def _become_read_only(self) -> None:
        super()._become_read_only()
        self.inner = self.inner.read_only()

    def _subdict(self, prefix: Any) -> Any:
        sub = super()._subdict(prefix)
        sub.inner = self.inner.get_subdict(prefix)
        return sub


@pytest.mark.slow
class TestAsyncDictKeepsTheContract(DictConformance):
    @pytest.fixture
    def new_dict(self, tmp_path: Path) -> Callable[..., PersiDict[Any]]:
        numbers = itertools.count()
        return lambda **params: AwaitedDict(
            base_dir=tmp_path / str(next(numbers)), fsync=False, **params
        )


def test_views_are_iterated_over_with_their_ranges() -> None:
    d = LocalDict[int]()
    d.update({("a", str(number)): number for number in range(200)} | {"b": 1})

    async def main() -> None:
        async with AsyncDict(d) as a:
            assert [key async for key in a] == list(d)
            assert [v async for v in a.values("a")] == list(d.values("a"))
            assert [i async for i in a.items(start="b")] == list(d.items(start="b"))

    run(main)


def test_a_sub_dictionary_and_the_stored_bytes_are_awaited_too() -> None:
    d = LocalDict[int](serialization_format="json")
    d["g", "a"] = 1

    async def main() -> tuple[Any, ...]:
        async with AsyncDict(d) as a:
            subdicts = await a.subdicts()
            return (
                await a.get_subdict("g")["a"],
                await subdicts["g"]["a"],
                await a.raw["g", "a"],
            )

    assert run(main) == (1, 1, b"1")


@pytest.mark.parametrize(
    ("wanted", "left"),
    [(5, 5), (KEEP_CURRENT, 1), (DELETE_CURRENT, None)],
    ids=["value", "keep", "delete"],
)
def test_a_coroutine_may_transform_an_item(wanted: Any, left: Any) -> None:
    d = LocalDict[int]()
    d["a"] = 1

    async def transformer(value: int) -> Any:
        await asyncio.sleep(0)
        return wanted

    run(lambda: AsyncDict(d).transform_item("a", transformer=transformer))
    assert d.get("a") == left


def test_no_update_by_coroutines_is_lost() -> None:
    d = LocalDict[int]()

    async def one_more(value: Any) -> int:
        await asyncio.sleep(0)
        return 1 if value is ITEM_NOT_AVAILABLE else int(value) + 1

    async def main() -> None:
        a = AsyncDict(d)
        await asyncio.gather(
            *(a.transform_item("n", transformer=one_more, n_retries=None) for _ in range(50))
        )

    run(main)
    assert d["n"] == 50


def test_a_coroutine_that_always_loses_the_race_gets_a_conflict() -> None:
    d = LocalDict[int]()

    async def outrun(value: Any) -> int:
        d["n"] = 0
        return 1

    with pytest.raises(ConcurrencyConflictError) as caught:
        run(lambda: AsyncDict(d).transform_item("n", transformer=outrun, n_retries=1))
    assert caught.value.attempts == 2


# ---------------------------------------------------------------------- the loop never waits


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_the_event_loop_goes_on_while_the_storage_is_waited_for(operation: str) -> None:
    d = GatedDict()
    d.gate.set()
    d["a"] = 1
    d.gate.clear()
    d.threads.clear()

    async def main() -> None:
        async with AsyncDict(d) as a:
            under_way = asyncio.ensure_future(OPERATIONS[operation](a))
            await set_in_time(d.entered)
            assert not under_way.done()
            d.gate.set()  # which only a loop that goes on comes to
            await under_way

    run(main)
    assert d.threads
    assert threading.get_ident() not in d.threads


def public_names(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_every_public_name_of_a_dictionary_is_here() -> None:
    properties = {"append_only", "base_class_for_values", "serialization_format"}
    assert (public_names(PersiDict) | properties) - NOT_AWAITED_HERE <= public_names(AsyncDict)


@pytest.mark.parametrize(
    "name", sorted(public_names(PersiDict) & public_names(AsyncDict) - {"with_params"})
)
def test_an_operation_takes_what_that_of_the_dictionary_takes(name: str) -> None:
    theirs, ours = getattr(PersiDict, name), getattr(AsyncDict, name)
    if isinstance(theirs, property):
        assert isinstance(ours, property)
        return
    expected = inspect.signature(theirs).parameters
    found = inspect.signature(ours).parameters
    if name in ("update", "set_many"):
        assert [each.kind for each in found.values()] == [each.kind for each in expected.values()]
        return
    assert [(each.name, each.kind) for each in found.values()] == [
        (each.name, each.kind) for each in expected.values()
    ]


def test_every_operation_is_tried_while_the_storage_is_waited_for() -> None:
    tried = {name.partition(" ")[0] for name in OPERATIONS}
    assert public_names(PersiDict) - AT_ONCE - NOT_AWAITED_HERE <= tried


@pytest.mark.parametrize("name", sorted(AT_ONCE - {"location", "url"}))
def test_what_is_answered_at_once_asks_nothing_of_the_storage(name: str) -> None:
    d = GatedDict()
    found = getattr(AsyncDict(d), name)
    if callable(found):
        found(*(["g"] if name == "get_subdict" else []))
    assert d.threads == set()


def test_a_url_for_others_is_made_in_a_thread() -> None:
    threads = []

    class Presigning(LocalDict[Any]):
        def _presign(self, *args: Any) -> str:
            threads.append(threading.get_ident())
            return "https://example.org"

    assert run(lambda: AsyncDict(Presigning()).presign("a")) == "https://example.org"
    assert threads
    assert threading.get_ident() not in threads


def test_other_parameters_are_taken_in_a_thread(tmp_path: Path) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path)
    other = run(lambda: AsyncDict(d).with_params(append_only=True))
    assert (type(other), other.append_only) == (AsyncDict, True)


def test_a_read_only_handle_refuses_to_write_and_calls_no_transformer() -> None:
    d: LocalDict[Any] = LocalDict()
    d["a"] = 1
    shown = AsyncDict(d).read_only()

    async def transformer(_: Any) -> Any:
        pytest.fail("called")

    for operation in (
        lambda: shown.set("a", 2),
        lambda: shown.transform_item("a", transformer=transformer),
        lambda: write_all(shown, "a", b"2"),
    ):
        with pytest.raises(MutationPolicyError, match="read-only"):
            run(operation)
    assert run(lambda: shown.get("a")) == 1


# ---------------------------------------------------------------------- streams


def texts(**params: Any) -> LocalDict[str]:
    return LocalDict(serialization_format="txt", base_class_for_values=str, **params)


def test_a_stream_becomes_the_item_when_its_block_ends() -> None:
    d = texts()

    async def main() -> tuple[Any, ...]:
        async with AsyncDict(d).open("a", "wb") as stream:
            await stream.write(b"a long text")
            before = "a" in d
            await stream.seek(2)
            await stream.truncate()
            position = await stream.tell()
        assert stream.result is not None
        return before, position, d["a"], stream.result.resulting_etag == d.etag("a")

    assert run(main) == (False, 2, "a ", True)


def test_a_stream_is_read_in_parts() -> None:
    d = texts()
    d["a"] = "milk and beer"

    async def main() -> list[bytes]:
        async with AsyncDict(d).open("a") as stream:
            parts = [await stream.read(5)]
            await stream.seek(9)
            return [*parts, await stream.read()]

    assert run(main) == [b"milk ", b"beer"]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
def test_an_exception_in_the_block_leaves_what_was_there(error: type[BaseException]) -> None:
    d = texts()
    d["a"] = "old"

    async def main() -> None:
        with pytest.raises(error):
            async with AsyncDict(d).open("a", "wb") as stream:
                await stream.write(b"new")
                raise error

    run(main)
    assert d["a"] == "old"


def test_a_condition_is_checked_when_the_stream_is_closed() -> None:
    d = texts()

    async def main() -> Any:
        async with AsyncDict(d).open(
            "a", "wb", condition=ETAG_IS_THE_SAME, expected_etag=ITEM_NOT_AVAILABLE
        ) as stream:
            await stream.write(b"mine")
            d["a"] = "theirs"
        assert stream.result is not None
        return stream.result.condition_was_satisfied

    assert run(main) is False
    assert d["a"] == "theirs"


def test_a_block_whose_storing_was_cancelled_before_it_began_stores_nothing() -> None:
    d = GatedDict(serialization_format="txt", base_class_for_values=str)

    async def main() -> None:
        a = AsyncDict(d, max_concurrency=1)
        written, taken = asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with a.open("a", "wb") as stream:
                await stream.write(b"text")
                written.set()
                await taken.wait()

        writing = asyncio.ensure_future(write())
        await written.wait()
        blocking = asyncio.ensure_future(a.set("b", "text"))
        await set_in_time(d.entered)  # the only thread is taken
        taken.set()
        for _ in range(3):
            await asyncio.sleep(0)  # the block is left, and its storing waits for the thread
        writing.cancel()
        for _ in range(3):
            await asyncio.sleep(0)  # the storing is cancelled; its stream is closed by the thread
        d.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await blocking

    run(main)
    assert dict(d) == {("b",): "text"}


def test_a_stream_that_was_not_entered_says_how() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        run(lambda: AsyncDict(texts()).open("a", "wb").write(b""))


def test_a_stream_of_an_absent_item_raises_key_error_on_entering() -> None:
    with pytest.raises(KeyError):
        run(lambda: read_all(AsyncDict(texts()), "a"))


def test_the_default_that_a_coroutine_gets_is_a_copy() -> None:
    default: list[int] = []

    async def add(items: list[int]) -> list[int]:
        items.append(1)
        return items

    run(lambda: AsyncDict(LocalDict()).transform_item("a", transformer=add, default=default))
    assert default == []


def test_a_coroutine_that_keeps_what_is_absent_leaves_it_absent() -> None:
    async def keep(_: Any) -> Any:
        return KEEP_CURRENT

    d = LocalDict[int]()
    expected = d.transform_item("a", transformer=lambda _: KEEP_CURRENT, default=5)
    assert run(lambda: AsyncDict(d).transform_item("a", transformer=keep, default=5)) == expected


def test_no_more_operations_are_under_way_than_allowed() -> None:
    d = GatedDict()

    async def main() -> None:
        async with AsyncDict(d, max_concurrency=3) as a:
            under_way = [asyncio.ensure_future(a.contains(f"k{n}")) for n in range(20)]
            while d.running < 3:
                await asyncio.sleep(0)
            d.gate.set()
            await asyncio.gather(*under_way)

    run(main)
    assert d.most == 3


def test_iterating_reads_a_bounded_number_of_items_ahead() -> None:
    read = []

    class Counting(LocalDict[Any]):
        def _decode(self, key: Any, *args: Any) -> Any:
            read.append(key)
            return super()._decode(key, *args)

    d = Counting()
    d.update({str(number): number for number in range(1000)})

    async def main() -> int:
        values: AsyncIterator[Any] = aiter(AsyncDict(d).values())
        await anext(values)
        return len(read)

    assert run(main) <= 64


# ---------------------------------------------------------------------- cancelling


def test_a_cancelled_operation_that_had_begun_is_over_when_its_caller_learns_it() -> None:
    d = GatedDict()

    async def main() -> bool:
        under_way = asyncio.ensure_future(AsyncDict(d).set("a", 1))
        await set_in_time(d.entered)
        under_way.cancel()
        await asyncio.sleep(0)
        assert not under_way.done()
        under_way.cancel()  # insisting does not help
        await asyncio.sleep(0)
        assert not under_way.done()
        d.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        return d.running == 0

    assert run(main)
    assert d["a"] == 1


def test_a_cancelled_operation_that_had_not_begun_never_does() -> None:
    d = GatedDict()

    async def main() -> None:
        a = AsyncDict(d, max_concurrency=1)
        first = asyncio.ensure_future(a.set("a", 1))
        await set_in_time(d.entered)
        second = asyncio.ensure_future(a.set("b", 1))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        d.gate.set()
        await first
        await a.aclose()

    run(main)
    assert dict(d) == {("a",): 1}


def test_what_a_cancelled_operation_raised_is_told() -> None:
    d = GatedDict()

    async def main() -> BaseException | None:
        under_way = asyncio.ensure_future(AsyncDict(d)["absent"])
        await set_in_time(d.entered)
        under_way.cancel()
        await asyncio.sleep(0)
        d.gate.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await under_way
        return caught.value.__cause__

    assert isinstance(run(main), KeyError)


def test_an_iteration_that_is_abandoned_stops_reading() -> None:
    closed = threading.Event()

    class Watched(LocalDict[Any]):
        def _items(self) -> Iterator[Any]:
            try:
                yield from super()._items()
            finally:
                closed.set()

    d = Watched()
    d.update({str(number): number for number in range(500)})

    async def main() -> None:
        items = AsyncDict(d).items().__aiter__()
        await anext(items)
        await items.aclose()  # type: ignore[attr-defined]

    run(main)
    assert closed.is_set()


@pytest.mark.parametrize("got", ["sub-dictionary", "read-only", "view", "stream"])
def test_what_was_got_from_a_dictionary_is_closed_with_it(got: str) -> None:
    async def main() -> None:
        a = AsyncDict(LocalDict())
        sub, only, view, stream = a.get_subdict("s"), a.read_only(), a.keys(), a.open("a", "wb")
        await a.aclose()
        operations: dict[str, Callable[[], Any]] = {
            "sub-dictionary": lambda: sub.set("a", 1),
            "read-only": lambda: only.get("a"),
            "view": view.to_list,
            "stream": stream.__aenter__,
        }
        with pytest.raises(RuntimeError, match="closed"):
            await operations[got]()

    run(main)


def test_a_dictionary_is_not_closed_with_what_was_got_from_it() -> None:
    async def main() -> int | None:
        a = AsyncDict(LocalDict[int]())
        async with a.get_subdict("s") as sub:
            await sub.set("a", 1)
        return await a.get(("s", "a"))

    assert run(main) == 1


def test_leaving_the_context_waits_for_what_is_under_way_and_refuses_more() -> None:
    d = GatedDict()

    async def main() -> None:
        async with AsyncDict(d) as a:
            under_way = asyncio.ensure_future(a.set("a", 1))
            await set_in_time(d.entered)
            asyncio.get_running_loop().call_soon(d.gate.set)
        assert d.running == 0
        await under_way
        with pytest.raises(RuntimeError, match="closed"):
            await a["a"]

    run(main)


# ---------------------------------------------------------------------- the handle


def test_a_handle_travels_as_its_dictionary(tmp_path: Path) -> None:
    a = AsyncDict(FileDirDict[int](base_dir=tmp_path), max_concurrency=3)
    run(lambda: a.set("a", 1))
    other = pickle.loads(pickle.dumps(a))
    assert run(lambda: other.get("a")) == 1
    assert repr(other) == repr(a)


@pytest.mark.parametrize("d", [{}, None, LocalDict], ids=repr)
def test_what_is_no_dictionary_is_refused(d: Any) -> None:
    with pytest.raises(TypeError, match="d must be a PersiDict"):
        AsyncDict(d)


@pytest.mark.parametrize(("number", "error"), [(0, ValueError), ("3", TypeError)])
def test_the_number_of_threads_is_checked(number: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_concurrency"):
        AsyncDict(LocalDict(), max_concurrency=number)


def test_the_same_handle_works_in_one_loop_after_another() -> None:
    a = AsyncDict(LocalDict[int]())
    run(lambda: a.set("a", 1))
    assert run(lambda: a.get("a")) == 1


def test_a_context_variable_of_the_caller_is_seen_by_a_transformer() -> None:
    import contextvars

    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def main() -> Any:
        name.set("ann")
        result = await AsyncDict(LocalDict[str]()).transform_item(
            "a", transformer=lambda _: name.get()
        )
        return result.new_value

    assert run(main) == "ann"


def test_what_cannot_be_awaited_is_refused_at_once() -> None:
    d: Any = AsyncDict(LocalDict[int]())
    with pytest.raises(TypeError, match=r"write await d\.contains\(key\)"):
        "a" in d  # noqa: B015
    with pytest.raises(TypeError, match="'AsyncDict' object is not iterable"):
        list(d)
