"""Index the source of Python's standard library in one persistent dictionary.

Several worker processes parse every module of the running Python's standard library and
put one item for each into a dictionary that they share, under the module's path:
``modules["json", "decoder"]`` tells the functions, classes, imports and lines of
``json/decoder.py``. Beside it they keep a summary, one small item that all of them change
all the time; `transform_item` sees to it that no change is lost.

Run it again and it skips what has not changed. Interrupt it, even with SIGKILL, and the
next run goes on from there: every item is whole, and a summary that missed the last
change is noticed and put right. Start one run at a time on one place: a second one beside
it would take the first one's unfinished work for such a miss.

With ``--to`` the same dictionaries are wherever a URL says: in one database file, in a bucket
of S3 or Google, in a container of Azure, in another directory. With ``--s3`` they are in S3: on
a server that the example starts inside itself, or in a bucket of yours. Nothing else changes.

    python examples/index_stdlib.py --dir stdlib_index
    python examples/index_stdlib.py --to sqlite:///tmp/stdlib_index.db
    python examples/index_stdlib.py --to s3://my-bucket/stdlib?region=eu-west-1
    python examples/index_stdlib.py --to gs://my-bucket/stdlib
    python examples/index_stdlib.py --s3 --runs 2
    python examples/index_stdlib.py --s3 --bucket my-bucket --region eu-west-1
    python examples/index_stdlib.py --s3 --bucket b --endpoint-url http://127.0.0.1:9000
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import platform
import signal
import sys
import sysconfig
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from botocore.exceptions import BotoCoreError, ClientError
from tqdm import tqdm

from persidict import (
    DELETE_CURRENT,
    ITEM_NOT_AVAILABLE,
    BackendError,
    BasicS3Dict,
    FileDirDict,
    NonEmptySafeStrTuple,
    PersiDict,
    open_dict,
    replace_unsafe_chars,
)

COUNTED = ("modules", "invalid", "lines", "functions", "classes", "imports")
TOTALS = "totals"  # the key of the summary

TROUBLE = (BackendError, BotoCoreError, ClientError, ImportError, OSError)
"""What a place raises that is not there, or may not be used: nothing that a traceback explains."""


class ModuleFacts(TypedDict):
    """What is kept of a module: plain data, so that any program can read it."""

    digest: str
    error: str | None
    lines: int
    functions: list[str]
    classes: list[str]
    imports: list[str]


class Index(NamedTuple):
    """The two dictionaries; they travel to the workers as handles, without their content."""

    modules: PersiDict[Any]
    summary: PersiDict[Any]


def start_s3_server() -> str:
    """Start moto's imitation of S3 in a thread of this process, on loopback.

    Returns:
        Its URL. It keeps everything in RAM and ends with the process.
    """
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    moto = create_backend_app("s3")
    one_at_a_time = threading.Lock()

    def app(environ: Any, start_response: Any) -> Any:
        # moto checks If-Match first and writes then, in two steps. Two workers could both
        # pass the check and one update be lost; real S3 servers do both in one step.
        with one_at_a_time:
            return moto(environ, start_response)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def open_storage(arguments: argparse.Namespace) -> PersiDict[Any]:
    """Make the dictionary that everything is kept in."""
    if arguments.to is not None:
        return open_dict(arguments.to)
    if not arguments.s3:
        return FileDirDict(base_dir=arguments.dir)
    if arguments.bucket is not None:
        return BasicS3Dict(
            bucket_name=arguments.bucket,
            root_prefix=arguments.prefix,
            endpoint_url=arguments.endpoint_url,
            region=arguments.region,
        )
    print("S3 is a server inside this process, which keeps nothing when it ends.")
    return BasicS3Dict(
        bucket_name="stdlib-index",
        root_prefix=arguments.prefix,
        endpoint_url=start_s3_server(),
        region="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        boto_config={"proxies": {}},
    )


def open_index(arguments: argparse.Namespace) -> Index:
    """Make the dictionaries, as two parts of one place."""
    storage = open_storage(arguments)
    return Index(storage.get_subdict("modules"), storage.get_subdict("summary"))


def find_modules(package: str | None) -> dict[NonEmptySafeStrTuple, Path]:
    """Find the source files of the standard library, or of one top-level part of it.

    Args:
        package: The name of a top-level package or module; None for all.

    Returns:
        The path of each source file under the key that its module gets.
    """
    root = Path(sysconfig.get_path("stdlib"))
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] in ("site-packages", "dist-packages"):
            continue
        if package is None or parts[0] == package:
            modules[NonEmptySafeStrTuple([replace_unsafe_chars(part) for part in parts])] = path
    return modules


def digest_of(source: bytes) -> str:
    """Return what tells one state of a source file from another."""
    return hashlib.sha256(source).hexdigest()


def describe(source: bytes) -> ModuleFacts:
    """Parse a module's source; some test data is no valid Python, on purpose."""
    facts: ModuleFacts = {
        "digest": digest_of(source),
        "error": None,
        "lines": len(source.splitlines()),
        "functions": [],
        "classes": [],
        "imports": [],
    }
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        facts["error"] = str(error)
        return facts
    imports: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                facts["functions"].append(name)
            case ast.ClassDef(name=name):
                facts["classes"].append(name)
            case ast.Import(names=aliases):
                imports.update(alias.name for alias in aliases)
            case ast.ImportFrom(module=origin, level=level):
                imports.add("." * level + (origin or ""))
    facts["imports"] = sorted(imports)
    return facts


