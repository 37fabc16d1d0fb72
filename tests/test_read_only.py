"""Read-only handles of every kind: what is refused asks nothing, and nothing is left out."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from moto import mock_aws

import persidict
from persidict import (
    AppendOnlyDictCached,
    BasicS3Dict,
    EmptyDict,
    ExpiringDict,
    FileDirDict,
    LocalDict,
    MeasuredDict,
    MutableDictCached,
    MutationPolicyError,
    SQLiteDict,
    StoreDict,
    WriteOnceDict,
    copy_items,
    memoize,
    open_dict,
    sync_items,
)
from persidict.contract.inspecting import HttpMethod
from persidict.persi_dict import PersiDict
from persidict.stores.files.store import FileStore
from persidict.stores.memory import MemoryStore
from persidict.stores.s3 import listing
from persidict.stores.s3.marker import MARKER_KEY, new_marker
from persidict.testing._read_only import REFUSED
from persidict.wrapper_dict import WrapperDict
from tests.s3_dicts import connect
from tests.s3_servers.fixtures import moto_aws_server
from tests.s3_servers.moto_server import MotoServer
from tests.s3_servers.quirks import CEPH

__all__ = ["moto_aws_server"]

REFUSED_NAMES = {name.partition(" ")[0] for name in REFUSED}

ALLOWED_NAMES = {
    *("__contains__", "__copy__", "__deepcopy__", "__eq__", "__getitem__", "__init__", "__iter__"),
    *("__len__", "__bool__", "__reduce__", "__repr__", "__reversed__", "__str__"),
    *("get", "get_item_if", "get_many", "get_with_etag", "keys", "values", "items"),
    *("etag", "info", "infos", "glob", "timestamp", "location", "presign", "random_key"),
    *("newest_keys", "newest_values", "oldest_keys", "oldest_values"),
    *("items_and_timestamps", "keys_and_timestamps", "values_and_timestamps"),
    *("get_subdict", "subdicts", "transaction", "with_params", "read_only", "plain"),
    *("get_params", "get_jsparams", "get_essential_jsparams", "get_auxiliary_jsparams"),
}
"""What changes no items, or is tested here by itself: presign, transaction."""

NOT_OF_DICTIONARIES = {
    "__class_getitem__", "__delattr__", "__dir__", "__format__", "__ge__", "__getattribute__",
    "__getstate__", "__gt__", "__hash__", "__init_subclass__", "__le__", "__lt__", "__ne__",
    "__new__", "__or__", "__reduce_ex__", "__ror__", "__setattr__", "__sizeof__",
    "__subclasshook__",
}  # fmt: skip
"""What every object or mapping has."""


class Unreachable(WrapperDict[Any]):
    """A dictionary that fails the test if anything is asked of what lies beneath."""

    def _ask(self, *_: Any, **__: Any) -> NoReturn:
        pytest.fail("something was asked")

    _load = _head = _write = _remove = _keys = _insert = _contains = _value = _ask
    _write_many = _remove_many = _remove_all = _copy = _load_version = _open = _ask


@pytest.mark.parametrize("operation", list(REFUSED))
def test_what_is_refused_asks_nothing_of_the_storage(operation: str) -> None:
    with pytest.raises(MutationPolicyError, match="read-only"):
        REFUSED[operation](Unreachable(wrapped_dict=LocalDict(), read_only=True), 1)


def test_every_operation_is_known_to_be_allowed_or_to_be_refused() -> None:
    methods = {name for name in dir(PersiDict) if callable(getattr(PersiDict, name))}
    own = {name for name in methods if not name.startswith("_") or name.startswith("__")}
    borrowed = set(dir(persidict.parameters.Parameterizable))
    unknown = own - REFUSED_NAMES - ALLOWED_NAMES - NOT_OF_DICTIONARIES - borrowed
    assert unknown - {"__abstractmethods__", "__class__"} == set()


# ---------------------------------------------------------------------- what single kinds have


def in_files(place: Path) -> FileDirDict[Any]:
    return FileDirDict(base_dir=place, fsync=False)


def test_an_expiring_dictionary_refuses_to_touch_and_to_purge() -> None:
    d: ExpiringDict[Any] = ExpiringDict(wrapped_dict=LocalDict(), ttl=3600)
    d["a"] = 1
    for operation in (lambda: d.read_only().touch("a"), lambda: d.read_only().purge()):
        with pytest.raises(MutationPolicyError, match="read-only"):
            operation()


def test_a_database_is_not_compacted(tmp_path: Path) -> None:
    d: SQLiteDict[Any] = SQLiteDict(path=tmp_path / "items.db", fsync=False)
    d["a"] = 1
    with pytest.raises(MutationPolicyError, match="read-only"):
        d.read_only().compact()


@pytest.mark.parametrize("kind", ["RAM", "database"])
def test_a_transaction_of_a_read_only_handle_shows_one_moment(kind: str, tmp_path: Path) -> None:
    d: Any = LocalDict() if kind == "RAM" else SQLiteDict(path=tmp_path / "items.db", fsync=False)
    d["a"] = 1
    with d.read_only().transaction() as t:
        assert t["a"] == 1
        with pytest.raises(MutationPolicyError, match="read-only"):
            t["a"] = 2
        with pytest.raises(MutationPolicyError, match="read-only"):
            d["a"] = 2


def test_a_url_for_reading_is_given_and_one_for_writing_refused() -> None:
    with mock_aws():
        d: BasicS3Dict[Any] = BasicS3Dict(bucket_name="items", region="eu-west-1")
        shown = d.read_only()
        assert shown.presign("a").startswith("https://")
        methods: tuple[HttpMethod, ...] = ("PUT", "DELETE")
        for method in methods:
            with pytest.raises(MutationPolicyError, match="read-only"):
                shown.presign("a", method)


def test_a_bucket_is_not_created_for_reading() -> None:
    with mock_aws():
        d: BasicS3Dict[Any] = BasicS3Dict(bucket_name="nowhere", region="eu-west-1", read_only=True)
        assert d.s3_client.list_buckets()["Buckets"] == []


def test_a_method_that_a_write_once_dictionary_finds_beneath_is_read_only(tmp_path: Path) -> None:
    class Renaming(FileDirDict[Any]):
        def rename(self, old: str, new: str) -> None:
            self[new] = self[old]

    d: WriteOnceDict[Any] = WriteOnceDict(
        wrapped_dict=Renaming(base_dir=tmp_path, append_only=True)
    )
    d["a"] = 1
    with pytest.raises(MutationPolicyError, match="read-only"):
        d.read_only().rename("a", "b")


# ---------------------------------------------------------------------- caches


def test_a_read_only_cached_dictionary_fills_its_caches(tmp_path: Path) -> None:
    main = in_files(tmp_path / "main")
    main["a"] = 1
    d: MutableDictCached[Any] = MutableDictCached(
        main_dict=main, data_cache=LocalDict(), etag_cache=LocalDict(), read_only=True
    )
    assert d["a"] == d.data_cache["a"] == 1


def test_a_read_only_append_only_cached_dictionary_fills_its_cache(tmp_path: Path) -> None:
    main: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, append_only=True, fsync=False)
    main["a"] = 1
    d: AppendOnlyDictCached[Any] = AppendOnlyDictCached(
        main_dict=main, data_cache=LocalDict(append_only=True), read_only=True
    )
    assert d["a"] == d.data_cache["a"] == 1
    with pytest.raises(MutationPolicyError, match="read-only"):
        d.setdefault("a", 2)


@pytest.mark.parametrize("cache", ["data_cache", "etag_cache"])
def test_a_cache_that_takes_no_writes_is_refused_by_name(cache: str) -> None:
    parts: dict[str, Any] = {"data_cache": LocalDict(), "etag_cache": LocalDict()}
    parts[cache] = parts[cache].read_only()
    with pytest.raises(ValueError, match=f"{cache} must not be read-only"):
        MutableDictCached(main_dict=LocalDict(), **parts)


def test_an_append_only_cache_that_takes_no_writes_is_refused_by_name() -> None:
    main, cache = LocalDict[Any](append_only=True), LocalDict[Any](append_only=True)
    with pytest.raises(ValueError, match="data_cache must not be read-only"):
        AppendOnlyDictCached(main_dict=main, data_cache=cache.read_only())


# ---------------------------------------------------------------------- wrappers and subclasses

WRAPPERS: dict[str, Callable[[PersiDict[Any]], PersiDict[Any]]] = {
    "WrapperDict": lambda d: WrapperDict(wrapped_dict=d),
    "MeasuredDict": lambda d: MeasuredDict(wrapped_dict=d),
    "ExpiringDict": lambda d: ExpiringDict(wrapped_dict=d, ttl=3600),
    "WriteOnceDict": lambda d: WriteOnceDict(wrapped_dict=d.with_params(append_only=True)),
    "MutableDictCached": lambda d: MutableDictCached(
        main_dict=d, data_cache=LocalDict(), etag_cache=LocalDict()
    ),
}


@pytest.mark.parametrize("wrapper", list(WRAPPERS))
def test_whatever_stands_in_front_of_a_read_only_dictionary_is_read_only(wrapper: str) -> None:
    made = WRAPPERS[wrapper](LocalDict().read_only())
    assert made.is_read_only
    with pytest.raises(MutationPolicyError, match="read-only"):
        made["a"] = 1


class Named(FileDirDict[Any]):
    """A dictionary of a user's, whose constructor knows nothing of read-only handles."""

    def __init__(self, *, base_dir: str) -> None:
        super().__init__(base_dir=base_dir, fsync=False)

    def get_params(self) -> dict[str, Any]:
        return {"base_dir": self.base_dir}


