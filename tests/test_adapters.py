"""Dictionaries stand where zarr wants a store and fsspec a file system."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
import zarr
from zarr.core.buffer import Buffer, cpu
from zarr.testing.store import StoreTests

from persidict import FileDirDict, LocalDict, MutationPolicyError
from persidict.adapters.fsspec import DictFileSystem
from persidict.adapters.zarr import ZarrStore


def bytes_dict(place: Path, **params: Any) -> FileDirDict[bytes]:
    return FileDirDict(
        base_dir=str(place),
        serialization_format="bin",
        base_class_for_values=bytes,
        fsync=False,
        **params,
    )


class TestZarrStore(StoreTests[ZarrStore, cpu.Buffer]):
    store_cls = ZarrStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        return {"items": bytes_dict(tmp_path / "z")}

    async def set(self, store: ZarrStore, key: str, value: Buffer) -> None:
        store.items[key.split("/")] = value.to_bytes()

    async def get(self, store: ZarrStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(store.items[key.split("/")])

    def test_store_repr(self, store: ZarrStore) -> None:
        assert repr(store) == f"ZarrStore({store.items!r})"

    def test_store_supports_writes(self, store: ZarrStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: ZarrStore) -> None:
        assert store.supports_listing


def test_an_array_comes_back_as_it_was_written(tmp_path: Path) -> None:
    array = zarr.create_array(
        ZarrStore(bytes_dict(tmp_path)), shape=(4, 4), chunks=(2, 2), dtype=int
    )
    array[:] = 7
    array[1:3, 1:3] = 8
    read = zarr.open_array(ZarrStore(bytes_dict(tmp_path)), mode="r")
    assert (read[:] == array[:]).all()
    assert len(bytes_dict(tmp_path)) == 5  # four chunks and zarr.json


def test_an_append_only_dictionary_lets_no_chunk_be_changed(tmp_path: Path) -> None:
    array = zarr.create_array(
        ZarrStore(bytes_dict(tmp_path, append_only=True)), shape=2, chunks=2, dtype=int
    )
    array[:] = 1
    with pytest.raises(MutationPolicyError):
        array[:] = 2


@pytest.mark.parametrize("items", [{}, LocalDict()])
def test_what_does_not_hold_bytes_is_no_zarr_store(items: Any) -> None:
    with pytest.raises(TypeError, match="items must be"):
        ZarrStore(items)


@pytest.fixture
def fs(tmp_path: Path) -> DictFileSystem:
    fs = DictFileSystem(bytes_dict(tmp_path))
    fs.items.update({("a", "b", "c"): b"1", ("a", "d"): b"22", "e": b"333"})
    return fs


def test_a_directory_lists_files_and_directories(fs: DictFileSystem) -> None:
    assert fs.ls("", detail=False) == ["a", "e"]
    assert [(e["name"], e["type"], e["size"]) for e in fs.ls("a")] == [
        ("a/b", "directory", 0),
        ("a/d", "file", 2),
    ]


def test_files_are_found_below_directories(fs: DictFileSystem) -> None:
    assert fs.find("") == ["a/b/c", "a/d", "e"]
    assert fs.glob("a/*") == ["a/b", "a/d"]


def test_a_file_is_read_in_parts(fs: DictFileSystem) -> None:
    with fs.open("e") as file:
        file.seek(1)
        assert file.read(1) == b"3"


@pytest.mark.parametrize(
    ("start", "end"), [(1, 3), (-2, None), (None, -2), (-3, -1), (-99, None), (1, -1)]
)
def test_a_part_of_a_file_is_counted_from_either_end(
    fs: DictFileSystem, start: int | None, end: int | None
) -> None:
    fs.pipe("numbers", b"0123456789")
    assert fs.cat_file("numbers", start, end) == b"0123456789"[start:end]


def test_a_file_is_there_when_it_is_closed_and_not_before(fs: DictFileSystem) -> None:
    with fs.open("new/file", "wb") as file:
        file.write(b"x")
        assert not fs.exists("new/file")
    assert fs.cat("new/file") == b"x"


def test_a_file_opened_as_new_replaces_none(fs: DictFileSystem) -> None:
    with pytest.raises(FileExistsError), fs.open("e", "xb") as file:
        file.write(b"x")
    assert fs.cat("e") == b"333"


def test_files_are_copied_moved_and_removed(fs: DictFileSystem) -> None:
    fs.copy("e", "f")
    fs.mv("f", "g/h")
    fs.rm("a", recursive=True)
    assert fs.find("") == ["e", "g/h"]


@pytest.mark.parametrize("path", ["nobody", "a/nobody", "no key"])
def test_what_is_not_there_is_not_found(fs: DictFileSystem, path: str) -> None:
    assert not fs.exists(path)
    with pytest.raises(FileNotFoundError):
        fs.open(path)
    with pytest.raises(FileNotFoundError):
        fs.rm_file(path)


def test_pandas_reads_and_writes_through_it(fs: DictFileSystem) -> None:
    frame = pd.DataFrame({"x": [1, 2]})
    frame.to_csv("persidict://tables/t", index=False, storage_options={"items": fs.items})
    read = pd.read_csv("persidict://tables/t", storage_options={"items": fs.items})
    assert read.equals(frame)
    assert fs.items["tables", "t"] == b"x\n1\n2\n"


def test_pandas_reads_and_writes_parquet_through_it(fs: DictFileSystem) -> None:
    frame = pd.DataFrame({"x": [1, 2]})
    frame.to_parquet("persidict://tables/t", storage_options={"items": fs.items})
    assert pd.read_parquet("persidict://tables/t", storage_options={"items": fs.items}).equals(
        frame
    )


def test_polars_reads_and_writes_files_that_are_opened_by_it(fs: DictFileSystem) -> None:
    frame = pl.DataFrame({"x": [1, 2]})
    with fs.open("tables/t", "wb") as file:
        frame.write_parquet(file)
    with fs.open("tables/t") as file:
        assert pl.read_parquet(file).equals(frame)


def test_xarray_reads_files_that_are_opened_by_it(fs: DictFileSystem) -> None:
    grid = xr.Dataset({"t": ("x", np.arange(3.0))})
    target = io.BytesIO()
    grid.to_netcdf(target, engine="h5netcdf")
    fs.items["grids", "may"] = target.getvalue()
    with fs.open("grids/may") as file, xr.open_dataset(file, engine="h5netcdf") as read:
        assert read.load().equals(grid)


def test_xarray_reads_and_writes_a_zarr_store(tmp_path: Path) -> None:
    grid = xr.Dataset({"t": ("x", np.arange(3.0))})
    grid.to_zarr(ZarrStore(bytes_dict(tmp_path)), consolidated=False)
    read = xr.open_zarr(ZarrStore(bytes_dict(tmp_path, append_only=True)), consolidated=False)
    assert read.load().equals(grid)
