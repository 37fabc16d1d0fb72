"""Copying items between dictionaries, wherever they are kept and in whatever format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from persidict.buffers import BUFFERS
from persidict.checks import check_flag
from persidict.codecs import MissingExtraError
from persidict.construction import names_its_arguments
from persidict.contract.bulk import good_keys
from persidict.exceptions import ObjectNotFound, PreconditionFailed, missing_key
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptyPersiDictKey, NonEmptySafeStrTuple
from persidict.transfer.route import Item, Reading, Route, md5

_MD5s: TypeAlias = dict[NonEmptySafeStrTuple, str]
_Keys: TypeAlias = dict[NonEmptySafeStrTuple, None]
"""Keys in order, of which any can be taken out."""

_EVEN_IF_EMPTY: Final = "even if empty"

_CHUNK_ITEMS: Final = 1000
_CHUNK_BYTES: Final = 64 * 1024 * 1024
"""How many items, and how many of their bytes, are compared, or held, at once."""
_UNREAD_BYTES: Final = 2 * 1024 * 1024
"""For how large items are taken before any was read: those that are listed may be packed."""


@dataclass(frozen=True, repr=False)
class TransferResult:
    """What `copy_items` or `sync_items` has done.

    Attributes:
        copied: The keys of the items that were written.
        skipped: The keys of those that were there already.
        deleted: The keys of those that were deleted from the target.
        failed: What went wrong with each of the others.
    """

    copied: tuple[NonEmptySafeStrTuple, ...] = ()
    skipped: tuple[NonEmptySafeStrTuple, ...] = ()
    deleted: tuple[NonEmptySafeStrTuple, ...] = ()
    failed: Mapping[NonEmptySafeStrTuple, Exception] = field(
        default_factory=lambda: MappingProxyType({})
    )

    def __repr__(self) -> str:
        counts = (self.copied, self.skipped, self.deleted, self.failed)
        copied, skipped, deleted, failed = map(len, counts)
        return (
            f"<{type(self).__name__}: {copied} copied, {skipped} skipped,"
            f" {deleted} deleted, {failed} failed>"
        )


@names_its_arguments
def copy_items(
    source: PersiDict[Any],
    target: PersiDict[Any],
    *,
    keys: Iterable[NonEmptyPersiDictKey] | None = None,
    overwrite: bool = True,
    progress: bool = False,
) -> TransferResult:
    """Copy items from one dictionary into another, each atomically; the whole is not.

    Between dictionaries of one format the stored bytes are copied as they are; on one S3
    service, reached with one client, the service copies them. Otherwise each value is
    decoded and encoded anew. What goes wrong with one item is reported in the result, and
    the others are copied.

    The keys are held in memory, but only a bounded part of the values: up to 64 MB more
    than what `get_many` and `set_many` hold.

    Costs: what reading the items and writing them cost, in parallel; on one S3 service one
    request each. Without `overwrite`, and into an append-only dictionary, the target is
    listed first, and items are sent through here, because few services insert copies on
    condition.

    Args:
        source: Where the items come from.
        target: Where they go. It may overlap with the source: what is copied is what the
            source holds when the copying begins.
        keys: Which items; None: all.
        overwrite: Whether items that the target has are replaced; if not, they are skipped,
            also one that somebody else adds meanwhile.
        progress: Whether to show a progress bar; needs the extra ``progress``.

    Returns:
        What was done. An item that is in `keys` and not in the source failed with KeyError.
        An append-only or write-once target keeps what it has: an equal item is skipped,
        another one failed with MutationPolicyError.

    Raises:
        TypeError: Source or target is no PersiDict, or `keys` is one key.
        MutationPolicyError: The target is a read-only handle; nothing has been done.
        TypeError, ValueError: One of the keys is none. All others have been copied, also
            those before it where `keys` itself raised an exception.
        MissingExtraError: The progress bar is not installed.

    Examples:
        >>> from persidict import LocalDict
        >>> source, target = LocalDict(), LocalDict(serialization_format="json")
        >>> source.update({"a": 1, "b": 2})
        >>> copy_items(source, target)
        <TransferResult: 2 copied, 0 skipped, 0 deleted, 0 failed>
        >>> target == {"a": 1, "b": 2}
        True
    """
    _check_dicts(source, target)
    check_flag("overwrite", overwrite)
    route = Route(source, target)
    only_new = target.append_only or not overwrite
    wanted = None
    if keys is None:
        present = dict(route.list_target()) if only_new else {}
        items = _listed(route, present)
    else:
        wanted = good_keys(keys)
        items = [Item(key) for key in dict.fromkeys(wanted)]
    with _progress_bar(progress, "copying", len(items)) as advance:
        ledger = _Ledger(target, advance, must_exist=keys is not None)
        _Transfer(route, ledger, only_new=only_new, keeps_existing=not overwrite).run(items)
    if wanted is not None:
        wanted.raise_refusals("copied")
    return ledger.result()


@names_its_arguments
def sync_items(
    source: PersiDict[Any],
    target: PersiDict[Any],
    *,
    delete: bool | Literal["even if empty"] = False,
    progress: bool = False,
) -> TransferResult:
    """Make a dictionary hold what another one does, copying only what differs.

    Keeps no records, so that a sync that was interrupted, by whatever, continues when it is
    called again: what has arrived is found to be there. Of large items that it copies to S3
    it also ends uploads that were open before and have received nothing since: a process that
    was killed leaves them. To find them costs a request.

    An item is skipped only if it is proven to be the same, by its content: times of writing
    prove nothing and are not looked at. Between dictionaries of one format, sizes that
    differ prove a difference, and an MD5 of S3's (the ETag of an object that was written in
    one piece and is not encrypted with a key of its own) proves equality. So of unchanged
    items, on two S3 services none is read, and between S3 and another place only the other
    copy; else both are read, and what the target would store is compared with what it does.
    Everything else is as `copy_items` does it.

    Args:
        source: Where the items come from.
        target: Where they go.
        delete: Whether items that the source does not have are deleted from the target,
            after all others have been copied; if one of these failed, nothing is deleted.
            A source without any item is more often a disk that is not mounted than meant:
            it takes ``"even if empty"`` to empty the target.
        progress: Whether to show a progress bar; needs the extra ``progress``.

    Returns:
        What was done. An append-only or write-once target keeps what it has: an equal item
        is skipped, another one failed with MutationPolicyError.

    Raises:
        TypeError: Source or target is no PersiDict, or `delete` is none of the three.
        ValueError: `delete` is True, the source is empty and the target is not; nothing has
            been done.
        MutationPolicyError: The target is a read-only handle, or `delete` is set and it is
            append-only or write-once; nothing has been done.
        MissingExtraError: The progress bar is not installed.

    Examples:
        >>> from persidict import LocalDict
        >>> source, target = LocalDict(), LocalDict()
        >>> source.update({"a": 1, "b": 2})
        >>> target.update({"b": 2, "c": 3})
        >>> sync_items(source, target, delete=True)
        <TransferResult: 1 copied, 1 skipped, 1 deleted, 0 failed>
    """
    plan = _Plan(source, target, delete)
    end_interrupted = plan.route.interrupted_writes(plan.items)
    with _progress_bar(progress, "syncing", len(plan.items)) as advance:
        ledger = _Ledger(target, advance, must_exist=False)
        only_new = target.append_only
        _Transfer(plan.route, ledger, only_new=only_new, keeps_existing=False).run(plan.items)
    end_interrupted(ledger.copied)
    if delete and not ledger.failed:
        ledger.delete(plan.superfluous)
    return ledger.result()


def rehearse_sync(
    source: PersiDict[Any], target: PersiDict[Any], *, delete: bool = False
) -> tuple[TransferResult, Collection[NonEmptySafeStrTuple]]:
    """Tell what `sync_items` would do, and which keys the target has; change nothing.

    What both have is compared as `sync_items` does it; what only the source has is not read.
    """
    plan = _Plan(source, target, delete, is_rehearsal=True)
    ledger = _Ledger(target, lambda: None, must_exist=False)
    only_new = target.append_only
    _Rehearsal(plan.route, ledger, only_new=only_new, keeps_existing=False).run(plan.items)
    if delete and not ledger.failed:
        ledger.note_deleted(plan.superfluous)
    return ledger.result(), plan.present.keys()


class _Plan:
    """What a sync finds before it begins.

    Attributes:
        route: From where to where.
        present: What the target has.
        items: What the source has.
        superfluous: The keys of what the target alone has.
    """

    def __init__(
        self,
        source: PersiDict[Any],
        target: PersiDict[Any],
        delete: bool | str,
        *,
        is_rehearsal: bool = False,
    ) -> None:
        _check_dicts(source, target)
        if delete not in (True, False, _EVEN_IF_EMPTY):
            raise TypeError(f"delete must be True, False or {_EVEN_IF_EMPTY!r}, not {delete!r:.80}")
        if delete:
            target._refuse_deletion()
        if is_rehearsal:  # not even what reading changes in passing
            source, target = source.read_only(), target.read_only()
        self.route = Route(source, target)
        # listed first: what others put into the source, then into the target, is not deleted
        self.present = dict(self.route.list_target())
        self.items = _listed(self.route, self.present)
        if delete and delete != _EVEN_IF_EMPTY and self.present and not self.items:
            raise ValueError(
                f"delete would empty the target, because the source is empty or does not exist:"
                f" {source!r:.300}; pass delete={_EVEN_IF_EMPTY!r} if that is meant"
            )
        kept = {item.key for item in self.items}
        self.superfluous = [key for key in self.present if key not in kept]


def _check_dicts(source: Any, target: Any) -> None:
    for name, given in (("source", source), ("target", target)):
        if not isinstance(given, PersiDict):
            raise TypeError(f"{name} must be a PersiDict, not {type(given).__name__}")
    target._refuse_if_read_only()


def _listed(route: Route, present: Mapping[NonEmptySafeStrTuple, Any]) -> list[Item]:
    """List the source, before anything is written: the target may be a part of it."""
    return [Item(key, info, present.get(key), key in present) for key, info in route.list_source()]


def _chunks(
    items: Iterable[Item],
    max_items: int | None = None,
    size_of: Callable[[Item], int] = attrgetter("size"),
) -> Iterator[list[Item]]:
    """Cut into lists of so many items and bytes at most."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        if chunk and (len(chunk) == max_items or size + size_of(item) > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += size_of(item)
    if chunk:
        yield chunk


