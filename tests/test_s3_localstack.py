"""LocalStack's S3 is started on loopback, is atomic, and is what the imitation imitates."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.s3_servers.child_process import ServerUnavailable
from tests.s3_servers.fixtures import localstack_or_skip, localstack_server
from tests.s3_servers.installed import InstalledServer
from tests.s3_servers.localstack import REQUIRE, start_localstack
from tests.s3_servers.wire import Case, Probe, answer_to, expected_answers, race

__all__ = ["localstack_server"]


@pytest.mark.parametrize("case", expected_answers("localstack"), ids="-".join)
def test_what_is_said_of_localstack_is_true_of_localstack_itself(
    localstack_server: InstalledServer, case: Case
) -> None:
    assert answer_to(localstack_server.endpoint_url, case) == expected_answers("localstack")[case]


def test_eight_clients_that_insert_one_key_have_one_winner(
    localstack_server: InstalledServer,
) -> None:
    probe = Probe(localstack_server.endpoint_url)
    answers = race(lambda number: probe.put("key", b"%d" % number, IfNoneMatch="*"))
    assert answers.count(200) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
def test_only_127_0_0_1_is_served(localstack_server: InstalledServer) -> None:
    port = urlsplit(localstack_server.endpoint_url).port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=10)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and no Python that LocalStack could be installed for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PYTHON313", raising=False)


@pytest.mark.usefixtures("nothing_installed")
def test_nothing_is_installed_unasked() -> None:
    with pytest.raises(ServerUnavailable, match=REQUIRE):
        start_localstack(may_install=False)


@pytest.mark.usefixtures("nothing_installed")
def test_a_missing_python_is_named() -> None:
    with pytest.raises(ServerUnavailable, match=r"Python 3\.13"):
        start_localstack(may_install=True)


@pytest.mark.usefixtures("nothing_installed")
def test_a_test_that_needs_localstack_is_skipped_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="LocalStack is not installed"):
        localstack_or_skip()


@pytest.mark.usefixtures("nothing_installed")
def test_a_test_that_needs_localstack_fails_without_it_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match=r"Python 3\.13"):
        localstack_or_skip()
