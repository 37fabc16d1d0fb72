"""A power loss takes what was not synced: nothing that was durable, and never the database.

A small library in front of the C library's notes what a process does to the files below a
directory. What a disk may hold after a power loss is made from the notes up to some moment:
what was synced is there; of what was written since, each piece is there, missing, or torn.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from persidict import SQLiteDict

COMPILER = shutil.which("cc")

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="notes are taken with LD_PRELOAD"),
    pytest.mark.skipif(COMPILER is None, reason="there is no C compiler"),
]

NOTING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int notes = -1;
static const char *root;

static void note(char what, const char *path, const char *other, int64_t at,
                 const void *data, uint32_t size) {
    uint32_t n = strlen(path), m = other ? strlen(other) : 0;
    struct iovec parts[] = {{&what, 1}, {&n, 4}, {&m, 4}, {&at, 8}, {&size, 4},
        {(void *)path, n}, {(void *)other, m}, {(void *)data, data ? size : 0}};
    writev(notes, parts, 8);
}
static int ready(void) {
    if (notes < 0 && getenv("NOTES")) {
        root = getenv("NOTED");
        notes = open(getenv("NOTES"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    }
    return notes >= 0;
}
static int named(int fd, char *path) {
    char link[64];
    if (!ready() || fd == notes) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strncmp(path, root, strlen(root)) == 0 && !strstr(path, "(deleted)")
        && !strstr(path, "-shm") && !strstr(path, "-queue") && !strstr(path, ".hold");
}
#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, name);

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t)
    char path[PATH_MAX];
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, data, size);
    if (done > 0 && named(fd, path)) note('w', path, NULL, at, data, done);
    return done;
}
#define PWRITE(function) \
ssize_t function(int fd, const void *data, size_t size, off_t at) { \
    REAL(ssize_t, #function, int, const void *, size_t, off_t) \
    char path[PATH_MAX]; \
    ssize_t done = real(fd, data, size, at); \
    if (done > 0 && named(fd, path)) note('w', path, NULL, at, data, done); \
    return done; \
}
PWRITE(pwrite)
PWRITE(pwrite64)
#define TRUNCATE(function) \
int function(int fd, off_t size) { \
    REAL(int, #function, int, off_t) \
    char path[PATH_MAX]; \
    int done = real(fd, size); \
    if (!done && named(fd, path)) note('t', path, NULL, size, NULL, 0); \
    return done; \
}
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)
#define SYNC(function) \
int function(int fd) { \
    REAL(int, #function, int) \
    char path[PATH_MAX]; \
    int done = real(fd); \
    if (!done && named(fd, path)) note('s', path, NULL, 0, NULL, 0); \
    return done; \
}
SYNC(fsync)
SYNC(fdatasync)
int unlink(const char *name) {
    REAL(int, "unlink", const char *)
    int done = real(name);
    if (!done && ready()) note('u', name, NULL, 0, NULL, 0);
    return done;
}
int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *)
    int done = real(from, to);
    if (!done && ready()) note('r', from, to, 0, NULL, 0);
    return done;
}
"""

WORK = """
import os, random, sys
from persidict import SQLiteDict
path, fsync, marks, size = sys.argv[1], sys.argv[2] == "True", sys.argv[3], int(sys.argv[4])
marks = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
notes = os.environ["NOTES"]
rng = random.Random(int(sys.argv[5]))
d = SQLiteDict(path=path, fsync=fsync, large_value_size=3000)
pages = d._store._connection()
pages.sql.execute("PRAGMA wal_autocheckpoint = 20")
for number in range(1, 120):
    key = f"k{rng.randrange(6)}"
    kind = rng.random()
    if kind < 0.2:
        with d.transaction() as t:
            t["left"] = (number, bytes(rng.randrange(size)))
            t["right"] = (number, bytes(rng.randrange(size)))
    elif kind < 0.3:
        d.update({f"k{i}": (number, bytes([i]) * rng.randrange(size)) for i in range(6)})
    else:
        d[key] = (number, rng.randbytes(rng.randrange(size)))
    d["latest"] = number
    os.write(marks, f"{number} {os.stat(notes).st_size}\\n".encode())
os._exit(0)
"""


