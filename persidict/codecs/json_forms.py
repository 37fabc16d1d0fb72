"""In which form objects are written as JSON that jsonpickle's own forms would change.

What jsonpickle writes is kept wherever it gives the object back. The forms here are calls of
functions, which every jsonpickle can read. numpy and pandas are only looked at if they are
loaded: there are no objects of theirs otherwise.
"""

from __future__ import annotations

import datetime
import pickle
import re
import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar, cast

_PLAIN_KINDS: Final = "biufcSUmM"
"""The kinds of numpy's types whose values jsonpickle's handler writes and reads."""
_LONG_DOUBLES: Final = "gG"
_PLAIN_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_POINTER: Final = struct.calcsize("P")
_CLASSES: Final = 1024
_PICKLE_PROTOCOL: Final = 5


ResultType = TypeVar("ResultType")


def cache_by_class(function: Callable[[type], ResultType]) -> Callable[[type], ResultType]:
    """Keep the answers for the classes that are asked for most."""
    return cast("Callable[[type], ResultType]", lru_cache(maxsize=_CLASSES)(function))


class Call(NamedTuple):
    """A function and the arguments that make an object of it."""

    function: Any
    arguments: tuple[Any, ...]


def unpickled(value: Any) -> Call:
    """Return the form that holds whatever can be pickled: a pickle.

    Raises:
        Exception: What `pickle.dumps` raises.
    """
    return Call(pickle.loads, (pickle.dumps(value, _PICKLE_PROTOCOL),))


def exact_form(value: Any, comes_back: Callable[[Any], Any]) -> Call | None:
    """Return a form that keeps what jsonpickle's own would lose, None where it loses nothing.

    Args:
        value: The object.
        comes_back: Returns what a value becomes by jsonpickle's own form.
    """
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic, numpy.dtype)):
        return None if _is_plain(numpy, value) else unpickled(value)
    if pandas is not None and type(value).__module__.partition(".")[0] == "pandas":
        return None if _is_same(pandas, value, comes_back) else unpickled(value)
    if isinstance(value, bytearray):
        return Call(bytearray, (bytes(value),)) if type(value) is bytearray else unpickled(value)
    if isinstance(value, (datetime.datetime, datetime.time)):
        # the default protocol of __reduce__ has no room for it
        return Call(*value.__reduce_ex__(4)[:2]) if value.fold else None
    if isinstance(value, re.Pattern):
        return _form_of_pattern(value)
    return unpickled(value) if is_foreign(type(value)) else None


def _form_of_pattern(pattern: re.Pattern[Any]) -> Call | None:
    if isinstance(pattern.pattern, str) and re.compile(pattern.pattern).flags == pattern.flags:
        return None
    return Call(re.compile, (pattern.pattern, pattern.flags))


def _is_plain(numpy: Any, value: Any) -> bool:
    """Tell whether jsonpickle's handlers give an array, a scalar or a type back."""
    if isinstance(value, numpy.dtype):
        return _is_plain_type(value)
    if isinstance(value, numpy.generic):
        return value.dtype.kind not in "mMV" and _is_plain_type(value.dtype)
    if type(value) is not numpy.ndarray or value.ndim == 0:
        return False
    if not value.dtype.isnative:
        return False  # short ones would come back in the machine's order of bytes
    if value.dtype == object:
        return value.ndim == 1 and all(type(element) in _PLAIN_SCALARS for element in value)
    return _is_plain_type(value.dtype) and _is_plain_base(numpy, value.base)


def _is_plain_base(numpy: Any, base: Any) -> bool:
    """Tell whether an array can be written as a view of another one."""
    return not isinstance(base, numpy.ndarray) or _is_plain(numpy, base)


def _is_plain_type(dtype: Any) -> bool:
    if dtype.metadata is not None or dtype.isalignedstruct:
        return False
    if dtype.names is None:
        return dtype.kind in _PLAIN_KINDS and dtype.char not in _LONG_DOUBLES
    # one field behind the other, none with a title or of more than one value
    ends = 0
    for name in dtype.names:
        field_type, offset, *title = dtype.fields[name]
        if title or offset != ends or field_type.names is not None or field_type.subdtype:
            return False
        if not _is_plain_type(field_type):
            return False
        ends += field_type.itemsize
    return bool(ends == dtype.itemsize and dtype.type.__name__ == "void")


def _is_same(pandas: Any, value: Any, comes_back: Callable[[Any], Any]) -> bool:
    """Tell whether an object of pandas comes back as it is."""
    try:
        return _is_equal(pandas, value, comes_back(value))
    except Exception:  # whatever the handlers of jsonpickle raise: they do not hold it
        return False


def _is_equal(pandas: Any, one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, pandas.DataFrame):
        return (
            one.attrs == other.attrs
            and one.flags == other.flags
            and _is_equal(pandas, one.index, other.index)
            and _is_equal(pandas, one.columns, other.columns)
            and all(
                _is_equal(pandas, one.iloc[:, at].array, other.iloc[:, at].array)
                for at in range(one.shape[1])
            )
        )
    if isinstance(one, pandas.Series):
        return (
            one.attrs == other.attrs
            and one.flags == other.flags
            and _is_equal(pandas, one.index, other.index)
            and type(one.name) is type(other.name)
            and one.name == other.name
            and _is_equal(pandas, one.array, other.array)
        )
    if isinstance(one, pandas.MultiIndex):
        return bool(one.identical(other)) and all(
            _is_equal(pandas, ours, theirs)
            for ours, theirs in zip(one.levels, other.levels, strict=True)
        )
    if isinstance(one, pandas.Index):
        return (
            bool(one.identical(other))
            and getattr(one, "freq", None) == getattr(other, "freq", None)
            and _is_equal(pandas, one.array, other.array)
        )
    if isinstance(one, pandas.api.extensions.ExtensionArray):
        if one.dtype != other.dtype or len(one) != len(other):
            return False
        return all(_is_equal(pandas, ours, theirs) for ours, theirs in zip(one, other, strict=True))
    return one is other or pickle.dumps(one) == pickle.dumps(other)


@cache_by_class
def is_foreign(value_class: type) -> bool:
    """Tell whether objects have a content that only a library's compiled code knows.

    Made without it, they may bring the interpreter down when they are used.
    """
    native = native_base(value_class)
    root = native.__module__.partition(".")[0]
    return root not in sys.stdlib_module_names and root not in ("numpy", "pandas")


@cache_by_class
def native_base(value_class: type) -> type:
    """Return the first class, from a class on, whose objects hold more than attributes.

    `object` if there is none: the size of an object tells, as it does to
    `object.__reduce_ex__`.
    """
    while (base := value_class.__base__) is not None:
        own = value_class.__basicsize__ - base.__basicsize__
        slots = value_class.__dict__.get("__slots__", ())
        names = {slots} if isinstance(slots, str) else set(slots)
        own -= _POINTER * len(names - {"__dict__", "__weakref__"})
        own -= _POINTER * (value_class.__dictoffset__ > 0 and base.__dictoffset__ <= 0)
        own -= _POINTER * (value_class.__weakrefoffset__ > 0 and base.__weakrefoffset__ <= 0)
        if own > 0 or value_class.__itemsize__ != base.__itemsize__:
            return value_class
        value_class = base
    return value_class
