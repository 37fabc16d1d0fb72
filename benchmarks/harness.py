"""What all benchmarks share: alternating measurement, statistics, tables.

A benchmark compares a subject with a floor or a peer. Both are measured in turn, in short
batches, and each pair of batches gives one ratio: whatever else the machine does at that
moment slows down both. The table shows the median of the ratios and their quartiles.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

Measure: TypeAlias = Callable[[int], float]
"""Does something a number of times and returns how many seconds that took altogether."""

_BATCH_SECONDS: Final = 0.001
_FEWEST_PAIRS: Final = 15
_STABLE_WITHIN: Final = 0.01


def timed(
    statement: str | Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
    **names: Any,
) -> Measure:
    """Measure a statement, without the cost of a call, or a function.

    Args:
        statement: Source code, or a function.
        clock: What tells the time: `time.process_time` counts only what this process does.
        **names: What the source code refers to.
    """
    return timeit.Timer(statement, timer=clock, globals=names).timeit


class Spread(NamedTuple):
    """The quartiles of a sample."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, sample: list[float]) -> Spread:
        """Describe a sample of one or more."""
        if len(sample) == 1:
            return cls(sample[0], sample[0], sample[0])
        return cls(*statistics.quantiles(sample, n=4, method="inclusive"))


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        title: What was done.
        against: What the floor, or the peer, is.
        subject: Seconds that one operation of the subject took.
        floor: Seconds that one operation of the floor took.
        ratio: The subject's time divided by the floor's, pair by pair.
        at_most: The target for the ratio, None if there is none.
    """

    title: str
    against: str
    subject: Spread
    floor: Spread
    ratio: Spread
    at_most: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the median ratio, as it is printed, keeps to the target."""
        return None if self.at_most is None else round(self.ratio.median, 2) <= self.at_most


class Fact(NamedTuple):
    """Something that holds or does not, whatever the time."""

    title: str
    is_met: bool


class Omission(NamedTuple):
    """Something that could not be measured here."""

    title: str
    reason: str

    @property
    def is_met(self) -> None:
        """Nothing is known."""
        return None


Result: TypeAlias = Row | Fact | Omission


class Bench:
    """Measures for one run.

    Args:
        quick: Whether to measure just enough to see that everything works.
        seconds: How long a comparison may go on until its median has become stable.
    """

    def __init__(self, *, quick: bool = False, seconds: float = 6.0) -> None:
        self.quick = quick
        self._seconds = 0.0 if quick else seconds
        self._fewest_pairs = 2 if quick else _FEWEST_PAIRS
        self._batch_seconds = 0.0 if quick else _BATCH_SECONDS

    def size(self, full: int, quick: int) -> int:
        """Return how large something should be in this run."""
        return quick if self.quick else full

    def compare(
        self,
        title: str,
        subject: Measure,
        floor: Measure,
        *,
        against: str,
        at_most: float | None = None,
    ) -> Row:
        """Measure subject and floor in turn until the median of their ratios is stable."""
        print(f"  {title} ...", file=sys.stderr, flush=True)
        contenders = [self._in_batches(subject), self._in_batches(floor)]
        subject_times: list[float] = []
        floor_times: list[float] = []
        gc.collect()
        deadline = time.perf_counter() + self._seconds
        while True:
            # A B, then B A: neither always comes when the other has warmed something up
            order = (0, 1) if len(floor_times) % 2 == 0 else (1, 0)
            taken = {which: contenders[which]() for which in order}
            subject_times.append(taken[0])
            floor_times.append(taken[1])
            if len(floor_times) < self._fewest_pairs:
                continue
            ratios = [s / f for s, f in zip(subject_times, floor_times, strict=True)]
            if _is_stable(ratios) or time.perf_counter() >= deadline:
                break
        return Row(
            title,
            against,
            Spread.of(subject_times),
            Spread.of(floor_times),
            Spread.of(ratios),
            at_most,
        )

    def _in_batches(self, measure: Measure) -> Callable[[], float]:
        """Warm up, and choose how often to repeat so that a batch is neither long nor short."""
        number = 1
        measure(number)
        while measure(number) < self._batch_seconds:
            number *= 2
        return lambda: measure(number) / number


def _is_stable(ratios: list[float]) -> bool:
    """Tell whether more measurements would hardly move the median.

    The half width of a 95 % interval of a median is about 1.57 times the distance of the
    quartiles divided by the root of the number (McGill, Tukey, Larsen 1978).
    """
    low, median, high = Spread.of(ratios)
    return 1.57 * (high - low) / math.sqrt(len(ratios)) < _STABLE_WITHIN * median


# ---------------------------------------------------------------------- tables

_HEADER: Final = (
    "|  | compared with | persidict | the other | ratio (quartiles) | target | met |\n"
    "|---|---|--:|--:|--:|--:|---|"
)


@dataclass(frozen=True)
class Suite:
    """Benchmarks that belong together.

    Attributes:
        title: The headline of their table.
        note: What a reader has to know about them.
        run: Measures and yields what the table shows.
    """

    title: str
    note: str
    run: Callable[[Bench], Iterator[Result]]


def table(results: Iterable[Result]) -> str:
    """Return a Markdown table of the rows, and a list of everything else."""
    rows, others = [], []
    for result in results:
        match result:
            case Row():
                rows.append(_line(result))
            case Fact(title, is_met):
                others.append(f"- {title}: {_yes_or_no(is_met)}")
            case Omission(title, reason):
                others.append(f"- {title}: not measured, {reason}")
    return "\n".join([_HEADER, *rows, *([""] if others else []), *others])


def summary(results: Iterable[Result]) -> str:
    """Return one sentence: how many targets are met."""
    met = [result.is_met for result in results]
    return f"{met.count(True)} of {len(met) - met.count(None)} targets met."


def _line(row: Row) -> str:
    target = "" if row.at_most is None else f"{row.at_most:g}"
    ratio = f"{row.ratio.median:.2f} ({row.ratio.low:.2f} - {row.ratio.high:.2f})"
    cells = (
        row.title,
        row.against,
        duration(row.subject.median),
        duration(row.floor.median),
        ratio,
        target,
        "" if row.is_met is None else _yes_or_no(row.is_met),
    )
    return f"| {' | '.join(cells)} |"


def _yes_or_no(holds: bool) -> str:
    return "yes" if holds else "**no**"


def duration(seconds: float) -> str:
    """Return a time with three digits and a fitting unit."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:#.3g} {unit}".replace(". ", " ")
    return f"{seconds * 1e9:.0f} ns"