def test_a_copy_of_a_subclass_with_a_constructor_of_its_own_stays_read_only(
    tmp_path: Path,
) -> None:
    shown = Named(base_dir=str(tmp_path)).read_only()
    for other in (pickle.loads(pickle.dumps(shown)), shown.__copy__(), shown.with_params()):
        with pytest.raises(MutationPolicyError, match="read-only"):
            other["a"] = 1


def test_with_params_leads_to_a_read_only_handle_and_back(tmp_path: Path) -> None:
    d = in_files(tmp_path)
    assert d.with_params(read_only=True).is_read_only
    back = d.read_only().with_params(read_only=False)
    back["a"] = 1
    assert d["a"] == 1


def test_a_handle_that_is_not_read_only_does_not_mention_it(tmp_path: Path) -> None:
    assert "read_only" not in in_files(tmp_path).get_params()
    assert in_files(tmp_path).read_only().get_params()["read_only"] is True


def test_a_url_tells_that_its_dictionary_is_read_only(tmp_path: Path) -> None:
    in_files(tmp_path)["a"] = 1
    shown = open_dict(f"file://{tmp_path}?read_only=true")
    assert (shown.is_read_only, shown["a"]) == (True, 1)
    assert open_dict(shown.url).is_read_only


# ---------------------------------------------------------------------- what uses dictionaries


