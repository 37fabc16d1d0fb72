"""Hypothesis state machines: random histories of a dictionary beside the model of its contract."""

from __future__ import annotations

import copy
import unittest
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from persidict.jokers_and_status_flags import (
    ALWAYS_RETRIEVE,
    ANY_ETAG,
    DELETE_CURRENT,
    ETAG_HAS_CHANGED,
    ETAG_IS_THE_SAME,
    IF_ETAG_CHANGED,
    ITEM_NOT_AVAILABLE,
    KEEP_CURRENT,
    NEVER_RETRIEVE,
    ETagIfExists,
)
from persidict.testing._base import AnyDict, as_tuple, content_of
from persidict.testing.model import DictModel, Key, keys_in_range, outcome_of
from persidict.testing.samples import groups_of_keys, sample_values

RETRIEVALS = st.sampled_from([ALWAYS_RETRIEVE, NEVER_RETRIEVE, IF_ETAG_CHANGED])
CONDITION = st.fixed_dictionaries(
    {
        "condition": st.sampled_from([ETAG_IS_THE_SAME, ETAG_HAS_CHANGED, ANY_ETAG]),
        "expected_etag": st.sampled_from(["current", "stale", "of another item", "absent"]),
    }
)
JOKERS: st.SearchStrategy[Any] = st.sampled_from([KEEP_CURRENT, DELETE_CURRENT])


def _chosen(names: str) -> st.SearchStrategy[Any]:
    """Return a strategy that draws from a list that the machine holds."""
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine, names)))


KEYS: st.SearchStrategy[Key] = _chosen("keys_in_play")
SOME_KEYS: st.SearchStrategy[list[Key]] = st.runner().flatmap(
    lambda machine: st.lists(st.sampled_from(machine.keys_in_play), max_size=3, unique=True)
)
VALUES = _chosen("values_in_play")
REACHES: st.SearchStrategy[str] = _chosen("reaches")


