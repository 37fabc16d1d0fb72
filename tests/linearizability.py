"""A linearizability checker for the items of a dictionary.

An item is a register with versions. Every operation on it, whatever its name, found the
register in some state and left it in some state; the checker looks for an order of all
operations that explains what each of them found, and in which no operation comes before
one that had returned when it was called.

The search is Wing and Gong's, with Lowe's just-in-time linearization: operations take
effect only when a return has to be explained, and the configurations reached are a set.
Where ETags or unique values are recorded, hardly more than one order is ever possible, and
a history of thousands of operations takes less than a second.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple, TypeAlias


class Mark(Enum):
    """States that are not a version, and things not known."""

    ABSENT = "absent"
    ANYTHING = "anything"
    UNCHANGED = "unchanged"
    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


ABSENT: Final = Mark.ABSENT
"""The state of an item that does not exist."""

ANYTHING: Final = Mark.ANYTHING
"""What an operation found that does not tell what it found."""

UNCHANGED: Final = Mark.UNCHANGED
"""What an operation left that changed nothing."""

UNKNOWN: Final = Mark.UNKNOWN
"""An ETag or a value that nobody told."""


class Version(NamedTuple):
    """An item that exists; what is not known of it is UNKNOWN. Values must be hashable."""

    etag: Hashable = UNKNOWN
    value: Hashable = UNKNOWN


State: TypeAlias = Version | Literal[Mark.ABSENT]
Found: TypeAlias = State | Literal[Mark.ANYTHING]
Left: TypeAlias = State | Literal[Mark.UNCHANGED]


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one operation on one key.

    Attributes:
        key: The key of the item.
        found: What the operation says of the item before it.
        left: What it made of the item.
        invoked: When it was called, by a clock that all processes share.
        returned: When it returned; None if it never did, or raised an error that leaves
            open whether it took effect.
        what: The call in words, for messages.
    """

    key: Hashable
    found: Found
    left: Left
    invoked: int
    returned: int | None
    what: str = ""

    def __str__(self) -> str:
        end = "never returned" if self.returned is None else f"returned {self.returned}"
        return (
            f"{self.what or 'operation'} on {self.key!r}: found {self.found}, left {self.left}"
            f" (invoked {self.invoked}, {end})"
        )


class NotLinearizable(AssertionError):
    """No order of the operations explains what they found."""


class _Configuration(NamedTuple):
    """A state that is possible now, and the calls in progress that took effect before."""

    state: State
    effective: frozenset[int]


def assert_linearizable(
    operations: Iterable[Operation], initial: Mapping[Hashable, State] | None = None
) -> None:
    """Check the history of each key.

    Args:
        operations: What was recorded, in any order.
        initial: The states before the first operation; keys not in it are absent.

    Raises:
        NotLinearizable: A history has no explanation; the message names the operation at
            which the last explanation failed and what ran beside it.
    """
    histories: defaultdict[Hashable, list[Operation]] = defaultdict(list)
    for operation in operations:
        histories[operation.key].append(operation)
    for key, history in histories.items():
        violation = find_violation(history, (initial or {}).get(key, ABSENT))
        if violation is not None:
            raise NotLinearizable(violation)


def assert_versions_are_unique(operations: Iterable[Operation]) -> None:
    """Check that no two versions of an item share an ETag.

    Raises:
        AssertionError: Two operations left the same ETag, or one ETag came with two values.
    """
    made: Counter[tuple[Hashable, Hashable]] = Counter()
    values: defaultdict[tuple[Hashable, Hashable], set[Hashable]] = defaultdict(set)
    for operation in operations:
        if isinstance(operation.left, Version):
            made[operation.key, operation.left.etag] += operation.left.etag is not UNKNOWN
        for version in (operation.found, operation.left):
            if isinstance(version, Version) and UNKNOWN not in version:
                values[operation.key, version.etag].add(version.value)
    shared = [name for name, count in made.items() if count > 1]
    assert not shared, f"several versions of one item have the same ETag: {shared}"
    ambiguous = {name: found for name, found in values.items() if len(found) > 1}
    assert not ambiguous, f"several values of one item have the same ETag: {ambiguous}"


