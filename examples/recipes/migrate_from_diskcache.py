"""Move from diskcache: the same calls, and conditions where there were transactions.

Needs `pip install diskcache`.

    python examples/recipes/migrate_from_diskcache.py
"""

from __future__ import annotations

import diskcache  # type: ignore[import-untyped]

from persidict import ITEM_NOT_AVAILABLE, FileDirDict


def main() -> None:
    """Fill a cache, move it, and count on where the old one stopped."""
    with diskcache.Cache("old_cache") as cache:
        cache["visits"] = 41
        cache["page"] = "<p>"

    moved = FileDirDict[object](base_dir="moved_cache")
    with diskcache.Cache("old_cache") as cache:
        moved.update((key, cache[key]) for key in cache)
        assert len(moved) == len(cache)

    # cache.incr("visits") becomes
    def one_more(current: object) -> object:
        return 1 if current is ITEM_NOT_AVAILABLE else int(str(current)) + 1

    visits = moved.transform_item("visits", transformer=one_more).new_value
    print(f"{len(moved)} items moved; this was visit {visits}")


if __name__ == "__main__":
    main()
