"""A dictionary in a directory: one file for each item."""

from __future__ import annotations

import os
from typing import Any

from persidict.checks import check_flag, check_int, check_seconds_or_none
from persidict.codecs import Codec
from persidict.jokers_and_status_flags import ValueType
from persidict.naming import FileNaming
from persidict.protection import Protection
from persidict.safe_str_tuple import SafeStrTuple
from persidict.safe_str_tuple_signing import check_digest_len
from persidict.stored_dict import StoredDict
from persidict.stores.files.store import DEFAULT_LOCK_TIMEOUT, FileStore, absolute_directory
from persidict.urls import Place, path_in_url, place


class FileDirDict(StoredDict[ValueType]):
    """A persistent dictionary whose items are files below a directory.

    Writes are atomic, and durable unless `fsync` is switched off: a reader sees the old or
    the new value, whole. Every operation on one key is linearizable among the threads and
    processes of one machine. Handles can be pickled: they travel as their parameters.

    Costs: a read opens, inspects and closes one file; ``in`` and `etag` are one lstat(2); a
    write makes a temporary file, locks its directory for a moment and renames; `fsync` adds
    a sync of the file and one of the directory. Each level of a key above the last adds
    one lstat(2).

    Args:
        base_dir: The directory; made when the first item is written.
        serialization_format: See PersiDict; also the extension of the files. Files with
            another extension are left alone.
        append_only: Items can be added, but never changed or removed.
        digest_len: How many characters of a digest each part of a name carries, so that
            case-insensitive file systems keep ``A`` and ``a`` apart; 0: none.
        base_class_for_values: The class that every value must be an instance of.
        fsync: Whether what was written survives a power failure. Switch it off for data
            that can be made again: it is much faster.
        max_concurrency: How many threads write at once when many durable items are stored.
        lock_timeout: For how many seconds a write waits while others have the directory
            locked; then it raises BackendError, which names the directory and, where the
            system tells, the holder. None: it waits without end.
        codec: How values become bytes, in place of what the format says; see StoredDict.
        protection: `Signed`, `Encrypted`, or None: whether stored bytes are trusted unseen.
        read_only: Whether this handle refuses to change items; see `read_only()`.

    Raises:
        ValueError: `base_dir` is a file, a URL or empty, `digest_len` or `lock_timeout` is
            negative, or `max_concurrency` less than 1.
        TypeError: `base_dir` is no path, `fsync` not a bool, `digest_len` or
            `max_concurrency` not an int, or `lock_timeout` no number.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     d = FileDirDict(base_dir=place)
        ...     d["users", "ann"] = {"age": 31}
        ...     d["users", "ann"]
        {'age': 31}
    """

    base_dir: str
    digest_len: int
    fsync: bool
    max_concurrency: int
    lock_timeout: float | None

    def __init__(
        self,
        *,
        base_dir: str | os.PathLike[str] = "__file_dir_dict__",
        serialization_format: str = "pkl",
        append_only: bool = False,
        digest_len: int = 4,
        base_class_for_values: type | None = None,
        fsync: bool = True,
        max_concurrency: int = 4,
        lock_timeout: float | None = DEFAULT_LOCK_TIMEOUT,
        codec: Codec | None = None,
        protection: Protection | None = None,
        read_only: bool = False,
    ) -> None:
        super().__init__(
            append_only=append_only,
            base_class_for_values=base_class_for_values,
            serialization_format=serialization_format,
            codec=codec,
            protection=protection,
            read_only=read_only,
        )
        effective_digest_len = check_digest_len(digest_len)
        self.base_dir = absolute_directory("base_dir", base_dir)
        self.digest_len = digest_len
        self.fsync = check_flag("fsync", fsync)
        self.max_concurrency = check_int("max_concurrency", max_concurrency, at_least=1)
        self.lock_timeout = check_seconds_or_none("lock_timeout", lock_timeout)
        self._attach(
            FileStore(
                self.base_dir,
                fsync=self.fsync,
                max_concurrency=max_concurrency,
                lock_timeout=self.lock_timeout,
            ),
            self._chosen_codec(compress=True),
            FileNaming(serialization_format, effective_digest_len),
        )

    def _own_params(self) -> dict[str, Any]:
        return {
            "base_dir": self.base_dir,
            "digest_len": self.digest_len,
            "fsync": self.fsync,
            "lock_timeout": self.lock_timeout,
            "max_concurrency": self.max_concurrency,
        }

    def _place(self) -> Place:
        return place("file", path_in_url(self.base_dir), "base_dir")

    def _enter(self, prefix: SafeStrTuple) -> None:
        directories = self._naming.prefix_of(prefix)[:-1].replace("/", os.sep)
        # os.path.join takes longer than all the rest of this
        self.base_dir = f"{self.base_dir.rstrip(os.sep)}{os.sep}{directories}"
