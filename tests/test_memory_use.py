"""How much memory large values take on their way out and in, in all, by the system's own count."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_servers.canned import CannedServer, start_canned
from tests.s3_servers.clients import CREDENTIALS

PEAK = Path("/proc/self/clear_refs")
"""Where Linux takes the order to forget a process's peak of memory."""

pytestmark = pytest.mark.skipif(
    not os.access(PEAK, os.W_OK), reason="needs Linux's /proc to find the peak of a process"
)

PEAK_OF = f"""
import re, sys
from persidict import BasicS3Dict, FileDirDict, LocalDict, SQLiteDict

def memory(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])

def peak_of(operation):
    open({str(PEAK)!r}, "w").write("5")
    before = memory("VmRSS")
    operation()
    return memory("VmHWM") - before

kind, place = sys.argv[1:3]

def make(**params):
    if kind == "ram":
        return LocalDict(**params)
    if kind == "files":
        return FileDirDict(base_dir=place, fsync=False, **params)
    if kind == "database":
        return SQLiteDict(path=place + "/items.db", fsync=False, **params)
    return BasicS3Dict(
        bucket_name="some",
        endpoint_url=place,
        region="us-east-1",
        aws_access_key_id={CREDENTIALS[0]!r},
        aws_secret_access_key={CREDENTIALS[1]!r},
        **params,
    )
"""

MEASURING = f"""{PEAK_OF}
import numpy

d = make()
d.update({{str(number): number for number in range(100)}})  # all threads and modules are there
assert len(d.get_many(map(str, range(100)))) == 100
array = numpy.random.default_rng(1).random(8 * 1024 * 1024)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[CannedServer]:
    with start_canned() as server:
        yield server


@pytest.fixture(params=["ram", "files", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: CannedServer) -> tuple[str, str]:
    return request.param, server.endpoint_url if request.param == "s3" else str(tmp_path)


def arrays_held(program: str, place: tuple[str, str]) -> float:
    """Run a program that prints a number of bytes; return it in sizes of the array."""
    ended = subprocess.run(
        [sys.executable, "-c", f"{MEASURING}\nprint(({program}) / array.nbytes)", *place],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return float(ended.stdout)


WRITTEN_MB = int(os.environ.get("PERSIDICT_TEST_STREAM_MB", "256"))
"""How much is written through a stream; 2048 shows what is promised, and takes a minute."""

WRITING = f"""{PEAK_OF}
d = make(serialization_format="bin", base_class_for_values=bytes)

def write(megabytes):
    with d.open("a", "wb") as stream:
        for _ in range(megabytes):
            stream.write(bytes(1 << 20))

write(100)  # all threads and modules are there
peak = peak_of(lambda: write({WRITTEN_MB}))
assert d.info("a").size == {WRITTEN_MB} << 20
print(peak / (1 << 20))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "database", "s3"])
def test_however_much_is_written_through_a_stream_takes_no_memory(
    kind: str, tmp_path: Path, server: CannedServer
) -> None:
    ten_parts_of_8_mb_under_way = 80
    ended = subprocess.run(
        [
            *(sys.executable, "-c", WRITING),
            *(kind, server.endpoint_url if kind == "s3" else str(tmp_path)),
        ],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert float(ended.stdout) < (ten_parts_of_8_mb_under_way if kind == "s3" else 0) + 32


def test_an_array_is_copied_at_most_once_on_its_way_out(place: tuple[str, str]) -> None:
    assert arrays_held("peak_of(lambda: d.__setitem__('a', array))", place) < 1.3


def test_an_array_is_copied_at_most_once_on_its_way_in(place: tuple[str, str]) -> None:
    the_array_and_one_copy = 2
    program = "d.__setitem__('a', array) or peak_of(lambda: d['a'])"
    assert arrays_held(program, place) < the_array_and_one_copy + 0.5


def test_what_was_read_is_all_given_back(place: tuple[str, str]) -> None:
    program = "d.__setitem__('a', array) or d['a'] is None or peak_of(lambda: None)"
    assert arrays_held(program, place) < 0.1


def test_stored_bytes_are_read_with_one_copy_beside_them(place: tuple[str, str]) -> None:
    program = "d.__setitem__('a', array) or peak_of(lambda: d.raw['a'])"
    assert arrays_held(program, place) < 2.5
