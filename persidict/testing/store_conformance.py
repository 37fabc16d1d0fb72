"""The conformance suite of object stores: the port, as tests that any store can run."""

from __future__ import annotations

from persidict.testing._stores import (
    StoreBulkTests,
    StoreChangingTests,
    StoreListingTests,
    StoreReadingTests,
    StoreScopeTests,
)


class StoreConformance(
    StoreReadingTests, StoreChangingTests, StoreListingTests, StoreScopeTests, StoreBulkTests
):
    """Everything that the port asks of an object store.

    Subclass it in a test module and give it the fixture `new_store`: a callable that makes a
    fresh, empty store in a new place. Override `etags_never_repeat` where ETags name the
    content, as those of S3 do.
    """
