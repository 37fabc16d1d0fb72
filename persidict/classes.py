"""What kinds of classes there are, as far as `isinstance` does not tell."""

from __future__ import annotations

from typing import Any


def is_typed_dict(value_class: Any) -> bool:
    """Tell whether a class is a TypedDict, be it of `typing` or of `typing_extensions`.

    Examples:
        >>> from typing import TypedDict
        >>> is_typed_dict(TypedDict("Point", {"x": int})), is_typed_dict(dict)
        (True, False)
    """
    return (
        isinstance(value_class, type)
        and issubclass(value_class, dict)
        and hasattr(value_class, "__total__")
    )