@pytest.mark.parametrize("transfer", [copy_items, sync_items])
def test_nothing_is_read_from_the_source_for_a_read_only_target(
    transfer: Callable[..., object],
) -> None:
    source = Unreachable(wrapped_dict=LocalDict())
    with pytest.raises(MutationPolicyError, match="read-only"):
        transfer(source, LocalDict().read_only())


def test_a_read_only_source_is_copied(tmp_path: Path) -> None:
    source = in_files(tmp_path)
    source["a"] = 1
    target: LocalDict[Any] = LocalDict()
    copy_items(source.read_only(), target)
    assert target["a"] == 1


@pytest.mark.parametrize("name", ["d", "claims"])
def test_results_and_claims_are_not_kept_where_nothing_can_be_written(name: str) -> None:
    places: dict[str, Any] = {"d": LocalDict(), "claims": LocalDict()}
    places[name] = places[name].read_only()
    with pytest.raises(ValueError, match=r"read-only|takes writes"):
        memoize(places["d"], once=True, claims=places["claims"])


def test_zarr_is_told_that_it_may_not_write() -> None:
    zarr_adapter = pytest.importorskip("persidict.adapters.zarr")
    d: LocalDict[bytes] = LocalDict(serialization_format="bin", base_class_for_values=bytes)
    assert zarr_adapter.ZarrStore(d.read_only()).read_only
    assert not zarr_adapter.ZarrStore(d).read_only


