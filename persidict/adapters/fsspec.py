"""A file system of fsspec on any dictionary; needs the extra ``fsspec``."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from persidict.codecs.codec import check_installed
from persidict.persi_dict import PersiDict
from persidict.safe_str_tuple import NonEmptySafeStrTuple, SafeStrTuple

try:
    import fsspec  # type: ignore[import-untyped]
    from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]
except ModuleNotFoundError:
    check_installed("fsspec", needed_by="persidict.adapters.fsspec", extra="fsspec")
    raise


class DictFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The items of a dictionary as files: what they hold are the stored bytes.

    The item under ``("2026", "table")`` is the file ``2026/table``, below the directory
    ``2026``, which is there as long as something is in it. A file that is written becomes the
    item when it is closed, atomically; closing it after an exception inside ``with`` writes it
    all the same, as fsspec does everywhere. Once this module is imported, other libraries
    reach it under ``persidict://`` with ``storage_options={"items": d}``.

    Args:
        items: The dictionary.

    Raises:
        TypeError: `items` is no PersiDict.

    Examples:
        >>> from persidict import LocalDict
        >>> d = LocalDict(serialization_format="txt", base_class_for_values=str)
        >>> fs = DictFileSystem(d)
        >>> with fs.open("2026/note", "w") as file:
        ...     _ = file.write("hello")
        >>> d["2026", "note"], fs.ls("2026", detail=False)
        ('hello', ['2026/note'])
    """

    protocol = "persidict"
    cachable = False
    root_marker = ""

    def __init__(self, items: PersiDict[Any], **kwargs: Any) -> None:
        if not isinstance(items, PersiDict):
            raise TypeError(f"items must be a PersiDict, not {type(items).__name__}")
        super().__init__(**kwargs)
        self.items = items

    def _key(self, path: str) -> NonEmptySafeStrTuple:
        try:
            return NonEmptySafeStrTuple(*self._strings(path))
        except ValueError as error:
            raise FileNotFoundError(f"{path!r} cannot be a key: {error}") from error

    def _strings(self, path: str) -> tuple[str, ...]:
        return tuple(filter(None, self._strip_protocol(path).split("/")))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a directory; costs a listing of everything below it."""
        above = self._strings(path)
        found: dict[str, dict[str, Any]] = {}
        for info in self.items.infos(prefix=SafeStrTuple(*above)):
            strings = info.key.strings
            name = "/".join(strings[: len(above) + 1])
            if len(strings) <= len(above) + 1:
                found[name] = _file(name, info)
            else:
                found.setdefault(name, {"name": name, "size": 0, "type": "directory"})
        if not found and above:
            raise FileNotFoundError(path)
        entries = [found[name] for name in sorted(found)]
        return entries if detail else [entry["name"] for entry in entries]

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """Read a file, or a part of it; negative numbers count from the end."""
        if min(start or 0, end or 0) < 0:
            start, end, _ = slice(start, end).indices(self.info(path)["size"])
        content: bytes = super().cat_file(path, start, end, **kwargs)
        return content

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Tell about a file, in one look, or about a directory."""
        strings = self._strings(path)
        name = "/".join(strings)
        if strings:
            try:
                return _file(name, self.items.info(self._key(path)))
            except KeyError:
                if not self.items.get_subdict(strings):
                    raise FileNotFoundError(path) from None
        return {"name": name, "size": 0, "type": "directory"}

    def modified(self, path: str) -> Any:
        """Return when a file was written."""
        return self.info(path)["mtime"]

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> BinaryIO:
        key = self._key(path)
        if mode == "rb":
            try:
                return self.items.open(key)
            except KeyError:
                raise FileNotFoundError(path) from None
        if mode not in ("wb", "xb"):
            raise ValueError(f"mode must be 'rb', 'wb' or 'xb', not {mode!r}: items are whole")
        self.items._refuse_if_read_only()
        return _Written(self.items.raw, key, must_be_new=mode == "xb")

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files; with `recursive`, also what is below directories."""
        for found in self.expand_path(path):
            if recursive and self.isdir(found):
                for name in self.find(found, maxdepth=maxdepth):
                    self._rm(name)
            else:
                self._rm(found)

    def _rm(self, path: str) -> None:
        if not self.items.discard(self._key(path)):
            raise FileNotFoundError(path)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy a file; directories need no copying."""
        if self.isdir(path1):
            return
        raw = self.items.raw
        try:
            raw[self._key(path2)] = raw[self._key(path1)]
        except KeyError:
            raise FileNotFoundError(path1) from None

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: directories come and go with what is in them."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: directories come and go with what is in them."""


def _file(name: str, info: Any) -> dict[str, Any]:
    return {
        "name": name,
        "size": info.size,
        "type": "file",
        "mtime": info.last_modified,
        "etag": info.etag,
    }


class _Written(io.BytesIO):
    """A file that becomes an item when it is closed."""

    def __init__(
        self, raw: PersiDict[bytes], key: NonEmptySafeStrTuple, *, must_be_new: bool
    ) -> None:
        super().__init__()
        self._raw = raw
        self._key = key
        self._must_be_new = must_be_new

    def close(self) -> None:
        if self.closed:
            return
        data = self.getvalue()
        super().close()
        if not self._must_be_new:
            self._raw[self._key] = data
        elif self._raw.setdefault(self._key, data) != data:
            raise FileExistsError("/".join(self._key.strings))


fsspec.register_implementation("persidict", DictFileSystem, clobber=True)