REPLACING = """
import os, sys, threading
from persidict import SQLiteDict
path, how = sys.argv[1], sys.argv[2]
durable = SQLiteDict(path=path, large_value_size=3000)
durable.update({f"k{i:02}": b"old" + bytes([i]) * 4000 for i in range(40)})
d = SQLiteDict(path=path, fsync=False, large_value_size=3000)
def replace(first, end):
    for i in range(first, end):
        d[f"k{i:02}"] = b"new"
if how == "replaced":
    replace(0, 40)
elif how == "replaced beside a durable writer":
    other = threading.Thread(target=replace, args=(0, 20))
    other.start()
    other.join()
    # what a durable write does at its end, where the others came in between
    d._store._database.collect(durable._store._connection())
else:
    for i in range(40):
        del d[f"k{i:02}"]
os._exit(0)
"""


class Note(NamedTuple):
    """Something that was done to a file."""

    what: str
    path: str
    other: str
    at: int
    data: bytes
    size: int
    end: int


def notes_in(path: Path) -> Iterator[Note]:
    content = path.read_bytes()
    head = struct.Struct("=cIIqI")
    position = 0
    while position < len(content):
        what, n, m, at, size = head.unpack_from(content, position)
        position += head.size
        name = content[position : position + n].decode()
        other = content[position + n : position + n + m].decode()
        position += n + m
        data = content[position : position + size] if what == b"w" else b""
        position += len(data)
        yield Note(what.decode(), name, other, at, data, size, position)


class Disk:
    """What is on a disk, and what is only on its way there.

    A file's name is durable once its directory was synced; so is its disappearance.
    """

    def __init__(self) -> None:
        self.synced: dict[int, bytes] = {}
        self.pending: dict[int, list[Note]] = {}
        self.names: dict[str, int] = {}
        self.durable_names: dict[str, int] = {}
        self._numbers = iter(range(1 << 30))

    def apply(self, note: Note) -> None:
        if note.what == "u":
            self.names.pop(note.path, None)
        elif note.what == "r":
            if note.path in self.names:
                self.names[note.other] = self.names.pop(note.path)
        elif note.what == "s":
            if note.path in self.names:
                self.sync(self.names[note.path])
            else:
                self.sync_directory(note.path)
        else:
            file = self.names.get(note.path)
            if file is None:
                file = self.names[note.path] = next(self._numbers)
                self.synced[file], self.pending[file] = b"", []
            self.pending[file].append(note)

    def sync(self, file: int) -> None:
        for note in self.pending[file]:
            self.synced[file] = changed(self.synced[file], note)
        self.pending[file] = []

    def sync_directory(self, directory: str) -> None:
        inside = {n: f for n, f in self.names.items() if os.path.dirname(n) == directory}
        for name in [n for n in self.durable_names if os.path.dirname(n) == directory]:
            del self.durable_names[name]
        self.durable_names.update(inside)

    def at_its_worst(self) -> dict[str, bytes]:
        """Return what is left where nothing gets there by itself but what is deleted."""
        return {
            name: self.synced[file]
            for name, file in self.durable_names.items()
            if self.names.get(name) == file
        }

    def after_power_loss(self, rng: random.Random) -> dict[str, bytes]:
        """Return what the disk may hold: of each thing not synced, chance decides."""
        names = dict(self.durable_names)
        for name in {*self.names, *self.durable_names}:
            if self.names.get(name) != self.durable_names.get(name) and rng.random() < 0.5:
                names.pop(name, None)
                if name in self.names:
                    names[name] = self.names[name]
        return {name: self.content(file, rng) for name, file in names.items()}

    def content(self, file: int, rng: random.Random) -> bytes:
        content = self.synced[file]
        luck = rng.choice((0.0, 0.5, 0.9, 1.0))
        for note in self.pending[file]:
            if rng.random() < luck:
                content = changed(content, note)
            elif note.what == "w" and len(note.data) > 512 and rng.random() < 0.5:
                torn = rng.randrange(512, len(note.data)) // 512 * 512
                content = changed(content, note._replace(data=note.data[:torn]))
        return content


