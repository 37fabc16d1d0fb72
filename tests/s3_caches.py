"""S3Dicts for tests: on any endpoint, each with what it needs to be on its own."""

from __future__ import annotations

from typing import Any

from persidict import S3Dict
from tests.s3_servers.clients import CREDENTIALS, new_bucket_name


def connect_cached(endpoint_url: str, *, base_dir: object, **params: Any) -> S3Dict[Any]:
    """Return a dictionary on an endpoint, in a bucket of its own unless told otherwise."""
    settings: dict[str, Any] = {
        "bucket_name": new_bucket_name(),
        "endpoint_url": endpoint_url,
        "region": "us-east-1",
        "base_dir": str(base_dir),
        "aws_access_key_id": CREDENTIALS[0],
        "aws_secret_access_key": CREDENTIALS[1],
    }
    return S3Dict(**{**settings, **params})
