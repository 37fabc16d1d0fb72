"""The names that users import, flags, results and errors."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pickle
import subprocess
import sys
from typing import Any

import pytest

import persidict
from persidict import (
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
    BackendError,
    ConcurrencyConflictError,
    ConditionalOperationResult,
    DeleteCurrentFlag,
    ETagConditionFlag,
    ETagHasChangedFlag,
    ETagIsTheSameFlag,
    ETagValue,
    IfETagChangedRetrieveFlag,
    ItemNotAvailableFlag,
    Joker,
    KeepCurrentFlag,
    MutationPolicyError,
    NeverRetrieveFlag,
    NonEmptySafeStrTuple,
    OperationResult,
    RetrieveValueFlag,
    TransformingFunction,
    ValueNotRetrievedFlag,
)

HOMES = {
    "persi_dict": ["PersiDict"],
    "file_dir_dict": ["FileDirDict"],
    "local_dict": ["LocalDict"],
    "basic_s3_dict": ["BasicS3Dict"],
    "write_once_dict": ["WriteOnceDict"],
    "empty_dict": ["EmptyDict"],
    "overlapping_multi_dict": ["OverlappingMultiDict"],
    "cached_mutable_dict": ["MutableDictCached"],
    "cached_appendonly_dict": ["AppendOnlyDictCached"],
    "s3_dict_file_dir_cached": ["S3Dict_FileDirCached", "S3Dict"],
    "safe_chars": [
        "get_safe_chars",
        "replace_unsafe_chars",
        "SAFE_CHARS_SET",
        "SAFE_STRING_MAX_LENGTH",
    ],
    "safe_str_tuple": [
        "SafeStrTuple",
        "NonEmptySafeStrTuple",
        "PersiDictKey",
        "NonEmptyPersiDictKey",
    ],
    "safe_str_tuple_signing": ["sign_safe_str_tuple", "unsign_safe_str_tuple"],
    "jokers_and_status_flags": [
        *("Joker", "KeepCurrentFlag", "KEEP_CURRENT", "DeleteCurrentFlag", "DELETE_CURRENT"),
        *("ETagValue", "ETagIfExists", "ETagConditionFlag", "AnyETagFlag", "ANY_ETAG"),
        *("ETagIsTheSameFlag", "ETAG_IS_THE_SAME", "ETagHasChangedFlag", "ETAG_HAS_CHANGED"),
        *("RetrieveValueFlag", "AlwaysRetrieveFlag", "ALWAYS_RETRIEVE"),
        *("NeverRetrieveFlag", "NEVER_RETRIEVE", "IfETagChangedRetrieveFlag", "IF_ETAG_CHANGED"),
        *("ItemNotAvailableFlag", "ITEM_NOT_AVAILABLE"),
        *("ValueNotRetrievedFlag", "VALUE_NOT_RETRIEVED"),
        *("OperationResult", "ConditionalOperationResult", "ValueType", "TransformingFunction"),
    ],
    "exceptions": ["MutationPolicyError", "ConcurrencyConflictError", "BackendError"],
}

NAMES = [(module, name) for module, names in HOMES.items() for name in names]

FLAGS: list[tuple[type, Any, str]] = [
    (KeepCurrentFlag, KEEP_CURRENT, "KEEP_CURRENT"),
    (DeleteCurrentFlag, DELETE_CURRENT, "DELETE_CURRENT"),
    (AnyETagFlag, ANY_ETAG, "ANY_ETAG"),
    (ETagIsTheSameFlag, ETAG_IS_THE_SAME, "ETAG_IS_THE_SAME"),
    (ETagHasChangedFlag, ETAG_HAS_CHANGED, "ETAG_HAS_CHANGED"),
    (AlwaysRetrieveFlag, ALWAYS_RETRIEVE, "ALWAYS_RETRIEVE"),
    (NeverRetrieveFlag, NEVER_RETRIEVE, "NEVER_RETRIEVE"),
    (IfETagChangedRetrieveFlag, IF_ETAG_CHANGED, "IF_ETAG_CHANGED"),
    (ItemNotAvailableFlag, ITEM_NOT_AVAILABLE, "ITEM_NOT_AVAILABLE"),
    (ValueNotRetrievedFlag, VALUE_NOT_RETRIEVED, "VALUE_NOT_RETRIEVED"),
]
each_flag = pytest.mark.parametrize(("kind", "flag", "name"), FLAGS, ids=[f[2] for f in FLAGS])


class TestNames:
    @pytest.mark.parametrize(("module", "name"), NAMES)
    def test_a_name_is_the_same_in_the_package_and_in_its_module(
        self, module: str, name: str
    ) -> None:
        home = importlib.import_module(f"persidict.{module}")
        assert getattr(persidict, name) is getattr(home, name)

    def test_all_lists_every_promised_name_once(self) -> None:
        promised = {name for _, name in NAMES} | {"__version__"}
        assert promised <= set(persidict.__all__)
        assert len(persidict.__all__) == len(set(persidict.__all__))

    def test_a_star_import_brings_every_name(self) -> None:
        namespace: dict[str, Any] = {}
        exec("from persidict import *", namespace)
        assert set(persidict.__all__) <= set(namespace)

    def test_the_version_is_a_string(self) -> None:
        assert persidict.__version__[0].isdigit()

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="no_such_name"):
            persidict.no_such_name  # noqa: B018

    def test_s3_dict_has_two_names(self) -> None:
        assert persidict.S3Dict is persidict.S3Dict_FileDirCached

    def test_importing_the_package_loads_nothing_heavy(self) -> None:
        heavy = ["boto3", "botocore", "numpy", "pandas", "joblib", "jsonpickle"]
        code = f"import sys, persidict; print([m for m in {heavy!r} if m in sys.modules])"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.strip() == "[]"


class TestFlags:
    @each_flag
    def test_a_flag_is_the_only_one_of_its_class(self, kind: Any, flag: object, name: str) -> None:
        assert type(flag) is kind
        assert kind() is flag

    @each_flag
    def test_a_flag_survives_copying_and_pickling(
        self, kind: type, flag: object, name: str
    ) -> None:
        pickled = [
            pickle.loads(pickle.dumps(flag, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ]
        survivors = [copy.copy(flag), copy.deepcopy(flag), *pickled]
        assert all(survivor is flag for survivor in survivors)

    @each_flag
    def test_the_repr_of_a_flag_names_it(self, kind: type, flag: object, name: str) -> None:
        assert name in repr(flag)

    def test_no_two_flags_are_equal(self) -> None:
        flags = [flag for _, flag, _ in FLAGS]
        assert len(set(flags)) == len(flags)

    def test_jokers_conditions_and_retrievals_are_families(self) -> None:
        families = [
            {name for _, flag, name in FLAGS if isinstance(flag, family)}
            for family in (Joker, ETagConditionFlag, RetrieveValueFlag)
        ]
        assert families == [
            {"KEEP_CURRENT", "DELETE_CURRENT"},
            {"ANY_ETAG", "ETAG_IS_THE_SAME", "ETAG_HAS_CHANGED"},
            {"ALWAYS_RETRIEVE", "NEVER_RETRIEVE", "IF_ETAG_CHANGED"},
        ]


class TestResults:
    CONDITIONAL = ConditionalOperationResult(True, ETagValue("1"), ETagValue("2"), "value")
    PLAIN = OperationResult(ETagValue("2"), "value")

    @pytest.mark.parametrize("result", [CONDITIONAL, PLAIN], ids=["conditional", "plain"])
    def test_a_result_is_frozen(self, result: Any) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.new_value = "other"

    @pytest.mark.parametrize("result", [CONDITIONAL, PLAIN], ids=["conditional", "plain"])
    def test_a_pickled_result_comes_back_equal(self, result: Any) -> None:
        assert pickle.loads(pickle.dumps(result)) == result

    def test_a_conditional_result_can_be_made_by_the_names_of_its_fields(self) -> None:
        made = ConditionalOperationResult(
            condition_was_satisfied=True,
            actual_etag=ETagValue("1"),
            resulting_etag=ETagValue("2"),
            new_value="value",
        )
        assert made == self.CONDITIONAL

    def test_a_plain_result_can_be_made_by_the_names_of_its_fields(self) -> None:
        assert OperationResult(resulting_etag=ETagValue("2"), new_value="value") == self.PLAIN

    @pytest.mark.parametrize(
        ("before", "after", "mutated"),
        [
            ("1", "2", True),
            ("1", "1", False),
            ("1", ITEM_NOT_AVAILABLE, True),
            (ITEM_NOT_AVAILABLE, "1", True),
            (ITEM_NOT_AVAILABLE, ITEM_NOT_AVAILABLE, False),
        ],
        ids=repr,
    )
    def test_a_value_was_mutated_if_the_version_changed(
        self, before: Any, after: Any, mutated: bool
    ) -> None:
        assert ConditionalOperationResult(True, before, after, None).value_was_mutated is mutated


class TestErrors:
    @pytest.mark.parametrize("policy", ["append-only", "write-once"])
    def test_a_policy_error_is_a_type_error_that_names_its_policy(self, policy: str) -> None:
        error = MutationPolicyError(policy)
        assert isinstance(error, TypeError)
        assert error.policy == policy
        assert policy in str(error)

    def test_a_conflict_is_a_runtime_error_with_key_and_attempts(self) -> None:
        error = ConcurrencyConflictError(NonEmptySafeStrTuple("a", "b"), 7)
        assert isinstance(error, RuntimeError)
        assert (error.key, error.attempts) == (NonEmptySafeStrTuple("a", "b"), 7)
        assert "'a', 'b'" in str(error)
        assert "7" in str(error)

    def test_a_backend_error_is_a_runtime_error_with_its_circumstances(self) -> None:
        error = BackendError("broken", backend="files", operation="get", key="k")
        assert isinstance(error, RuntimeError)
        assert (error.backend, error.operation, error.key) == ("files", "get", "k")
        assert str(error) == "broken"

    @pytest.mark.parametrize(
        "error",
        [
            MutationPolicyError("append-only", "the item exists"),
            ConcurrencyConflictError(NonEmptySafeStrTuple("a"), 7),
            BackendError("broken", backend="files", operation="get", key="k"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_a_pickled_error_comes_back_with_all_its_attributes(self, error: Exception) -> None:
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error)
        assert (str(back), vars(back)) == (str(error), vars(error))


@pytest.mark.parametrize(
    "result",
    [
        OperationResult(ETagValue("1"), [1]),
        ConditionalOperationResult(True, ETagValue("1"), ETagValue("2"), {"x": 1}),
    ],
    ids=["operation", "conditional"],
)
def test_a_result_is_a_dataclass_for_those_who_ask(result: Any) -> None:
    assert dataclasses.is_dataclass(type(result))
    names = [field.name for field in dataclasses.fields(result)]
    assert list(vars(result)) == list(type(result).__match_args__) == names
    assert dataclasses.asdict(result) == vars(result)
    assert dataclasses.replace(result, new_value=5).new_value == 5
    assert dataclasses.replace(result) == result


def test_a_transforming_function_has_a_value_type_and_is_recognised() -> None:
    assert TransformingFunction[int] != TransformingFunction[str]
    assert isinstance(lambda current: current, TransformingFunction)
    assert not isinstance(5, TransformingFunction)
