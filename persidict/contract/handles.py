"""Handles: what a dictionary was made with, other handles on the same place, and their rights."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, TypeVar, cast

from persidict.contract.primitives import DictPrimitives
from persidict.parameters import sorted_params
from persidict.urls import Place, parameters_of, query_of

SelfType = TypeVar("SelfType", bound="HandleOperations")


def _make(cls: type[SelfType], params: Mapping[str, Any]) -> SelfType:
    """Call a constructor, also that of a subclass that knows nothing of read-only handles."""
    if params.get("read_only") and not parameters_of(cls).keys() & {"read_only", "kwargs"}:
        others = {name: value for name, value in params.items() if name != "read_only"}
        return cls(**others).read_only()
    return cls(**params)


class HandleOperations(DictPrimitives):
    """What a handle is made of, written once on its parameters."""

    _raw_of: Any = None
    """The dictionary whose stored bytes are the values of this one, if it is a raw one."""

    # ------------------------------------------------------------------ parameters

    @classmethod
    def _mask(cls, params: dict[str, Any]) -> None:
        """Mask those of the constructor's parameters, in place, that are secrets."""

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's parameters, sorted by name.

        Returns:
            Enough to build an equal handle: ``type(d)(**d.get_params())``. `read_only` is
            among them only where it is set.
        """
        if self._raw_of is not None:
            return sorted_params(self._raw_of.get_params() | {"raw": True})
        return sorted_params(self._all_params() | self._rights())

    def _all_params(self) -> dict[str, Any]:
        """Return what the constructor takes."""
        return {
            "append_only": self.append_only,
            "base_class_for_values": self.base_class_for_values,
            "serialization_format": self.serialization_format,
        } | self._own_params()

    def _own_params(self) -> dict[str, Any]:
        """Return the parameters that a subclass adds to those of every dictionary."""
        return {}

    def _rights(self) -> dict[str, Any]:
        """Return the parameter that makes another handle as read-only as this one."""
        return {"read_only": True} if self._is_read_only else {}

    def _handle_params(self) -> dict[str, Any]:
        """Return the parameters that a copy or a pickle of this handle is made from."""
        return self.get_params() | self._rights()

    def with_params(self: SelfType, **changes: Any) -> SelfType:
        """Return another handle on the same place, with other parameters of the constructor.

        Example:
            >>> from persidict import LocalDict
            >>> LocalDict().with_params(append_only=True).append_only
            True
        """
        self._mask(changes)
        if self._raw_of is not None:
            return cast("SelfType", self._raw_of.with_params(**changes).raw)
        return _make(type(self), self._handle_params() | changes)

    def __repr__(self) -> str:
        if self._raw_of is not None:
            return f"{self._raw_of!r}.raw"
        try:
            given = self.get_params()
        except AttributeError:  # shown by a debugger in the middle of its constructor, say
            return f"<{type(self).__name__}, not made yet>"
        params = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{type(self).__name__}({params})"

    def __copy__(self: SelfType) -> SelfType:
        if self._raw_of is not None:
            return cast("SelfType", self._raw_of.__copy__().raw)
        return _make(type(self), self._handle_params())

    def __deepcopy__(self: SelfType, memo: dict[int, Any]) -> SelfType:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._raw_of is not None:
            return attrgetter("raw"), (self._raw_of,)
        return _make, (type(self), self._handle_params())

    def _twin(self: SelfType) -> SelfType:
        """Return another handle that is the same in everything."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    # ------------------------------------------------------------------ rights

    @property
    def is_read_only(self) -> bool:
        """Whether this handle refuses to change items; see `read_only`."""
        return self._is_read_only

    def read_only(self: SelfType) -> SelfType:
        """Return a handle on the same items that cannot change them.

        Every operation that may change items is refused before anything is sent or looked at,
        whatever it would have come to. Copies, pickles, sub-dictionaries, `raw`, and wrappers
        and caches around the handle are read-only, too; a cache still keeps what is read. It
        protects from mistakes: ``with_params(read_only=False)`` leads back.

        Costs: nothing.

        Examples:
            >>> from persidict import LocalDict
            >>> d = LocalDict()
            >>> d["a"] = 1
            >>> shown = d.read_only()
            >>> shown["a"]
            1
            >>> shown["a"] = 2
            Traceback (most recent call last):
                ...
            persidict.exceptions.MutationPolicyError: the dictionary is read-only: ...
        """
        if self._raw_of is not None:
            return cast("SelfType", self._raw_of.read_only().raw)
        twin = self._twin()
        twin._become_read_only()
        return twin

    def _become_read_only(self) -> None:
        """Make this handle, which nobody has yet, one that cannot change items."""
        self._is_read_only = True

    # ------------------------------------------------------------------ places

    @property
    def url(self) -> str:
        """The URL that `open_dict` opens this dictionary by.

        It holds what differs from the defaults, but no secrets and no objects.

        Raises:
            TypeError: This dictionary is not at a place that a URL can tell.
        """
        place = self._place()
        if place is None:
            raise TypeError(f"a {type(self).__name__} has no URL")
        query = query_of(type(self), self.get_params(), place.told)
        return f"{place.url}?{query}" if query else place.url

    def _place(self) -> Place | None:
        return None
