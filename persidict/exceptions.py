"""Errors that persidict raises by itself.

The first three are what users see. `ObjectNotFound` and `PreconditionFailed` are the
answers of a storage; `PersiDict` turns them into ``KeyError`` and into results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from persidict.jokers_and_status_flags import ETagValue

ErrorType = TypeVar("ErrorType", bound=BaseException)

_SHOWN_OF_TEXT: Final = 40


def without_frames(error: ErrorType) -> ErrorType:
    """Take from an error what keeps values alive, where many errors are kept to be reported.

    That is the frames in which it and the errors behind it were raised, and the object that
    Python's own errors carry about.
    """
    current: BaseException | None = error
    seen = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        current.__traceback__ = None
        # what the caller was handling meanwhile may be there, and is not ours to change
        current.__context__ = None
        if isinstance(current, AttributeError):
            current.obj = None
        elif isinstance(current, UnicodeEncodeError) and len(current.object) > _SHOWN_OF_TEXT:
            current.add_note(f"persidict: at position {current.start} of a longer text")
            end = min(current.end, current.start + _SHOWN_OF_TEXT)
            current.object = current.object[current.start : end]
            current.start, current.end = 0, len(current.object)
        current = current.__cause__
    return error


class _MissingKey(KeyError):
    """The KeyError of an item that is not there: it reads like that of a dict.

    Its argument is the key as dictionaries have it; a dict of tuples would show strings.
    """

    def __str__(self) -> str:
        strings = getattr(self.args[0], "strings", None) if len(self.args) == 1 else None
        if not isinstance(strings, tuple):
            return super().__str__()
        return repr(strings[0] if len(strings) == 1 else strings)

    def __reduce__(self) -> tuple[Any, ...]:
        # where it is stored, anybody's Python reads it
        return KeyError, self.args, self.__dict__ or None


_MissingKey.__name__ = _MissingKey.__qualname__ = KeyError.__name__
_MissingKey.__module__ = KeyError.__module__
"""In a traceback, too, it is what everybody knows, and what `except` has to name."""


def missing_key(key: object) -> KeyError:
    """Return what is raised where there is no item under a key."""
    return _MissingKey(key)


class MutationPolicyError(TypeError):
    """A change that the dictionary's policy forbids was refused; nothing was changed.

    Attributes:
        policy: ``"append-only"``, ``"write-once"`` or ``"read-only"``.

    Examples:
        >>> MutationPolicyError("append-only", "the item exists").policy
        'append-only'
    """

    def __init__(self, policy: str, message: str | None = None) -> None:
        self.policy = policy
        self._message = message
        text = f"the dictionary is {policy}"
        super().__init__(f"{text}: {message}" if message else text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.policy, self._message)


class MutationPolicyErrorGroup(ExceptionGroup[MutationPolicyError], MutationPolicyError):
    """Several items of one operation were refused by the dictionary's policy.

    Can be caught as the MutationPolicyError that a single refused item raises.

    Attributes:
        policy: ``"append-only"``, ``"write-once"`` or ``"read-only"``.
        exceptions: One MutationPolicyError for each refused item.
    """

    def __new__(
        cls, policy: str, message: str, errors: Sequence[MutationPolicyError]
    ) -> MutationPolicyErrorGroup:
        """Make the group as its first base class does, which takes no policy."""
        return super().__new__(cls, message, errors)

    def __init__(self, policy: str, message: str, errors: Sequence[MutationPolicyError]) -> None:
        self.policy = policy

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.policy, self.message, self.exceptions)


class ConcurrencyConflictError(RuntimeError):
    """`transform_item` lost the race for an item more often than it was allowed to.

    Attributes:
        key: The key of the contested item.
        attempts: How many times the change was tried.
    """

    def __init__(self, key: Any, attempts: int) -> None:
        self.key = key
        self.attempts = attempts
        super().__init__(
            f"item {key!r} was changed by others during each of {attempts} attempts;"
            " transform_item takes a larger n_retries, or None to never give up"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.attempts)


class BackendError(RuntimeError):
    """An infrastructure condition that this package itself detected.

    Attributes:
        backend: The kind of storage, e.g. ``"files"`` or ``"s3"``.
        operation: What was being done, e.g. ``"get"``.
        key: The key or object name concerned, None if none was.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str | None = None,
        operation: str | None = None,
        key: Any = None,
    ) -> None:
        self.backend = backend
        self.operation = operation
        self.key = key
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"backend": self.backend, "operation": self.operation, "key": self.key}
        return type(self), (str(self),), state


class UnreadableItemsError(ExceptionGroup[Exception], BackendError):
    """Of many items some could not be read; all others have been, before this is raised.

    Can be caught as the BackendError that a single broken item raises.

    Attributes:
        exceptions: What went wrong, each with a note that names the item; of very many, those
            of the first 100, and the message tells how many there are.
        found: The others, by key, where an operation returns them all at once (`get_many`);
            else empty.
        count: How many items could not be read.
    """

    def __new__(cls, message: str, errors: Sequence[Exception], count: int) -> UnreadableItemsError:
        """Make the group as its first base class does, which takes no count."""
        return super().__new__(cls, message, errors)

    def __init__(self, message: str, errors: Sequence[Exception], count: int) -> None:
        self.found: dict[Any, Any] = {}
        self.count = count
        self.backend = None
        self.operation = "get"
        self.key = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.exceptions, self.count), {"found": self.found}


class ProtectionError(BackendError):
    """Stored bytes are not what was written there: altered, moved, unprotected, or of another key.

    Nothing of them was decoded.
    """


class LossyValueWarning(UserWarning):
    """A value was stored of which a part will not come back as it was.

    Names the classes whose objects cannot be held in the format. Turned into an error by a
    warnings filter, it stops the write before anything has changed.
    """


class ObjectNotFound(LookupError):
    """A storage's answer: there is nothing under that name."""


class NoBytesError(TypeError):
    """A value is asked for as bytes that a LocalDict could only copy, not encode."""


class PreconditionFailed(Exception):
    """A storage's answer: the item is not in the state that the caller required.

    Attributes:
        actual_etag: The version found instead, ITEM_NOT_AVAILABLE for an absent item, or
            None where the storage cannot tell without asking again.
    """

    def __init__(self, message: str = "", *, actual_etag: Any = None) -> None:
        self.actual_etag = actual_etag
        super().__init__(message)

    def written_after_all(self, seen_etag: ETagValue | None) -> ETagValue | None:
        """Tell whether the refused write took place after all, and which version it made.

        Something between client and server may deliver a request twice and pass on the
        second answer. Whoever is about to report a refusal asks for that first. Most
        storages cannot be mistaken when they refuse, and say no.

        Args:
            seen_etag: The version that the caller has seen since; None: it has not looked.

        Returns:
            The version that the write made; None: it did not take place.

        Raises:
            Exception: The storage's own, if that cannot be found out.
        """
        return None
