"""Requests about one bucket: repeated where that does no harm, and their failures explained."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from persidict import back_off, log
from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.s3.bucket import Bucket, known_bucket
from persidict.stores.s3.capabilities import Support
from persidict.stores.s3.marker import Stopwatch, is_marker
from persidict.stores.s3.transport.client import SharedClient
from persidict.stores.s3.transport.errors import annotate
from persidict.stores.s3.transport.messages import (
    CreateBucket,
    HeadBucket,
    HeadObject,
    ListObjectsV2,
    PutObject,
    Refusal,
    Reply,
    ReplyType,
    Request,
    UploadPart,
)
from persidict.stores.s3.transport.options import NO_OPTIONS, RequestOptions
from persidict.stores.s3.transport.transport import Transport
from persidict.stores.shared.lineage import METADATA_KEY
from persidict.stores.shared.parallel import map_in_order
from persidict.traffic import TrafficCounter

ItemType = TypeVar("ItemType")
ResultType = TypeVar("ResultType")

PAUSE_SECONDS: Final = 0.02
"""The unit of the pause between two attempts to change what others change, too."""

_CONFLICT_ATTEMPTS: Final = 12
_THROTTLED_ATTEMPTS: Final = 20
"""How often one of many requests is sent at most while the service asks for fewer."""

_LONGEST_BACK_OFF_SECONDS: Final = 20.0
_ETAG: Final = re.compile(r'(?:W/)?"[!#-)+\--~]+"')


class Look(NamedTuple):
    """What a reply tells of an object.

    Attributes:
        etag: The version.
        size: How many bytes it has; 0 where the server does not tell.
        last_modified: POSIX seconds; not a number where the server does not tell.
        lineage: What its writer left; None if nothing.
        date: The server's clock, POSIX seconds; None if not told.
        is_marker: Whether it stands for an item that has been taken.
    """

    etag: ETagValue
    size: int
    last_modified: float
    lineage: str | None
    date: float | None
    is_marker: bool = False


def is_etag(text: str) -> bool:
    """Tell whether a text can be the ETag of an object: one in quotes, and no list of them."""
    return _ETAG.fullmatch(text) is not None


def pause(attempt: int) -> None:
    """Wait for a random time that grows with the attempts, so that rivals get out of step."""
    back_off.pause(attempt, PAUSE_SECONDS)


def _pause_before_another(refusal: Refusal, made: int, limit: int) -> float | None:
    """Return the seconds to wait before one more attempt, None if none is due.

    Args:
        refusal: How the last attempt ended.
        made: How many there were.
        limit: How many there may be; collisions have a limit of their own.
    """
    if refusal.is_conflict:
        return back_off.seconds_to_pause(made, PAUSE_SECONDS) if made < _CONFLICT_ATTEMPTS else None
    if not refusal.is_passing or made >= limit:
        return None
    return back_off.seconds_to_pause(made - 1, 1.0, _LONGEST_BACK_OFF_SECONDS)


def _note_retry(refusal: Refusal, seconds: float) -> None:
    """Log that a request is sent again; collisions belong to a good day with many writers."""
    note = log.debug if refusal.is_conflict else log.info
    note("%s is sent again in %.3f s: %s", refusal.operation, seconds, log.of(refusal.error))


class Attempts:
    """How often what one operation asks for is sent, in all, and with which pauses.

    Collisions of conditional requests have a budget of their own: they are no trouble.

    Args:
        limit: The number of attempts, the first one included.
        traffic: Counts those that are sent again.
    """

    def __init__(self, limit: int, traffic: TrafficCounter) -> None:
        self._limit = limit
        self._traffic = traffic
        self._failed = 0
        self._collided = 0

    def another(self, refusal: Refusal) -> bool:
        """Tell whether one more attempt is due after a refusal; if so, wait until then."""
        if refusal.is_conflict:
            self._collided += 1
            seconds = _pause_before_another(refusal, self._collided, self._limit)
        else:
            seconds = _pause_before_another(refusal, self._failed + 1, self._limit)
            self._failed += seconds is not None
        if seconds is None:
            return False
        _note_retry(refusal, seconds)
        self._traffic.count(requests=0, retries=1)
        time.sleep(seconds)
        return True


def _bytes_in(request: Request[Any]) -> int:
    """Return the bytes of a value that a request has carried, as far as it came."""
    if isinstance(request, PutObject):
        return len(request.body)
    if isinstance(request, UploadPart):
        return len(request.body) if isinstance(request.body, bytes) else request.body.tell()
    return 0


def _bytes_in_answer(answer: object) -> int:
    return answer.content_length or 0 if isinstance(answer, Reply) and answer.body else 0


class S3Requests:
    """Requests about the objects of one bucket.

    Args:
        shared: The client and what goes with it.
        bucket_name: The bucket.
        create_bucket: Whether the bucket is created when it is missing.
        options: What goes with every request.
    """

    def __init__(
        self,
        shared: SharedClient,
        bucket_name: str,
        *,
        create_bucket: bool,
        options: RequestOptions = NO_OPTIONS,
    ) -> None:
        if options:
            shared.check_options(options)
        self.shared = shared
        self.bucket_name = bucket_name
        self.options = options
        self._create_bucket = create_bucket
        self._bucket: Bucket | None = None
        self._transport: Transport | None = None
        self._has_succeeded = False
        self.is_for_reading = False
        self.traffic = TrafficCounter()
        if create_bucket:
            self._ensure_bucket()

    @property
    def transport(self) -> Transport:
        """How the requests travel."""
        transport = self._transport
        if transport is None:
            transport = self._transport = self.shared.transport(self.bucket_name, self.options)
        return transport

    @property
    def bucket(self) -> Bucket:
        """What this process knows of the bucket."""
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = known_bucket(self.shared.endpoint, self.bucket_name)
        return bucket

    def attempts(self) -> Attempts:
        """Return the budget of one operation."""
        return Attempts(self.shared.attempts, self.traffic)

    def perform(self, request: Request[ReplyType], attempts: Attempts | None = None) -> ReplyType:
        """Send a request, and again as long as that may help and does no harm.

        A request that must not act twice is repeated only after an answer, or the lack of
        one, that shows that it has not acted; else it is for the caller to find out. A
        bucket that is missing is created, unless a request has succeeded before: one that
        has vanished is not put in the place of another one, as if nothing had happened.

        Args:
            request: The request.
            attempts: The budget of the operation that it is part of.

        Raises:
            Refusal: The last one; it knows whether any attempt may have acted.
        """
        may_have_acted = False
        has_created_bucket = False
        while True:
            try:
                return self._sent(request)
            except Refusal as refusal:
                refusal.may_have_acted = may_have_acted = refusal.may_have_acted or may_have_acted
                if may_have_acted and not request.is_repeatable:
                    raise
                if refusal.is_missing_bucket:
                    self.bucket.is_known_to_exist = False
                attempts = attempts or self.attempts()
                if refusal.is_missing_bucket and self._may_create_bucket and not has_created_bucket:
                    has_created_bucket = True
                elif not attempts.another(refusal):
                    raise
            if isinstance(request, UploadPart):
                request.rewind()
            if has_created_bucket and not self.bucket.is_known_to_exist:
                self._ensure_bucket()

    def perform_many(
        self, planned: Iterable[tuple[ItemType, Request[ReplyType]]]
    ) -> Iterator[tuple[ItemType, ReplyType | Refusal]]:
        """Send many requests at the same time, and again as `perform` does.

        Args:
            planned: Requests, each with what it is for; consumed lazily.

        Yields:
            What each one was for, with the answer, in the order of the requests. A Refusal
            knows whether any attempt may have acted; the caller decides what comes then.
        """
        under_way: deque[tuple[ItemType, int]] = deque()

        def requests() -> Iterator[Request[ReplyType]]:
            for item, request in planned:
                under_way.append((item, _bytes_in(request)))
                yield request

        limit = self.shared.attempts

        def again(request: Request[Any], refusal: Refusal, attempt: int) -> float | None:
            seconds: float | None
            if refusal.is_missing_bucket:
                self.bucket.is_known_to_exist = False
            if refusal.may_have_acted and not request.is_repeatable:
                return None
            if refusal.asks_for_fewer_requests and attempt < _THROTTLED_ATTEMPTS:
                # fewer are under way from now on: to be patient is better than to fail
                seconds = back_off.seconds_to_pause(attempt, PAUSE_SECONDS)
            else:
                seconds = _pause_before_another(refusal, attempt, limit)
            if seconds is not None:
                _note_retry(refusal, seconds)
                self.traffic.count(retries=1, sent=_bytes_in(request))
            return seconds

        for answer in self.transport.send_many(requests(), again):
            item, sent = under_way.popleft()
            self.traffic.count(sent=sent, received=_bytes_in_answer(answer))
            if not isinstance(answer, Refusal):
                self._has_succeeded = True
            yield item, answer

    def settle_many(
        self,
        planned: Iterator[tuple[ItemType, Request[ReplyType]]],
        settle: Callable[[ItemType, ReplyType | Refusal], ResultType],
    ) -> Iterator[ResultType]:
        """Send many requests as `perform_many` does, and bring each to its end.

        To find out what became of one that may have acted takes looks and pauses: those are
        put aside, and settled at the same time, once no other request is under way.

        Args:
            planned: Requests, each with what it is for; consumed lazily.
            settle: Brings to its end what has been answered so; called in other threads, too.

        Yields:
            What `settle` returned; of those that were put aside, later than the others.
        """
        pool = self.shared.pool
        in_doubt: list[tuple[ItemType, Refusal]] = []

        def until_many_are_in_doubt() -> Iterator[tuple[ItemType, Request[ReplyType]]]:
            for entry in planned:
                yield entry
                if len(in_doubt) >= pool.max_workers:
                    return

        while True:
            in_doubt.clear()
            for item, answer in self.perform_many(until_many_are_in_doubt()):
                if isinstance(answer, Refusal) and answer.may_have_acted:
                    in_doubt.append((item, answer))
                else:
                    yield settle(item, answer)
            is_over = len(in_doubt) < pool.max_workers
            yield from map_in_order(lambda doubtful: settle(*doubtful), in_doubt, pool)
            if is_over:
                return

    def _sent(self, request: Request[ReplyType]) -> ReplyType:
        """Send a request once, and count it."""
        received = 0
        try:
            reply = self.transport.send(request)
            received = _bytes_in_answer(reply)
            self._has_succeeded = True
        finally:
            self.traffic.count(sent=_bytes_in(request), received=received)
        return reply

    @property
    def _may_create_bucket(self) -> bool:
        return self._create_bucket and not self._has_succeeded

    def for_reading(self) -> S3Requests:
        """Return the same for who creates no bucket, tries out and clears away nothing."""
        reader = copy(self)
        reader._create_bucket = False
        reader.is_for_reading = True
        return reader

    def support(self, ability: str, prefix: str) -> Support:
        """Tell what the server does with a condition; asks it the first time.

        Raises:
            Refusal: The server could not be asked.
        """
        if self.is_for_reading:  # to ask is to write
            return self.bucket.probe.known(ability)
        return self.bucket.probe.support(ability, self, prefix)

    # ------------------------------------------------------------------ looks

    def head(self, key: str) -> Look:
        """Look at an object.

        Raises:
            ObjectNotFound: There is none, or it has been taken.
        """
        look = self.look(key)
        if look.is_marker:
            raise ObjectNotFound(f"s3://{self.bucket_name}/{key}")
        return look

    def look(self, key: str) -> Look:
        """Look at what is there, also if it is the marker of an item that has been taken.

        Raises:
            ObjectNotFound: There is nothing.
        """
        try:
            return self.take_in(key, self.perform(HeadObject(key)))
        except Refusal as refusal:
            self.fail_to_read(refusal, key)

    def take_in(self, key: str, reply: Reply) -> Look:
        """Take from the reply to a HEAD or a GET what it tells of the object, and remember it."""
        assert reply.etag is not None
        lineage = reply.metadata.get(METADATA_KEY)
        bucket = self.bucket
        bucket.lineages.remember(key, reply.etag, lineage)
        modified = math.nan if reply.last_modified is None else reply.last_modified
        size = reply.size
        marks = is_marker(reply.etag, size, reply.metadata)
        if marks:
            bucket.markers.put(key, Stopwatch())
        elif key in bucket.markers:
            bucket.markers.discard(key)
        return Look(reply.etag, size or 0, modified, lineage, reply.date, marks)

    def rule_out_marker(self, key: str, reply: Reply) -> None:
        """Raise ObjectNotFound, and give up the body, if what is there marks a taken item."""
        if is_marker(reply.etag, reply.size, reply.metadata):
            if reply.body is not None:
                reply.body.close()
            self.take_in(key, reply)
            raise ObjectNotFound(f"s3://{self.bucket_name}/{key}")

    # ------------------------------------------------------------------ failures

    def fail(self, refusal: Refusal, key: str = "", note: str = "") -> NoReturn:
        """Raise a refusal as users know it, with a note on what and where, and another one."""
        if note:
            refusal.error.add_note(note)
        raise self.explain(refusal, key)

    def fail_to_read(self, refusal: Refusal, key: str) -> NoReturn:
        """Raise ObjectNotFound for absence, and anything else as `fail` does."""
        if refusal.is_absence:
            self._rule_out_a_missing_bucket(refusal, key)
            raise ObjectNotFound(f"s3://{self.bucket_name}/{key}") from refusal.error
        self.fail(refusal, key)

    def explain(self, refusal: Refusal, key: str = "") -> Exception:
        """Return a refusal as the exception that users know, with a note on what and where."""
        annotate(refusal.error, refusal.operation, self.bucket_name, key)
        return refusal.error

    def _rule_out_a_missing_bucket(self, refusal: Refusal, key: str) -> None:
        """Raise if it is the bucket that is missing, which HEAD answers in the same way."""
        if self.bucket.is_known_to_exist:
            return
        try:
            self.perform(ListObjectsV2(max_keys=1))
        except Refusal as missing:
            if not missing.is_forbidden:
                annotate(missing.error, refusal.operation, self.bucket_name, key)
                raise missing.error from refusal.error
        self.bucket.is_known_to_exist = True

    # ------------------------------------------------------------------ the bucket

    def _ensure_bucket(self) -> None:
        """Create the bucket if it is missing; looked at once in this process.

        A 403 on looking is tolerated: a shared bucket may allow nothing but its objects.
        """
        bucket = self.bucket
        if bucket.is_known_to_exist:
            return
        with bucket.lock:
            if not bucket.is_known_to_exist:
                if self._explained(self._is_bucket_missing):
                    self._explained(self._create)
                bucket.is_known_to_exist = True

    def _explained(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Refusal as refusal:
            raise self.explain(refusal) from None

    def _is_bucket_missing(self) -> bool:
        try:
            self._repeat(HeadBucket())
        except Refusal as refusal:
            if refusal.is_forbidden:
                return False
            if refusal.is_not_found:
                return True
            raise
        self._has_succeeded = True
        return False

    def _create(self) -> None:
        try:
            self._repeat(CreateBucket())
            self._has_succeeded = True
            log.debug("created bucket %r", self.bucket_name)
        except Refusal as refusal:
            if not refusal.is_bucket_taken and self._is_bucket_missing():
                raise

    def _repeat(self, request: Request[Reply]) -> Reply:
        """Send a request about the bucket itself, again as long as that may help."""
        attempts = self.attempts()
        while True:
            try:
                return self._sent(request)
            except Refusal as refusal:
                if not attempts.another(refusal):
                    raise
