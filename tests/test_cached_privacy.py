"""The directory of copies: nobody else reads it or is believed, and nothing else is touched."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persidict import S3Dict
from persidict.exceptions import BackendError
from persidict.stores.cached.store import CachedStore
from persidict.stores.memory import MemoryStore
from tests.s3_caches import connect_cached, credentials
from tests.s3_servers.canned import CannedServer, start_canned
from tests.s3_servers.clients import CREDENTIALS, new_bucket_name, s3_client

__all__ = ["credentials"]

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes and owners of these"),
    pytest.mark.usefixtures("credentials"),
]

NOBODY = 65534
as_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="takes two users")


def cached(place: Path, main: MemoryStore | None = None, **params: Any) -> CachedStore:
    return CachedStore(main or MemoryStore(), str(place), identity="main", **params)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def entry_file(place: Path) -> Path:
    (file,) = place.glob("entries/*/*.entry")
    return file


def as_nobody(action: Callable[[], object]) -> None:
    """Act in a child process that runs as a user without rights."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            action()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def loose_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def public_place() -> Iterator[Path]:
    """A directory like /tmp: everybody may make files in it, and delete their own."""
    # TMPDIR may lie where only its owner gets.
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o1777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=[None, 1_000_000], ids=["unlimited", "limited"])
def size_limit(request: pytest.FixtureRequest) -> int | None:
    limit: int | None = request.param
    return limit


# ---------------------------------------------------------------------- modes and owners


@pytest.mark.usefixtures("loose_umask")
def test_all_that_a_cache_makes_is_its_users_alone(place: Path, size_limit: int | None) -> None:
    store = cached(place, size_limit=size_limit)
    store.put("a", b"1")
    store.put("a", b"2")
    modes = {(path.is_dir(), mode_of(path)) for path in [place, *place.rglob("*")]}
    assert modes == {(True, 0o700), (False, 0o600)}


@pytest.mark.usefixtures("loose_umask")
def test_directories_above_a_cache_are_made_as_all_directories_are(tmp_path: Path) -> None:
    cached(tmp_path / "above" / "cache").put("a", b"1")
    assert mode_of(tmp_path / "above") == 0o777


def test_a_cache_that_others_could_read_is_closed_to_them_and_used(place: Path) -> None:
    main = MemoryStore()
    cached(place, main).put("a", b"1")
    scope = entry_file(place).parent
    for path, mode in [(place, 0o755), (scope.parent, 0o755), (scope, 0o755)]:
        path.chmod(mode)
    entry_file(place).chmod(0o644)
    reader = cached(place, main, trusting=True)
    assert reader.recent("a") == b"1"
    assert [mode_of(path) for path in (place, scope.parent, scope)] == [0o700] * 3


def test_a_copy_that_others_could_read_is_replaced_by_one_that_they_cannot(place: Path) -> None:
    store = cached(place)
    store.put("a", b"1")
    entry_file(place).chmod(0o644)
    store.put("a", b"2")
    assert mode_of(entry_file(place)) == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o702, 0o777, 0o1777], ids=oct)
@pytest.mark.parametrize("depth", [0, 1, 2], ids=["base_dir", "entries", "scope"])
def test_a_directory_that_others_may_write_to_is_refused(
    place: Path, mode: int, depth: int
) -> None:
    cached(place).put("a", b"1")
    directory = [place, place / "entries", entry_file(place).parent][depth]
    directory.chmod(mode)
    with pytest.raises(BackendError, match="others may write") as caught:
        cached(place)
    assert str(directory) in str(caught.value)


@as_root
def test_a_directory_of_another_user_is_refused(public_place: Path) -> None:
    place = public_place / "cache"
    as_nobody(lambda: place.mkdir(0o700))
    with pytest.raises(BackendError, match=f"belongs to user {NOBODY}") as caught:
        cached(place)
    assert str(place) in str(caught.value)


@as_root
def test_a_link_of_another_user_in_the_place_of_the_directory_is_refused(
    public_place: Path, tmp_path: Path
) -> None:
    (public_place / "mine").mkdir(0o700)
    place = public_place / "cache"
    as_nobody(lambda: place.symlink_to(public_place / "mine"))
    with pytest.raises(BackendError, match="symbolic link"):
        cached(place)


def test_a_link_of_ones_own_to_the_directory_is_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    place.symlink_to(tmp_path / "large disk")
    cached(place).put("a", b"1")
    assert entry_file(tmp_path / "large disk").is_file()


