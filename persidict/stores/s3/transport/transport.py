"""The port for requests about one bucket: what is above it knows no client."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final, Protocol

from persidict.stores.s3.transport.bodies import BrokenBody, BytesBody
from persidict.stores.s3.transport.messages import Refusal, Reply, ReplyType, Request
from persidict.stores.shared.parallel import WorkerPool, map_in_order

MOST_READ_AHEAD: Final = 16 * 1024 * 1024
"""Bodies of more bytes, or of nobody knows how many, are left for whoever reads them."""


class Again(Protocol):
    """Decides whether a request that was refused is sent again."""

    def __call__(self, request: Request[Any], refusal: Refusal, attempt: int, /) -> float | None:
        """Return the seconds to wait before, None for never; `attempt` counts from 1."""


def never(request: Request[Any], refusal: Refusal, attempt: int, /) -> float | None:
    """Send nothing again."""
    return None


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

    def send_many(
        self, requests: Iterable[Request[ReplyType]], again: Again = never
    ) -> Iterator[ReplyType | Refusal]:
        """Send many requests, several at a time, fewer if the service asks for that.

        Args:
            requests: Consumed lazily, in the calling thread, a bounded number ahead.
            again: Decides what is sent again after a Refusal, and when; others are under way
                meanwhile.

        Yields:
            What each one is answered with, in their order. Small bodies have been read.
        """
        return map_in_order(partial(_reply_or_refusal, self, again), requests, self.pool)


def _reply_or_refusal(
    transport: Transport, again: Again, request: Request[ReplyType]
) -> ReplyType | Refusal:
    may_have_acted = False
    for attempt in itertools.count(1):
        try:
            reply = transport.send(request)
            _read_ahead(reply)
            return reply
        except Refusal as refusal:
            refusal.may_have_acted = may_have_acted = refusal.may_have_acted or may_have_acted
            pause = again(request, refusal, attempt)
            if pause is None:
                return refusal
            time.sleep(pause)
    raise AssertionError("unreachable")


def _read_ahead(reply: object) -> None:
    """Read a small body in the thread that has asked for it."""
    if not isinstance(reply, Reply) or (body := reply.body) is None:
        return
    if reply.content_length is None or reply.content_length > MOST_READ_AHEAD:
        return  # nobody knows where one ends that was not announced
    try:
        reply.body = BytesBody(body.read())
    except Refusal as refusal:
        reply.body = BrokenBody(refusal)
    finally:
        body.close()
