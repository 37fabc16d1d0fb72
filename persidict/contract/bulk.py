"""Operations on many items at once, parallel where the storage gains from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic

from persidict.contract.primitives import DictPrimitives
from persidict.exceptions import (
    MutationPolicyError,
    MutationPolicyErrorGroup,
    PreconditionFailed,
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
        """
        return dict(self._load_many(_each_as_key(keys)))

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
        pending = _PendingWrites(self, _pairs_of(items, kwargs))
        failures: list[Exception] = []
        while not pending.exhausted:
            for key, error in self._write_many(pending.batch(), only_new=self.append_only):
                pending.finish(key)
                if error is not None:
                    failures.append(self._explain(key, error))
            for key in pending.take_deletions():
                failures.extend(error for _, error in self._remove_many([key]))
        failures.extend(pending.refusals)
        _raise_failures("stored", failures, always_as_group=False)

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
        self._discard_all(_each_as_key(keys))

    def clear(self) -> None:
        """Delete all items, each atomically; the whole is not.

        Raises:
            MutationPolicyError: The dictionary is append-only.
            ExceptionGroup: Some items could not be deleted; its message names them. All
                others have been deleted.
        """
        self._refuse_deletion()
        self._discard_all(self._keys())

    def _discard_all(self, keys: Iterable[NonEmptySafeStrTuple]) -> None:
        failures = [self._explain(key, error) for key, error in self._remove_many(keys)]
        _raise_failures("deleted", failures, always_as_group=True)

    def _explain(self, key: NonEmptySafeStrTuple, error: Exception) -> Exception:
        """Say which item an error is about, in the words of the operation on one item."""
        if isinstance(error, PreconditionFailed):
            try:
                self._refuse_change(key)
            except MutationPolicyError as refusal:
                error = refusal
        error.add_note(f"persidict: item {key!r}")
        return error


class _PendingWrites:
    """Items on their way into a dictionary, in batches within which order does not matter.

    A batch ends where an item must wait: for an earlier value under the same key, or, if it
    is to be deleted, for all values before it. Bad items are set aside.
    """

    def __init__(self, dictionary: DictPrimitives, pairs: Iterator[_Pair]) -> None:
        self.exhausted = False
        self.refusals: list[Exception] = []
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
        for raw_key, value in self._pairs:
            try:
                key = as_key(raw_key)
                if value is DELETE_CURRENT:
                    self._dictionary._refuse_deletion()
                elif value is not KEEP_CURRENT:
                    self._dictionary._check_value(value)
            except (TypeError, ValueError) as error:  # raised by set_many, with the others
                error.add_note(f"persidict: item {raw_key!r}")
                self.refusals.append(error)
                continue
            if value is not KEEP_CURRENT:
                return key, value
        return None


def _each_as_key(keys: Iterable[NonEmptyPersiDictKey]) -> Iterator[NonEmptySafeStrTuple]:
    """Check many keys, lazily; a single one in their place is a mistake."""
    if isinstance(keys, (str, SafeStrTuple)):
        raise TypeError(
            f"keys must be an iterable of keys, not one key ({keys!r}): put it in a list"
        )
    return map(as_key, keys)


def _pairs_of(items: Any, kwargs: dict[str, Any]) -> Iterator[_Pair]:
    """Iterate over the pairs that `dict.update` would take from the same arguments."""
    if isinstance(items, Mapping):
        yield from items.items()
    elif hasattr(items, "keys"):
        for key in items.keys():  # noqa: SIM118  # what dict.update asks for
            yield key, items[key]
    else:
        for pair in items:
            key, value = pair
            yield key, value
    yield from kwargs.items()


def _raise_failures(done: str, failures: list[Exception], *, always_as_group: bool) -> None:
    """Raise what went wrong with several items as one exception that names them."""
    if not failures:
        return
    if len(failures) == 1 and not always_as_group:
        raise failures[0]
    notes = [note for error in failures for note in getattr(error, "__notes__", [])[-1:]]
    named = ", ".join(note.removeprefix("persidict: ") for note in notes[:_NAMED_KEYS])
    more = f" and {len(failures) - _NAMED_KEYS} more" if len(failures) > _NAMED_KEYS else ""
    count = "1 item" if len(failures) == 1 else f"{len(failures)} items"
    message = f"{count} could not be {done}: {named}{more}"
    refused = [error for error in failures if isinstance(error, MutationPolicyError)]
    if len(refused) == len(failures):
        raise MutationPolicyErrorGroup(refused[0].policy, message, refused)
    raise ExceptionGroup(message, failures)
