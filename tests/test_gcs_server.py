"""Resumable uploads on the server of tests, rule by rule of Google's documentation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.gcs_server import GCSServer

STEP = 256 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[GCSServer]:
    running = GCSServer()
    requests.post(f"{running.url}/storage/v1/b?project=p", json={"name": "bucket"}, timeout=30)
    yield running
    running.stop()


@pytest.fixture
def upload(server: GCSServer) -> str:
    """An upload that has begun, of an object that there is not."""
    return begin(server, "ifGenerationMatch=0")


def begin(server: GCSServer, query: str = "") -> str:
    url = f"{server.url}/upload/storage/v1/b/bucket/o?uploadType=resumable&name=a&{query}"
    return requests.post(url, timeout=30).headers["Location"]


@pytest.fixture(autouse=True)
def emptied(server: GCSServer) -> None:
    requests.delete(f"{server.url}/storage/v1/b/bucket/o/a", timeout=30)


def put(upload: str, data: bytes = b"", content_range: str | None = None) -> requests.Response:
    told = {} if content_range is None else {"Content-Range": content_range}
    return requests.put(upload, data=data, headers=told, timeout=30)


def test_an_upload_may_come_all_at_once_without_a_range(upload: str) -> None:
    assert put(upload, b"abc").json()["size"] == "3"


def test_the_last_part_ends_it_and_those_before_tell_how_far_it_is(upload: str) -> None:
    asked = put(upload, b"", "bytes */*")
    assert (asked.status_code, "Range" in asked.headers) == (308, False)
    part = put(upload, bytes(STEP), f"bytes 0-{STEP - 1}/*")
    assert (part.status_code, part.headers["Range"]) == (308, f"bytes=0-{STEP - 1}")
    last = put(upload, b"a", f"bytes {STEP}-{STEP}/{STEP + 1}")
    assert last.json()["size"] == str(STEP + 1)


def test_a_part_that_comes_again_is_passed_over(upload: str) -> None:
    for _ in range(2):
        part = put(upload, bytes(STEP), f"bytes 0-{STEP - 1}/{STEP + 1}")
        assert part.headers["Range"] == f"bytes=0-{STEP - 1}"


@pytest.mark.parametrize(
    ("size", "content_range", "status"),
    [
        (STEP, f"bytes {STEP}-{2 * STEP - 1}/*", 503),
        (STEP - 1, f"bytes 0-{STEP - 2}/*", 400),
        (3, "bytes 0-3/9", 400),
    ],
    ids=["a gap", "no multiple of 256 KiB", "another length"],
)
def test_a_part_that_does_not_fit_is_refused(
    upload: str, size: int, content_range: str, status: int
) -> None:
    assert put(upload, bytes(size), content_range).status_code == status


def test_an_upload_that_is_complete_answers_the_same_again(upload: str) -> None:
    first = put(upload, b"abc", "bytes 0-2/3")
    assert put(upload, b"abc", "bytes 0-2/3").json() == first.json()
    assert put(upload, b"", "bytes */3").json() == first.json()


def test_conditions_count_when_an_upload_ends(server: GCSServer) -> None:
    uploads = [begin(server, "ifGenerationMatch=0") for _ in range(2)]
    assert [put(upload, b"abc").status_code for upload in uploads] == [200, 412]
    assert put(begin(server, "ifGenerationMatch=0"), b"abc").status_code == 412


def test_an_upload_that_was_cancelled_is_gone(upload: str) -> None:
    assert requests.delete(upload, timeout=30).status_code == 499
    assert put(upload, b"abc").status_code == 404
