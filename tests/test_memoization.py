"""memoize: results that all callers share, computed once, also when a caller is killed."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest

from persidict import EmptyDict, FileDirDict, LocalDict, WriteOnceDict, expiring_dict, memoize
from persidict.codecs import MissingExtraError
from persidict.memoization.claims import Claim, Claims
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple

CALLS: list[Any] = []
DAY = date(2026, 5, 1)
ROW = [1]
IMAGINARY = 1j
CIRCLE: list[Any] = [ROW]
CIRCLE.append(CIRCLE)


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@pytest.fixture(params=["RAM", "files", "append-only", "write-once"])
def d(request: pytest.FixtureRequest, tmp_path: Path) -> PersiDict[Any]:
    if request.param == "RAM":
        return LocalDict()
    if request.param == "files":
        return FileDirDict(base_dir=tmp_path, fsync=False)
    added = FileDirDict[Any](base_dir=tmp_path, fsync=False, append_only=True)
    return added if request.param == "append-only" else WriteOnceDict(wrapped_dict=added)


def work(x: Any, y: int = 2, *more: Any, flag: bool = False, **options: Any) -> Any:
    CALLS.append((x, y, more, flag, options))
    return ["result", len(CALLS)]


async def work_later(x: int) -> Any:
    await asyncio.sleep(0)
    CALLS.append(x)
    return ["result", len(CALLS)]


# ---------------------------------------------------------------------- results


def test_a_result_is_computed_once_and_then_found(d: PersiDict[Any]) -> None:
    f = memoize(d)(work)
    assert f(1) == f(1) == ["result", 1]
    assert len(CALLS) == 1
    assert f.cache_info() == (1, 1, 0)


def test_another_decorated_function_of_the_same_name_finds_it(d: PersiDict[Any]) -> None:
    memoize(d)(work)(1)
    assert memoize(d)(work)(1) == ["result", 1]
    assert len(CALLS) == 1


def test_none_is_a_result(d: PersiDict[Any]) -> None:
    @memoize(d)
    def nothing() -> None:
        CALLS.append(1)

    assert nothing() is None
    assert nothing() is None
    assert len(CALLS) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f(1, 2),
        lambda f: f(x=1),
        lambda f: f(y=2, x=1),
        lambda f: f(1, flag=False),
    ],
    ids=["given default", "by name", "in another order", "keyword default"],
)
def test_calls_that_mean_the_same_are_the_same(
    d: PersiDict[Any], call: Callable[[Any], Any]
) -> None:
    f = memoize(d)(work)
    f(1)
    call(f)
    assert len(CALLS) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f(2),
        lambda f: f(1.0),
        lambda f: f(True),
        lambda f: f("1"),
        lambda f: f(1, 3),
        lambda f: f(1, 2, 3),
        lambda f: f(1, flag=True),
        lambda f: f(1, more=1),
    ],
    ids=["value", "float", "bool", "str", "position", "more", "flag", "option"],
)
def test_calls_that_differ_are_not_the_same(d: PersiDict[Any], call: Callable[[Any], Any]) -> None:
    f = memoize(d)(work)
    f(1)
    call(f)
    assert len(CALLS) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": {1, 2, 3}, "b": [1]}, {"b": [1], "a": {3, 2, 1}}),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).copy()),
        (pd.DataFrame({"a": [1], "b": ["x"]}), pd.DataFrame({"a": [1], "b": ["x"]})),
        ({"nested": [{"s": frozenset("abc")}]}, {"nested": [{"s": frozenset("cba")}]}),
        ([DAY, {"on": DAY}], [date(2026, 5, 1), {"on": date(2026, 5, 1)}]),
        (2 * [ROW], [[1], [1]]),
        (2 * [IMAGINARY], [complex("1j"), complex("1j")]),
        (CIRCLE, copy.deepcopy(CIRCLE)),
        (
            {frozenset("a"): 1, frozenset("b"): 2, frozenset("c"): 3},
            {frozenset("c"): 3, frozenset("b"): 2, frozenset("a"): 1},
        ),
    ],
    ids=[
        "dict",
        "array",
        "frame",
        "nested",
        "one date",
        "one list",
        "one complex",
        "circle",
        "keys",
    ],
)
def test_equal_arguments_have_one_key(one: Any, other: Any) -> None:
    f = memoize(LocalDict())(work)
    assert f.key_for(one) == f.key_for(other)


def test_what_occurs_over_and_over_is_hashed_once() -> None:
    doubled: Any = [1]
    for _ in range(60):
        doubled = [doubled, doubled]
    f = memoize(LocalDict())(work)
    assert f.key_for(doubled) == f.key_for(copy.deepcopy(doubled))


def test_the_key_is_the_same_in_another_process_whatever_is_loaded_there() -> None:
    program = """
