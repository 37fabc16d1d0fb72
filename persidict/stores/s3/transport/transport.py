"""The port for requests about one bucket: what is above it knows no client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial

from persidict.stores.s3.transport.messages import Refusal, ReplyType, Request
from persidict.stores.shared.parallel import WorkerPool, map_in_order


class Transport(ABC):
    """Carries requests about the objects of one bucket, each once: nothing is repeated here.

    Safe to share among threads. After a fork the child begins with connections of its own.
    ``repr`` tells which wire it is and why.

    Args:
        bucket_name: The bucket.
        pool: Where requests that go at the same time find their threads.
    """

    def __init__(self, bucket_name: str, pool: WorkerPool) -> None:
        self.bucket_name = bucket_name
        self.pool = pool

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """The URL of the service, for messages and for telling services apart."""

    @property
    def unquoted_etags(self) -> bool | None:
        """Whether the server wants ETags in `If-Match` without quotes; None: not known yet."""
        return False

    @abstractmethod
    def send(self, request: Request[ReplyType]) -> ReplyType:
        """Send a request and return what it is answered with.

        Conditions that are not met, absence, and every other answer but success come as
        Refusal, and so does a request that gets no answer, or one that is none of S3's.

        Raises:
            Refusal: It was not answered with success.
        """

    def send_many(self, requests: Iterable[Request[ReplyType]]) -> Iterator[ReplyType | Refusal]:
        """Send many requests, several at a time.

        Args:
            requests: Consumed lazily, in the calling thread, a bounded number ahead.

        Yields:
            What each one is answered with, in their order; bodies have been read.
        """
        return map_in_order(partial(_reply_or_refusal, self), requests, self.pool)


def _reply_or_refusal(transport: Transport, request: Request[ReplyType]) -> ReplyType | Refusal:
    try:
        return transport.send(request)
    except Refusal as refusal:
        return refusal
