"""The servers as pytest fixtures; import them into a test module or a conftest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from .child_process import ServerUnavailable
from .clients import new_bucket_name
from .installed import InstalledServer
from .localstack import REQUIRE, start_localstack
from .moto_server import MotoServer, start_moto
from .quirks import AWS, ServerQuirks


@pytest.fixture(scope="session")
def moto_aws_server() -> Iterator[MotoServer]:
    """A moto server that behaves as AWS is documented; one for the whole run."""
    with start_moto(AWS) as server:
        yield server


@pytest.fixture(scope="session")
def moto_like(moto_aws_server: MotoServer) -> Callable[[ServerQuirks], MotoServer]:
    """A function from quirks to an endpoint that has them; same buckets, made once for each."""
    endpoints = {AWS: moto_aws_server}

    def endpoint(quirks: ServerQuirks) -> MotoServer:
        if quirks not in endpoints:
            endpoints[quirks] = moto_aws_server.with_quirks(quirks)
        return endpoints[quirks]

    return endpoint


def localstack_or_skip() -> InstalledServer:
    """Start LocalStack, or skip the test that needs it; fail it where it is required."""
    is_required = os.environ.get(REQUIRE) == "1"
    try:
        return start_localstack(may_install=is_required)
    except ServerUnavailable as reason:
        if is_required:
            pytest.fail(str(reason))
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def localstack_server() -> Iterator[InstalledServer]:
    """LocalStack's S3, one for the whole run; skips where it is not installed."""
    with localstack_or_skip() as server:
        yield server


@pytest.fixture
def bucket_name() -> str:
    """A bucket's name that no other test uses; the bucket does not exist yet."""
    return new_bucket_name()