import random, sys
from persidict import LocalDict, memoize
def f(x): ...
f.__module__ = "m"
print(
    memoize(LocalDict())(f).key_for(
        {"a": {"x", "y", "z"}, frozenset("kl"): {frozenset("mn"), (1, frozenset("op"))}}
    )
)
"""
    keys = {
        subprocess.run(
            [sys.executable, "-c", before + program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for before, seed in [("", "1"), ("", "2"), ("import numpy, pandas", "3")]
    }
    assert len(keys) == 1


def test_all_callers_return_the_value_that_was_stored_first() -> None:
    d = LocalDict[Any]()
    barrier = threading.Barrier(8)

    @memoize(d)
    def f(x: int) -> int:
        barrier.wait()
        return threading.get_ident()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(f, [1] * 8))
    assert found == {d[f.key_for(1)]}


def test_a_hit_is_one_read_and_a_miss_one_insertion_more(monkeypatch: Any) -> None:
    done = []
    d = LocalDict[Any]()

    def counted(name: str) -> Callable[..., Any]:
        do = getattr(d, name)

        def primitive(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            return do(*args, **kwargs)

        return primitive

    for name in ("_value", "_head", "_write", "_remove", "_contains"):
        monkeypatch.setattr(d, name, counted(name))
    f = memoize(d)(work)
    f(1)
    assert done.count("_write") == 1
    done.clear()
    f(1)
    assert done == ["_value"]


# ---------------------------------------------------------------------- what tells calls apart


def test_versions_do_not_share_results(d: PersiDict[Any]) -> None:
    memoize(d, version="1")(work)(1)
    memoize(d, version="2")(work)(1)
    memoize(d)(work)(1)
    assert len(CALLS) == 3


def test_functions_do_not_share_results(d: PersiDict[Any]) -> None:
    def other(x: int) -> str:
        return "other"

    assert memoize(d)(work)(1) != memoize(d)(other)(1)


def test_parameters_that_are_ignored_make_no_difference(d: PersiDict[Any]) -> None:
    f = memoize(d, ignore=("y", "options"))(work)
    f(1, 2)
    f(1, 3, z=4)
    assert len(CALLS) == 1


def test_an_argument_that_is_ignored_need_not_be_hashable(d: PersiDict[Any]) -> None:
    f = memoize(d, ignore="x")(work)
    f(threading.Lock())
    assert len(CALLS) == 1


def test_a_parameter_that_does_not_exist_cannot_be_ignored() -> None:
    def f(x: int) -> None: ...

    with pytest.raises(ValueError, match="has no parameter 'z'"):
        memoize(LocalDict(), ignore=["z"])(f)


def test_a_key_of_ones_own_is_used_in_place_of_a_hash(d: PersiDict[Any]) -> None:
    f = memoize(d, key=lambda x: ("user", x["name"]))(work)
    f({"name": "ann"})
    (key,) = d
    assert key.strings[1:] == ("user", "ann")


@pytest.mark.parametrize("returned", ["a/b", 5, None], ids=repr)
def test_a_key_of_ones_own_that_is_none_is_refused(returned: Any) -> None:
    f = memoize(LocalDict(), key=lambda x: returned)(work)
    with pytest.raises((TypeError, ValueError)) as caught:
        f(1)
    assert "work" in caught.value.__notes__[0]
    assert CALLS == []


def test_a_function_that_calls_itself_too_often_is_told_so() -> None:
    @memoize(LocalDict())
    def endless(x: int) -> int:
        return int(endless(x + 1))

    with pytest.raises(RecursionError):
        endless(0)


def test_an_argument_that_cannot_be_hashed_is_named() -> None:
    f = memoize(LocalDict())(work)
    with pytest.raises(TypeError, match=r"argument of .*work cannot be hashed \(y: .*key="):
        f(1, threading.Lock())
    assert CALLS == []


def test_a_call_that_does_not_fit_the_function_is_a_type_error() -> None:
    def f(x: int) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument"):
        memoize(LocalDict())(f)()  # type: ignore[call-arg]


class Scaled:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, x: int) -> int:
        CALLS.append(x)
        return self.factor * x


def test_methods_know_their_objects_by_what_these_are() -> None:
    d = LocalDict[Any]()

    class Memoized(Scaled):
        times = memoize(d)(Scaled.times)  # type: ignore[assignment]

    Memoized.__qualname__ = "Memoized"
    globals()["Memoized"] = Memoized
    assert (Memoized(2).times(5), Memoized(2).times(5), Memoized(3).times(5)) == (10, 10, 15)
    assert len(CALLS) == 2


def test_bound_methods_know_their_objects_too() -> None:
    d = LocalDict[Any]()
    assert memoize(d)(Scaled(2).times)(5) == 10
    assert memoize(d)(Scaled(3).times)(5) == 15


# ---------------------------------------------------------------------- call, forget


def test_a_forgotten_result_is_computed_again(tmp_path: Path) -> None:
    f = memoize(FileDirDict(base_dir=tmp_path))(work)
    f(1)
    assert f.forget(1)
    assert not f.forget(1)
    assert f(1) == ["result", 2]


def test_call_computes_whatever_is_kept_and_keeps_it(tmp_path: Path) -> None:
    f = memoize(FileDirDict(base_dir=tmp_path))(work)
    f(1)
    assert f.call(1) == ["result", 2]
    assert f(1) == ["result", 2]


def test_a_result_expires_after_its_time(tmp_path: Path, monkeypatch: Any) -> None:
    f = memoize(FileDirDict(base_dir=tmp_path), ttl=3600)(work)
    f(1)
    f(1)
    real = expiring_dict._now
    monkeypatch.setattr(expiring_dict, "_now", lambda: real() + 3600)
    f(1)
    assert len(CALLS) == 2


# ---------------------------------------------------------------------- exceptions


def failing(x: int) -> None:
    CALLS.append(x)
    raise LookupError("no such thing")


@pytest.mark.parametrize("once", [False, True])
def test_exceptions_are_not_kept(once: bool) -> None:
    d = LocalDict[Any]()
    f = memoize(d, once=once)(failing)
    for _ in range(2):
        with pytest.raises(LookupError):
            f(1)
    assert len(CALLS) == 2
    assert len(d) == 0


def test_exceptions_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    f = memoize(FileDirDict(base_dir=tmp_path), exceptions=LookupError)(failing)
    for _ in range(2):
        with pytest.raises(LookupError, match="no such thing"):
            f(1)
    assert len(CALLS) == 1


def test_a_dictionary_that_cannot_hold_exceptions_is_refused() -> None:
    with pytest.raises(ValueError, match="exceptions are kept"):
        memoize(LocalDict(serialization_format="json"), exceptions=LookupError)


def test_a_result_that_cannot_be_stored_is_an_error(tmp_path: Path) -> None:
    f = memoize(FileDirDict(base_dir=tmp_path, serialization_format="plainjson"))(lambda_maker)
    with pytest.raises(TypeError, match="plainjson"):
        f()


def lambda_maker() -> Any:
    return lambda: 1


# ---------------------------------------------------------------------- once


def test_of_many_threads_one_computes_and_the_others_wait() -> None:
    d = LocalDict[Any]()
    waiting = threading.Barrier(8)
    f = memoize(d, once=True)(work)

    def call(_: int) -> Any:
        waiting.wait()
        return f(1)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(8))) == [["result", 1]] * 8
    assert len(CALLS) == 1
    assert list(d) == [f.key_for(1)]


def test_who_finds_a_result_after_claiming_does_not_compute() -> None:
    f = memoize(d := LocalDict[Any](), once=True)(work)
    key = f.key_for(1)

    class Late(LocalDict[Any]):
        """Shows a result only to who has claimed it: it came between the look and the claim."""

        def get(self, asked: Any, default: Any = None) -> Any:
            return super().get(asked, default) if d.get(("claimed",)) else default

        def set_item_if(self, *args: Any, **kwargs: Any) -> Any:
            d["claimed"] = True
            return super().set_item_if(*args, **kwargs)

    late = Late()
    late[key] = "found"
    assert memoize(late, once=True)(work)(1) == "found"
    assert CALLS == []


def test_a_function_that_calls_itself_with_the_same_arguments_does_not_wait_for_itself() -> None:
    depth = []

    @memoize(LocalDict(), once=True)
    def f(x: int) -> int:
        depth.append(x)
        return f(x) + 1 if len(depth) < 3 else 0

    assert f(1) == 0  # the innermost result was stored first


def test_recursion_computes_each_value_once() -> None:
    @memoize(LocalDict(), once=True)
    def fibonacci(n: int) -> int:
        CALLS.append(n)
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(20) == 6765
    assert len(CALLS) == 21


def test_switched_off_by_an_empty_dictionary_it_computes_every_time() -> None:
    f = memoize(EmptyDict(), once=True)(work)
    assert (f(1), f(1)) == (["result", 1], ["result", 2])


def test_results_that_are_never_changed_have_their_claims_elsewhere() -> None:
    d, claims = LocalDict[Any](append_only=True), LocalDict[str]()
    with pytest.raises(ValueError, match="claims="):
        memoize(d, once=True)
    f = memoize(d, once=True, claims=claims)(work)
    f(1)
    assert f(1) == ["result", 1]
    assert len(claims) == 0


def test_a_dictionary_that_cannot_hold_claims_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="claims="):
        memoize(FileDirDict(base_dir=tmp_path, serialization_format="npy"), once=True)
    with pytest.raises(ValueError, match="claims="):
        memoize(LocalDict(base_class_for_values=int), once=True)


def test_a_claim_that_cannot_be_deleted_is_a_warning_and_not_a_lost_result() -> None:
    class Failing(LocalDict[Any]):
        def discard_if(self, *args: Any, **kwargs: Any) -> Any:
            raise OSError("the disk is gone")

    with pytest.warns(RuntimeWarning, match="the disk is gone"):
        assert memoize(LocalDict(), once=True, claims=Failing())(work)(1) == ["result", 1]


def test_a_claim_whose_reply_was_lost_is_taken_back() -> None:
    class Lossy(LocalDict[Any]):
        def set_item_if(self, *args: Any, **kwargs: Any) -> Any:
            super().set_item_if(*args, **kwargs)
            raise OSError("the reply was lost")

    claims = Lossy()
    with pytest.raises(OSError, match="lost"):
        memoize(LocalDict(), once=True, claims=claims)(work)(1)
    assert len(claims) == 0


def test_who_computes_for_long_shows_signs_of_life() -> None:
    signs = threading.Event()

    class Watched(LocalDict[Any]):
        def set_item_if(self, *args: Any, value: Any, **kwargs: Any) -> Any:
            if str(value).endswith(", 3"):
                signs.set()
            return super().set_item_if(*args, value=value, **kwargs)

    @memoize(LocalDict(), once=True, claims=Watched(), lease=0.01)
    def slow() -> bool:
        return signs.wait(60)

    assert slow()


COMPUTED = "computed"


def slow_work(place: str, x: int) -> str:
    """Leave a file for each computation, and never return in the first one."""
    path = Path(place)
    number = len(list(path.glob(f"{COMPUTED}-*")))
    (path / f"{COMPUTED}-{number}-{os.getpid()}").touch()
    if number == 0:
        signal.pause()
    return "result"


def call_slow_work(place: str) -> str:
    d = FileDirDict[Any](base_dir=Path(place) / "d", fsync=False)
    return memoize(d, once=True, lease=1.0)(slow_work)(place, 1)


def test_when_who_computes_is_killed_exactly_one_of_the_others_takes_its_place(
    tmp_path: Path,
) -> None:
    spawn = multiprocessing.get_context("spawn")
    first = spawn.Process(target=call_slow_work, args=(str(tmp_path),))
    first.start()
    while not list(tmp_path.glob(f"{COMPUTED}-*")):
        first.join(0.01)
        assert first.is_alive()
    with spawn.Pool(4) as pool:
        others = [pool.apply_async(call_slow_work, (str(tmp_path),)) for _ in range(4)]
        claims = FileDirDict[Any](base_dir=tmp_path / "d")
        assert len(list(tmp_path.glob(f"{COMPUTED}-*"))) == 1
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        assert [other.get(100) for other in others] == ["result"] * 4
    first.join()
    assert len(list(tmp_path.glob(f"{COMPUTED}-*"))) == 2
    assert len(claims) == 1


def test_of_several_that_find_a_claim_dead_one_replaces_it() -> None:
    claims = LocalDict[str]()
    claims["k"] = "somebody dead"
    dead = claims.etag("k")
    rivals = [Claim(Claims(claims, lease=1.0), NonEmptySafeStrTuple("k")) for _ in range(3)]
    assert [rival.take(dead) for rival in rivals] == [True, False, False]


def count_work(place: str, x: int) -> int:
    """Leave a file of its own for each computation."""
    path = Path(place) / f"{x}-{os.getpid()}-{threading.get_ident()}"
    os.close(os.open(path, os.O_CREAT))
    return x


def call_count_work(place: str, d: PersiDict[Any], x: int) -> int:
    return memoize(d, once=True)(count_work)(place, x)


def test_eight_processes_compute_each_result_once(tmp_path: Path) -> None:
    d = FileDirDict[Any](base_dir=tmp_path / "d", fsync=False)
    (tmp_path / "log").mkdir()
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        found = pool.starmap(
            call_count_work, [(str(tmp_path / "log"), d, x) for x in list(range(10)) * 8]
        )
    assert found == list(range(10)) * 8
    assert len(list((tmp_path / "log").iterdir())) == 10


# ---------------------------------------------------------------------- coroutines


def test_a_coroutine_function_is_awaited_once(d: PersiDict[Any]) -> None:
    f = memoize(d)(work_later)

    async def main() -> Any:
        return [await f(1), await f(1)]

    assert asyncio.run(main()) == [["result", 1]] * 2


def test_of_many_coroutines_one_computes() -> None:
    f = memoize(LocalDict(), once=True)(work_later)

    async def main() -> Any:
        return await asyncio.gather(*(f(1) for _ in range(20)))

    assert asyncio.run(main()) == [["result", 1]] * 20
    assert len(CALLS) == 1


def test_a_coroutine_is_called_anew_and_forgotten() -> None:
    f = memoize(LocalDict())(work_later)

    async def main() -> Any:
        return [await f(1), await f.call(1), await f(1), await f.forget(1), await f(1)]

    assert asyncio.run(main()) == [["result", n] for n in (1, 2, 2)] + [True, ["result", 3]]


def test_cancelling_the_one_that_computes_lets_another_do_it() -> None:
    begun: list[int] = []
    claims = LocalDict[str]()

    @memoize(LocalDict(), once=True, claims=claims)
    async def f(x: int) -> str:
        begun.append(x)
        if len(begun) == 1:
            await asyncio.Event().wait()
        return "result"

    async def main() -> Any:
        first = asyncio.ensure_future(f(1))
        while not begun:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(f(1))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert asyncio.run(asyncio.wait_for(main(), 60)) == "result"
    assert len(claims) == 0


def test_a_coroutine_that_nobody_goes_on_with_lets_go_of_its_claim() -> None:
    claims = LocalDict[str]()
    begun: list[int] = []

    @memoize(LocalDict(), once=True, claims=claims)
    async def f(x: int) -> None:
        begun.append(x)
        await asyncio.Event().wait()

    async def until_begun() -> None:
        while not begun:
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    coroutine = f(1)
    task = loop.create_task(coroutine)
    loop.run_until_complete(until_begun())
    assert len(claims) == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    coroutine.close()  # in another context than that of the task
    assert len(claims) == 0


class Interruption(BaseException):
    """What a signal handler raises."""


def test_an_interruption_while_a_claim_begins_to_live_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims = LocalDict[str]()
    f = memoize(LocalDict(), once=True, claims=claims)(work)

    def start(thread: threading.Thread) -> None:
        raise Interruption

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Interruption):
        f(1)
    assert len(claims) == 0


def test_an_interruption_while_a_claim_is_released_leaves_none() -> None:
    class Interrupted(LocalDict[str]):
        times = 0

        def discard_if(self, *args: Any, **kwargs: Any) -> Any:
            self.times += 1
            if self.times == 1:
                raise Interruption
            return super().discard_if(*args, **kwargs)

    claims = Interrupted()
    with pytest.raises(Interruption):
        memoize(LocalDict(), once=True, claims=claims)(work)(1)
    assert len(claims) == 0


class Unreadable(ValueError):
    """It has another number of arguments than are pickled."""

    def __init__(self, text: str, line: int) -> None:
        super().__init__(text)
        self.line = line


def test_an_exception_that_cannot_be_unpickled_is_raised_and_not_kept() -> None:
    d = LocalDict[Any]()

    @memoize(d, exceptions=ValueError)
    def f(x: int) -> None:
        raise Unreadable("text", x)

    for _ in range(2):
        with pytest.raises(Unreadable) as caught:
            f(1)
        assert "not kept" in caught.value.__notes__[0]
    assert len(d) == 0


# ---------------------------------------------------------------------- bad input, travel

shared = LocalDict[Any]()


@memoize(shared)
def at_top_level(x: int) -> int:
    """Return x."""
    return x


def test_a_decorated_function_looks_like_the_one_it_was() -> None:
    assert at_top_level.__name__ == "at_top_level"  # type: ignore[attr-defined]
    assert at_top_level.__doc__ == "Return x."
    assert at_top_level.__wrapped__(3) == 3
    assert asyncio.iscoroutinefunction(memoize(shared)(work_later))


def test_a_decorated_function_is_pickled_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(at_top_level)) is at_top_level


def test_joblib_workers_share_results(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    f = memoize(FileDirDict(base_dir=tmp_path / "d", fsync=False), once=True)(count_work)
    place = str(tmp_path / "log")
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(f)(place, x % 3) for x in range(12))
    assert found == [x % 3 for x in range(12)]
    assert len(list((tmp_path / "log").iterdir())) == 3


@pytest.mark.parametrize(
    "function", [5, "f", None, lambda x: x], ids=["int", "str", "None", "lambda"]
)
def test_what_has_no_name_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="memoize"):
        memoize(LocalDict())(function)


def test_a_generator_function_is_refused() -> None:
    def generate() -> Any:
        yield 1

    with pytest.raises(TypeError, match="generator"):
        memoize(LocalDict())(generate)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"d": {}}, TypeError),
        ({"key": "k"}, TypeError),
        ({"ignore": [1]}, TypeError),
        ({"version": 1}, TypeError),
        ({"version": "1/2"}, ValueError),
        ({"ttl": -1}, ValueError),
        ({"exceptions": "LookupError"}, TypeError),
        ({"lease": 0}, ValueError),
        ({"lease": float("inf")}, ValueError),
        ({"lease": "1"}, TypeError),
        ({"once": True, "claims": {}}, TypeError),
    ],
    ids=repr,
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception]) -> None:
    name = list(arguments)[-1]
    with pytest.raises(error, match=name):
        memoize(**{"d": LocalDict(), **arguments})(work)


def test_decorating_without_parentheses_is_told_what_is_missing() -> None:
    with pytest.raises(TypeError, match="d must be a PersiDict"):
        memoize(work)  # type: ignore[arg-type]


def test_the_library_that_hashes_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "joblib")
    monkeypatch.setattr("persidict.codecs.codec.find_spec", lambda module: None)
    with pytest.raises(MissingExtraError, match=r"persidict\[memoize\]"):
        memoize(LocalDict())
    assert memoize(LocalDict(), key=str)(work)(1) == ["result", 1]
