"""The command and its subcommands; each is an operation of a dictionary."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Final

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from persidict import (
    ETAG_IS_THE_SAME,
    ITEM_NOT_AVAILABLE,
    BackendError,
    ItemInfo,
    PersiDict,
    TransferResult,
    copy_items,
    sync_items,
)
from persidict.cli.places import (
    DRY_RUN,
    EXISTING,
    FAILED,
    GLOB,
    INTERRUPTED,
    KEY,
    PLACE,
    PREFIX,
    SOURCE,
    describe,
    fail,
    key_text,
    value_text,
    without_tracebacks,
)
from persidict.contract.globbing import GlobPattern
from persidict.safe_str_tuple import NonEmptySafeStrTuple
from persidict.transfer.items import rehearse_sync

Dict = PersiDict[Any]

_FAILURES_SHOWN: Final = 10
_OF_TEXTS: Final = bytes({*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0x100)})


class _Interruptible(click.Group):
    """Ends with the exit status that shells expect when it is interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@click.group(cls=_Interruptible, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="persidict")
def persidict() -> None:
    """Look into persistent dictionaries, and move what is in them.

    A PLACE is a path or a URL, with parameters behind a question mark: results,
    'sqlite:///data/x.db', 's3://bucket/prefix?format=json'. A KEY is its strings with slashes
    between them: 2026/may/loss. A bucket is made by ?create_bucket=true alone.

    Exit status: 0 done, 1 failed or not found, 2 wrong arguments, 130 interrupted.
    """


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _matching(
    place: Dict,
    glob: GlobPattern | None,
    *,
    prefix: tuple[str, ...] = (),
    start: tuple[str, ...] | None = None,
    stop: tuple[str, ...] | None = None,
) -> Iterator[ItemInfo]:
    if glob is None:
        return place.infos(prefix, start, stop)
    infos = place.infos(
        max(prefix, glob.prefix, key=len),
        max((bound for bound in (start, glob.start) if bound is not None), default=None),
        min((bound for bound in (stop, glob.stop) if bound is not None), default=None),
    )
    return (info for info in infos if glob.matches(info.key) and _begins(info.key, prefix))


def _begins(key: NonEmptySafeStrTuple, prefix: tuple[str, ...]) -> bool:
    return key.strings[: len(prefix)] == prefix


def _as_json(info: ItemInfo) -> str:
    return json.dumps(
        {
            "key": list(info.key.strings),
            "etag": info.etag,
            "size": info.size,
            "last_modified": info.last_modified,
        }
    )


