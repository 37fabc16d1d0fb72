"""Run all benchmarks, or some: ``python -m benchmarks [files ...]``."""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
import tempfile
from typing import Final

from benchmarks.environment import describe
from benchmarks.harness import Bench, Suite, summary, table

SUITES: Final = ("files", "s3", "caches")
"""The modules of this package that have a `SUITE`."""

_LIBRARIES: Final = ("persidict", "mixinforge", "numpy", "lz4", "diskcache", "boto3", "botocore")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", default=SUITES, metavar="suite", help=str(SUITES))
    parser.add_argument("--dir", help="where to put files (default: as for temporary files)")
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="how long one comparison may take at most"
    )
    arguments = parser.parse_args(argv)
    for name in arguments.suites:
        if name not in SUITES:
            parser.error(f"there is no suite {name!r}; there are {', '.join(SUITES)}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Measure, and print one table for each suite."""
    arguments = parse_arguments(argv)
    if arguments.dir is not None:
        tempfile.tempdir = arguments.dir
    bench = Bench(quick=arguments.quick, seconds=arguments.seconds)
    print(describe(tempfile.gettempdir(), _LIBRARIES))
    results = []
    for name in arguments.suites:
        suite: Suite = importlib.import_module(f"benchmarks.{name}").SUITE
        print(name, file=sys.stderr)
        found = list(suite.run(bench))
        print(f"\n### {suite.title}\n\n{suite.note}\n\n{table(found)}", flush=True)
        results.append(found)
    print(f"\n{summary(itertools.chain.from_iterable(results))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
