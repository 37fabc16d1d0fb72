"""Parameters of dictionaries in URLs: from their names and texts, and back.

What a constructor takes is read off its signature. Secrets and objects have no place in a URL;
they are keyword arguments of `open_dict`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import inspect

SHORT_NAMES: Final = {"format": "serialization_format"}
"""What a URL may call a parameter besides its own name."""

_CLASSES: Final = {cls.__name__: cls for cls in (str, bytes, int, float, bool, dict, list, tuple)}
_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_WRITABLE: Final = {"bool", "int", "float", "str", "type", "None", "os", "PathLike"}
_TYPES: Final = re.compile(r"\w+")


class Place(NamedTuple):
    """Where a dictionary is, as a URL says it.

    Attributes:
        url: Scheme and path, without parameters.
        told: The names of the parameters that it tells.
    """

    url: str
    told: frozenset[str]


def place(scheme: str, path: str, *told: str) -> Place:
    """Return a place; characters of its path that mean something in a URL are quoted."""
    from urllib.parse import quote

    return Place(f"{scheme}://{quote(path, safe='/:@!$&()*+,;=~')}", frozenset(told))


def path_in_url(path: str) -> str:
    """Return an absolute path as it stands behind the slashes of a URL, also with a drive."""
    forward = path.replace(os.sep, "/")
    return forward if forward.startswith("/") else f"/{forward}"


@cache
def parameters_of(cls: type) -> Mapping[str, inspect.Parameter]:
    """Return what a dictionary's constructor takes, and `raw`, which every one takes."""
    import inspect  # which takes long to load

    constructor: Any = vars(cls).get("__init__") or cls.__init__  # type: ignore[misc]
    raw = inspect.Parameter("raw", inspect.Parameter.KEYWORD_ONLY, default=False, annotation="bool")
    _, *own = inspect.signature(constructor).parameters.values()
    return {parameter.name: parameter for parameter in (*own, raw)}


def check_names(cls: type, names: Iterable[str], *, where: str) -> None:
    """Raise TypeError for the first name that a class takes no parameter under."""
    known = parameters_of(cls)
    for name in names:
        if name not in known:
            meant = hint(name, {*known, *SHORT_NAMES})
            raise TypeError(
                f"{where}: a {cls.__name__} has no parameter {name!r}{meant};"
                f" it has {', '.join(sorted(known))}"
            )


def hint(name: str, known: Iterable[str]) -> str:
    """Say which of the known names was probably meant, if any."""
    from difflib import get_close_matches  # which takes long to load

    meant = get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f" (did you mean {meant[0]!r}?)" if meant else ""


def _is_secret(parameter: inspect.Parameter) -> bool:
    words = ("secret", "token", "password", "credential", "access_key", "connection_string")
    text = f"{parameter.name} {parameter.annotation}".lower()
    return any(word in text for word in words)


def _reader_of(parameter: inspect.Parameter) -> Callable[[str], Any] | None:
    """Return what makes the parameter of a text; None: no text can say what it takes."""
    types = set(_TYPES.findall(str(parameter.annotation)))
    if _is_secret(parameter) or not types <= _WRITABLE:
        return None
    for kind, reader in (
        ("bool", _read_flag),
        ("int", int),
        ("float", float),
        ("type", _read_class),
        ("str", str),
    ):
        if kind in types:
            return reader
    return None


def _read_flag(text: str) -> bool:
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ValueError("it must be true or false") from None


def _read_class(text: str) -> type:
    try:
        return _CLASSES[text]
    except KeyError:
        raise ValueError(f"it must be one of {', '.join(_CLASSES)}; pass other classes") from None


def parse_query(cls: type, query: str, url: str) -> dict[str, Any]:
    """Read the parameters of a dictionary from the query of a URL.

    Raises:
        TypeError: A name is not one of the class's.
        ValueError: A text does not say what the parameter takes, or a parameter cannot stand
            in a URL, or stands there twice.
    """
    from urllib.parse import parse_qsl

    params: dict[str, Any] = {}
    for written, text in parse_qsl(query, keep_blank_values=True):
        name = SHORT_NAMES.get(written, written)
        check_names(cls, [name], where=url)
        if name in params:
            raise ValueError(f"{url}: {written!r} is given twice")
        parameter = parameters_of(cls)[name]
        reader = _reader_of(parameter)
        if reader is None:
            raise ValueError(
                f"{name!r} cannot stand in a URL: pass it as a keyword argument of open_dict"
            )
        try:
            params[name] = None if _is_none(text, parameter) else reader(text)
        except ValueError as error:
            raise ValueError(f"{url}: {written!r} cannot be {text!r}: {error}") from error
    return params


def _is_none(text: str, parameter: inspect.Parameter) -> bool:
    return text.lower() == "none" and "None" in str(parameter.annotation)


def query_of(cls: type, params: Mapping[str, Any], told: Collection[str]) -> str:
    """Write what differs from the defaults of a class, as far as a URL can say it."""
    written: list[tuple[str, str]] = []
    for name, parameter in sorted(parameters_of(cls).items()):
        value = params.get(name, parameter.default)
        if name in told or value == parameter.default:
            continue
        text = _text_of(value)
        reader = _reader_of(parameter)
        if text is not None and (reader is not _read_class or text in _CLASSES) and reader:
            written.append((next((s for s, n in SHORT_NAMES.items() if n == name), name), text))
    from urllib.parse import urlencode

    return urlencode(written)


def _text_of(value: Any) -> str | None:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, type):
        return next((name for name, cls in _CLASSES.items() if cls is value), None)
    return str(value) if isinstance(value, (int, float, str)) else None
