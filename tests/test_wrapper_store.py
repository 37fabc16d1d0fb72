"""WrapperStore: everything of the store beneath is there."""

from __future__ import annotations

import inspect
from typing import Any
from unittest import mock

import pytest

from persidict.stores.memory import MemoryStore
from persidict.stores.object_store import ObjectStore
from persidict.stores.wrapper_store import WrapperStore

MEMBERS = [name for name, _ in inspect.getmembers(ObjectStore) if not name.startswith("_")]
METHODS = [name for name in MEMBERS if inspect.isfunction(getattr(ObjectStore, name))]
STORES = {"scoped", "for_reading"}
"""What returns a store: a wrapper of what lies beneath."""


def test_every_member_of_the_port_is_forwarded() -> None:
    assert set(MEMBERS) <= set(vars(WrapperStore))
    assert {*METHODS, "traits"} == set(MEMBERS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_passes_on_all_that_it_is_given_and_gets(name: str) -> None:
    beneath: Any = mock.create_autospec(MemoryStore, instance=True)
    wrapper = WrapperStore(beneath)
    parameters = [*inspect.signature(getattr(ObjectStore, name)).parameters.values()][1:]
    given = [object() for p in parameters if p.kind is not p.KEYWORD_ONLY]
    named: dict[str, Any] = {p.name: object() for p in parameters if p.kind is p.KEYWORD_ONLY}
    found = getattr(wrapper, name)(*given, **named)
    asked = getattr(beneath, name)
    asked.assert_called_once_with(*given, **named)
    got = found.wrapped if name in STORES else found
    assert name == "delete" or got is asked.return_value
    assert type(found) is WrapperStore or name not in STORES


def test_traits_are_those_beneath() -> None:
    beneath = MemoryStore()
    assert WrapperStore(WrapperStore(beneath)).traits is beneath.traits
