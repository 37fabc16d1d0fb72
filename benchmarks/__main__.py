"""Run all benchmarks, or some: ``python -m benchmarks [files ...]``."""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import overview, page, plots, published
from benchmarks.environment import describe
from benchmarks.harness import Bench, Result, Row, Suite, summary, table
from benchmarks.peers import PeerUnavailable, load

SUITES: Final = (
    "files",
    "files_many",
    "sqlite",
    "million",
    "s3",
    "s3_single",
    "s3_many",
    "s3_wire",
    "large",
    "caches",
    "counter",
)
"""The modules of this package that have a `SUITE`."""

_LIBRARIES: Final = (
    "persidict",
    "mixinforge",
    "numpy",
    "lz4",
    "boto3",
    "botocore",
    "s3transfer",
    "s3fs",
    "fsspec",
    "obstore",
    "diskcache",
    "zict",
    "sqlitedict",
)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", default=SUITES, metavar="suite", help=str(SUITES))
    parser.add_argument("--dir", help="where to put files (default: as for temporary files)")
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="how long one comparison may take (default: 2)"
    )
    parser.add_argument(
        "--environments",
        type=Path,
        metavar="DIR",
        help=f"where the virtual environment of {published.NAME} is kept, and made if it is missing"
        " (default: the user's cache directory; nowhere with --quick)",
    )
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIR",
        help=f"write a PNG for each suite, and {overview.NAME}, one of S3 beside other libraries",
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="put the results between this page's marks"
    )
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help=f"put {overview.NAME} between this file's marks; needs --plots, s3_single and s3_many",
    )
    arguments = parser.parse_args(argv)
    if arguments.readme is not None and (
        arguments.plots is None or not {"s3_single", "s3_many"} <= {*arguments.suites}
    ):
        parser.error("--readme needs --plots, and the suites s3_single and s3_many")
    for name in arguments.suites:
        if name not in SUITES:
            parser.error(f"there is no suite {name!r}; there are {', '.join(SUITES)}")
    if arguments.plots is not None:
        try:
            load("matplotlib")
        except PeerUnavailable as reason:
            parser.error(f"no plots, {reason}")
    if arguments.environments is None and not arguments.quick:
        arguments.environments = _user_cache()
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Measure, and print one table for each suite."""
    arguments = parse_arguments(argv)
    if arguments.dir is not None:
        tempfile.tempdir = arguments.dir
    bench = Bench(
        quick=arguments.quick, seconds=arguments.seconds, environments=arguments.environments
    )
    head = describe(tempfile.gettempdir(), _LIBRARIES)
    head += f"\n- beside it: {published.versions(bench)}"
    print(head)
    start = time.perf_counter()
    results: dict[str, list[Result]] = {}
    parts = []
    for name in arguments.suites:
        suite: Suite = importlib.import_module(f"benchmarks.{name}").SUITE
        print(name, file=sys.stderr)
        results[name] = list(suite.run(bench))
        parts.append(f"### {suite.title}\n\n{suite.note}\n\n{table(results[name])}")
        print(f"\n{parts[-1]}", flush=True)
        if arguments.plots is not None:
            picture = arguments.plots / f"{name}.png"
            _plot(suite.title, results[name], picture)
            if arguments.page is not None:
                parts.append(page.image(suite.title, picture, arguments.page))
    minutes = (time.perf_counter() - start) / 60
    found = list(itertools.chain.from_iterable(results.values()))
    end = f"{summary(found)} It took {minutes:.1f} minutes."
    print(f"\n{end}\n\n{page.behind(found)}")
    picture = None if arguments.plots is None else _draw_overview(found, arguments.plots)
    if arguments.page is not None:
        if picture is not None:
            parts.insert(0, page.image(overview.TITLE, picture, arguments.page))
        page.update(arguments.page, "\n\n".join([head, end, page.behind(found), *parts]))
    if arguments.readme is not None and picture is not None:
        told = [page.image(overview.TITLE, picture, arguments.readme)]
        told.append(overview.sentence(overview.panels(found)))
        page.update(arguments.readme, "\n\n".join(told), page.README_BEGIN, page.README_END)
    return 0


def _draw_overview(results: Sequence[Result], directory: Path) -> Path | None:
    shown = overview.panels(results)
    if not shown:
        return None
    overview.draw(shown, directory / overview.NAME)
    return directory / overview.NAME


def _plot(title: str, results: Sequence[Result], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plots.plot(title, [result for result in results if isinstance(result, Row)], path)


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "persidict-benchmarks"


if __name__ == "__main__":
    sys.exit(main())
