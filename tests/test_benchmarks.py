"""The benchmarks run; how fast anything is, they tell, and no test does."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import overview, page, published
from benchmarks.__main__ import SUITES, main
from benchmarks.harness import (
    Bench,
    Fact,
    Measure,
    Omission,
    Remark,
    Result,
    Row,
    Spread,
    after,
    duration,
    summary,
    table,
    timed,
)
from benchmarks.peers import PeerUnavailable, load
from benchmarks.worker import Worker, WorkerError, together


def row(ratio: float, at_most: float | None = None, at_least: float | None = None) -> Row:
    """Return the row of a floor that takes a second."""
    subject, floor = Spread.of([ratio]), Spread.of([1.0])
    return Row("title", "floor", subject, floor, subject, at_most, at_least)


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


def printed_by(*arguments: str) -> str:
    """Run benchmarks in a process of their own, and return what they print.

    Where tests have left many objects behind, collecting garbage takes longer than measuring.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture(scope="module")
def quick_run() -> str:
    """What a quick run of everything prints."""
    return printed_by("--quick")


def test_a_quick_run_prints_a_table_for_each_suite(quick_run: str) -> None:
    titles = {importlib.import_module(f"benchmarks.{name}").SUITE.title for name in SUITES}
    assert len(titles) == len(SUITES)
    assert titles <= set(re.findall("(?m)^### (.*)$", quick_run))


def test_every_line_of_a_table_has_all_cells(quick_run: str) -> None:
    header, *rows = cells(quick_run)
    assert {len(row) for row in rows} == {len(header)}


def test_no_process_loses_an_increment(quick_run: str) -> None:
    facts = [line for line in quick_run.splitlines() if "no increment was lost" in line]
    assert facts
    assert all(fact.endswith(": yes") for fact in facts)


def test_every_row_with_a_target_says_whether_it_is_met(quick_run: str) -> None:
    rows = [row for row in cells(quick_run) if row[0] and not row[0].startswith("-")]
    assert rows
    assert {(row[6] != "", row[7] in ("yes", "**no**")) for row in rows} <= {
        (True, True),
        (False, False),
    }


def test_the_environment_is_told_before_the_tables(quick_run: str) -> None:
    head, _, _ = quick_run.partition("###")
    named = {line.split(":")[0] for line in head.splitlines() if line}
    assert named == {
        "- machine",
        "- load when it started",
        "- files",
        "- Python",
        "- versions",
        "- beside it",
    }


def test_a_quick_run_makes_no_environment_for_the_published_version(quick_run: str) -> None:
    assert "persidict 0.309: not measured, because a quick run makes no environment" in quick_run


def test_a_suite_can_be_run_alone() -> None:
    titles = re.findall("(?m)^### (.*)$", printed_by("files", "--quick"))
    assert titles == ["Files and RAM", "Targets that were missed", "Where another way is faster"]


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


@pytest.mark.parametrize(
    ("ratio", "at_least", "is_met"), [(0.5, 2.0, True), (0.499, 2.0, True), (0.51, 2.0, False)]
)
def test_a_target_for_the_speed_is_the_least_that_it_may_be(
    ratio: float, at_least: float, is_met: bool
) -> None:
    assert row(ratio, at_least=at_least).is_met is is_met


def test_the_speed_is_the_inverse_of_the_ratio() -> None:
    ratio = Spread(0.25, 0.5, 2.0)
    assert Row("", "", ratio, ratio, ratio).speed == (0.5, 2.0, 4.0)


