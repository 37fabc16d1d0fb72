"""The format pkl: what is written, what is read, what is refused, what is imported."""

from __future__ import annotations

import gc
import io
import os
import pickle
import random
import re
import sys
from pathlib import Path
from typing import Any

import joblib
import lz4.frame
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persidict import BackendError, FileDirDict
from persidict.codecs import (
    Codec,
    MissingExtraError,
)
from tests.codec_cases import (
    PKL,
    PKL_OF_FILES,
    decodes,
    modules_after,
    prefixes_that_decode,
    values,
)
from tests.fixtures_0309 import equal

LZ4_MAGIC = b"\x04\x22\x4d\x18"


@given(values())
def test_a_pickled_value_comes_back_equal(value: Any) -> None:
    assert PKL.decode(PKL.encode(value)) == value


@given(values(), st.integers(1, 2_000))
def test_a_value_pickled_for_a_file_comes_back_equal(value: Any, n_copies: int) -> None:
    repeated = [(i, value) for i in range(n_copies)]
    assert PKL_OF_FILES.decode(PKL_OF_FILES.encode(repeated)) == repeated


@pytest.mark.parametrize("codec", [PKL, PKL_OF_FILES])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros(50_000),
        np.random.default_rng(1).random(50_000),
    ],
    ids=["small", "fortran", "compressible", "random"],
)
def test_arrays_come_back_writeable_and_equal(codec: Codec, array: Any) -> None:
    found = codec.decode(codec.encode(array))
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


WRITTEN_VALUES = [
    {"n": [1, 2.5, None]},
    "x" * 100_000,
    np.arange(100_000),
    {"array": np.random.default_rng(1).random(10_000), "text": "y" * 30_000},
]


@pytest.mark.parametrize("value", WRITTEN_VALUES, ids=["plain", "text", "array", "both"])
@pytest.mark.parametrize("codec", [PKL, PKL_OF_FILES])
def test_joblib_reads_the_files_that_we_write(codec: Codec, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "value.pkl"
    path.write_bytes(codec.encode(value))
    np.testing.assert_equal(joblib.load(path), value)


@pytest.mark.parametrize("value", WRITTEN_VALUES, ids=["plain", "text", "array", "both"])
def test_without_compression_the_result_is_a_plain_pickle_of_protocol_5(value: Any) -> None:
    data = PKL.encode(value)
    assert data[:2] == b"\x80\x05"
    np.testing.assert_equal(pickle.loads(data), value)


def noise(n_bytes: int) -> bytes:
    """Return bytes that no compressor makes smaller."""
    return random.Random(n_bytes).randbytes(n_bytes)


@pytest.mark.parametrize(
    "value",
    [
        bytes(100_000),
        noise(5_000) + bytes(100_000),
        bytes(50_000) + noise(5_000) + bytes(50_000),
        bytes(100_000) + noise(5_000),
    ],
    ids=["all of it", "all but the head", "all but the middle", "all but the tail"],
)
def test_what_compresses_well_becomes_one_lz4_frame_that_tells_its_size(value: bytes) -> None:
    frame = lz4.frame.get_frame_info(PKL_OF_FILES.encode(value))
    assert frame["content_size"] == len(PKL.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        bytes(15_000),
        noise(100_000),
        b"".join(bytes(400) + noise(600 + i) for i in range(100)),
        # Samples at the beginning, in the middle and at the end find nothing but zeros
        bytes(5_000) + noise(100_000) + bytes(10_000) + noise(100_001) + bytes(5_000),
    ],
    ids=["small", "noise", "noise in great part", "misleading samples"],
)
def test_what_compression_would_not_help_stays_a_plain_pickle(value: bytes) -> None:
    assert PKL_OF_FILES.encode(value) == PKL.encode(value)


