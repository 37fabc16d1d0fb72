"""A dictionary that counts and times its operations, and tells OpenTelemetry if it is to."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from persidict.checks import check_flag
from persidict.jokers_and_status_flags import ValueType
from persidict.persi_dict import PersiDict
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
    """What one thread has counted of one operation."""

    __slots__ = ("buckets", "errors", "nanoseconds")

    def __init__(self) -> None:
        self.errors = 0
        self.nanoseconds = 0
        self.buckets: dict[int, int] = {}


class _Tallies(threading.local):
    """The tallies of this thread, and whether it is inside an operation."""

    def __init__(self, registry: list[dict[str, _Tally]]) -> None:
        self.is_inside = False
        self.by_operation = {name: _Tally() for name in set(OPERATIONS.values())}
        registry.append(self.by_operation)


def _measured(name: str, operation: str) -> Callable[..., Any]:
    inner: Callable[..., Any] = getattr(WrapperDict, name)

    @functools.wraps(inner)
    def measured(self: MeasuredDict[Any], /, *args: Any, **kwargs: Any) -> Any:
        tallies = self._tallies
        if tallies.is_inside:  # an operation that is part of another one is not one more
            return inner(self, *args, **kwargs)
        tally = tallies.by_operation[operation]
        tallies.is_inside = True
        begin = time.perf_counter_ns()
        try:
            if self._span is None:
                return inner(self, *args, **kwargs)
            with self._span(operation):
                return inner(self, *args, **kwargs)
        except BaseException:
            tally.errors += 1
            raise
        finally:
            taken = time.perf_counter_ns() - begin
            tallies.is_inside = False
            tally.nanoseconds += taken
            size = taken.bit_length()
            bucket = size * _STEPS + ((taken << 3 >> max(size - 1, 0)) & (_STEPS - 1))
            tally.buckets[bucket] = tally.buckets.get(bucket, 0) + 1

    return measured


class MeasuredDict(WrapperDict[ValueType]):
    """A dictionary in front of another one that counts and times what is asked of it.

    Measured are the operations on items, not iteration. It adds less than a microsecond to
    each; what is not wrapped pays nothing. Counts are exact, among threads, too; each
    process and each handle counts for itself, sub-dictionaries together with their parent.

    Args:
        wrapped_dict: The dictionary that does the work.
        open_telemetry: Whether each operation is a span, and its duration a value of the
            histogram ``db.client.operation.duration``, of OpenTelemetry's API, with the
            names of its semantic conventions for database clients; needs the extra ``otel``,
            and an SDK that was set up by the application.
        read_only: See WrapperDict.

    Raises:
        TypeError: `wrapped_dict` is no PersiDict, or `open_telemetry` no bool.
        ModuleNotFoundError: OpenTelemetry's API is not installed.

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
        self._registry: list[dict[str, _Tally]] = []
        self._tallies = _Tallies(self._registry)
        self._span = _spans(wrapped_dict) if self._open_telemetry else None

    def _own_params(self) -> dict[str, Any]:
        return {"open_telemetry": self._open_telemetry}

    def stats(self) -> Mapping[str, OperationStats]:
        """Return what has been measured since this handle was made, by operation.

        Returns:
            Those operations that there were; times in seconds.
        """
        found = {}
        for operation in sorted(set(OPERATIONS.values())):
            merged = _Tally()
            for by_operation in list(self._registry):
                tally = by_operation[operation]
                merged.errors += tally.errors
                merged.nanoseconds += tally.nanoseconds
                for bucket, count in list(tally.buckets.items()):
                    merged.buckets[bucket] = merged.buckets.get(bucket, 0) + count
            if merged.buckets:
                found[operation] = _summary(merged)
        return found

    for _name, _operation in OPERATIONS.items():
        locals()[_name] = _measured(_name, _operation)
    del _name, _operation


def _summary(tally: _Tally) -> OperationStats:
    count = sum(tally.buckets.values())
    return OperationStats(
        count,
        tally.errors,
        tally.nanoseconds / 1e9,
        *(_quantile(tally.buckets, count, share) for share in (0.5, 0.9, 0.99)),
    )


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
