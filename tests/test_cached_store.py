"""CachedStore: the port, whatever happens to the files of the cache."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from persidict.exceptions import ObjectNotFound
from persidict.jokers_and_status_flags import ETagValue
from persidict.stores.cached import entry as cache_entry
from persidict.stores.cached.entry import CacheEntry, CorruptEntry, pack, unpack
from persidict.stores.cached.store import CachedStore
from persidict.stores.memory import MemoryStore
from persidict.stores.object_store import NOT_MODIFIED, ObjectInfo, ObjectStore
from persidict.testing import StoreConformance
from tests.faults import SmallDisk, files_below

ENTRY = CacheEntry("etag", 1.5, b"data of an object")


class ListingStore(MemoryStore):
    """A MemoryStore that counts the reads and lists versions, as S3 does."""

    listing_brings_versions = True

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def get(self, name: str, **kwargs: Any) -> Any:
        found = super().get(name, **kwargs)
        self.reads.append(f"{name} unchanged" if found is NOT_MODIFIED else name)
        return found


def cached(place: Path, main: ObjectStore | None = None, **params: Any) -> CachedStore:
    params.setdefault("identity", "memory")
    return CachedStore(main or ListingStore(), str(place), **params)


def entry_files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*.entry") if path.is_file())


def reads_of(store: CachedStore) -> list[str]:
    assert isinstance(store.wrapped, ListingStore)
    return store.wrapped.reads


@pytest.fixture
def store(tmp_path: Path) -> CachedStore:
    return cached(tmp_path / "cache")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where `store` has its files."""
    return tmp_path / "cache"


VARIANTS: dict[str, dict[str, Any]] = {
    "unlimited": {},
    "limited": {"size_limit": 1_000_000},
    "too small for anything": {"size_limit": 10},
    "lenient": {"max_staleness": 60.0},
}


class TestCachedStore(StoreConformance):
    @pytest.fixture(params=VARIANTS)
    def new_store(
        self, request: pytest.FixtureRequest, tmp_path: Path
    ) -> Callable[[], ObjectStore]:
        numbers = itertools.count()
        return lambda: cached(tmp_path / str(next(numbers)), **VARIANTS[request.param])

    def test_head_and_get_tell_the_same_time(self, store: ObjectStore) -> None:
        """What was put has the time of this machine's clock: no request brings the server's."""
        assert isinstance(store, CachedStore)
        store.wrapped.put("a.bin", b"data")
        times = [
            found[1].last_modified for found in (store.get("a.bin"), store.get("a.bin")) if found
        ]
        assert times == [store.head("a.bin").last_modified] * 2


# ---------------------------------------------------------------------- what is asked and served


def test_a_copy_is_served_only_after_the_store_has_said_that_it_is_current(
    store: CachedStore,
) -> None:
    store.put("a", b"1")
    assert store.get("a")[0] == b"1"
    store.wrapped.put("a", b"2")
    assert store.get("a")[0] == b"2"
    assert store.get("a")[0] == b"2"
    assert reads_of(store) == ["a unchanged", "a", "a unchanged"]


def test_what_is_gone_is_not_served(store: CachedStore, place: Path) -> None:
    store.put("a", b"1")
    store.wrapped.delete("a")
    with pytest.raises(ObjectNotFound):
        store.get("a")
    assert entry_files(place) == []


@pytest.mark.parametrize("operation", ["delete", "delete_many", "clear_cache"])
def test_deleting_forgets(store: CachedStore, place: Path, operation: str) -> None:
    store.put("a", b"1")
    act: dict[str, Callable[[], Any]] = {
        "delete": lambda: store.delete("a"),
        "delete_many": lambda: list(store.delete_many(["a"])),
        "clear_cache": store.clear_cache,
    }
    act[operation]()
    assert entry_files(place) == []


def test_clearing_the_cache_deletes_no_object(store: CachedStore) -> None:
    store.put("a", b"1")
    store.clear_cache()
    assert store.get("a")[0] == b"1"


def test_clearing_the_cache_of_a_store_leaves_that_of_others(tmp_path: Path) -> None:
    stores = [cached(tmp_path, identity=identity) for identity in ("one", "other")]
    for store in stores:
        store.put("a", b"1")
    stores[0].clear_cache()
    assert len(entry_files(tmp_path)) == 1


