"""Persistent dictionaries: used like a dict, kept in files, in S3 or in RAM.

Many threads, processes and machines may work on one dictionary at once, and nobody's
update is lost: every item has an ETag, and conditional operations change it only if it is
still the version that the caller saw.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from persidict.exceptions import (
    BackendError,
    ConcurrencyConflictError,
    LossyValueWarning,
    MutationPolicyError,
    MutationPolicyErrorGroup,
    ProtectionError,
    UnreadableItemsError,
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
    VALUE_NOT_RETRIEVED,
    AlwaysRetrieveFlag,
    AnyETagFlag,
    ConditionalOperationResult,
    DeleteCurrentFlag,
    ETagConditionFlag,
    ETagHasChangedFlag,
    ETagIfExists,
    ETagIsTheSameFlag,
    ETagValue,
    IfETagChangedRetrieveFlag,
    ItemNotAvailableFlag,
    Joker,
    KeepCurrentFlag,
    NeverRetrieveFlag,
    OperationResult,
    RetrieveValueFlag,
    TransformingFunction,
    ValueNotRetrievedFlag,
    ValueType,
)
from persidict.safe_chars import (
    SAFE_CHARS_SET,
    SAFE_STRING_MAX_LENGTH,
    escape_key,
    get_safe_chars,
    replace_unsafe_chars,
    unescape_key,
)
from persidict.safe_str_tuple import (
    NonEmptyPersiDictKey,
    NonEmptySafeStrTuple,
    PersiDictKey,
    SafeStrTuple,
)
from persidict.safe_str_tuple_signing import sign_safe_str_tuple, unsign_safe_str_tuple

if TYPE_CHECKING:
    from persidict.async_dict import AsyncDict
    from persidict.azure_dict import AzureDict
    from persidict.basic_s3_dict import BasicS3Dict
    from persidict.cached_appendonly_dict import AppendOnlyDictCached
    from persidict.cached_mutable_dict import MutableDictCached
    from persidict.contract.inspecting import ItemInfo
    from persidict.contract.streams import ItemWriter
    from persidict.empty_dict import EmptyDict
    from persidict.expiring_dict import ExpiringDict
    from persidict.file_dir_dict import FileDirDict
    from persidict.gcs_dict import GCSDict
    from persidict.local_dict import LocalDict
    from persidict.measured_dict import MeasuredDict, OperationStats
    from persidict.memoization import memoize
    from persidict.opening import open_dict
    from persidict.overlapping_multi_dict import OverlappingMultiDict
    from persidict.persi_dict import PersiDict
    from persidict.protection import Encrypted, KeyFromEnvironment, Signed
    from persidict.s3_dict_file_dir_cached import S3Dict, S3Dict_FileDirCached
    from persidict.sqlite_dict import SQLiteDict
    from persidict.store_dict import StoreDict
    from persidict.transfer import TransferResult, copy_items, sync_items
    from persidict.write_once_dict import WriteOnceDict

    __version__: str

_MODULE_OF = {
    "AsyncDict": "async_dict",
    "AzureDict": "azure_dict",
    "ItemInfo": "contract.inspecting",
    "ItemWriter": "contract.streams",
    "ExpiringDict": "expiring_dict",
    "memoize": "memoization",
    "BasicS3Dict": "basic_s3_dict",
    "AppendOnlyDictCached": "cached_appendonly_dict",
    "MutableDictCached": "cached_mutable_dict",
    "EmptyDict": "empty_dict",
    "FileDirDict": "file_dir_dict",
    "GCSDict": "gcs_dict",
    "LocalDict": "local_dict",
    "MeasuredDict": "measured_dict",
    "OperationStats": "measured_dict",
    "OverlappingMultiDict": "overlapping_multi_dict",
    "open_dict": "opening",
    "PersiDict": "persi_dict",
    "Encrypted": "protection",
    "KeyFromEnvironment": "protection",
    "Signed": "protection",
    "S3Dict": "s3_dict_file_dir_cached",
    "S3Dict_FileDirCached": "s3_dict_file_dir_cached",
    "SQLiteDict": "sqlite_dict",
    "StoreDict": "store_dict",
    "TransferResult": "transfer",
    "copy_items": "transfer",
    "sync_items": "transfer",
    "WriteOnceDict": "write_once_dict",
}
"""Where the dictionaries are: a module is loaded when it is first needed."""

__all__ = [
    "ALWAYS_RETRIEVE",
    "ANY_ETAG",
    "DELETE_CURRENT",
    "ETAG_HAS_CHANGED",
    "ETAG_IS_THE_SAME",
    "IF_ETAG_CHANGED",
    "ITEM_NOT_AVAILABLE",
    "KEEP_CURRENT",
    "NEVER_RETRIEVE",
    "SAFE_CHARS_SET",
    "SAFE_STRING_MAX_LENGTH",
    "VALUE_NOT_RETRIEVED",
    "AlwaysRetrieveFlag",
    "AnyETagFlag",
    "AppendOnlyDictCached",
    "AsyncDict",
    "AzureDict",
    "BackendError",
    "BasicS3Dict",
    "ConcurrencyConflictError",
    "ConditionalOperationResult",
    "DeleteCurrentFlag",
    "ETagConditionFlag",
    "ETagHasChangedFlag",
    "ETagIfExists",
    "ETagIsTheSameFlag",
    "ETagValue",
    "EmptyDict",
    "Encrypted",
    "ExpiringDict",
    "FileDirDict",
    "GCSDict",
    "IfETagChangedRetrieveFlag",
    "ItemInfo",
    "ItemNotAvailableFlag",
    "ItemWriter",
    "Joker",
    "KeepCurrentFlag",
    "KeyFromEnvironment",
    "LocalDict",
    "MeasuredDict",
    "LossyValueWarning",
    "MutableDictCached",
    "MutationPolicyError",
    "MutationPolicyErrorGroup",
    "NeverRetrieveFlag",
    "NonEmptyPersiDictKey",
    "NonEmptySafeStrTuple",
    "OperationResult",
    "OperationStats",
    "OverlappingMultiDict",
    "PersiDict",
    "PersiDictKey",
    "ProtectionError",
    "RetrieveValueFlag",
    "S3Dict",
    "S3Dict_FileDirCached",
    "SQLiteDict",
    "SafeStrTuple",
    "Signed",
    "StoreDict",
    "TransferResult",
    "TransformingFunction",
    "UnreadableItemsError",
    "ValueNotRetrievedFlag",
    "ValueType",
    "WriteOnceDict",
    "copy_items",
    "escape_key",
    "get_safe_chars",
    "memoize",
    "open_dict",
    "replace_unsafe_chars",
    "sign_safe_str_tuple",
    "sync_items",
    "unescape_key",
    "unsign_safe_str_tuple",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Load what is not needed by everybody: a dictionary, its module, or the version."""
    if name in _MODULE_OF.values():
        return import_module(f"persidict.{name}")
    if name in _MODULE_OF:
        value = getattr(import_module(f"persidict.{_MODULE_OF[name]}"), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("persidict")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
