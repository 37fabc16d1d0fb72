"""What stands on a command line: places, keys and values, and what goes wrong with them."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import click

from persidict import (
    FileDirDict,
    LocalDict,
    NonEmptySafeStrTuple,
    PersiDict,
    SafeStrTuple,
    SQLiteDict,
)
from persidict.contract.globbing import GlobPattern
from persidict.opening import open_dict

P = ParamSpec("P")
Returned = TypeVar("Returned")

FAILED: Final = 1
"""The exit status of a command that could not do what it was told; 2 is one told wrongly."""

INTERRUPTED: Final = 130
"""The exit status of a command that Ctrl-C has ended, as shells count it."""

DRY_RUN: Final = "dry_run"
"""The parameter of commands that have a rehearsal; it is read before places are opened."""

_CREATES: Final = {"s3": "create_bucket", "gs": "create_bucket", "az": "create_container"}
"""Which parameter decides whether a bucket that is not there is made, by scheme."""


def fail(message: str) -> NoReturn:
    """End the command with a message and the exit status 1."""
    click.echo(f"persidict: {message}", err=True)
    sys.exit(FAILED)


def describe(error: BaseException) -> str:
    """Say what went wrong, in one line for each thing that did."""
    if isinstance(error, BaseExceptionGroup):
        lines = [error.message, *(f"  {describe(inner)}" for inner in error.exceptions)]
        return "\n".join(lines)
    if isinstance(error, KeyError):
        return _missing(error)
    text = str(error) or type(error).__name__
    notes = [note.removeprefix("persidict: ") for note in getattr(error, "__notes__", ())]
    return "\n  ".join([text, *notes])


def _missing(error: KeyError) -> str:
    key = error.args[0] if error.args else ""
    return f"there is no item {key_text(key) if isinstance(key, SafeStrTuple) else key}".rstrip()


def without_tracebacks(command: Callable[P, Returned]) -> Callable[P, Returned]:
    """Have a command end with a message where a program would see an exception."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> Returned:
        try:
            return command(*args, **kwargs)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        except KeyError as missing:
            fail(_missing(missing))
        except Exception as error:  # whatever it is: told to a person, who did not write it
            fail(describe(error))

    return run


class Place(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 alone
    """A dictionary, named by the URL or path that `open_dict` takes.

    Opening one makes neither a bucket, unless its URL says so, nor a file in a rehearsal.

    Args:
        must_exist: Whether a path at which there is nothing is a mistake.
        read_only: Whether nothing is to be changed, not even in passing.
    """

    name = "place"

    def __init__(self, *, must_exist: bool = False, read_only: bool = False) -> None:
        self._must_exist = must_exist
        self._read_only = read_only

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> PersiDict[Any]:
        """Open the dictionary."""
        if isinstance(value, PersiDict):
            return value
        is_rehearsal = ctx is not None and bool(ctx.params.get(DRY_RUN))
        try:
            d = self._found(open_dict(value, **_no_bucket(value)), is_rehearsal=is_rehearsal)
            return d.read_only() if self._read_only else d
        except (TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)
        except Exception as error:  # a bucket that is not there, a directory that is a file
            fail(describe(error))

    def _found(self, d: PersiDict[Any], *, is_rehearsal: bool) -> PersiDict[Any]:
        path = None
        if isinstance(d, FileDirDict):
            path = d.base_dir
        elif isinstance(d, SQLiteDict):
            path = d.path
        if path is None or os.path.exists(path):
            return d
        if self._must_exist:
            fail(f"there is nothing at {path!r}")
        # looking into it would make the file of a database
        return LocalDict(append_only=d.append_only) if is_rehearsal else d


def _no_bucket(url: str) -> dict[str, bool]:
    """Have no bucket made that is misspelt, unless the URL says that one is wanted."""
    scheme, _, rest = url.partition("://")
    creates = _CREATES.get(scheme.lower().partition("+")[0])
    if not rest or creates is None or f"{creates}=" in rest:
        return {}
    return {creates: False}


class Checked(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 alone
    """What a check makes of a text; what it refuses is a wrong argument.

    Args:
        name: What help calls it.
        check: Returns the value; raises TypeError or ValueError that says what is wrong.
    """

    def __init__(self, name: str, check: Callable[[str], Any]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the text; what has been checked already is left as it is."""
        if not isinstance(value, str):
            return value
        try:
            return self._check(value)
        except (TypeError, ValueError) as error:
            self.fail(str(error), param, ctx)


PLACE = Place()
EXISTING = Place(must_exist=True)
SOURCE = Place(must_exist=True, read_only=True)
KEY = Checked("key", lambda text: NonEmptySafeStrTuple(*text.split("/")))
"""A key: its strings with slashes between them."""
PREFIX = Checked("prefix", lambda text: SafeStrTuple(*filter(None, text.split("/"))).strings)
"""What keys begin with, or a bound of a range: strings with slashes between them."""
GLOB = Checked("pattern", GlobPattern)
"""A pattern of keys."""


def key_text(key: SafeStrTuple) -> str:
    """Return a key as it is written on a command line."""
    return "/".join(key.strings)


def value_text(value: Any) -> str:
    """Return a value for reading: text as it is, else JSON, else as Python shows it."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except (TypeError, ValueError):
        return repr(value)