def test_a_trusting_store_asks_once(tmp_path: Path) -> None:
    store = cached(tmp_path, trusting=True)
    store.wrapped.put("a", b"1")
    for _ in range(3):
        assert store.get("a")[0] == store.recent("a") == b"1"
    assert store.contains("a")
    assert reads_of(store) == ["a"]


def test_opening_an_object_shows_its_current_bytes(store: CachedStore) -> None:
    store.put("a", b"1")
    store.wrapped.put("a", b"2")
    with store.open("a") as stream:
        assert stream.read() == b"2"


def test_opening_an_object_of_a_trusting_store_reads_the_copy(tmp_path: Path) -> None:
    store = cached(tmp_path, trusting=True)
    store.put("a", b"1")
    with store.open("a") as stream:
        assert stream.read() == b"1"
    assert reads_of(store) == []


def test_scopes_share_the_copies(store: CachedStore) -> None:
    store.put("dir/a", b"1")
    assert store.scoped("dir/").get("a")[0] == b"1"
    assert store.info().revalidations == 1


def test_stores_with_the_same_names_do_not_mix_their_copies_in_one_directory(
    tmp_path: Path,
) -> None:
    stores = {n: cached(tmp_path, identity=n, trusting=True) for n in ("one bucket", "another")}
    for name, store in stores.items():
        store.put("a", name.encode())
    for name, store in stores.items():
        assert store.recent("a") == name.encode()


def test_a_copy_that_lies_where_another_should_is_not_served(tmp_path: Path) -> None:
    store = cached(tmp_path, trusting=True)
    store.put("a", b"1")
    (file_of_a,) = entry_files(tmp_path)
    content = file_of_a.read_bytes()
    store.put("b", b"2")
    for file in entry_files(tmp_path):
        file.write_bytes(content)
    assert store.get("b")[0] == b"2"
    assert store.info().corrupt == 1


def test_listed_versions_are_served_without_asking_and_all_others_are_fetched(
    store: CachedStore,
) -> None:
    for n in range(30):
        store.put(f"k{n:02}", b"%d" % n)
    for n in (3, 4, 20):
        store.wrapped.put(f"k{n:02}", b"changed")
    listed = list(store.list())
    found = list(store.get_many(listed))
    assert [name for name, _, _ in found] == [entry[0] for entry in listed]
    assert [bytes(data) for _, data, _ in found] == [
        b"changed" if n in (3, 4, 20) else b"%d" % n for n in range(30)
    ]
    assert reads_of(store) == ["k03", "k04", "k20"]


class ReadingStore(ListingStore):
    """A store that is asked for many objects at the same time, and takes a few ahead."""

    ahead = 4

    def get_many_unless_known(
        self, wanted: Iterable[tuple[str | ObjectInfo, ETagValue | None]]
    ) -> Iterator[tuple[str, Any]]:
        source = iter(wanted)
        while taken := list(itertools.islice(source, self.ahead)):
            for entry, known in taken:
                name = entry if isinstance(entry, str) else entry.name
                try:
                    yield name, self.get(name, if_none_match=known)
                except ObjectNotFound:
                    yield name, None


@pytest.fixture
def reading(tmp_path: Path) -> CachedStore:
    """A cache of 30 objects: some have changed behind it, and some copies are not there."""
    store = cached(tmp_path / "cache", ReadingStore())
    for n in range(30):
        store.put(f"k{n:02}", b"%d" % n)
    for n in (3, 4, 20, 29):
        store.wrapped.put(f"k{n:02}", b"changed")
    return store


def test_many_copies_are_revalidated_in_the_requests_that_would_bring_the_values(
    reading: CachedStore,
) -> None:
    reading.wrapped.delete("k07")
    names = [*sorted(f"k{n:02}" for n in range(30)), "absent"]
    found = [(name, bytes(data)) for name, data, _ in reading.get_many(names)]
    assert found == [
        (f"k{n:02}", b"changed" if n in (3, 4, 20, 29) else b"%d" % n) for n in range(30) if n != 7
    ]
    changed = ["k03", "k04", "k20", "k29"]
    assert [name for name in reads_of(reading) if "unchanged" not in name] == changed
    assert reading.info()[:3] == (0, 25, 4)


def test_hits_and_answers_come_in_the_order_asked_for(reading: CachedStore) -> None:
    listed = list(reading.list())
    entries = [listed[n] if n % 3 else listed[n].name for n in range(30)][::-1]
    found = [(name, bytes(data)) for name, data, _ in reading.get_many(entries)]
    expected = [b"changed" if n in (3, 4, 20, 29) else b"%d" % n for n in range(30)]
    assert found == [(f"k{n:02}", expected[n]) for n in reversed(range(30))]


