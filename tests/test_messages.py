"""The mistakes that beginners make, and the exact words that they get."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persidict import (
    ANY_ETAG,
    KEEP_CURRENT,
    BackendError,
    EmptyDict,
    FileDirDict,
    LocalDict,
    MutableDictCached,
    MutationPolicyError,
    NonEmptySafeStrTuple,
    OverlappingMultiDict,
    SQLiteDict,
    WriteOnceDict,
    memoize,
    open_dict,
)
from persidict.basic_s3_dict import BasicS3Dict
from tests.faults import run_in_child

ALLOWED = "allowed are ASCII letters, digits and ()_-~.= (see escape_key)"
NOBODY = 65534
ROOT = Path(__file__).parent.parent


def store(key: Any, value: Any = 1) -> None:
    LocalDict[Any]()[key] = value


def change_what_is_append_only() -> None:
    d = LocalDict[int](append_only=True)
    d["a"] = 1
    d["a"] = 2


def misused(cls: Any, *args: Any, **params: Any) -> Callable[[], object]:
    return lambda: cls(*args, **params)


MISTAKES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "an item that is not there": (lambda: LocalDict()["a"], KeyError, "'a'"),
    "one with a key of several strings": (lambda: LocalDict()["a", "b"], KeyError, "('a', 'b')"),
    "deleting what is not there": (lambda: LocalDict().pop("a"), KeyError, "'a'"),
    "popping from an empty one": (
        lambda: LocalDict().popitem(),
        KeyError,
        "'popitem(): the dictionary is empty'",
    ),
    "a number as a key": (
        lambda: store(1),
        TypeError,
        "key: a key is made of strings and sequences of strings, not of int (1)",
    ),
    "a space in a key": (lambda: store("a b"), ValueError, f"key: 'a b' contains ' '; {ALLOWED}"),
    "a path as a key": (
        lambda: store("2026/may"),
        ValueError,
        f"key: '2026/may' contains '/'; {ALLOWED}",
    ),
    "an empty key": (
        lambda: store(""),
        ValueError,
        "key: a string in a key must not be empty",
    ),
    "a directory without its name": (
        misused(FileDirDict, "scores"),
        TypeError,
        "the arguments of FileDirDict have names: write FileDirDict(base_dir='scores')",
    ),
    "a bucket without its name, and what may be a secret": (
        misused(BasicS3Dict, "bucket", "secret"),
        TypeError,
        "the arguments of BasicS3Dict have names:"
        " write BasicS3Dict(bucket_name='bucket', region=...)",
    ),
    "a dictionary without its name": (
        misused(WriteOnceDict, LocalDict(append_only=True)),
        TypeError,
        "the arguments of WriteOnceDict have names: write WriteOnceDict(wrapped_dict=...)",
    ),
    "three dictionaries without their names": (
        misused(MutableDictCached, LocalDict(), LocalDict(), LocalDict()),
        TypeError,
        "the arguments of MutableDictCached have names:"
        " write MutableDictCached(main_dict=..., data_cache=..., etag_cache=...)",
    ),
    "items for the constructor": (
        misused(LocalDict, {"a": 1}),
        TypeError,
        "a LocalDict is made without items: make it, then store them with update(...)",
    ),
    "a misspelt parameter": (
        misused(SQLiteDict, pth="d.sqlite", append_only=True),
        TypeError,
        "a SQLiteDict has no parameter 'pth' (did you mean 'path'?); it has ",
    ),
    "a format by its long name": (
        misused(LocalDict, serialization_format="pickle"),
        ValueError,
        "serialization_format 'pickle' holds texts or bytes: base_class_for_values must be str"
        " or a subclass of it, or bytes (or did you mean 'pkl'?)",
    ),
    "texts without their class": (
        misused(LocalDict, serialization_format="txt"),
        ValueError,
        "serialization_format 'txt' holds texts or bytes: base_class_for_values must be str"
        " or a subclass of it, or bytes",
    ),
    "a value of another class": (
        lambda: LocalDict(base_class_for_values=int).update({"a": "1"}),
        TypeError,
        "value must be an instance of int (base_class_for_values), not str",
    ),
    "changing what is append-only": (
        change_what_is_append_only,
        MutationPolicyError,
        "the dictionary is append-only: item NonEmptySafeStrTuple('a') exists and cannot be"
        " changed",
    ),
    "deleting from what is append-only": (
        lambda: LocalDict(append_only=True).clear(),
        MutationPolicyError,
        "the dictionary is append-only: items cannot be deleted",
    ),
    "a dictionary as a value": (
        lambda: store("a", LocalDict()),
        TypeError,
        "value: a persistent dictionary cannot be stored as a value",
    ),
    "a joker as a default": (
        lambda: LocalDict().setdefault("a", KEEP_CURRENT),
        TypeError,
        "default_value: KEEP_CURRENT cannot be stored as a value",
    ),
    "an item of a container": (
        lambda: OverlappingMultiDict(
            dict_type=LocalDict, shared_subdicts_params={}, json={}, pkl={}
        )["a"],
        TypeError,
        "OverlappingMultiDict holds dictionaries and is none itself: use one of its attributes"
        " (json, pkl)",
    ),
    "a dictionary in RAM for another process": (
        lambda: pickle.dumps(LocalDict()),
        TypeError,
        "items in RAM cannot be pickled or passed to another process: use a FileDirDict or an S3"
        " dictionary",
    ),
    "memoize without a dictionary": (
        lambda: memoize(len),  # type: ignore[arg-type]
        TypeError,
        "d must be a PersiDict, not builtin_function_or_method",
    ),
    "memoize of a lambda": (
        lambda: memoize(LocalDict[Any]())(lambda x: x),
        TypeError,
        "memoize needs a function with a name: a lambda has none, use def",
    ),
    "a condition without the names of its arguments": (
        lambda: misused(LocalDict().set_item_if, "a", 1, ANY_ETAG)(),
        TypeError,
        "the arguments of set_item_if have names: write set_item_if(key, value=...,"
        " condition=..., expected_etag=...)",
    ),
    "a function without its name": (
        lambda: misused(EmptyDict().transform_item, "a", len)(),
        TypeError,
        "the arguments of transform_item have names: write transform_item(key, transformer=...)",
    ),
    "a misspelt argument": (
        lambda: misused(LocalDict().transform_item, "a", transfomer=len)(),
        TypeError,
        "transform_item has no argument 'transfomer' (did you mean 'transformer'?); it has key,"
        " transformer, n_retries, default",
    ),
    "a condition without what it compares with": (
        lambda: misused(LocalDict().discard_if, "a", condition=ANY_ETAG)(),
        TypeError,
        "discard_if lacks expected_etag: write discard_if(key, condition=..., expected_etag=...)",
    ),
    "how many newest keys, without the name": (
        lambda: misused(LocalDict().newest_keys, 3)(),
        TypeError,
        "the arguments of newest_keys have names: write newest_keys(max_n=...)",
    ),
    "a number as a URL": (
        misused(open_dict, 3),
        TypeError,
        "url must be a str or a path, not int",
    ),
    "a text as a switch": (
        misused(BasicS3Dict, bucket_name="b", create_bucket="no"),
        TypeError,
        "create_bucket must be True or False, not 'no'",
    ),
    "a misspelt scheme": (
        lambda: open_dict("s4://bucket"),
        ValueError,
        "'s4://bucket': unknown scheme 's4' (did you mean 's3'?); there are ",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_these_words(mistake: str) -> None:
    make, kind, words = MISTAKES[mistake]
    with pytest.raises(kind) as raised:
        make()
    said = str(raised.value)
    assert said.startswith(words) if words.endswith(" ") else said == words


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_message_is_longer_than_a_few_lines(mistake: str) -> None:
    with pytest.raises(MISTAKES[mistake][1]) as raised:
        MISTAKES[mistake][0]()
    assert len(str(raised.value)) < 500


# ---------------------------------------------------------------------- a missing key


def missing(key: Any = ("a", "b")) -> KeyError:
    with pytest.raises(KeyError) as raised:
        LocalDict[int]()[key]
    return raised.value


def test_the_argument_of_a_missing_keys_error_is_the_key() -> None:
    (key,) = missing().args
    assert type(key) is NonEmptySafeStrTuple
    assert key.strings == ("a", "b")


def test_a_missing_key_reads_like_that_of_a_dict_in_a_traceback() -> None:
    assert traceback.format_exception_only(missing("a")) == ["KeyError: 'a'\n"]


def test_what_is_pickled_of_it_is_a_plain_error_that_any_version_reads() -> None:
    arrived = pickle.loads(pickle.dumps(missing()))
    assert (type(arrived), arrived.args) == (KeyError, missing().args)
    assert b"persidict.exceptions" not in pickle.dumps(missing().__reduce_ex__(4))


@pytest.mark.parametrize("serialization_format", ["pkl", "json"])
def test_a_missing_keys_error_can_be_a_value(serialization_format: str) -> None:
    d = LocalDict[Any](serialization_format=serialization_format)
    d["crash"] = missing().with_traceback(None)
    assert (type(d["crash"]).__name__, d["crash"].args) == ("KeyError", missing().args)


@pytest.mark.parametrize("error", [TypeError("len of what?"), TypeError()])
def test_an_error_of_the_users_own_function_is_left_as_it_is(error: TypeError) -> None:
    def transformer(current: Any) -> Any:
        raise error

    with pytest.raises(TypeError) as raised:
        LocalDict[Any]().transform_item("a", transformer=transformer)
    assert raised.value is error


# ---------------------------------------------------------------------- constructors


class Positional(LocalDict[int]):
    """A user's own class, whose constructor takes what it likes."""

    def __init__(self, name: str, *rest: object, **options: object) -> None:
        if rest or options:
            raise TypeError("a mistake of the user's own")
        super().__init__()
        self.name = name


