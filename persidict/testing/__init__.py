"""Tests for storages of your own (extra ``testing``: pytest, hypothesis).

`DictConformance` holds a dictionary to the contract, operation by operation;
`StoreConformance` holds an object store to its port; `state_machine_for` drives a dictionary
through random histories beside a model of the contract, `store_machine_for` a store beside a
model of the port.
"""

try:
    import hypothesis  # noqa: F401
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"persidict.testing needs {error.name}: pip install 'persidict[testing]'", name=error.name
    ) from error

pytest.register_assert_rewrite(
    *(
        f"persidict.testing.{module}"
        for module in (
            "_append_only",
            "_base",
            "_bulk",
            "_changing",
            "_conditions",
            "_keys",
            "_parameters",
            "_reading",
            "_stores",
            "_subdicts",
            "_time",
            "_transfers",
            "_transforming",
            "state_machines",
            "store_machine",
        )
    )
)

from persidict.testing.dict_conformance import (  # noqa: E402
    AppendOnlyDictConformance,
    DictConformance,
    InsertingDictConformance,
    MutableDictConformance,
)
from persidict.testing.model import DictModel  # noqa: E402
from persidict.testing.state_machines import state_machine_for  # noqa: E402
from persidict.testing.store_conformance import StoreConformance  # noqa: E402
from persidict.testing.store_machine import store_machine_for  # noqa: E402

__all__ = [
    "AppendOnlyDictConformance",
    "DictConformance",
    "DictModel",
    "InsertingDictConformance",
    "MutableDictConformance",
    "StoreConformance",
    "state_machine_for",
    "store_machine_for",
]