def test_a_failure_comes_in_its_place_behind_all_hits_before_it(reading: CachedStore) -> None:
    def failing(name: str, **kwargs: Any) -> Any:
        raise OSError("gone")

    found: list[str] = []
    with (
        mock.patch.object(reading.wrapped, "get", failing),
        pytest.raises(OSError, match="gone"),
    ):
        for name, _, _ in reading.get_many(list(reading.list())):
            found.append(name)
    assert found == ["k00", "k01", "k02"]


def test_copies_behind_an_answer_that_is_waited_for_are_taken_in_bounded_number(
    reading: CachedStore,
) -> None:
    fresh, changed = [next(e for e in reading.list() if e[0] == name) for name in ("k00", "k03")]
    taken = itertools.count()

    def endless() -> Iterator[Any]:
        for entry in itertools.chain([changed], itertools.repeat(fresh)):
            next(taken)
            yield entry

    found = reading.get_many(endless())
    assert next(found)[0] == "k03"
    assert next(taken) <= 1100
    assert [next(found)[0] for _ in range(5000)] == ["k00"] * 5000


def test_a_large_copy_that_vanishes_before_its_turn_is_fetched(
    reading: CachedStore, tmp_path: Path
) -> None:
    reading.put("large", b"l" * 100_000)
    entries = {entry[0]: entry for entry in reading.list()}
    found = reading.get_many([entries["k03"], entries["large"], "large", entries["k04"]])
    assert next(found)[0] == "k03"
    for file in entry_files(tmp_path / "cache"):
        file.unlink()
    assert [(name, len(data)) for name, data, _ in found] == [
        ("large", 100_000),
        ("large", 100_000),
        ("k04", 7),
    ]


def test_what_is_written_in_bulk_is_in_the_cache_at_once(store: CachedStore) -> None:
    for _ in store.put_many((f"k{n}", b"%d" % n) for n in range(5)):
        continue
    assert len(list(store.get_many(list(store.list())))) == 5
    assert reads_of(store) == []


def test_the_counts_tell_what_the_cache_has_done(store: CachedStore) -> None:
    store.wrapped.put("a", b"1")
    for _ in range(3):
        store.get("a")
    list(store.get_many(list(store.list())))
    info = store.info()
    assert (info.hits, info.revalidations, info.misses, info.corrupt) == (1, 2, 1, 0)
    assert (info.evictions, info.entries) == (0, 1)


def test_the_size_that_is_told_is_that_of_the_files(store: CachedStore, place: Path) -> None:
    store.put("a", b"1" * 1000)
    store.put("b", b"2" * 500)
    sizes = [file.stat().st_size for file in entry_files(place)]
    assert (store.info().bytes, store.info().entries) == (sum(sizes), 2)


# ---------------------------------------------------------------------- staleness


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock as `CachedStore` sees it, in a list of one number."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("known_by", ["reading", "writing"])
def test_what_was_validated_lately_is_served_without_asking(
    tmp_path: Path, clock: list[float], known_by: str
) -> None:
    store = cached(tmp_path, max_staleness=10.0)
    if known_by == "reading":
        store.wrapped.put("a", b"1")
        store.get("a")
    else:
        store.put("a", b"1")
    clock[0] += 9.9
    assert store.recent("a") == b"1"
    clock[0] += 0.1
    assert store.recent("a") is None


def test_asking_again_begins_a_new_period(tmp_path: Path, clock: list[float]) -> None:
    store = cached(tmp_path, max_staleness=10.0)
    store.put("a", b"1")
    clock[0] += 20
    store.get("a")
    clock[0] += 9.9
    assert store.recent("a") == b"1"


def test_handles_of_a_process_know_what_one_of_them_has_validated(tmp_path: Path) -> None:
    main = ListingStore()
    one, other = (cached(tmp_path, main, max_staleness=60.0) for _ in range(2))
    one.put("a", b"1")
    assert other.recent("a") == b"1"


def test_a_copy_of_another_version_than_the_validated_one_is_not_served(tmp_path: Path) -> None:
    main = ListingStore()
    lenient, strict = cached(tmp_path, main, max_staleness=60.0), cached(tmp_path, main)
    lenient.put("a", b"1")
    strict.put("a", b"2")
    assert lenient.recent("a") is None