def test_a_users_own_constructor_takes_positional_arguments() -> None:
    assert Positional("here").name == "here"


def test_what_goes_wrong_inside_of_a_constructor_is_left_as_it_is() -> None:
    with pytest.raises(TypeError, match="a mistake of the user's own"):
        Positional("here", 1, more=2)


def test_no_secret_stands_in_a_message_about_parameters() -> None:
    for wrong in (
        misused(BasicS3Dict, "bucket", "region", "hush-hush"),
        misused(BasicS3Dict, bucket_name="b", secret_key="hush-hush"),
    ):
        with pytest.raises(TypeError) as raised:
            wrong()
        assert "hush-hush" not in "".join(traceback.format_exception_only(raised.value))


# ---------------------------------------------------------------------- files


def notes_of(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # TMPDIR may be closed to others
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")
@pytest.mark.parametrize("hidden", ["directory", "item"])
def test_what_may_not_be_read_says_whose_it_is_and_who_asks(hidden: str, open_place: Path) -> None:
    place = open_place / "items"
    d = FileDirDict[int](base_dir=place)
    d["a"] = 1
    unreadable = place if hidden == "directory" else Path(d.location("a"))
    unreadable.chmod(0)

    def read() -> None:
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        with pytest.raises(PermissionError) as raised:
            FileDirDict[int](base_dir=place)["a"]
        told = notes_of(raised.value)
        assert f"persidict: {str(unreadable)!r} belongs to user " in told
        assert ", its mode is " in told
        assert ", and this runs as user " in told

    try:
        assert run_in_child(read) == 0
    finally:
        unreadable.chmod(0o700)


def run_without(library: str, code: str, place: Path) -> str:
    """Run code where a library is not installed; return the last line of its complaint."""
    packages = place / "packages"
    packages.mkdir()
    for package in Path(np.__file__).parent.parent.iterdir():
        if package.name.partition("-")[0] != library and package.name != f"{library}.libs":
            (packages / package.name).symlink_to(package)
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{packages}"},
        capture_output=True,
        text=True,
    )
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("serialization_format", ["pkl", "json", "npy"])
def test_an_array_that_is_read_without_numpy_says_what_to_install(
    serialization_format: str, tmp_path: Path
) -> None:
    items = tmp_path / "items"
    FileDirDict(base_dir=items, serialization_format=serialization_format)["a"] = np.arange(3)
    said = run_without(
        "numpy",
        "from persidict import FileDirDict; FileDirDict("
        f"base_dir={str(items)!r}, serialization_format={serialization_format!r})['a']",
        tmp_path,
    )
    assert "pip install 'persidict[numpy]'" in said


