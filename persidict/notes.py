"""What is added to the errors of storages and codecs, so that people know what to do."""

from __future__ import annotations

import os
import stat
import sys
from typing import Final

from persidict.exceptions import BackendError
from persidict.safe_str_tuple import NonEmptySafeStrTuple

_EXTRAS: Final = {
    "h5py": "h5",
    "joblib": "joblib",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "parquet",
    "pydantic": "plainjson",
}
"""Which extra brings a library that values may need."""


def note(error: Exception, operation: str, key: NonEmptySafeStrTuple | None) -> None:
    """Say in a storage's own error what was being done to which item, and who may."""
    about = "" if key is None else f" of item {key!r}"
    error.add_note(f"persidict: during {operation!r}{about}")
    if isinstance(error, BackendError):
        error.operation = error.operation or operation
        error.key = error.key or key
    if isinstance(error, PermissionError) and isinstance(error.filename, str):
        told = who_may(error.filename)
        if told:
            error.add_note(f"persidict: {told}")


def note_origin(error: Exception) -> None:
    """Say where an error was raised, which its frames, that are not kept, would show."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is not None:
        code = traceback.tb_frame.f_code
        error.add_note(f"persidict: {code.co_filename}:{traceback.tb_lineno} in {code.co_name}")


def extra_for(error: Exception) -> str:
    """Say which extra brings the library that is missing, if one does."""
    if not isinstance(error, ImportError) or error.name is None:
        return ""
    extra = _EXTRAS.get(error.name.partition(".")[0])
    return "" if extra is None else f" (pip install 'persidict[{extra}]')"


def who_may(path: str) -> str:
    """Say whom a path belongs to, or the directory that hides it, and who runs this.

    Returns:
        Nothing where that cannot be told, as on Windows.
    """
    if sys.platform == "win32" or not os.path.isabs(path):
        return ""
    while True:
        try:
            status = os.stat(path)
            break
        except OSError:
            above = os.path.dirname(path)
            if above == path:
                return ""
            path = above
    return (
        f"{path!r} belongs to {_user(status.st_uid)} and group {status.st_gid}, its mode is"
        f" {stat.filemode(status.st_mode)}, and this runs as {_user(os.geteuid())}"
    )


def _user(number: int) -> str:
    import pwd  # which Windows has not

    try:
        return f"user {pwd.getpwuid(number).pw_name!r}"
    except KeyError:
        return f"user {number}"