class DictMachine(RuleBasedStateMachine):
    """One dictionary, reached through several handles, beside its model.

    Every rule does one operation on both and compares how it ended. Where an operation is
    done through a sub-dictionary, the model does it on the whole key.
    """

    new_dict: ClassVar[Callable[[], AnyDict]]
    model_class: ClassVar[type[DictModel]]
    detours: ClassVar[Mapping[str, Callable[[AnyDict], AnyDict]]]
    etags_never_repeat: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        self.d = type(self).new_dict()
        self.model = self.model_class(self._etag_of, append_only=self.d.append_only)
        self.keys_in_play: list[Key] = []
        self.values_in_play = list(sample_values(self.d.serialization_format))
        self.reaches = ["itself", "a copy", "its first part", "all but its last part"]
        self.reaches += list(self.detours)

    def _etag_of(self, key: Key) -> Any:
        etag = self.d.etag(key)
        if self.etags_never_repeat:
            assert etag not in self.model.history.get(key, []), f"{etag!r} came back for {key!r}"
        return etag

    def _reach(self, key: Key, how: str) -> tuple[AnyDict, Key]:
        """Return a handle that shows the item, and the item's key in it."""
        if how in self.detours:
            return self.detours[how](self.d), key
        if how == "a copy":
            return copy.copy(self.d), key
        cut = {"its first part": 1, "all but its last part": len(key) - 1}.get(how, 0)
        cut = min(cut, len(key) - 1)
        return (self.d.get_subdict(key[:cut]), key[cut:]) if cut else (self.d, key)

    def _expected(self, key: Key, expectation: str) -> ETagIfExists:
        match expectation:
            case "current":
                return self.model.etag(key)
            case "stale":
                return self.model.history.get(key, [ITEM_NOT_AVAILABLE])[0]
            case "of another item":
                others = [etags[-1] for k, etags in self.model.history.items() if k != key]
                return others[-1] if others else ITEM_NOT_AVAILABLE
            case _:
                return ITEM_NOT_AVAILABLE

    @staticmethod
    def _agree(real: Callable[[], Any], modelled: Callable[[], Any]) -> None:
        """Do an operation on the dictionary, then on the model, and compare how it ended."""
        found = outcome_of(real)
        assert found == outcome_of(modelled)

    # What the example is about

    @initialize(
        chosen=st.runner().flatmap(lambda machine: groups_of_keys(machine.d.serialization_format)),
        filled=st.integers(0, 6),
    )
    def choose_keys(self, chosen: list[Key], filled: int) -> None:
        """Choose a few keys, so that operations meet each other; some have items already."""
        self.keys_in_play = chosen
        for key, value in zip(chosen[:filled], self.values_in_play, strict=False):
            self.assign(key=key, value=value, how="itself")

    # The dict API

    @rule(key=KEYS, how=REACHES)
    def read(self, key: Key, how: str) -> None:
        """Read an item in three ways."""
        d, local = self._reach(key, how)
        self._agree(lambda: d[local], lambda: self.model.getitem(key))
        assert (local in d) == (key in self.model.items)
        version = self.model.items.get(key)
        assert d.get(local, ITEM_NOT_AVAILABLE) == (version[0] if version else ITEM_NOT_AVAILABLE)

    @rule(key=KEYS, value=st.one_of(VALUES, VALUES, VALUES, JOKERS), how=REACHES)
    def assign(self, key: Key, value: Any, how: str) -> None:
        """Assign a value or a joker."""
        d, local = self._reach(key, how)
        self._agree(lambda: d.__setitem__(local, value), lambda: self.model.setitem(key, value))

    @rule(key=KEYS, value=st.one_of(VALUES, VALUES, VALUES, JOKERS), how=REACHES)
    def set_default(self, key: Key, value: Any, how: str) -> None:
        """Insert if absent."""
        d, local = self._reach(key, how)
        self._agree(lambda: d.setdefault(local, value), lambda: self.model.setdefault(key, value))

    @rule(key=KEYS, how=REACHES)
    def delete(self, key: Key, how: str) -> None:
        """Delete with `del`."""
        d, local = self._reach(key, how)
        self._agree(lambda: d.__delitem__(local), lambda: self.model.delitem(key))

    @rule(key=KEYS, how=REACHES)
    def discard(self, key: Key, how: str) -> None:
        """Delete if there is something to delete."""
        d, local = self._reach(key, how)
        self._agree(lambda: d.discard(local), lambda: self.model.discard(key))

    @rule(key=KEYS, default=st.sampled_from([(), (None,)]), how=REACHES)
    def pop(self, key: Key, default: tuple[Any, ...], how: str) -> None:
        """Take an item out."""
        d, local = self._reach(key, how)
        self._agree(lambda: d.pop(local, *default), lambda: self.model.pop(key, *default))

    @rule()
    def pop_any(self) -> None:
        """Take any item out; which one, the dictionary decides."""
        found = outcome_of(self.d.popitem)
        if found.error is None:
            key, value = found.returned
            assert value == self.model.pop(as_tuple(key))
        else:
            assert found == outcome_of(self.model.popitem)

    @rule(
        content=st.runner().flatmap(
            lambda machine: st.dictionaries(
                st.sampled_from(machine.keys_in_play),
                st.one_of(st.sampled_from(machine.values_in_play), JOKERS),
                max_size=3,
            )
        ),
        in_place=st.booleans(),
    )
    def update(self, content: dict[Key, Any], in_place: bool) -> None:
        """Write several items; an append-only dictionary is given new ones only."""
        if self.d.append_only:
            content = {
                key: value
                for key, value in content.items()
                if key not in self.model.items and value is not DELETE_CURRENT
            }
        if in_place:
            self.d |= content
        else:
            self.d.update(list(content.items()))
        for key, value in content.items():
            self.model.setitem(key, value)

    @rule(key=KEYS, how=REACHES, really=st.integers(0, 3))
    def clear(self, key: Key, how: str, really: int) -> None:
        """Remove everything, rarely, or all that lies below a prefix."""
        d, local = self._reach(key, how)
        prefix = key[: len(key) - len(local)]
        if not prefix and really:
            return
        below = [(*prefix, *rest) for rest in self.model.values_below(prefix)]
        found = outcome_of(d.clear)
        if self.d.append_only:
            assert found == outcome_of(self.model.clear)
            return
        assert found == outcome_of(lambda: None)
        for gone in below:
            self.model.delitem(gone)

    # Many items

    @rule(chosen=SOME_KEYS)
    def read_many(self, chosen: list[Key]) -> None:
        """Read several items at once."""
        found = {as_tuple(key): value for key, value in self.d.get_many(chosen).items()}
        assert found == {
            key: self.model.items[key].value for key in chosen if key in self.model.items
        }

    @rule(chosen=SOME_KEYS)
    def discard_many(self, chosen: list[Key]) -> None:
        """Delete several items at once."""
        found = outcome_of(lambda: self.d.discard_many(chosen))
        if self.d.append_only:
            assert found == outcome_of(self.model.clear)
            return
        assert found == outcome_of(lambda: None)
        for key in chosen:
            self.model.discard(key)

    @rule(key=KEYS, start=st.one_of(st.none(), KEYS), stop=st.one_of(st.none(), KEYS))
    def compare_a_range(self, key: Key, start: Key | None, stop: Key | None) -> None:
        """Look at a range of the items that share the beginning of a key."""
        prefix = key[:-1]
        expected = keys_in_range(self.model.items, prefix, start, stop)
        assert [as_tuple(key) for key in self.d.keys(prefix, start or (), stop)] == expected

    # Conditional operations

    @rule(key=KEYS, how=REACHES)
    def get_with_etag(self, key: Key, how: str) -> None:
        """Read value and version."""
        d, local = self._reach(key, how)
        self._agree(lambda: d.get_with_etag(local), lambda: self.model.get_with_etag(key))

    def _agree_if(self, operation: str, key: Key, how: str, **arguments: Any) -> None:
        """Carry out a conditional operation on both sides."""
        d, local = self._reach(key, how)
        arguments["expected_etag"] = self._expected(key, arguments["expected_etag"])
        self._agree(
            lambda: getattr(d, operation)(local, **arguments),
            lambda: getattr(self.model, operation)(key, **arguments),
        )

    @rule(key=KEYS, how=REACHES, condition=CONDITION, retrieve_value=RETRIEVALS)
    def get_item_if(self, key: Key, how: str, condition: dict[str, Any], **arguments: Any) -> None:
        """Read on a condition."""
        self._agree_if("get_item_if", key, how, **condition, **arguments)

    @rule(
        key=KEYS,
        how=REACHES,
        condition=CONDITION,
        retrieve_value=RETRIEVALS,
        value=st.one_of(VALUES, VALUES, JOKERS),
    )
    def set_item_if(self, key: Key, how: str, condition: dict[str, Any], **arguments: Any) -> None:
        """Write or delete on a condition."""
        self._agree_if("set_item_if", key, how, **condition, **arguments)

    @rule(
        key=KEYS,
        how=REACHES,
        condition=CONDITION,
        retrieve_value=RETRIEVALS,
        default_value=st.one_of(VALUES, VALUES, VALUES, JOKERS),
    )
    def setdefault_if(
        self, key: Key, how: str, condition: dict[str, Any], **arguments: Any
    ) -> None:
        """Insert on a condition."""
        self._agree_if("setdefault_if", key, how, **condition, **arguments)

    @rule(key=KEYS, how=REACHES, condition=CONDITION)
    def discard_if(self, key: Key, how: str, condition: dict[str, Any]) -> None:
        """Delete on a condition."""
        self._agree_if("discard_if", key, how, **condition)

    @rule(key=KEYS, answer=st.one_of(VALUES, VALUES, JOKERS), how=REACHES)
    def transform_item(self, key: Key, answer: Any, how: str) -> None:
        """Replace, keep or delete an item by a transformer."""
        d, local = self._reach(key, how)
        seen: list[Any] = []

        def transformer(current: Any) -> Any:
            seen.append(current)
            return answer

        self._agree(
            lambda: d.transform_item(local, transformer=transformer),
            lambda: self.model.transform_item(key, transformer=transformer),
        )
        given, *modelled = seen or [None, None]
        assert modelled == [given]

    # What is there

    @invariant()
    def lists_the_keys_of_the_model(self) -> None:
        """Every key that went in is listed, once, as it went in."""
        assert sorted(map(as_tuple, self.d)) == sorted(self.model.items)

    @rule()
    def compare_everything(self) -> None:
        """Look at all that can be seen from above."""
        expected = self.model.values_below(())
        assert content_of(self.d) == expected
        assert (len(self.d), bool(self.d)) == (len(expected), bool(expected))
        assert self.d == expected
        assert {key: self.d.etag(key) for key in expected} == {
            key: version.etag for key, version in self.model.items.items()
        }

    @rule(how=REACHES, key=KEYS)
    def compare_below_a_prefix(self, how: str, key: Key) -> None:
        """Look at the content of a sub-dictionary."""
        d, local = self._reach(key, how)
        assert content_of(d) == self.model.values_below(key[: len(key) - len(local)])

    @rule()
    def compare_first_parts(self) -> None:
        """Look at all sub-dictionaries at once."""
        shown = {first: content_of(sub) for first, sub in self.d.subdicts().items()}
        assert shown == {key[0]: self.model.values_below(key[:1]) for key in self.model.items}

    @rule(max_n=st.sampled_from([None, 1, 2, 0]))
    def compare_times(self, max_n: int | None) -> None:
        """Look at timestamps and at the order by them."""
        times = {as_tuple(key): time for key, time in self.d.keys_and_timestamps()}
        assert times == {key: self.d.timestamp(key) for key in self.model.items}
        newest = [times[as_tuple(key)] for key in self.d.newest_keys(max_n=max_n)]
        assert newest == sorted(times.values(), reverse=True)[:max_n]

    @rule()
    def draw_a_random_key(self) -> None:
        """Draw a key from those that are there."""
        drawn = self.d.random_key()
        assert (drawn is None) == (not self.model.items)
        assert drawn is None or as_tuple(drawn) in self.model.items


