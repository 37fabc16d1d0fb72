"""Move from persidict 0.309: the data are read as they are, and most code runs unchanged.

python examples/recipes/migrate_from_0309.py
"""

from __future__ import annotations

import hashlib
import pickle
from base64 import b32encode
from pathlib import Path

from persidict import FileDirDict


def write_as_0309_did(directory: Path) -> None:
    """Leave an item as 0.309 left it: a plain pickle under a signed name."""
    digest = b32encode(hashlib.md5(b"alice").digest()).decode().lower()[:4]
    directory.mkdir()
    (directory / f"alice_{digest}.pkl").write_bytes(pickle.dumps({"points": 3}))


def main() -> None:
    """Open a directory of 0.309, read it, and go on writing to it."""
    write_as_0309_did(Path("scores_0309"))
    scores = FileDirDict[dict[str, int]](base_dir="scores_0309", digest_len=4)
    print("read:", scores["alice"])
    scores["bob"] = {"points": 5}
    print("keys:", sorted(key[0] for key in scores))


if __name__ == "__main__":
    main()