@contextmanager
def _progress_bar(is_shown: bool, title: str, total: int) -> Iterator[Callable[[], object]]:
    """Show a bar while in the context, if that is wanted; give what advances it."""
    if not check_flag("progress", is_shown):
        yield lambda: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingExtraError(
            "tqdm draws the progress bar and is not installed: pip install 'persidict[progress]'",
            name="tqdm",
        ) from error
    with tqdm(desc=title, total=total, unit="item") as bar:
        yield bar.update


class _Ledger:
    """What has become of each item.

    Args:
        target: The dictionary that the items go to.
        advance: Called once for each item of the source.
        must_exist: Whether an item that the source does not have is a failure.
    """

    def __init__(
        self, target: PersiDict[Any], advance: Callable[[], object], *, must_exist: bool
    ) -> None:
        self._target = target
        self._advance = advance
        self._must_exist = must_exist
        self.copied: list[NonEmptySafeStrTuple] = []
        self._skipped: list[NonEmptySafeStrTuple] = []
        self._deleted: list[NonEmptySafeStrTuple] = []
        self.failed: dict[NonEmptySafeStrTuple, Exception] = {}

    def note_copied(self, key: NonEmptySafeStrTuple) -> None:
        self.copied.append(key)
        self._advance()

    def note_skipped(self, key: NonEmptySafeStrTuple) -> None:
        self._skipped.append(key)
        self._advance()

    def note_failed(self, key: NonEmptySafeStrTuple, error: Exception) -> None:
        """Note what went wrong; PreconditionFailed: the target refuses to change the item."""
        self.failed[key] = self._target._explain(key, error)
        self._advance()

    def note_unread(self, key: NonEmptySafeStrTuple, error: Exception) -> None:
        """Note what went wrong in reading the source, where an item may have vanished."""
        if not isinstance(error, ObjectNotFound):
            self.note_failed(key, error)
        elif self._must_exist:
            self.note_failed(key, missing_key(key))
        else:
            self._advance()

    def delete(self, keys: Iterable[NonEmptySafeStrTuple]) -> None:
        """Delete items from the target, and note it."""
        asked = list(keys)
        for key, error in self._target._remove_many(asked):
            self.failed[key] = self._target._explain(key, error)
        self._deleted += [key for key in asked if key not in self.failed]

    def note_deleted(self, keys: Iterable[NonEmptySafeStrTuple]) -> None:
        self._deleted += keys

    def result(self) -> TransferResult:
        return TransferResult(
            tuple(self.copied),
            tuple(self._skipped),
            tuple(self._deleted),
            MappingProxyType(self.failed),
        )


