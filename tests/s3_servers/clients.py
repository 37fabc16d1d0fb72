"""boto3 clients for the servers of this package."""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client

CREDENTIALS = ("test", "test")


def s3_client(
    endpoint_url: str,
    *,
    credentials: tuple[str, str] = CREDENTIALS,
    attempts: int = 1,
    **config: Any,
) -> S3Client:
    """Return a client of its own, which no other test shares.

    Args:
        endpoint_url: Where the server listens.
        credentials: Access key and secret.
        attempts: How often botocore sends a request at most; 1: never again.
        config: More for botocore's `Config`.
    """
    from botocore.config import Config

    settings = {
        "retries": {"total_max_attempts": attempts, "mode": "standard"},
        "max_pool_connections": 64,
        "connect_timeout": 5,
        "read_timeout": 20,
        **config,
    }
    return _session(credentials).client("s3", endpoint_url=endpoint_url, config=Config(**settings))


@functools.cache
def _session(credentials: tuple[str, str]) -> Session:
    """A session reads the description of S3 once, which takes longer than most tests."""
    import boto3

    return boto3.session.Session(*credentials, region_name="us-east-1")


def new_bucket_name() -> str:
    """Return a name that no other test uses."""
    return f"bucket-{uuid.uuid4().hex}"


def new_bucket(client: S3Client) -> str:
    """Create an empty bucket and return its name."""
    name = new_bucket_name()
    client.create_bucket(Bucket=name)
    return name