@as_root
def test_a_cache_that_becomes_another_users_is_done_without(
    public_place: Path, size_limit: int | None
) -> None:
    place = public_place / "cache"
    store = cached(place, size_limit=size_limit, trusting=True)
    as_nobody(lambda: place.mkdir(0o777))
    with pytest.warns(RuntimeWarning, match="belongs to user"):
        store.put("a", b"1")
    assert list(place.iterdir()) == []
    assert store.recent("a") is None


@as_root
def test_a_copy_that_is_another_users_is_not_believed(place: Path) -> None:
    main = MemoryStore()
    cached(place, main).put("a", b"1")
    os.chown(entry_file(place), NOBODY, NOBODY)
    reader = cached(place, main, trusting=True)
    with pytest.warns(RuntimeWarning, match="belongs to user"):
        assert reader.recent("a") is None


def test_a_copy_that_others_may_write_to_is_not_believed(place: Path) -> None:
    store = cached(place, trusting=True)
    store.put("a", b"1")
    entry_file(place).chmod(0o622)
    with pytest.warns(RuntimeWarning, match="others may write"):
        assert store.recent("a") is None


@as_root
def test_others_cannot_read_a_copy(public_place: Path) -> None:
    place = public_place / "cache"
    cached(place).put("a", b"1")
    file = entry_file(place)

    def read() -> None:
        with pytest.raises(PermissionError):
            file.read_bytes()
        with pytest.raises(PermissionError):
            list(place.iterdir())

    as_nobody(read)


# ---------------------------------------------------------------------- links and pipes


def foreign_files(tmp_path: Path) -> Path:
    """Make a directory of files that look like entries, and one that looks like nothing."""
    there = tmp_path / "foreign"
    (there / ("0" * 32)).mkdir(parents=True)
    for name in ("thesis.txt", f"{'0' * 40}.entry", f"{'0' * 32}/{'1' * 40}.entry"):
        (there / name).write_bytes(b"precious" * 100)
    return there


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize("depth", ["entries", "scope"])
@pytest.mark.filterwarnings("ignore:the cache in:RuntimeWarning")
def test_nothing_behind_a_link_is_deleted_or_written(
    place: Path, tmp_path: Path, depth: str
) -> None:
    store = cached(place, size_limit=300, trusting=True)
    store.put("a", b"1")
    foreign = foreign_files(tmp_path)
    before = contents(foreign)
    linked = place / "entries" if depth == "entries" else entry_file(place).parent
    shutil.rmtree(linked)
    linked.symlink_to(foreign)
    for number in range(5):
        store.put("a", b"x" * 100 * number)
    store.delete("a")
    store.clear_cache()
    assert store.info().entries == 0
    assert contents(foreign) == before


def test_a_link_in_the_place_of_a_copy_is_neither_read_nor_followed(
    place: Path, tmp_path: Path
) -> None:
    store = cached(place, trusting=True)
    store.put("a", b"1")
    file = entry_file(place)
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    before = elsewhere.read_bytes()
    file.symlink_to(elsewhere)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert store.recent("a") is None
        store.put("a", b"2")
        store.clear_cache()
    assert elsewhere.read_bytes() == before


def test_clearing_and_evicting_delete_nothing_but_entries(place: Path) -> None:
    store = cached(place, size_limit=400)
    store.put("a", b"1")
    scope = entry_file(place).parent
    others = [place / "notes.txt", place / "entries" / "notes.txt", scope / "notes.txt"]
    for path in others:
        path.write_bytes(b"n" * 1000)
    for number in range(10):
        store.put(f"b{number}", b"x" * 100)
    assert store.info().evictions > 0
    store.clear_cache()
    assert list(scope.iterdir()) == [scope / "notes.txt"]
    assert [path.read_bytes() for path in others] == [b"n" * 1000] * 3


@pytest.mark.parametrize("make_link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_link_in_the_place_of_the_count_is_not_written_through(
    place: Path, tmp_path: Path, make_link: Callable[[Path, Path], None]
) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"precious" * 10)
    place.mkdir(0o700)
    make_link(foreign, place / "usage")
    store = cached(place, size_limit=1000)
    with pytest.warns(RuntimeWarning, match="usage"):
        store.put("a", b"1")
    assert foreign.read_bytes() == b"precious" * 10
    assert store.get("a")[0] == b"1"  # type: ignore[index]