def find_violation(history: Iterable[Operation], initial: State = ABSENT) -> str | None:
    """Look for an order that explains the history of one key.

    Args:
        history: All operations on the key, in any order.
        initial: The state before the first of them.

    Returns:
        None if there is such an order, else a description of where it fails.
    """
    operations = _without_unobserved(list(history))
    in_progress: set[int] = set()
    configurations = {_Configuration(initial, frozenset())}
    for index, is_return in _events(operations):
        if not is_return:
            in_progress.add(index)
            continue
        search = _Search(operations, in_progress, index)
        explained = search.run(configurations)
        if not explained:
            return _describe(operations, in_progress, index, configurations)
        in_progress.discard(index)
        configurations = explained
    return None


def _without_unobserved(operations: list[Operation]) -> list[Operation]:
    """Drop operations that never returned and whose effect explains nobody's finding."""
    findings = {operation.found for operation in operations} - {ANYTHING}
    return [
        operation
        for operation in operations
        if operation.returned is not None
        or (
            operation.left is not UNCHANGED
            and any(_refined(operation.left, finding) is not None for finding in findings)
        )
    ]


def _events(operations: list[Operation]) -> Iterator[tuple[int, bool]]:
    """Yield invocations and returns in order of time; at the same instant they overlap."""
    events = [(operation.invoked, False, i) for i, operation in enumerate(operations)]
    events += [
        (operation.returned, True, i)
        for i, operation in enumerate(operations)
        if operation.returned is not None
    ]
    return ((index, is_return) for _, is_return, index in sorted(events))


def _refined(state: State, found: Found) -> State | None:
    """Return what is known of the state once an operation found this, None if it can't be."""
    if found is ANYTHING:
        return state
    if isinstance(state, Version) and isinstance(found, Version):
        if state.etag is not UNKNOWN and found.etag not in (UNKNOWN, state.etag):
            return None
        if state.value is not UNKNOWN and found.value not in (UNKNOWN, state.value):
            return None
        return Version(
            found.etag if state.etag is UNKNOWN else state.etag,
            found.value if state.value is UNKNOWN else state.value,
        )
    return state if state is found else None


class _Search:
    """The configurations in which one operation has taken effect."""

    def __init__(self, operations: list[Operation], in_progress: set[int], target: int) -> None:
        self._operations = operations
        self._in_progress = in_progress
        self._target = target
        self._reads = [i for i in in_progress if operations[i].left is UNCHANGED]

    def run(self, configurations: Iterable[_Configuration]) -> set[_Configuration]:
        explained: set[_Configuration] = set()
        stack = [self._with_reads(configuration) for configuration in configurations]
        seen = set(stack)
        while stack:
            configuration = stack.pop()
            state, effective = configuration
            if self._target in effective:
                explained.add(_Configuration(state, effective - {self._target}))
                continue
            for following in self._successors(configuration):
                if following not in seen:
                    seen.add(following)
                    stack.append(following)
        return explained

    def _with_reads(self, configuration: _Configuration) -> _Configuration:
        """Let every read take effect that fits: that can never spoil an explanation."""
        state, effective = configuration
        fitting = [
            i
            for i in self._reads
            if i not in effective and _refined(state, self._operations[i].found) == state
        ]
        return _Configuration(state, effective.union(fitting)) if fitting else configuration

    def _successors(self, configuration: _Configuration) -> Iterator[_Configuration]:
        state, effective = configuration
        for i in self._in_progress:
            if i in effective:
                continue
            operation = self._operations[i]
            refined = _refined(state, operation.found)
            if refined is None:
                continue
            following = refined if operation.left is UNCHANGED else operation.left
            taken = effective | {i}
            if operation.returned is not None or self._is_observed(following, taken):
                yield self._with_reads(_Configuration(following, taken))

    def _is_observed(self, state: State, effective: frozenset[int]) -> bool:
        """Tell whether an operation comes next that depends on finding this state.

        If not, leaving out the operation that led to it, which never returned, explains as
        much.
        """
        return any(
            self._operations[i].found is not ANYTHING
            and _refined(state, self._operations[i].found) is not None
            for i in self._in_progress - effective
        )


def _describe(
    operations: list[Operation],
    in_progress: set[int],
    index: int,
    configurations: set[_Configuration],
) -> str:
    states = sorted({str(configuration.state) for configuration in configurations})
    beside = sorted(in_progress - {index}, key=lambda i: operations[i].invoked)
    lines = [
        "no order of the operations explains",
        f"  {operations[index]}",
        f"the item was one of these before it: {', '.join(states)}",
        "and these ran beside it:",
        *(f"  {operations[i]}" for i in beside),
    ]
    return "\n".join(lines)
