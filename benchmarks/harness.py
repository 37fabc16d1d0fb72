"""What all benchmarks share: alternating measurement, statistics, tables.

A benchmark compares a subject with a floor or a peer. Both are measured in turn, in short
batches, and each pair of batches gives one ratio: whatever else the machine does at that
moment slows down both. The table shows the median of the ratios and their quartiles.
Where one operation takes long, there are few pairs; the table says how many.
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
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

Measure: TypeAlias = Callable[[int], float]
"""Does something a number of times and returns how many seconds that took altogether."""

_BATCH_SECONDS: Final = 0.001
_SLOW_SECONDS: Final = 0.05
_ENOUGH_PAIRS: Final = 15
_FEWEST_PAIRS: Final = 3
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


def after(prepare: Callable[[], object], measure: Measure) -> Measure:
    """Measure something that needs a preparation each time, which does not count."""

    def prepared(number: int) -> float:
        seconds = 0.0
        for _ in range(number):
            prepare()
            seconds += measure(1)
        return seconds

    return prepared


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
        at_least: The target for the speed, None if there is none.
        pairs: How many pairs were measured.
    """

    title: str
    against: str
    subject: Spread
    floor: Spread
    ratio: Spread
    at_most: float | None = None
    at_least: float | None = None
    pairs: int = 1

    @property
    def speed(self) -> Spread:
        """How many times as fast as the floor the subject is."""
        return Spread(1 / self.ratio.high, 1 / self.ratio.median, 1 / self.ratio.low)

    @property
    def is_met(self) -> bool | None:
        """Whether the medians, as they are printed, keep to the target."""
        if self.at_most is not None:
            return round(self.ratio.median, 2) <= self.at_most
        if self.at_least is not None:
            return round(self.speed.median, 2) >= self.at_least
        return None


class Fact(NamedTuple):
    """Something that holds or does not, whatever the time."""

    title: str
    is_met: bool


class Remark(NamedTuple):
    """Something that a reader has to know, and that is no target."""

    title: str
    text: str

    @property
    def is_met(self) -> None:
        """There is nothing to be met."""
        return None


class Omission(NamedTuple):
    """Something that could not be measured here."""

    title: str
    reason: str

    @property
    def is_met(self) -> None:
        """Nothing is known."""
        return None


Result: TypeAlias = Row | Fact | Remark | Omission


class Bench:
    """Measures for one run.

    Args:
        quick: Whether to measure just enough to see that everything works.
        seconds: How long a comparison may go on until its median has become stable.
        environments: Where virtual environments of peers are kept, and made if they are
            missing; None: such peers are left out.
    """

    def __init__(
        self, *, quick: bool = False, seconds: float = 6.0, environments: Path | None = None
    ) -> None:
        self.quick = quick
        self.environments = environments
        self._seconds = 0.0 if quick else seconds
        self._enough_pairs = 2 if quick else _ENOUGH_PAIRS
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
        at_least: float | None = None,
        items: int = 1,
        floor_items: int | None = None,
    ) -> Row:
        """Measure subject and floor in turn until the median of their ratios is stable.

        Args:
            title: What is done.
            subject: Measures it.
            floor: Measures the other way to do it.
            against: What that other way is.
            at_most: The target for the subject's time divided by the floor's.
            at_least: The target for how many times as fast as the floor the subject is.
            items: How many items one operation handles; the times are those of one item.
            floor_items: The same for the floor, if it handles another number of them.
        """
        print(f"  {title}: {against} ...", file=sys.stderr, flush=True)
        contenders = (
            self._in_batches(subject, items),
            self._in_batches(floor, floor_items or items),
        )
        times: tuple[list[float], list[float]] = ([], [])
        gc.collect()
        deadline = time.perf_counter() + self._seconds
        while True:
            # A B, then B A: neither always comes when the other has warmed something up
            order = (0, 1) if len(times[0]) % 2 == 0 else (1, 0)
            for which in order:
                times[which].append(contenders[which]())
            ratios = [s / f for s, f in zip(*times, strict=True)]
            if len(ratios) >= self._enough_pairs and _is_stable(ratios):
                break
            if len(ratios) >= self._fewest_pairs and time.perf_counter() >= deadline:
                break
        return Row(
            title,
            against,
            Spread.of(times[0]),
            Spread.of(times[1]),
            Spread.of(ratios),
            at_most,
            at_least,
            len(ratios),
        )

    def _in_batches(self, measure: Measure, items: int) -> Callable[[], float]:
        """Warm up, and choose how often to repeat so that a batch is neither long nor short."""
        number = 1
        if measure(number) < _SLOW_SECONDS:
            while measure(number) < self._batch_seconds:
                number *= 2
        return lambda: measure(number) / number / items


def _is_stable(ratios: list[float]) -> bool:
    """Tell whether more measurements would hardly move the median.

    The half width of a 95 % interval of a median is about 1.57 times the distance of the
    quartiles divided by the root of the number (McGill, Tukey, Larsen 1978).
    """
    low, median, high = Spread.of(ratios)
    return 1.57 * (high - low) / math.sqrt(len(ratios)) < _STABLE_WITHIN * median


# ---------------------------------------------------------------------- tables

_HEADER: Final = (
    "|  | compared with | persidict | the other | time, ratio (quartiles) | speed | target |"
    " met | pairs |\n"
    "|---|---|--:|--:|--:|--:|--:|---|--:|"
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
            case Remark(title, text):
                others.append(f"- {title}: {text}")
            case Omission(title, reason):
                others.append(f"- {title}: not measured, {reason}")
    return "\n".join([_HEADER, *rows, *([""] if others else []), *others])


def summary(results: Iterable[Result]) -> str:
    """Return one sentence: how many targets are met."""
    met = [result.is_met for result in results]
    return f"{met.count(True)} of {len(met) - met.count(None)} targets met."


def _line(row: Row) -> str:
    low, median, high = map(_two_digits, row.ratio)
    cells = (
        row.title,
        row.against,
        duration(row.subject.median),
        duration(row.floor.median),
        f"{median} ({low} - {high})",
        f"{_two_digits(row.speed.median)} x",
        _target(row),
        "" if row.is_met is None else _yes_or_no(row.is_met),
        str(row.pairs),
    )
    return f"| {' | '.join(cells)} |"


def _target(row: Row) -> str:
    if row.at_least is not None:
        return f"speed ≥ {row.at_least:g}"
    return "" if row.at_most is None else f"time ≤ {row.at_most:g}"


def _two_digits(number: float) -> str:
    """Return a number with two digits behind the point, or, when it is small, two that count."""
    return f"{number:.2f}" if number >= 0.1 else f"{number:#.2g}"


def _yes_or_no(holds: bool) -> str:
    return "yes" if holds else "**no**"


def duration(seconds: float) -> str:
    """Return a time with three digits and a fitting unit."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 0.9995:  # what is printed as 1.00
            return f"{seconds * factor:#.3g} {unit}".replace(". ", " ")
    return f"{seconds * 1e9:.0f} ns"