@pytest.mark.parametrize("has_reader", [False, True])
def test_a_pipe_in_the_place_of_the_count_is_not_waited_for(place: Path, has_reader: bool) -> None:
    place.mkdir(0o700)
    os.mkfifo(place / "usage")
    reader = os.open(place / "usage", os.O_RDONLY | os.O_NONBLOCK) if has_reader else None
    try:
        store = cached(place, size_limit=1000)
        with pytest.warns(RuntimeWarning, match="usage"):
            store.put("a", b"1")
        if reader is not None:
            assert os.read(reader, 1) == b""
    finally:
        if reader is not None:
            os.close(reader)
    assert stat.S_ISFIFO((place / "usage").lstat().st_mode)


def test_pipes_among_the_copies_are_neither_waited_for_nor_deleted(place: Path) -> None:
    store = cached(place, trusting=True)
    store.put("a", b"1")
    file = entry_file(place)
    file.unlink()
    pipes = [file, file.with_name("%tmp.0123")]
    for pipe in pipes:
        os.mkfifo(pipe)
    with pytest.warns(RuntimeWarning, match="not a regular file"):
        assert store.recent("a") is None
    store.put("a", b"2")
    cached(place).put("b", b"3")  # looks for what dead writers left
    store.clear_cache()
    assert store.get("a")[0] == b"2"  # type: ignore[index]
    assert all(stat.S_ISFIFO(pipe.lstat().st_mode) for pipe in pipes)


# ---------------------------------------------------------------------- whose copies


@pytest.fixture(scope="module")
def server() -> Iterator[CannedServer]:
    with start_canned() as running:
        yield running


OTHERS = {"aws_access_key_id": "MALLORY", "aws_secret_access_key": "guessed"}


@pytest.mark.parametrize("kind", [{"append_only": True}, {"max_staleness": 60.0}], ids=str)
def test_other_credentials_are_not_answered_from_copies(
    server: CannedServer, place: Path, kind: dict[str, Any]
) -> None:
    params = {"base_dir": place, "bucket_name": new_bucket_name(), **kind}
    alice = connect_cached(server.endpoint_url, **params)
    alice["a"] = "secret"
    others = connect_cached(server.endpoint_url, **params, **OTHERS)
    assert others["a"] == "secret"  # this server lets everybody in
    assert (others.cache_info().hits, others.cache_info().misses) == (0, 1)


def test_clearing_leaves_the_copies_of_other_credentials(server: CannedServer, place: Path) -> None:
    params = {"base_dir": place, "bucket_name": new_bucket_name(), "append_only": True}
    alice = connect_cached(server.endpoint_url, **params)
    alice["a"] = 1
    connect_cached(server.endpoint_url, **params, **OTHERS).clear_cache()
    assert (alice["a"], alice.cache_info().hits) == (1, 1)


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_the_same_credentials_share_copies_however_they_are_given(
    server: CannedServer, place: Path, version: str
) -> None:
    key, secret = CREDENTIALS
    params = {"base_dir": place, "bucket_name": new_bucket_name(), "append_only": True}
    connect_cached(server.endpoint_url, **params)["a"] = 1
    named = connect_cached(
        server.endpoint_url, **params, aws_access_key_id=key, aws_secret_access_key=secret
    )
    client = s3_client(server.endpoint_url, signature_version=version)
    ready = S3Dict[Any](
        base_dir=place,
        bucket_name=str(params["bucket_name"]),
        append_only=True,
        s3_client=client,
    )
    for d in (named, ready):
        assert (d["a"], d.cache_info().hits) == (1, 1)


def test_no_name_and_no_file_in_the_cache_tells_the_access_key_id(
    server: CannedServer, place: Path
) -> None:
    d = connect_cached(server.endpoint_url, base_dir=place, **OTHERS)
    d["a"] = 1
    told = b"".join(os.fsencode(path) for path in place.rglob("*")) + entry_file(place).read_bytes()
    assert b"MALLORY" not in told
    assert b"guessed" not in told


def test_a_dictionary_on_a_refused_directory_is_not_made(server: CannedServer, place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(BackendError, match="others may write"):
        connect_cached(server.endpoint_url, base_dir=place, append_only=True)


def test_a_place_in_the_home_directory_may_be_given_as_one_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    d: Any = S3Dict(base_dir="~/copies", bucket_name="some-bucket", create_bucket=False)
    assert d.base_dir == str(tmp_path / "copies")
