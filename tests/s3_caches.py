"""S3Dicts for tests: on any endpoint, each with what it needs to be on its own."""

from __future__ import annotations

from typing import Any

import pytest

from persidict import S3Dict
from tests.s3_servers.clients import CREDENTIALS, new_bucket_name


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment: those in parameters do not travel as JSON."""
    for name, value in zip(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"), CREDENTIALS, strict=True):
        monkeypatch.setenv(f"AWS_{name}", value)


def connect_cached(endpoint_url: str, *, base_dir: object, **params: Any) -> S3Dict[Any]:
    """Return a dictionary on an endpoint, in a bucket of its own unless told otherwise.

    The credentials are those of the environment.
    """
    settings: dict[str, Any] = {
        "bucket_name": new_bucket_name(),
        "endpoint_url": endpoint_url,
        "region": "us-east-1",
        "base_dir": str(base_dir),
    }
    return S3Dict(**{**settings, **params})
