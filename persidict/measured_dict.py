"""A dictionary that counts and times its operations, and tells OpenTelemetry if it is to."""

from __future__ import annotations

import functools
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from persidict.checks import check_flag
from persidict.codecs.codec import check_installed
from persidict.jokers_and_status_flags import ValueType
from persidict.locking import do_if_free
from persidict.persi_dict import PersiDict
from persidict.traffic import Traffic
from persidict.wrapper_dict import WrapperDict

OPERATIONS: Final = {
    "__getitem__": "get",
    "__setitem__": "set",
    "__delitem__": "delete",
    "__contains__": "contains",
    "__len__": "len",
    "clear": "clear",
    "discard": "discard",
    "discard_if": "discard_if",
    "discard_many": "discard_many",
    "get": "get",
    "get_item_if": "get_item_if",
    "get_many": "get_many",
    "get_with_etag": "get_with_etag",
    "pop": "pop",
    "popitem": "popitem",
    "set_item_if": "set_item_if",
    "set_many": "set_many",
    "setdefault": "setdefault",
    "setdefault_if": "setdefault_if",
    "transform_item": "transform_item",
    "update": "set_many",
}
"""What is measured, and what it is called. Iterating takes as long as its consumer: it is not."""

_now = time.perf_counter_ns
_MOST_UNSORTED: Final = 1000
_PATIENCE_SECONDS: Final = 1.0
_STEPS: Final = 8
"""Buckets of times between a time and its double: a quantile is right to within 9 %."""


@dataclass(frozen=True)
class OperationStats:
    """What is known of one kind of operation.

    Attributes:
        count: How many there were, those that failed included.
        errors: How many raised an exception; absence of an item is one.
        seconds: How long all of them took together.
        p50: Half of them took less than so many seconds.
        p90: Nine of ten.
        p99: Ninety-nine of a hundred.
    """

    count: int
    errors: int
    seconds: float
    p50: float
    p90: float
    p99: float


class _Tally:
    """What is known of one kind of operation; the newest times are not yet sorted in.

    Attributes:
        times: Nanoseconds that operations took, their complement where they failed. Appending
            is one step among threads, and the cheapest one.
    """

    def __init__(self) -> None:
        self.times: deque[int] = deque()
        self._sorting = threading.Lock()
        self._errors = 0
        self._nanoseconds = 0
        self._buckets: dict[int, int] = {}

    def sort_in(self, patience: float = 0.0) -> None:
        """Sort the newest times into buckets, unless somebody else is at it; see `do_if_free`."""
        do_if_free(self._sorting, patience, self._sort_in)

    def _sort_in(self) -> None:
        times = [self.times.popleft() for _ in range(len(self.times))]
        failed = sum(taken < 0 for taken in times)
        times = sorted(~taken if taken < 0 else taken for taken in times)
        self._errors += failed
        self._nanoseconds += sum(times)
        begin = 0
        while begin < len(times):
            bucket = _bucket_of(times[begin])
            end = bisect_left(times, _least_of(bucket + 1), begin)
            self._buckets[bucket] = self._buckets.get(bucket, 0) + end - begin
            begin = end

    def stats(self) -> OperationStats | None:
        """Return what is known by now, None if there was no operation."""
        self.sort_in(_PATIENCE_SECONDS)
        count = sum(self._buckets.values())
        if not count:
            return None
        quantiles = (_quantile(self._buckets, count, share) for share in (0.5, 0.9, 0.99))
        return OperationStats(count, self._errors, self._nanoseconds / 1e9, *quantiles)


def _bucket_of(taken: int) -> int:
    size = taken.bit_length()
    return size * _STEPS + ((taken << 3 >> max(size - 1, 0)) & (_STEPS - 1))


