"""The format ``plainjson``: standard JSON, which runs no code on reading."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Any, Final

from persidict.classes import is_typed_dict
from persidict.codecs.codec import Buffer, Codec, check_installed

_PLAIN: Final = (str, int, float, bool, type(None))


class PlainJsonCodec(Codec):
    """JSON as RFC 8259 has it, in UTF-8, indented by 2: for every program in every language.

    Without `value_class` it holds dicts with str keys, lists, str, int, float, bool and None.
    With a dataclass, a TypedDict or a pydantic model it holds instances of that class, which
    pydantic writes, and checks and rebuilds on reading; with a subclass of str, such texts.
    Whatever would come back as something else is refused: tuples, keys that are no str, NaN.

    Args:
        value_class: The class of the values; None, or a class that JSON has itself.

    Raises:
        TypeError: JSON and pydantic know nothing of `value_class`.
        MissingExtraError: It needs pydantic, which is not installed.
    """

    content_type = "application/json"

    def __init__(self, value_class: type | None = None) -> None:
        has_json_itself = value_class in (None, object, dict, list, *_PLAIN)
        self._value_class = None if has_json_itself else value_class
        self._adapter: Any = None
        self._is_text = self._value_class is not None and issubclass(self._value_class, str)
        if self._value_class is not None and not self._is_text:
            check_installed("pydantic", needed_by="the format 'plainjson'", extra="plainjson")
            self._adapter = _adapter_for(self._value_class)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._value_class,)

    def encode(self, value: Any) -> bytes:
        """Turn a value into JSON.

        Raises:
            TypeError: A part of it is something that JSON does not have; the message says where.
            ValueError: It is NaN or infinite, refers to itself, or is not such as its class
                says.
        """
        if self._is_text:
            value = str.__str__(value)
        if self._adapter is not None:
            return self._encode_object(value)
        _check_plain(value, "value", set())
        return _as_json(value)

    def _encode_object(self, value: Any) -> bytes:
        dump = self._adapter.dump_python
        stored = _as_json(dump(value, mode="json", by_alias=True, warnings="error"))
        try:
            back = self._adapter.validate_json(stored)
        except ValueError as error:
            raise ValueError(f"plainjson could not read this value again: {error}") from error
        as_they_are = {"serialize_as_any": True, "warnings": False}
        one, other = dump(value, **as_they_are), dump(back, **as_they_are)
        where = None if _are_equal(one, other) else _difference(one, other, "value")
        if type(back) is not type(value) and not is_typed_dict(self._value_class):
            where = "value"
        where = where or _other_class(value, back, "value")
        if where:
            raise TypeError(
                f"plainjson would give back something else than {where}: its class is to be that"
                " of base_class_for_values, and its fields what they are annotated as"
            )
        return stored

    def decode(self, data: Buffer) -> Any:
        """Turn JSON into a value.

        Raises:
            ValueError: The bytes are not UTF-8 or not JSON, or not such as their class says.
        """
        if self._adapter is None:
            value = json.loads(str(data, "utf-8"), parse_constant=_refuse_constant)
            return self._value_class(value) if self._value_class and self._is_text else value
        return self._adapter.validate_json(bytes(data))


def _adapter_for(value_class: type) -> Any:
    from pydantic import BaseModel, TypeAdapter

    if not (
        dataclasses.is_dataclass(value_class)
        or is_typed_dict(value_class)
        or issubclass(value_class, BaseModel)
    ):
        raise TypeError(
            "plainjson holds dataclasses, TypedDicts, pydantic models and what JSON has itself,"
            f" not values of the class {value_class.__name__}"
        )
    return TypeAdapter(value_class)


def _as_json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except ValueError:  # so says an array
        return True


def _difference(one: Any, other: Any, where: str) -> str | None:
    """Say where two values differ that pydantic has taken apart; None: nowhere."""
    if type(one) is dict and type(other) is dict and one.keys() == other.keys():
        pairs = [(one[name], other[name], f"{where}[{name!r:.80}]") for name in one]
    elif type(one) is type(other) and type(one) in (list, tuple) and len(one) == len(other):
        pairs = [(*both, f"{where}[{at}]") for at, both in enumerate(zip(one, other, strict=True))]
    elif type(one) is type(other) and getattr(type(one), "__eq__", None) is object.__eq__:
        return None  # nothing tells whether they are equal
    else:
        return None if _are_equal(one, other) else where
    found = (_difference(*pair) for pair in pairs)
    return next((difference for difference in found if difference), None)


def _other_class(one: Any, other: Any, where: str) -> str | None:
    """Say where an object has come back as one of another class, which has the same fields."""
    pairs: list[tuple[Any, Any, str]] = []
    names = _fields_of(type(one))
    if names is not None:
        if type(one) is not type(other):
            return where
        pairs = [(getattr(one, n, None), getattr(other, n, None), f"{where}.{n}") for n in names]
    elif isinstance(one, dict) and isinstance(other, dict):
        pairs = [(one[name], other.get(name), f"{where}[{name!r:.80}]") for name in one]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        both = zip(one, other, strict=False)
        pairs = [(*pair, f"{where}[{at}]") for at, pair in enumerate(both)]
    found = (_other_class(*pair) for pair in pairs)
    return next((difference for difference in found if difference), None)


def _fields_of(kind: type) -> Collection[str] | None:
    """Return the fields of a dataclass or a model, None for any other class."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    fields: Collection[str] | None = getattr(kind, "model_fields", None)
    return fields


def _check_plain(value: Any, where: str, around: set[int]) -> None:
    """Refuse what would not come back as it is."""
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind is not dict and kind is not list:
        hint = ": use a list" if kind is tuple else ""
        raise TypeError(f"plainjson cannot hold a {kind.__name__} ({where}){hint}")
    if id(value) in around:
        raise ValueError(f"plainjson cannot hold what contains itself ({where})")
    around.add(id(value))
    for name, item in value.items() if kind is dict else enumerate(value):
        if kind is dict and type(name) is not str:
            raise TypeError(f"plainjson holds dicts of str keys: {where} has the key {name!r:.80}")
        _check_plain(item, f"{where}[{name!r:.80}]", around)
    around.discard(id(value))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
