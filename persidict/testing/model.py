"""The contract of a dictionary on a plain dict: the oracle that real dictionaries are held to.

The model decides by itself what each operation returns, raises and leaves behind. One thing
it can't know: the ETag that a storage chooses for a new version. It asks for that through
`etag_of`, which is why an operation is done on the dictionary first and on the model after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple, TypeAlias

from persidict.exceptions import MutationPolicyError
from persidict.jokers_and_status_flags import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    VALUE_NOT_RETRIEVED,
    ConditionalOperationResult,
    ETagConditionFlag,
    ETagIfExists,
    ETagValue,
    Joker,
    OperationResult,
    RetrieveValueFlag,
)

Key: TypeAlias = tuple[str, ...]
"""A key in the model: the plain tuple of its strings."""


class Version(NamedTuple):
    """One version of an item.

    Attributes:
        value: The stored value.
        etag: The ETag that the storage gave to this version.
    """

    value: Any
    etag: ETagValue


class Outcome(NamedTuple):
    """How an operation ended: with a returned value, or with an error of an exact type.

    Attributes:
        returned: What was returned, None after an error.
        error: The type of the error, None if there was none.
        policy: The violated policy, if the error was a MutationPolicyError.
    """

    returned: Any = None
    error: type[Exception] | None = None
    policy: str | None = None


def outcome_of(operation: Callable[[], Any]) -> Outcome:
    """Run an operation and tell how it ended; errors outside of the contract pass through.

    Args:
        operation: What to run.

    Returns:
        Its outcome: outcomes of a dictionary and of its model compare with ``==``.
    """
    try:
        return Outcome(returned=operation())
    except MutationPolicyError as error:
        return Outcome(error=type(error), policy=error.policy)
    except KeyError:  # or a subclass that reads like it
        return Outcome(error=KeyError)
    except (TypeError, ValueError) as error:
        return Outcome(error=type(error))


def keys_in_range(
    keys: Iterable[Key], prefix: Key, start: Key | None, stop: Key | None
) -> list[Key]:
    """Return what a range shows: by the order of tuples of strings, half-open."""
    return sorted(
        key
        for key in keys
        if key[: len(prefix)] == prefix
        and (start is None or key >= start)
        and (stop is None or key < stop)
    )


class DictModel:
    """What a dictionary must hold and answer, by the contract.

    Args:
        etag_of: Tells the ETag of the item that was just written.
        append_only: Whether items can neither be changed nor removed.

    Attributes:
        policy: What a refused change is said to violate.
        items: The current version of every item.
        history: The ETags of all the versions that an item ever had, oldest first.
    """

    policy: ClassVar[str] = "append-only"

    def __init__(self, etag_of: Callable[[Key], ETagValue], *, append_only: bool = False) -> None:
        self.append_only = append_only
        self.items: dict[Key, Version] = {}
        self.history: dict[Key, list[ETagValue]] = {}
        self._etag_of = etag_of

    # What is there

    def values_below(self, prefix: Key) -> dict[Key, Any]:
        """Return the content of a sub-dictionary as a plain dict."""
        return {
            key[len(prefix) :]: version.value
            for key, version in self.items.items()
            if key[: len(prefix)] == prefix and key != prefix
        }

    def etag(self, key: Key) -> ETagIfExists:
        """Return the item's ETag, ITEM_NOT_AVAILABLE if there is no item."""
        return self.items[key].etag if key in self.items else ITEM_NOT_AVAILABLE

    # How it changes

    def _write(self, key: Key, value: Any) -> ETagValue:
        if self.append_only and key in self.items:
            raise MutationPolicyError(self.policy)
        etag = self._etag_of(key)
        self.items[key] = Version(value, etag)
        self.history.setdefault(key, []).append(etag)
        return etag

    def _refuse_deletion(self) -> None:
        if self.append_only:
            raise MutationPolicyError(self.policy)

    # The dict API

    def getitem(self, key: Key) -> Any:
        """``d[key]``."""
        return self.items[key].value

    def setitem(self, key: Key, value: Any) -> None:
        """``d[key] = value``, jokers included."""
        if value is DELETE_CURRENT:
            self.discard(key)
        elif value is not KEEP_CURRENT:
            self._write(key, value)

    def delitem(self, key: Key) -> None:
        """``del d[key]``."""
        self._refuse_deletion()
        del self.items[key]

    def discard(self, key: Key) -> bool:
        """``d.discard(key)``."""
        self._refuse_deletion()
        return self.items.pop(key, None) is not None

    def pop(self, key: Key, *default: Any) -> Any:
        """``d.pop(key)`` and ``d.pop(key, default)``."""
        self._refuse_deletion()
        if key not in self.items and default:
            return default[0]
        return self.items.pop(key).value

    def popitem(self) -> tuple[Key, Any]:
        """``d.popitem()``; another item than the dictionary's may be chosen."""
        self._refuse_deletion()
        key, version = self.items.popitem()
        return key, version.value

    def setdefault(self, key: Key, default: Any) -> Any:
        """``d.setdefault(key, default)``."""
        if isinstance(default, Joker):
            raise TypeError("a joker is no default")
        if key not in self.items:
            self._write(key, default)
        return self.items[key].value

    def clear(self) -> None:
        """``d.clear()``."""
        self._refuse_deletion()
        self.items.clear()

    # Conditional operations

    @staticmethod
    def _holds(condition: ETagConditionFlag, expected: ETagIfExists, actual: ETagIfExists) -> bool:
        if condition is ANY_ETAG:
            return True
        if condition is ETAG_IS_THE_SAME:
            return expected == actual
        if condition is ETAG_HAS_CHANGED:
            return expected != actual
        raise ValueError(f"no condition: {condition!r}")

    def _nothing_changed(
        self, key: Key, satisfied: bool, expected: ETagIfExists, retrieve: RetrieveValueFlag
    ) -> ConditionalOperationResult:
        """Return the first two rows of the table of outcomes."""
        if key not in self.items:
            return ConditionalOperationResult(
                satisfied, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE
            )
        value, etag = self.items[key]
        wanted = retrieve is ALWAYS_RETRIEVE or (retrieve is IF_ETAG_CHANGED and expected != etag)
        return ConditionalOperationResult(
            satisfied, etag, etag, value if wanted else VALUE_NOT_RETRIEVED
        )

    def _written(self, key: Key, value: Any) -> ConditionalOperationResult:
        """Write, and return the third row of the table of outcomes."""
        actual = self.etag(key)
        return ConditionalOperationResult(True, actual, self._write(key, value), value)

    def _deleted(self, key: Key) -> ConditionalOperationResult:
        """Delete an item, and return the fourth row of the table of outcomes."""
        self._refuse_deletion()
        actual = self.items.pop(key).etag
        return ConditionalOperationResult(True, actual, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)

    def get_with_etag(self, key: Key) -> ConditionalOperationResult:
        """``d.get_with_etag(key)``."""
        return self._nothing_changed(key, True, ITEM_NOT_AVAILABLE, ALWAYS_RETRIEVE)

    def get_item_if(
        self,
        key: Key,
        *,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """``d.get_item_if(key, ...)``."""
        satisfied = self._holds(condition, expected_etag, self.etag(key))
        return self._nothing_changed(key, satisfied, expected_etag, retrieve_value)

    def set_item_if(
        self,
        key: Key,
        *,
        value: Any,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """``d.set_item_if(key, ...)``, jokers included."""
        if value is DELETE_CURRENT:
            self._refuse_deletion()
        satisfied = self._holds(condition, expected_etag, self.etag(key))
        nothing_to_delete = value is DELETE_CURRENT and key not in self.items
        if not satisfied or value is KEEP_CURRENT or nothing_to_delete:
            return self._nothing_changed(key, satisfied, expected_etag, retrieve_value)
        return self._deleted(key) if value is DELETE_CURRENT else self._written(key, value)

    def setdefault_if(
        self,
        key: Key,
        *,
        default_value: Any,
        condition: ETagConditionFlag,
        expected_etag: ETagIfExists,
        retrieve_value: RetrieveValueFlag = IF_ETAG_CHANGED,
    ) -> ConditionalOperationResult:
        """``d.setdefault_if(key, ...)``."""
        if isinstance(default_value, Joker):
            raise TypeError("a joker is no default")
        satisfied = self._holds(condition, expected_etag, self.etag(key))
        if key in self.items or not satisfied:
            return self._nothing_changed(key, satisfied, expected_etag, retrieve_value)
        return self._written(key, default_value)

    def discard_if(
        self, key: Key, *, condition: ETagConditionFlag, expected_etag: ETagIfExists
    ) -> ConditionalOperationResult:
        """``d.discard_if(key, ...)``."""
        actual = self.etag(key)
        satisfied = self._holds(condition, expected_etag, actual)
        if key not in self.items:
            return ConditionalOperationResult(
                satisfied, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE
            )
        if not satisfied:
            return ConditionalOperationResult(False, actual, actual, VALUE_NOT_RETRIEVED)
        return self._deleted(key)

    def transform_item(self, key: Key, *, transformer: Callable[[Any], Any]) -> OperationResult:
        """``d.transform_item(key, ...)``, with nobody else around."""
        current = self.items[key].value if key in self.items else ITEM_NOT_AVAILABLE
        new_value = transformer(current)
        if new_value is KEEP_CURRENT:
            return OperationResult(self.etag(key), current)
        if new_value is DELETE_CURRENT:
            self.discard(key)
            return OperationResult(ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE)
        return OperationResult(self._write(key, new_value), new_value)