def test_without_leave_nothing_is_served_without_asking(store: CachedStore) -> None:
    store.put("a", b"1")
    assert store.recent("a") is None


# ---------------------------------------------------------------------- corruption


def damaged_copies(content: bytes) -> Iterator[bytes]:
    for index in range(len(content)):
        for flip in (0x01, 0x80, 0xFF):
            yield content[:index] + bytes([content[index] ^ flip]) + content[index + 1 :]
    for size in range(len(content)):
        yield content[:size]
        yield content[:size] + bytes(len(content) - size)
    yield content + b"\0"
    yield content * 2
    yield bytes(len(content))
    yield b"a file of something else"


@pytest.mark.parametrize("trusting", [False, True], ids=["asking", "trusting"])
def test_whatever_damage_an_entry_has_the_value_read_is_right(
    tmp_path: Path, trusting: bool
) -> None:
    store = cached(tmp_path, trusting=trusting)
    store.put("a", b"the right value")
    (file,) = entry_files(tmp_path)
    content = file.read_bytes()
    count = 0
    for damaged in damaged_copies(content):
        file.write_bytes(damaged)
        assert store.get("a")[0] == b"the right value"
        count += 1
    assert store.info().corrupt == store.info().misses == count > 300


def test_a_damaged_entry_is_dropped_where_it_is_not_replaced(
    tmp_path: Path,
) -> None:
    store = cached(tmp_path, trusting=True)
    store.put("a", b"1")
    (file,) = entry_files(tmp_path)
    file.write_bytes(b"damaged")
    assert store.recent("a") is None
    assert entry_files(tmp_path) == []


def test_an_entry_of_another_format_version_is_fetched_anew(
    store: CachedStore, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cache_entry, "_FORMAT_VERSION", 2)
        store.put("a", b"1")
    assert store.get("a")[0] == b"1"
    assert store.info().corrupt == 1
    assert reads_of(store) == ["a"]


def test_an_entry_comes_back_as_it_was_packed() -> None:
    packed = pack(ENTRY, 7)
    assert unpack(packed, len(packed), 7) == ENTRY


def test_an_entry_is_that_of_one_object_only() -> None:
    packed = pack(ENTRY, 7)
    with pytest.raises(CorruptEntry):
        unpack(packed, len(packed), 8)


# ---------------------------------------------------------------------- directories that fail


