"""Move from the standard library's shelve: keys of any text become keys of safe strings.

python examples/recipes/migrate_from_shelve.py
"""

from __future__ import annotations

import shelve

from persidict import FileDirDict, replace_unsafe_chars


def main() -> None:
    """Fill a shelf, move it, and compare."""
    with shelve.open("old_shelf") as shelf:
        shelf["alice"] = {"points": 3}
        shelf["bob smith"] = {"points": 5}

    moved = FileDirDict[dict[str, int]](base_dir="moved_shelf")
    with shelve.open("old_shelf", flag="r") as shelf:
        names = {key: replace_unsafe_chars(key) for key in shelf}
        if len(set(names.values())) != len(names):
            raise SystemExit("two keys would become one: choose other names")
        moved.update((name, shelf[key]) for key, name in names.items())
        assert len(moved) == len(shelf)
    print(f"{len(moved)} items moved; bob_smith has {moved['bob_smith']['points']} points")


if __name__ == "__main__":
    main()