def state_machine_for(
    new_dict: Callable[[], AnyDict],
    *,
    model_class: type[DictModel] = DictModel,
    etags_never_repeat: bool = True,
    detours: Mapping[str, Callable[[AnyDict], AnyDict]] | None = None,
) -> type[unittest.TestCase]:
    """Return a test case that drives a dictionary through random histories beside a model.

    How many histories and how long they are is a matter of the Hypothesis profile that is
    loaded when the test case is made (`max_examples`, `stateful_step_count`).

    Args:
        new_dict: Makes a fresh, empty dictionary in a new place, mutable or append-only.
        model_class: What the dictionary is compared with.
        etags_never_repeat: Whether an item never gets an ETag again that it had before.
        detours: Other ways to the same items, such as the dictionary behind a cache: each
            makes a handle from the dictionary, and operations go through it now and then.

    Returns:
        A `unittest.TestCase` class. Assigned to a name in a test module it is collected.

    Examples:
        >>> from persidict.local_dict import LocalDict
        >>> TestLocalDict = state_machine_for(LocalDict)
    """
    attributes = {
        "new_dict": staticmethod(new_dict),
        "model_class": model_class,
        "etags_never_repeat": etags_never_repeat,
        "detours": dict(detours or {}),
    }
    machine: type[Any] = type("DictMachineInUse", (DictMachine,), attributes)
    machine.TestCase.settings = settings(deadline=None, suppress_health_check=list(HealthCheck))
    test_case: type[unittest.TestCase] = machine.TestCase
    return test_case
