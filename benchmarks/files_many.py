"""Many items in files, with every library that keeps them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final

from benchmarks import published
from benchmarks.file_peers import FILE_PEERS, FilePeer
from benchmarks.files import directories, small_value
from benchmarks.harness import Bench, Omission, Result, Row, Suite, after, timed
from benchmarks.peers import PeerUnavailable
from benchmarks.worker import Worker
from persidict import FileDirDict

_GROUPS: Final = 10
_WRITE: Final = "for key, v in items.items(): d[key] = v"
_ITERATE: Final = "for item in d.items(): pass"
_LOOK: Final = "for key in items: key in d"
_COLLECT: Final = "found = {key: d[key] for key in items}"
_WRITING: Final = (
    ("write one by one", _WRITE, _WRITE),
    ("update", "d.update(items)", "d.update(items)"),
)
_READING: Final = (
    ("in", _LOOK, _LOOK),
    ("list(d)", "list(d)", "list(d)"),
    ("items()", _ITERATE, _ITERATE),
    ("get_many", "d.get_many(items)", _COLLECT),
)


def run(bench: Bench) -> Iterator[Result]:
    """Measure everything in this module; deletions come last, as they slow file systems down."""
    yield durable_batch(bench)
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="persidict-benchmark-"))
        items = {f"key{number}": small_value() for number in range(bench.size(1000, 10))}
        opened = []
        for number, peer in enumerate(FILE_PEERS):
            directory = os.path.join(place, f"peer{number}")
            os.mkdir(directory)
            try:
                other = peer.open(directory)
            except PeerUnavailable as reason:
                yield Omission(peer.title, str(reason))
                continue
            if hasattr(other, "close"):
                stack.enter_context(closing(other))
            own: FileDirDict[Any] = FileDirDict(
                base_dir=os.path.join(place, f"own{number}"), fsync=peer.is_durable
            )
            opened.append((peer, own, other))
            yield from beside_peer(bench, peer, own, other, items)
        yield from published_rows(bench, os.path.join(place, "published"), items)
        for peer, own, other in opened:
            yield deletions(bench, peer, own, other, items)


def durable_batch(bench: Bench) -> Row:
    """Compare a batch of durable writes with a loop of them."""
    count = bench.size(400, 5)
    os.sync()  # else the disk writes what the rows before have left, and both wait for that
    with directories("batch", "loop") as (batch, loop):
        items = {f"key{number}": small_value() for number in range(count)}
        return bench.compare(
            f"set_many, {count} durable writes, per item",
            timed("d.set_many(items)", d=FileDirDict[Any](base_dir=batch), items=items),
            timed(_WRITE, d=FileDirDict[Any](base_dir=loop), items=items),
            against="FileDirDict, one by one",
            at_least=1.7,
            items=count,
        )


def beside_peer(
    bench: Bench, peer: FilePeer, own: FileDirDict[Any], other: Any, items: dict[str, Any]
) -> Iterator[Row]:
    """Compare with one library that promises as much; to readers, syncs make no difference."""
    for work, statement, others_statement in _WRITING if peer.is_durable else _WRITING + _READING:
        yield bench.compare(
            _title(work, peer.is_durable),
            timed(statement, d=own, items=items),
            timed(others_statement, d=other, items=items),
            against=peer.title,
            items=len(items),
        )


def deletions(
    bench: Bench, peer: FilePeer, own: FileDirDict[Any], other: Any, items: dict[str, Any]
) -> Row:
    """Compare deleting everything with one library."""
    return bench.compare(
        _title("clear()", peer.is_durable),
        after(lambda: own.update(items), timed("d.clear()", d=own)),
        after(lambda: other.update(items), timed("d.clear()", d=other)),
        against=peer.title,
        items=len(items),
    )


def published_rows(bench: Bench, place: str, items: dict[str, Any]) -> Iterator[Result]:
    """Compare with 0.309, whose writes are durable too."""
    try:
        worker = published.start(bench)
    except PeerUnavailable as reason:
        yield Omission(published.NAME, str(reason))
        return
    with worker:
        own: FileDirDict[Any] = FileDirDict(base_dir=os.path.join(place, "own"))
        worker.execute(_opened(place, "old"))
        worker.execute(f"items = {items!r}")
        for work, statement, others_statement in _WRITING + _READING:
            yield bench.compare(
                _title(work, True),
                timed(statement, d=own, items=items),
                worker.timed(others_statement),
                against=published.NAME,
                items=len(items),
            )
        yield from many_keys(bench, worker, place)
        yield bench.compare(
            _title("clear()", True),
            after(lambda: own.update(items), timed("d.clear()", d=own)),
            after(lambda: worker.execute(_WRITE), worker.timed("d.clear()")),
            against=published.NAME,
            items=len(items),
        )


def many_keys(bench: Bench, worker: Worker, place: str) -> Iterator[Row]:
    """Compare what concerns all of very many items with 0.309, each on what it wrote itself."""
    members = bench.size(2000, 3)
    pairs = [(f"group{i}", f"key{j}") for i in range(_GROUPS) for j in range(members)]
    own: FileDirDict[Any] = FileDirDict(base_dir=os.path.join(place, "own-many"), fsync=False)
    own.update((pair, small_value()) for pair in pairs)
    with _other_dictionary(worker, place):
        worker.execute(
            f"v = {small_value()!r}\n"
            f"for i in range({_GROUPS}):\n"
            f"    for j in range({members}): d['group%d' % i, 'key%d' % j] = v\n"
        )
        for statement, target in (
            (_ITERATE, 7.0),
            ("list(d)", None),
            ("len(d)", None),
            ("d.subdicts()", None),
            ("d.newest_keys(max_n=10)", None),
        ):
            yield bench.compare(
                f"{statement.removesuffix(': pass')}, {_GROUPS} x {members} items",
                timed(statement, d=own),
                worker.timed(statement),
                against=published.NAME,
                at_least=target,
            )


@contextmanager
def _other_dictionary(worker: Worker, place: str) -> Iterator[None]:
    """Let `d` be another dictionary in the worker for a while."""
    worker.execute("kept = d")
    worker.execute(_opened(place, "old-many"))
    yield
    worker.execute("d = kept")


def _opened(place: str, name: str) -> str:
    return f"d = persidict.FileDirDict(base_dir={os.path.join(place, name)!r})"


def _title(work: str, is_durable: bool) -> str:
    return f"{work}, {'durable' if is_durable else 'fsync=False'}, per item"


SUITE: Final = Suite(
    "Files: many items",
    "1 000 values of 200 B, pickled by each. Rows say whether writes are synced; of the others,"
    " zict and shelve are for one process, and neither these nor plain files guard anything against"
    " concurrent changes.",
    run,
)
