"""What holds for all tests, and two choices that the environment makes.

HYPOTHESIS_PROFILE names one of the profiles below; CI means that nothing is random.
PERSIDICT_TEST_S3_TRANSPORT says what `transport="auto"` means: ``botocore`` sends the requests
of all dictionaries on S3 through botocore, and leaves out what is marked `direct_wire`.
"""

import gc
import os
import signal
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("dev", deadline=None, max_examples=75, stateful_step_count=30)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
settings.register_profile(
    "few", settings.get_profile("ci"), max_examples=20, stateful_step_count=20
)
settings.register_profile(
    "thorough", settings.get_profile("dev"), max_examples=1000, stateful_step_count=60
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))

_WIRE = os.environ.get("PERSIDICT_TEST_S3_TRANSPORT") or "auto"

_SLOW_MODULES = frozenset(
    {
        "test_basic_s3_dict",
        "test_benchmarks",
        "test_cached_faults",
        "test_cached_stress",
        "test_crash",
        "test_s3_canned",
        "test_s3_concurrency",
        "test_s3_dict_file_dir_cached",
        "test_s3_fault_proxy",
        "test_s3_faults",
        "test_s3_large",
        "test_s3_latency_proxy",
        "test_s3_servers",
        "test_transfer",
    }
)
"""Modules that run long suites against servers or kill many processes."""

collect_ignore = ["typing"]
"""What is read by type checkers and never run, although doctests are looked for everywhere."""


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run the tests: one more than there are cores, as many wait."""
    return (os.cpu_count() or 1) + 1


def pytest_configure() -> None:
    # a shell has it ignored, by children, too, where the tests run in the background
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if _WIRE == "auto":
        return
    from persidict.stores.s3.transport import connection

    check = connection._transport

    def chosen(given: Any) -> str:
        """Put the wire in the place of "auto": it travels with handles to other processes."""
        transport = check(given)
        return check(_WIRE) if transport == connection.AUTO else transport

    connection._transport = chosen


def pytest_collection_finish() -> None:
    # what was collected lives as long as the tests: to look through it again and again takes long
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in _SLOW_MODULES:
            item.add_marker("slow")
    if _WIRE == "botocore":
        others = [item for item in items if item.get_closest_marker("direct_wire")]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
