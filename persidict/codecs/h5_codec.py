"""The format ``h5``: arrays, and dicts, lists and tuples of them, as HDF5."""

from __future__ import annotations

import io
from typing import Any, Final
from urllib.parse import quote, unquote

from persidict.codecs.codec import Buffer, Codec, check_installed

_KIND: Final = "persidict"
_VALUE: Final = "value"
_ORDINARY: Final = "".join(chr(code) for code in range(32, 127) if chr(code) not in "%/.")
_SCALARS: Final[dict[type, str]] = {bool: "bool", int: "int", float: "float", complex: "complex"}
_CONTAINERS: Final[dict[type, str]] = {dict: "dict", list: "list", tuple: "tuple"}


class H5Codec(Codec):
    """numpy arrays, Python's numbers, texts, None, and dicts, lists and tuples of all these.

    A dict is an HDF5 group of its items, a list or tuple one of ``0``, ``1`` and so on, in
    which an attribute tells which; a value that is no dict is called ``value``. HDF5 files of
    other programs are read as dicts of arrays. Reading runs no code, and opens no other file.

    Raises:
        MissingExtraError: h5py is not installed.
    """

    content_type = "application/x-hdf5"

    def __init__(self) -> None:
        check_installed("h5py", needed_by="the format 'h5'", extra="h5")

    def encode(self, value: Any) -> Buffer:
        """Turn a value into HDF5.

        Raises:
            TypeError: A part of it is none of what HDF5 holds here; the message says where.
            ValueError: An integer has more than 64 bits, or a text a null character.
        """
        import h5py  # type: ignore[import-untyped]

        stream = io.BytesIO()
        with h5py.File(stream, "w", track_order=True) as file:
            if type(value) is dict:
                _fill(file, value, "value")
            else:
                file.attrs[_KIND] = "item"
                _put(file, _VALUE, value, "value")
        return stream.getbuffer().toreadonly()

    def decode(self, data: Buffer) -> Any:
        """Turn HDF5 into a value.

        Raises:
            OSError, ValueError: The bytes are damaged, or refer to other files.
        """
        import h5py

        with h5py.File(io.BytesIO(data), "r") as file:
            is_item = file.attrs.get(_KIND) == "item"
            return _get(_child(file, _VALUE)) if is_item else _get(file)


def _fill(group: Any, value: Any, where: str) -> None:
    """Put the items of a container into a group."""
    group.attrs[_KIND] = _CONTAINERS[type(value)]
    for name, item in value.items() if type(value) is dict else enumerate(value):
        if type(value) is dict and type(name) is not str:
            raise TypeError(f"h5 holds dicts of str keys: {where} has the key {name!r:.80}")
        _put(group, _name_of(str(name)), item, f"{where}[{name!r}]")


def _put(group: Any, name: str, value: Any, where: str) -> None:
    import h5py
    import numpy as np

    kind = type(value)
    if kind in _CONTAINERS:
        _fill(group.create_group(name, track_order=True), value, where)
    elif kind in (np.ndarray, np.memmap) or isinstance(value, np.generic):
        if value.dtype.kind not in "biufcSV" or value.dtype.hasobject:
            raise TypeError(f"h5 cannot hold an array of {value.dtype}: {where}")
        try:
            dataset = group.create_dataset(name, data=value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"h5 cannot hold an array of {value.dtype}: {where}") from error
        if isinstance(value, np.generic):
            dataset.attrs[_KIND] = "scalar"
        elif value.dtype.kind == "S" and value.ndim == 0:
            dataset.attrs[_KIND] = "array"  # else one scalar in a file of another program
    elif kind in _SCALARS:
        try:
            group.create_dataset(name, data=value).attrs[_KIND] = _SCALARS[kind]
        except (TypeError, OverflowError) as error:
            raise ValueError(f"h5 holds integers of up to 64 bits: {where}") from error
    elif kind is str:
        _check_text(value, where)
        dataset = group.create_dataset(name, data=value, dtype=h5py.string_dtype())
        dataset.attrs[_KIND] = "str"
    elif value is None:
        group.create_dataset(name, data=h5py.Empty("f8")).attrs[_KIND] = "None"
    else:
        raise TypeError(f"h5 cannot hold a {kind.__name__}: {where}")


def _check_text(text: str, where: str) -> None:
    if "\0" in text:
        raise ValueError(f"h5 cannot hold null characters in a text: {where}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"h5 cannot hold surrogates in a text: {where}") from error


def _get(node: Any) -> Any:
    import h5py

    kind = node.attrs.get(_KIND)
    if isinstance(node, h5py.Group):
        items = {
            "" if name == "%" else unquote(name, errors="surrogatepass"): _get(_child(node, name))
            for name in node
        }
        if kind in ("list", "tuple"):
            values = [items[str(index)] for index in range(len(items))]
            return values if kind == "list" else tuple(values)
        return items
    if kind == "None":
        return None
    if kind == "str":
        return node.asstr()[()]
    if node.external or node.is_virtual:  # else whoever wrote it names files of whoever reads it
        raise ValueError(f"the data of {node.name!r:.80} lie in another file")
    value = node[()]
    for scalar, name in _SCALARS.items():
        if kind == name:
            return scalar(value)
    is_bytes = isinstance(value, bytes)
    if kind == "array" or (kind is None and node.shape == () and not is_bytes):
        import numpy as np

        return np.asarray(value, dtype=node.dtype)
    return value


def _child(group: Any, name: str) -> Any:
    import h5py

    link = group.get(name, getlink=True)
    child = None if isinstance(link, h5py.ExternalLink) else group.get(name)
    if child is None:
        raise ValueError(f"{name!r:.80} in {group.name!r:.80} is a link that leads out of the file")
    return child


def _name_of(key: str) -> str:
    """Return a name for a key: HDF5 gives a meaning to slashes and dots."""
    return quote(key, safe=_ORDINARY, errors="surrogatepass").replace(".", "%2E") or "%"
