"""One way to open every dictionary: by a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from persidict.exceptions import without_frames
from persidict.stores.shared.secret import has_userinfo, shown
from persidict.urls import check_names, hint, parameters_of, parse_query

if TYPE_CHECKING:
    from persidict.persi_dict import PersiDict
    from persidict.stores.memory import MemoryStore

_LOOKS_LIKE_A_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
"""More than one letter: ``C:`` is a drive."""


class _Scheme(NamedTuple):
    """What a scheme opens.

    Attributes:
        class_name: The public name of the class.
        place: Returns the parameters that the URL's place tells.
        form: What such a URL looks like.
        cached: The public name of the class that is meant where one of its own parameters is
            given.
    """

    class_name: str
    place: Callable[[SplitResult], dict[str, Any]]
    form: str
    cached: str | None = None


def open_dict(url: str | os.PathLike[str], **params: Any) -> PersiDict[Any]:
    """Open a dictionary, wherever it is.

    ==================================  ==========================================================
    URL                                 what is opened
    ==================================  ==========================================================
    ``data/x``, ``file:///data/x``      a FileDirDict in that directory
    ``sqlite:///data/x.db``             a SQLiteDict in that file
    ``s3://bucket/prefix``              a BasicS3Dict; an S3Dict if one of its parameters is given,
                                        such as ``base_dir``
    ``s3+http://host:9000/bucket/p``    the same on another server; also ``s3+https``
    ``mem://name``                      a LocalDict; everybody in this process who opens the name
                                        shares it, and it stays as long as the process
    ``az://container/prefix``           an AzureDict
    ``gs://bucket/prefix``              a GCSDict
    ==================================  ==========================================================

    Parameters of the dictionary stand behind a question mark, as far as they are texts,
    numbers, switches or names of Python's classes, and are not secret; ``format`` is short
    for ``serialization_format``. `url` of a dictionary tells the URL that opens it.

    Args:
        url: The URL, or the path of a directory.
        **params: More parameters of the dictionary, of any kind.

    Returns:
        A new handle.

    Raises:
        ValueError: The scheme is unknown, the URL is malformed, or a parameter has no meaning.
        TypeError: The dictionary has no such parameter, or it is given twice.

    Examples:
        >>> d = open_dict("mem://example?format=json&append_only=true")
        >>> d["a"] = 1
        >>> open_dict(d.url)["a"]
        1
    """
    try:
        cls, told = _read(url, params)
    except Exception as error:
        # who puts secrets into a URL shall not find them in reports with local variables
        url = ""
        params.clear()
        raise without_frames(error) from error.__cause__
    url = ""
    params.clear()
    return cls(**told)


def _read(
    url: str | os.PathLike[str], params: dict[str, Any]
) -> tuple[type[PersiDict[Any]], dict[str, Any]]:
    """Return the class that a URL or a path names, and what its constructor is told."""
    given: object = url
    text = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise TypeError(f"url must be a str or a path, not {type(url).__name__}")
    if not isinstance(url, str) or not _LOOKS_LIKE_A_SCHEME.match(text):
        return _read_path(text, params)
    parts = urlsplit(text)
    name = parts.scheme.lower()
    if name not in _SCHEMES:
        raise ValueError(f"{_shown(text)}: unknown scheme {name!r}{hint(name, _SCHEMES)}; {_FORMS}")
    scheme = _SCHEMES[name]
    if not text[len(name) :].startswith("://"):
        raise ValueError(f"{_shown(text)}: write {scheme.form}")
    if parts.fragment:
        raise ValueError(f"{_shown(text)}: write '#' as %23")
    names = [pair.partition("=")[0] for pair in parts.query.split("&")]
    if has_userinfo(text.partition("?")[0]) or any("@" in name for name in names):
        raise ValueError(f"a URL of {name} holds no user and no password: pass them as arguments")
    place = scheme.place(parts)
    return _checked(_class_of(scheme, parts.query, params), text, place, parts.query, params)


def _read_path(path: str, params: dict[str, Any]) -> tuple[type[PersiDict[Any]], dict[str, Any]]:
    cls = _public(_SCHEMES["file"].class_name)
    if not path:
        raise ValueError("url must not be empty; '.' is the current directory")
    if os.path.isfile(path):
        raise ValueError(f"{path!r} is a file; a database is opened by sqlite:///path/of/it")
    if "?" in path and not os.path.isdir(path):
        raise ValueError(f"{_shown(path)}: parameters need a URL: file:///path?name=value")
    return _checked(cls, path, {"base_dir": path}, "", params)


def _checked(
    cls: type[PersiDict[Any]], url: str, place: dict[str, Any], query: str, params: dict[str, Any]
) -> tuple[type[PersiDict[Any]], dict[str, Any]]:
    check_names(cls, params, where="open_dict")
    told = _shown(url)
    written = parse_query(cls, query, told)
    for given, taken in ((written, place), (params, place), (params, written)):
        twice = sorted(given.keys() & taken.keys())
        if twice:
            raise TypeError(f"{told}: {twice[0]!r} is given twice")
    made = {**place, **written, **params}
    cls._mask(made)
    return cls, made


def _class_of(scheme: _Scheme, query: str, params: dict[str, Any]) -> type[PersiDict[Any]]:
    cls = _public(scheme.class_name)
    if scheme.cached is None:
        return cls
    cached = _public(scheme.cached)
    own = parameters_of(cached).keys() - parameters_of(cls).keys()
    given = {*params, *(pair.partition("=")[0] for pair in query.split("&"))}
    # one that is misspelt is to be named by the class that it is close to
    is_cached = any(get_close_matches(name, own, n=1, cutoff=0.8) for name in given - {""})
    return cached if is_cached else cls


def _public(name: str) -> type[PersiDict[Any]]:
    package = import_module("persidict")
    try:
        cls: type[PersiDict[Any]] = getattr(package, name)
    except AttributeError:
        raise ValueError(f"this version of persidict has no {name}") from None
    return cls


def _shown(url: str) -> str:
    """Return a URL without what may be secret, for messages."""
    return repr(shown(url).partition("?")[0])


# ---------------------------------------------------------------------- places


def _file(parts: SplitResult) -> dict[str, Any]:
    return {"base_dir": _absolute(parts, "file:///path")}


def _database(parts: SplitResult) -> dict[str, Any]:
    return {"path": _absolute(parts, "sqlite:///path/of/the.db")}


def _absolute(parts: SplitResult, form: str) -> str:
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.strip("/"):
        raise ValueError(f"{_shown(parts.geturl())}: write {form}, with an absolute path")
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path


def _bucket(name_of_bucket: str) -> Callable[[SplitResult], dict[str, Any]]:
    def place(parts: SplitResult) -> dict[str, Any]:
        if not parts.netloc:
            raise ValueError(f"{_shown(parts.geturl())}: a name is missing behind '//'")
        if ":" in parts.netloc and "@" in parts.path:  # a password has a slash in it
            raise ValueError(f"a {parts.scheme} URL holds no user and no password: pass them")
        return {name_of_bucket: parts.netloc, "root_prefix": unquote(parts.path[1:])}

    return place


def _bucket_on_server(parts: SplitResult) -> dict[str, Any]:
    bucket, _, prefix = parts.path[1:].partition("/")
    if not parts.netloc or not bucket:
        raise ValueError(f"{_shown(parts.geturl())}: write {parts.scheme}://host:port/bucket")
    if "@" in unquote(bucket):  # no bucket has one: a password has a slash in it
        raise ValueError(f"a {parts.scheme} URL holds no user and no password: pass them")
    return {
        "bucket_name": unquote(bucket),
        "root_prefix": unquote(prefix),
        "endpoint_url": f"{parts.scheme.partition('+')[2]}://{parts.netloc}",
    }


_memories: Final[dict[str, MemoryStore]] = {}


def _memory(parts: SplitResult) -> dict[str, Any]:
    if not parts.netloc:
        raise ValueError(f"{_shown(parts.geturl())}: a name is missing behind '//'")
    from persidict.stores.memory import MemoryStore

    name = unquote(parts.netloc)
    backend = _memories.setdefault(name, MemoryStore(name=name))
    prefix = unquote(parts.path).strip("/")
    return {"backend": backend.scoped(f"{prefix}/") if prefix else backend}


_SCHEMES: Final = {
    "file": _Scheme("FileDirDict", _file, "file:///path"),
    "sqlite": _Scheme("SQLiteDict", _database, "sqlite:///path/of/the.db"),
    "mem": _Scheme("LocalDict", _memory, "mem://name"),
    "s3": _Scheme("BasicS3Dict", _bucket("bucket_name"), "s3://bucket/prefix", "S3Dict"),
    "s3+http": _Scheme(
        "BasicS3Dict", _bucket_on_server, "s3+http://host:port/bucket/prefix", "S3Dict"
    ),
    "s3+https": _Scheme(
        "BasicS3Dict", _bucket_on_server, "s3+https://host/bucket/prefix", "S3Dict"
    ),
    "az": _Scheme("AzureDict", _bucket("container_name"), "az://container/prefix"),
    "gs": _Scheme("GCSDict", _bucket("bucket_name"), "gs://bucket/prefix"),
}
"""What each scheme opens; the class is loaded when it is first opened."""

_FORMS: Final = "there are " + ", ".join(scheme.form for scheme in _SCHEMES.values())