def test_fsspec_does_not_open_for_writing() -> None:
    fsspec_adapter = pytest.importorskip("persidict.adapters.fsspec")
    with pytest.raises(MutationPolicyError, match="read-only"):
        fsspec_adapter.DictFileSystem(LocalDict().read_only()).open("a", "wb")


@pytest.mark.parametrize(
    "d",
    [EmptyDict(read_only=True), StoreDict(store=MemoryStore(), read_only=True)],
    ids=["EmptyDict", "StoreDict"],
)
@pytest.mark.parametrize("operation", list(REFUSED))
def test_other_kinds_refuse_the_same(d: PersiDict[Any], operation: str) -> None:
    with pytest.raises(MutationPolicyError, match="read-only"):
        REFUSED[operation](d, 1)


def test_a_refusal_names_what_was_refused_and_survives_a_pickle() -> None:
    d: LocalDict[Any] = LocalDict(read_only=True)
    with pytest.raises(MutationPolicyError) as caught:
        d["a"] = 1
    back = pickle.loads(pickle.dumps(caught.value))
    assert (back.policy, str(back)) == (
        "read-only",
        "the dictionary is read-only: this handle cannot change items",
    )


def test_a_source_that_breaks_is_not_begun(tmp_path: Path) -> None:
    begun = []

    def source() -> Iterator[tuple[str, int]]:
        begun.append(True)
        yield "a", 1

    with pytest.raises(MutationPolicyError):
        in_files(tmp_path).read_only().set_many(source())
    assert begun == []


# ---------------------------------------------------------------------- nothing in passing


def as_it_lies(place: Path) -> dict[str, tuple[int, bytes]]:
    """Return all files below a directory, with their times and bytes, and all directories."""
    return {
        str(path.relative_to(place)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in place.rglob("*")
    }


READS: dict[str, Callable[[Any], object]] = {
    "get": lambda d: d.get("a"),
    "in": lambda d: "a" in d,
    "len": len,
    "list": list,
    "items": lambda d: list(d.items()),
    "bool": bool,
    "random_key": lambda d: d.random_key(),
    "infos": lambda d: list(d.infos()),
    "subdicts": lambda d: d.subdicts(),
    "a sub-dictionary": lambda d: list(d.get_subdict("g")),
    "raw": lambda d: list(d.raw.items()),
    "==": lambda d: d == {},
    "a copy": lambda d: len(d.__copy__()),
    "a pickle": lambda d: len(pickle.loads(pickle.dumps(d))),
    "other parameters": lambda d: len(d.with_params(append_only=True)),
    "its URL": lambda d: len(open_dict(d.url)),
    "repr, str": lambda d: (repr(d), str(d), d._repr_html_()),
    "str of the place": lambda d: d.location("a"),
}

HANDLES: dict[str, Callable[[Path], PersiDict[Any]]] = {
    "a database, made read-only": lambda place: SQLiteDict(
        path=place / "new" / "items.db", read_only=True
    ),
    "a database, later": lambda place: SQLiteDict(path=place / "new" / "items.db").read_only(),
    "a database, by URL": lambda place: open_dict(f"sqlite://{place}/new/items.db?read_only=true"),
    "files, made read-only": lambda place: FileDirDict(base_dir=place / "new", read_only=True),
    "files, later": lambda place: FileDirDict(base_dir=place / "new").read_only(),
}


@pytest.mark.parametrize("handle", list(HANDLES))
def test_to_look_at_a_place_that_is_missing_makes_nothing(handle: str, tmp_path: Path) -> None:
    d = HANDLES[handle](tmp_path)
    for read in READS.values():
        read(d)
    assert list(tmp_path.iterdir()) == []


def test_to_look_at_an_empty_file_leaves_it_empty(tmp_path: Path) -> None:
    path = tmp_path / "items.db"
    path.touch()
    assert list(SQLiteDict(path=path, read_only=True)) == []
    assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], b"")


