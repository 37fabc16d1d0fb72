"""The benchmarks run; how fast anything is, they tell, and no test does."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import pytest

from benchmarks.__main__ import SUITES, main
from benchmarks.harness import (
    Bench,
    Fact,
    Measure,
    Omission,
    Result,
    Row,
    Spread,
    duration,
    summary,
    table,
    timed,
)


def row(ratio: float, at_most: float | None) -> Row:
    """Return the row of a floor that takes a second."""
    return Row("title", "floor", Spread.of([ratio]), Spread.of([1.0]), Spread.of([ratio]), at_most)


def recorded(name: str, seconds: float, calls: list[str]) -> Measure:
    """Return a measure that takes no time, says it took some, and notes that it was called."""

    def measure(number: int) -> float:
        calls.append(name)
        return seconds * number

    return measure


def cells(text: str) -> list[list[str]]:
    """Return the cells of the lines of a Markdown table."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


@pytest.fixture(scope="module")
def quick_run() -> str:
    """What a quick run of everything prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(["--quick"]) == 0
    return output.getvalue()


def test_a_quick_run_prints_a_table_for_each_suite(quick_run: str) -> None:
    assert quick_run.count("\n### ") == len(SUITES)


def test_every_line_of_a_table_has_all_cells(quick_run: str) -> None:
    header, *rows = cells(quick_run)
    assert {len(row) for row in rows} == {len(header)}


def test_every_row_with_a_target_says_whether_it_is_met(quick_run: str) -> None:
    rows = [row for row in cells(quick_run) if row[0] and not row[0].startswith("-")]
    assert {(row[5] != "", row[6] in ("yes", "**no**")) for row in rows} <= {
        (True, True),
        (False, False),
    }


def test_the_environment_is_told_before_the_tables(quick_run: str) -> None:
    head, _, _ = quick_run.partition("###")
    named = {line.split(":")[0] for line in head.splitlines() if line}
    assert named == {"- machine", "- load when it started", "- files", "- Python", "- versions"}


def test_a_suite_can_be_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["files", "--quick"]) == 0
    assert capsys.readouterr().out.count("\n### ") == 1


def test_an_unknown_suite_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])
    assert "nonsense" in capsys.readouterr().err


def test_subject_and_floor_take_turns_and_neither_is_always_first() -> None:
    calls: list[str] = []
    bench = Bench(seconds=0)
    bench.compare("", recorded("A", 0.002, calls), recorded("B", 0.001, calls), against="")
    measured = calls[calls.index("B") + 2 :]  # behind what chooses the length of a batch
    pairs = list(zip(measured[::2], measured[1::2], strict=True))
    assert [set(pair) for pair in pairs] == [{"A", "B"}] * len(pairs)
    assert {pair[0] for pair in pairs} == {"A", "B"}


def test_a_ratio_is_the_subjects_time_for_one_operation_over_the_floors() -> None:
    slow, fast = recorded("", 0.0004, []), recorded("", 0.0001, [])
    measured = Bench(seconds=0).compare("", slow, fast, against="")
    assert measured.ratio.median == pytest.approx(4.0)


def test_the_spread_is_given_by_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 4.0, 2.0, 3.0]) == (2.0, 3.0, 4.0)


def test_a_comparison_goes_on_while_its_ratios_are_far_apart() -> None:
    unsteady = iter([0.001, 0.004] * 50)

    def subject(number: int) -> float:
        return number * next(unsteady)

    with pytest.raises(StopIteration):
        Bench(seconds=60).compare("", subject, recorded("", 0.001, []), against="")


def test_a_comparison_ends_early_when_its_ratios_agree() -> None:
    calls: list[str] = []
    Bench(seconds=60).compare("", recorded("", 0.002, []), recorded("B", 0.001, calls), against="")
    assert len(calls) < 30


def test_a_statement_is_measured_by_the_clock_that_is_named() -> None:
    assert timed("pass", clock=iter([1.0, 3.5]).__next__)(1) == 2.5


@pytest.mark.parametrize(
    ("ratio", "at_most", "is_met"),
    [(1.99, 2.0, True), (2.0, 2.0, True), (2.01, 2.0, False), (9.0, None, None)],
)
def test_a_target_is_the_most_that_the_ratio_may_be(
    ratio: float, at_most: float | None, is_met: bool | None
) -> None:
    assert row(ratio, at_most).is_met is is_met


def test_the_summary_counts_what_has_a_target() -> None:
    results: list[Result] = [
        row(1.0, 2.0),
        row(3.0, 2.0),
        row(9.0, None),
        Fact("", True),
        Omission("", ""),
    ]
    assert summary(results) == "2 of 3 targets met."


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (row(3.0, 2.0), "| title | floor | 3.00 s | 1.00 s | 3.00 (3.00 - 3.00) | 2 | **no** |"),
        (Fact("it holds", True), "- it holds: yes"),
        (Omission("peer", "because it is not installed"), "- peer: not measured, because it is"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_result_has_its_line(result: Result, line: str) -> None:
    assert line in table([result])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.0, "2.00 s"), (0.1234, "123 ms"), (0.0000123, "12.3 µs"), (0.0000004567, "457 ns")],
)
def test_times_have_three_digits_and_a_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_function_is_measured_as_often_as_asked() -> None:
    calls: list[int] = []
    record: Callable[[], None] = lambda: calls.append(1)  # noqa: E731
    timed(record)(7)
    assert len(calls) == 7
