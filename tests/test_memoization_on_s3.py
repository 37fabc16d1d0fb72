"""memoize on one S3 dictionary, from processes, joblib and dask.distributed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import joblib  # type: ignore[import-untyped]
import pytest

from persidict import BasicS3Dict, memoize
from tests.s3_dicts import connect
from tests.s3_servers.moto_server import start_moto

pytestmark = pytest.mark.slow

NUMBERS = list(range(5)) * 8


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with start_moto() as server:
        yield server.endpoint_url


@pytest.fixture
def results(endpoint: str) -> BasicS3Dict[Any]:
    return connect(endpoint, root_prefix=f"results-{uuid.uuid4().hex}")


@pytest.fixture
def log(endpoint: str) -> BasicS3Dict[Any]:
    return connect(endpoint, root_prefix=f"log-{uuid.uuid4().hex}")


def square(log: BasicS3Dict[Any], x: int) -> int:
    """Leave an item of its own for each computation."""
    log.transform_item(
        str(x),
        transformer=lambda found: [*(found if isinstance(found, list) else []), 1],
        n_retries=None,
    )
    return x * x


def call(results: BasicS3Dict[Any], log: BasicS3Dict[Any], x: int) -> int:
    return memoize(results, ignore="log", once=True)(square)(log, x)


def computations(log: BasicS3Dict[Any]) -> dict[str, int]:
    return {key[0]: len(found) for key, found in log.items()}


ONCE_EACH = {str(x): 1 for x in NUMBERS}


def test_eight_processes_compute_each_result_once(
    results: BasicS3Dict[Any], log: BasicS3Dict[Any]
) -> None:
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        found = pool.starmap(call, [(results, log, x) for x in NUMBERS], chunksize=1)
    assert found == [x * x for x in NUMBERS]
    assert computations(log) == ONCE_EACH


def stall_first(log: BasicS3Dict[Any], x: int) -> int:
    """Leave an item of its own for each computation, and never return in the first one."""
    if square(log, x) and len(log[str(x)]) == 1:
        signal.pause()
    return x * x


def call_stalling(results: BasicS3Dict[Any], log: BasicS3Dict[Any], x: int) -> int:
    return memoize(results, ignore="log", once=True, lease=2.0)(stall_first)(log, x)


def test_when_who_computes_is_killed_one_of_seven_others_takes_its_place(
    results: BasicS3Dict[Any], log: BasicS3Dict[Any]
) -> None:
    spawn = multiprocessing.get_context("spawn")
    first = spawn.Process(target=call_stalling, args=(results, log, 7))
    first.start()
    while "7" not in log:
        first.join(0.05)
        assert first.is_alive()
    with spawn.Pool(7) as pool:
        others = [pool.apply_async(call_stalling, (results, log, 7)) for _ in range(7)]
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        assert [other.get(120) for other in others] == [49] * 7
    first.join()
    assert computations(log) == {"7": 2}
    assert len(results) == 1


def test_joblib_workers_compute_each_result_once(
    results: BasicS3Dict[Any], log: BasicS3Dict[Any]
) -> None:
    f = memoize(results, ignore="log", once=True)(square)
    found = joblib.Parallel(n_jobs=4)(joblib.delayed(f)(log, x) for x in NUMBERS)
    assert found == [x * x for x in NUMBERS]
    assert computations(log) == ONCE_EACH


def test_dask_workers_compute_each_result_once(
    results: BasicS3Dict[Any], log: BasicS3Dict[Any]
) -> None:
    distributed = pytest.importorskip("distributed")
    f = memoize(results, ignore="log", once=True)(square)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=4, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        futures = [client.submit(f, log, x, pure=False) for x in NUMBERS]
        assert client.gather(futures) == [x * x for x in NUMBERS]
    assert computations(log) == ONCE_EACH


def test_threads_compute_each_result_once(results: BasicS3Dict[Any], log: BasicS3Dict[Any]) -> None:
    barrier = threading.Barrier(8)
    f = memoize(results, ignore="log", once=True)(square)
    found: list[int] = []

    def work() -> None:
        barrier.wait()
        found.append(f(log, 3))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [9] * 8
    assert computations(log) == {"3": 1}
