"""Every public callable, every argument, every wrong type: the message names the argument."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persidict import (
    ANY_ETAG,
    ITEM_NOT_AVAILABLE,
    AppendOnlyDictCached,
    AsyncDict,
    BasicS3Dict,
    EmptyDict,
    Encrypted,
    ExpiringDict,
    FileDirDict,
    LocalDict,
    MeasuredDict,
    MutableDictCached,
    OverlappingMultiDict,
    S3Dict,
    Signed,
    SQLiteDict,
    StoreDict,
    WriteOnceDict,
    copy_items,
    escape_key,
    memoize,
    open_dict,
    replace_unsafe_chars,
    sync_items,
)
from persidict.adapters.fsspec import DictFileSystem
from persidict.adapters.zarr import ZarrStore

WRONG = [1.5, -1, "", "\0", b"x", [1], {"a": 1}, {1}, object(), len, int, None, LocalDict()]
"""Values of all types, of which no argument takes all."""

SECRETS = {"keys": b"k" * 32}
NOWHERE: dict[str, Any] = {
    "bucket_name": "b",
    "create_bucket": False,
    "endpoint_url": "http://127.0.0.1:9",
}


def local(**params: Any) -> LocalDict[Any]:
    d = LocalDict[Any](**params)
    d["a"] = 1
    return d


def appending() -> LocalDict[Any]:
    return LocalDict[Any](append_only=True)


def bytes_only() -> LocalDict[bytes]:
    return LocalDict[bytes](serialization_format="bin", base_class_for_values=bytes)


CALLABLES: dict[Callable[..., Any], Callable[[], dict[str, Any]]] = {
    FileDirDict: lambda: {"base_dir": "d"},
    LocalDict: lambda: {},
    SQLiteDict: lambda: {"path": "d.db"},
    EmptyDict: lambda: {},
    StoreDict: lambda: {"store": local()._store},
    WriteOnceDict: lambda: {"wrapped_dict": appending()},
    MutableDictCached: lambda: {
        "main_dict": local(),
        "data_cache": LocalDict(),
        "etag_cache": LocalDict(),
    },
    AppendOnlyDictCached: lambda: {"main_dict": appending(), "data_cache": appending()},
    ExpiringDict: lambda: {"wrapped_dict": local(), "ttl": 9},
    MeasuredDict: lambda: {"wrapped_dict": local()},
    AsyncDict: lambda: {"d": local()},
    OverlappingMultiDict: lambda: {
        "dict_type": FileDirDict,
        "shared_subdicts_params": {"base_dir": "d"},
        "json": {},
    },
    BasicS3Dict: lambda: dict(NOWHERE),
    S3Dict: lambda: {**NOWHERE, "base_dir": "d"},
    Signed: lambda: dict(SECRETS),
    Encrypted: lambda: dict(SECRETS),
    memoize: lambda: {"d": local()},
    copy_items: lambda: {"source": local(), "target": local()},
    sync_items: lambda: {"source": local(), "target": local()},
    open_dict: lambda: {"url": "d"},
    escape_key: lambda: {"text": "a"},
    replace_unsafe_chars: lambda: {"a_str": "a", "replace_with": "_"},
    ZarrStore: lambda: {"items": bytes_only()},
    DictFileSystem: lambda: {"items": local()},
}

TOLD_OTHERWISE = [
    ("profile_name", "\0"),  # by botocore
    ("shared_subdicts_params", {"a": 1}),  # by the name of the parameter in it
    ("url", "\0"),  # as the base_dir that it is
]

GIVEN: dict[str, Any] = {
    "key": "a",
    "source_key": "a",
    "target_key": "b",
    "prefix_key": "a",
    "value": 1,
    "default_value": 1,
    "condition": ANY_ETAG,
    "expected_etag": ITEM_NOT_AVAILABLE,
    "transformer": lambda value: 1,
    "keys": ["a"],
    "items": {"a": 1},
    "pattern": "*",
}
"""What makes sense for the arguments of methods, by their names."""

READING = ["keys", "values", "items", "infos", "glob", "newest_keys", "oldest_values", "get_many"]
CHANGING = ["copy_item", "set_item_if", "setdefault_if", "discard_if", "transform_item", "set_many"]
METHODS = [*READING, *CHANGING, "get_item_if", "discard_many", "transaction", "get_subdict"]
METHODS += ["info", "location", "etag", "get", "pop", "setdefault"]

TAKES_ANYTHING = {"value", "default", "default_value", "expected_etag"}


def parameters(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind not in kinds]


def all_of(result: Any) -> None:
    if inspect.isawaitable(result) or hasattr(result, "__aiter__"):
        asyncio.run(finish(result))
    elif hasattr(result, "__enter__"):
        with result:
            pass
    elif hasattr(result, "__iter__"):
        for _ in result:
            pass


async def finish(result: Any) -> None:
    if inspect.isawaitable(result):
        await result
    else:
        async for _ in result:
            pass


def complaint(call: Callable[[], Any]) -> Exception | None:
    try:
        all_of(call())
    except KeyError:  # which was asked for by a good key
        return None
    except (TypeError, ValueError) as error:
        return error
    return None


def check_names(name: str, wrong: Any, error: Exception | None) -> bool:
    if error is not None:
        assert name.removesuffix("s") in str(error), f"{name}={wrong!r:.40}: {error}"
    return error is not None


@pytest.mark.parametrize("function", CALLABLES, ids=lambda function: function.__name__)
def test_a_wrong_argument_is_named(
    function: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in parameters(function):
        refused = 0
        for wrong in WRONG:
            if (name, wrong) in TOLD_OTHERWISE:
                continue
            error = complaint(lambda: function(**{**CALLABLES[function](), name: wrong}))  # noqa: B023
            refused += check_names(name, wrong, error)
        assert refused > 0, f"{name} takes whatever it is given"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "made",
    [
        local,
        lambda: MeasuredDict(wrapped_dict=local()),
        lambda: ExpiringDict(wrapped_dict=local(), ttl=9),
        lambda: AsyncDict(local()),
    ],
    ids=["LocalDict", "MeasuredDict", "ExpiringDict", "AsyncDict"],
)
def test_a_wrong_argument_of_a_method_is_named(made: Callable[[], Any], method: str) -> None:
    if method == "transaction" and not isinstance(made(), LocalDict):
        pytest.skip("has no transactions")
    for name in parameters(getattr(made(), method)):
        needed = [n for n in parameters(getattr(made(), method)) if n in GIVEN]
        refused = 0
        for wrong in WRONG:
            if name == "transformer" and callable(wrong):
                continue  # and fails in its own words
            given = {**{n: GIVEN[n] for n in needed}, name: wrong}
            positional = method in ("get", "pop", "setdefault", "set_many")
            args = [given.pop(n) for n in list(given) if positional and n in needed]
            error = complaint(lambda: getattr(made(), method)(*args, **given))  # noqa: B023
            refused += check_names(name, wrong, error)
        assert refused > 0 or name in TAKES_ANYTHING, f"{name} takes whatever it is given"


MISCALLED: dict[str, tuple[Callable[[], Any], str]] = {
    "AsyncDict": (
        lambda: AsyncDict(local(), max_concurency=3),  # type: ignore[call-arg]
        "AsyncDict has no argument 'max_concurency' (did you mean 'max_concurrency'?); it has d,"
        " max_concurrency",
    ),
    "a coroutine": (
        lambda: AsyncDict(local()).set_item_if("a", 1, ANY_ETAG),  # type: ignore[call-arg]
        "the arguments of set_item_if have names: write set_item_if(key, value=...,"
        " condition=..., expected_etag=...)",
    ),
    "memoize": (
        lambda: memoize(local(), vesion="2"),  # type: ignore[call-arg]
        "memoize has no argument 'vesion' (did you mean 'version'?); it has d, key, ignore,"
        " version, once, ttl, exceptions, lease, claims",
    ),
    "copy_items": (
        lambda: copy_items(local(), local(), ["a"]),  # type: ignore[misc]
        "the arguments of copy_items have names: write copy_items(source, target, keys=...)",
    ),
    "sync_items": (
        lambda: sync_items(local(), local(), dellete=True),  # type: ignore[call-arg]
        "sync_items has no argument 'dellete' (did you mean 'delete'?); it has source, target,"
        " delete, progress",
    ),
    "sync_items of one": (
        lambda: sync_items(local()),  # type: ignore[call-arg]
        "sync_items lacks target: write sync_items(source, target)",
    ),
}


@pytest.mark.parametrize("name", MISCALLED)
def test_a_call_that_does_not_fit_says_what_would(name: str) -> None:
    call, words = MISCALLED[name]
    assert str(complaint(call)) == words


def test_a_method_of_coroutines_stays_one() -> None:
    assert inspect.iscoroutinefunction(AsyncDict.set_item_if)
