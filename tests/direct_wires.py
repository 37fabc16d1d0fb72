"""Direct wires for tests: to any endpoint, and with no other wire behind them."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import Credentials

from persidict.stores.s3.transport.direct.connections import ConnectionPool
from persidict.stores.s3.transport.direct.wire import DirectWire, Line, Lines
from persidict.stores.s3.transport.messages import ReplyType, Request
from persidict.stores.s3.transport.transport import Transport
from persidict.stores.shared.parallel import WorkerPool

BUCKET = "bucket"


class Configured:
    """A configuration, as `Lines` wants it."""

    def __init__(
        self,
        endpoint_url: str | None,
        *,
        concurrency: int = 8,
        credentials: Any = None,
        ca_bundle: str | None = None,
        region: str = "us-east-1",
        **config: Any,
    ) -> None:
        self.pool = WorkerPool(concurrency)
        self.credentials = credentials or Credentials("test", "test")
        self.ca_bundle = ca_bundle
        settings = {"request_checksum_calculation": "when_required", "read_timeout": 10, **config}
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            verify=ca_bundle,
            config=Config(**settings),
        )


class OtherWire(Transport):
    """Notes what is sent through it instead."""

    def __init__(self, bucket_name: str, pool: WorkerPool) -> None:
        super().__init__(bucket_name, pool)
        self.sent: list[Request[Any]] = []

    @property
    def endpoint(self) -> str:
        return "http://other"

    def send(self, request: Request[ReplyType]) -> ReplyType:
        self.sent.append(request)
        return None  # type: ignore[return-value]


def direct_wire(endpoint_url: str | None, *, bucket: str = BUCKET, **settings: Any) -> DirectWire:
    """Return a direct wire to an endpoint."""
    configured = Configured(endpoint_url, **settings)
    other = OtherWire(bucket, configured.pool)
    return DirectWire(bucket, Lines(configured), configured.pool, other)


def line_of(wire: DirectWire) -> Line:
    line = wire._line
    assert line is not None
    return line


def pool_of(wire: DirectWire) -> ConnectionPool:
    return line_of(wire).pool


def sent_otherwise(wire: DirectWire) -> list[Request[Any]]:
    """Return what has gone through the other wire."""
    other = wire._botocore_wire
    assert isinstance(other, OtherWire)
    return other.sent