@pytest.mark.parametrize("position", [0, 5, 40, 150_000, -1])
@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_copy_of_a_large_object_is_found_out(
    tmp_path: Path, position: int, damage: str
) -> None:
    value = os.urandom(300_000)
    store = cached(tmp_path / "cache", trusting=True)
    store.put("a", value)
    (file,) = entry_files(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[position] ^= 1
    else:
        del content[position:]
    file.write_bytes(content)
    assert store.get("a")[0] == value
    assert store.info().corrupt == 1


def test_a_copy_that_is_damaged_after_it_was_read_is_found_out(tmp_path: Path) -> None:
    store = cached(tmp_path / "cache")
    store.put("a", b"right")
    assert store.get("a")[0] == b"right"
    (file,) = entry_files(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"!")
    assert store.get("a")[0] == b"right"
    assert store.info().corrupt == 1


@pytest.mark.parametrize("obstacle", ["file", "directory", "link"])
def test_what_is_in_the_way_of_an_entry_is_done_without(
    tmp_path: Path, obstacle: str, recwarn: pytest.WarningsRecorder
) -> None:
    store = cached(tmp_path / "cache")
    store.put("a", b"1")
    (file,) = entry_files(tmp_path)
    file.unlink()
    scope = file.parent
    if obstacle == "file":
        scope.rmdir()
        scope.write_text("not a directory")
    elif obstacle == "directory":
        file.mkdir()
    else:
        file.symlink_to(tmp_path / "elsewhere")
    store.put("a", b"2")
    assert store.get("a")[0] == b"2"


def test_deleting_the_directory_between_any_two_operations_costs_nothing_but_time(
    store: CachedStore, place: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for n in range(10):
        store.put("a", b"%d" % n)
        shutil.rmtree(place)
        assert store.get("a")[0] == b"%d" % n
        shutil.rmtree(place)
        list(store.get_many(["a"]))
        store.delete("a")
        store.clear_cache()
    assert list(recwarn) == []


def test_a_base_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError):
        cached(tmp_path / "file")


def use(store: CachedStore, disk: SmallDisk) -> None:
    for n in range(60):
        store.put(f"k{n % 20}", bytes([n]) * 200_000)
        assert store.get(f"k{n % 20}")[0] == bytes([n]) * 200_000
    disk.make_read_only()
    for n in range(20):
        store.put(f"k{n}", b"%d" % n)
        assert store.get(f"k{n}")[0] == b"%d" % n
    store.delete("k1")
    assert not store.contains("k1")
    store.clear_cache()
    assert store.get("k2")[0] == b"2"


def use_on(disk: SmallDisk, size_limit: int | None) -> None:
    """Fill a disk of 1 MB, then make it read-only; every value is right, with one warning."""
    store = cached(disk.place / "cache", size_limit=size_limit)
    with pytest.warns(RuntimeWarning, match=str(disk.place / "cache")) as warned:
        use(store, disk)
    assert len(warned) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs of its own")
@pytest.mark.parametrize("size_limit", [None, 100_000_000], ids=["unlimited", "limited"])
def test_a_full_disk_and_a_read_only_one_are_done_without_and_warned_of_once(
    tmp_path: Path, size_limit: int | None
) -> None:
    if not SmallDisk(tmp_path / "disk", 1_000_000).run(use_on, size_limit):
        pytest.skip("mounting is not possible here")


# ---------------------------------------------------------------------- the limit


def test_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    store = cached(tmp_path, size_limit=5_000, trusting=True)
    for name in "abcd":
        store.put(name, bytes(1000))
    for name in "bad":
        store.recent(name)
    store.put("e", bytes(1000))
    assert [name for name in "abcde" if store.recent(name) is not None] == list("abde")
    assert store.info().evictions == 1


def test_what_is_larger_than_the_limit_is_not_cached_and_evicts_nothing_small(
    tmp_path: Path,
) -> None:
    store = cached(tmp_path, size_limit=5_000)
    store.put("small", bytes(100))
    store.put("a", bytes(1000))
    store.put("a", bytes(6_000))
    assert store.get("a")[0] == bytes(6_000)
    assert store.info().entries == 1


def test_overwriting_takes_no_more_room(tmp_path: Path) -> None:
    store = cached(tmp_path, size_limit=5_000)
    for n in range(50):
        store.put("a", bytes([n]) * 2_000)
        store.put("b", bytes([n]) * 2_000)
    assert (store.info().entries, store.info().evictions) == (2, 0)


def test_a_limit_holds_for_what_was_cached_before_there_was_one(tmp_path: Path) -> None:
    unlimited = cached(tmp_path)
    for n in range(50):
        unlimited.put(f"k{n}", bytes(1000))
    limited = cached(tmp_path, unlimited.wrapped, size_limit=10_000)
    limited.put("last", bytes(1000))
    assert limited.info().bytes <= 10_000
    assert limited.info().entries > 0


def test_a_count_too_low_because_others_write_without_a_limit_is_made_anew(
    tmp_path: Path,
) -> None:
    limited = cached(tmp_path, size_limit=10_000)
    limited.put("a", bytes(10))
    cached(tmp_path, limited.wrapped).put("a", bytes(9_000))
    limited.put("a", bytes(20))
    assert (limited.info().entries, limited.info().evictions) == (1, 0)
    assert limited.info().bytes < 1_000


@pytest.mark.parametrize("content", [b"", b"junk", bytes(12), b"\xff" * 12])
def test_a_damaged_count_of_the_bytes_in_use_is_made_anew(tmp_path: Path, content: bytes) -> None:
    store = cached(tmp_path, size_limit=10_000)
    for n in range(30):
        store.put(f"k{n}", bytes(1000))
        (tmp_path / "usage").write_bytes(content)
    assert 0 < store.info().bytes <= 10_000


def write_many(place: str, worker: int, count: int) -> None:
    store = cached(Path(place), size_limit=1_000_000, identity=f"worker {worker % 2}")
    for n in range(count):
        store.put(f"k{n * 7919 % 1000}", os.urandom(500 + n * 7919 % 20_000))


def bytes_below(place: Path) -> int:
    total = 0
    for name in files_below(place):
        try:
            total += (place / name).stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_four_writing_processes_keep_the_limit_at_every_moment(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_many, args=(str(tmp_path), n, 600)) for n in range(4)]
    for writer in writers:
        writer.start()
    samples = []
    while any(writer.is_alive() for writer in writers):
        samples.append(bytes_below(tmp_path))
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert 800_000 < max(samples) <= 1_100_000
    assert len(samples) > 20
