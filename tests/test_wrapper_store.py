"""WrapperStore: everything of the store beneath is there."""

from __future__ import annotations

import inspect

from persidict.stores.object_store import ObjectStore
from persidict.stores.wrapper_store import WrapperStore


def test_every_member_of_the_port_is_forwarded() -> None:
    members = {name for name, _ in inspect.getmembers(ObjectStore) if not name.startswith("_")}
    assert members <= set(vars(WrapperStore))
