"""boto3 clients for the servers of this package."""

from __future__ import annotations

import functools
import socket
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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


class SlowPut:
    """A PUT by hand: the head first, and the body when it is asked for."""

    def __init__(self, endpoint_url: str, bucket: str, key: str, **headers: str) -> None:
        url = urlsplit(endpoint_url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=10)
        self.reader = self.socket.makefile("rb")
        head = {
            "Host": "test",
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request",
            "Content-Length": "4",
            "Expect": "100-continue",
            **headers,
        }
        lines = [f"PUT /{bucket}/{key} HTTP/1.1", *map(": ".join, head.items()), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())

    def status(self) -> int:
        """Read the next status line and the blank line that ends its head."""
        status = int(self.reader.readline().split()[1])
        while self.reader.readline().strip():
            continue
        return status

    def send_body(self) -> None:
        self.socket.sendall(b"body")

    def __enter__(self) -> SlowPut:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.reader.close()
        self.socket.close()