def changed(content: bytes, note: Note) -> bytes:
    if note.what == "t":
        return content[: note.at].ljust(note.at, b"\0")
    return (
        content[: note.at].ljust(note.at, b"\0") + note.data + content[note.at + len(note.data) :]
    )


@pytest.fixture(scope="module")
def noting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that takes notes."""
    place = tmp_path_factory.mktemp("noting")
    source, library = place / "noting.c", place / "noting.so"
    source.write_text(NOTING)
    assert COMPILER is not None
    done = subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"the compiler does not compile: {done.stderr[:200]}")
    return library


@pytest.mark.slow
@pytest.mark.parametrize("size", [2000, 9000], ids=["rows", "rows and files"])
@pytest.mark.parametrize("fsync", [True, False], ids=["synced", "unsynced"])
def test_a_power_loss_at_any_moment_leaves_whole_items(
    fsync: bool, size: int, noting: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(noting),
        "NOTES": str(tmp_path / "notes"),
        "NOTED": str(place),
    }
    arguments = [str(place / "x.db"), str(fsync), str(tmp_path / "marks"), str(size), "1"]
    subprocess.run(
        [sys.executable, "-c", WORK, *arguments], env=environment, check=True, timeout=120
    )
    acknowledged = [
        tuple(map(int, line.split())) for line in (tmp_path / "marks").read_text().splitlines()
    ]
    notes = list(notes_in(tmp_path / "notes"))
    rng = random.Random(size)
    lost = 0
    for attempt in range(60):
        cut = rng.randrange(len(notes)) if attempt else len(notes) - 1
        disk = Disk()
        for note in notes[: cut + 1]:
            disk.apply(note)
        promised = max((n for n, end in acknowledged if end <= notes[cut].end), default=0)
        after = tmp_path / f"after{attempt}"
        for name, content in disk.after_power_loss(rng).items():
            target = after / Path(name).relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        lost += check(after / "x.db", promised, fsync=fsync)
        shutil.rmtree(after, ignore_errors=True)
    if fsync:
        assert lost == 0


@pytest.mark.parametrize("how", ["replaced", "replaced beside a durable writer", "deleted"])
def test_a_value_file_goes_only_after_the_log_no_longer_needs_it(
    how: str, noting: Path, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    notes_path = tmp_path / "notes"
    environment = {**os.environ, "LD_PRELOAD": str(noting), "NOTES": str(notes_path)}
    environment["NOTED"] = str(place)
    arguments = [str(place / "x.db"), how]
    subprocess.run(
        [sys.executable, "-c", REPLACING, *arguments], env=environment, check=True, timeout=120
    )
    disk = Disk()
    for note in notes_in(notes_path):
        disk.apply(note)
    after = tmp_path / "after"
    for name, content in disk.at_its_worst().items():
        target = after / Path(name).relative_to(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    assert len(list((after / "x.db-values").iterdir())) < 40, "none was deleted"
    d: SQLiteDict[Any] = SQLiteDict(path=after / "x.db", large_value_size=3000)
    for number in range(40):
        old = b"old" + bytes([number]) * 4000
        assert d.get(f"k{number:02}") in (old, None if how == "deleted" else b"new")


def check(path: Path, promised: int, *, fsync: bool) -> int:
    """Read everything; return how many of the promised writes are gone."""
    d: SQLiteDict[Any] = SQLiteDict(path=path, fsync=fsync, large_value_size=3000)
    sql = d._store._connection().sql
    assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert d.verify() == []
    read: dict[str, Any] = {key[0]: d[key] for key in d}
    latest = read.get("latest", 0)
    if fsync:
        assert latest in (promised, promised + 1)
    if "left" in read and "right" in read:
        assert read["left"][0] == read["right"][0]
    d["latest"] = latest + 1
    d["new"] = b"x" * 5000
    assert d["new"] == b"x" * 5000
    return max(0, promised - latest)