def test_the_summary_counts_what_has_a_target() -> None:
    results: list[Result] = [
        row(1.0, 2.0),
        row(3.0, 2.0),
        row(9.0, None),
        Fact("", True),
        Remark("", ""),
        Omission("", ""),
    ]
    assert summary(results) == "2 of 3 targets met."


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (
            row(3.0, 2.0),
            "| 3.00 s | 1.00 s | 3.00 (3.00 - 3.00) | 0.33 x | time ≤ 2 | **no** | 1 |",
        ),
        (row(0.05, at_least=12), "| 0.050 (0.050 - 0.050) | 20.00 x | speed ≥ 12 | yes | 1 |"),
        (Remark("the server", "is fast"), "- the server: is fast"),
        (Fact("it holds", True), "- it holds: yes"),
        (Omission("peer", "because it is not installed"), "- peer: not measured, because it is"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_result_has_its_line(result: Result, line: str) -> None:
    assert line in table([result])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.0, "2.00 s"),
        (0.1234, "123 ms"),
        (0.0009999, "1.00 ms"),
        (0.0000123, "12.3 µs"),
        (0.0000004567, "457 ns"),
    ],
)
def test_times_have_three_digits_and_a_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_function_is_measured_as_often_as_asked() -> None:
    calls: list[int] = []
    record: Callable[[], None] = lambda: calls.append(1)  # noqa: E731
    timed(record)(7)
    assert len(calls) == 7


def test_what_is_prepared_is_not_measured() -> None:
    calls: list[str] = []
    prepared = after(lambda: calls.append("prepare"), recorded("measure", 2.0, calls))
    assert prepared(2) == 4.0
    assert calls == ["prepare", "measure"] * 2


def test_the_times_of_a_row_are_those_of_one_item() -> None:
    bench = Bench(seconds=0)
    measured = bench.compare(
        "",
        recorded("", 1.0, []),
        recorded("", 1.0, []),
        against="",
        items=10,
        floor_items=2,
    )
    assert (measured.subject.median, measured.floor.median) == (0.1, 0.5)


def test_what_takes_long_is_measured_in_few_pairs() -> None:
    slow = recorded("", 0.5, [])
    assert Bench(seconds=0).compare("", slow, slow, against="").pairs == 3


def test_a_worker_keeps_names_between_statements() -> None:
    with Worker() as worker:
        worker.execute("a = 20")
        worker.execute("b = a + 1")
        assert worker.evaluate("b * 2") == 42


def test_what_a_worker_prints_is_not_taken_for_an_answer() -> None:
    with Worker() as worker:
        worker.execute("print('noise')")
        assert worker.evaluate("'answer'") == "answer"


def test_an_exception_in_a_worker_is_raised_with_its_message() -> None:
    with Worker() as worker, pytest.raises(WorkerError, match="ZeroDivisionError"):
        worker.execute("1 / 0")


def test_a_worker_runs_a_measured_statement_as_often_as_asked() -> None:
    with Worker() as worker:
        worker.execute("calls = []")
        worker.timed("calls.append(1)")(3)
        assert worker.evaluate("len(calls)") == 3


def test_all_workers_run_a_statement() -> None:
    with Worker() as first, Worker() as second:
        for worker in (first, second):
            worker.execute("calls = []")
        together([first, second], "calls.append(1)")(2)
        assert [worker.evaluate("len(calls)") for worker in (first, second)] == [2, 2]


def test_a_worker_that_has_ended_is_an_error() -> None:
    with Worker() as worker, pytest.raises(WorkerError):
        worker.execute("import os; os._exit(0)")