# ---------------------------------------------------------------------- the wrong port


@contextmanager
def answering(said: bytes, *, at_once: bool = False) -> Iterator[str]:
    """A server that says one thing to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if not at_once:
                        connection.recv(65536)
                    connection.sendall(said)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


HTML = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n"
    b"<html>"
)
NOT_SUPPORTED = (
    b"HTTP/1.0 501 Unsupported method\r\nServer: SimpleHTTP/0.6\r\nContent-Length: 0\r\n\r\n"
)
SSH = b"SSH-2.0-OpenSSH_9.2\r\n"
TLS_ALERT = bytes.fromhex("15030300020246")


@pytest.mark.parametrize("create_bucket", [True, False], ids=["bucket", "item"])
@pytest.mark.parametrize(
    ("scheme", "said", "told"),
    [
        ("http", HTML, "does not speak S3"),
        ("http", NOT_SUPPORTED, "what answered calls itself 'SimpleHTTP/0.6'"),
        ("http", SSH, "does not speak HTTP: it said b'SSH-2.0-OpenSSH_9.2'"),
        ("http", TLS_ALERT, "what answers there wants TLS: https:// instead of http://"),
        ("https", HTML, "what answers there speaks no TLS, as https:// would need"),
    ],
    ids=["a web server", "another web server", "ssh", "https", "http"],
)
def test_what_is_at_a_wrong_port_is_told(
    scheme: str, said: bytes, told: str, create_bucket: bool
) -> None:
    with answering(said, at_once=said == SSH) as address:
        with pytest.raises(Exception) as raised:
            BasicS3Dict[int](
                bucket_name="bucket",
                endpoint_url=f"{scheme}://{address}",
                create_bucket=create_bucket,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                region="us-east-1",
                boto_config={"retries": {"total_max_attempts": 1}},
            )["a"]
        assert told in f"{raised.value}\n{notes_of(raised.value)}"
    assert not isinstance(raised.value, KeyError)


def test_what_cannot_be_decoded_says_so_without_an_extra(tmp_path: Path) -> None:
    d = FileDirDict[int](base_dir=tmp_path)
    d.raw["a"] = b"no pickle"
    with pytest.raises(BackendError) as raised:
        d["a"]
    assert "pip install" not in str(raised.value)


# ---------------------------------------------------------------------- extras


LIBRARIES: dict[str, tuple[str, str]] = {
    "google": ("persidict.GCSDict(bucket_name='b')", "gcs"),
    "azure": ("persidict.AzureDict(container_name='c', account_url='https://a')", "azure"),
    "opentelemetry": (
        "persidict.MeasuredDict(wrapped_dict=persidict.LocalDict(), open_telemetry=True)",
        "otel",
    ),
    "joblib": ("persidict.memoize(persidict.LocalDict())(print)", "memoize"),
    "tqdm": (
        "persidict.copy_items(persidict.LocalDict(), persidict.LocalDict(), progress=True)",
        "progress",
    ),
    "zarr": ("import persidict.adapters.zarr", "zarr"),
    "fsspec": ("import persidict.adapters.fsspec", "fsspec"),
    "h5py": ("persidict.LocalDict(serialization_format='h5')['a'] = 1", "h5"),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_needs_a_library_that_is_not_there_says_which_extra_brings_it(
    library: str, tmp_path: Path
) -> None:
    act, extra = LIBRARIES[library]
    said = run_without(library, f"import persidict; {act}", tmp_path)
    assert f"pip install 'persidict[{extra}]'" in said
