"""Every dictionary in every format: a new storage passes the suites by one more line in CASES."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from persidict.file_dir_dict import FileDirDict
from persidict.local_dict import LocalDict
from persidict.persi_dict import PersiDict
from persidict.protection import Encrypted, KeyFromEnvironment, Protection, Signed
from persidict.sqlite_dict import SQLiteDict
from tests.clouds import CLOUDS

KEY_VARIABLE = "PERSIDICT_TEST_KEY"


@dataclass(frozen=True)
class DictCase:
    """A kind of dictionary under test.

    Attributes:
        name: What its tests are called.
        make: Makes a dictionary at a path of its own from constructor parameters.
        serialization_format: The format under test.
        etags_never_repeat: Whether writing an equal value again gives a new ETag.
        handles_travel: Whether handles can be pickled.
        is_slow: Whether its tests are left out of a quick run.
    """

    name: str
    make: Callable[..., PersiDict[Any]]
    serialization_format: str = "pkl"
    etags_never_repeat: bool = True
    handles_travel: bool = True
    is_slow: bool = False

    def maker(self, directory: Path) -> Callable[..., PersiDict[Any]]:
        """Return a callable that makes a fresh, empty dictionary at each call."""
        numbers = itertools.count()
        common: dict[str, Any] = {"serialization_format": self.serialization_format}
        if self.serialization_format not in ("pkl", "json"):
            common["base_class_for_values"] = str

        def new_dict(**params: Any) -> PersiDict[Any]:
            return self.make(directory / str(next(numbers)), **{**common, **params})

        return new_dict


def in_ram(place: Path, **params: Any) -> PersiDict[Any]:
    return LocalDict(**params)


def in_files(place: Path, **params: Any) -> PersiDict[Any]:
    return FileDirDict(base_dir=place, **{"fsync": False, **params})


def protected(protection: type[Protection], place: Path, **params: Any) -> PersiDict[Any]:
    os.environ.setdefault(KEY_VARIABLE, "a key for tests, of 32 characters and more")
    keys = KeyFromEnvironment(KEY_VARIABLE)
    return in_files(place, **{"protection": protection(keys), **params})


def in_ram_signed(place: Path, **params: Any) -> PersiDict[Any]:
    return LocalDict(**{"protection": Signed(b"k" * 32), **params})


def in_a_database(place: Path, **params: Any) -> PersiDict[Any]:
    return SQLiteDict(path=place, **{"fsync": False, **params})


def in_a_cloud(name: str, place: Path, **params: Any) -> PersiDict[Any]:
    return CLOUDS[name](**params)


CASES = [
    DictCase("LocalDict-pkl", in_ram, "pkl", handles_travel=False),
    DictCase("LocalDict-json", in_ram, "json", handles_travel=False),
    DictCase("LocalDict-txt", in_ram, "txt", handles_travel=False),
    # each format and each length of digest, not each pair: a codec knows nothing of keys
    DictCase("FileDirDict-pkl-0", partial(in_files, digest_len=0), "pkl"),
    DictCase("FileDirDict-pkl-4", partial(in_files, digest_len=4), "pkl"),
    DictCase("FileDirDict-pkl-durable", partial(in_files, fsync=True), "pkl"),
    DictCase("FileDirDict-json-4", partial(in_files, digest_len=4), "json"),
    DictCase("FileDirDict-json-11", partial(in_files, digest_len=11), "json"),
    DictCase("FileDirDict-txt-0", partial(in_files, digest_len=0), "txt"),
    DictCase("FileDirDict-plainjson", in_files, "plainjson"),
    DictCase("FileDirDict-pkl-signed", partial(protected, Signed), "pkl"),
    DictCase("FileDirDict-json-encrypted", partial(protected, Encrypted), "json"),
    DictCase("LocalDict-pkl-signed", in_ram_signed, "pkl", handles_travel=False),
    DictCase("SQLiteDict-pkl", in_a_database, "pkl"),
    DictCase("SQLiteDict-pkl-files", partial(in_a_database, large_value_size=1), "pkl"),
    DictCase("SQLiteDict-pkl-durable", partial(in_a_database, fsync=True), "pkl"),
    DictCase("SQLiteDict-json", in_a_database, "json"),
    DictCase("SQLiteDict-txt", in_a_database, "txt"),
    *(DictCase(f"{name}-pkl", partial(in_a_cloud, name), is_slow=True) for name in CLOUDS),
]


def parameters(cases: Iterable[DictCase] = CASES) -> list[ParameterSet]:
    """Return cases as parameters of tests."""
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.is_slow else [])
        for case in cases
    ]
