"""The conformance suite of dictionaries: the contract, as tests that any of them can run."""

from __future__ import annotations

import pytest

from persidict.testing._append_only import AppendOnlyTests, AppendOnlyTransformTests
from persidict.testing._base import AnyDict, NewDict
from persidict.testing._bulk import (
    BulkAppendOnlyTests,
    BulkChangingTests,
    BulkReadingTests,
    RangeChangingTests,
    RangeTests,
)
from persidict.testing._changing import ChangingTests, IsolationTests
from persidict.testing._conditions import ConditionalChangeTests, ConditionalReadTests
from persidict.testing._keys import KeyTests
from persidict.testing._parameters import (
    ChangingValueTests,
    ConstructorTests,
    HandleTests,
    ValueTests,
)
from persidict.testing._read_only import ReadOnlyTests
from persidict.testing._reading import EqualityTests, ReadingTests, ViewTests
from persidict.testing._subdicts import SubdictChangingTests, SubdictReadingTests
from persidict.testing._time import TimeTests
from persidict.testing._transfers import (
    StoredBytesTests,
    TransferAppendOnlyTests,
    TransferChangingTests,
    TransferTests,
)
from persidict.testing._transforming import TransformChangeTests, TransformInsertTests


class InsertingDictConformance(
    ReadingTests,
    EqualityTests,
    ViewTests,
    KeyTests,
    SubdictReadingTests,
    TimeTests,
    ConditionalReadTests,
    HandleTests,
    ValueTests,
    BulkReadingTests,
    RangeTests,
    TransferTests,
    ReadOnlyTests,
):
    """What every dictionary does that takes new items, whether or not they can change.

    `new_dict` may return dictionaries that are append-only or write-once by nature.
    """


class AppendOnlyDictConformance(
    InsertingDictConformance, AppendOnlyTests, BulkAppendOnlyTests, TransferAppendOnlyTests
):
    """What a dictionary does that is append-only by nature."""

    @pytest.fixture
    def append_only_d(self, new_dict: NewDict) -> AnyDict:
        """Return a fresh, empty dictionary; there is no need to ask for the policy."""
        return new_dict()


class MutableDictConformance(
    InsertingDictConformance,
    ChangingTests,
    IsolationTests,
    SubdictChangingTests,
    ConditionalChangeTests,
    TransformInsertTests,
    TransformChangeTests,
    ChangingValueTests,
    BulkChangingTests,
    RangeChangingTests,
    TransferChangingTests,
):
    """What a dictionary does whose items can be changed and removed."""


class DictConformance(
    MutableDictConformance,
    AppendOnlyTests,
    AppendOnlyTransformTests,
    BulkAppendOnlyTests,
    TransferAppendOnlyTests,
    StoredBytesTests,
    ConstructorTests,
):
    """Everything that the contract asks of a storage with the common parameters.

    Subclass it in a test module and give it the fixture `new_dict`: a callable that makes a
    fresh, empty dictionary in a new place, and passes its keyword arguments (`append_only`,
    `base_class_for_values`, `serialization_format`) on to the constructor. A dictionary for
    text has to be made with ``base_class_for_values=str`` unless told otherwise.

    Override `etags_never_repeat` where ETags name the content, as those of S3 do, and
    `handles_travel` where a handle can't be pickled.

    Examples:
        A test module of a storage of your own::

            class TestMyDict(DictConformance):
                @pytest.fixture
                def new_dict(self, tmp_path):
                    places = map(str, itertools.count())
                    return lambda **params: MyDict(place=tmp_path / next(places), **params)
    """
