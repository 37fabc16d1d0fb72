"""The vocabulary of conditional operations: jokers, conditions, sentinels and results.

Every flag class is a singleton: its constructor always returns the one instance, which
is compared with ``is`` and survives copying and pickling.
"""

from __future__ import annotations

import copyreg
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    NewType,
    Protocol,
    TypeAlias,
    runtime_checkable,
)

from persidict.parameters import Singleton

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # so that dictionaries and results need no annotation where values may be of any class
    ValueType = TypeVar("ValueType", default=Any)
else:
    from typing import TypeVar

    ValueType = TypeVar("ValueType")

ETagValue = NewType("ETagValue", str)
"""An opaque version of an item: equal ETags mean the same stored bytes."""


class _Flag(Singleton):
    """A named constant with a type of its own."""

    _constant_name: str | None = None

    def __repr__(self) -> str:
        return self._constant_name or f"{type(self).__name__}()"

    def __copy__(self) -> _Flag:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Flag:
        return self

    def __init_subclass__(cls) -> None:
        # not __reduce__, which jsonpickle would write down instead of the class alone
        copyreg.pickle(cls, _make_again)


def _make_again(flag: _Flag) -> tuple[Any, ...]:
    return type(flag), ()


class Joker(_Flag):
    """A stand-in for a value, telling the dictionary what to do instead of storing it."""


class KeepCurrentFlag(Joker):
    """Assigning it leaves the item as it is."""

    _constant_name = "KEEP_CURRENT"


class DeleteCurrentFlag(Joker):
    """Assigning it discards the item."""

    _constant_name = "DELETE_CURRENT"


class ETagConditionFlag(_Flag):
    """What must hold between the expected and the actual ETag of an item."""


class AnyETagFlag(ETagConditionFlag):
    """Always satisfied."""

    _constant_name = "ANY_ETAG"


class ETagIsTheSameFlag(ETagConditionFlag):
    """Satisfied when the expected ETag equals the actual one."""

    _constant_name = "ETAG_IS_THE_SAME"


class ETagHasChangedFlag(ETagConditionFlag):
    """Satisfied when the expected ETag differs from the actual one."""

    _constant_name = "ETAG_HAS_CHANGED"


class RetrieveValueFlag(_Flag):
    """Whether an operation that changes nothing fetches the stored value."""


class AlwaysRetrieveFlag(RetrieveValueFlag):
    """Fetch the stored value."""

    _constant_name = "ALWAYS_RETRIEVE"


class NeverRetrieveFlag(RetrieveValueFlag):
    """Do not fetch the stored value, and never deserialise it."""

    _constant_name = "NEVER_RETRIEVE"


class IfETagChangedRetrieveFlag(RetrieveValueFlag):
    """Fetch the stored value only when the expected ETag differs from the actual one."""

    _constant_name = "IF_ETAG_CHANGED"


class ItemNotAvailableFlag(_Flag):
    """The ETag, and the value, of an item that does not exist."""

    _constant_name = "ITEM_NOT_AVAILABLE"


class ValueNotRetrievedFlag(_Flag):
    """Stands where a value exists that was not fetched."""

    _constant_name = "VALUE_NOT_RETRIEVED"


KEEP_CURRENT: Final = KeepCurrentFlag()
DELETE_CURRENT: Final = DeleteCurrentFlag()
ANY_ETAG: Final = AnyETagFlag()
ETAG_IS_THE_SAME: Final = ETagIsTheSameFlag()
ETAG_HAS_CHANGED: Final = ETagHasChangedFlag()
ALWAYS_RETRIEVE: Final = AlwaysRetrieveFlag()
NEVER_RETRIEVE: Final = NeverRetrieveFlag()
IF_ETAG_CHANGED: Final = IfETagChangedRetrieveFlag()
ITEM_NOT_AVAILABLE: Final = ItemNotAvailableFlag()
VALUE_NOT_RETRIEVED: Final = ValueNotRetrievedFlag()

ETagIfExists: TypeAlias = ETagValue | ItemNotAvailableFlag
"""The version of an item, or ITEM_NOT_AVAILABLE when there is none."""


@runtime_checkable
class TransformingFunction(Protocol[ValueType]):
    """Takes the current value or ITEM_NOT_AVAILABLE; returns a new value or a joker."""

    def __call__(
        self, current_value: ValueType | ItemNotAvailableFlag, /
    ) -> ValueType | KeepCurrentFlag | DeleteCurrentFlag:
        """Compute the new value; may be called more than once."""


class _LateFields:
    """What makes a class a dataclass, for those who ask: the module takes long to load."""

    def __get__(self, instance: object, owner: type) -> dict[str, Any]:
        import dataclasses

        as_dataclass: Any = dataclasses.make_dataclass(
            owner.__name__, owner.__annotations__.items()
        )
        fields: dict[str, Any] = as_dataclass.__dataclass_fields__
        type.__setattr__(owner, "__dataclass_fields__", fields)
        return fields


class _Result:
    """Named results that never change: a frozen dataclass, made by hand."""

    __dataclass_fields__: ClassVar[Any] = _LateFields()

    def __setattr__(self, name: str, value: Any) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in type(self).__annotations__))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__qualname__}({shown})"


class OperationResult(_Result, Generic[ValueType]):
    """What `transform_item` left behind.

    Attributes:
        resulting_etag: The item's version afterwards, ITEM_NOT_AVAILABLE if there is none.
        new_value: The item's value afterwards, ITEM_NOT_AVAILABLE if there is none.
    """

    resulting_etag: ETagIfExists
    new_value: ValueType

    __match_args__ = ("resulting_etag", "new_value")

    def __init__(self, resulting_etag: ETagIfExists, new_value: ValueType) -> None:
        self.__dict__.update(resulting_etag=resulting_etag, new_value=new_value)


class ConditionalOperationResult(_Result, Generic[ValueType]):
    """What a conditional operation found and what it left behind.

    Attributes:
        condition_was_satisfied: Whether the condition held.
        actual_etag: The item's version before the operation.
        resulting_etag: The item's version after it.
        new_value: The item's value after it, ITEM_NOT_AVAILABLE when there is no item,
            VALUE_NOT_RETRIEVED when the value was not fetched.

    Examples:
        >>> result = ConditionalOperationResult(True, ETagValue("1"), ETagValue("2"), "new")
        >>> result.value_was_mutated
        True
    """

    condition_was_satisfied: bool
    actual_etag: ETagIfExists
    resulting_etag: ETagIfExists
    new_value: ValueType

    __match_args__ = ("condition_was_satisfied", "actual_etag", "resulting_etag", "new_value")

    def __init__(
        self,
        condition_was_satisfied: bool,
        actual_etag: ETagIfExists,
        resulting_etag: ETagIfExists,
        new_value: ValueType,
    ) -> None:
        self.__dict__.update(
            condition_was_satisfied=condition_was_satisfied,
            actual_etag=actual_etag,
            resulting_etag=resulting_etag,
            new_value=new_value,
        )

    @property
    def value_was_mutated(self) -> bool:
        """Whether the operation changed, inserted or deleted the item."""
        return self.resulting_etag != self.actual_etag