def test_an_environment_that_cannot_be_made_leaves_the_published_version_out(
    tmp_path: Path,
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(PeerUnavailable, match="cannot be installed"):
        published.start(Bench(environments=in_the_way))


def test_a_peer_that_is_not_installed_is_named() -> None:
    with pytest.raises(PeerUnavailable, match="no_such_library is not installed"):
        load("no_such_library.module")


def test_results_take_the_place_of_those_before(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"head\n{page.BEGIN}\nold\n{page.END}\ntail\n", encoding="utf-8")
    page.update(path, "new")
    assert path.read_text("utf-8") == f"head\n{page.BEGIN}\n\nnew\n\n{page.END}\ntail\n"


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("something else", encoding="utf-8")
    with pytest.raises(ValueError):
        page.update(path, "new")
    assert path.read_text(encoding="utf-8") == "something else"


def test_missed_targets_and_faster_peers_are_listed() -> None:
    missed, slower, met = row(3.0, at_most=2.0), row(5.0), row(0.1, at_least=2.0)
    first, second = page.behind([missed, slower, met]).split("### ")[1:]
    assert ("3.00 (" in first, "5.00 (" in first) == (True, False)
    assert ("3.00 (" in second, "5.00 (" in second) == (False, True)


def test_a_picture_is_named_as_seen_from_the_page(tmp_path: Path) -> None:
    picture, path = tmp_path / "docs" / "plots" / "files.png", tmp_path / "docs" / "page.md"
    assert page.image("Files", picture, path) == "![Files](plots/files.png)"


# ---------------------------------------------------------------------- the picture of README


def beside(title: str, against: str, seconds: float, ratio: float) -> Row:
    """Return the row of persidict beside a library, with the ratio of their times."""
    return Row(
        title, against, Spread.of([seconds]), Spread.of([seconds / ratio]), Spread.of([ratio])
    )


def measured_on_s3() -> list[Result]:
    libraries = ("obstore", "s3fs FSMap", "boto3, 32 threads", "persidict 0.309")
    titles = ("items(), per object, 20 ms away", "get, 0 ms away", "get, 20 ms away")
    rows: list[Result] = [
        beside(title, library, 0.001, 0.5) for title in titles for library in libraries
    ]
    return [*rows, Omission("s3fs", "because"), beside("list(d), 0 ms away", "boto3", 1.0, 1.0)]


def test_the_picture_shows_each_operation_at_each_distance_in_order() -> None:
    shown = [panel[:2] for panel in overview.panels(measured_on_s3())]
    assert shown == [
        ("read one item", "0 ms away"),
        ("read one item", "20 ms away"),
        ("read many items", "20 ms away"),
    ]


def test_the_picture_shows_operations_in_a_second_of_every_library() -> None:
    speeds = dict(overview.panels(measured_on_s3())[0].speeds)
    others = dict.fromkeys(("obstore", "s3fs", "boto3", "persidict 0.309"), pytest.approx(500))
    assert speeds == {"persidict": pytest.approx(1000), **others}


def test_a_library_that_was_not_measured_is_left_out_of_the_picture() -> None:
    panel = overview.panels([beside("get, 0 ms away", "boto3", 0.001, 0.5)])[0]
    assert list(panel.speeds) == ["persidict", "boto3"]


def test_of_two_ways_to_use_a_library_the_picture_shows_the_faster_one() -> None:
    title = "update, per object, 20 ms away"
    rows = [beside(title, "boto3", 0.001, 0.1), beside(title, "boto3, 32 threads", 0.001, 0.5)]
    assert overview.panels(rows)[0].speeds["boto3"] == pytest.approx(500)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plots" / overview.NAME
    overview.draw(overview.panels(measured_on_s3()), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_picture_is_told_in_words_too() -> None:
    told = overview.sentence(overview.panels(measured_on_s3()))
    assert told.startswith("Times the speed of boto3: read one item, 0 ms away: 2.0 x;")


def test_a_run_puts_the_picture_into_readme(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    readme = tmp_path / "README.md"
    readme.write_text(f"head\n{page.README_BEGIN}\n{page.README_END}\ntail\n", encoding="utf-8")
    arguments = ["s3_single", "s3_many", "--quick", "--plots", str(tmp_path / "plots")]
    printed_by(*arguments, "--readme", str(readme))
    text = readme.read_text("utf-8")
    assert f"![{overview.TITLE}](plots/{overview.NAME})\n\nTimes the speed of boto3: " in text
    assert (tmp_path / "plots" / overview.NAME).stat().st_size > 10_000


def test_readme_has_the_marks() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    assert text.index(page.README_BEGIN) < text.index(page.README_END)


@pytest.mark.parametrize("arguments", [["s3_many"], ["s3_many", "s3_single"]])
def test_a_picture_for_readme_needs_plots_and_both_suites(arguments: list[str]) -> None:
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as told:
        main([*arguments, "--quick", "--readme", "README.md"])
    assert "--readme needs --plots" in told.getvalue()
