"""Telling whether two values are the same, whatever they are."""

from __future__ import annotations

import pickle
import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable
from itertools import zip_longest
from numbers import Number
from typing import Any, Final

_PROTOCOL: Final = 4
"""The last one in which arrays give their state as bytes, not as buffers."""

_ATOMS: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, range})
_SCALAR_KINDS: Final = "biufcSU"
"""The kinds of numpy's scalars that Python has types of its own for."""

_TABLES: Final = frozenset({"pandas", "polars", "pyarrow"})
_EQUALITIES_BY_STATE: Final[frozenset[Any]] = frozenset(
    cls.__eq__ for cls in (object, list, tuple, dict, OrderedDict)
)
"""What classes inherit that say nothing more than their state does."""

_MISSING: Final = object()


def same_content(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, also those whose ``==`` is no single truth value.

    Numbers are compared as numbers, and NaN is NaN; arrays by dtype, shape and elements, in
    whatever order they lie in memory; dicts without regard to order; tables by labels, types
    and elements, however they were put together. Everything else must be of one class, and
    have the same state or an ``==`` that says so.

    Raises:
        Exception: What an ``==`` of the values raises.
    """
    try:
        return _Comparison(exact=False).same(one, other)
    except RecursionError:
        return _canonical(one) == _canonical(other)


def is_replica(one: Any, other: Any) -> bool:
    """Tell whether nobody can tell one value from the other, except by identity.

    Classes, signs of zeros, the order of dicts and of arrays in memory, and which parts are
    one and the same object: all must agree. A value that cannot be looked into has none.
    """
    try:
        return _Comparison(exact=True).same(one, other)
    except Exception:  # whatever cannot be compared is not known to be the same
        return False


def _canonical(value: Any) -> bytes:
    """Pickle a freshly unpickled copy: what depends on shared identities is levelled out."""
    return pickle.dumps(pickle.loads(pickle.dumps(value)))


class _Comparison:
    """A comparison under way, which remembers which objects stand for which.

    Args:
        exact: Whether what ``==`` would not tell apart is told apart.
    """

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._partners: dict[int, int] = {}
        self._partners_of_others: dict[int, int] = {}
        self._held: list[Any] = []

    def same(self, one: Any, other: Any) -> bool:
        """Compare two values."""
        if one is other:
            return True
        if not self._exact:
            one, other = _as_python(one), _as_python(other)
            if isinstance(one, Number) and isinstance(other, Number):
                return _same_number(one, other)
        if type(one) is not type(other):
            return False
        if type(one) in _ATOMS:
            return repr(one) == repr(other) if self._exact else bool(one == other)
        known = self._known(one, other)
        return self._same_parts(one, other) if known is None else known

    def _known(self, one: Any, other: Any) -> bool | None:
        """Tell what is known of two objects that were met before; None: nothing."""
        if id(one) not in self._partners and id(other) not in self._partners_of_others:
            self._partners[id(one)] = id(other)
            self._partners_of_others[id(other)] = id(one)
            self._held += (one, other)  # so that nothing else gets their ids meanwhile
            return None
        if self._partners.get(id(one)) == id(other):
            return True  # or we are inside of them
        return False if self._exact else None

    def _same_parts(self, one: Any, other: Any) -> bool:
        cls = type(one)
        if cls is list or cls is tuple:
            return self._same_sequence(one, other)
        if cls is dict:
            return self._same_mapping(one, other)
        if cls is set or cls is frozenset:
            return _pickled(one) == _pickled(other) if self._exact else bool(one == other)
        if not self._exact:
            numpy = sys.modules.get("numpy")
            if numpy is not None and isinstance(one, numpy.ndarray):
                return self._same_array(numpy, one, other)
            if cls.__module__.partition(".")[0] in _TABLES and hasattr(one, "equals"):
                return self._same_table(one, other)
        return self._same_object(one, other)

    def _same_sequence(self, one: Iterable[Any], other: Iterable[Any]) -> bool:
        pairs = zip_longest(one, other, fillvalue=_MISSING)
        return all(self.same(mine, theirs) for mine, theirs in pairs)

    def _same_mapping(self, one: dict[Any, Any], other: dict[Any, Any]) -> bool:
        if len(one) != len(other):
            return False
        if self._exact:
            return self._same_sequence(one.items(), other.items())
        if any(key not in other for key in one):  # NaN is in nothing
            return self._same_sequence(one.items(), other.items())
        return all(self.same(value, other[key]) for key, value in one.items())

    def _same_array(self, numpy: Any, one: Any, other: Any) -> bool:
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if not self.same(getattr(one, "__dict__", None), getattr(other, "__dict__", None)):
            return False
        if isinstance(one, numpy.ma.MaskedArray):
            masks = numpy.ma.getmaskarray(one), numpy.ma.getmaskarray(other)
            if not numpy.array_equal(*masks):
                return False
            one, other = one.data[~masks[0]], other.data[~masks[0]]
        return self._same_elements(numpy, numpy.asarray(one), numpy.asarray(other))

    def _same_elements(self, numpy: Any, one: Any, other: Any) -> bool:
        if one.dtype.names is not None:
            return all(self._same_elements(numpy, one[n], other[n]) for n in one.dtype.names)
        if one.dtype.hasobject:
            return self._same_sequence(one.flat, other.flat)
        if one.dtype.kind == "V":
            return bool(one.tobytes() == other.tobytes())
        if one.dtype.kind == "c":
            return self._same_elements(numpy, one.real, other.real) and self._same_elements(
                numpy, one.imag, other.imag
            )
        return bool(((one == other) | ((one != one) & (other != other))).all())

    def _same_table(self, one: Any, other: Any) -> bool:
        """Compare what pandas and its kin make, by what they say themselves."""
        axes = zip(getattr(one, "axes", ()), getattr(other, "axes", ()), strict=True)
        if not all(_same_labels(mine, theirs) for mine, theirs in axes):
            return False
        return one.equals(other) is True and all(
            self.same(getattr(one, name, None), getattr(other, name, None))
            for name in ("name", "attrs")
        )

    def _same_object(self, one: Any, other: Any) -> bool:
        """Compare objects by what they are pickled as, then by what they say themselves."""
        try:
            states = _state_of(one), _state_of(other)
        except Exception:  # what cannot be pickled may still be comparable
            states = None
        if states is not None and self.same(*states):
            return True
        equality: Any = type(one).__eq__
        if (
            self._exact
            or hasattr(type(one), "__dataclass_fields__")
            or equality in _EQUALITIES_BY_STATE
        ):
            return False
        return bool(one == other)


def _same_labels(one: Any, other: Any) -> bool:
    """Compare two axes of tables; a range is as good as a list of its numbers."""
    if {type(one).__name__, type(other).__name__} == {"RangeIndex", "Index"}:
        return bool(one.equals(other) and one.dtype == other.dtype and one.names == other.names)
    return bool(one.identical(other))


def _state_of(value: Any) -> Any:
    """Return what an object is made of, as pickle sees it."""
    reduced = value.__reduce_ex__(_PROTOCOL)
    if isinstance(reduced, str):
        return reduced, id(value)  # a global, which is the same only if it is that one
    parts = list(reduced)
    if isinstance(value, BaseException) and parts[2:] == [{}]:
        del parts[2]  # it appears once somebody has looked at the error's __dict__
    if len(parts) > 3 and parts[3] is not None:
        parts[3] = list(parts[3])
    if len(parts) > 4 and parts[4] is not None:
        parts[4] = list(parts[4]) if isinstance(value, OrderedDict) else dict(parts[4])
    return parts


def _pickled(elements: Iterable[Any]) -> Counter[bytes]:
    return Counter(pickle.dumps(element, _PROTOCOL) for element in elements)


def _as_python(value: Any) -> Any:
    """Return a scalar of numpy's as the Python object that it stands for."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item() if value.dtype.kind in _SCALAR_KINDS else value
    return value


def _same_number(one: Any, other: Any) -> bool:
    if one == other:
        return True
    if isinstance(one, complex) or isinstance(other, complex):
        return _same_number(one.real, other.real) and _same_number(one.imag, other.imag)
    return bool(one != one and other != other)