@persidict.command()
@click.argument("place", type=SOURCE)
@click.option("-l", "--long", is_flag=True, help="Show sizes and times, too.")
@click.option("--glob", type=GLOB, help="Only keys that match, such as '2026/*/loss'.")
@click.option("--prefix", type=PREFIX, default="", help="Only keys that begin with it.")
@click.option("--start", type=PREFIX, help="Only keys from this one on, in order.")
@click.option("--stop", type=PREFIX, help="Only keys before this one, in order.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each item.")
@without_tracebacks
def ls(
    place: Dict,
    long: bool,
    glob: GlobPattern | None,
    prefix: tuple[str, ...],
    start: tuple[str, ...] | None,
    stop: tuple[str, ...] | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the keys of PLACE."""
    infos = _matching(place, glob, prefix=prefix, start=start, stop=stop)
    for count, info in enumerate(infos):
        if count == limit:
            return
        if as_json:
            click.echo(_as_json(info))
        elif long:
            click.echo(
                f"{decimal(info.size):>12}  {_when(info.last_modified)}  {key_text(info.key)}"
            )
        else:
            click.echo(key_text(info.key))


@persidict.command()
@click.argument("place", type=SOURCE)
@click.argument("key", type=KEY)
@click.option("--raw", is_flag=True, help="The stored bytes, as they are.")
@without_tracebacks
def get(place: Dict, key: Any, raw: bool) -> None:
    """Write the value under KEY to standard output."""
    if raw:
        if sys.stdout is None:  # closed, as by `>&-`
            fail("standard output is closed")
        with place.open(key) as stream:
            for chunk in iter(lambda: stream.read(1024 * 1024), b""):
                if sys.stdout.isatty() and not _is_text(chunk):
                    fail("the stored bytes are no text for a terminal: send them to a file")
                sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    text = value_text(place[key])
    try:
        if sys.stdout is not None and sys.stdout.isatty() and not _is_text(text.encode()):
            text = repr(text)  # whoever stored it gives the terminal no orders
        click.echo(text, color=True)  # else echo leaves out what orders a terminal to do something
    except UnicodeEncodeError as error:
        fail(f"the value cannot be written as a text ({error}); --raw writes the stored bytes")


@persidict.command()
@click.argument("place", type=PLACE)
@click.argument("key", type=KEY)
@click.argument("value", required=False)
@click.option("--raw", is_flag=True, help="VALUE, or what is read, are the bytes to store.")
@click.option("--text", is_flag=True, help="VALUE, or what is read, is a text and no JSON.")
@click.option("--if-absent", is_flag=True, help="Only if there is no such item.")
@click.option("--if-etag", help="Only if the item is still this version.")
@without_tracebacks
def put(
    place: Dict,
    key: Any,
    value: str | None,
    raw: bool,
    text: bool,
    if_absent: bool,
    if_etag: str | None,
) -> None:
    """Store VALUE (JSON) under KEY; without it, or with -, what standard input brings."""
    if if_absent and if_etag is not None:
        raise click.UsageError("--if-absent and --if-etag exclude each other")
    data = _standard_input() if value in (None, "-") else str(value).encode()
    target = place.raw if raw else place
    content: Any = data
    if not raw:
        base = place.base_class_for_values
        is_text = text or (base is not None and issubclass(base, str))
        content = _from_utf8(data) if is_text else _from_json(data)
    if not if_absent and if_etag is None:
        target[key] = content
        return
    expected: Any = ITEM_NOT_AVAILABLE if if_absent else if_etag
    done = target.set_item_if(
        key, value=content, condition=ETAG_IS_THE_SAME, expected_etag=expected
    )
    if not done.condition_was_satisfied:
        now = done.actual_etag
        is_there = f"{key_text(key)} is now the version {now!s}"
        is_absent = f"there is no item {key_text(key)}"
        fail(f"nothing was stored: {is_absent if now is ITEM_NOT_AVAILABLE else is_there}")


def _is_text(data: bytes) -> bool:
    """Tell whether bytes are what a terminal shows, as far as controls go."""
    return not data.translate(None, _OF_TEXTS)


def _standard_input() -> bytes:
    if sys.stdin is None:  # closed, as by `<&-`
        raise click.UsageError("there is no standard input: give VALUE")
    return sys.stdin.buffer.read()


def _from_utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            f"the value is no text in UTF-8 ({error}); --raw stores it as bytes"
        ) from error


def _from_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise click.UsageError(
            f"the value is no JSON ({error}); --text stores it as a text, --raw as bytes"
        ) from error


@persidict.command()
@click.argument("place", type=EXISTING)
@click.argument("keys", type=KEY, nargs=-1)
@click.option("--prefix", type=PREFIX, help="All items whose keys begin with it.")
@click.option("-f", "--force", is_flag=True, help="An item that does not exist is no error.")
@without_tracebacks
def rm(place: Dict, keys: tuple[Any, ...], prefix: tuple[str, ...] | None, force: bool) -> None:
    """Delete the items under KEYS."""
    if not keys and not prefix:
        raise click.UsageError("give keys, or --prefix")
    missing = [key for key in keys if not place.discard(key)]
    if prefix:
        place.discard_many(place.keys(prefix=prefix))
    if missing and not force:
        fail(f"there is no item {', '.join(map(key_text, missing))}")


def _report(result: TransferResult) -> None:
    click.echo(str(result)[1:-1].partition(": ")[2], err=True)
    _report_failures(result)


def _report_failures(result: TransferResult) -> None:
    for key, error in islice(result.failed.items(), _FAILURES_SHOWN):
        click.echo(f"persidict: {key_text(key)}: {describe(error)}", err=True)
    if len(result.failed) > _FAILURES_SHOWN:
        click.echo(f"persidict: ... and {len(result.failed) - _FAILURES_SHOWN} more", err=True)
    if result.failed:
        sys.exit(FAILED)


@persidict.command()
@click.argument("source", type=SOURCE)
@click.argument("target", type=PLACE)
@click.argument("keys", type=KEY, nargs=-1)
@click.option("--no-clobber", is_flag=True, help="Leave what the target has.")
@click.option("--progress", is_flag=True, help="Show a progress bar.")
@without_tracebacks
def cp(source: Dict, target: Dict, keys: tuple[Any, ...], no_clobber: bool, progress: bool) -> None:
    """Copy the items under KEYS, or all, from SOURCE to TARGET."""
    chosen = list(keys) or None
    _report(copy_items(source, target, keys=chosen, overwrite=not no_clobber, progress=progress))


@persidict.command()
@click.argument("source", type=SOURCE)
@click.argument("target", type=PLACE)
@click.option("--delete", is_flag=True, help="Delete from TARGET what SOURCE does not have.")
@click.option(
    "--dry-run", DRY_RUN, is_flag=True, is_eager=True, help="Show what differs; change nothing."
)
@click.option("--progress", is_flag=True, help="Show a progress bar.")
@without_tracebacks
def sync(source: Dict, target: Dict, delete: bool, dry_run: bool, progress: bool) -> None:
    """Make TARGET hold what SOURCE does, copying only what differs."""
    if dry_run:
        _show_difference(source, target, delete=delete)
        return
    _report(sync_items(source, target, delete=delete, progress=progress))


def _show_difference(source: Dict, target: Dict, *, delete: bool) -> None:
    would, there = rehearse_sync(source, target, delete=delete)
    for key in would.copied:
        click.echo(f"{'changed' if key in there else 'new':<9}{key_text(key)}")
    for key in would.deleted:
        click.echo(f"deleted  {key_text(key)}")
    _report_failures(would)


@persidict.command()
@click.argument("place", type=EXISTING)
@click.argument("key", type=KEY, required=False)
@without_tracebacks
def info(place: Dict, key: Any) -> None:
    """Tell about the item under KEY, or about PLACE and what its server enforces."""
    table = Table(show_header=False, box=None)
    if key is not None:
        found = place.info(key)
        rows = {
            "key": key_text(found.key),
            "location": place.location(key),
            "size": f"{found.size} bytes",
            "last modified": _when(found.last_modified),
            "etag": found.etag,
        }
    else:
        rows = {name: repr(value) for name, value in place.get_params().items()}
        rows = {"class": type(place).__name__, **rows}
        capabilities = getattr(place, "capabilities", None)
        if capabilities is not None:
            rows["capabilities"] = repr(capabilities)
    for name, value in rows.items():
        table.add_row(name, value)
    Console(soft_wrap=True, highlight=False, markup=False).print(table)


@persidict.command()
@click.argument("place", type=SOURCE)
@click.option("--prefix", type=PREFIX, default="", help="Only keys that begin with it.")
@click.option("--bytes", "exact", is_flag=True, help="In bytes.")
@without_tracebacks
def du(place: Dict, prefix: tuple[str, ...], exact: bool) -> None:
    """Tell how many items PLACE has below each first string, and how large they are."""
    totals: dict[str, tuple[int, int]] = {}
    for found in place.infos(prefix=prefix):
        part = found.key.strings[len(prefix)] if len(found.key) > len(prefix) else "."
        count, size = totals.get(part, (0, 0))
        totals[part] = (count + 1, size + found.size)
    total = (sum(c for c, _ in totals.values()), sum(s for _, s in totals.values()))
    for name, (count, size) in [*sorted(totals.items()), ("total", total)]:
        click.echo(f"{size if exact else decimal(size):>12}  {count:>9}  {name}")


@persidict.command()
@click.argument("place", type=SOURCE)
@without_tracebacks
def verify(place: Dict) -> None:
    """Read every item of PLACE; name those that cannot be decoded."""
    damaged = count = 0
    for key in place:
        count += 1
        try:
            place.get(key)
        except (BackendError, TypeError) as error:
            damaged += 1
            click.echo(f"{key_text(key)}: {describe(error)}")
    click.echo(f"{count} {'item' if count == 1 else 'items'}, {damaged} damaged", err=True)
    if damaged:
        sys.exit(FAILED)
