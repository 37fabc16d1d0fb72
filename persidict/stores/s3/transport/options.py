"""What a user adds to requests: encryption, class of storage, who pays, whose bucket it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.validate import ParamValidator

from persidict.stores.s3.transport.messages import NOTHING_MORE

if TYPE_CHECKING:
    from botocore.model import ServiceModel

_OWNER: Final = "ExpectedBucketOwner"
_OWNER_OF_SOURCE: Final = "ExpectedSourceBucketOwner"
_WRITING: Final = ("PutObject", "CreateMultipartUpload", "CopyObject")
_FOR_ALL: Final = (
    "BypassGovernanceRetention",
    _OWNER,
    _OWNER_OF_SOURCE,
    "RequestPayer",
)
_WHERE_THOSE_ARE: Final = (*_WRITING, "DeleteObject")
_SET_HERE: Final = frozenset(
    {
        "Body",
        "Bucket",
        "ContentLength",
        "ContentMD5",
        "ContentType",
        "IfMatch",
        "IfNoneMatch",
        "Key",
        "Metadata",
        "MetadataDirective",
        "WriteOffsetBytes",
    }
)
_LEFT_ALONE: Final = ("Checksum", "CopySource", "SSECustomer")
"""How the names of parameters begin that mean nothing on other requests, or too much."""

_PLAIN_TYPES: Final = frozenset({"string", "boolean", "integer", "long"})


class RequestOptions:
    """Parameters in boto3's words that travel with every request that takes them.

    Both wires send the same: this one knows them as parameters of a boto3 client and as headers.

    Args:
        on_writing: For what writes an object: in one piece, in parts, or as a copy.
        on_all: For every operation that has such a parameter.
    """

    def __init__(
        self,
        on_writing: Mapping[str, Any] = NOTHING_MORE,
        on_all: Mapping[str, Any] = NOTHING_MORE,
    ) -> None:
        self.on_writing = on_writing
        self.on_all = on_all
        self._params: dict[str, Mapping[str, Any]] = {}
        self._headers: dict[str, Mapping[str, str] | None] = {}

    def owner_of_source(self, source: RequestOptions) -> str | None:
        """Return whom a bucket that is copied from has to belong to, unless that goes anyway.

        Args:
            source: What goes with every request about that bucket.
        """
        if _OWNER_OF_SOURCE in self.on_all:
            return None
        owner: str | None = source.on_all.get(_OWNER)
        return owner

    def __bool__(self) -> bool:
        return bool(self.on_writing or self.on_all)

    def params(self, model: ServiceModel, operation: str) -> Mapping[str, Any]:
        """Return the parameters that go with an operation, for a client.

        Args:
            model: botocore's description of S3.
            operation: The operation's name.
        """
        if not self:
            return NOTHING_MORE
        known = self._params.get(operation)
        if known is None:
            known = self._params[operation] = self._params_for(model, operation)
        return known

    def _params_for(self, model: ServiceModel, operation: str) -> Mapping[str, Any]:
        members = _members(model, operation)
        given = {**self.on_all, **(self.on_writing if operation in _WRITING else {})}
        if operation == "CopyObject" and "Tagging" in given:
            given.setdefault("TaggingDirective", "REPLACE")
        return {name: value for name, value in given.items() if name in members}

    def headers(self, model: ServiceModel, operation: str) -> Mapping[str, str] | None:
        """Return the headers that go with an operation; None: only botocore can write them.

        Args:
            model: botocore's description of S3.
            operation: The operation's name.
        """
        if not self:
            return NOTHING_MORE
        if operation not in self._headers:
            self._headers[operation] = self._headers_for(model, operation)
        return self._headers[operation]

    def _headers_for(self, model: ServiceModel, operation: str) -> Mapping[str, str] | None:
        members = _members(model, operation)
        headers = {}
        for name, value in self.params(model, operation).items():
            shape: Any = members[name]
            if shape.type_name not in _PLAIN_TYPES or shape.serialization["location"] != "header":
                return None
            text = value if isinstance(value, str) else str(value).lower()
            headers[shape.serialization["name"].lower()] = text
        return headers

    def check(self, model: ServiceModel) -> None:
        """Find fault with what S3 would find fault with, or silently ignore.

        Args:
            model: botocore's description of S3.

        Raises:
            ValueError: S3 has no such parameter, or none that is free to be set.
            TypeError: The value of one is of a wrong type.
        """
        _check("put_options", self.on_writing, _WRITING, model, _reason_against_writing)
        _check("request_options", self.on_all, _WHERE_THOSE_ARE, model, _reason_against_all)


NO_OPTIONS: Final = RequestOptions()


def _members(model: ServiceModel, operation: str) -> Mapping[str, Any]:
    """Return the parameters that an operation has, with their shapes."""
    shape = model.operation_model(operation).input_shape
    return {} if shape is None else shape.members


def options_of(name: str, given: Any) -> Mapping[str, Any]:
    """Return a user's options as a mapping of their own.

    Raises:
        TypeError: They are no mapping of names.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} must be a mapping of parameters, not {type(given).__name__}")
    for key in given:
        if not isinstance(key, str):
            raise TypeError(f"the names in {name} must be str, not {type(key).__name__}")
    return dict(given)


def with_owner(options: Mapping[str, Any], owner: Any) -> Mapping[str, Any]:
    """Return a user's options for every request, with whom the bucket has to belong to.

    Raises:
        TypeError: The owner is no str.
        ValueError: There are two.
    """
    if owner is None:
        return options
    if not isinstance(owner, str):
        raise TypeError(f"expected_bucket_owner must be a str or None, not {type(owner).__name__}")
    if not owner:
        raise ValueError("expected_bucket_owner must not be empty")
    if options.get(_OWNER, owner) != owner:
        raise ValueError(f"expected_bucket_owner and request_options[{_OWNER!r}] differ")
    return {**options, _OWNER: owner}


def _reason_against_writing(name: str) -> str | None:
    if name in _FOR_ALL:
        return "it concerns every request: pass it in request_options"
    if name.startswith("SSECustomer"):
        return "no secret is kept among options: see protection=Encrypted(...)"
    if name.startswith("Checksum"):
        return "boto_config says which checksums are sent: request_checksum_calculation"
    if name in _SET_HERE or name.startswith(_LEFT_ALONE):
        return "each request has its own"
    return None


def _reason_against_all(name: str) -> str | None:
    return None if name in _FOR_ALL else f"it can have {', '.join(_FOR_ALL)}"


def _check(
    where: str,
    options: Mapping[str, Any],
    operations: tuple[str, ...],
    model: ServiceModel,
    reason_against: Any,
) -> None:
    for name, value in options.items():
        reason = reason_against(name)
        if reason is not None:
            raise ValueError(f"{where} cannot have {name!r}: {reason}")
        found = (_members(model, operation).get(name) for operation in operations)
        shapes = [shape for shape in found if shape is not None]
        if not shapes:
            raise ValueError(
                f"{where} cannot have {name!r}: {' and '.join(operations)} have no such parameter"
            )
        report = ParamValidator().validate(value, shapes[0])
        if report.has_errors():
            raise TypeError(f"{where}[{name!r}]: {report.generate_report()}")