def _least_of(bucket: int) -> int:
    size, step = divmod(bucket, _STEPS)
    return -(-((_STEPS + step) << max(size - 1, 0)) // _STEPS)


def _measured(name: str, operation: str) -> Callable[..., Any]:
    def note(self: MeasuredDict[Any], taken: int) -> None:
        tally = self._tallies[operation]
        tally.times.append(taken)
        if len(tally.times) > _MOST_UNSORTED:
            tally.sort_in()

    def measured(self: MeasuredDict[Any], /, *args: Any, **kwargs: Any) -> Any:
        begin = _now()
        try:
            if self._span is None:
                result = getattr(self._wrapped, name)(*args, **kwargs)
            else:
                with self._span(operation):
                    result = getattr(self._wrapped, name)(*args, **kwargs)
        except BaseException:
            note(self, ~(_now() - begin))
            raise
        note(self, _now() - begin)
        return result

    return functools.wraps(getattr(WrapperDict, name))(measured)


class MeasuredDict(WrapperDict[ValueType]):
    """A dictionary in front of another one that counts and times what is asked of it.

    Measured are the operations on items, not iteration; they are those of what is wrapped, and
    a subclass of this class that overrides primitives does not change them. It adds less than
    a microsecond to each; what is not wrapped pays nothing. Counts are exact, among threads,
    too; each process and each handle counts for itself, sub-dictionaries together with their
    parent.

    Args:
        wrapped_dict: The dictionary that does the work.
        open_telemetry: Whether each operation is a span, and its duration a value of the
            histogram ``db.client.operation.duration``, of OpenTelemetry's API, with the
            names of its semantic conventions for database clients; needs the extra ``otel``,
            and an SDK that was set up by the application.
        read_only: See WrapperDict.

    Raises:
        TypeError: `wrapped_dict` is no PersiDict, or `open_telemetry` no bool.
        MissingExtraError: OpenTelemetry's API is not installed.

    Examples:
        >>> from persidict import LocalDict
        >>> d = MeasuredDict(wrapped_dict=LocalDict())
        >>> d["a"] = 1
        >>> d["a"], d.get("b")
        (1, None)
        >>> d.stats()["get"].count
        2
    """

    _is_transparent = True

    def __init__(
        self,
        *,
        wrapped_dict: PersiDict[Any],
        open_telemetry: bool = False,
        read_only: bool = False,
    ) -> None:
        super().__init__(wrapped_dict=wrapped_dict, read_only=read_only)
        self._open_telemetry = check_flag("open_telemetry", open_telemetry)
        self._tallies = {operation: _Tally() for operation in sorted({*OPERATIONS.values()})}
        self._traffic_before = wrapped_dict._traffic()
        self._span = _spans(wrapped_dict) if self._open_telemetry else None

    def _own_params(self) -> dict[str, Any]:
        return {"open_telemetry": self._open_telemetry}

    def stats(self) -> Mapping[str, OperationStats]:
        """Return what has been measured since this handle was made, by operation.

        Returns:
            Those operations that there were; times in seconds.
        """
        stats = {operation: tally.stats() for operation, tally in self._tallies.items()}
        return {operation: found for operation, found in stats.items() if found is not None}

    @property
    def traffic(self) -> Traffic:
        """What has passed between the wrapped dictionary and its service since this was made.

        Requests, retries, bytes and hits are those of S3Dict and BasicS3Dict, of all who use
        that very handle and its sub-dictionaries; elsewhere they are 0.
        """
        return self._wrapped._traffic().minus(self._traffic_before)

    for _name, _operation in OPERATIONS.items():
        locals()[_name] = _measured(_name, _operation)
    del _name, _operation


def _quantile(buckets: Mapping[int, int], count: int, share: float) -> float:
    seen = 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= share * count:
            break
    size, step = divmod(bucket, _STEPS)
    return 2.0 ** (size - 1) * (1 + (step + 0.5) / _STEPS) / 1e9


def _spans(d: PersiDict[Any]) -> Callable[[str], AbstractContextManager[None]]:
    """Return what makes a span, and a value of the histogram, around an operation."""
    check_installed("opentelemetry", needed_by="open_telemetry=True", extra="otel")
    from opentelemetry import metrics, trace

    tracer = trace.get_tracer("persidict")
    duration = metrics.get_meter("persidict").create_histogram(
        "db.client.operation.duration",
        unit="s",
        description="Duration of operations on a dictionary",
    )
    common = {"db.system.name": "persidict", "db.collection.name": type(d).__name__}

    @contextmanager
    def span(operation: str) -> Iterator[None]:
        attributes: dict[str, Any] = {**common, "db.operation.name": operation}
        begin = time.perf_counter()
        with tracer.start_as_current_span(
            f"{operation} {type(d).__name__}", kind=trace.SpanKind.CLIENT, attributes=attributes
        ) as current:
            try:
                yield
            except BaseException as error:
                attributes["error.type"] = type(error).__name__
                current.set_attribute("error.type", type(error).__name__)
                raise
            finally:
                duration.record(time.perf_counter() - begin, attributes)

    return span