def test_a_transaction_on_a_missing_file_makes_nothing(tmp_path: Path) -> None:
    with SQLiteDict(path=tmp_path / "items.db", read_only=True).transaction() as t:
        assert len(t) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_reader_of_a_missing_file_sees_what_others_then_write(tmp_path: Path) -> None:
    shown: SQLiteDict[Any] = SQLiteDict(path=tmp_path / "items.db", read_only=True)
    assert "a" not in shown
    seen = []

    def write() -> None:
        SQLiteDict(path=tmp_path / "items.db", fsync=False)["a"] = 1

    def read() -> None:
        assert len(shown) == 0
        writer = threading.Thread(target=write)
        writer.start()
        writer.join()
        seen.append(shown["a"])

    reader = threading.Thread(target=read)
    reader.start()
    reader.join()
    assert seen == [1]
    assert shown["a"] == 1


@pytest.mark.parametrize("kind", ["database", "files"])
def test_who_only_reads_leaves_all_as_it_lies(kind: str, tmp_path: Path) -> None:
    made: PersiDict[Any]
    if kind == "files":
        made = in_files(tmp_path)
        made["a"] = 1
        (tmp_path / "%tmp.0123456789abcdef").write_bytes(b"left by a dead writer")
    else:
        made = SQLiteDict(path=tmp_path / "items.db", large_value_size=1000, fsync=False)
        made.update({"a": 1, "large": "x" * 5000})
        made._store._database.close()
        (tmp_path / "items.db-queue").unlink()
    before = as_it_lies(tmp_path)
    shown = made.read_only()
    for read in READS.values():
        read(shown)
    if kind == "database":
        shown._store._database.close()  # type: ignore[attr-defined]
    assert as_it_lies(tmp_path) == before


def test_a_reader_sees_what_its_thread_has_not_committed_yet(tmp_path: Path) -> None:
    d: SQLiteDict[Any] = SQLiteDict(path=tmp_path / "items.db", fsync=False)
    with d.transaction() as t:
        t["a"] = 1
        assert d.read_only()["a"] == 1


def test_a_store_that_was_handed_over_can_be_written_to_again(tmp_path: Path) -> None:
    d: StoreDict[Any] = StoreDict(store=FileStore(str(tmp_path), fsync=False))
    d["g", "a"] = 1
    shown = d.read_only()
    assert shown == type(d)(**shown.get_params())
    back = shown.get_subdict("g").with_params(read_only=False)
    back["a"] = 2
    assert d["g", "a"] == shown["g", "a"] == 2


@pytest.mark.parametrize("later", [False, True], ids=["made read-only", "later"])
def test_a_reader_tries_out_and_clears_away_nothing_in_a_bucket(
    moto_aws_server: MotoServer, later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = moto_aws_server.with_quirks(CEPH)
    owner = connect(moto_aws_server.endpoint_url)
    owner.update({"a": 1, "b": 2})
    owner.s3_client.put_object(
        Bucket=owner.bucket_name,
        Key="c.pkl",
        Body=new_marker(owner.etag("a")),
        Metadata={MARKER_KEY: "1"},
    )
    monkeypatch.setattr(listing, "is_stale", lambda *_: True)
    shown = connect(server.endpoint_url, bucket_name=owner.bucket_name, read_only=not later)
    shown = shown.read_only()
    server.reset_log()
    assert [key.strings for key in shown.keys(start="a", stop="z")] == [("a",), ("b",)]
    assert len(shown) == 2
    assert shown.capabilities is not None
    for read in (shown.get, shown.__contains__, shown.get_with_etag):
        read("a")
    assert server.counts().keys() <= {"ListObjectsV2", "GetObject", "HeadObject"}


def test_a_bucket_that_vanished_is_not_created_anew_for_reading() -> None:
    with mock_aws():
        first: BasicS3Dict[Any] = BasicS3Dict(bucket_name="items", region="eu-west-1")
        # the process knows the bucket already: this handle has asked for nothing
        shown: BasicS3Dict[Any] = BasicS3Dict(bucket_name="items", region="eu-west-1").read_only()
        first.s3_client.delete_bucket(Bucket="items")
        with pytest.raises(Exception, match="bucket"):
            list(shown)
        assert first.s3_client.list_buckets()["Buckets"] == []