def joblib_dump(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(value, stream, **options)
    return stream.getvalue()


COMPRESSORS = ("zlib", "gzip", "bz2", "lzma", "xz", "lz4")


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("compressor", [None, *COMPRESSORS])
def test_what_joblib_wrote_is_read(compressor: str | None, protocol: int) -> None:
    value = {"a": np.arange(1_000), "b": [np.ones((3, 0)), "x"], "c": np.array(["o", None])}
    options = {"compress": (compressor, 3)} if compressor else {}
    found = PKL.decode(joblib_dump(value, protocol=protocol, **options))
    np.testing.assert_equal(found, value)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol_are_read(protocol: int) -> None:
    value = [1, "two", {"three": 3.0}, list(range(1_000))]
    assert PKL.decode(pickle.dumps(value, protocol)) == value


def test_several_lz4_frames_are_read_as_one_pickle() -> None:
    data = pickle.dumps(list(range(1_000)))
    frames = lz4.frame.compress(data[:500]) + lz4.frame.compress(data[500:])
    assert PKL.decode(frames) == list(range(1_000))


def array_looking_like_a_pickle() -> Any:
    """Make an array whose bytes, read as pickle, would end in a value."""
    return np.frombuffer(b"N." * 50, dtype="u1")


SMALL_PICKLES = {
    **{f"protocol {p}": pickle.dumps({"k": [1, "x", 2.5]}, p) for p in range(6)},
    "none": pickle.dumps(None),
    "lz4": lz4.frame.compress(pickle.dumps(["x"] * 50)),
    "two lz4 frames": lz4.frame.compress(b"\x80\x04") + lz4.frame.compress(b"K\x01."),
    "joblib": joblib_dump({"k": [1, "x"]}),
    "joblib array": joblib_dump(np.arange(10)),
    "joblib nested array": joblib_dump({"a": array_looking_like_a_pickle(), "b": "x"}),
    "joblib empty array": joblib_dump(np.zeros((0, 3))),
    **{f"joblib {c}": joblib_dump(np.arange(10), compress=(c, 3)) for c in COMPRESSORS},
}


@pytest.mark.parametrize("data", SMALL_PICKLES.values(), ids=SMALL_PICKLES)
def test_a_pickle_that_is_cut_short_anywhere_is_an_error(data: bytes) -> None:
    assert prefixes_that_decode(PKL, data) == []


def test_a_pickle_with_large_parts_that_is_cut_short_is_an_error() -> None:
    data = PKL.encode({"text": "x" * 70_000, "bytes": bytes(70_000), "array": np.zeros(9_000)})
    cuts = [*range(0, len(data), 997), len(data) - 2, len(data) - 1]
    assert [cut for cut in cuts if decodes(PKL, data[:cut])] == []


@pytest.mark.parametrize(
    "trailing",
    [
        pytest.param(b".", id="stop"),
        pytest.param(b"\x00", id="zero"),
        pytest.param(bytes(53), id="zeros that look like a frame's length"),
        pytest.param(pickle.dumps("tail of a longer one"), id="another pickle"),
    ],
)
@pytest.mark.parametrize("kind", [k for k in SMALL_PICKLES if not k.startswith("joblib ")])
def test_bytes_behind_a_pickle_are_an_error(kind: str, trailing: bytes) -> None:
    assert not decodes(PKL, SMALL_PICKLES[kind] + trailing)


@pytest.mark.parametrize("data", [b"garbage", b"\x00" * 100, LZ4_MAGIC + b"garbage", b"\x80\x05"])
def test_garbage_instead_of_a_pickle_is_an_error(data: bytes) -> None:
    assert not decodes(PKL, data)


def test_without_joblib_its_arrays_are_an_error_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = joblib_dump(np.arange(10))
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'persidict\[joblib\]'"):
        PKL.decode(data)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_without_joblib_its_compressed_pickles_are_read(
    compressor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = joblib_dump(["plain"] * 10, compress=(compressor, 3))
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert PKL.decode(data) == ["plain"] * 10


def test_ordinary_pickles_and_text_need_no_library() -> None:
    program = """
        from persidict.codecs import codec_for
        for codec in codec_for("pkl", compress=True), codec_for("txt"):
            assert codec.decode(codec.encode("small")) == "small"
        codec_for("json")
    """
    assert modules_after(program) == set()


def test_compressed_pickles_do_not_need_joblib() -> None:
    program = """
        from persidict.codecs import codec_for
        codec = codec_for("pkl", compress=True)
        assert codec.decode(codec.encode("x" * 100_000)) == "x" * 100_000
    """
    assert modules_after(program) == {"lz4"}


LARGE = {
    "array": np.random.default_rng(0).random(40_000),
    "compressible": "a" * 400_000,
    "nested": {"rows": [{"n": n, "noise": random.Random(n).randbytes(60)} for n in range(5_000)]},
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_stream_is_decoded_as_its_bytes_are(kind: str) -> None:
    data = bytes(PKL_OF_FILES.encode(LARGE[kind]))
    assert equal(PKL_OF_FILES.decode_stream(io.BytesIO(data)), LARGE[kind])
    assert equal(PKL_OF_FILES.decode(data), LARGE[kind])


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_file_that_was_cut_is_an_error_that_names_it_and_leaves_nothing_open(
    kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    d: FileDirDict[Any] = FileDirDict(base_dir=tmp_path, fsync=False, digest_len=0)
    value = LARGE[kind] if kind != "compressible" else [LARGE[kind], os.urandom(300_000)]
    d["k"] = value
    file = tmp_path / "k.pkl"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    assert file.stat().st_size > 128 * 1024
    gc.collect()
    recwarn.clear()  # what other tests have left open
    with pytest.raises(BackendError, match=re.escape(str(file))):
        d["k"]
    gc.collect()
    assert [w for w in recwarn if issubclass(w.category, ResourceWarning)] == []


def array_with_many_fields() -> Any:
    """Make an array whose pickle holds much more than the bytes of its elements."""
    names = [f"field{number}_{'x' * 100}" for number in range(200)]
    return np.zeros(25_000, dtype=[(name, "f4") for name in names])


HUGE = {
    "array": np.random.default_rng(0).random(2_500_000),
    "of Fortran": np.asfortranarray(np.random.default_rng(0).random((1_250, 2_000))),
    "not contiguous": np.random.default_rng(0).random((1_250, 4_000))[:, ::2],
    "masked": np.ma.masked_less(np.random.default_rng(0).random(2_500_000), 0.5),
    "many fields": array_with_many_fields(),
    "objects": np.array([*range(2_000_000), "x"], dtype=object)[-2_100_000:],
    "bytes": random.Random(0).randbytes(17_000_000),
}


@pytest.mark.parametrize("codec", [PKL, PKL_OF_FILES])
@pytest.mark.parametrize("kind", HUGE)
def test_a_huge_value_comes_back_equal_also_from_foreign_memory(codec: Codec, kind: str) -> None:
    data = codec.encode(HUGE[kind])
    assert equal(codec.decode(data), HUGE[kind])
    assert equal(codec.decode(memoryview(bytearray(data))), HUGE[kind])


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("compressor", [None, *COMPRESSORS[:1]])
def test_what_joblib_wrote_is_read_from_foreign_memory(kind: str, compressor: str | None) -> None:
    value = {"one": LARGE[kind], "another": np.zeros(200_000)}
    data = joblib_dump(value, compress=(compressor, 0) if compressor else 0)
    assert len(data) > 1024 * 1024
    assert equal(PKL.decode(memoryview(data)), value)


@pytest.mark.parametrize("damage", ["cut", "longer"])
def test_damage_in_foreign_memory_is_an_error(damage: str) -> None:
    data = bytes(PKL.encode(np.zeros(400_000)))
    damaged = data[:-1000] if damage == "cut" else data + b"."
    assert not decodes(PKL, memoryview(damaged))