def counts_of(facts: ModuleFacts | None) -> dict[str, int]:
    """Return what a module adds to the summary; one that is not there adds nothing."""
    if facts is None:
        return dict.fromkeys(COUNTED, 0)
    return {
        "modules": 1,
        "invalid": int(facts["error"] is not None),
        "lines": facts["lines"],
        "functions": len(facts["functions"]),
        "classes": len(facts["classes"]),
        "imports": len(facts["imports"]),
    }


def summed(all_counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up what several modules count."""
    total = counts_of(None)
    for counts in all_counts:
        for name in COUNTED:
            total[name] += counts[name]
    return total


def record(index: Index, key: NonEmptySafeStrTuple, facts: ModuleFacts | None) -> None:
    """Put, replace or (without facts) remove an item; move the summary by the difference.

    Any number of workers may do this at once. The difference is exact because a transformer
    is given the very value that its result replaces; and no change of the summary is lost
    because each is tried again until nobody else came between.
    """
    before: ModuleFacts | None = None

    def replace(current: Any) -> Any:
        nonlocal before  # of several attempts, the last is the one that took effect
        before = None if current is ITEM_NOT_AVAILABLE else current
        return DELETE_CURRENT if facts is None else facts

    index.modules.transform_item(key, transformer=replace, n_retries=None)
    added, removed = counts_of(facts), counts_of(before)

    def adjust(current: Any) -> dict[str, int]:
        totals = counts_of(None) if current is ITEM_NOT_AVAILABLE else current
        return {name: totals[name] + added[name] - removed[name] for name in COUNTED}

    if added != removed:
        index.summary.transform_item(TOTALS, transformer=adjust, n_retries=None)


def index_module(index: Index, key: NonEmptySafeStrTuple, path: Path) -> None:
    """Parse one module and record it; runs in a worker process."""
    record(index, key, describe(path.read_bytes()))


def start_worker() -> None:
    """Leave Ctrl-C to the main process, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def index_in_parallel(
    index: Index, modules: Mapping[NonEmptySafeStrTuple, Path], n_workers: int
) -> None:
    """Index modules in several processes, under a progress bar."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(n_workers, context, initializer=start_worker)
    try:
        futures = [executor.submit(index_module, index, *item) for item in modules.items()]
        for done in tqdm(as_completed(futures), total=len(futures), unit=" modules", disable=None):
            done.result()
    finally:
        executor.shutdown(cancel_futures=True)


def repair_summary(index: Index, expected: dict[str, int]) -> None:
    """Put a summary right that an interrupted run left one step behind its items."""
    if index.summary.get(TOTALS, counts_of(None)) != expected:
        index.summary[TOTALS] = expected
        print(
            "The summary did not match the items: an earlier run was interrupted between the\n"
            f"two. Rebuilt it from the {expected['modules']:,} items."
        )


def update(index: Index, package: str | None, n_workers: int) -> None:
    """Bring the index up to date with the source files."""
    print(f"Python {platform.python_version()}, {sysconfig.get_path('stdlib')}")
    sources = find_modules(package)
    known = {key: (facts["digest"], counts_of(facts)) for key, facts in index.modules.items()}
    repair_summary(index, summed(counts for _, counts in known.values()))

    vanished = [key for key in known if key not in sources and package in (None, key[0])]
    changed = {
        key: path
        for key, path in sources.items()
        if key not in known or known[key][0] != digest_of(path.read_bytes())
    }
    print(
        f"{len(sources):,} source files: {len(sources) - len(changed):,} unchanged and skipped,"
        f" {len(changed):,} to index; {len(vanished):,} vanished",
        flush=True,
    )
    for key in vanished:
        record(index, key, None)
    if changed:
        started = time.monotonic()
        index_in_parallel(index, changed, n_workers)
        seconds = time.monotonic() - started
        print(f"Indexed {len(changed):,} modules with {n_workers} workers in {seconds:.1f} s")


def print_table(header: Iterable[str], rows: Iterable[tuple[str, Mapping[str, int]]]) -> None:
    """Print rows of counts under a header."""
    first, *names = header
    print(f"{first:<20}" + "".join(f"{name:>10}" for name in names))
    for title, counts in rows:
        print(f"{title:<20}" + "".join(f"{counts[name]:>10,}" for name in names))


def summary_is_exact(index: Index) -> bool:
    """Compare the summary with the sum over all items, read once more; print both."""
    kept = index.summary.get(TOTALS, counts_of(None))
    expected = summed(counts_of(facts) for facts in index.modules.values())
    print()
    print_table(("", *COUNTED), [("the shared summary", kept), ("the sum over items", expected)])
    print("The summary is exact." if kept == expected else "THE SUMMARY IS WRONG.")
    return bool(kept == expected)


def dotted(key: Iterable[str]) -> str:
    """Return a key as one writes a module's name."""
    return ".".join(key)


def answer_questions(modules: PersiDict[Any], package: str) -> None:
    """Ask the index some questions, as one would ask a dict."""
    # Counting keys reads no values; only the largest packages are then read.
    sizes = Counter(key[0] for key in modules if len(key) > 1)
    largest = [name for name, _ in sizes.most_common(8)]
    print("\nWhich packages are the largest?")
    print_table(
        ("package", *COUNTED),
        [(name, summed(map(counts_of, modules.get_subdict(name).values()))) for name in largest],
    )

    print(f"\nWhat is in {package}?")
    for key, facts in sorted(modules.get_subdict(package).items()):
        print(f"    {dotted(key):<22}", ", ".join(facts["classes"] + facts["functions"])[:60])

    print("\nWhat was indexed last?")
    print("   ", ", ".join(dotted(key) for key in modules.newest_keys(max_n=5)))

    print("\nWhat is imported by the most modules?")
    importers = Counter(name for facts in modules.values() for name in facts["imports"])
    print("   ", ", ".join(f"{name} ({n:,})" for name, n in importers.most_common(8)))

    single = [key[0] for key in modules if len(key) == 1]
    tested = modules.keys() & {("test", f"test_{name}") for name in single}
    print("\nHow many modules outside packages have a test module named after them?")
    print(f"    {len(tested):,} of {len(single):,}")

    print("\nWhat could not be parsed?")
    broken = sorted(dotted(key) for key, facts in modules.items() if facts["error"] is not None)
    print("   ", "\n    ".join(broken) or "nothing")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Index Python's standard library.")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--dir", default="stdlib_index", help="where to keep the index")
    place.add_argument("--to", metavar="URL", help="where to keep it, as a URL of open_dict")
    place.add_argument("--s3", action="store_true", help="keep the index in S3 instead")
    parser.add_argument(
        "--bucket", help="with --s3: your bucket (default: an S3 server of its own)"
    )
    parser.add_argument("--prefix", default="", help="with --s3: what object names begin with")
    parser.add_argument("--endpoint-url", help="with --bucket: the S3 service (default: AWS)")
    parser.add_argument("--region", help="with --bucket: its region")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count(),
        help="how many processes (default: all cores)",
    )
    parser.add_argument("--runs", type=int, default=1, help="how many times to bring it up to date")
    parser.add_argument("--package", help="index only this top-level package or module")
    arguments = parser.parse_args(argv)
    if (arguments.bucket or arguments.prefix) and not arguments.s3:
        parser.error("--bucket and --prefix need --s3")
    if arguments.to is not None and arguments.to.startswith("mem:"):
        parser.error("--to: the workers are processes, which do not share memory")
    if (arguments.endpoint_url or arguments.region) and not arguments.bucket:
        parser.error("--endpoint-url and --region need --bucket")
    if min(arguments.workers, arguments.runs) < 1:
        parser.error("--workers and --runs must be at least 1")
    if not find_modules(arguments.package):
        parser.error(f"--package: the standard library has no {arguments.package!r}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Update the index, check the summary, answer the questions.

    Returns:
        The exit status: 0; 1 when the summary is not the sum over the items, or the place fails;
        2 when it cannot be opened.
    """
    arguments = parse_arguments(argv)
    try:
        index = open_index(arguments)
    except (*TROUBLE, TypeError, ValueError) as mistake:
        print(f"index_stdlib.py: {mistake}", file=sys.stderr)
        return 2
    exact = True
    try:
        for _ in range(arguments.runs):
            update(index, arguments.package, arguments.workers)
            exact = summary_is_exact(index) and exact
    except KeyboardInterrupt:
        print("\nInterrupted; the next run goes on from what is kept.", file=sys.stderr)
        return 130
    except TROUBLE as trouble:
        print(f"index_stdlib.py: {trouble}", file=sys.stderr)
        return 1
    answer_questions(index.modules, arguments.package or "json")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
