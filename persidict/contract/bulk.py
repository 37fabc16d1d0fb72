"""Operations on many items at once, parallel where the storage gains from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from persidict.contract.primitives import DictPrimitives
from persidict.exceptions import (
    MutationPolicyError,
    MutationPolicyErrorGroup,
    PreconditionFailed,
    UnreadableItemsError,
    without_frames,
)
from persidict.jokers_and_status_flags import DELETE_CURRENT, KEEP_CURRENT, ValueType
from persidict.safe_str_tuple import (
    NonEmptyPersiDictKey,
    NonEmptySafeStrTuple,
    SafeStrTuple,
    as_key,
)

_NAMED_KEYS = 10

_Pair = tuple[Any, Any]

ElementType = TypeVar("ElementType")


class BulkOperations(DictPrimitives, Generic[ValueType]):
    """Reading, writing and deleting many items, written once on the primitives."""

    def get_many(
        self, keys: Iterable[NonEmptyPersiDictKey]
    ) -> dict[NonEmptySafeStrTuple, ValueType]:
        """Read many items.

        Args:
            keys: The keys. Consumed lazily.

        Returns:
            The values by key, in the order of the keys; absent items are left out. Each
            value was current at some moment of the call, not all at the same one.

        Raises:
            UnreadableItemsError: Some items could not be read; its `found` has the others.
        """
        _refuse_one_key(keys)
        found: dict[NonEmptySafeStrTuple, ValueType] = {}
        try:
            found.update(self._load_many(map(as_key, _each("keys", keys))))
        except UnreadableItemsError as error:
            error.found = found
            raise
        return found

    def set_many(self, items: Mapping[Any, Any] | Iterable[_Pair], /, **kwargs: Any) -> None:
        """Store many items, each atomically; the whole is not.

        Whatever fails, all other items have been stored when it is raised.

        Args:
            items: A Mapping, something with `keys()`, or pairs of key and value; consumed
                lazily. Jokers do what their names say. Of several values for one key, the
                last one stays.
            **kwargs: More items, under keys of one string.

        Raises:
            TypeError, ValueError: A key or a value is no such thing.
            MutationPolicyError: The dictionary is append-only and an item exists.
            ExceptionGroup: More than one item could not be stored, for whatever reasons; a
                MutationPolicyErrorGroup if all of them exist and may not be changed.
        """
        self._refuse_if_read_only()
        pending = _PendingWrites(self, Source(_pairs_of(items, kwargs)))
        failures: list[Exception] = []
        while not pending.exhausted:
            for key, error in self._write_many(pending.batch(), only_new=self.append_only):
                pending.finish(key)
                if error is not None:
                    failures.append(self._explain(key, error))
            for key in pending.take_deletions():
                for _, error in self._remove_many([key]):
                    failures.append(self._explain(key, error))
        failures.extend(pending.refusals)
        _raise_failures("stored", failures)

    def discard_many(self, keys: Iterable[NonEmptyPersiDictKey]) -> None:
        """Delete many items, each atomically; those that do not exist are no error.

        Args:
            keys: The keys. Consumed lazily.

        Raises:
            TypeError: `keys` is one key instead of an iterable of keys.
            MutationPolicyError: The dictionary is append-only.
            ExceptionGroup: Some items could not be deleted; its message names them. All
                others have been deleted.
        """
        self._refuse_deletion()
        self._discard_all(good_keys(keys))

    def clear(self) -> None:
        """Delete all items, each atomically; the whole is not.

        Raises:
            MutationPolicyError: The dictionary is append-only.
            ExceptionGroup: Some items could not be deleted; its message names them. All
                others have been deleted.
        """
        self._refuse_deletion()
        self._remove_all()

    def _remove_all(self) -> None:
        """Delete all items; see `clear`."""
        self._discard_all(Source(self._keys()))

    def _discard_all(self, keys: Source[NonEmptySafeStrTuple]) -> None:
        failures = [self._explain(key, error) for key, error in self._remove_many(keys)]
        _raise_failures("deleted", failures + keys.refusals, always_as_group=bool(failures))

    def _explain(self, key: NonEmptySafeStrTuple, error: Exception) -> Exception:
        """Say which item an error is about, in the words of the operation on one item."""
        if isinstance(error, PreconditionFailed):
            try:
                self._refuse_change(key)
            except MutationPolicyError as refusal:
                error = refusal
        error.add_note(f"persidict: item {key!r}")
        return without_frames(error)


class _PendingWrites:
    """Items on their way into a dictionary, in batches within which order does not matter.

    A batch ends where an item must wait: for an earlier value under the same key, or, if it
    is to be deleted, for all values before it. Bad items are set aside.
    """

    def __init__(self, dictionary: DictPrimitives, pairs: Source[_Pair]) -> None:
        self.exhausted = False
        self.refusals = pairs.refusals
        self._dictionary = dictionary
        self._pairs = pairs
        self._held: list[tuple[NonEmptySafeStrTuple, Any]] = []
        self._under_way: set[NonEmptySafeStrTuple] = set()

    def batch(self) -> Iterator[tuple[NonEmptySafeStrTuple, Any]]:
        """Iterate over items that may be written side by side."""
        while True:
            item = self._held.pop() if self._held else self._next()
            if item is None:
                self.exhausted = True
                return
            key, value = item
            if value is DELETE_CURRENT or key in self._under_way:
                self._held.append(item)
                return
            self._under_way.add(key)
            yield item

    def finish(self, key: NonEmptySafeStrTuple) -> None:
        """Take note that an item has been written, or has failed."""
        self._under_way.discard(key)

    def take_deletions(self) -> list[NonEmptySafeStrTuple]:
        """Return what is to be deleted now that everything before it has been written."""
        if not self._held or self._held[0][1] is not DELETE_CURRENT:
            return []
        return [self._held.pop()[0]]

    def _next(self) -> tuple[NonEmptySafeStrTuple, Any] | None:
        """Return the next item that can be stored or deleted, None at the end."""
        for pair in self._pairs:
            try:
                raw_key, value = pair
            except (TypeError, ValueError):
                self._pairs.refuse(TypeError(f"items must be pairs of key and value: {pair!r:.80}"))
                continue
            try:
                key = as_key(raw_key)
                if value is DELETE_CURRENT:
                    self._dictionary._refuse_deletion()
                elif value is not KEEP_CURRENT:
                    self._dictionary._check_value(value)
            except (TypeError, ValueError) as error:  # raised by set_many, with the others
                error.add_note(f"persidict: item {raw_key!r}")
                self._pairs.refuse(error)
                continue
            if value is not KEEP_CURRENT:
                return key, value
        return None


class Source(Iterator[ElementType], Generic[ElementType]):
    """What a caller gives many of: where that breaks, it ends, and all before it is done.

    Args:
        elements: What was given.
        check: Checks an element; one that is refused is set aside.

    Attributes:
        refusals: What is to be raised when all else has been done.
    """

    def __init__(
        self,
        elements: Iterator[Any],
        check: Callable[[Any], ElementType] | None = None,
    ) -> None:
        self.refusals: list[Exception] = []
        self._elements = elements
        self._check = check

    def __next__(self) -> ElementType:
        while True:
            try:
                element = next(self._elements)
            except StopIteration:
                raise
            except Exception as error:  # raised when all before it has been done
                self.refusals.append(error)
                self._elements = iter(())
                raise StopIteration from None
            if self._check is None:
                return element  # type: ignore[no-any-return]
            try:
                return self._check(element)
            except (TypeError, ValueError) as error:
                self.refuse(error)

    def refuse(self, error: Exception) -> None:
        """Set an error aside."""
        self.refusals.append(without_frames(error))

    def raise_refusals(self, done: str) -> None:
        """Raise what was set aside; `done`: what could not be done to these elements."""
        _raise_failures(done, self.refusals)


def good_keys(keys: Iterable[NonEmptyPersiDictKey]) -> Source[NonEmptySafeStrTuple]:
    """Check many keys, lazily; a single one in their place is a mistake."""
    _refuse_one_key(keys)
    return Source(_each("keys", keys), check=as_key)


def _refuse_one_key(keys: Any) -> None:
    if isinstance(keys, (str, bytes, SafeStrTuple)):
        raise TypeError(
            f"keys must be an iterable of keys, not one key ({keys!r}): put it in a list"
        )


def _each(name: str, elements: Iterable[Any]) -> Iterator[Any]:
    try:
        return iter(elements)
    except TypeError:
        kind = type(elements).__name__
        raise TypeError(f"{name} must be an iterable, not {kind}") from None


def _pairs_of(items: Any, kwargs: dict[str, Any]) -> Iterator[_Pair]:
    """Iterate over the pairs that `dict.update` would take from the same arguments."""
    if isinstance(items, Mapping):
        yield from items.items()
    elif hasattr(items, "keys"):
        for key in items.keys():  # noqa: SIM118  # what dict.update asks for
            yield key, items[key]
    else:
        yield from _each("items", items)
    yield from kwargs.items()


def _raise_failures(done: str, failures: list[Exception], *, always_as_group: bool = False) -> None:
    """Raise what went wrong with several items as one exception that names them."""
    if not failures:
        return
    if len(failures) == 1 and not always_as_group:
        raise failures[0]
    notes = [(getattr(error, "__notes__", None) or [f"{error!s:.80}"])[-1] for error in failures]
    named = ", ".join(note.removeprefix("persidict: ") for note in notes[:_NAMED_KEYS])
    more = f" and {len(failures) - _NAMED_KEYS} more" if len(failures) > _NAMED_KEYS else ""
    count = "1 item" if len(failures) == 1 else f"{len(failures)} items"
    message = f"{count} could not be {done}: {named}{more}"
    refused = [error for error in failures if isinstance(error, MutationPolicyError)]
    if len(refused) == len(failures):
        raise MutationPolicyErrorGroup(refused[0].policy, message, refused)
    raise ExceptionGroup(message, failures)
