"""Where a database must not lie: SQLite's write-ahead log needs memory that processes share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from persidict.exceptions import BackendError

_MOUNTS: Final = Path("/proc/self/mountinfo")
"""proc(5): one mount a line; the third field is the device, the type follows a lone dash."""

_NETWORK: Final = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.glusterfs", "fuse.sshfs", "gfs2"),
        *("fuse.rclone", "fuse.s3fs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("ocfs2", "orangefs", "pvfs2", "smb2", "smb3", "smbfs"),
    }
)


def refuse_network(path: str) -> None:
    """Refuse a database on a network file system, as far as the system tells (Linux does).

    Raises:
        BackendError: Two machines that write to it would destroy it (sqlite.org/wal.html).
    """
    kind = _file_system(os.path.dirname(path))
    if kind in _NETWORK:
        raise BackendError(
            f"{path!r} lies on a network file system ({kind}), where SQLite's log does not work;"
            " use a FileDirDict there",
            backend="sqlite",
        )


def _file_system(directory: str) -> str | None:
    try:
        device = os.stat(directory).st_dev
        mounts = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for mount in mounts:
        fields = mount.split(" ")
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return None
