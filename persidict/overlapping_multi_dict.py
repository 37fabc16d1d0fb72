"""Several formats over one place."""

from __future__ import annotations

from typing import Any, NoReturn

from persidict.parameters import Parameterizable, sorted_params
from persidict.persi_dict import PersiDict


class OverlappingMultiDict(Parameterizable):
    """One dictionary for each format over the same place, as attributes named after them.

    Args:
        dict_type: The class of the dictionaries.
        shared_subdicts_params: Constructor parameters that all of them get.
        **individual_subdicts_params: For each format, a dict of the parameters that are its
            own; they prevail over the shared ones.

    Raises:
        TypeError: `dict_type` is no class of persistent dictionaries, or parameters are not
            dicts.
        ValueError: A format is named like an attribute of this class, or a dictionary
            refuses its parameters.

    Examples:
        >>> import tempfile
        >>> from persidict import FileDirDict
        >>> with tempfile.TemporaryDirectory() as place:
        ...     multi = OverlappingMultiDict(
        ...         dict_type=FileDirDict,
        ...         shared_subdicts_params={"base_dir": place},
        ...         pkl={},
        ...         txt={"base_class_for_values": str},
        ...     )
        ...     multi.txt["a"] = "text"
        ...     len(multi.txt), len(multi.pkl)
        (1, 0)
    """

    def __init__(
        self,
        *,
        dict_type: type[PersiDict[Any]],
        shared_subdicts_params: dict[str, Any],
        **individual_subdicts_params: dict[str, Any],
    ) -> None:
        _check_dict_type(dict_type)
        if not isinstance(shared_subdicts_params, dict):
            raise TypeError(
                "shared_subdicts_params must be a dict,"
                f" not {type(shared_subdicts_params).__name__}"
            )
        self.dict_type = dict_type
        self.shared_subdicts_params = dict(shared_subdicts_params)
        self.individual_subdicts_params = dict(individual_subdicts_params)
        for serialization_format, params in individual_subdicts_params.items():
            if not isinstance(params, dict):
                raise TypeError(
                    f"{serialization_format} must be a dict of parameters,"
                    f" not {type(params).__name__}"
                )
            if hasattr(self, serialization_format):
                raise ValueError(f"a format cannot be named {serialization_format!r} here")
            merged = {**shared_subdicts_params, **params}
            merged["serialization_format"] = serialization_format
            setattr(self, serialization_format, dict_type(**merged))

    def __getattr__(self, name: str) -> Any:
        # only reached for attributes that do not exist: the formats are set on the instance
        raise AttributeError(f"{type(self).__name__} has no format {name!r}")

    @property
    def subdicts_names(self) -> list[str]:
        """The formats, in the order in which they were given."""
        return list(self.individual_subdicts_params)

    def get_params(self) -> dict[str, Any]:
        """Return the constructor's parameters, sorted by name."""
        return sorted_params(
            {
                "dict_type": self.dict_type,
                "shared_subdicts_params": self.shared_subdicts_params,
                **self.individual_subdicts_params,
            }
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.get_params())

    def _refuse(self, *_: Any) -> NoReturn:
        formats = ", ".join(self.subdicts_names)
        raise TypeError(
            f"{type(self).__name__} holds dictionaries and is none itself:"
            f" use one of its attributes ({formats})"
        )

    __getitem__ = __setitem__ = __delitem__ = __contains__ = __iter__ = _refuse


def _check_dict_type(dict_type: object) -> None:
    if not (isinstance(dict_type, type) and issubclass(dict_type, PersiDict)):
        raise TypeError(f"dict_type must be a subclass of PersiDict, not {dict_type!r}")


def _rebuild(cls: type[OverlappingMultiDict], params: dict[str, Any]) -> OverlappingMultiDict:
    return cls(**params)
