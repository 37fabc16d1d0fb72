"""What a user writes, every operation once, with the types that it must have.

Checked by mypy --strict and by pyright in strict mode, and never run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

from persidict import (
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    AsyncDict,
    BasicS3Dict,
    ConditionalOperationResult,
    Encrypted,
    ETagIfExists,
    ExpiringDict,
    FileDirDict,
    ItemInfo,
    ItemWriter,
    KeyFromEnvironment,
    LocalDict,
    MutableDictCached,
    NonEmptySafeStrTuple,
    OperationResult,
    PersiDict,
    Signed,
    WriteOnceDict,
    copy_items,
    memoize,
    sync_items,
)

# without an annotation, values are of any class
anything = FileDirDict(base_dir="x")
anything["a"] = 1
assert_type(anything, FileDirDict[Any])
remote = BasicS3Dict(bucket_name="b")
plain = LocalDict()

d: PersiDict[int] = FileDirDict[int](base_dir=Path("x"), protection=Signed(b"k" * 32))


def operations_of_dict() -> None:
    d["a"] = 1
    d["a", "b"] = 2
    d["a", ["b", "c"]] = 3
    d["a"] = KEEP_CURRENT
    d["a"] = DELETE_CURRENT
    assert_type(d["a"], int)
    assert_type(d.get("a"), int | None)
    assert_type(d.get("a", 0), int)
    assert_type(d.get("a", "none"), int | str)
    assert_type(d.pop("a"), int)
    assert_type(d.pop("a", None), int | None)
    assert_type(d.pop("a", "none"), int | str)
    assert_type(d.setdefault("a", 0), int)
    assert_type(d.setdefault("a"), int | None)
    assert_type(d.popitem(), tuple[NonEmptySafeStrTuple, int])
    assert_type(len(d), int)
    assert_type("a" in d, bool)
    assert_type(list(d), list[NonEmptySafeStrTuple])
    assert_type(list(d.values()), list[int])
    assert_type(list(d.items(prefix="a")), list[tuple[NonEmptySafeStrTuple, int]])
    d.update({"a": 1}, b=2)
    d.clear()
    del d["a"]


def operations_of_its_own() -> None:
    assert_type(d.discard("a"), bool)
    assert_type(d.get_many(["a"]), dict[NonEmptySafeStrTuple, int])
    d.set_many({"a": 1})
    d.discard_many(["a"])
    assert_type(d.timestamp("a"), float)
    assert_type(d.info("a"), ItemInfo)
    assert_type(d.infos("a"), Iterator[ItemInfo])
    assert_type(d.glob("a/*"), Iterator[NonEmptySafeStrTuple])
    assert_type(reversed(d.keys("a")), Iterator[NonEmptySafeStrTuple])
    assert_type(d.location("a"), str)
    assert_type(d.presign("a", "PUT", 60), str)
    d.copy_item("a", "b")
    assert_type(d.random_key(), NonEmptySafeStrTuple | None)
    assert_type(d.newest_keys(max_n=1), list[NonEmptySafeStrTuple])
    assert_type(d.oldest_values(), list[int])
    assert_type(d.get_subdict("a"), PersiDict[int])
    assert_type(d.subdicts(), dict[str, PersiDict[int]])
    assert_type(d.raw["a"], bytes)
    with d.open("a") as stream:
        assert_type(stream.read(), bytes)
    with d.open("a", "wb", condition=ANY_ETAG) as writer:
        writer.write(b"")
    assert_type(writer, ItemWriter)


def conditional_operations() -> None:
    read = d.get_with_etag("a")
    assert_type(read, ConditionalOperationResult[int])
    assert_type(read.new_value, int)
    written = d.set_item_if(
        "a",
        value=read.new_value + 1,
        condition=ETAG_IS_THE_SAME,
        expected_etag=read.actual_etag,
    )
    assert_type(written.condition_was_satisfied, bool)
    d.setdefault_if("a", default_value=1, condition=ANY_ETAG, expected_etag=ITEM_NOT_AVAILABLE)
    d.discard_if("a", condition=ETAG_IS_THE_SAME, expected_etag=d.etag("a"))
    assert_type(d.transform_item("a", transformer=lambda found: found + 1), OperationResult[int])


def other_dictionaries() -> None:
    ram = LocalDict[str](serialization_format="json")
    assert_type(ExpiringDict(wrapped_dict=ram, ttl=60), ExpiringDict[str])
    assert_type(ExpiringDict(wrapped_dict=ram, ttl=60)["a"], str)
    WriteOnceDict(wrapped_dict=LocalDict[str](append_only=True))
    MutableDictCached(main_dict=ram, data_cache=LocalDict[str](), etag_cache=LocalDict[str]())
    FileDirDict[str](base_dir="x", protection=Encrypted([KeyFromEnvironment("A"), b"k" * 32]))
    copy_items(ram, LocalDict[str]())
    assert_type(len(sync_items(ram, LocalDict[str]()).copied), int)


def other_handles() -> None:
    d = LocalDict[int](read_only=True)
    assert_type(d.read_only(), LocalDict[int])
    assert_type(d.is_read_only, bool)
    assert_type(d.with_params(read_only=False), LocalDict[int])
    assert_type(dict(d.plain()), dict[str | tuple[str, ...], int])
    assert_type(ExpiringDict(wrapped_dict=d, ttl=3, read_only=True)["a"], int)


async def asynchronous_operations() -> None:
    async with AsyncDict(LocalDict[int]()) as a:
        await a.set("a", 1)
        assert_type(await a["a"], int)
        assert_type(await a.get("a"), int | None)
        assert_type(await a.get("a", "none"), int | str)
        assert_type(await a.pop("a"), int)
        assert_type(await a.len(), int)
        assert_type([v async for v in a.values()], list[int])
        assert_type((await a.get_with_etag("a")).new_value, int)
        assert_type((await a.info("a")).size, int)
        assert_type([info.size async for info in a.infos()], list[int])
        assert_type(await a.copy_item("a", "b"), ETagIfExists)
        assert_type(a.read_only(), AsyncDict[int])
        async with a.open("a", "wb") as written:
            assert_type(await written.write(b"1"), int)
        async with a.open("a") as read:
            assert_type(await read.read(), bytes)


@memoize(plain, once=True, ignore="verbose", ttl=3600)
def area(width: int, height: int = 1, verbose: bool = False) -> float:
    return width * height


@memoize(plain)
async def later(name: str) -> bytes:
    return name.encode()


class Shape:
    @memoize(plain)
    def scaled(self, by: int) -> float:
        return 1.0 * by

    @memoize(plain)
    async def later(self, by: int) -> bytes:
        return bytes(by)


async def memoized_methods() -> None:
    assert_type(Shape().scaled(3), float)
    assert_type(Shape.scaled(Shape(), by=3), float)
    assert_type(Shape.scaled.forget(Shape(), 3), bool)
    assert_type(await Shape().later(by=3), bytes)


def memoized_functions() -> None:
    assert_type(area(3, height=4), float)
    assert_type(area.call(3), float)
    assert_type(area.forget(3), bool)
    assert_type(area.key_for(3), NonEmptySafeStrTuple)
    assert_type(area.cache_info().hits, int)


async def memoized_coroutines() -> None:
    assert_type(await later("a"), bytes)
    assert_type(await later.call("a"), bytes)
    assert_type(await later.forget("a"), bool)