class _Transfer:
    """The copying of some items.

    Args:
        route: From where to where.
        ledger: Learns what becomes of them.
        only_new: Whether no item of the target may be replaced.
        keeps_existing: Whether items of the target are left alone without being compared.
    """

    def __init__(
        self, route: Route, ledger: _Ledger, *, only_new: bool, keeps_existing: bool
    ) -> None:
        self._route = route
        self._ledger = ledger
        self._only_new = only_new
        self._keeps_existing = keeps_existing
        self._mean_size = _UNREAD_BYTES

    def run(self, items: Iterable[Item]) -> None:
        """Copy what is missing in the target, or differs."""
        to_copy: list[Item] = []
        to_compare: list[Item] = []
        for item in items:
            if not item.is_in_target or self._differs_for_certain(item):
                to_copy.append(item)
            elif self._keeps_existing:
                self._ledger.note_skipped(item.key)
            else:
                to_compare.append(item)
        self._compare(to_compare)
        self._copy(to_copy)

    def _differs_for_certain(self, item: Item) -> bool:
        return self._route.moves_bytes and not self._only_new and item.sizes_differ

    def _copy(self, items: list[Item]) -> None:
        """Copy items without looking at what the target has."""
        if not self._only_new and self._route.leads_through_the_storage:
            items = self._copy_inside(items)
        for chunk in _chunks(items):
            self._write(self._wanted(item.key for item in chunk))

    def _copy_inside(self, items: list[Item]) -> list[Item]:
        """Have the storage copy items; return those that it copies for nobody."""
        by_key = {item.key: item for item in items}
        left = []
        for key, outcome in self._route.copy_inside(by_key):
            if outcome is True:
                self._ledger.note_copied(key)
            elif outcome is False:
                left.append(by_key[key])
            else:
                self._ledger.note_unread(key, outcome)
        return left

    def _wanted(
        self, keys: Iterable[NonEmptySafeStrTuple]
    ) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        """Read what the target is to hold; leave out, and note, what cannot be read."""
        for key, value, error in self._route.read_wanted(keys):
            if error is None:
                yield key, value
            else:
                self._ledger.note_unread(key, error)

    def _write(self, wanted: Iterable[tuple[NonEmptySafeStrTuple, Any]]) -> None:
        refused = []
        for key, error in self._route.write(wanted, only_new=self._only_new):
            if error is None:
                self._ledger.note_copied(key)
            elif not isinstance(error, PreconditionFailed):
                self._ledger.note_failed(key, error)
            elif self._keeps_existing:
                self._ledger.note_skipped(key)
            else:
                refused.append(Item(key))
        self._compare(refused)

    # ------------------------------------------------------------------ comparing

    def _compare(self, items: list[Item]) -> None:
        """Write what differs, in chunks that are cut by what those before them came to."""
        for chunk in _chunks(items, _CHUNK_ITEMS, lambda item: max(item.size, self._mean_size)):
            self._write(self._differing(chunk).items())

    def _differing(self, items: list[Item]) -> dict[NonEmptySafeStrTuple, Any]:
        """Compare items that the target has; return what is to be written, by key.

        What is the same, and what may not be replaced, is noted.
        """
        route, ledger = self._route, self._ledger
        source_md5s, target_md5s, undecided = self._compare_md5s(items)
        present = self._prove(route.read_present(source_md5s), source_md5s, undecided)
        wanted = self._prove(route.read_wanted(target_md5s), target_md5s, undecided)
        unread = [key for key in undecided if key not in target_md5s]
        wanted.update((reading.key, reading) for reading in route.read_wanted(unread))
        unread = [key for key in wanted if key not in source_md5s]
        present.update((reading.key, reading) for reading in route.read_present(unread))
        held = [reading.value for reading in (*wanted.values(), *present.values())]
        self._mean_size = sum(len(v) for v in held if isinstance(v, BUFFERS)) // len(items)
        differing = {}
        for key, value, error in wanted.values():
            _, present_value, present_error = present[key]
            if error is not None:
                ledger.note_unread(key, error)
            elif present_error is None and route.is_same(
                key, value, present_value, by_value=self._only_new
            ):
                ledger.note_skipped(key)
            elif not self._only_new or isinstance(present_error, ObjectNotFound):
                differing[key] = value
            else:
                ledger.note_failed(key, present_error or PreconditionFailed())
        return differing

    def _compare_md5s(self, items: list[Item]) -> tuple[_MD5s, _MD5s, _Keys]:
        """Skip what is equal by what the listings told.

        Returns:
            The MD5s of items of which only the source's is known, those of which only the
            target's is, and the keys of all that are undecided, in order.
        """
        source_md5s: _MD5s = {}
        target_md5s: _MD5s = {}
        undecided: _Keys = {}
        for item in items:
            theirs, ours = self._route.source_md5(item), self._route.target_md5(item)
            if theirs is not None and theirs == ours:
                self._ledger.note_skipped(item.key)
                continue
            undecided[item.key] = None
            if theirs is not None and ours is None:
                source_md5s[item.key] = theirs
            elif ours is not None and theirs is None:
                target_md5s[item.key] = ours
        return source_md5s, target_md5s, undecided

    def _prove(
        self, readings: Iterable[Reading], md5s: _MD5s, undecided: _Keys
    ) -> dict[NonEmptySafeStrTuple, Reading]:
        """Skip what is equal to an object of that MD5; return the other readings."""
        found = {}
        for reading in readings:
            if reading.error is None and md5(reading.value) == md5s[reading.key]:
                self._ledger.note_skipped(reading.key)
                del undecided[reading.key]
            else:
                found[reading.key] = reading
        return found


class _Rehearsal(_Transfer):
    """Compares as a transfer does, and notes as copied what that would copy."""

    def _copy(self, items: list[Item]) -> None:
        for item in items:
            self._ledger.note_copied(item.key)

    def _write(self, wanted: Iterable[tuple[NonEmptySafeStrTuple, Any]]) -> None:
        for key, _ in wanted:
            self._ledger.note_copied(key)
